"""Arrays in, Estimates out.  Knows nothing of models, engines or requests.

Which interval, and why (coverage simulated at start-to-start spread 0–2 %, AR(1) windows; pooling the
windows of one start covers 37–43 % where 95 % is promised): the mean over *repeats* carries a t interval
on the logarithms of the repeat values, which covers 94–97 % and cannot cross zero.  Inside a single repeat
batch means give a *within-run* precision, which says nothing of the next run; ``Estimate.over`` keeps the
two apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from profiler.schema import Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONFIDENCE = 0.95
MIN_BATCHES = 10
MOST_RUNS = 10_000


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
    middle, part = _log_mean(values)
    half = t_quantile(n - 1) * math.sqrt(part)
    return Estimate(math.exp(middle), _exp(middle - half), _exp(middle + half), n, "repeats")


def _exp(x: float) -> float | None:
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


class LogRatio(NamedTuple):
    """The log of ``new / base``, its standard error and the degrees of freedom that belong to it."""

    mean: float
    error: float
    df: float

    @property
    def inverse(self) -> LogRatio:
        """Of ``base / new``."""
        return LogRatio(-self.mean, self.error, self.df)

    def interval(self) -> tuple[float | None, float | None]:
        """The ends of the ratio's two-sided interval; None where it is too wide to be a number."""
        half = t_quantile(self.df) * self.error
        return _exp(self.mean - half), _exp(self.mean + half)

    def p_beyond(self, limit: float) -> float:
        """How often data at least as far out would come from a true ratio of ``limit`` or less (one-sided).

        For "below a limit" ask the inverse: ``found.inverse.p_beyond(1 / limit)``.
        """
        from scipy.special import stdtr

        excess = self.mean - math.log(limit)
        if self.error == 0:
            return 0.0 if excess > 0 else 1.0
        return float(stdtr(self.df, -excess / self.error))


def log_ratio(new: Sequence[float], base: Sequence[float]) -> LogRatio | None:
    """Welch's two-sample statistic on logarithms (Welch, Biometrika 34, 1947); None where nothing can be
    said of the spread: fewer than two values on a side, or one that is not positive.

    Equal values on both sides have no error: their ``df`` is then that of the smaller side.
    """
    if min(len(new), len(base)) < 2 or min(*new, *base) <= 0:
        return None
    (above, a_part), (below, b_part) = _log_mean(new), _log_mean(base)
    total = a_part + b_part
    smallest = min(len(new), len(base)) - 1
    df = total**2 / (a_part**2 / (len(new) - 1) + b_part**2 / (len(base) - 1)) if total > 0 else smallest
    return LogRatio(above - below, math.sqrt(total), df)


def log_ratio_alone(new: Sequence[float], base: Sequence[float]) -> LogRatio | None:
    """As :func:`log_ratio` with one value on one side and two or more on the other, whose spread is taken
    for both: the interval is that of the next value.  None otherwise."""
    one, many = sorted((new, base), key=len)
    if len(one) != 1 or len(many) < 2 or min(*one, *many) <= 0:
        return None
    middle, part = _log_mean(many)
    found = LogRatio(math.log(one[0]) - middle, math.sqrt(part * (1 + len(many))), len(many) - 1)
    return found if len(new) == 1 else found.inverse


def _log_mean(values: Sequence[float]) -> tuple[float, float]:
    """Mean of the logarithms and the variance of that mean."""
    logs = list(map(math.log, values))
    middle = sum(logs) / len(logs)
    return middle, sum([(x - middle) ** 2 for x in logs]) / (len(logs) - 1) / len(logs)


def ratio_of_means(new: Sequence[float], base: Sequence[float]) -> Estimate:
    """``new / base`` from one figure a run (or repeat) on each side, with Welch's t interval on logarithms.

    In a simulation of run-to-run spread 0–2 % over windows that follow each other it covers 94–97 % with
    3 to 10 runs a side, where pooling the windows covers 37–63 %.  Without two positive values a side the
    ratio has no interval.  ``n`` is the smaller side's.  Raises ValueError where there is no ratio.
    """
    n = min(len(new), len(base))
    if n == 0 or sum(base) == 0:
        raise ValueError("a ratio needs a value on each side and a base that is not 0")
    found = log_ratio(new, base)
    if found is None:
        return Estimate(sum(new) / len(new) / (sum(base) / len(base)), n=n, over="repeats")
    return Estimate(math.exp(found.mean), *found.interval(), n, "repeats")


def ratio_of(new: Estimate, base: Estimate) -> Estimate:
    """``new / base`` of two independent figures known only by value and interval.

    The distances from the value to each end add in quadrature on the logarithms (recovery of variance from
    limits: Zou & Donner, Statistics in Medicine 27, 2008); an end that needs a missing limit is None.
    Raises ValueError for a base of 0.
    """
    if base.value == 0:
        raise ValueError("a ratio needs a base that is not 0")
    value = new.value / base.value
    low, high = _beside(new.value, new.low), _beside(new.value, new.high)
    base_low, base_high = _beside(base.value, base.low), _beside(base.value, base.high)
    over = new.over if new.over == base.over else None
    return Estimate(
        value,
        None if low is None or base_high is None else value / math.exp(math.hypot(low, base_high)),
        None if high is None or base_low is None else value * math.exp(math.hypot(high, base_low)),
        min(new.n, base.n),
        over,
    )


def _beside(value: float, end: float | None) -> float | None:
    """How far an end lies from the value, on logarithms; None where it bounds no positive number."""
    return None if end is None or end <= 0 or value <= 0 else abs(math.log(end / value))


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


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that rejecting those ≤ α errs in no more than a share α of families
    (Holm, Scandinavian Journal of Statistics 6, 1979); in the order given."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, worst = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        worst = max(worst, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = worst
    return adjusted


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
