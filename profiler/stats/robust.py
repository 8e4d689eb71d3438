"""What a t interval does not see: one start unlike the others, two humps, no scatter at all.

Flags, never a reason to drop a start: an interval that holds an outlier is wide, and says so.  Each is
raised by chance alone for one in a hundred sets of starts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

FALSE_ALARMS = 0.01
FEWEST_FOR_OUTLIER = 4
# Starts that differ by less are alike, whatever their scatter: no flag is worth raising.
ALIKE_FRAC = 0.01
# By number of values, the widest gap over the scatter within the two groups it parts that one in a hundred
# normal samples exceeds (simulated; tests/stats/test_robust.py does so again).
HUMP_GAPS = {6: 7.7, 7: 6.0, 8: 5.1, 10: 3.9, 12: 3.2, 16: 2.5, 20: 2.1, 40: 1.45}


def outlier(values: Sequence[float]) -> int | None:
    """Which of at least four positive values is unlike the others: Grubbs's test on logarithms (Grubbs,
    Technometrics 11, 1969); None where none is, or too few tell."""
    from scipy.special import stdtrit

    n = len(values)
    if n < FEWEST_FOR_OUTLIER or min(values) <= 0:
        return None
    logs = [math.log(each) for each in values]
    middle = sum(logs) / n
    away = [abs(each - middle) for each in logs]
    furthest = max(away)
    spread = math.sqrt(sum(each**2 for each in away) / (n - 1))
    t = float(stdtrit(n - 2, 1 - FALSE_ALARMS / (2 * n)))
    limit = spread * (n - 1) / math.sqrt(n) * math.sqrt(t**2 / (n - 2 + t**2))
    return away.index(furthest) if furthest > max(limit, math.log1p(ALIKE_FRAC)) else None


def humps(values: Sequence[float]) -> tuple[int, int] | None:
    """How many of at least six positive values lie in each of two groups, where a gap parts them that one
    bell would not have; None where there is none.  A mean over two humps is a place where no start is."""
    n = len(values)
    if n < min(HUMP_GAPS) or min(values) <= 0:
        return None
    logs = sorted(math.log(each) for each in values)
    limit = HUMP_GAPS[max(size for size in HUMP_GAPS if size <= n)]
    found = max(range(2, n - 1), key=lambda cut: _gap(logs, cut))
    wide = logs[found] - logs[found - 1] > math.log1p(ALIKE_FRAC)
    return (found, n - found) if wide and _gap(logs, found) > limit else None


def _gap(ordered: Sequence[float], cut: int) -> float:
    within = sum(_squares(group) for group in (ordered[:cut], ordered[cut:]))
    step = ordered[cut] - ordered[cut - 1]
    return step / math.sqrt(within / (len(ordered) - 2)) if within > 0 else math.inf if step > 0 else 0.0


def _squares(values: Sequence[float]) -> float:
    middle = sum(values) / len(values)
    return sum((each - middle) ** 2 for each in values)


def no_scatter(values: Sequence[float]) -> bool:
    """Whether two or more values are the same to nine digits.  Nothing that is timed does that: a clock with
    few digits, a cap on the rate or a copied run did, and an interval of no width means nothing."""
    return len(values) > 1 and max(values) - min(values) <= 1e-9 * abs(max(values))


def remarks(values: Sequence[float]) -> Iterator[str]:
    """All of the above in words, of the figures of one side, one a start."""
    if no_scatter(values):
        yield f"all {len(values)} starts gave the very same figure, so their scatter is not known"
        return
    odd = outlier(values)
    if odd is not None:
        others = [each for place, each in enumerate(values) if place != odd]
        change = values[odd] / (sum(others) / len(others)) - 1
        yield f"start {odd + 1} of {len(values)} is unlike the others ({change:+.1%})"
    parts = humps(values)
    if parts is not None:
        yield f"the starts fall in two groups, {parts[0]} low and {parts[1]} high, with none between"
