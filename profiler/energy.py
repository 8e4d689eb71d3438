"""Energy, power and memory of a time window, from samples.  Arrays in, values out; measures nothing.

Energy is the difference of a hardware counter over the window, interpolated linearly between the samples
on either side of each edge.  Power sensors give a second, independent figure: the integral of
instantaneous power by trapezoids.  Both are reported with their disagreement.

The boundary is always named: ``gpu`` (boards, by NVML), ``cpu package`` or ``cpu package + dram`` (RAPL).
What cannot be told is None, with the reason; a window is never filled in from part of its devices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from msgspec import Struct, structs

from profiler.samples import between, series, sources

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

Boundary = Literal["gpu", "cpu package", "cpu package + dram"]

MAX_GAP_S = 3.0
MIN_TOKEN_WINDOW_S = 10.0
# A counter set back to 0 looks like a wrap; no CPU package or its memory draws this much on average.
MAX_RAPL_W = 2000.0


class EnergyReading(Struct, frozen=True, kw_only=True):
    """Energy of one boundary over one window of ``duration_s``.

    ``devices``: counter energy in joules of each device, by source.  ``energy_j`` is their sum and
    ``power_w`` that sum over the time: both None, with ``reason``, unless every device could be read.
    ``integral_j`` and ``disagreement_frac`` (|counter − integral| / counter) are None where power is not
    sampled; the integral is also there when only the counter is missing.
    """

    boundary: Boundary
    duration_s: float
    energy_j: float | None = None
    power_w: float | None = None
    integral_j: float | None = None
    disagreement_frac: float | None = None
    devices: dict[str, float] = {}
    reason: str | None = None


class Counter(NamedTuple):
    """Raw counter: times in ns, joules as read, and the value at which it wraps (None: never)."""

    times_ns: Ints
    joules: Floats
    wraps_at_j: float | None


class _UnreadableError(Exception):
    """Why a counter does not tell the energy of a window."""


def over_window(samples: Any, t0_ns: int, t1_ns: int, gpus: Sequence[str] | None = None) -> EnergyReading:
    """The boundary at hand: the GPUs where any were sampled, else the CPU.

    ``samples`` is the table of ``profiler.samples.read_samples``, ``gpus`` as for ``gpu_energy``.
    """
    if gpus or sources(samples, "gpu"):
        return gpu_energy(samples, t0_ns, t1_ns, gpus)
    return cpu_energy(samples, t0_ns, t1_ns)


def gpu_energy(samples: Any, t0_ns: int, t1_ns: int, gpus: Sequence[str] | None = None) -> EnergyReading:
    """Energy of GPU boards between two CLOCK_MONOTONIC times.

    ``gpus``: UUIDs that must all be there; None takes every GPU that occurs in the samples.
    """
    devices = [f"gpu:{uuid}" for uuid in gpus] if gpus else sources(samples, "gpu")
    near = _around(samples, t0_ns, t1_ns)
    reading = _over_devices("gpu", devices, (t0_ns, t1_ns), lambda source: _nvml_counter(near, source))
    integral = _integral_j(near, devices, t0_ns, t1_ns)
    off = abs(reading.energy_j - integral) / reading.energy_j if reading.energy_j and integral else None
    return structs.replace(reading, integral_j=integral, disagreement_frac=off)


def cpu_energy(samples: Any, t0_ns: int, t1_ns: int) -> EnergyReading:
    """Energy of all CPU packages, and of their memory where it has a counter of its own (RAPL)."""
    devices = sources(samples, "rapl")
    boundary: Boundary = "cpu package + dram" if any(d.endswith("/dram") for d in devices) else "cpu package"
    near = _around(samples, t0_ns, t1_ns)
    return _over_devices(boundary, devices, (t0_ns, t1_ns), lambda source: _rapl_counter(near, source))


def joules_per_token(reading: EnergyReading, tokens: float) -> tuple[float | None, str | None]:
    """J/token of a window and None, or None and the reason why there is none.

    Refused below ``MIN_TOKEN_WINDOW_S``: a counter that steps every 100 ms is then off by up to 1 %, and
    by more on boards that step more rarely.
    """
    if reading.energy_j is None:
        return None, reading.reason
    if reading.duration_s < MIN_TOKEN_WINDOW_S:
        lasted, needed = f"{reading.duration_s:.1f} s", f"{MIN_TOKEN_WINDOW_S:.0f} s"
        return None, f"the window lasted {lasted}; energy per token needs {needed}"
    if tokens <= 0:
        return None, "no token arrived in the window"
    return reading.energy_j / tokens, None


def peak_memory(samples: Any, t0_ns: int, t1_ns: int, source: str | None = None) -> int | None:
    """Highest memory in bytes seen in the window; None if never sampled in it.

    A GPU: memory in use on the board, whoever uses it.  A process tree: RSS less the pages that RSS
    counted more than once when PSS was last read (plain RSS, an upper bound, where PSS never was).
    Without ``source``: the peaks of all GPUs summed, or of all process trees where no GPU was sampled.
    """
    if source is None:
        each = [
            peak_memory(samples, t0_ns, t1_ns, s)
            for s in sources(samples, "gpu") or sources(samples, "process")
        ]
        known = [peak for peak in each if peak is not None]
        return sum(known) if known and len(known) == len(each) else None
    times, values = series(samples, source, "memory_used_bytes" if source.startswith("gpu:") else "rss_bytes")
    inside = (times >= t0_ns) & (times <= t1_ns)
    if not inside.any():
        return None
    return int((values - _counted_twice(samples, source, times, values))[inside].max())


# ------------------------------------------------------------------------------------- counters


def _over_devices(
    boundary: Boundary, devices: Sequence[str], window: tuple[int, int], read: Callable[[str], Counter]
) -> EnergyReading:
    duration_s = (window[1] - window[0]) / 1e9
    joules: dict[str, float] = {}
    reason = None if devices else f"no {boundary} energy was sampled; the run's probes say why"
    for device in devices:
        try:
            joules[device] = _difference(read(device), *window)
        except _UnreadableError as error:
            reason = reason or f"{device}: {error}"
    if reason is not None:
        return EnergyReading(boundary=boundary, duration_s=duration_s, devices=joules, reason=reason)
    total = sum(joules.values())
    return EnergyReading(
        boundary=boundary, duration_s=duration_s, energy_j=total, power_w=total / duration_s, devices=joules
    )


def _nvml_counter(samples: Any, source: str) -> Counter:
    """64 bits of millijoules: it never wraps."""
    times, millijoules = series(samples, source, "energy_mj")
    return Counter(times, millijoules / 1e3, None)


def _rapl_counter(samples: Any, source: str) -> Counter:
    """Wraps to 0 after ``max_energy_range_uj`` (kernel: power/powercap/powercap.rst)."""
    times, microjoules = series(samples, source, "energy_uj")
    _, ranges = series(samples, source, "max_energy_range_uj")
    return Counter(times, microjoules / 1e6, float(ranges[-1]) / 1e6 if len(ranges) else None)


def _difference(counter: Counter, t0_ns: int, t1_ns: int) -> float:
    """Joules from ``t0_ns`` to ``t1_ns``, with at most one wrap between two samples."""
    import numpy as np

    times, joules = _bracketing(counter.times_ns, counter.joules, t0_ns, t1_ns)
    steps, spans_s = np.diff(joules), np.diff(times) / 1e9
    if counter.wraps_at_j is not None:
        wrapped = steps < 0
        steps = np.where(wrapped, steps + counter.wraps_at_j, steps)
        if (steps[wrapped] > MAX_RAPL_W * spans_s[wrapped]).any():
            raise _UnreadableError(
                "the energy counter was set back (it did not wrap: the step would be too large)"
            )
    if (steps < 0).any():
        raise _UnreadableError("the energy counter went backwards (GPU reset or driver reload)")
    first, last = np.interp([t0_ns, t1_ns], times, np.concatenate([[0.0], np.cumsum(steps)]))
    return float(last - first)


def _around(samples: Any, t0_ns: int, t1_ns: int) -> Any:
    """The samples that can matter to a window: a run has many windows and its table many rows."""
    margin_ns = round(2 * MAX_GAP_S * 1e9)
    return between(samples, t0_ns - margin_ns, t1_ns + margin_ns)


def _bracketing(times: Ints, values: Floats, t0_ns: int, t1_ns: int) -> tuple[Ints, Floats]:
    """The samples from the last one at or before the window to the first one at or after it."""
    import numpy as np

    if t1_ns <= t0_ns:
        raise _UnreadableError("the window is empty")
    first = int(np.searchsorted(times, t0_ns, side="right")) - 1
    last = int(np.searchsorted(times, t1_ns, side="left"))
    if first < 0 or last >= len(times):
        raise _UnreadableError("no sample before the window" if first < 0 else "no sample after the window")
    kept = slice(first, last + 1)
    gap_s = float(np.diff(times[kept]).max()) / 1e9
    if gap_s > MAX_GAP_S:
        raise _UnreadableError(
            f"{gap_s:.1f} s without a sample; {MAX_GAP_S:.0f} s is the most that is bridged"
        )
    return times[kept], values[kept]


# ------------------------------------------------------------------------------------- gauges


def _integral_j(samples: Any, devices: Sequence[str], t0_ns: int, t1_ns: int) -> float | None:
    try:
        return sum(_integral(*series(samples, device, "power_w"), t0_ns, t1_ns) for device in devices) / 1e9
    except _UnreadableError:
        return None


def _integral(times: Ints, values: Floats, t0_ns: int, t1_ns: int) -> float:
    """Trapezoids from edge to edge, the edges interpolated; in units of the value times nanoseconds."""
    import numpy as np

    times, values = _bracketing(times, values, t0_ns, t1_ns)
    edges = np.interp([t0_ns, t1_ns], times, values)
    inner = (times > t0_ns) & (times < t1_ns)
    at = np.concatenate([[t0_ns], times[inner], [t1_ns]]) - t0_ns
    return float(np.trapezoid(np.concatenate([edges[:1], values[inner], edges[1:]]), at))


def _counted_twice(samples: Any, source: str, times: Ints, rss: Floats) -> Floats | float:
    """RSS − PSS at each of ``times``, interpolated between the times at which PSS was read."""
    import numpy as np

    pss_times, pss = series(samples, source, "pss_bytes")
    common, at_rss, at_pss = np.intersect1d(times, pss_times, return_indices=True)
    if not len(common):
        return 0.0
    excess: Floats = np.interp(times, common, rss[at_rss] - pss[at_pss])
    return excess
