"""Where the scatter comes from, level by level, and where the next minute is best spent.

Windows lie in runs, runs in engine starts; each level adds a variance of its own to every value below it.
Analysis of variance of nested random effects, also unbalanced (Searle, Casella & McCulloch, Variance
Components, 1992, ch. 5); how often to repeat what, by Kalibera & Jones (ISMM 2013; arXiv 2007.10899).

Relative scatter is asked of logarithms.  Windows that follow each other without a pause share their
luck; what they share goes to the level above, which makes fresh starts look better, never worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import Any, Literal, NamedTuple


class Component(NamedTuple):
    """One level's own variance (at least 0; an estimate below it is 0), its degrees of freedom (0: it cannot
    be told, and ``variance`` is None) and how many units it has."""

    variance: float | None
    df: int
    units: int


class _Group(NamedTuple):
    size: int
    total: float
    parent: int


def components(values: Sequence[Any]) -> list[Component]:
    """Variance by level, outermost first: ``values[start][window]``, or ``[start][run][window]``, and so on.

    Every branch must be equally deep; lengths may differ.  Raises ValueError for a level without a unit.
    """
    levels = _levels(values)
    whole = [_Group(len(levels[-1]), sum(each.total for each in levels[-1]), 0)]
    ladder = [whole, *levels]
    squares = [sum(each.total**2 / each.size for each in level) for level in ladder]
    weights = [_weights(ladder, level) for level in range(len(ladder))]
    raw: dict[int, float | None] = {}
    found = []
    for level in range(len(ladder) - 1, 0, -1):
        df = len(ladder[level]) - len(ladder[level - 1])
        share = {j: weights[level][j] - weights[level - 1][j] for j in range(level, len(ladder))}
        raw[level] = _own(squares[level] - squares[level - 1], share, raw, level) if df > 0 else None
        own = raw[level]
        found.append(Component(None if own is None else max(0.0, own), df, len(ladder[level])))
    return found[::-1]


def of_means(means: Sequence[float], spreads: Sequence[float | None], held: Sequence[int]) -> list[Component]:
    """Starts and windows where only each start's mean, the standard deviation of its ``held`` windows and
    their number are known (None of a single one).

    Unweighted: what the means scatter beyond what their windows explain (Searle, Casella & McCulloch,
    section 6.5; exact where every start held as many).
    """
    n, df = len(means), sum(count - 1 for count, own in zip(held, spreads, strict=True) if own is not None)
    squares = [(count - 1) * own**2 for count, own in zip(held, spreads, strict=True) if own is not None]
    window = sum(squares) / df if df else None
    if n < 2:
        return [Component(None, 0, n), Component(window, df, sum(held))]
    middle = sum(means) / n
    seen = sum((each - middle) ** 2 for each in means) / (n - 1)
    start = max(0.0, seen - (window or 0.0) * sum(1 / count for count in held) / n)
    return [Component(start, n - 1, n), Component(window, df, sum(held))]


def _own(
    sum_of_squares: float, share: dict[int, float], raw: dict[int, float | None], level: int
) -> float | None:
    """What is left of a level's sum of squares when that of the levels below it is taken off.  A level below
    that could not be told is in its parent's, as one window a start is in the start's."""
    below = sum(share[j] * (own or 0.0) for j, own in raw.items())
    return (sum_of_squares - below) / share[level]


def _weights(ladder: list[list[_Group]], level: int) -> dict[int, float]:
    """By level j from this one on, how often its variance is in Σ n·mean² over the groups of ``level``."""
    return {j: sum(_weight(ladder, level, j)) for j in range(level, len(ladder))}


def _weight(ladder: list[list[_Group]], level: int, j: int) -> Iterator[float]:
    for place, each in enumerate(ladder[j]):
        above = place
        for up in range(j, level, -1):
            above = ladder[up][above].parent
        yield each.size**2 / ladder[level][above].size


def _levels(values: Sequence[Any]) -> list[list[_Group]]:
    """Every level's groups, outermost first; the last are the single values."""
    nodes: list[tuple[Any, int]] = [(each, 0) for each in values]
    shape = []
    while nodes:
        shape.append(nodes)
        deeper = {isinstance(each, Real) for each, _ in nodes}
        if len(deeper) > 1 or any(not isinstance(each, Real) and not len(each) for each, _ in nodes):
            raise ValueError("every level needs a unit, and every branch the same depth")
        if deeper == {True}:
            break
        nodes = [(inner, place) for place, (each, _) in enumerate(nodes) for inner in each]
    if not shape:
        raise ValueError("every level needs a unit, and every branch the same depth")
    return [[_Group(*_summed(each), parent) for each, parent in level] for level in shape]


def _summed(node: Any) -> tuple[int, float]:
    if isinstance(node, Real):
        return 1, float(node)
    each = [_summed(inner) for inner in node]
    return sum(size for size, _ in each), sum(total for _, total in each)


def repetitions(variances: Sequence[float], costs: Sequence[float]) -> list[int | None]:
    """How often to repeat each level below the outermost inside one unit of the level above it, for the least
    variance of the mean a second: ⌈√(c_above/c · σ²/σ²_above)⌉ (Kalibera & Jones, section 6).

    Both outermost first; ``costs`` in seconds (or any one unit) of one more of that level by itself: a fresh
    start without its windows.  None: the level above adds nothing, so more of this one costs least.
    """
    found: list[int | None] = []
    for level in range(1, len(variances)):
        above, own = variances[level - 1], variances[level]
        found.append(
            None
            if above <= 0
            else max(1, math.ceil(math.sqrt(costs[level - 1] / costs[level] * own / above) - 1e-9))
        )
    return found


def variance_of_mean(start: float, window: float, held: Sequence[int]) -> float:
    """Of the mean of start means: ``start`` and ``window`` are variances, ``held`` windows by start."""
    return (start * len(held) + window * sum(1 / each for each in held)) / len(held) ** 2


def next_best(
    start: float, window: float, held: Sequence[int], start_cost: float, window_cost: float
) -> Literal["window", "start"]:
    """What takes more off the variance of the mean for its cost: another window in the last start, or a fresh
    start with as many windows as are best there.

    ``start`` and ``window`` are variances, ``held`` windows by start so far, costs in one unit (seconds).
    """
    now = variance_of_mean(start, window, held)
    more = variance_of_mean(start, window, [*held[:-1], held[-1] + 1])
    best = repetitions([start, window], [start_cost, window_cost])[0] or max(held)
    fresh = variance_of_mean(start, window, [*held, best])
    by_window = (now - more) / window_cost
    return "start" if (now - fresh) / (start_cost + best * window_cost) > by_window else "window"
