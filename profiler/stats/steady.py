"""Did a series settle, jump or drift?  Values of equal stretches of time, in order.

Three questions, each answered only where the change is both larger than chance and large enough to matter:
a *jump* between two levels (PELT: Killick, Fearnhead & Eckley, JASA 107, 2012, by ``ruptures``), a *drift*
along a line, a beginning that is *unsettled* (MSER-5: White, Simulation 69, 1997; Spratt 1998).  Stretches
that follow each other are alike, so chance is reckoned with that likeness (an autoregression of order one).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# A change below it does not matter; chance alone raises a finding in fewer than one series in 200
# (tests/stats/test_steady.py, for likeness up to 0.7).
CHANGE_FRAC = 0.05
FALSE_ALARMS = 0.0002
FEWEST = 5
FEWEST_FOR_JUMPS, SHORTEST_LEVEL = 12, 4
MSER_BATCH, FEWEST_FOR_MSER = 5, 50
MOST_LIKE = 0.95


class Change(NamedTuple):
    """What is not steady: by which share of the mean the level changed, and where (a share of the series:
    where a jump is or where it settled; None of a drift, which is everywhere)."""

    kind: Literal["jump", "drift", "unsettled"]
    change_frac: float
    at_frac: float | None = None


def change(values: Floats) -> Change | None:
    """The first of jump, drift and unsettled beginning that a series shows; None where it is steady, has no
    positive mean or is too short to tell."""
    if len(values) < FEWEST or not values.mean() > 0:
        return None
    jump, drift = _jump(values), _drift(values)
    if jump and drift:
        return drift if _left_by_line(values) < _left_by_step(values) else jump
    return jump or drift or _beginning(values)


def settled(values: Floats, batch: int = MSER_BATCH) -> int | None:
    """How many leading values to leave out by MSER: the number of whole batches that makes what remains tell
    its own mean best, argmin Σ(z − z̄)² / (n − d)².  None where that is half of them or more: it has not
    settled, or too few values tell."""
    import numpy as np

    n = len(values) // batch
    if n < 2 * MSER_BATCH:
        return None
    means = (values[: n * batch] - values.mean()).reshape(n, batch).mean(axis=1)
    left = n - np.arange(n // 2 + 1)
    sums, squares = (np.cumsum(each[::-1])[::-1][: n // 2 + 1] for each in (means, means**2))
    spread = (squares - sums**2 / left) / left**2
    best = int(np.argmax(spread <= spread.min() + 1e-12 * spread[0]))  # the first of equals
    return None if best >= n // 2 else best * batch


def jumps(values: Floats) -> list[int]:
    """Where the level changes, as indices of the first value after each change: PELT with a penalty of
    3·ln n long-run variances a change, taken from steps between neighbours so that changes are not in it."""
    from ruptures import KernelCPD

    n, scale = len(values), _long_run_sd(values)
    if n < 2 * SHORTEST_LEVEL or scale == 0:
        return []
    found = KernelCPD(kernel="linear", min_size=SHORTEST_LEVEL).fit(values / scale)
    return [int(each) for each in found.predict(pen=3 * math.log(n))[:-1]]


class Line(NamedTuple):
    """A straight line through a series: the change from its first value to its last, the standard error of
    that (with the likeness of neighbours) and its degrees of freedom."""

    moved: float
    error: float
    df: float


def line(values: Floats) -> Line:
    """Least squares over equal steps.  Needs three values."""
    import numpy as np

    n = len(values)
    x = np.arange(n) - (n - 1) / 2
    step = float(x @ values / (x @ x))
    left = values - values.mean() - step * x
    like = _likeness(left, 2)
    df = max((n - 2) / 2, n * (1 - like) / (1 + like) - 2)
    error = math.sqrt(float(left @ left) / (n - 2) / float(x @ x) * (1 + like) / (1 - like))
    return Line(step * (n - 1), error * (n - 1), df)


def slope(values: Floats) -> tuple[float, float]:
    """The change along a straight line from the first value to the last, and how often chance alone would
    show one as large (two-sided).  Needs three values."""
    from scipy.special import stdtr

    moved, error, df = line(values)
    t = abs(moved) / error if error > 0 else math.inf if moved else 0.0
    return moved, 2 * float(stdtr(df, -t))


def _left_by_line(values: Floats) -> float:
    """The squares a straight line leaves."""
    import numpy as np

    x = np.arange(len(values)) - (len(values) - 1) / 2
    return float(values.var() * len(values) - (x @ values) ** 2 / (x @ x))


def _left_by_step(values: Floats) -> float:
    """The squares two levels leave, where they part best."""
    import numpy as np

    n, away = len(values), values - values.mean()
    before = np.arange(1, n)
    sums = np.cumsum(away)[:-1]
    return float(away @ away - (sums**2 * n / (before * (n - before))).max())


def _jump(values: Floats) -> Change | None:
    mean = float(values.mean())
    if len(values) < FEWEST_FOR_JUMPS or _widest_step(values) < CHANGE_FRAC * mean:
        return None
    edges = [0, *jumps(values), len(values)]
    levels = [values[a:b] for a, b in pairwise(edges)]
    scale = max(_long_run_sd(values), _sd_within(levels))
    steps = [
        (float(after.mean() - before.mean()) / mean, edge)
        for (before, after), edge in zip(pairwise(levels), edges[1:], strict=False)
        if _apart(before, after, scale)
    ]
    step, edge = max(steps, key=lambda each: abs(each[0]), default=(0.0, 0))
    return Change("jump", step, edge / len(values)) if abs(step) >= CHANGE_FRAC else None


def _sd_within(levels: Sequence[Floats]) -> float:
    """The long-run scatter of what the levels leave."""
    import numpy as np

    left = np.concatenate([level - level.mean() for level in levels])
    like = _likeness(left, len(levels))
    return math.sqrt(float(left @ left) / (len(left) - len(levels)) * (1 + like) / (1 - like))


def _widest_step(values: Floats) -> float:
    """The largest difference between the means before and after any place: no jump is larger by far, and it
    costs next to nothing to ask."""
    import numpy as np

    n = len(values)
    before = np.arange(SHORTEST_LEVEL, n - SHORTEST_LEVEL + 1)
    sums = np.cumsum(values)
    first = sums[before - 1]
    return float(np.abs((sums[-1] - first) / (n - before) - first / before).max())


def _apart(before: Floats, after: Floats, scale: float) -> bool:
    """Whether two levels differ by more than chance, which had every place to choose from."""
    from scipy.special import stdtrit

    n = len(before) + len(after)
    error = scale * math.sqrt(1 / len(before) + 1 / len(after))
    return abs(float(after.mean() - before.mean())) > error * float(stdtrit(n - 2, 1 - FALSE_ALARMS / n))


def _drift(values: Floats) -> Change | None:
    moved, p = slope(values)
    share = moved / float(values.mean())
    return Change("drift", share) if abs(share) >= CHANGE_FRAC and p < FALSE_ALARMS else None


def _beginning(values: Floats) -> Change | None:
    """A first part that is unlike the rest, by so much that the mean of all is off."""
    if len(values) < FEWEST_FOR_MSER:
        return None
    cut = settled(values)
    if not cut:
        return None
    first, rest = values[:cut], values[cut:]
    step = float(first.mean() - rest.mean())
    share = step / float(rest.mean())
    wide = abs(share) >= CHANGE_FRAC and _apart(first, rest, max(_long_run_sd(rest), _sd_within([rest])))
    return Change("unsettled", share, cut / len(values)) if wide else None


def _likeness(left: Floats, fitted: int) -> float:
    """First-order autocorrelation of what a fit of so many coefficients leaves, 0 to MOST_LIKE; in few values
    it comes out too low by about (fitted + 4ρ)/n, which is put back (Kendall, Biometrika 41, 1954)."""
    n, total = len(left), float(left @ left)
    if total == 0 or n < 3:
        return 0.0
    found = float(left[1:] @ left[:-1]) / total
    return min(MOST_LIKE, max(0.0, (found * n + fitted) / max(n - 4.0, 1.0)))


def _long_run_sd(values: Floats) -> float:
    """The scatter that the mean of a long stretch has, times the root of its length: from steps between
    neighbours, cut off at three of their medians so that a jump is not taken for scatter."""
    import numpy as np

    steps: Any = np.diff(values)
    limit = 3 * 1.4826 * float(np.median(np.abs(steps)))
    if limit == 0:  # most neighbours are equal (clocks, counts): what steps there are tell of no likeness
        return math.sqrt(float(steps @ steps) / len(steps) / 2)
    steps = steps.clip(-limit, limit)
    total = float(steps @ steps)
    # Of an autoregression, neighbouring steps correlate by (φ − 1)/2.
    like = min(MOST_LIKE, max(0.0, 1 + 2 * float(steps[1:] @ steps[:-1]) / total))
    own = math.sqrt(total / len(steps) / (2 * (1 - like)))
    return own * math.sqrt((1 + like) / (1 - like))
