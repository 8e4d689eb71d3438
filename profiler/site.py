"""Where the energy of a run is read: the engine's boards (none: the CPU), the machine around them, the
building; and what the machine draws while the engine waits."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

from profiler import conditions, energy
from profiler.energy import EnergyReading
from profiler.samples import between, series, sources
from profiler.schema import Baseline, Estimate, Window
from profiler.store import RunResult
from profiler.windows import WindowView

# Best first: the engine waits in a real service too; a context alone draws nearly as much.
IDLE_KINDS = ("loaded", "context", "bare")
NO_IDLE = "no idle baseline was held"
# More than this (percent of the time) and a board is at work, also where nothing of ours was asked of it.
BUSY_PCT = 5.0


class Idle(NamedTuple):
    """Power (W) of the machine while it waits, by engine start; ``refused``: why better ones are not used."""

    kind: str
    power_w: dict[int, Estimate]
    refused: tuple[str, ...] = ()

    def of(self, window: Window) -> Estimate:
        """The baseline of the window's own engine start, else the last one before it, else the first."""
        earlier = [start for start in self.power_w if start <= window.engine_start]
        return self.power_w[max(earlier) if earlier else min(self.power_w)]


class Site:
    """A run's samples, its engine's boards and its building."""

    def __init__(self, run: RunResult) -> None:
        self.run = run
        self.manifest = run.manifest
        self.gpus = _boards(run)
        self.pue = run.manifest.scenario.telemetry.pue
        self._inside: dict[tuple[int, int], Any] = {}

    @cached_property
    def idle(self) -> Idle | str:
        """Idle power by the best kind of baseline that can be used, or why there is none."""
        refused: list[str] = []
        for kind in IDLE_KINDS:
            held = [baseline for baseline in self.manifest.baselines if baseline.kind == kind]
            found = {baseline.engine_start: self._idle_power(baseline) for baseline in held}
            refused += [f"idle, {kind}: {why}" for why in found.values() if isinstance(why, str)]
            power_w = {start: each for start, each in found.items() if isinstance(each, Estimate)}
            if power_w:
                return Idle(kind, power_w, tuple(dict.fromkeys(refused)))
        return refused[0] if refused else NO_IDLE

    @cached_property
    def is_sliced(self) -> bool:
        """Whether a board is in MIG mode."""
        each = [series(self.run.samples, f"gpu:{uuid}", "mig_enabled")[1] for uuid in self.gpus]
        return any(len(values) > 0 and bool(values.max()) for values in each)

    def within(self, span: tuple[int, int]) -> Any:
        """The samples of a span; it is asked many times and the table has many rows."""
        if span not in self._inside:
            self._inside[span] = between(self.run.samples, *span)
        return self._inside[span]

    def reading(self, span: Baseline | WindowView) -> EnergyReading:
        """Of the boards, or of the CPU where the engine uses none."""
        t0_ns, t1_ns = bounds(span)
        if self.gpus:
            return energy.gpu_energy(self.run.samples, t0_ns, t1_ns, self.gpus, self.manifest.host.gpus)
        return energy.cpu_energy(self.run.samples, t0_ns, t1_ns)

    def host(self, view: WindowView) -> EnergyReading:
        """Of the whole machine: boards that idle beside the engine's are part of it.  None unless all of its
        boards were read."""
        t0_ns, t1_ns = bounds(view)
        known = self.manifest.host.gpus
        every = tuple(dict.fromkeys((*(gpu.uuid for gpu in known), *self.gpus)))
        unread = len(every) - sum(f"gpu:{uuid}" in self._read for uuid in every)
        if unread:
            reason = f"{unread} of {len(every)} GPUs {'was' if unread == 1 else 'were'} not read"
            return EnergyReading(boundary="host", duration_s=(t1_ns - t0_ns) / 1e9, reason=reason)
        return energy.host_energy(self.run.samples, t0_ns, t1_ns, every or None, known)

    @cached_property
    def _read(self) -> frozenset[str]:
        return frozenset(sources(self.run.samples, "gpu"))

    def _idle_power(self, baseline: Baseline) -> Estimate | str:
        """With what the reading itself may be off by, or why it is no idle power."""
        if at_work := self._at_work(baseline):
            return at_work
        reading = self.reading(baseline)
        if not reading.power_w or reading.invalid:
            return reading.reason or reading.invalid or "no power was read"
        half_w = (reading.statistical_j or 0.0) / reading.duration_s
        return Estimate(reading.power_w, reading.power_w - half_w, reading.power_w + half_w, over="window")

    def _at_work(self, baseline: Baseline) -> str | None:
        """What the machine was doing while nothing was to be asked of it; None: nothing that was seen."""
        span = bounds(baseline)
        inside = self.within(span)
        running = conditions.requests_running(inside, *span)
        if running:
            return f"the engine had {running:.0f} request{'s' if running > 1 else ''} running"
        for source, busy_pct in conditions.busy_pct(inside, *span, self.gpus).items():
            if busy_pct > BUSY_PCT:
                return f"{short(source)} was {busy_pct:.0f} % busy"
        return None


def _boards(run: RunResult) -> tuple[str, ...]:
    """The boards whose energy the run's is: the engine's, or for an engine that cannot tell (a server that
    somebody else started here) all that were sampled."""
    if run.manifest.engine.device == "none" and not run.manifest.engine.gpus:
        return tuple(source.removeprefix("gpu:") for source in sources(run.samples, "gpu"))
    return run.manifest.engine.gpus


def bounds(span: Baseline | WindowView) -> tuple[int, int]:
    return (span.start_ns, span.end_ns) if isinstance(span, Baseline) else (span.start, span.end)


def short(source: str) -> str:
    """A board's UUID as far as it tells boards apart: ``GPU-1a2b3c4d``."""
    return source.removeprefix("gpu:")[:12]
