"""The gate: false alarms, what it finds, what it refuses to compare, and how it says so."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest

from profiler import comparison, gate, stats, store
from profiler.errors import InputError, StoreError
from profiler.gate import judge, limits, sides
from profiler.gate.nouns import FAILURES, Limits, Pair, Side, Subject
from profiler.report import gate as report
from profiler.schema import EngineFacts, Imported, Model, Price
from profiler.settings import Load
from tests import make

METRICS = ("output_tokens_per_s", "ttft_s_p50", "itl_s_p50", "memory_peak_bytes")
LOADS = ("closed 1", "closed 8", "closed 32")


def side(rng, replicas, factor=1.0, spread=0.02, **changes):
    values = {name: list(factor * np.exp(rng.normal(0, spread, replicas))) for name in METRICS}
    return Side(values=values, requests=100, **changes)


def simulated(rng, replicas, limit, factor=1.0):
    """The verdict of a gate over 12 cells; ``factor`` makes the first load's TTFT worse."""
    pairs = []
    for load in LOADS:
        new, base = side(rng, replicas), side(rng, replicas)
        if load == LOADS[0]:
            new.values["ttft_s_p50"] = [x * factor for x in new.values["ttft_s_p50"]]
        subject = Subject(model="m", scenario="s", load=load)
        pairs.append(Pair(subject=subject, new=new, base=base, replica="starts"))
    cells = judge.cells(pairs, Limits(of=dict.fromkeys(METRICS, limit) | {FAILURES: 0.01}))
    return gate.nouns.Report(cells=tuple(cells)).verdict


@pytest.mark.parametrize(("replicas", "limit"), [(3, 0.0), (5, 0.0), (5, 0.05)])
def test_false_alarms_are_at_most_one_in_twenty(replicas, limit):
    rng = np.random.default_rng(11)
    failed = sum(simulated(rng, replicas, limit) == "fail" for _ in range(400))
    assert failed / 400 <= 0.06  # 5 % and two standard errors of 400 are 7 %


def test_a_true_regression_is_mostly_found():
    rng = np.random.default_rng(12)
    verdicts = [simulated(rng, 5, 0.05, factor=1.15) for _ in range(200)]
    assert verdicts.count("fail") / 200 >= 0.8
    assert "pass" not in verdicts


def test_equal_populations_pass_with_enough_starts():
    rng = np.random.default_rng(13)
    verdicts = [simulated(rng, 20, 0.05) for _ in range(50)]
    assert verdicts.count("pass") / 50 >= 0.9


def one(metric, new, base, limit=0.05, **changes):
    """The only cell of a gate over one metric."""
    subject = Subject(model="m", scenario="s", load="closed 1")
    sides = (Side(values={metric: values} if values else {}) for values in (new, base))
    pair = Pair(subject=subject, new=next(sides), base=next(sides), replica=changes.pop("replica", "starts"))
    return judge.cells([pair], Limits(of={metric: limit}, **changes))[0]


def test_the_direction_of_a_metric_decides_what_is_worse():
    low, high = [0.79, 0.80, 0.81], [0.99, 1.0, 1.01]
    assert one("output_tokens_per_s", low, high).verdict == "fail"
    assert one("output_tokens_per_s", high, low).verdict == "pass"
    assert one("ttft_s_p50", high, low).verdict == "fail"
    assert one("ttft_s_p50", low, high).verdict == "pass"


def test_the_limit_is_a_share_of_the_baseline():
    base = [0.9999, 1.0, 1.0001]
    assert one("output_tokens_per_s", [0.951, 0.9511, 0.9509], base).verdict == "pass"
    assert one("output_tokens_per_s", [0.949, 0.9491, 0.9489], base).verdict == "fail"
    assert one("ttft_s_p50", [1.049, 1.0491, 1.0489], base).verdict == "pass"
    assert one("ttft_s_p50", [1.051, 1.0511, 1.0509], base).verdict == "fail"


def test_a_rate_that_may_have_halved_is_undecided_at_half():
    scatter = np.exp(0.096 * np.array([-1.265, -0.632, 0.0, 0.632, 1.265]))
    cell = one("output_tokens_per_s", list(0.57 * scatter), list(scatter), limit=0.5)
    assert cell.change.low < 0.5 < cell.change.high < 1 / 1.5
    assert cell.verdict == "undecided"


def test_noise_is_undecided_and_says_how_much_would_decide():
    cell = one("ttft_s_p50", [1.1, 0.9, 1.2], [1.0, 0.8, 1.1])
    assert cell.verdict == "undecided"
    assert cell.needed is not None
    assert f"about {cell.needed} engine starts a side" in cell.why
    # With so many, a change of this size and spread is decided four times in five.
    rng = np.random.default_rng(14)
    found = stats.log_ratio([1.1, 0.9, 1.2], [1.0, 0.8, 1.1])
    spread = found.error / np.sqrt(2 / 3)
    decided = 0
    for _ in range(200):
        new, base = (list(np.exp(rng.normal(mean, spread, cell.needed))) for mean in (found.mean, 0.0))
        decided += one("ttft_s_p50", new, base).verdict == "fail"
    assert decided / 200 >= 0.75


def test_a_single_replica_a_side_decides_nothing():
    cell = one("ttft_s_p50", [2.0], [1.0], replica="repeats")
    assert (cell.verdict, cell.p) == ("undecided", None)
    assert "at least 3" in cell.why
    assert cell.change.value == 2.0


def test_windows_of_one_start_fail_only_beyond_what_starts_scatter():
    base = [0.999, 1.0, 1.001]
    near, far = [value * 1.09 for value in base], [value * 1.2 for value in base]
    assert one("ttft_s_p50", near, base).verdict == "fail"
    assert one("ttft_s_p50", near, base, replica="repeats").verdict == "undecided"
    assert one("ttft_s_p50", far, base, replica="repeats").verdict == "fail"
    assert one("ttft_s_p50", base, base[::-1], replica="repeats").verdict == "pass"


def test_one_new_start_is_held_against_the_spread_of_the_baseline():
    base = [0.99, 1.0, 1.01, 1.0]
    cell = one("ttft_s_p50", [1.5], base)
    assert cell.verdict == "fail"
    assert cell.alone
    assert one("ttft_s_p50", [1.06], base).verdict == "undecided"


def test_what_never_varies_passes_and_what_is_zero_has_no_ratio():
    assert one("itl_s_p50", [0.0, 0.0], [0.0, 0.0]).verdict == "pass"
    assert "has no ratio" in one("itl_s_p50", [0.1, 0.0], [0.1, 0.0]).why


def test_a_metric_that_one_side_lacks():
    assert one("ttft_s_p50", [], [1.0, 1.0]).why == "not measured in the new runs"
    assert one("ttft_s_p50", [1.0, 1.0], [], named=True).why == "not measured in the baseline"
    subject = Subject(model="m", scenario="s", load="closed 1")
    new, old = Side(values={"ttft_s_p50": [1.0]}), Side(values={})
    pair = Pair(subject=subject, new=new, base=old, replica="starts")
    assert judge.cells([pair], Limits(of={"ttft_s_p50": 0.05})) == []


def failing(new, base):
    subject = Subject(model="m", scenario="s", load="closed 1")
    sides = [Side(values={}, requests=n, failed=failed) for failed, n in (new, base)]
    pair = Pair(subject=subject, new=sides[0], base=sides[1], replica="starts")
    return judge.cells([pair], Limits(of={FAILURES: 0.01}))[0]


@pytest.mark.parametrize(
    ("new", "base", "verdict"),
    [
        ((0, 50), (0, 50), "pass"),
        ((3, 50), (4, 50), "pass"),
        ((1, 50), (0, 50), "undecided"),
        ((10, 50), (0, 50), "fail"),
        ((1, 10_000), (0, 10_000), "pass"),  # a rise, and surely below one in a hundred
        ((40, 10_000), (0, 10_000), "pass"),
        ((4, 500), (0, 5_000), "undecided"),  # a rise beyond chance, maybe not beyond the limit
        ((0, 0), (0, 50), "undecided"),
    ],
)
def test_a_rise_in_failed_requests_is_a_regression(new, base, verdict):
    assert failing(new, base).verdict == verdict


def test_limits_are_read():
    assert limits.read().of["ttft_s_p50"] == 0.05
    found = limits.read("10%", ["ttft_s_p99=0.2", "output_tokens_per_s"])
    assert found.named
    assert found.of == {FAILURES: 0.01, "ttft_s_p99": 0.2, "output_tokens_per_s": 0.1}
    assert limits.read("5%", ["requests_failed_frac=0%"]).of == {FAILURES: 0.0}


@pytest.mark.parametrize("text", ["5", "-1%", "100%", "much", "nan", ""])
def test_a_limit_is_a_share(text):
    with pytest.raises(InputError, match="max-regression"):
        limits.read(text)


@pytest.mark.parametrize("name", ["ttft_p99_s", "input_tokens_mean", ""])
def test_a_metric_must_be_one_that_can_worsen(name):
    with pytest.raises(InputError, match="--metric"):
        limits.read("5%", [name])


# ------------------------------------------------------------------------- on run folders


def held(window, start_s, pace, requests=40):
    """One slot whose requests follow each other ``pace`` times as slowly as in ``make.steady``."""
    records = []
    for n in range(requests):
        record = make.request(window, n, start_s + n * 0.2 * pace)
        arrivals = [record.due_ns + round((at - record.due_ns) * pace) for at in record.arrivals_ns]
        ends = {"first_ns": arrivals[0], "last_ns": arrivals[-1], "done_ns": arrivals[-1] + 1}
        records.append(msgspec.structs.replace(record, arrivals_ns=arrivals, **ends))
    return make.window(window, start_s, start_s + requests * 0.2 * pace), records


def sealed(out, run_id, paces=(1.0, 1.001, 0.999), **changes):
    windows = [held(number, 10.0 + 60 * number, pace) for number, pace in enumerate(paces)]
    run = make.writer(out, windows, run_id=run_id, **changes)
    run.seal()
    return store.load(run.folder)


def test_repeats_within_one_run_decide_with_the_caveat(tmp_path):
    base = sealed(tmp_path, "base")
    slow = sealed(tmp_path, "slow", paces=(1.2, 1.201, 1.199))
    found = gate.compare([slow], [base], limits.read())
    failed = {cell.metric for cell in found.cells if cell.verdict == "fail"}
    assert failed == {"output_tokens_per_s", "ttft_s_p50", "itl_s_p50"}
    assert found.verdict == "fail"
    assert any("nothing of the next start" in line for line in found.notes)
    assert gate.compare([base], [slow], limits.read()).verdict == "pass"


def test_several_runs_a_side_are_the_replicas(tmp_path):
    base = [sealed(tmp_path, f"base{n}", paces=(1 + n / 1000,) * 2) for n in range(3)]
    new = [sealed(tmp_path, f"new{n}", paces=(1.01 + n / 1000,) * 2) for n in range(4)]
    found = gate.compare(new, base, limits.read())
    cell = next(cell for cell in found.cells if cell.metric == "output_tokens_per_s")
    assert (cell.replica, cell.n_base, cell.n_new) == ("starts", 3, 4)
    assert cell.change.value == pytest.approx(1.001 / 1.0115, rel=1e-4)
    assert found.verdict == "pass"
    assert not any("next start" in line for line in found.notes)


def test_the_engine_starts_of_one_run_are_replicas_too(tmp_path):
    windows = [held(n, 10.0 + 60 * n, 1.0 + n / 1000) for n in range(4)]
    started = [
        (msgspec.structs.replace(window, engine_start=n // 2), rows)
        for n, (window, rows) in enumerate(windows)
    ]
    runs = [make.writer(tmp_path, started, run_id=name) for name in ("a", "b")]
    found = gate.compare([store.load(runs[0].folder)], [store.load(runs[1].folder)], limits.read())
    assert {(cell.replica, cell.n_new) for cell in found.cells if cell.metric != FAILURES} == {("starts", 2)}


def test_the_software_under_test_may_differ_and_is_named(tmp_path):
    base = sealed(tmp_path, "base")
    host = msgspec.structs.replace(make.HOST, packages={"torch": "2.14.0"})
    engine = EngineFacts(kind="transformers", version="6", device="cpu")
    new = sealed(tmp_path, "new", host=host, engine=engine)
    found = gate.compare([new], [base], limits.read())
    assert found.verdict == "pass"
    assert found.under_test == ("torch 2.13.0 → 2.14.0", "engine transformers 5 → transformers 6")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"host": msgspec.structs.replace(make.HOST, cpu="other")}, "CPU cpu ≠ other"),
        (
            {"engine": EngineFacts(kind="transformers", version="5", device="cpu", routing="uniform")},
            "routing",
        ),
        ({"model": Model(name="m", weights="hub", facts=make.FACTS)}, "weights random ≠ hub"),
        ({"imported": Imported(tool="AIPerf", file="f", sha256="0")}, "measured by - ≠ AIPerf"),
        (
            {"scenario": msgspec.structs.replace(make.SCENARIO, load=Load(concurrency=(2,)))},
            "load.concurrency [1] ≠ [2]",
        ),
    ],
)
def test_unlike_runs_are_undecided_with_their_differences(tmp_path, changes, said):
    base, new = sealed(tmp_path, "base"), sealed(tmp_path, "new", **changes)
    found = gate.compare([new], [base], limits.read())
    assert (found.verdict, found.cells) == ("undecided", ())
    assert len(found.missing) == 1
    assert said in found.missing[0]


def test_the_matching_runs_are_found_in_a_folder(tmp_path):
    other = Model(name="other", weights="random", facts=make.FACTS)
    sealed(tmp_path, "a")
    sealed(tmp_path, "b", model=other, paces=(3.0, 3.001))
    sealed(tmp_path, "c", host=msgspec.structs.replace(make.HOST, cpu="other"), paces=(3.0, 3.001))
    new = sealed(tmp_path, "d")
    found = gate.compare([new], store.find([tmp_path]), limits.read())
    assert found.verdict == "pass"
    assert {cell.n_base for cell in found.cells if cell.metric != FAILURES} == {3}


def test_nothing_in_common_is_an_error(tmp_path):
    base, new = sealed(tmp_path, "a"), sealed(tmp_path, "b", model=Model(name="other", weights="random"))
    with pytest.raises(InputError, match="new runs are of other, the baseline of m"):
        gate.compare([new], [base], limits.read())
    with pytest.raises(InputError, match="no run beside the new ones"):
        gate.compare([base], [base], limits.read())


def test_a_load_that_is_gone_is_missed(tmp_path):
    window, rows = held(3, 300.0, 1.0)
    more = msgspec.structs.replace(window, point=msgspec.structs.replace(window.point, concurrency=8))
    whole = make.writer(tmp_path, [held(0, 10.0, 1.0), held(1, 70.0, 1.001), (more, rows)], run_id="whole")
    base, new = store.load(whole.folder), sealed(tmp_path, "new", paces=(1.0, 1.001))
    found = gate.compare([new], [base], limits.read())
    assert found.verdict == "undecided"
    assert "closed 8 is in the baseline and not in the new runs" in found.missing[0]
    assert "closed 8 is not in the baseline" in gate.compare([base], [new], limits.read()).notes[0]


def test_costs_at_different_prices_are_not_compared(tmp_path):
    def priced(name, usd):
        price = Price(usd_per_hour=usd, per="machine", source="given with --price")
        return sealed(tmp_path, name, price=price)

    base, new = priced("base", 1.0), priced("new", 2.0)
    cells = gate.compare([new], [base], limits.read()).cells
    assert "different prices" in next(c.why for c in cells if c.metric == "usd_per_m_output_tokens")
    cells = gate.compare([new], [base], limits.read(), "3.0").cells
    assert {c.verdict for c in cells} == {"pass"}


def test_what_only_some_runs_of_the_baseline_have_is_not_dropped_without_a_word():
    row = dict.fromkeys(comparison.COLUMNS)
    rows = [row | {"energy_j_per_output_token": energy, "requests_ok": 9} for energy in (1.0, None, 1.1)]
    base = sides._side(rows)
    new = sides._side([each | {"energy_j_per_output_token": 1.0} for each in rows])
    subject = Subject(model="m", scenario="s", load="closed 1")
    pair = Pair(subject=subject, new=new, base=base, replica="starts")
    cells = {cell.metric: cell for cell in judge.cells([pair], limits.read())}
    assert set(cells) == {"energy_j_per_output_token", FAILURES}, "what none of them has is not asked for"
    found = cells["energy_j_per_output_token"]
    assert (found.verdict, found.why) == ("undecided", "baseline: n/a in 1 of 3 replicas")


def test_a_client_that_was_the_limit_decides_nothing(tmp_path, monkeypatch):
    base, new = sealed(tmp_path, "base"), sealed(tmp_path, "new", paces=(1.5, 1.501, 1.499))
    rows = comparison.rows
    monkeypatch.setattr(
        comparison, "rows", lambda *given: [row | {"client_bound": "send lag 9 ms"} for row in rows(*given)]
    )
    found = gate.compare([new], [base], limits.read("5%", ["ttft_s_p50"]))
    assert found.verdict == "undecided"
    assert "send lag 9 ms" in next(cell.why for cell in found.cells if cell.metric == "ttft_s_p50")


# ------------------------------------------------------------------------- how it is said

HOSTILE = 'a|b<script>]]>&"\x00\x1b[31m\nnew `line`'


@pytest.fixture
def hostile(tmp_path):
    model = Model(name=HOSTILE, weights="random", facts=make.FACTS)
    base = sealed(tmp_path, "base", model=model)
    new = sealed(tmp_path, "new", model=model, paces=(1.2, 1.201, 1.199))
    noisy = gate.compare([new], [base], limits.read("5%", [*METRICS[:2], "memory_peak_bytes"]))
    return msgspec.structs.replace(noisy, missing=(f"{HOSTILE}: the baseline has no run of it",))


def test_junit_is_well_formed_whatever_the_names(hostile):
    root = ElementTree.fromstring(report.junit(hostile))
    cases = list(root.iter("testcase"))
    assert len(cases) == len(hostile.cells) + 1
    by_name = {case.get("name"): case for case in cases}
    failure = by_name["closed 1 ttft_s_p50"].find("failure")
    assert "p = " in failure.get("message")
    assert by_name["closed 1 memory_peak_bytes"].find("skipped").get("message").startswith("not measured")
    assert by_name[f"closed 1 {FAILURES}"].find("failure") is None
    for suite in root.iter("testsuite"):
        assert int(suite.get("tests")) == len(suite.findall("testcase"))
        assert int(suite.get("failures")) == len(suite.findall("testcase/failure"))
        assert int(suite.get("skipped")) == len(suite.findall("testcase/skipped"))


def test_markdown_takes_nothing_from_a_name(hostile):
    text = report.markdown(hostile)
    assert text.startswith("### gate: FAIL (1 pass, 2 fail, 1 undecided, 1 not comparable)")
    assert "<script>" not in text
    assert "\nnew" not in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line.replace("\\|", "").split("|")) for line in table}) == 1


def test_the_terminal_table_says_change_interval_and_verdict(hostile):
    from rich.console import Console

    console = Console(width=160, record=True)
    console.print(report.rich_table(hostile))
    text = console.export_text()
    assert "+20.0%" in text
    assert "✗ fail" in text
    assert "120 ms" in text
    assert report.headline(hostile).startswith("gate: FAIL")


def test_json_holds_every_cell(hostile):
    document = json.loads(report.as_json(hostile))
    assert document["verdict"] == "fail"
    assert [cell["metric"] for cell in document["cells"]] == [cell.metric for cell in hostile.cells]
    assert document["cells"][1]["subject"]["model"] == HOSTILE


# ------------------------------------------------------------------------- the command


def test_exit_codes_and_files(tmp_path):
    from typer.testing import CliRunner

    from profiler.cli import app

    base, new, slow = (
        sealed(tmp_path / name, name, paces=paces).folder
        for name, paces in (
            ("b", (1.0, 1.001, 0.999)),
            ("n", (1.0, 1.002, 0.999)),
            ("s", (1.3, 1.301, 1.299)),
        )
    )
    xml, summary = tmp_path / "gate.xml", tmp_path / "gate.md"

    def run(*words):
        return CliRunner().invoke(app, ["gate", *map(str, words)])

    assert run(new, "--baseline", base, "--junit", xml, "--markdown", summary).exit_code == 0
    assert ElementTree.parse(xml).getroot().tag == "testsuites"
    assert summary.read_text().startswith("### gate: PASS")
    several = run(slow, "--baseline", base, new, "--max-regression", "5%")
    assert several.exit_code == 1
    assert "replicas: 2 → 1 engine starts" in several.stdout
    failed = run(slow, "--baseline", base.parent)
    assert failed.exit_code == 1
    assert "gate: FAIL" in failed.stdout
    assert run(slow, "--baseline", base, "--max-regression", "50%").exit_code == 0
    unwritten = run(new, "--baseline", base, "--junit", tmp_path / "none" / "gate.xml")
    assert isinstance(unwritten.exception, StoreError)
    assert "gate: PASS" in unwritten.stdout, "the verdict is not lost with the file"
    wide = run(new, "--baseline", base, "--metric", "energy_j_per_output_token")
    assert wide.exit_code == 3
    assert "not measured" in wide.stdout
    assert json.loads(run(new, "--baseline", base, "--format", "json").stdout)["verdict"] == "pass"
    with pytest.raises(InputError, match="no such format"):
        CliRunner().invoke(
            app,
            ["gate", str(new), "--baseline", str(base), "--format", "xml"],
            standalone_mode=False,
            catch_exceptions=False,
        )


def test_a_replica_without_a_count_of_failures_leaves_their_share_unknown():
    row = dict.fromkeys(comparison.COLUMNS)
    counted = row | {"requests_ok": 10, "requests_failed": 2}
    assert (sides._side([counted, counted]).requests, sides._side([counted, counted]).failed) == (24, 4)
    for missing in ("requests_ok", "requests_failed"):
        assert sides._side([counted, counted | {missing: None}]).requests == 0
