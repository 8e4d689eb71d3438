"""Simulated figures before the real judge: ``claims.judge.ruling`` on Cases, and what it said, as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from benchmarks.statistics.worlds import Values
from profiler.claims import judge
from profiler.claims.nouns import Case, Claim, Evidence, Grid, Models, Plan, Relation, Ruling, Setting, Side
from profiler.claims.nouns import Source as ClaimSource
from profiler.schema import Estimate
from profiler.trials.decide import decide

MARGIN = 0.03
# Of a trial that was looked at once, when all its starts were in: its interval is the 95 % one.
ONCE = (1.0,)
SETTING = Setting(subject="moe", baseline="dense", machine="one machine", engine="one engine")


def claim(
    relation: Relation = "more",
    factor: float | None = None,
    batches: Sequence[int] = (8,),
    plan: Plan | None = None,
    margin: float = MARGIN,
) -> Claim:
    return Claim(
        id="simulated",
        text="simulated",
        source=ClaimSource(name="benchmarks.statistics", date="2026"),
        subject=Models(names=("moe",)),
        baseline=Models(names=("dense",)),
        metric="output_tokens_per_s",
        relation=relation,
        factor=factor,
        margin_frac=margin,
        cells=(Grid(batch=tuple(batches)),),
        plan=plan or Plan(),
    )


def on_the_margin(asked: Claim) -> tuple[float, ...]:
    """The true ratios at which the claim is just about false: nearer by any amount and it is true."""
    wide = 1 + (asked.margin_frac or MARGIN)
    factor = asked.factor or 1.0
    match asked.relation:
        case "more":
            return (factor / wide if asked.factor else wide,)
        case "less":
            return (wide / factor if asked.factor else 1 / wide,)
        case _:
            return (factor * wide, factor / wide)


@dataclass(frozen=True)
class Judged:
    """What was said of each trial and cell (trials, cells); ``overall`` of each trial."""

    rulings: tuple[Ruling, ...]

    @property
    def overall(self) -> NDArray[np.str_]:
        return np.array([ruling.verdict for ruling in self.rulings])

    @property
    def cells(self) -> NDArray[np.str_]:
        return np.array([[finding.verdict for finding in ruling.findings] for ruling in self.rulings])

    def ends(self, of: str = "statistical") -> tuple[Values, Values]:
        """Low and high ends of an estimate of each finding; one that is not bounded is infinite."""

        def end(estimate: Estimate | None, name: str, open_end: float) -> float:
            found = None if estimate is None else getattr(estimate, name)
            return open_end if found is None else float(found)

        found = [[getattr(finding, of) for finding in ruling.findings] for ruling in self.rulings]
        low = np.array([[end(each, "low", 0.0) for each in row] for row in found])
        high = np.array([[end(each, "high", np.inf) for each in row] for row in found])
        return low, high

    def covers(self, truth: float | Values, of: str = "statistical") -> NDArray[np.bool_]:
        low, high = self.ends(of)
        inside: NDArray[np.bool_] = (low <= truth) & (truth <= high)
        return inside

    def half_width(self) -> float:
        """Median over the trials, as a share of the ratio."""
        low, high = self.ends()
        return float(np.median(np.sqrt(high / np.maximum(low, 1e-300)) - 1))

    def share(self, *verdicts: str) -> float:
        return float(np.isin(self.overall, verdicts).mean())


@contextmanager
def without_advice() -> Iterator[None]:
    """How many more starts would decide a cell is most of the judge's work, and no verdict hangs on it."""
    with mock.patch.object(judge, "_needed", return_value=None):
        yield


def case(
    asked: Claim,
    subject: Values,
    baseline: Values,
    looks: tuple[float, ...] | None,
    systematic_frac: float = 0.0,
) -> Case:
    """One trial: figures of (cells, starts)."""
    evidence = tuple(
        Evidence(
            cell=cell,
            subject=Side(values=tuple(ours.tolist()), runs=("simulated",)),
            baseline=Side(values=tuple(theirs.tolist()), runs=("simulated",)),
            systematic_frac=systematic_frac,
        )
        for cell, ours, theirs in zip(asked.grid(), subject, baseline, strict=True)
    )
    return Case(claim=asked, setting=SETTING, evidence=evidence, looks=looks)


def judged(
    asked: Claim,
    subject: Values,
    baseline: Values,
    looks: tuple[float, ...] | None = ONCE,
    systematic_frac: float = 0.0,
) -> Judged:
    """Figures of (trials, cells, starts), or (trials, starts) of a claim with one cell; ``looks`` None: of no
    trial."""
    if subject.ndim == 2:
        subject, baseline = subject[:, None], baseline[:, None]
    return Judged(
        tuple(
            judge.ruling(case(asked, ours, theirs, looks, systematic_frac))
            for ours, theirs in zip(subject, baseline, strict=True)
        )
    )


def held(
    asked: Claim, subject: Values, baseline: Values, looks_at: Sequence[int]
) -> tuple[list[Ruling], NDArray[np.int_]]:
    """The last ruling of each trial that is looked at after these many starts a side and goes on, or not, as
    ``profile claims run`` does; and how many starts a side it took.

    ``subject``, ``baseline``: the figures of all starts that are planned, (trials, cells, starts).
    """
    rulings, used = [], []
    for ours, theirs in zip(subject, baseline, strict=True):
        for number, starts in enumerate(looks_at):
            looks = tuple(each / looks_at[-1] for each in looks_at[: number + 1])
            ruling = judge.ruling(case(asked, ours[:, :starts], theirs[:, :starts], looks))
            if decide(ruling, starts, looks_at) != "go on":
                break
        rulings.append(ruling)
        used.append(starts)
    return rulings, np.array(used)
