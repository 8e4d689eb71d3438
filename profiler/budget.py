"""How far the energy of a window may be off, from what was seen of the device around that window.

Four statistical parts, each one standard deviation in joules, independent of each other:

=============  =======================================================================================
timing         a tick lies anywhere in its span of w seconds: uniform, so P·w/√12 at each edge, with
               the highest power seen near it
interpolation  power is not constant between two ticks: bounded by the powers seen near the edge
resolution     the counter's unit: uniform, so u/√12 at each edge
duty           boards whose sensor is on for part of each period only: the scatter of neighbouring
               periods, summed over the window (``scatter_j``)
=============  =======================================================================================

Devices that are measured together share the window and often the load, so what interpolation makes of an
edge may be of one sign on all of them: those bounds add up linearly, the other parts in quadrature
(``together``).

What is the same in every window of a board (the gain of its sensor) is no part of this: it is the
systematic part, ``systematic_frac``, which repeating does not lower and which is never added in here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from profiler.counters import Counter, Curve, Series

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

# 95 % of a normal distribution; two uniform errors alone would need 1.90 (1 − √0.05 of their range).
Z95 = 1.96
# Power near an edge is taken from the samples this far around it.
NEAR_S = 1.0
# Samples every 100 ms do not see a modulation at a multiple of 10 Hz, so one of this much, up and down, is
# taken to be there; without power samples, at any frequency above that of the ticks.
UNSEEN_SWING_FRAC = 0.2
# How often a board's power is taken to be renewed where that was not seen: most of those in SC24 (below).
POWER_PERIOD_S = 0.1
# Blocks of readings are this long, where a window has enough of them: slow beats with the sensor show there.
BLOCK_S = 1.0
MIN_BLOCKS = 8

# Part of the time a board's power sensor is on, by NVML's number of its architecture: Volta 10 of 20 ms,
# Turing and Ada 100 of 100 ms, GA100 and Hopper 25 of 100 ms (Yang, Adámek, Armour, "Accurate and Convenient
# Energy Measurements for GPUs", SC24, arXiv 2312.02741).  Ampere other than GA100 is 100 of 100 ms; what was
# not studied is taken to be as the worst of those that were.
SENSOR_DUTY = {5: 0.5, 6: 1.0, 7: 0.25, 8: 1.0, 9: 0.25}
WORST_DUTY = 0.25
AMPERE = 7

# Error of a board against an external meter, as a gain of that board: the same paper's per-board table has
# −1.9 … −5.8 % for data-centre and most GeForce boards, −7.0 % for an RTX A5000, −7.9 % for an RTX 2080 Ti.
SYSTEMATIC_FRAC, SYSTEMATIC_WORKSTATION_FRAC = 0.05, 0.08
WORKSTATION = re.compile(r"GeForce|Quadro|RTX|GTX|TITAN", re.IGNORECASE)
AMPERE_NOT_GA100 = re.compile(r"\bA(2|10|10G|10M|16|40)\b")


class Budget(NamedTuple):
    """One standard deviation of each part, in joules."""

    timing_j: float
    interpolation_j: float
    resolution_j: float
    duty_j: float

    @property
    def sigma_j(self) -> float:
        """One standard deviation of the energy."""
        return math.hypot(*self)


def together(each: Iterable[Budget]) -> Budget:
    """The budget of the sum over devices, each with its own ticks, in one window."""
    timing_j, interpolation_j, resolution_j, duty_j = zip(*each, strict=True)
    return Budget(math.hypot(*timing_j), sum(interpolation_j), math.hypot(*resolution_j), math.hypot(*duty_j))


class _Edge(NamedTuple):
    timing_j: float
    bound_j: float
    unsampled_j: float


def of_window(
    counter: Counter,
    curve: Curve,
    power: Series,
    window_ns: tuple[int, int],
    duty: float,
    renewed_s: float | None = None,
) -> Budget:
    """The budget of one device's energy in a window that ``curve`` encloses; ``power`` may be empty.

    ``renewed_s``: how often the sensor behind ``power`` was seen to be renewed, if it was.
    """
    import numpy as np

    powers, period_s = _tick_powers(*curve)
    unseen_s = _unseen_s(power, renewed_s) if len(power.times_ns) else period_s
    edges = [_edge(curve, powers, t_ns, _powers_near(counter, power, t_ns), unseen_s) for t_ns in window_ns]
    duty_j = math.sqrt(1 - duty) * scatter_j(powers, period_s)
    unsampled_j = [(1 - duty) * edge.unsampled_j / math.sqrt(3) for edge in edges]
    return Budget(
        timing_j=math.hypot(*(edge.timing_j for edge in edges)),
        # Bounds, and of one sign where a load begins and ends with the window: they add up.
        interpolation_j=sum(edge.bound_j for edge in edges) / Z95,
        resolution_j=counter.resolution_j * float(np.sqrt(2 / 12)),
        duty_j=math.hypot(duty_j, *unsampled_j),
    )


def sensor_duty(architecture: float | None, board: str) -> float:
    """Part of the time the power sensor of a board is on; ``board`` is its product name, "" if unknown."""
    if architecture == AMPERE and (WORKSTATION.search(board) or AMPERE_NOT_GA100.search(board)):
        return 1.0
    return SENSOR_DUTY.get(int(architecture or 0), WORST_DUTY)


def systematic_frac(board: str) -> float:
    """What the gain of a board's sensor may be off by, by its product name."""
    return SYSTEMATIC_WORKSTATION_FRAC if WORKSTATION.search(board) else SYSTEMATIC_FRAC


def scatter_j(watts: Floats, period_s: float) -> float:
    """Standard deviation in joules of a sum of power readings that each stand for ``period_s``.

    From the differences between neighbouring blocks of readings: blocks, because readings of a periodic load
    depend on each other (Flyvbjerg & Petersen, J. Chem. Phys. 91, 1989), and differences, because a slow
    change of power is no error, the readings follow it (von Neumann, Ann. Math. Stat. 12, 1941).
    """
    import numpy as np

    largest = max(1, min(round(BLOCK_S / period_s), len(watts) // MIN_BLOCKS))
    worst = 0.0
    for block in {largest, max(1, largest // 2)}:
        sums = watts[: len(watts) // block * block].reshape(-1, block).sum(axis=1)
        if len(sums) > 1:
            worst = max(worst, float((np.diff(sums) ** 2).mean()) / 2 * len(watts) / block)
    return math.sqrt(worst) * period_s


def _tick_powers(times_ns: Ints, joules: Floats, within_ns: Ints) -> tuple[Floats, float]:
    """Mean power from tick to tick, and the usual time between two.

    Where that time can be what it usually is, or a multiple of it, given how surely the two ticks are
    known, it is: the jitter of polling must not pass for a jitter of power.
    """
    import numpy as np

    spans_s, slack_s = np.diff(times_ns) / 1e9, (within_ns[1:] + within_ns[:-1]) / 2e9
    periods = np.maximum(1, np.round(spans_s / np.median(spans_s)))
    period_s = float(spans_s.sum() / periods.sum())
    off_s = np.abs(spans_s - periods * period_s)
    spans_s = np.where(off_s <= slack_s + slack_s.max() / periods.sum(), periods * period_s, spans_s)
    return np.diff(joules) / spans_s, period_s


def _unseen_s(power: Series, renewed_s: float | None) -> float:
    """Within which time samples show no change: the sensor's own period, or theirs where it is longer."""
    import numpy as np

    sampled_s = float(np.median(np.diff(power.times_ns))) / 1e9 if len(power.times_ns) > 1 else 0.0
    return max(renewed_s or POWER_PERIOD_S, sampled_s)


def _edge(curve: Curve, powers: Floats, t_ns: int, near: Floats, unseen_s: float) -> _Edge:
    """``powers`` are those of the curve's ticks, ``near`` all that were seen around the edge; what changes
    within ``unseen_s`` is not."""
    import numpy as np

    i = int(np.clip(np.searchsorted(curve.times_ns, t_ns, side="right") - 1, 0, len(curve.times_ns) - 2))
    span_s = float(curve.times_ns[i + 1] - curve.times_ns[i]) / 1e9
    passed = float(t_ns - curve.times_ns[i]) / 1e9 / span_s
    watts = float(powers[i])
    before_s, after_s = (float(span) / 1e9 for span in curve.within_ns[i : i + 2])
    low, high = watts - float(near.min(initial=watts)), float(near.max(initial=watts)) - watts
    longest_s = span_s + (before_s + after_s) / 2
    seen = max(min(passed * high, (1 - passed) * low), min(passed * low, (1 - passed) * high)) * longest_s
    unseen = UNSEEN_SWING_FRAC * (watts + high) * min(passed * span_s, (1 - passed) * span_s, unseen_s / 2)
    return _Edge(
        # The power when a tick happened may be any that was seen.  The two ticks may be late by the same:
        # polls and ticks can keep step with each other.
        timing_j=(watts + high) * ((1 - passed) * before_s + passed * after_s) / math.sqrt(12),
        bound_j=seen + unseen,
        # What the sensor did not see of a change of power within the tick.
        unsampled_j=(low + high) * span_s,
    )


def _powers_near(counter: Counter, power: Series, t_ns: int) -> Floats:
    """The powers seen around an edge, by the power samples and by the ticks themselves."""
    import numpy as np

    reach = np.array([t_ns - NEAR_S * 1e9, t_ns + NEAR_S * 1e9])
    first, last = np.searchsorted(power.times_ns, reach)
    sampled = power.values[first:last]
    first, last = np.searchsorted(counter.times_ns, reach)
    near = slice(max(0, first - 1), last + 1)
    counted, _ = _tick_powers(counter.times_ns[near], counter.joules[near], counter.within_ns[near])
    return np.concatenate([sampled, counted[counted >= 0]])
