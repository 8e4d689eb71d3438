"""Whether a load is known well enough: the rule, on windows made by hand and on real folders."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from math import log, sqrt

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import adaptive, comparison, measure, metrics, prepare, records, scenario, stats, store
from profiler.adaptive import Held, precision
from profiler.cli import run as cli_run
from profiler.engines.base import RunningEngine
from profiler.errors import EngineError, InputError
from profiler.loadgen.worker import LoadWorker
from profiler.measure import Slot
from profiler.progress import Quiet
from profiler.progress.words import precision_words
from profiler.report import ahead, verdicts
from profiler.schema import Endpoint, Estimate, LoadPoint
from profiler.settings import Measure, Search
from profiler.stats import looked
from profiler.subject import Subject
from tests import make

T98 = {2: 31.82, 3: 6.965, 4: 4.541, 5: 3.747}  # Student's, two-sided 98 %, by number of windows
ASKED = Measure(target_ci_frac=0.02, max_seconds=300)


def windows(*values, took_s=10.0, span_s=6.0, within=None):
    return [Held(value=v, took_s=took_s, span_s=span_s, within_frac=within) for v in values]


# ------------------------------------------------------------------------------------------ the rule


def test_three_windows_at_least_however_alike():
    asked = [precision(ASKED, windows(*[100.0] * n)) for n in range(4)]
    assert [each.done for each in asked] == [None, None, None, "reached"]
    assert [each.to_go for each in asked] == [3, 2, 1, 0]


@pytest.mark.parametrize(("spread", "reached"), [(0.0049, True), (0.0050, False)])
def test_reached_when_the_interval_that_allows_for_looking_is_narrow_enough(spread, reached):
    """t₂ · s / √3 ≤ ln 1.02 with the 98 % quantile: s ≤ 0.492 %."""
    values = [100 * math.exp(x * spread) for x in (-1, 0, 1)]
    found = precision(ASKED, windows(*values))
    assert (found.done == "reached") is reached
    assert found.half_frac == pytest.approx(math.exp(T98[3] * spread / sqrt(3)) - 1, rel=1e-3)


def test_no_window_is_begun_that_is_not_expected_to_end_in_time():
    noisy = windows(90.0, 110.0, 100.0)
    assert precision(msgspec.structs.replace(ASKED, max_seconds=40), noisy).done is None
    assert precision(msgspec.structs.replace(ASKED, max_seconds=39.9), noisy).done == "out of time"
    first = windows(100.0, took_s=50.0)
    assert precision(msgspec.structs.replace(ASKED, max_seconds=60), first).done == "out of time"


def test_unless_it_is_said_three_windows_are_held_however_long_they_take():
    slow, measure_ = windows(100.0, 90.0, took_s=400.0, span_s=390.0), Measure()
    assert precision(measure_, slow).done is None
    for took_s in (400.1, 433.3, 1234.7):  # three times as long, whatever sums are rounded to
        assert precision(measure_, windows(100.0, 90.0, took_s=took_s, span_s=took_s - 9.9)).done is None
    assert precision(measure_, [*slow, *slow[:1]]).done == "out of time"
    quick = windows(100.0, 90.0, 110.0, took_s=40.0, span_s=30.0) * 2
    assert precision(measure_, quick).done is None  # 240 s of ten times window_s
    assert precision(measure_, [*quick, *quick[:2]]).done == "out of time"


def test_windows_without_a_figure_are_no_reason_to_go_on_for_ever():
    nothing = windows(None, None, None, span_s=0.0)
    assert precision(ASKED, nothing[:2]).done is None
    found = precision(ASKED, nothing)
    assert (found.done, found.half_frac) == ("no figure", None)
    assert precision(ASKED, [*windows(100.0, 100.0, 100.0), nothing[0]]).done == "reached"


def test_a_guess_at_how_many_windows_are_to_come():
    """s = 1 %: n windows reach t · s / √n ≤ ln 1.02 first at n = 5 with 98 % (3.747 / √5 = 1.68)."""
    values = [100 * math.exp(x / 100) for x in (-1, 0, 1)]
    assert precision(ASKED, windows(*values)).to_go == 2
    assert precision(msgspec.structs.replace(ASKED, max_seconds=41), windows(*values)).to_go == 1


NOISY = [100 * math.exp(x * 0.02) for x in (-1, 0, 1)]


@pytest.mark.parametrize(
    ("within", "start_s", "stretch"),
    [
        (None, 600.0, 1),  # nobody knows what is inside a window
        (0.0001, 600.0, 1),  # all of it lies between windows: a longer one brings nothing
        (0.02, 0.0, 1),  # all of it is inside, but another window is cheap
        (0.02, 600.0, 4),  # and here it is dear: an engine start
    ],
)
def test_how_long_the_next_window_is(within, start_s, stretch):
    assert precision(ASKED, windows(*NOISY, within=within), start_s).stretch == stretch


@given(
    within=st.floats(0.001, 0.05),
    start_s=st.floats(0, 1000),
    more=st.lists(st.integers(1, 4), min_size=2, max_size=5),
)
@settings(deadline=None)
def test_the_length_is_what_brings_most_for_its_cost(within, start_s, more):
    """Of the interval's half, t · √(between / n + inside · Σ 1/length / n²), computed here by hand."""
    from scipy.special import stdtrit

    longer = [1, *more]
    drawn = [100 * math.exp(0.02 * (-1) ** n) for n in range(len(longer))]
    inside, logs = within**2, [log(each) for each in drawn]
    mean = sum(logs) / len(logs)
    between = max(0.0, sum((x - mean) ** 2 for x in logs) / (len(logs) - 1) - inside)
    held = [
        Held(value=value, took_s=6.0 * n + 4.0, span_s=6.0 * n, within_frac=within / sqrt(n))
        for value, n in zip(drawn, longer, strict=True)
    ]

    def gain(extra):
        def half(parts):
            n = len(parts)
            return float(stdtrit(n - 1, 0.99)) * sqrt(
                between / n + inside * sum(1 / each for each in parts) / n**2
            )

        return (half(longer) - half([*longer, extra])) / (4.0 + start_s + 6.0 * extra)

    found = precision(msgspec.structs.replace(ASKED, target_ci_frac=0.0001, max_seconds=10**6), held, start_s)
    assert gain(found.stretch) == pytest.approx(max(gain(n) for n in range(1, 5)), rel=1e-9)


def test_a_longer_window_than_is_needed_or_than_there_is_time_for_is_not_asked():
    held = windows(*NOISY, within=0.02)
    assert precision(msgspec.structs.replace(ASKED, max_seconds=30 + 4 + 13), held, 600.0).stretch == 2
    near = windows(*[100 * math.exp(x * 0.006) for x in (-1, 0, 1)], within=0.006)
    assert (precision(ASKED, near, 600.0).to_go, precision(ASKED, near, 600.0).stretch) == (1, 1)


@given(
    values=st.lists(st.floats(50, 200), min_size=1, max_size=12),
    target=st.floats(0.001, 0.5),
    most=st.floats(1, 1000),
)
def test_the_rule_always_ends_and_more_is_never_asked_for_less(values, target, most):
    asked = Measure(target_ci_frac=target, max_seconds=most)
    found = precision(asked, windows(*values))
    looser = precision(msgspec.structs.replace(asked, target_ci_frac=min(0.9, 2 * target)), windows(*values))
    assert not (found.done == "reached" and looser.done != "reached")
    assert found.done is not None or found.spent_s + 10.0 <= most + 1e-9
    assert found.done is None or found.to_go == 0
    assert 1 <= found.stretch <= adaptive.MOST_STRETCH


# ------------------------------------------------------------------------- the interval of what was looked at


def test_the_interval_of_a_looked_at_figure_is_the_98_percent_one():
    plain = stats.over_repeats([90.0, 100.0, 110.0])
    wide = looked.widened(plain)
    logs = [log(x) for x in (90, 100, 110)]
    sd = sqrt(sum((x - sum(logs) / 3) ** 2 for x in logs) / 2)
    assert log(wide.high / wide.value) == pytest.approx(T98[3] * sd / sqrt(3), rel=1e-3)
    assert (wide.value, wide.n, wide.over) == (plain.value, plain.n, plain.over)


def test_what_is_no_interval_over_repeats_stays_as_it_is():
    for each in (
        Estimate(5.0, 4.0, 6.0, 20, "batches"),
        Estimate(5.0, n=1, over="repeats"),
        Estimate(5.0, 4.0, 6.0, 100, "requests"),
    ):
        assert looked.widened(each) is each
    across = looked.widened(Estimate(1.0, -1.0, 3.0, 3, "repeats"))
    assert (across.low, across.high) == pytest.approx(
        (1 - 2 * T98[3] / 4.303, 1 + 2 * T98[3] / 4.303), rel=1e-3
    )
    assert looked.half_frac(across) is None


def test_stopping_when_it_looks_narrow_keeps_its_promise():
    """2,000 loads whose windows scatter so that three to twelve are needed: the interval printed covers the
    truth in 95 % of them, which the plain one does not."""
    import numpy as np

    rng, covers, plain = np.random.default_rng(7), 0, 0
    for _ in range(2000):
        drawn = [100 * math.exp(x) for x in rng.normal(0, 0.018, 12)]
        held = windows(*drawn, took_s=10.0, span_s=6.0)
        stop = next(n for n in range(3, 13) if precision(ASKED, held[:n]).done or n == 12)
        found = stats.over_repeats(drawn[:stop])
        wide = looked.widened(found)
        covers += wide.low <= 100 <= wide.high
        plain += found.low <= 100 <= found.high
    assert covers / 2000 >= 0.945
    assert plain / 2000 < 0.935


# ------------------------------------------------------------------------------------------- run folders

ONE = LoadPoint(mode="closed", concurrency=1)
RATE = LoadPoint(mode="open", requests_per_s=5.0)


@pytest.fixture
def plan(tmp_path):
    overrides = ("measure.target_ci_frac=2%", "load.concurrency=1", "measure.max_seconds=1000")
    words = prepare.Request(
        models=("a", "b"), scenario="smoke", engine="simulated", out=tmp_path, overrides=overrides
    )
    return prepare.prepare(words)


@pytest.fixture
def subjects(plan):
    found = [Subject(plan, 0), Subject(plan, 1)]
    yield found
    for each in found:
        each.writer.close()


def hold(subject, point=ONE, idle_s=0.0):
    """A window of 50 requests in 10 s, and of ``idle_s`` in which nothing came, as if it had been held."""
    number, repeat = subject.writer.next_index, subject.held(point)
    _, requests = make.steady(number, 10.0 + 30 * number)
    start_s = 10.0 + 30 * number
    window = make.window(number, start_s, start_s + 10.0 + idle_s, point=point, repeat=repeat)
    records.write_records(subject.writer.records_path(number), requests)
    subject.writer.add(window)


def test_windows_are_read_back_once_with_figure_and_time(subjects, monkeypatch):
    subject = subjects[0]
    for _ in range(3):
        hold(subject)
    known = subject.precision(ONE)
    assert (known.windows, known.half_frac, known.done) == (3, pytest.approx(0.0, abs=1e-9), "reached")
    each = adaptive.held(store.load(subject.writer.folder))[0]
    assert each.value == pytest.approx(25.0)  # 250 tokens in 10 s
    assert each.span_s == pytest.approx(10.0)
    assert each.took_s > each.span_s
    monkeypatch.setattr(store.RunResult, "requests", property(lambda _: pytest.fail("read again")))
    assert subject.precision(ONE) == known


def test_an_open_loop_is_known_by_its_latency(subjects):
    hold(subjects[0], RATE)
    (found,) = adaptive.held(store.load(subjects[0].writer.folder))
    run = store.load(subjects[0].writer.folder)
    (point,) = metrics.points(run)
    assert adaptive.headline(RATE, point.estimates) == "tpot_s_mean"
    assert found.value == pytest.approx(point.estimates["tpot_s_mean"].value)
    assert found.within_frac is None


def test_each_load_is_held_until_it_is_known_and_no_longer(plan, subjects):
    """All windows are alike: three each, the models by turns, though nobody said three."""
    order = []
    for slot in measure._slots(plan, subjects):
        order.append(slot.subject)
        assert slot.repeat == subjects[slot.subject].held(ONE)
        hold(subjects[slot.subject])
    assert order == [0, 1, 1, 0, 0, 1]
    assert measure._left(plan, subjects) == 0


def test_a_load_that_is_known_drops_out_and_the_other_goes_on(plan, subjects, monkeypatch):
    wanted = {0: 3, 1: 5}

    def says(self, point):
        done = "reached" if self.held(point) >= wanted[subjects.index(self)] else None
        return adaptive.Precision(
            windows=self.held(point), spent_s=1.0, target_frac=0.02, done=done, stretch=2
        )

    monkeypatch.setattr(Subject, "precision", says)
    order = []
    for slot in measure._slots(plan, subjects):
        order.append(slot)
        hold(subjects[slot.subject])
    assert [slot.subject for slot in order] == [0, 1, 1, 0, 0, 1, 1, 1]
    assert {slot.stretch for slot in order} == {2}


def test_a_resumed_run_goes_on_where_it_stood(plan, subjects):
    for subject in subjects[:1] * 3 + subjects[1:]:
        hold(subject)
    resumed = [Subject.__new__(Subject) for _ in subjects]  # nothing but what is on disk
    for old, new in zip(subjects, resumed, strict=True):
        new.__dict__.update(old.__dict__, _held=[])
    slots = measure._slots(plan, resumed)
    assert [(slot.subject, slot.repeat) for slot in itertools.islice(slots, 1)] == [(1, 1)]


def test_a_number_of_repeats_is_held_exactly(plan, subjects):
    fixed = msgspec.structs.replace(
        plan, scenario=msgspec.structs.replace(plan.scenario, measure=Measure(repeats=4))
    )
    slots = list(measure._slots(fixed, subjects))
    assert len(slots) == 8
    assert measure._left(fixed, subjects) == 8
    assert not fixed.scenario.is_adaptive


def test_a_stretched_window_is_asked_of_the_load_generator(subjects, monkeypatch):
    subject = subjects[0]
    endpoint = Endpoint(base_url="http://127.0.0.1:1/v1", model="a")
    up = RunningEngine(endpoint=endpoint, facts=subject.writer.manifest.engine)
    monkeypatch.setattr(Subject, "_up", up)
    job = subject._job(Slot(0, 0, ONE, stretch=3))
    plain = subject.plan.scenario.measure
    assert job.measure.window_s == 3 * plain.window_s
    assert job.measure.max_window_s == max(plain.max_window_s, 3 * plain.window_s)


def test_starts_are_a_cost_of_windows_only_where_each_repeat_has_its_own(plan, subjects):
    subject = subjects[0]
    subject.writer.update(starts_s=(20.0, 40.0))
    assert subject._start_share_s() == 0.0
    subject.plan = msgspec.structs.replace(plan, exclusive=True)
    assert subject._start_share_s() == 30.0
    subject.plan = msgspec.structs.replace(subject.plan, models=plan.models[:1])
    assert subject._start_share_s() == 0.0


def test_only_a_run_that_was_looked_at_has_the_wider_interval(subjects):
    for idle_s in (0.0, 0.1, 0.3):
        hold(subjects[0], idle_s=idle_s)
    run = store.load(subjects[0].writer.folder)
    asked = msgspec.structs.replace(run.manifest.scenario, measure=Measure(repeats=3))
    fixed = store.RunResult(run.folder, msgspec.structs.replace(run.manifest, scenario=asked))
    (wide,), (plain,) = metrics.points(run), metrics.points(fixed)
    rates = wide.estimates["output_tokens_per_s"], plain.estimates["output_tokens_per_s"]
    assert rates[0].high > rates[1].high > rates[1].value
    for name, each in plain.estimates.items():
        assert wide.estimates[name] == (each and looked.widened(each)), name


def test_how_long_it_may_take_is_said_before_it_begins():
    asked = ["load.concurrency=1,8", "measure.window_s=30", "measure.warmup_s=10"]
    (said,) = ahead.precision_asked(scenario.load("chat", asked), models=2)
    assert said.startswith(
        "each of 4 loads is held until it is known to ±2%: 8 min at least, as a rule 20 min at"
    )
    (said,) = ahead.precision_asked(scenario.load("chat", [*asked[1:], "load.concurrency=1"]), models=1)
    assert said.startswith("the load is held")
    (said,) = ahead.precision_asked(scenario.load("chat", [*asked, "measure.max_seconds=120"]), models=2)
    assert "8 min at least, as a rule 8 min at most" in said
    assert not list(ahead.precision_asked(scenario.load("trio"), models=3))


def test_a_resumed_run_is_not_announced_as_if_it_began(plan, monkeypatch, capsys):
    monkeypatch.setattr(measure, "execute", lambda plan, show, worker: [])
    cli_run._measure(plan, None, quiet=False)
    assert "is held until it is known to" in capsys.readouterr().err
    for resumed, quiet in (((None,), False), ((), True)):
        cli_run._measure(msgspec.structs.replace(plan, resumed=resumed), None, quiet=quiet)
        assert "is held until" not in capsys.readouterr().err


def test_what_was_reached_is_in_the_table(subjects):
    for idle_s in (0.0, 0.1, 0.3):
        hold(subjects[0], idle_s=idle_s)
    hold(subjects[0], RATE)
    run = store.load(subjects[0].writer.folder)
    closed, opened = comparison.summarise([run])
    assert closed["ci_frac"] == pytest.approx(subjects[0].precision(ONE).half_frac)
    assert closed["target_ci_frac"] == 0.02
    assert closed["measured_s"] == pytest.approx(subjects[0].precision(ONE).spent_s)
    assert (opened["ci_frac"], opened["repeats"]) == (None, 1)
    (line,) = verdicts.precision_lines([closed, opened])
    ci = f"{closed['ci_frac']:.1%}"
    assert line == (
        f"a, asked for ±2%: at 1 stopped at ±{ci} after 3 windows, {closed['measured_s']:.0f} s; "
        f"at 5/s no interval after 1 window, {opened['measured_s']:.0f} s"
    )
    assert list(verdicts.precision_lines([closed | {"target_ci_frac": None}])) == []
    reached = closed | {"target_ci_frac": 0.5}
    (line,) = verdicts.precision_lines([reached])
    assert f"at 1 ±{ci} after 3 windows" in line


def test_progress_says_what_is_known_so_far():
    known = precision(ASKED, windows(*[100 * math.exp(x * 0.01) for x in (-1, 0, 1)]))
    assert precision_words(known.half_frac, known.windows) == "±4.1% after 3 windows"
    assert precision_words(precision(ASKED, windows(100.0)).half_frac, 1) == ""


# ------------------------------------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("overrides", "repeats", "target", "most_s"),
    [
        ((), None, 0.02, None),
        (("measure.repeats=3",), 3, 0.02, None),
        (("measure.target_ci_frac=1%", "measure.max_seconds=10min"), None, 0.01, 600.0),
    ],
)
def test_what_is_said_takes_the_place_of_what_the_file_says(overrides, repeats, target, most_s):
    found = scenario.load("smoke" if repeats is None and overrides else "chat", overrides)
    said = found.measure
    assert (said.repeats, said.target_ci_frac, said.max_seconds) == (repeats, target, most_s)
    assert found.is_adaptive is (repeats is None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("repeats = 3\nmax_seconds = 600", ["measure.max_seconds", "no effect", "measure.repeats"]),
        ("repeats = 3\ntarget_ci_frac = 0.01", ["measure.target_ci_frac", "no effect"]),
        ("max_seconds = 100", ["measure.max_seconds", "3 windows", "105 s"]),
        ("target_ci_frac = 0", ["measure.target_ci_frac", "> 0"]),
        ("max_seconds = 'soon'", ["measure.max_seconds", "'30s'"]),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, text, words):
    file = tmp_path / "mine.toml"
    file.write_text(f"[workload]\ninput_tokens = 8\noutput_tokens = 8\n[load]\n[measure]\n{text}\n")
    with pytest.raises(InputError) as caught:
        scenario.load(file)
    for word in words:
        assert word in str(caught.value)


def test_two_ways_to_say_how_many_windows_are_one_too_many():
    with pytest.raises(InputError, match=r"--set: measure.max_seconds: has no effect: measure.repeats"):
        scenario.load("chat", ["measure.repeats=3", "measure.max_seconds=600"])


def test_a_search_is_not_adaptive():
    found = scenario.load("open", ["search.find=knee"])
    assert not found.is_adaptive
    with pytest.raises(InputError, match="search has its own end"):
        scenario.load("open", ["search.find=knee", "measure.max_seconds=600"])


def test_a_number_of_repeats_has_the_digest_it_always_had():
    """Of an older version, whose scenarios had neither target nor limit: its runs can be resumed."""
    found = scenario.load("smoke", ["measure.repeats=3"])
    assert scenario.digest(found) == "98cd1318f25debbebb23b166914ec3039f58c184182096391f1f81c10c146b74"
    assert scenario.digest(scenario.load("smoke", ["measure.max_seconds=60"])) != scenario.digest(
        scenario.load("smoke", ["measure.max_seconds=61"])
    )


# ------------------------------------------------------------------------------------------- end to end


def test_a_run_ends_when_it_knows_enough_and_says_so(tmp_path):
    words = [
        *("run", "-m", "sim", "-s", "smoke", "--engine", "simulated", "--out", str(tmp_path)),
        *(
            "--set",
            "measure.target_ci_frac=30%",
            "--set",
            "load.concurrency=2",
            "--set",
            "measure.window_s=0.5",
        ),
        *("--set", "measure.warmup_s=0.1", "--set", "measure.min_requests=1"),
        *("--set", "engine.args.itl_s=0.005", "--set", "engine.args.ttft_s=0.01"),
    ]
    said = subprocess.run(
        [sys.executable, "-m", "profiler", *words], capture_output=True, text=True, check=True, timeout=60
    )
    assert "sim, asked for ±30%: at 2 ±" in said.stdout
    assert "after 3 windows" in said.stdout
    assert " after 2 windows (about 1 to go" in said.stderr
    (run,) = store.find([tmp_path])
    assert len(run.manifest.windows) == 3


class Broken(Quiet):
    """Fails after the second window."""

    def window(self, model, slot, window, left, known):
        if slot.repeat == 1:
            raise EngineError("cut")


def test_an_interrupted_run_is_completed_as_it_was_begun(tmp_path):
    overrides = (
        *("measure.target_ci_frac=30%", "load.concurrency=2", "measure.window_s=0.5", "measure.warmup_s=0.1"),
        *("measure.min_requests=1", "engine.args.itl_s=0.005", "engine.args.ttft_s=0.01"),
    )
    words = prepare.Request(
        models=("sim",), scenario="smoke", engine="simulated", out=tmp_path, overrides=overrides
    )
    with LoadWorker() as worker, pytest.raises(EngineError):
        measure.execute(prepare.prepare(words), Broken(), worker)
    (kept,) = store.find([tmp_path])
    assert len(kept.manifest.windows) == 2
    (folder,) = measure.execute(prepare.resume(kept.folder), Quiet())
    found = store.load(folder).manifest
    assert (found.status, [each.repeat for each in found.windows]) == ("complete", [0, 1, 2])


def test_a_search_keeps_its_engine(plan, subjects):
    hold(subjects[0])
    turns = msgspec.structs.replace(plan, exclusive=True)
    search = msgspec.structs.replace(plan.scenario, search=Search(find="knee"))
    for changed, fresh in ((turns, True), (msgspec.structs.replace(turns, scenario=search), False)):
        subjects[0].plan = changed
        assert measure._is_next_repeat(subjects[0], Slot(0, 1, ONE)) is fresh
        assert not measure._is_next_repeat(subjects[0], Slot(0, 0, ONE))


@pytest.mark.parametrize(("alone", "starts"), [(False, [3, 3]), (True, [1, 0])])
def test_each_repeat_of_models_that_take_turns_is_an_engine_start(plan, subjects, monkeypatch, alone, starts):
    """The order is a b, b a, a b: b keeps no engine from its first turn to its second; who is alone does."""
    began, up = [0, 0], set()

    def start(self, *_, **__):
        began[subjects.index(self)] += self not in up
        up.add(self)

    def stop(self):
        up.discard(self)

    monkeypatch.setattr(Subject, "start", start)
    monkeypatch.setattr(Subject, "stop", stop)
    monkeypatch.setattr(Subject, "warm_up", lambda *_: None)
    monkeypatch.setattr(Subject, "hold", lambda self, slot, *_: hold(self))
    asked = msgspec.structs.replace(plan.scenario, measure=Measure(repeats=3))
    changed = msgspec.structs.replace(plan, scenario=asked, exclusive=True)
    if alone:
        changed = msgspec.structs.replace(changed, models=plan.models[:1], settings=plan.settings[:1])
    for each in subjects:
        each.plan = changed
    for slot in measure._slots(changed, subjects):
        measure._one_window(subjects[: len(changed.models)], slot, None, Quiet())
        assert len(up) == 1
    assert began == starts
