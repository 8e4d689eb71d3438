"""One sample → an Estimate; what carries an estimate through a factor or a division."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from profiler.schema import Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIDENCE = 0.95
MIN_BATCHES = 10


def t_quantile(df: float, confidence: float = CONFIDENCE) -> float:
    """Two-sided Student t quantile for ``df`` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, (1 + confidence) / 2))


def over_repeats(values: Sequence[float]) -> Estimate:
    """Mean of repeat values with a t interval on their logarithms (values must be > 0 for one).

    ``values``: one figure a repeat.  A single value, or any value ≤ 0, has no interval.
    The point is the geometric mean, so that it lies inside its own interval; for repeats within 10 % of
    each other it differs from the arithmetic mean by less than 0.1 %.
    """
    n = len(values)
    if n == 0:
        raise ValueError("an estimate needs at least one value")
    if n == 1:
        return Estimate(values[0], n=1, over="repeats")
    if min(values) <= 0:
        return Estimate(sum(values) / n, n=n, over="repeats")
    middle, part = log_mean(values)
    half = t_quantile(n - 1) * math.sqrt(part)
    return Estimate(math.exp(middle), finite_exp(middle - half), finite_exp(middle + half), n, "repeats")


def spread(estimate: Estimate, confidence: float = CONFIDENCE) -> float | None:
    """The standard deviation of single repeats' logarithms, from the interval of :func:`over_repeats` (of
    ``confidence``); None of any other estimate, or without an interval."""
    low, high, n = estimate.low, estimate.high, estimate.n
    if estimate.over != "repeats" or n < 2 or not low or high is None:
        return None
    return math.log(high / low) / 2 * math.sqrt(n) / t_quantile(n - 1, confidence)


def finite_exp(x: float) -> float | None:
    """Two wildly different repeats bound nothing; infinity is no number to print."""
    return math.exp(x) if abs(x) < 700 else None


def of_sample(values: NDArray[np.float64], over: str) -> Estimate:
    """Mean with a t interval over the values themselves, taken as independent (``n ≥ 2`` for one)."""
    n = len(values)
    mean = float(values.mean())
    if n < 2:
        return Estimate(mean, n=n, over=over)
    half = t_quantile(n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n, over)


def of_batches(values: NDArray[np.float64]) -> Estimate:
    """Mean of equal, consecutive slices of one window: precision *within* that run only."""
    if len(values) < MIN_BATCHES:
        return Estimate(float(values.mean()), n=len(values), over="batches")
    return of_sample(values, "batches")


def quantile(values: NDArray[np.float64], q: float) -> Estimate:
    """The q-quantile with a distribution-free interval from order statistics.

    The interval's ends are the order statistics whose ranks bound a Binomial(n, q) count at 95 %
    (Hahn & Meeker, Statistical Intervals, ch. 5).  An end the sample is too small to bound is None:
    the p99 of 50 values has no upper bound, and says so.
    """
    import numpy as np
    from scipy.special import bdtr

    ordered = np.sort(values)
    n = len(ordered)
    below = bdtr(np.arange(n + 1), n, q)
    tail = (1 - CONFIDENCE) / 2
    low = int(np.searchsorted(below, tail, side="right")) - 1
    high = int(np.searchsorted(below, 1 - tail))
    return Estimate(
        float(np.quantile(ordered, q)),
        float(ordered[low]) if low >= 0 else None,
        float(ordered[high]) if high < n else None,
        n,
        "requests",
    )


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """The estimate of ``factor · x`` (factor > 0)."""
    low, high = (None if end is None else end * factor for end in (estimate.low, estimate.high))
    return Estimate(estimate.value * factor, low, high, estimate.n, estimate.over)


def inverted(estimate: Estimate, factor: float) -> Estimate:
    """The estimate of ``factor / x`` for a positive x; an end at or below zero bounds nothing."""

    def flip(end: float | None) -> float | None:
        return factor / end if end is not None and end > 0 else None

    return Estimate(
        factor / estimate.value, flip(estimate.high), flip(estimate.low), estimate.n, estimate.over
    )


def fraction(hits: float, n: float) -> Estimate:
    """A share with its Clopper–Pearson interval (Clopper & Pearson, Biometrika 26, 1934), n ≥ 1.

    It covers at least 95 % for any true share, also where no hit or no miss was seen.  ``hits`` and ``n``
    may be fractional (counts weighed down to the number of independent observations among them).
    """
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    return Estimate(hits / n, low, high, int(n), "requests")


def log_mean(values: Sequence[float]) -> tuple[float, float]:
    """Mean of the logarithms and the variance of that mean."""
    logs = list(map(math.log, values))
    middle = sum(logs) / len(logs)
    return middle, sum([(x - middle) ** 2 for x in logs]) / (len(logs) - 1) / len(logs)


def p_more_hits(hits: int, n: int, base_hits: int, base_n: int) -> float:
    """How often chance alone would put at least ``hits`` of all hits among these ``n`` and not among the
    ``base_n`` others (Fisher's exact test, one-sided)."""

    def ways(of: int, taken: int) -> float:
        return math.lgamma(of + 1) - math.lgamma(taken + 1) - math.lgamma(of - taken + 1)

    every, others = hits + base_hits, n + base_n - hits - base_hits
    least = max(hits, n - others)
    return sum(
        math.exp(ways(every, k) + ways(others, n - k) - ways(n + base_n, n))
        for k in range(least, min(every, n) + 1)
    )
