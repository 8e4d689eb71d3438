"""The NVML probe on simulated boards in virtual time: minutes of sampling in a moment, into a sample file."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from profiler.nvml.board import Faults, SimulatedBoard
from profiler.nvml.curves import Constant, Curve
from profiler.nvml.load import Load
from profiler.nvml.simulated import SimulatedNvml, VirtualClock
from profiler.nvml.wanted import kinds
from profiler.samples import Sample, encode, read_samples
from profiler.telemetry.nvml import NvmlProbe

KINDS = kinds()


def board(
    kind: str = "h100", curve: Curve | float = 400.0, number: int = 0, born_s: float = 1000.0, **faults: Any
) -> SimulatedBoard:
    """A board that draws ``curve`` watts."""
    follows = Constant(curve) if isinstance(curve, int | float) else curve
    return SimulatedBoard(KINDS[kind], follows, number, Faults(**faults), born_s=born_s)


def probe_of(
    *boards: SimulatedBoard, clock: VirtualClock, load: Load | None = None
) -> tuple[NvmlProbe, SimulatedNvml]:
    library = SimulatedNvml(boards, clock, load)
    return NvmlProbe(None, library, clock), library


def taken(samples: Iterable[Sample]) -> list[Sample]:
    """What a ticker keeps of one tick: all that came before an error."""
    kept: list[Sample] = []
    try:
        for sample in samples:
            kept.append(sample)
    except Exception as error:
        kept.append(Sample(0, "error", str(error), 1))
    return kept


def drive(
    probe: NvmlProbe, clock: VirtualClock, seconds: float, lateness_s: float = 0.001, seed: int = 7
) -> list[Sample]:
    """Both tickers for so long, each tick up to ``lateness_s`` late."""
    chance = random.Random(seed)
    start_s = clock.now_s
    slow_s = fast_s = start_s
    kept: list[Sample] = []
    while min(slow_s, fast_s) < start_s + seconds:
        due_s = min(slow_s, fast_s)
        clock.now_s = max(clock.now_s, due_s + chance.random() * lateness_s)
        if fast_s <= slow_s:
            kept += taken(probe.ticks.sample())
            fast_s += probe.ticks.period_s
        else:
            kept += taken(probe.sample())
            slow_s += 0.1
    return kept


def as_table(samples: Iterable[Sample], path: Path) -> Any:
    path.write_bytes(encode(samples))
    return read_samples(path)
