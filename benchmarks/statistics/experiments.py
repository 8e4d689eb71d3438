"""The questions: does the interval cover, how often is a verdict wrong, how often is it found at all?

Each takes a generator and a number of trials and gives shares; their Monte-Carlo error is ``error``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from benchmarks.statistics import court
from benchmarks.statistics.worlds import Values, World, draw, windows
from profiler import stats
from profiler.claims.nouns import Claim
from profiler.stats import planning

Rng = np.random.Generator


def error(share: float, trials: int) -> float:
    """Standard error of a share that was counted in so many trials."""
    return math.sqrt(share * (1 - share) / trials)


class Coverage(NamedTuple):
    """Shares of intervals that hold the truth: the judge's 95 % one, half of its width, Fieller's beside it,
    and the one shown where the evidence is of no trial."""

    judge: float
    half_width: float
    fieller: float
    of_no_trial: float


def coverage(rng: Rng, trials: int, world: World, starts: int, ratio: float = 1.5) -> Coverage:
    sides = draw(world, rng, trials, starts, ratio)
    found, loose = court.judged(court.claim(), *sides), court.judged(court.claim(), *sides, looks=None)
    return Coverage(
        float(found.covers(ratio).mean()),
        found.half_width(),
        float(found.covers(ratio, "fieller").mean()),
        float(loose.covers(ratio).mean()),
    )


def pooled_coverage(rng: Rng, trials: int, world: World, starts: int) -> float:
    """Of the interval that takes every window for an observation of its own, as most tools do."""
    shape = (trials, starts)
    logs = [
        np.log(windows(world, rng, shape)) + rng.normal(0, world.start_sd, shape)[..., None] for _ in range(2)
    ]
    ours, theirs = (each.reshape(trials, -1) for each in logs)
    n = ours.shape[1]
    half = stats.t_quantile(2 * n - 2) * np.sqrt((ours.var(1, ddof=1) + theirs.var(1, ddof=1)) / n)
    return float((np.abs(ours.mean(1) - theirs.mean(1)) <= half).mean())


class Wrong(NamedTuple):
    """Shares of verdicts, worst of the margins, where the claim is just about false (and just about true)."""

    supported: float
    refuted: float


def wrong(rng: Rng, trials: int, asked: Claim, world: World, starts: int) -> Wrong:
    """On the margin itself neither verdict may be come by often."""
    found = [
        court.judged(asked, *draw(world, rng, trials, starts, ratio)) for ratio in court.on_the_margin(asked)
    ]
    return Wrong(
        max(each.share("supported") for each in found),
        max(each.share("refuted", "direction only") for each in found),
    )


def peeking(rng: Rng, trials: int, world: World, last: int, looks: tuple[float, ...] | None = None) -> float:
    """False support of a claim on its margin when sealed runs are judged again after every further start,
    from the third to the ``last``, outside any trial, and the first "supported" is kept.

    ``looks`` ONCE: with the interval of someone who looks once.
    """
    asked = court.claim()
    ours, theirs = draw(world, rng, trials, last, court.on_the_margin(asked)[0])
    ever = np.zeros(trials, dtype=bool)
    for starts in range(3, last + 1):
        open_still = np.flatnonzero(~ever)
        found = court.judged(asked, ours[open_still, :starts], theirs[open_still, :starts], looks)
        ever[open_still] = found.overall == "supported"
    return float(ever.mean())


class Trial(NamedTuple):
    """Of trials held in looks: shares of verdicts, the mean number of starts a side, and how often the
    interval of the last look (in all cells) holds the truth."""

    supported: float
    refuted: float
    undecided: float
    starts: float
    covered: float


def trial(
    rng: Rng, trials: int, asked: Claim, world: World, ratio: float | Sequence[float], looks: Sequence[int]
) -> Trial:
    """``ratio``: the truth, or the truth in each cell of the claim."""
    rulings, used = court.held(asked, *in_cells(rng, trials, world, looks[-1], ratio), looks)
    found = court.Judged(tuple(rulings))
    return Trial(
        found.share("supported"),
        found.share("refuted", "direction only"),
        found.share("undecided"),
        float(used.mean()),
        float(found.covers(np.asarray(ratio)).all(axis=1).mean()),
    )


def in_cells(
    rng: Rng, trials: int, world: World, starts: int, ratio: float | Sequence[float]
) -> tuple[Values, Values]:
    """Figures of (trials, cells, starts)."""
    ratios = [ratio] if isinstance(ratio, float) else ratio
    sides = [draw(world, rng, trials, starts, each) for each in ratios]
    return np.stack([ours for ours, _ in sides], axis=1), np.stack([theirs for _, theirs in sides], axis=1)


class Power(NamedTuple):
    planned: int
    found: float


def power(rng: Rng, trials: int, world: World, distance: float, aim: float = 0.8) -> Power:
    """How often as many starts as planning asks for do find a truth ``distance`` (of the logarithm) beyond
    the margin."""
    asked = court.claim()
    planned = planning.starts(world.sd, distance, aim=aim)
    ratio = court.on_the_margin(asked)[0] * math.exp(distance)
    found = court.judged(asked, *draw(world, rng, trials, planned, ratio))
    return Power(planned, found.share("supported"))


class Family(NamedTuple):
    """Of claims with several cells: the share of trials in which a cell on the margin, or the whole claim,
    was called supported."""

    cell: float
    overall: float
    found: float


def family(rng: Rng, trials: int, world: World, starts: int, null: int, true: int) -> Family:
    """``null`` cells lie on the margin and ``true`` ones far beyond it; ``found`` is the share of the latter
    that were called supported."""
    batches = [2**power for power in range(null + true)]
    asked = court.claim(batches=batches)
    margin = court.on_the_margin(asked)[0]
    ratios = [margin] * null + [margin * 1.15] * true
    found = court.judged(asked, *in_cells(rng, trials, world, starts, ratios))
    said = found.cells == "supported"
    return Family(
        float(said[:, :null].any(axis=1).mean()) if null else 0.0,
        found.share("supported"),
        float(said[:, null:].mean()) if true else 0.0,
    )


class Unlike(NamedTuple):
    """Sides with unlike numbers of starts or unlike scatter: coverage of the 95 % interval, false support of
    a single cell, and of any of CELLS, all on the margin."""

    judge: float
    one: float
    any_of_many: float


CELLS = 14


def unlike(rng: Rng, trials: int, world: World, starts: tuple[int, int]) -> Unlike:
    """``starts`` of subject and baseline."""
    asked = court.claim(batches=range(1, CELLS + 1))
    margin = court.on_the_margin(asked)[0]
    ours, theirs = in_cells(rng, trials, world, max(starts), [margin] * CELLS)
    ours, theirs = ours[..., : starts[0]], theirs[..., : starts[1]]
    alone = court.judged(court.claim(), ours[:, 0], theirs[:, 0])
    many = court.judged(asked, ours, theirs)
    return Unlike(
        float(alone.covers(margin).mean()),
        alone.share("supported"),
        float((many.cells == "supported").any(axis=1).mean()),
    )


class Crossing(NamedTuple):
    """A ratio that falls through 1 inside the grid: what is said of the claim, and of where."""

    supported: float
    refuted: float
    reported: float
    covered: float
    width: float


BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


def crossing(
    rng: Rng, trials: int, world: World, starts: int, at: float = 11.0, slope: float = 0.35
) -> Crossing:
    """The true log ratio is ``slope`` · log(``at`` / batch), as of a MoE whose lead goes with the batch.

    ``reported``: share of trials in which a crossover was named; of those, ``covered`` is the share whose
    interval holds ``at`` and ``width`` the median of high / low.
    """
    asked = court.claim(batches=BATCHES)
    ratios = [math.exp(slope * math.log(at / batch)) for batch in BATCHES]
    found = court.judged(asked, *in_cells(rng, trials, world, starts, ratios))
    named = [ruling.crossovers[0][1] for ruling in found.rulings if len(ruling.crossovers) == 1]
    ends = [(each.low, each.high) for each in named if each.low is not None and each.high is not None]
    inside = sum(low <= at <= high for low, high in ends) + len(named) - len(ends)
    return Crossing(
        found.share("supported"),
        found.share("refuted"),
        len(named) / trials,
        inside / max(1, len(named)),
        float(np.median([high / low for low, high in ends])) if ends else math.nan,
    )


def without_blocks(world: World) -> World:
    return replace(world, blocks=False)
