"""How likely a model is on the cost–quality frontier, when neither its cost nor its score is exact.

A model is on the frontier where no other is at least as good and at least as cheap, and better in one of the
two.  Every draw takes each score from a normal distribution (standard error from its published 95 % bounds)
and each cost from a log-normal one (likewise), all independent, and asks who is on the frontier.  A model
that is served in two ways has one score, drawn once; a score or a cost without an interval is taken as it
stands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from profiler import scores
from profiler.schema import Estimate
from profiler.scores import Score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DRAWS = 20_000
SEED = 20_251_211


class Chance(Struct, frozen=True):
    """``p`` with the standard error of drawing so often; ``now``: on the frontier at the figures as they
    stand; ``behind``: of those that then rule it out, the cheapest."""

    p: float
    error: float
    now: bool
    behind: int | None


def chances(points: Sequence[tuple[Score, Estimate]], draws: int = DRAWS) -> list[Chance]:
    """Of each (score, cost); the same points give the same answer."""
    import numpy as np

    generator = np.random.default_rng(SEED)
    drawn = {score: _quality(generator, score, draws) for score, _ in points}
    quality = np.stack([drawn[score] for score, _ in points], axis=1)
    cost = np.stack([_cost(generator, usd, draws) for _, usd in points], axis=1)
    shares = [float(1 - _ruled_out(quality, cost, place).mean()) for place in range(len(points))]
    behind = [_behind(points, place) for place in range(len(points))]
    return [
        Chance(p, math.sqrt(p * (1 - p) / draws), by is None, by)
        for p, by in zip(shares, behind, strict=True)
    ]


def _quality(generator: np.random.Generator, score: Score, draws: int) -> NDArray[np.float64]:
    return generator.normal(score.value, scores.stderr(score) or 0.0, draws)


def _cost(generator: np.random.Generator, usd: Estimate, draws: int) -> NDArray[np.float64]:
    import numpy as np

    known = usd.low is not None and usd.high is not None and usd.low > 0
    spread = math.log(usd.high / usd.low) / (2 * scores.Z95) if known and usd.high and usd.low else 0.0
    return np.exp(generator.normal(math.log(usd.value), spread, draws))


def _ruled_out(quality: NDArray[np.float64], cost: NDArray[np.float64], place: int) -> NDArray[np.bool_]:
    """In which draws another model is as good and as cheap as this one, and better in one of the two."""
    import numpy as np

    good, usd = quality[:, place, None], cost[:, place, None]
    better = (quality >= good) & (cost <= usd) & ((quality > good) | (cost < usd))
    found: NDArray[np.bool_] = np.any(better, axis=1)
    return found


def _behind(points: Sequence[tuple[Score, Estimate]], place: int) -> int | None:
    """The cheapest model that rules this one out at the figures as they stand."""
    own, usd = points[place][0].value, points[place][1].value
    ahead = [
        (cost.value, at)
        for at, (score, cost) in enumerate(points)
        if score.value >= own and cost.value <= usd and (score.value > own or cost.value < usd)
    ]
    return min(ahead)[1] if ahead else None
