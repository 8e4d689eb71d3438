"""Who else ran on the machine's CPUs while it was measured, from samples: programs of others, other machines.

What they took, the engine and the load generator may have waited for; on a GPU's host too, where both run on
the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from profiler.samples import between, series
from profiler.schema import Manifest
from profiler.windows import WindowView

# Every system has some daemons; beyond that, and with no CPU left over, somebody waits.
DAEMONS_CORES, DAEMONS_FRAC = 0.1, 0.01
NONE_LEFT_FRAC = 0.8  # busy CPUs over the window: short of all, since it is a mean of busy and idle moments
STEAL_FRAC = 0.02


@dataclass(frozen=True)
class Neighbours:
    """In one load point: the worst of its windows, None where not measured.

    ``cpu_cores``: CPU seconds a second of processes that are not ours; ``steal_frac``: the share of the CPU
    time that the hypervisor kept back.  ``notes``: what may have spoilt the figures.
    """

    cpu_cores: float | None = None
    steal_frac: float | None = None
    notes: tuple[str, ...] = ()


def of_point(manifest: Manifest, samples: Any, steady: Sequence[WindowView]) -> Neighbours:
    """A server that runs on this machine and was not started here, and load processes that a Ray cluster
    started here, are no others: then ``cpu_cores`` is None."""
    is_told = manifest.scenario.load.machines == 1 and (
        manifest.engine.kind != "endpoint" or manifest.engine.device == "remote"
    )
    spans = [grown for view in steady if (grown := _grown(samples, view)) is not None]
    others = [each.others_cores for each in spans] if is_told else []
    steal = [each.steal_frac for each in spans if each.steal_frac is not None]
    crowded = [each for each in spans if is_told and each.is_crowded]
    notes = []
    if crowded:
        worst, behind = max(crowded, key=lambda each: each.others_cores), _behind(manifest.host.niceness)
        notes.append(
            f"other programs used {worst.others_cores:.1f} of {worst.cpus} CPUs, and all were "
            f"{worst.busy_frac:.0%} busy: this run may have waited for them{behind}; run it again on a "
            "quiet machine"
        )
    if max(steal, default=0.0) > STEAL_FRAC:
        notes.append(
            f"the hypervisor kept back {max(steal):.0%} of the CPU time, for other machines on its host"
        )
    return Neighbours(max(others, default=None), max(steal, default=None), tuple(notes))


def _behind(niceness: int | None) -> str:
    return f", and stood behind them (niceness {niceness})" if niceness and niceness > 0 else ""


@dataclass(frozen=True)
class _Grown:
    """The counters between the samples around a window: seconds, and CPUs."""

    span_s: float
    cpus: int
    busy_s: float
    own_s: float
    steal_s: float | None

    @property
    def others_cores(self) -> float:
        """The kernel counts ticks for a CPU and nanoseconds for a process: one may be ahead of the other."""
        return max(0.0, self.busy_s - self.own_s) / self.span_s

    @property
    def busy_frac(self) -> float:
        return (self.busy_s + (self.steal_s or 0.0)) / (self.span_s * self.cpus)

    @property
    def steal_frac(self) -> float | None:
        return None if self.steal_s is None else self.steal_s / (self.span_s * self.cpus)

    @property
    def is_crowded(self) -> bool:
        daemons = max(DAEMONS_CORES, DAEMONS_FRAC * self.cpus)
        return self.others_cores > daemons and self.busy_frac > NONE_LEFT_FRAC


def _grown(samples: Any, view: WindowView) -> _Grown | None:
    """None where a window is not between two samples of one sampler."""
    times, busy_s = series(samples, "machine", "busy_s")
    first, last = times.searchsorted(view.start, side="right") - 1, times.searchsorted(view.end)
    if first < 0 or last >= len(times):
        return None
    span = int(times[first]), int(times[last])
    inside = between(samples, span[0], span[1] + 1)
    own_s, steal_s, cpus = (series(inside, "machine", name)[1] for name in ("own_s", "steal_s", "cpus"))
    # A sampler that replaced another knows nothing of processes that had ended.
    if len(own_s) < 2 or (own_s[1:] < own_s[:-1]).any():
        return None
    return _Grown(
        span_s=(span[1] - span[0]) / 1e9,
        cpus=int(cpus[0]),
        busy_s=float(busy_s[last] - busy_s[first]),
        own_s=float(own_s[-1] - own_s[0]),
        steal_s=float(steal_s[-1] - steal_s[0]) if len(steal_s) else None,
    )
