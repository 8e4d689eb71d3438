"""Whole trials by the command, where the truth is known: ``profile claims run`` and then ``profile claims``.

Engine starts are made up: run folders of exact times through the real store, in place of ``measure.execute``.
Everything else is real: the claim file, the plan, the blocks, the ledger, the looks, the evidence, the judge.
"""

from __future__ import annotations

import json
import math
import random

import msgspec
import pytest
from typer.testing import CliRunner

from profiler import manifest, records, store
from profiler.claims import ledger
from profiler.cli import app
from profiler.schema import EngineFacts, LoadPoint, Memory
from profiler.trials import holding
from tests import make

TOKENS, REQUESTS, GAP_S = 16, 12, 1.0
CLAIM = """
text = "test/fast writes half again as many tokens a second as test/slow"
metric = "output_tokens_per_s"
relation = "more"
factor = 1.5
margin_frac = 0.05
source = {{ name = "test", date = "2026-11-22" }}
subject = {{ names = ["test/fast"] }}
baseline = {{ names = ["test/slow"] }}
conditions = {{ engine = "simulated", weights = "any" }}
cells = [{{ batch = {batch}, input_tokens = [10], output_tokens = [16] }}]
plan = {{ starts = {starts}, looks = {looks}, set = {{ "measure.window_s" = 1.0 }} }}
"""
BAR = 1.5 / 1.05


class Machine:
    """Stands for ``measure.execute``: engine starts that scatter by ``spread`` around what each model does,
    on a machine that gets slower by ``drift`` with every one."""

    def __init__(self, ratio, spread=0.01, drift=0.0, seed=1):
        self.ratio, self.spread, self.drift = ratio, spread, drift
        self.chance = random.Random(seed)
        self.starts = []
        self.stop_at = None  # Ctrl-C in the start that has this number
        self.apart_s = 0.0  # by which the clock is later while a baseline is held

    def execute(self, plan, show, worker=None):
        name = plan.models[0].name
        luck = self.chance.gauss(0, self.spread) - self.drift * len(self.starts)
        self.starts.append(name)
        if len(self.starts) - 1 == self.stop_at:
            raise KeyboardInterrupt
        began = manifest.of(plan, 0)
        engine = EngineFacts(kind="simulated", version="1", device="cpu")
        late_ns = 0 if name == "test/fast" else round(self.apart_s * 1e9)
        made = msgspec.structs.replace(
            began, engine=engine, memory=Memory(), starts_s=(2.0,), unix_ns=began.unix_ns + late_ns
        )
        run = store.RunWriter.create(plan.out, made)
        for index, batch in enumerate(plan.scenario.load.concurrency):
            faster = self.ratio(batch) if name == "test/fast" else 1.0
            window, requests = load(index, batch, 100 * faster * math.exp(luck))
            records.write_records(run.records_path(index), requests)
            run.add(window)
        run.seal()
        return [run.folder]


def load(index, batch, tokens_per_s):
    """A window of ``batch`` slots that write ``tokens_per_s`` each, without a pause."""
    took_s = TOKENS / tokens_per_s
    start_s = 10 + index * 100
    requests = [
        answer(index, slot * REQUESTS + n, start_s + n * took_s, took_s)
        for slot in range(batch)
        for n in range(REQUESTS)
    ]
    point = LoadPoint(mode="closed", concurrency=batch)
    return make.window(index, start_s, start_s + REQUESTS * took_s, repeat=0, point=point), requests


def answer(window, number, due_s, took_s):
    due = round(due_s * make.S)
    arrivals = [due + round((n + 0.5) * took_s / TOKENS * make.S) for n in range(TOKENS)]
    return make.request(
        window,
        number,
        due_s,
        first_ns=arrivals[0],
        last_ns=arrivals[-1],
        done_ns=arrivals[-1] + 1000,
        planned_output_tokens=TOKENS,
        output_tokens=TOKENS,
        reported_output_tokens=TOKENS,
        arrivals_ns=arrivals,
        arrival_tokens=[1] * TOKENS,
    )


@pytest.fixture
def held(tmp_path, monkeypatch):
    """Holds a trial on a machine; returns the result of the command and the ledger."""
    monkeypatch.chdir(tmp_path)

    def hold_it(machine, batch=(1, 4), starts=6, looks=3, words=()):
        (tmp_path / "faster.toml").write_text(CLAIM.format(batch=list(batch), starts=starts, looks=looks))
        monkeypatch.setattr(holding, "execute", machine.execute)
        result = run("claims", "run", "faster.toml", "--quiet", "--seed", 5, *words)
        held = ledger.read_all(tmp_path / "results")
        return result, held[-1] if held else None

    return hold_it


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def judged():
    """What ``profile claims`` says of the same runs: exit code and the only ruling."""
    result = run("claims", "results", "--claim", "faster.toml", "--format", "json")
    (ruling,) = json.loads(result.stdout)["rulings"]
    return result.exit_code, ruling


def test_a_true_claim_is_supported_at_the_first_look_that_can_tell(held):
    result, trial = held(Machine(lambda batch: 1.9))
    assert result.exit_code == 0, result.output
    assert trial.status == "ended"
    assert trial.starts < trial.most
    assert [look.verdict for look in trial.looks][-1] == "supported"
    code, ruling = judged()
    assert code == 0
    assert ruling["verdict"] == "supported"
    for cell in ruling["findings"]:
        assert cell["ratio"]["low"] < 1.9 < cell["ratio"]["high"]
        assert cell["ratio"]["low"] > BAR


def test_a_false_claim_is_refuted_and_says_where_it_fails(held):
    """True at batch 1 and 2, false from 4 on, and slower than the baseline from 8 on."""
    result, _ = held(Machine(lambda batch: 2.4 / batch**0.5), batch=(1, 2, 4, 8, 16))
    assert result.exit_code == 1, result.output
    code, ruling = judged()
    assert code == 1
    assert ruling["verdict"] == "refuted"
    said = [cell["verdict"] for cell in ruling["findings"]]
    assert said == ["supported", "supported", "direction only", "refuted", "refuted"]
    (region,) = ruling["region"]
    assert "holds in 2 of 5 cells" in region
    assert "crossover at batch" in region
    ((_, crossover),) = ruling["crossovers"]
    assert crossover["low"] < 2.4**2 < crossover["high"]


def test_a_claim_whose_direction_holds_is_not_supported(held):
    result, trial = held(Machine(lambda batch: 1.2))
    assert result.exit_code == 1, result.output
    assert trial.looks[-1].verdict == "direction only"
    assert judged()[1]["verdict"] == "direction only"


@pytest.mark.parametrize("seed", [1, 2])
def test_on_the_margin_nothing_is_decided(held, seed):
    result, trial = held(Machine(lambda batch: BAR, seed=seed))
    assert result.exit_code == 3, result.output
    assert trial.looks[-1].decision in ("futile", "plan ended")
    assert judged()[0] == 3


def test_a_drift_meets_both_sides_alike(held):
    """1 % slower with every start: one side after the other it would be 6 %."""
    machine = Machine(lambda batch: BAR * 0.98, spread=0.002, drift=0.01)
    result, trial = held(machine, looks=1)
    assert result.exit_code in (1, 3), result.output
    assert trial.looks[-1].verdict != "supported"
    firsts = machine.starts[::2]
    assert firsts.count("test/fast") == firsts.count("test/slow")


def test_without_the_record_of_its_looks_a_trial_is_evidence_like_any_other(held, tmp_path):
    """Nobody knows then how often it was judged: a wider interval."""
    held(Machine(lambda batch: 1.9), starts=3, looks=1)
    assert judged()[1]["findings"][0]["confidence"] == pytest.approx(0.95)
    for ledgers in (tmp_path / "results" / "trials").iterdir():
        ledgers.unlink()
    _, ruling = judged()
    assert ruling["findings"][0]["confidence"] == pytest.approx(0.98)


def test_sides_held_one_after_the_other_decide_nothing(held, tmp_path):
    """Figures and all else as in a trial that supports the claim."""
    machine = Machine(lambda batch: 1.9)
    machine.apart_s = 3600
    held(machine, starts=3, looks=1)
    for record in (tmp_path / "results" / "trials").iterdir():
        record.unlink()
    code, ruling = judged()
    assert code == 3
    assert ruling["verdict"] == "not comparable"
    assert "one after the other" in ruling["why"]
    assert ruling["findings"][0]["ratio"]["low"] > BAR


def test_an_interrupted_trial_goes_on_and_holds_what_it_would_have_held(held):
    whole, halted = Machine(lambda batch: BAR), Machine(lambda batch: BAR)
    held(whole, starts=3, looks=1, words=["--out", "whole"])
    halted.stop_at = 3
    result, trial = held(halted, starts=3, looks=1)
    assert result.exit_code == 130
    assert trial.status == "open"
    result, trial = held(halted, starts=3, looks=1)
    assert result.exit_code == 3
    assert trial.starts == trial.most
    assert halted.starts[:3] + halted.starts[4:] == whole.starts
    assert len(trial.dropped) == 1
