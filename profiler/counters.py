"""Energy counters as curves over time: what was read of a device becomes joules at instants.

A counter changes in steps.  A board's is polled several times a step, and each row of a change says how
long before it the counter was last seen unchanged, so the *tick* lies in the span between; its instant is
taken to be the middle.  Between two ticks the energy is interpolated linearly.  A row that merely repeats
a value (a heartbeat) is some part of a period old: it shows that the counter was not set back and bounds
nothing else.

Files from before ticks were written have a row every 100 ms whatever the counter did.  Their rows are taken
as ticks that happened within the 100 ms before them, the update period most boards have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from profiler.samples import series

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

MAX_GAP_S = 3.0
ASSUMED_PERIOD_S = 0.1
NVML_RESOLUTION_J = 1e-3
# RAPL adds up about every millisecond, in units of at most 2⁻¹⁴ J (Intel SDM vol. 3, RAPL interfaces).
RAPL_UPDATE_S, RAPL_RESOLUTION_J = 1e-3, 2**-14
# A counter set back to 0 looks like a wrap; no CPU package or its memory draws this much on average.
MAX_RAPL_W = 2000.0


class UnreadableError(Exception):
    """Why a device does not tell the energy of a window; the text is the reason a reader sees."""


class Series(NamedTuple):
    """Values at times in ns, ascending."""

    times_ns: Ints
    values: Floats


class Counter(NamedTuple):
    """``joules`` reached at ``times_ns``, each the middle of a span of ``within_ns`` that holds the instant.

    ``readings`` are all rows, heartbeats too; ``wraps_at_j`` is where it starts anew at 0 (None: never).
    ``assumed``: the file has no ticks, the spans are the assumed period.
    """

    times_ns: Ints
    joules: Floats
    within_ns: Ints
    readings: Series
    resolution_j: float
    wraps_at_j: float | None = None
    assumed: bool = False


class Curve(NamedTuple):
    """The stretch of a counter that encloses a window: joules since its first point, never falling."""

    times_ns: Ints
    joules: Floats
    within_ns: Ints

    def between_j(self, t0_ns: int, t1_ns: int) -> float:
        """Joules from one time to another, both interpolated; nothing that is powered uses none."""
        import numpy as np

        first, last = np.interp([t0_ns, t1_ns], self.times_ns, self.joules)
        if last <= first:
            raise UnreadableError("the energy counter stood still")
        return float(last - first)


def nvml(samples: Any, source: str) -> Counter:
    """A board's counter: 64 bits of millijoules, so it never wraps."""
    import numpy as np

    readings = _scaled(samples, source, "energy_mj", 1e-3)
    seen = _unique(Series(*series(samples, source, "energy_seen_within_s")))
    if not len(seen.times_ns):
        within = np.full(len(readings.times_ns), round(ASSUMED_PERIOD_S * 1e9))
        return _counter(readings, within, readings, NVML_RESOLUTION_J)._replace(assumed=True)
    _, rows, spans = np.intersect1d(readings.times_ns, seen.times_ns, assume_unique=True, return_indices=True)
    ticks = Series(readings.times_ns[rows], readings.values[rows])
    within = np.round(seen.values[spans] * 1e9).astype(np.int64)
    return _counter(ticks, within, readings, NVML_RESOLUTION_J)


def rapl(samples: Any, source: str) -> Counter:
    """Wraps to 0 after ``max_energy_range_uj`` (kernel: power/powercap/powercap.rst)."""
    import numpy as np

    readings = _scaled(samples, source, "energy_uj", 1e-6)
    within = np.full(len(readings.times_ns), round(RAPL_UPDATE_S * 1e9))
    _, ranges = series(samples, source, "max_energy_range_uj")
    wraps_at_j = float(ranges[-1]) / 1e6 if len(ranges) else None
    return _counter(readings, within, readings, RAPL_RESOLUTION_J)._replace(wraps_at_j=wraps_at_j)


def curve(counter: Counter, t0_ns: int, t1_ns: int) -> Curve:
    """From the last tick before a window to the first one after it, with at most one wrap between two.

    Raises ``UnreadableError`` where a tick is missing on either side, where ``MAX_GAP_S`` passed without
    one, and where the counter was set back.
    """
    import numpy as np

    if not len(counter.readings.times_ns):
        raise UnreadableError("its energy counter was not sampled near the window")
    kept = bracket(counter.times_ns, t0_ns, t1_ns)
    times, joules, within = counter.times_ns[kept], counter.joules[kept], counter.within_ns[kept]
    steps = np.diff(joules)
    if counter.wraps_at_j is None:
        _refuse_a_reset(counter.readings, int(times[0]), int(times[-1] + (within[-1] + 1) // 2))
    else:
        wrapped = steps < 0
        steps = np.where(wrapped, steps + counter.wraps_at_j, steps)
        if (steps[wrapped] > MAX_RAPL_W * np.diff(times)[wrapped] / 1e9).any():
            raise UnreadableError(
                "the energy counter was set back (it did not wrap: the step would be too large)"
            )
    if (steps < 0).any():
        raise UnreadableError("the energy counter went backwards (GPU reset or driver reload)")
    return Curve(times, np.concatenate([[0.0], np.cumsum(steps)]), within)


def bracket(times_ns: Ints, t0_ns: int, t1_ns: int) -> slice:
    """The rows from the last one at or before a window to the first one at or after it."""
    import numpy as np

    if t1_ns <= t0_ns:
        raise UnreadableError("the window is empty")
    first = int(np.searchsorted(times_ns, t0_ns, side="right")) - 1
    last = int(np.searchsorted(times_ns, t1_ns, side="left"))
    if first < 0 or last >= len(times_ns):
        raise UnreadableError("no sample before the window" if first < 0 else "no sample after the window")
    gap_s = float(np.diff(times_ns[first : last + 1]).max()) / 1e9
    if gap_s > MAX_GAP_S:
        raise UnreadableError(
            f"{gap_s:.1f} s without a sample; {MAX_GAP_S:.0f} s is the most that is bridged"
        )
    return slice(first, last + 1)


def integral_j(power: Series, t0_ns: int, t1_ns: int) -> float:
    """Trapezoids of power samples from edge to edge, the edges interpolated, in joules."""
    import numpy as np

    kept = bracket(power.times_ns, t0_ns, t1_ns)
    times, watts = power.times_ns[kept], power.values[kept]
    ends = np.interp([t0_ns, t1_ns], times, watts)
    inner = (times > t0_ns) & (times < t1_ns)
    at = np.concatenate([[t0_ns], times[inner], [t1_ns]]) - t0_ns
    return float(np.trapezoid(np.concatenate([ends[:1], watts[inner], ends[1:]]), at)) / 1e9


def _counter(ticks: Series, within_ns: Ints, readings: Series, resolution_j: float) -> Counter:
    """Spans never reach past the row before: two ticks keep their order."""
    import numpy as np

    within_ns = within_ns.copy()
    within_ns[1:] = np.minimum(within_ns[1:], np.diff(ticks.times_ns))
    return Counter(ticks.times_ns - within_ns // 2, ticks.values, within_ns, readings, resolution_j)


def _scaled(samples: Any, source: str, name: str, factor: float) -> Series:
    times, values = _unique(Series(*series(samples, source, name)))
    return Series(times, values * factor)


def _unique(rows: Series) -> Series:
    """A row that was written twice counts once."""
    import numpy as np

    times, first = np.unique(rows.times_ns, return_index=True)
    return Series(times, rows.values[first])


def _refuse_a_reset(readings: Series, t0_ns: int, t1_ns: int) -> None:
    import numpy as np

    near = (readings.times_ns >= t0_ns) & (readings.times_ns <= t1_ns)
    if (np.diff(readings.values[near]) < 0).any():
        raise UnreadableError("the energy counter went backwards (GPU reset or driver reload)")
