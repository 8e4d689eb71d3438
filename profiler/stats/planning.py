"""How many engine starts it takes, and what so many can tell.  Spreads and distances are of logarithms."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from profiler.stats.estimates import CONFIDENCE

MOST_RUNS = 10_000
ONE_SIDED = (1 - CONFIDENCE) / 2
POWER = 0.8
# Equally likely slices of what a spread, and the shares of two in it, may turn out to be: 10⁻³ of a power.
SLICES = (200, 48)


def runs_needed(spread: float, distance: float, alpha: float = 1 - CONFIDENCE, power: float = 0.8) -> int:
    """Runs on each side after which a one-sided test at ``alpha`` sees a true log ratio ``distance`` beyond
    its limit in a share ``power`` of cases; ``spread``: standard deviation of one run's logarithm.

    2·[(t₁₋α + t_power)·σ/Δ]² with the t quantiles of the n it comes to, capped at MOST_RUNS.
    """
    from scipy.special import ndtri, stdtrit

    by_normal = 2 * (float(ndtri(1 - alpha) + ndtri(power)) * spread / distance) ** 2
    for n in range(max(2, math.ceil(min(by_normal, MOST_RUNS))), MOST_RUNS):
        reach = float(stdtrit(2 * n - 2, 1 - alpha) + stdtrit(2 * n - 2, power))
        if n >= 2 * (reach * spread / distance) ** 2:
            return n
    return MOST_RUNS


def power(n: int, spread: float, distance: float, alpha: float = ONE_SIDED) -> float:
    """How often ``n`` starts a side tell a true log ratio that lies ``distance`` beyond its limit, by
    Welch's one-sided t test at ``alpha``, where both sides scatter alike by ``spread``."""
    from scipy.special import ndtr

    if n < 2:
        return 0.0
    if spread <= 0:
        return 1.0 if distance > 0 else 0.0
    return float(ndtr(distance / (spread * math.sqrt(2 / n)) - _reach(n, alpha)).mean())


def power_equal(n: int, spread: float, margin_frac: float, alpha: float = 1 - CONFIDENCE) -> float:
    """How often ``n`` starts a side show two equal sides to be equal within a practical margin, by two
    one-sided tests at ``alpha`` (Phillips, Journal of Pharmacokinetics and Biopharmaceutics 18, 1990)."""
    from scipy.special import ndtr

    if n < 2 or spread <= 0:
        return float(n >= 2)
    room = math.log1p(margin_frac) / (spread * math.sqrt(2 / n)) - _reach(n, alpha)
    return float((2 * ndtr(room.clip(min=0)) - 1).mean())


@lru_cache(maxsize=256)
def _reach(n: int, alpha: float) -> Any:
    """How far, in true standard errors, a difference must lie from a limit: t quantile × what the error is
    seen to be, at equally likely places of all that two variances of ``n`` values may turn out to be.

    Their sum is χ² of 2n−2 degrees of freedom; their shares b and 1−b of it, independent of it, are
    Beta((n−1)/2, (n−1)/2), and Welch's degrees of freedom (n−1) / (b² + (1−b)²): few starts often look as
    if one side did not scatter, and then have hardly more than one side's.
    """
    import numpy as np
    from scipy.special import betaincinv, chdtri, stdtrit

    sums, shares = ((np.arange(count) + 0.5) / count for count in SLICES)
    seen = np.sqrt(chdtri(2 * n - 2, sums) / (2 * n - 2))
    b = betaincinv((n - 1) / 2, (n - 1) / 2, shares)
    quantiles = stdtrit((n - 1) / (b**2 + (1 - b) ** 2), 1 - alpha)
    return seen[:, None] * quantiles[None, :]


def starts(spread: float, distance: float, alpha: float = ONE_SIDED, aim: float = POWER) -> int:
    """Starts a side for :func:`power` ``aim``; MOST_RUNS where nothing would do (``distance`` not above 0).

    ``distance`` is ln(expected ratio / threshold).  ``alpha``: ONE_SIDED is what a two-sided 95 % interval
    leaves on a side; of a trial with looks, the nominal level of the last one.
    """
    return _fewest(lambda n: power(n, spread, distance, alpha) >= aim) if distance > 0 else MOST_RUNS


def starts_equal(spread: float, margin_frac: float, alpha: float = 1 - CONFIDENCE, aim: float = POWER) -> int:
    """Starts a side for :func:`power_equal` ``aim``."""
    return _fewest(lambda n: power_equal(n, spread, margin_frac, alpha) >= aim)


def _fewest(enough: Callable[[int], bool]) -> int:
    """The least n from 2 to MOST_RUNS that is enough: by doubling, then halving the gap."""
    low, high = 1, 2
    while not enough(high):
        if high >= MOST_RUNS:
            return MOST_RUNS
        low, high = high, min(2 * high, MOST_RUNS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
