"""What one side's figures scatter by, from engine start to engine start and from window to window, and so how
the next minute is best spent (Kalibera & Jones, ISMM 2013).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from profiler import stats
from profiler.claims.cells import Found, Point
from profiler.schema import Estimate
from profiler.stats import components, looked

FEWEST_RUNS = 3
ALIKE_FRAC = 0.005  # what runs scatter by at most that nobody minds


def notes(metric: str, found: Found) -> Iterator[str]:
    """Of each side, in words, where both can be told apart."""
    sides = (found.subject, found.baseline)
    yield from filter(None, (note(metric, side) for side in sides))
    yield from filter(None, (of_runs(metric, side) for side in sides))


def of_runs(metric: str, side: Sequence[Point]) -> str | None:
    """A word where starts of one run are more alike than those of several: they share what a machine was like
    then, and tell less of the next run than as many starts apart (nested random effects,
    ``stats.components``).  None where no run held several starts, or there is one run."""
    held: dict[str, list[float]] = {}
    for point in side:
        if (told := point.line.estimate(metric)) and told.value > 0:
            held.setdefault(point.start.folder, []).append(math.log(told.value))
    if len(held) < FEWEST_RUNS:
        return None
    run, start = (each.variance for each in components.components(list(held.values())))
    if run is None or start is None or run <= max(start, ALIKE_FRAC**2):
        return None
    return (
        f"{side[0].start.manifest.model.name}: runs scatter by {math.sqrt(run):.1%}, starts of one run by "
        f"{math.sqrt(start):.1%}: starts in runs of their own tell more"
    )


def note(metric: str, side: Sequence[Point]) -> str | None:
    """None where no start held windows enough to part the two, or nobody knows what either takes."""
    held = [(point, told) for point in side if (told := point.line.estimate(metric)) and told.value > 0]
    spreads = [_spread(point, told) for point, told in held]
    counts = [told.n if own is not None else 1 for (_, told), own in zip(held, spreads, strict=True)]
    logs = [math.log(told.value) for _, told in held]
    start, window = (each.variance for each in components.of_means(logs, spreads, counts))
    start_s, window_s = (_mean([each for point, _ in held for each in took(point)]) for took in _TOOK)
    if start is None or window is None or start_s is None or window_s is None:
        return None
    name = held[0][0].start.manifest.model.name
    return (
        f"{name}: starts scatter by {math.sqrt(start):.1%}, windows of one by {math.sqrt(window):.1%}; at "
        f"{start_s:.3g} s a start and {window_s:.3g} s a window, "
        + _best(start, window, counts, start_s, window_s)
    )


def _best(start: float, window: float, counts: Sequence[int], start_s: float, window_s: float) -> str:
    if components.next_best(start, window, counts, start_s, window_s) == "start":
        return "a further start tells most for the time"
    [best] = components.repetitions([start, window], [start_s, window_s])
    return f"{best or 'more'} windows a start tell most for the time"


def _spread(point: Point, told: Estimate) -> float | None:
    """Of the windows of one start; those of an adaptive run carry a wider interval."""
    is_adaptive = point.start.manifest.scenario.is_adaptive
    return stats.spread(told, looked.LEVEL if is_adaptive else stats.CONFIDENCE)


def _windows_s(point: Point) -> list[float]:
    windows = point.start.manifest.windows
    return [
        (each.closed_ns - each.opened_ns) / 1e9 for each in windows if each.point == point.line.found.point
    ]


def _starts_s(point: Point) -> list[float]:
    return list(point.start.manifest.starts_s)


_TOOK = (_starts_s, _windows_s)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values and sum(values) > 0 else None
