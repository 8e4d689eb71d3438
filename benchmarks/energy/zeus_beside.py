"""Zeus (the library, https://ml.energy/zeus) and ours on the same simulated boards; truths exact.

    pip install -c constraints.txt -e '.[energy-peers]'
    python -m benchmarks.energy.zeus_beside [--runs 20]

Zeus's own ``ZeusMonitor`` and our own probe ask one simulated NVML, in virtual time: both are run as they
are, against a library that stands in for pynvml and a clock that is moved.  A window lies inside a load of
600 W ±5 to ±40 % (square wave or sine, 1 to 30 Hz), or is all of it with idle around.  Zeus's window begins
and ends at exactly the same instants, with no delay at all.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa

from benchmarks.energy.known_truth import IDLE_W, LOAD_W, Case, scene
from profiler import energy
from profiler.nvml.board import Kind, SimulatedBoard
from profiler.nvml.simulated import SimulatedNvml, VirtualClock
from profiler.samples import Sample
from profiler.telemetry.nvml import NvmlProbe

POWER_EVERY_S = 0.1
WINDOWS_S = (1.0, 3.0, 10.0, 30.0)
PERIODS_S = (0.02, 0.1, 0.5)
KIND = Kind(
    name="NVIDIA board",
    memory_bytes=1 << 36,
    architecture=8,  # Ada: a sensor that is on all the time
    limit_w=1000,
    idle_w=IDLE_W,
    context_w=IDLE_W,
    loaded_w=LOAD_W,
)


class Library(SimulatedNvml):
    """With what Zeus asks for besides."""

    def nvmlDeviceGetC2cModeInfoV(self, handle: SimulatedBoard) -> Any:  # noqa: N802 (the library's name)
        del handle
        raise self._real.NVMLError(self._real.NVML_ERROR_NOT_SUPPORTED)


@dataclass(frozen=True)
class Beside:
    """Relative errors of one window; ``half_width_frac`` is ours, Zeus gives none."""

    ours_frac: float
    half_width_frac: float
    zeus_frac: float | None


Monitor = Callable[[Library, VirtualClock], AbstractContextManager[Any]]


@contextmanager
def zeus_monitor(library: Library, clock: VirtualClock) -> Iterator[Any]:
    """A ``ZeusMonitor`` that reads ``library`` at the time of ``clock``."""
    import zeus.device.gpu
    import zeus.device.gpu.nvidia
    import zeus.monitor.energy

    with (
        mock.patch.object(zeus.device.gpu, "_gpus", None),
        mock.patch.object(zeus.device.gpu, "nvml_is_available", return_value=True),
        mock.patch.object(zeus.device.gpu.nvidia, "pynvml", library),
        mock.patch.object(zeus.monitor.energy, "time", side_effect=lambda: clock.now_s),
    ):
        yield zeus.monitor.energy.ZeusMonitor(cpu_indices=[])
        zeus.device.gpu._gpus = None  # its end shuts the library down: while that is still in place


def one(case: Case, rng: np.random.Generator, monitor: Monitor | None = zeus_monitor) -> Beside:
    """Measure one window with both, or with ours alone."""
    curve, t0_s, t1_s = scene(case, rng)
    clock = VirtualClock(0.0)
    board = SimulatedBoard(
        kind=replace(KIND, counter_period_s=case.period_s), curve=curve, phase_s=float(rng.random())
    )
    library = Library([board], clock)
    library.nvmlInit()
    probe = NvmlProbe(library=library, clock=clock)
    zeus_j = None
    with monitor(library, clock) if monitor else nullcontext() as zeus:
        samples = _until(t0_s, probe, clock, rng)
        if zeus:
            zeus.begin_window("it", sync_execution=False)
        samples += _until(t1_s, probe, clock, rng)
        if zeus:
            zeus_j = sum(zeus.end_window("it", sync_execution=False).gpu_energy.values())
        samples += _until(t1_s + 2, probe, clock, rng)
    reading = energy.gpu_energy(_table(samples), round(t0_s * 1e9), round(t1_s * 1e9))
    if reading.energy_j is None or reading.statistical_j is None:
        raise RuntimeError(f"{case}: {reading.reason}")
    truth_j = curve.energy_j(t1_s) - curve.energy_j(t0_s)
    return Beside(
        ours_frac=reading.energy_j / truth_j - 1,
        half_width_frac=reading.statistical_j / reading.energy_j,
        zeus_frac=None if zeus_j is None else zeus_j / truth_j - 1,
    )


def _until(end_s: float, probe: NvmlProbe, clock: VirtualClock, rng: np.random.Generator) -> list[Sample]:
    """Poll as the sampler does, each poll up to 1 ms late; the clock stands at ``end_s`` afterwards."""
    samples: list[Sample] = []
    power_due_s = clock.now_s
    while (next_s := clock.now_s + probe.ticks.period_s + float(rng.uniform(-0.001, 0.001))) < end_s:
        clock.now_s = next_s
        samples += probe.ticks.sample()
        if next_s >= power_due_s:
            samples += probe.sample()
            power_due_s += POWER_EVERY_S
    clock.now_s = end_s
    return samples


def _table(samples: list[Sample]) -> pa.Table:
    t_ns, sources, names, values = zip(*samples, strict=True)
    return pa.table(
        {
            "t_ns": pa.array(t_ns, pa.int64()),
            "source": pa.array(sources, pa.string()),
            "name": pa.array(names, pa.string()),
            "value": pa.array([float(value) for value in values]),
        }
    )


def runs(case: Case, count: int, seed: int = 1) -> list[Beside]:
    """``count`` windows of one case; the same again for the same seed."""
    return [one(case, np.random.default_rng([seed, number])) for number in range(count)]


HEAD = (
    "                                        │ ours                             │ Zeus\n"
    " sensor  period ms     Hz  window       s │  error %    p95 %     ± %  in ± % │  error %    p95 %"
)


def line(case: Case, done: list[Beside]) -> str:
    ours = np.abs([each.ours_frac for each in done]) * 100
    zeus = np.abs([each.zeus_frac or 0.0 for each in done]) * 100
    width = np.array([each.half_width_frac for each in done]) * 100
    return (
        f"{case} │ {ours.mean():>8.3f} {np.quantile(ours, 0.95):>8.3f} {width.mean():>7.3f}"
        f" {(ours <= width).mean() * 100:>7.1f} │ {zeus.mean():>8.3f} {np.quantile(zeus, 0.95):>8.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20, help="simulated windows a case")
    arguments = parser.parse_args()
    print(HEAD)
    for period_s in PERIODS_S:
        for whole in (False, True):
            for window_s in WINDOWS_S:
                case = Case(window_s, period_s, whole=whole)
                print(line(case, runs(case, arguments.runs)), flush=True)


if __name__ == "__main__":
    main()
