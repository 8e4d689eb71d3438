"""How long something will take, said before anything is measured; light, since a run waits for it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from profiler.scenario import points
from profiler.settings import Scenario


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``1 h 40 min``."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def precision_asked(scenario: Scenario, models: int) -> Iterator[str]:
    """Before a run whose windows decide how many there are: how long it may take."""
    if not scenario.is_adaptive:
        return
    from profiler import adaptive

    loads = models * len(points(scenario))
    least_s, most_s = adaptive.bounds_s(scenario.measure)
    each = "the load is" if loads == 1 else f"each of {loads} loads is"
    yield (
        f"{each} held until it is known to ±{100 * scenario.measure.target_ci_frac:.3g}%: "
        f"{duration(loads * least_s)} at least, as a rule {duration(loads * most_s)} at most, beside engine "
        "starts (measure.target_ci_frac, measure.max_seconds, measure.repeats)"
    )
