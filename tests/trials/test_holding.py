"""A trial from its first block to its verdict, with an engine whose truth is known: what is counted, when it
stops, and what is left after whatever ends it."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import nullcontext

import msgspec
import pytest

from profiler import figures, integrity, store, trials
from profiler.claims import docket, ledger
from profiler.claims.nouns import Grid
from profiler.claims.nouns import Plan as TrialPlan
from profiler.errors import DamagedError, EngineError, InputError
from profiler.measure import Ahead
from profiler.nvml import holding as gpu_holding
from profiler.nvml.holding import TakenError
from profiler.progress import Quiet
from profiler.trials import holding
from tests.trials import fake


@pytest.fixture
def engine(monkeypatch):
    """Puts an engine in the place of the real ones."""

    def put(*args, **options) -> fake.Engine:
        found = fake.Engine(*args, **options)
        monkeypatch.setattr(holding, "execute", found)
        return found

    return put


def hold(out, events=None, **changes):
    """The trial that the words mean, held as far as it goes."""
    seen = [] if events is None else events
    return trials.hold(
        trials.outline(fake.asked(out, **changes)), Quiet(), lambda event, trial: seen.append((event, trial))
    )


def interrupt_at(number):
    def before(held):
        if held == number:
            raise KeyboardInterrupt

    return before


# ------------------------------------------------------------------------------------------ known truths


@pytest.mark.parametrize(("ratio", "verdict"), [(1.5, "supported"), (0.7, "refuted")])
def test_a_clear_truth_is_found(tmp_path, engine, ratio, verdict):
    engine(ratio)
    trial = hold(tmp_path)
    assert trials.ruling(tmp_path, trial).verdict == verdict
    assert trial.looks[-1].decision == "decided"
    assert trial.status == "ended"


def test_a_truth_on_the_margin_is_not_supported(tmp_path, engine):
    engine(1.03, spread=0.02)
    trial = hold(tmp_path)
    assert trials.ruling(tmp_path, trial).verdict == "undecided"
    assert trial.looks[-1].decision in ("futile", "plan ended")


def test_a_claim_that_fails_in_one_cell_is_refuted_with_its_region(tmp_path, engine):
    engine(1.5, at=lambda batch: 1.0 if batch == 1 else 0.5)
    cells = (Grid(batch=(1, 2), input_tokens=(10,), output_tokens=(5,)),)
    ruling = trials.ruling(tmp_path, hold(tmp_path, claim=fake.claim(cells=cells)))
    assert ruling.verdict == "refuted"
    assert [finding.verdict for finding in ruling.findings] == ["supported", "refuted"]
    assert ruling.crossovers


def test_the_same_runs_judged_afterwards_say_the_same(tmp_path, engine):
    engine(1.5)
    trial = hold(tmp_path)
    (found,) = docket.docket([fake.claim()], store.find([tmp_path]))
    own = trials.ruling(tmp_path, trial)
    assert found.verdict == own.verdict == "supported"
    assert found.case.looks == trial.fractions
    assert [each.ratio for each in found.findings] == [each.ratio for each in own.findings]


def test_a_board_that_others_measure_on_ends_the_trial_for_now_and_drops_nothing(tmp_path, engine):
    def before(held):
        if held == 1:
            raise TakenError("GPU-1", "process 7")

    engine(1.5, before=before)
    with pytest.raises(InputError, match="GPU-1 is being measured by process 7"):
        hold(tmp_path)
    engine(1.5)
    trial = hold(tmp_path)
    assert trial.status == "ended"
    assert not trial.dropped


def test_the_boards_of_a_trial_are_held_from_start_to_start(tmp_path, engine, monkeypatch):
    tmp_path.chmod(0o1777)
    monkeypatch.setattr(gpu_holding, "FOLDERS", (str(tmp_path),))
    locks = []

    def before(_):
        locks.append(len(list(tmp_path.glob("*.lock"))))
        with gpu_holding.held(["GPU-1"], tmp_path):
            pass

    engine(1.5, before=before)
    hold(tmp_path)
    assert locks[0] == 0
    assert set(locks[1:]) == {1}
    assert not list(tmp_path.glob("*.lock"))


# ------------------------------------------------------------------------------------------ the protocol


def test_blocks_are_whole_sealed_and_in_the_order_that_was_drawn(tmp_path, engine):
    held = engine(1.5).held
    trial = hold(tmp_path)
    drawn = [leg.side for block in trials.blocks(trial)[: trial.starts] for leg in block.order]
    assert [{"test/quick": "subject", "test/slow": "baseline"}[name] for name in held] == drawn
    for run in trial.runs():
        manifest = store.load(tmp_path / run).manifest
        assert manifest.status == "complete"
        assert manifest.exclusive
        assert len(manifest.starts_s) == 1
        assert [window.point.concurrency for window in manifest.windows] == [2]


def test_each_length_of_the_claim_gets_starts_of_its_own(tmp_path, engine):
    engine(1.5)
    cells = (Grid(batch=(1,), input_tokens=(10,), output_tokens=(5,)), Grid(batch=(2,), input_tokens=(40,)))
    trial = hold(tmp_path, claim=fake.claim(cells=cells, plan=TrialPlan(starts=3, looks=1, set=fake.SETS)))
    asked = Counter(
        store.load(tmp_path / run).manifest.scenario.workload.input_tokens for run in trial.runs()
    )
    assert asked == {10: 6, 40: 6}


def test_it_is_looked_at_only_as_planned_and_every_look_is_on_disk_before_the_next_start(tmp_path, engine):
    events = []
    engine(1.04, spread=0.005)
    trial = hold(tmp_path, events)
    assert [look.starts for look in trial.looks] == list(trial.looks_at)[: len(trial.looks)]
    assert trial.fractions == tuple(look.starts / trial.most for look in trial.looks)
    looks = [seen for event, seen in events if event == "look"]
    assert [each.starts for each in looks] == [look.starts for look in trial.looks]
    assert ledger.read(ledger.path_of(tmp_path, trial)) == trial


def test_no_run_held_after_a_look_counts_until_the_next(tmp_path, engine):
    engine(1.08, spread=0.03, before=interrupt_at(8))
    with pytest.raises(KeyboardInterrupt):
        hold(tmp_path)
    (trial,) = ledger.read_all(tmp_path)
    assert trial.starts == 4
    assert [look.starts for look in trial.looks] == [3]
    assert trial.counted == trial.runs(3)
    (found,) = docket.docket([fake.claim()], store.find([tmp_path]))
    assert {len(each.evidence.subject.values) for each in found.findings} == {3}


def test_a_trial_that_nobody_has_looked_at_yet_gives_no_verdict(tmp_path, engine):
    engine(5.0, before=interrupt_at(3))
    with pytest.raises(KeyboardInterrupt):
        hold(tmp_path)
    (trial,) = ledger.read_all(tmp_path)
    assert trials.ruling(tmp_path, trial).verdict == "undecided"
    (found,) = docket.docket([fake.claim()], store.find([tmp_path]))
    assert found.verdict == "undecided"
    assert "under way" in " ".join(found.missing)


# ------------------------------------------------------------------------------- what ends, what goes on


def test_ctrl_c_keeps_what_was_held_and_the_same_words_go_on(tmp_path, engine):
    engine(1.5, before=interrupt_at(3))
    with pytest.raises(KeyboardInterrupt):
        hold(tmp_path)
    (kept,) = ledger.read_all(tmp_path)
    assert len(kept.runs()) == 3
    assert [gone.why for gone in kept.dropped] == ["interrupted by the user"]
    assert kept.status == "open"
    engine(1.5)
    trial = hold(tmp_path, seed=None)
    assert trial.id == kept.id
    assert trial.runs()[:3] == kept.runs()
    assert trial.blocks[1].order == trials.blocks(trial)[1].order
    assert trial.dropped[0].run not in trial.runs()
    assert trials.ruling(tmp_path, trial).verdict == "supported"


def test_a_dead_engine_is_an_error_and_the_trial_goes_on_afterwards(tmp_path, engine):
    def die(number):
        if number == 2:
            raise EngineError("the engine died", ["CUDA out of memory"])

    engine(1.5, before=die)
    with pytest.raises(EngineError, match="the engine died"):
        hold(tmp_path)
    (kept,) = ledger.read_all(tmp_path)
    assert kept.dropped[0].why.splitlines() == ["the engine died", "CUDA out of memory"]
    engine(1.5)
    assert hold(tmp_path).looks[-1].decision == "decided"


@pytest.mark.parametrize("was_sealed", [True, False])
def test_a_crash_loses_no_sealed_run_and_counts_no_other(tmp_path, engine, monkeypatch, was_sealed):
    """The process is gone between the start of a leg and the ledger's next line."""
    engine(1.5)
    monkeypatch.setattr(holding._Book, "held", lambda *_: (_ for _ in ()).throw(RuntimeError("kill -9")))
    with pytest.raises(RuntimeError):
        hold(tmp_path)
    monkeypatch.undo()
    (kept,) = ledger.read_all(tmp_path)
    (run,) = store.find([tmp_path])
    if not was_sealed:
        broken = msgspec.structs.replace(run.manifest, status="running", checksums=None)
        store.write_json(run.folder / store.JOURNAL, integrity.signed(broken))
        (run.folder / store.MANIFEST).unlink()
    assert kept.under_way == run.manifest.group
    monkeypatch.setattr(holding, "execute", fake.Engine(1.5))
    trial = hold(tmp_path)
    assert (run.folder.name in trial.runs()) == was_sealed
    assert [gone.run for gone in trial.dropped] == ([] if was_sealed else [run.folder.name])


def test_a_sealed_run_whose_manifest_is_damaged_is_named_and_not_dropped_as_cut_short(
    tmp_path, engine, monkeypatch
):
    engine(1.5)
    with monkeypatch.context() as dying:
        dying.setattr(holding._Book, "held", lambda *_: (_ for _ in ()).throw(RuntimeError("kill -9")))
        with pytest.raises(RuntimeError):
            hold(tmp_path)
    (run,) = store.find([tmp_path])
    folder = run.folder
    whole = (folder / store.MANIFEST).read_bytes()
    (folder / store.MANIFEST).write_bytes(whole[:-9])
    with pytest.raises(DamagedError, match=r"manifest.json cannot be read"):
        hold(tmp_path)
    (kept,) = ledger.read_all(tmp_path)
    assert (kept.under_way, kept.dropped) == (run.manifest.group, ())
    (folder / store.MANIFEST).write_bytes(whole)
    assert folder.name in hold(tmp_path).runs()


def test_a_look_that_a_crash_ended_is_not_taken_for_free(tmp_path, engine, monkeypatch):
    engine(1.5)

    def crash(*_):
        raise RuntimeError("kill -9")

    monkeypatch.setattr(holding.judge, "ruling", crash)
    with pytest.raises(RuntimeError):
        hold(tmp_path)
    (kept,) = ledger.read_all(tmp_path)
    assert [(look.starts, look.why) for look in kept.looks] == [(3, "")]
    monkeypatch.undo()
    monkeypatch.setattr(holding, "execute", fake.Engine(1.5))
    trial = hold(tmp_path)
    assert trial.looks[0].starts == 3
    assert trial.looks[0].why
    assert sum(look.starts == 3 for look in trial.looks) == 1


def test_a_trial_that_has_ended_is_not_held_again_without_a_seed_of_its_own(tmp_path, engine):
    engine(1.5)
    first = hold(tmp_path)
    again = engine(1.5)
    assert hold(tmp_path, seed=None).id == first.id
    assert again.held == []
    other = hold(tmp_path, seed=2)
    assert other.id != first.id
    assert other.before == (first.id,)


def test_nobody_else_holds_the_same_trial(tmp_path, engine):
    engine(1.5)
    found = trials.outline(fake.asked(tmp_path))
    with ledger.locked(tmp_path, found.trial), pytest.raises(InputError, match="held by another process"):
        trials.hold(found, Quiet(), lambda *_: None)


def test_what_another_process_did_meanwhile_is_not_written_over(tmp_path, engine):
    """It read the ledger while the first still held the trial, and comes to the lock after that has ended."""
    engine(1.5, before=interrupt_at(2))
    with pytest.raises(KeyboardInterrupt):
        hold(tmp_path)
    late = trials.outline(fake.asked(tmp_path))
    engine(1.5)
    ended = hold(tmp_path)
    again = engine(1.5)
    with pytest.raises(InputError, match="another process went on with this trial"):
        trials.hold(late, Quiet(), lambda *_: None)
    assert again.held == []
    assert ledger.read(ledger.path_of(tmp_path, ended)) == ended


class Heard(Quiet):
    """Keeps what it is told of what is ahead and of what is still to come."""

    def __init__(self) -> None:
        self.ahead, self.left = [], []

    def begin(self, ahead):
        self.ahead.append((ahead.models, ahead.windows))

    def window(self, model, slot, window, left, known):
        self.left.append((model, left))


def test_who_watches_a_leg_hears_where_in_the_trial_it_is(tmp_path, engine, monkeypatch):
    """Six blocks of two legs, a window each."""
    put, heard = engine(1.5), Heard()
    ahead = Ahead(
        scenario="s",
        engine="simulated",
        models=("m",),
        folders=("f",),
        points=(),
        windows=1,
        target_frac=None,
    )

    def told(plan, show):
        show.begin(ahead)
        show.window("m", None, None, 0, None)
        return put(plan, show)

    monkeypatch.setattr(holding, "execute", told)
    trials.hold(trials.outline(fake.asked(tmp_path)), heard, lambda *_: None)
    assert heard.ahead[:3] == [
        (("block 1 of 6 · m",), 12),
        (("block 1 of 6 · m",), 11),
        (("block 2 of 6 · m",), 10),
    ]
    assert heard.left[:3] == [("block 1 of 6 · m", 11), ("block 1 of 6 · m", 10), ("block 2 of 6 · m", 9)]


def test_every_start_of_the_simulated_engine_has_another_seed_unless_one_is_said(
    tmp_path, engine, monkeypatch
):
    put = engine(1.5)
    seeds = []

    def note(plan, show):
        seeds.append(plan.settings[0].args.get("seed"))
        return put(plan, show)

    monkeypatch.setattr(holding, "execute", note)
    trial = hold(tmp_path)
    assert len(set(seeds)) == len(trial.runs())
    seeds.clear()
    hold(tmp_path, overrides=["engine.args.seed=5"])
    assert set(seeds) == {5}


# ------------------------------------------------------------------------------------------ the budget


def take(monkeypatch, seconds):
    """Every leg takes so long."""
    monkeypatch.setattr(holding, "_timed", lambda: nullcontext(lambda: seconds))


def test_no_block_is_begun_that_the_budget_does_not_pay_for(tmp_path, engine, monkeypatch):
    """Each start takes far longer than was expected: a minute a block, then the time is gone."""
    engine(1.08, spread=0.03)
    outline = trials.outline(fake.asked(tmp_path, budget="260s"))
    assert outline.trial.takes.seconds <= 260
    take(monkeypatch, seconds=30.0)
    trial = trials.hold(outline, Quiet(), lambda *_: None)
    assert trial.spent_s <= 260
    assert trial.starts == 4
    assert trial.looks[-1].decision == "budget"
    assert trial.status == "open"


def test_a_larger_budget_goes_on_with_the_error_that_was_spent(tmp_path, engine, monkeypatch):
    engine(1.08, spread=0.03)
    take(monkeypatch, seconds=30.0)
    assert hold(tmp_path, budget="260s").looks[-1].decision == "budget"
    trial = hold(tmp_path, budget="1h")
    assert trial.status == "ended"
    assert [look.starts for look in trial.looks][:2] == [3, 4]
    assert list(trial.fractions) == sorted(set(trial.fractions))


def test_a_leg_that_was_disturbed_is_dropped_by_name_and_held_anew_but_not_for_ever(
    tmp_path, engine, monkeypatch
):
    engine(1.5)
    monkeypatch.setattr(figures, "disturbed", lambda _: "others used the GPUs")
    trial = hold(tmp_path, claim=fake.claim(plan=TrialPlan(starts=3, looks=1, set=fake.SETS)))
    assert len(trial.dropped) == 6 * holding.MOST_AGAIN
    assert {gone.why for gone in trial.dropped} == {"disturbed: others used the GPUs"}
    assert not {gone.run for gone in trial.dropped} & set(trial.runs())
    assert len(trial.runs()) == 6


def test_a_metric_that_the_first_start_does_not_tell_ends_the_trial(tmp_path, engine):
    engine(1.5)
    trial = hold(tmp_path, claim=fake.claim(metric="energy_j_per_output_token", relation="less"))
    assert len(trial.runs()) == 1
    assert trial.status == "ended"
    assert trial.reason.startswith("energy_j_per_output_token cannot be told here")
    assert trials.ruling(tmp_path, trial).verdict == "undecided"


# ------------------------------------------------------------------------------------------ the error


def test_on_the_bar_trials_support_as_rarely_as_they_promise():
    """The stopping rule itself, on figures drawn right on the bar: 2.5 % at most, whatever was looked at."""
    from profiler.claims import judge
    from profiler.trials import lots
    from profiler.trials.decide import decide
    from tests.claims import cases

    draw, plan, supported = random.Random(3), lots.looks_at(8, 3), 0
    for _ in range(1500):
        sides = [[draw.lognormvariate(mean, 0.02) for _ in range(8)] for mean in (0.029558802, 0.0)]
        for place, starts in enumerate(plan):
            looks = tuple(n / 8 for n in plan[: place + 1])
            ruling = judge.ruling(
                cases.case(cases.evidence(sides[0][:starts], sides[1][:starts]), looks=looks)
            )
            if decide(ruling, starts, plan) != "go on":
                break
        supported += ruling.verdict == "supported"
    assert supported / 1500 <= 0.025 + 3 * (0.025 * 0.975 / 1500) ** 0.5
