"""Power and energy of a load point: gross and net, of the boards, the host and the building, with what speaks
against them.  Samples → Estimates; what a window's energy is, is told in ``energy``.

Three boundaries, never mixed: the *boards* (NVML) or, without GPUs, the CPU packages; the *host*: boards, CPU
packages and their memory (RAPL), None unless all of them are read; the *facility*: host × PUE, None without a
PUE that somebody stated.  *Net* is gross less what the machine draws while the engine waits; *marginal* is
the slope of power over the rate of output tokens across the load points of a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from profiler import conditions, energy, stats
from profiler.energy import EnergyReading
from profiler.samples import series, sources
from profiler.schema import Estimate
from profiler.site import BUSY_PCT, Idle, Site, bounds, short
from profiler.windows import WindowView

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GROSS, NET = "energy_j_per_output_token", "energy_net_j_per_output_token"
HOST, FACILITY = "energy_host_j_per_output_token", "energy_facility_j_per_output_token"
MARGINAL = "energy_marginal_j_per_output_token"
POWER, IDLE = "power_w_mean", "power_idle_w"
ESTIMATES = (POWER, GROSS, IDLE, NET, HOST, FACILITY, MARGINAL)
WORDS = {
    POWER: "W",
    GROSS: "J/token",
    IDLE: "idle W",
    NET: "net J/token",
    HOST: "host J/token",
    FACILITY: "facility J/token",
    MARGINAL: "marginal J/token",
}
POWER_REASONS = ("software power cap", "hardware power brake")
# Reasons that hold no working board back: it waits, or somebody set its clocks.
UNHINDERED = ("gpu idle", "application clocks", "display clocks", "sync boost")
ELSEWHERE = "the endpoint runs elsewhere: its power is not measured"
NO_PUE = "no PUE given (telemetry.pue, or --pue when comparing)"

Values = dict[str, "float | str"]


@dataclass(frozen=True)
class Consumption:
    """``estimates[name]`` is None where there is nothing, and ``reasons[name]`` says why.  ``facts``: the
    plain columns of the table.  ``trouble``: what speaks against the energy figures, ``notes``: what to know.
    """

    estimates: dict[str, Estimate | None]
    reasons: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)
    trouble: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def of_point(site: Site, steady: Sequence[WindowView]) -> Consumption:
    """What the windows of one load point consumed."""
    if site.manifest.engine.device == "remote":
        return _nothing(ELSEWHERE)
    if site.manifest.imported is not None:
        return told({}, site.manifest.imported.by)
    if not steady:
        return _nothing("the load never became steady")
    readings = [site.reading(view) for view in steady]
    against = [_against(site, view, reading) for view, reading in zip(steady, readings, strict=True)]
    values = [
        _values(site, view, reading, refused)
        for view, reading, (refused, _) in zip(steady, readings, against, strict=True)
    ]
    estimates, reasons = _over_repeats(values)
    idle = site.idle if isinstance(site.idle, Idle) else None
    if idle is not None:
        estimates[NET] = _net_interval(idle, steady, readings, estimates[NET])
        estimates[IDLE] = stats.over_repeats([idle.power_w[start].value for start in sorted(idle.power_w)])
    facts = {
        "energy_boundary": readings[0].boundary,
        "idle_kind": idle.kind if idle else None,
        "pue": site.pue,
    }
    return Consumption(
        estimates,
        reasons,
        facts | _cross_check(readings) | _state(site, steady),
        _distinct(text for refused, flags in against for text in (*refused, *flags)),
        _distinct(_to_know(site, steady, readings, estimates[HOST])),
    )


def told(figures: Mapping[str, Estimate], tool: str) -> Consumption:
    """What another tool says of power and energy, which is of the boards."""
    found = {name: each for name, each in figures.items() if name in ESTIMATES}
    nothing = _nothing(f"{tool} does not say")
    return Consumption(
        {**nothing.estimates, **found},
        {name: why for name, why in nothing.reasons.items() if name not in found},
        {"energy_boundary": "gpu"} if found else {},
    )


def marginal(points: Iterable[tuple[Estimate | None, Estimate | None]]) -> Estimate | None:
    """J per further output token: the slope of power (W) over output rate (tokens/s) by least squares, from
    (rate, power) of the load points; None for fewer than two loads.  The t interval needs three, and says how
    straight the line is."""
    import numpy as np

    known = [(rate.value, power.value) for rate, power in points if rate is not None and power is not None]
    if len(known) < 2:
        return None
    x, y = np.array(known).T
    dx = x - x.mean()
    spread = float(dx @ dx)
    if spread == 0:
        return None
    slope = float(dx @ y) / spread
    n = len(known)
    if n == 2:
        return Estimate(slope, n=n, over="loads")
    left = y - y.mean() - slope * dx
    half = stats.t_quantile(n - 2) * float(np.sqrt(left @ left / (n - 2) / spread))
    return Estimate(slope, slope - half, slope + half, n, "loads")


# ------------------------------------------------------------------------------------- one window


def _values(site: Site, view: WindowView, reading: EnergyReading, refused: Sequence[str]) -> Values:
    """Each figure of a window, or the reason why there is none."""
    tokens = _tokens_in(view)
    gross, why = energy.joules_per_token(reading, tokens)
    why = why or next(iter(refused), None)
    found: Values = {POWER: _or(reading.power_w, reading.reason)}
    if gross is None or why is not None:
        return found | dict.fromkeys((GROSS, NET, HOST, FACILITY), _or(None, why))
    host = site.host(view)
    host_j, why_not = energy.joules_per_token(host, tokens)
    return found | {
        GROSS: gross,
        NET: _net(gross, site.idle, view, tokens),
        HOST: _or(host_j, why_not),
        FACILITY: _facility(host_j, why_not, site.pue),
    }


def _net(gross: float, idle: Idle | str, view: WindowView, tokens: float) -> float | str:
    """Gross less what the machine would have drawn anyway."""
    if isinstance(idle, str):
        return idle
    return gross - idle.of(view.window).value * (view.end - view.start) / 1e9 / tokens


def _net_interval(
    idle: Idle, steady: Sequence[WindowView], readings: Sequence[EnergyReading], net: Estimate | None
) -> Estimate | None:
    """Net of one window is known as well as window and baseline were read, in quadrature.  Repeats may share
    a baseline, whose error their spread then does not show: their interval is no narrower than that
    baseline's own and the windows' mean.  Where one of these is not known, neither is what they add up to."""
    if net is None:
        return None
    halves = []
    for view, reading in zip(steady, readings, strict=True):
        each, tokens = idle.of(view.window), _tokens_in(view)
        if each.high is None or reading.statistical_j is None:
            return net
        shared = (each.high - each.value) * reading.duration_s
        halves.append((reading.statistical_j / tokens, shared / tokens))
    n = len(halves)
    half = math.hypot(*(own / n for own, _ in halves), sum(shared for _, shared in halves) / n)
    if n == 1:
        return Estimate(net.value, net.value - half, net.value + half, 1, "window")
    if net.low is None or net.high is None:
        return net
    low, high = min(net.low, net.value - half), max(net.high, net.value + half)
    return Estimate(net.value, low, high, n, net.over)


def _facility(host_j: float | None, why_not: str | None, pue: float | None) -> float | str:
    if host_j is None:
        return _or(None, why_not)
    return NO_PUE if pue is None else host_j * pue


def _or(value: float | None, why: str | None) -> float | str:
    return value if value is not None else why or "not measured"


def _against(site: Site, view: WindowView, reading: EnergyReading) -> tuple[list[str], list[str]]:
    """What refuses the energy per token of a window, and what is only to be known of it."""
    refused = [reading.invalid] if reading.invalid else []
    flags = list(reading.warnings)
    if site.gpus:
        span = bounds(view)
        heat = conditions.thermally_throttled_frac(site.within(span), *span, site.gpus)
        if heat:
            refused.append(f"heat held the clocks back for {heat:.0%} of the window")
        if site.is_sliced:
            refused.append("MIG is on: a slice's own energy cannot be told from its board's")
        flags += _shared(site, view)
    return refused, flags


def _shared(site: Site, view: WindowView) -> list[str]:
    """Who else used the boards, in the window and while nothing should have happened."""
    idle = [bounds(baseline) for baseline in site.manifest.baselines]
    found = []
    for span in (*idle, bounds(view)):
        for source, seen in conditions.tenants(site.within(span), *span, site.gpus).items():
            board = short(source)
            if seen.processes or seen.bytes:
                found.append(f"shared_gpu: others had {seen.processes or 'some'} process(es) on {board}")
            elif seen.shared:
                gib = (seen.unexplained_bytes or 0) / 2**30
                found.append(f"shared_gpu: {gib:.1f} GiB of {board} belong to no process that is known")
    for bare in (each for each in site.manifest.baselines if each.kind == "bare"):
        span = bounds(bare)
        for source, busy_pct in conditions.busy_pct(site.within(span), *span, site.gpus).items():
            if busy_pct > BUSY_PCT:
                board = short(source)
                found.append(f"shared_gpu: {board} was {busy_pct:.0f} % busy before anything was started")
    return found


# ------------------------------------------------------------------------------------- all windows


def _over_repeats(values: Sequence[Values]) -> tuple[dict[str, Estimate | None], dict[str, str]]:
    """A figure that one of the windows lacks, the point lacks."""
    estimates: dict[str, Estimate | None] = dict.fromkeys(ESTIMATES)
    reasons: dict[str, str] = {}
    for name in values[0]:
        each = [value[name] for value in values]
        missing = [why for why in each if isinstance(why, str)]
        if missing:
            reasons[name] = missing[0]
        else:
            estimates[name] = stats.over_repeats([value for value in each if not isinstance(value, str)])
    return estimates, reasons


def _cross_check(readings: Sequence[EnergyReading]) -> dict[str, Any]:
    """Counter and integral over all windows, and the worst of the windows' doubts."""
    statistical = [
        each.statistical_j / each.energy_j if each.statistical_j is not None and each.energy_j else None
        for each in readings
    ]
    counted = [sum(each.devices.values()) if each.devices and not each.reason else None for each in readings]
    return {
        "energy_counter_j": _all(counted, sum),
        "energy_integral_j": _all([each.integral_j for each in readings], sum),
        "energy_disagreement_frac": _all([each.disagreement_frac for each in readings], max),
        "energy_statistical_frac": _all(statistical, max),
        "energy_systematic_frac": _all([each.systematic_frac for each in readings], max),
    }


def _state(site: Site, steady: Sequence[WindowView]) -> dict[str, Any]:
    """How the boards were over the windows: the worst share of throttling, mean temperature, median clock."""
    if not site.gpus:
        return {}
    spans = [bounds(view) for view in steady]
    shares = [conditions.throttled(site.within(span), *span, site.gpus) for span in spans]
    heat = [conditions.thermally_throttled_frac(site.within(span), *span, site.gpus) for span in spans]
    power = [None if each is None else max(each.get(why, 0.0) for why in POWER_REASONS) for each in shares]
    degrees = _pooled(site, spans, "temperature_c")
    clocks = _pooled(site, spans, "sm_clock_mhz")
    return {
        "throttled_thermal_frac": _all(heat, max),
        "throttled_power_frac": _all(power, max),
        "temperature_c_mean": float(degrees.mean()) if len(degrees) else None,
        "sm_clock_mhz_median": _median(clocks),
        "shared_gpu": _is_shared(site, steady),
    }


def _to_know(
    site: Site, steady: Sequence[WindowView], readings: Sequence[EnergyReading], host: Estimate | None
) -> Iterator[str]:
    """What casts no doubt on the figures."""
    yield from _simulated(site)
    yield from _without_dram(site, host)
    yield from _of_boards(site, steady)
    yield from (remark for reading in readings for remark in reading.remarks)
    yield from site.idle.refused if isinstance(site.idle, Idle) else ()


def _of_boards(site: Site, steady: Sequence[WindowView]) -> Iterator[str]:
    """What lowered the clocks, by name (how long it did so is in the columns), and boards not yet warm."""
    spans = [bounds(view) for view in steady if site.gpus]
    each = [conditions.throttled(site.within(span), *span, site.gpus) for span in spans]
    found = sorted({why for shares in each for why in shares or {} if why not in UNHINDERED})
    if found:
        yield f"clocks were held back by: {', '.join(found)}"
    drifts = [conditions.drift_c(site.within(span), *span, site.gpus) for span in spans]
    most_c = max((each for each in drifts if each is not None), key=abs, default=0.0)
    if abs(most_c) > conditions.STEADY_C:
        yield f"a board was not steadily warm: {most_c:+.1f} °C within a steady window"


def _is_shared(site: Site, steady: Sequence[WindowView]) -> bool | None:
    """None where nobody says who is on the boards: memory that nobody explains can only prove that it is."""
    if site.is_sliced or any(_shared(site, view) for view in steady):
        return True
    seen = [each for view in steady for each in _tenants(site, view)]
    told = all(each.processes is not None for each in seen)
    return False if told else None


def _tenants(site: Site, view: WindowView) -> Iterable[conditions.Tenants]:
    return conditions.tenants(site.within(bounds(view)), *bounds(view), site.gpus).values()


def _pooled(site: Site, spans: Sequence[tuple[int, int]], name: str) -> NDArray[np.float64]:
    import numpy as np

    each = [series(site.within(span), f"gpu:{uuid}", name)[1] for span in spans for uuid in site.gpus]
    return np.concatenate(each)


def _median(values: NDArray[np.float64]) -> float | None:
    import numpy as np

    return float(np.median(values)) if len(values) else None


def _all(values: Sequence[float | None], combine: Callable[[Sequence[float]], float]) -> float | None:
    known = [value for value in values if value is not None]
    return combine(known) if known and len(known) == len(values) else None


# ------------------------------------------------------------------------------------- where


def _simulated(site: Site) -> Iterator[str]:
    for name in sorted({each.name for each in site.manifest.host.gpus if each.simulated}):
        yield f"{name}: no such board is here, its power and energy are made up"
    if any(each.made_up for each in site.manifest.probes if each.probe == "rapl"):
        figures = "host and facility J/token" if site.gpus else "power and energy"
        yield f"the CPU's energy counters are no hardware's: {figures} are made up"


def _without_dram(site: Site, host: Estimate | None) -> Iterator[str]:
    if host is not None and not any(zone.endswith("/dram") for zone in sources(site.run.samples, "rapl")):
        yield "host J/token is without DRAM: this CPU has no energy counter for it"


def _nothing(why: str) -> Consumption:
    return Consumption(dict.fromkeys(ESTIMATES), dict.fromkeys((POWER, GROSS, NET, HOST, FACILITY), why))


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def _tokens_in(view: WindowView) -> float:
    times, amount = view.arrived_output
    return float(amount[view.within(times)].sum())
