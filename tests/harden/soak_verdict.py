"""Flat or not, by statistics: slopes with intervals, held against bounds that were said beforehand.

A slope is least squares over means of equal blocks of time; its standard error allows for blocks that are
like their neighbours (an autoregression of order one, :func:`profiler.stats.steady.line`).  *flat*: the whole
95 % interval lies within ± the bound; *drifts*: all of it lies outside; else *undecided*, which is no pass.
What may grow for a known reason may do so by up to as much as is explained, and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from numpy.typing import NDArray

Verdict = Literal["flat", "drifts", "undecided", "not told", "no bound"]
FEWEST_BLOCKS = 8
CONFIDENCE = 0.95
MIB = 1 << 20
BURST = 3.0


class Slope(Struct, frozen=True, kw_only=True):
    """Change per hour, with its interval; None where too few blocks tell.  ``n`` blocks of ``block_s``;
    ``bound``: what was allowed either way; ``explained``: by how much more it may grow."""

    unit: str
    n: int
    block_s: float
    first: float | None = None
    last: float | None = None
    per_hour: float | None = None
    low: float | None = None
    high: float | None = None
    bound: float | None
    explained: float = 0.0
    verdict: Verdict = "not told"


def slope(
    t_s: Sequence[float] | NDArray[Any],
    values: Sequence[float] | NDArray[Any],
    *,
    bound: float | None,
    unit: str,
    block_s: float,
    explained: float = 0.0,
) -> Slope:
    """Of values at these times (s, ascending); blocks in which nothing was seen are bridged by a line."""
    import numpy as np

    from profiler.stats import t_quantile
    from profiler.stats.steady import line

    t, y = np.asarray(t_s, float), np.asarray(values, float)
    if not t.size:
        return Slope(unit=unit, n=0, block_s=block_s, bound=bound)
    place = ((t - t[0]) // block_s).astype(int)
    filled, where = np.unique(place, return_inverse=True)
    means = np.bincount(where, y) / np.bincount(where)
    n = filled.size
    ends = {"first": round(float(means[0]), 3), "last": round(float(means[-1]), 3)}
    if n < FEWEST_BLOCKS:
        return Slope(unit=unit, n=n, block_s=block_s, bound=bound, **ends)
    even = np.interp(np.arange(filled[-1] + 1), filled, means)
    found = line(even)
    hours = (even.size - 1) * block_s / 3600
    df = max(1.0, found.df * n / even.size)  # what was bridged tells nothing
    half = t_quantile(df, CONFIDENCE) * found.error * (even.size / n) ** 0.5 / hours
    middle = found.moved / hours
    low, high, most = middle - half, middle + half, (bound or 0.0) + explained
    verdict: Verdict = "no bound"
    if bound is not None:
        is_flat, is_off = -bound <= low and high <= most, high < -bound or low > most
        verdict = "flat" if is_flat else "drifts" if is_off else "undecided"
    return Slope(
        unit=unit,
        n=n,
        block_s=block_s,
        **ends,
        per_hour=round(middle, 4),
        low=round(low, 4),
        high=round(high, 4),
        bound=bound,
        explained=round(explained, 4),
        verdict=verdict,
    )


def without_bursts(values: Sequence[float] | NDArray[Any]) -> NDArray[Any]:
    """A series in which no value is further from its robust line (Theil–Sen) than ``BURST`` of its usual
    distances (1.4826 medians; Huber's way): a machine that stood still for a moment is not a drift."""
    import numpy as np
    from scipy.stats import theilslopes

    y = np.asarray(values, float)
    if y.size < FEWEST_BLOCKS:
        return y
    x = np.arange(y.size)
    fit = theilslopes(y, x)
    along = fit.intercept + fit.slope * x
    far = BURST * 1.4826 * float(np.median(np.abs(y - along)))
    return np.clip(y, along - far, along + far)


def of_memory(
    t_s: Sequence[float], resident_bytes: Sequence[float], *, bound_mib: float, block_s: float, **more: float
) -> Slope:
    """Of resident memory, in MiB an hour."""
    mib = [each / MIB for each in resident_bytes]
    return slope(t_s, mib, bound=bound_mib, unit="MiB/h", block_s=block_s, **more)


def counted(cycles: Sequence[Sequence[int]], steady: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Counts (descriptors, threads) seen in each window's cycle, and of these those while it was steady.

    ``quiet``: the fewest of the first half of the windows and of the second: what is held when nothing is
    under way, if a look fell on such a moment.  ``steady``: the middle of the windows' usual counts, of each
    half.  ``grew``: either by what a leak of one in every second window would come to; None of few windows.
    ``alike``: of how many windows the count at the end was that at the beginning.
    """
    fewest = [min(each) for each in cycles if len(each)]
    usual = [int(median(each)) for each in steady if len(each)]
    half, middle = len(fewest) // 2, len(usual) // 2
    quiet = [min(fewest[:half]), min(fewest[half:])] if half else fewest
    levels = [median(usual[:middle]), median(usual[middle:])] if middle else usual
    room = len(fewest) / 4
    grew = any(pair[-1] - pair[0] >= room for pair in (quiet, levels) if len(pair) > 1)
    return {
        "windows": len(fewest),
        "quiet": quiet,
        "steady": levels,
        "most": max((max(each) for each in cycles if len(each)), default=None),
        "alike": [sum(each[0] == each[-1] for each in steady if len(each)), len(usual)],
        "grew": grew if len(fewest) >= FEWEST_BLOCKS else None,
    }


def thinned(values: Sequence[Any], most: int = 24) -> list[Any]:
    """At most so many of a series, evenly taken, the first and the last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(place * (len(values) - 1) / (most - 1))] for place in range(most)]
