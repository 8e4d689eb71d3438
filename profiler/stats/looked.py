"""Intervals of figures whose windows were counted while they came in.

Whoever looks at the interval after every window and stops when it is narrow stops where chance made it
narrow: from the third window on, the plain 95 % t interval then covers as little as 90 %.  One of 98 %
covers at least 95 %, whatever the scatter and however many windows it takes (simulated: docs/statistics.md).
"""

from __future__ import annotations

import math

from msgspec.structs import replace

from profiler.schema import Estimate
from profiler.stats.estimates import finite_exp, t_quantile

FEWEST = 3  # windows before the first look
LEVEL = 0.98


def widened(estimate: Estimate) -> Estimate:
    """What ``over_repeats`` says, with the interval that still covers 95 % after a look at every window."""
    low, high, n = estimate.low, estimate.high, estimate.n
    if estimate.over != "repeats" or n < 2 or low is None or high is None:
        return estimate
    wider = t_quantile(n - 1, LEVEL) / t_quantile(n - 1)
    if low <= 0:
        low, high = (estimate.value + wider * (end - estimate.value) for end in (low, high))
        return replace(estimate, low=low, high=high)
    middle = math.log(estimate.value)
    ends = (finite_exp(middle + wider * (math.log(end) - middle)) for end in (low, high))
    low, high = ends
    return replace(estimate, low=low, high=high)


def half_frac(estimate: Estimate) -> float | None:
    """Half the interval over the figure (0.02: ± 2 %); None where there is none."""
    if estimate.low is None or estimate.high is None or estimate.low <= 0:
        return None
    return math.exp(math.log(estimate.high / estimate.low) / 2) - 1
