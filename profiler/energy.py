"""Energy, power and memory of a time window, from samples.  Arrays in, values out; measures nothing.

Energy is the difference of a hardware counter between the edges of the window, each interpolated between
the two counter ticks around it (``counters``).  Power sensors give a second figure, the integral of
instantaneous power by trapezoids; both are kept, with their disagreement.

Every reading carries how far it may be off in two parts that are never added: ``statistical_j``, which
longer windows and more of them lower (``budget``), and ``systematic_frac``, the gain of the sensor.

The boundary is always named.  What cannot be told is None, with the reason; a window is never filled in
from part of its devices.  docs/energy.md has the method and what it was tested against.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from msgspec import Struct, structs

from profiler import budget, counters
from profiler.budget import Budget
from profiler.counters import Series, UnreadableError
from profiler.samples import between, series, sources

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from profiler.schema import Gpu

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

Boundary = Literal["gpu", "cpu package", "cpu package + dram", "host"]
Span = tuple[int, int]

MIN_TOKEN_WINDOW_S = 10.0
# Counter against integral: told above the first, refused above the second, which is what InferenceX allows
# between the two (utils/aggregate_power.py).  Apart by no more than so many standard deviations is no fault.
WARN_FRAC, INVALID_FRAC = 0.02, 0.05
SCATTER_SIGMA = 3
# A board may exceed its power limit for milliseconds, not over a window (ML.ENERGY allows the same 1.1).
OVER_LIMIT = 1.1
# Twice what its reading took where it was measured (profiler/telemetry/process.py).
PSS_S_PER_BYTE = 2 * 0.011 / 2**30


class EnergyReading(Struct, frozen=True, kw_only=True):
    """Energy of one boundary over one window of ``duration_s``.

    ``devices``: counter energy in joules of each device, by source.  ``energy_j`` is their sum and
    ``power_w`` that sum over the time: both None, with ``reason``, unless every device could be read.
    ``integral_j`` and ``disagreement_frac`` (|counter − integral| / counter) are None where power is not
    sampled; the integral is also there when only the counter is missing.

    ``statistical_j`` is the half-width of the 95 % interval around ``energy_j``, from the ``budgets`` of its
    devices; ``systematic_frac`` what the gain of the sensors may be off by on top, None where nobody states
    it.
    ``invalid`` says why the figures must not be used although they could be read, ``warnings`` what makes
    them doubtful, ``remarks`` what is to be known of them and casts no doubt.
    """

    boundary: Boundary
    duration_s: float
    energy_j: float | None = None
    power_w: float | None = None
    statistical_j: float | None = None
    systematic_frac: float | None = None
    integral_j: float | None = None
    disagreement_frac: float | None = None
    devices: dict[str, float] = {}
    budgets: dict[str, Budget] = {}
    reason: str | None = None
    invalid: str | None = None
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class _Device(NamedTuple):
    """One device over one window."""

    joules: float
    budget: Budget
    systematic_frac: float | None
    invalid: str | None = None
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def gpu_energy(
    samples: Any, t0_ns: int, t1_ns: int, gpus: Sequence[str] | None = None, boards: Iterable[Gpu] = ()
) -> EnergyReading:
    """Energy of GPU boards between two CLOCK_MONOTONIC times.

    ``gpus``: UUIDs that must all be there; None takes every GPU that occurs in the samples.
    ``boards``: what the machine's GPUs are, for what their class is known to be off by.
    """
    window = t0_ns, t1_ns
    devices = [f"gpu:{uuid}" for uuid in gpus] if gpus else sources(samples, "gpu")
    names = {f"gpu:{board.uuid}": board.name for board in boards}
    near, seldom = _around(samples, *window), _seldom(samples)
    reading = _over_devices(
        "gpu", devices, window, lambda source: _board(near, seldom, source, window, names.get(source, ""))
    )
    integral = _integral_j(near, devices, window)
    off = abs(reading.energy_j - integral) / reading.energy_j if reading.energy_j and integral else None
    return structs.replace(reading, integral_j=integral, disagreement_frac=off)


def cpu_energy(samples: Any, t0_ns: int, t1_ns: int) -> EnergyReading:
    """Energy of all CPU packages, and of their memory where it has a counter of its own (RAPL)."""
    devices = sources(samples, "rapl")
    boundary: Boundary = "cpu package + dram" if any(d.endswith("/dram") for d in devices) else "cpu package"
    window = t0_ns, t1_ns
    near = _around(samples, *window)
    return _over_devices(boundary, devices, window, lambda source: _zone(near, source, window))


def host_energy(
    samples: Any, t0_ns: int, t1_ns: int, gpus: Sequence[str] | None = None, boards: Iterable[Gpu] = ()
) -> EnergyReading:
    """Boards, CPU packages and memory together; None unless all of them are known.

    ``psys`` would count the packages again and is never sampled.  Fans, disks, the network and what the
    power supplies lose are in no counter, so this is less than what the wall sees.
    """
    parts = [cpu_energy(samples, t0_ns, t1_ns)]
    if gpus or sources(samples, "gpu"):
        parts.insert(0, gpu_energy(samples, t0_ns, t1_ns, gpus, boards))
    duration_s = (t1_ns - t0_ns) / 1e9
    joules = [part.energy_j for part in parts if part.energy_j is not None]
    reading = EnergyReading(
        boundary="host",
        duration_s=duration_s,
        devices={source: value for part in parts for source, value in part.devices.items()},
        budgets={source: found for part in parts for source, found in part.budgets.items()},
        reason=next((f"{part.boundary}: {part.reason}" for part in parts if part.reason), None),
        invalid=next((part.invalid for part in parts if part.invalid), None),
        warnings=tuple(warning for part in parts for warning in part.warnings),
        remarks=tuple(remark for part in parts for remark in part.remarks),
    )
    if len(joules) < len(parts):
        return reading
    return _summed(reading, [(part.energy_j or 0.0, part.systematic_frac) for part in parts])


def joules_per_token(reading: EnergyReading, tokens: float) -> tuple[float | None, str | None]:
    """J/token of a window and None, or None and the reason why there is none.

    Refused below ``MIN_TOKEN_WINDOW_S``: a counter that steps every 100 ms is then off by up to 1 %, and
    by more on boards that step more rarely.
    """
    if reading.energy_j is None or reading.invalid:
        return None, reading.reason or reading.invalid
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
    None where ``MAX_GAP_S`` of the window passed without a sample: the peak may have been then.  While PSS is
    read there is none, however large the tree; so long more is bridged.
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
    if not inside.any() or not _is_seen_through(samples, source, times, (t0_ns, t1_ns)):
        return None
    return int((values - _counted_twice(samples, source, times, values))[inside].max())


# ------------------------------------------------------------------------------------- devices


def _over_devices(
    boundary: Boundary, devices: Sequence[str], window: Span, read: Callable[[str], _Device]
) -> EnergyReading:
    duration_s = (window[1] - window[0]) / 1e9
    found: dict[str, _Device] = {}
    reason = None if devices else f"no {boundary} energy was sampled; the run's probes say why"
    for device in devices:
        try:
            found[device] = read(device)
        except UnreadableError as error:
            reason = reason or f"{device}: {error}"
    reading = EnergyReading(
        boundary=boundary,
        duration_s=duration_s,
        devices={source: device.joules for source, device in found.items()},
        budgets={source: device.budget for source, device in found.items()},
        reason=reason,
        invalid=next((f"{source}: {d.invalid}" for source, d in found.items() if d.invalid), None),
        warnings=tuple(f"{source}: {text}" for source, d in found.items() for text in d.warnings),
        remarks=tuple(f"{source}: {text}" for source, d in found.items() for text in d.remarks),
    )
    if reason is not None:
        return reading
    return _summed(reading, [(device.joules, device.systematic_frac) for device in found.values()])


def _summed(reading: EnergyReading, parts: Sequence[tuple[float, float | None]]) -> EnergyReading:
    """The sum over a reading's devices; ``parts`` are joules with their systematic fractions."""
    total = sum(joules for joules, _ in parts)
    return structs.replace(
        reading,
        energy_j=total,
        power_w=total / reading.duration_s,
        statistical_j=budget.Z95 * budget.together(reading.budgets.values()).sigma_j,
        systematic_frac=_weighed(parts),
    )


def _board(near: Any, seldom: Any, source: str, window: Span, name: str) -> _Device:
    """One board, checked against its own power samples and its power limit."""
    lost_ns, _ = series(seldom, source, "lost")
    if (lost_ns <= window[1]).any():
        raise UnreadableError("the GPU was lost (it no longer answers the driver)")
    counter, power = counters.nvml(near, source), Series(*series(near, source, "power_w"))
    curve = counters.curve(counter, *window)
    joules = curve.between_j(*window)
    duty = budget.sensor_duty(_last(seldom, source, "architecture"), name)
    renewed_s = _last(seldom, source, "power_period_s")
    parts = budget.of_window(counter, curve, power, window, duty, renewed_s)
    checked = _cross_check(joules, parts.sigma_j, power, window)
    invalid = checked.invalid
    limit_w = _last(seldom, source, "power_limit_w")
    watts = joules / (window[1] - window[0]) * 1e9
    if limit_w and watts > OVER_LIMIT * limit_w:
        invalid = f"a mean of {watts:.0f} W is over its power limit of {limit_w:.0f} W"
    warnings = (_ASSUMED_PERIOD,) if counter.assumed else ()
    remarks = (_ASSUMED_POWER_PERIOD,) if len(power.times_ns) and renewed_s is None else ()
    return _Device(
        joules,
        parts,
        budget.systematic_frac(name),
        invalid,
        warnings + checked.warnings,
        remarks + checked.remarks,
    )


_ASSUMED_PERIOD = (
    "these samples do not say when the energy counter moved; it is taken to move every "
    f"{counters.ASSUMED_PERIOD_S * 1e3:.0f} ms"
)
_ASSUMED_POWER_PERIOD = (
    "how often its power reading is renewed was not seen; it is taken to be every "
    f"{budget.POWER_PERIOD_S * 1e3:.0f} ms"
)


def _zone(near: Any, source: str, window: Span) -> _Device:
    """One RAPL zone.  Its vendors state no accuracy, so the systematic part is not known."""
    counter = counters.rapl(near, source)
    curve = counters.curve(counter, *window)
    none = Series(counter.times_ns[:0], counter.joules[:0])
    return _Device(curve.between_j(*window), budget.of_window(counter, curve, none, window, duty=1.0), None)


class _Check(NamedTuple):
    """What counter and integral of power being apart says of a device's energy."""

    invalid: str | None = None
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def _cross_check(joules: float, sigma_j: float, power: Series, window: Span) -> _Check:
    """Apart by more than ``WARN_FRAC`` is always told: as a remark where the scatter of both explains it."""
    try:
        integral = counters.integral_j(power, *window)
    except UnreadableError:
        return _Check(
            warnings=("without power samples there is nothing to check the energy counter against",)
        )
    inside = power.values[(power.times_ns >= window[0]) & (power.times_ns <= window[1])]
    duration_s = (window[1] - window[0]) / 1e9
    own_j = budget.scatter_j(inside, duration_s / len(inside)) if len(inside) else 0.0
    off, scatter = abs(joules - integral) / joules, SCATTER_SIGMA * math.hypot(sigma_j, own_j) / joules
    text = (
        f"the energy counter says {joules:,.1f} J and the power samples {integral:,.1f} J ({off:.1%} apart)"
    )
    if off > INVALID_FRAC:
        return _Check(invalid=text)
    if off <= WARN_FRAC:
        return _Check()
    if off > scatter:
        return _Check(warnings=(text,))
    return _Check(
        remarks=(f"{text}, within what the sensor scatters ({SCATTER_SIGMA} sigma: {scatter:.1%})",)
    )


def _weighed(parts: Sequence[tuple[float, float | None]]) -> float | None:
    """Systematic fractions add up linearly: the same cause may push all boards the same way."""
    known = [joules * frac for joules, frac in parts if frac is not None]
    total = sum(joules for joules, _ in parts)
    return sum(known) / total if len(known) == len(parts) and total else None


def _integral_j(near: Any, devices: Sequence[str], window: Span) -> float | None:
    try:
        return sum(counters.integral_j(Series(*series(near, d, "power_w")), *window) for d in devices) or None
    except UnreadableError:
        return None


def _around(samples: Any, t0_ns: int, t1_ns: int) -> Any:
    """The samples that can matter to a window: a run has many windows and its table many rows."""
    margin_ns = round(2 * counters.MAX_GAP_S * 1e9)
    return between(samples, t0_ns - margin_ns, t1_ns + margin_ns)


def _seldom(samples: Any) -> Any:
    """The rows that are written once a run, or when something happens once."""
    import pyarrow as pa
    import pyarrow.compute as pc

    once = pa.array(["architecture", "lost", "power_limit_w", "power_period_s"])
    return samples.filter(pc.is_in(samples["name"], once))


def _last(seldom: Any, source: str, name: str) -> float | None:
    _, values = series(seldom, source, name)
    return float(values[-1]) if len(values) else None


# ------------------------------------------------------------------------------------- gauges


def _is_seen_through(samples: Any, source: str, times: Ints, window: Span) -> bool:
    """Whether every stretch of the window without a sample is one that is bridged."""
    import numpy as np

    t0_ns, t1_ns = window
    first, end = times.searchsorted(t0_ns), times.searchsorted(t1_ns, side="right")
    gaps_s = np.diff([t0_ns, *times[first:end], t1_ns]) / 1e9
    begun_ns = [times[first - 1] if first else t0_ns, *times[first:end]]
    pss_times, pss = series(samples, source, "pss_bytes")
    reading_s = dict(zip(pss_times, pss * PSS_S_PER_BYTE, strict=True))
    bridged_s = [counters.MAX_GAP_S + reading_s.get(at_ns, 0.0) for at_ns in begun_ns]
    return bool((gaps_s <= bridged_s).all())


def _counted_twice(samples: Any, source: str, times: Ints, rss: Floats) -> Floats | float:
    """RSS − PSS at each of ``times``, interpolated between the times at which PSS was read."""
    import numpy as np

    pss_times, pss = series(samples, source, "pss_bytes")
    common, at_rss, at_pss = np.intersect1d(times, pss_times, return_indices=True)
    if not len(common):
        return 0.0
    excess: Floats = np.interp(times, common, rss[at_rss] - pss[at_pss])
    return excess
