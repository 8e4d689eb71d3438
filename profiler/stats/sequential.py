"""Looking at a trial more than once without fooling oneself.

Every look may stop the trial, so every look needs a share of the error.  Lan & DeMets (Biometrika 70, 1983)
spend it by the share of the planned information (here: engine starts) that is in, so looks need not be
where they were planned; their function of the O'Brien–Fleming kind spends next to nothing early, so a trial
that runs to its end loses little: 2 − 2Φ(z_{α/2} / √t) of a one-sided α up to the share t.

Levels are of p values (Pocock, Biometrika 64, 1977): a t statistic is compared by its own p value, which
keeps the error for few starts too (benchmarks/statistics).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# How far out, in standard deviations, the path of the statistic is followed; beyond are 10⁻¹⁶ of all.
REACH = 8.2
# Nodes a standard deviation of the narrowest step between looks; 10⁻⁹ of a level by the halved step.
FINENESS = 3.0
FEWEST_NODES = 64
# A look with less that is new (one start of 500) has nothing to spend.
LEAST_NEW = 0.002


def spent(fraction: float, alpha: float) -> float:
    """The share of errors spent up to an information ``fraction``, of a one-sided ``alpha``."""
    from scipy.special import ndtr, ndtri

    return 2 * float(ndtr(ndtri(alpha / 2) / math.sqrt(fraction))) if fraction < 1 else alpha


def nominal(fractions: Sequence[float], alpha: float) -> list[float]:
    """At each look so far the level its one-sided p value is compared with, so that all looks together err in
    a share ``alpha`` at most.

    ``fractions``: of the planned starts that were in at each look, rising, above 0.  Once all are in, all of
    ``alpha`` is spent, and any later look has level 0, as one has with next to nothing new.  For a two-sided
    interval at 95 % take ``alpha`` 0.025 and a confidence of 1 − 2 × level.

    Raises ValueError for fractions that do not rise from above 0.
    """
    shares = tuple(min(1.0, float(each)) for each in fractions)
    if not fractions or fractions[0] <= 0 or any(b <= a for a, b in pairwise(fractions)):
        raise ValueError("the information fractions of looks must rise from above 0")
    if not 0 < alpha < 1:
        raise ValueError("alpha must lie between 0 and 1")
    counted: list[float] = []
    for share in shares:
        if share - (counted[-1] if counted else 0.0) >= LEAST_NEW:
            counted.append(share)
    levels = dict(zip(counted, _levels(tuple(counted), alpha), strict=True)) if counted else {}
    return [levels.pop(share, 0.0) for share in shares]


@lru_cache(maxsize=4096)
def _levels(fractions: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """Armitage, McPherson & Rowe (JRSS A 132, 1969): the density of the statistic that has not crossed is
    carried from look to look, on the nodes of a Gauss–Legendre rule."""
    from scipy.special import ndtr

    levels = [spent(fractions[0], alpha)]
    bound = _score(levels[0], fractions[0])
    at, weight = _nodes(fractions, 0, bound)
    density = weight * _normal(at, math.sqrt(fractions[0]))
    for look in range(1, len(fractions)):
        step = math.sqrt(fractions[look] - fractions[look - 1])
        wanted = spent(fractions[look], alpha) - spent(fractions[look - 1], alpha)
        bound = _crossed_by(at, density, step, wanted, REACH * math.sqrt(fractions[look]))
        levels.append(float(ndtr(-bound / math.sqrt(fractions[look]))) if wanted > 0 else 0.0)
        if look + 1 < len(fractions):
            old, (at, weight) = at, _nodes(fractions, look, bound)
            density = weight * (_normal(at[:, None] - old[None, :], step) @ density)
    return tuple(levels)


def _score(level: float, fraction: float) -> float:
    """The bound on the score (z·√t) of a nominal level, as far as it is followed."""
    from scipy.special import ndtri

    return min(REACH, -float(ndtri(level)) if level > 0 else REACH) * math.sqrt(fraction)


def _normal(x: Floats, sd: float) -> Floats:
    import numpy as np

    found: Floats = np.exp(-0.5 * (x / sd) ** 2) / (sd * math.sqrt(2 * math.pi))
    return found


def _nodes(fractions: tuple[float, ...], look: int, bound: float) -> tuple[Floats, Floats]:
    """Places and weights over all scores below the bound at ``look``, fine enough for the step after it."""
    import numpy as np

    low, here = -REACH * math.sqrt(fractions[look]), fractions[look]
    steps = [here - fractions[look - 1]] if look else [here]
    steps += [fractions[look + 1] - here] if look + 1 < len(fractions) else []
    count = math.ceil(FINENESS * (bound - low) / math.sqrt(min(steps)))
    x, w = _rule(max(FEWEST_NODES, count))
    half = (bound - low) / 2
    return np.asarray(low + half * (x + 1)), np.asarray(half * w)


@lru_cache(maxsize=64)
def _rule(count: int) -> tuple[Any, Any]:
    from scipy.special import roots_legendre

    x, w = roots_legendre(count)
    return x, w


def _crossed_by(at: Floats, density: Floats, step: float, wanted: float, furthest: float) -> float:
    """The score which a share ``wanted`` crosses at this look, of those that had not before."""
    from scipy.optimize import brentq
    from scipy.special import ndtr

    def beyond(bound: float) -> float:
        return float(ndtr((at - bound) / step) @ density) - wanted

    if wanted <= 0 or beyond(furthest) >= 0:
        return furthest
    return float(brentq(beyond, -furthest, furthest, xtol=1e-10, rtol=1e-12))


def conditional_power(p: float, fraction: float, final_level: float, drift: float | None = None) -> float:
    """The chance that a trial which stands at a one-sided ``p`` with a ``fraction`` of its starts in ends
    below ``final_level`` (Lan, Simon & Halperin, Sequential Analysis 1, 1982).

    ``drift``: expected z at the end (true log ratio beyond the limit over its final standard error); None:
    the one seen so far goes on.  Normal theory: with few starts a guide to futility, not a figure.
    """
    from scipy.special import ndtr, ndtri

    score = -float(ndtri(min(max(p, 1e-300), 1 - 1e-16))) * math.sqrt(fraction)
    bound = -float(ndtri(final_level)) if final_level > 0 else math.inf
    if fraction >= 1:
        return 1.0 if score >= bound else 0.0
    trend = score / fraction if drift is None else drift
    return float(ndtr((score + trend * (1 - fraction) - bound) / math.sqrt(1 - fraction)))
