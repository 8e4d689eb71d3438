"""Trials of two made-up models by an engine that takes no time: what each start measures is drawn from a law
whose truth is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import msgspec

from profiler import manifest, scenario, store
from profiler import records as records_file
from profiler.claims.nouns import Claim, Conditions, Grid, Models, Source
from profiler.claims.nouns import Plan as TrialPlan
from profiler.prepare import Plan
from profiler.schema import EngineFacts
from profiler.trials import Asked
from tests import make

SETS = {"measure.warmup_s": 0, "measure.window_s": 1, "measure.min_requests": 2}


def claim(**changes) -> Claim:
    base = Claim(
        id="of-a-test",
        text="quick is faster than slow",
        source=Source(name="a test", date="2026-01-01"),
        subject=Models(names=("test/quick",)),
        baseline=Models(names=("test/slow",)),
        metric="output_tokens_per_s",
        relation="more",
        conditions=Conditions(engine="simulated", weights="any"),
        cells=(Grid(batch=(2,), input_tokens=(10,), output_tokens=(5,)),),
        plan=TrialPlan(starts=6, looks=2, set=SETS),
    )
    return msgspec.structs.replace(base, **changes)


def asked(out: Path, **changes) -> Asked:
    base = {"claim": claim(), "out": out, "seed": 1}
    return Asked(**base | changes)


class Engine:
    """In the place of ``measure.execute``: writes the run that a model ``ratio`` times as fast as the other
    would leave; starts scatter by ``spread``.  ``before`` is called with the number of each run, and may
    raise; ``at`` says by how much the ratio is another at a batch.
    """

    def __init__(
        self,
        ratio: float,
        spread: float = 0.01,
        before: Callable[[int], None] = lambda _: None,
        at: Callable[[int], float] = lambda _batch: 1.0,
    ) -> None:
        self.ratio, self.spread, self.before, self.at = ratio, spread, before, at
        self.held: list[str] = []
        self._draw = random.Random(7)

    def __call__(self, plan: Plan, show, worker=None) -> list[Path]:
        name = plan.models[0].name
        is_quick = name.endswith("quick")
        speed = math.exp(self._draw.gauss(0, self.spread))
        run = store.RunWriter.create(plan.out, manifest.of(plan, 0))
        run.update(engine=EngineFacts(kind="simulated", version="1", device="cpu"), starts_s=(0.5,))
        try:
            self.before(len(self.held))
            self.held.append(name)
            for index, point in enumerate(scenario.points(plan.scenario)):
                factor = self.ratio * self.at(point.concurrency) if is_quick else 1.0
                window, records = _held(index, speed * factor, point)
                records_file.write_records(run.records_path(index), records)
                run.add(window)
        except BaseException:
            run.update(status="interrupted", reason="a test")
            run.close()
            raise
        run.seal()
        return [run.folder]


def _held(index: int, speed: float, point):
    """Slots of back-to-back requests, 0.2 s each at speed 1; 30 of them a slot."""
    records, start = [], 60 * index + 10
    for slot in range(point.concurrency):
        for n in range(30):
            due = start + n * 0.2 / speed + slot * 1e-4
            arrivals = [round((due + (0.1 + 0.02 * k) / speed) * make.S) for k in range(5)]
            times = {"first_ns": arrivals[0], "last_ns": arrivals[-1], "done_ns": arrivals[-1] + 1000}
            records.append(make.request(index, len(records), due, arrivals_ns=arrivals, **times))
    return make.window(index, start, start + 30 * 0.2 / speed, point=point, repeat=0), records
