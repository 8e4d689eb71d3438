"""Warm boards before anything is measured: hold the load, unrecorded, until their temperature is steady.

Leakage makes a warm board draw more than a cold one at the same work; a serving machine is warm.  The
temperatures come from the samples that the sampler appends while it runs.
"""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from profiler.conditions import EDGE_S, STEADY_C
from profiler.loadgen.job import LoadJob, Progress
from profiler.loadgen.worker import LoadWorker
from profiler.samples import Tail

TEMPERATURE = "temperature_c"
# Steady: over the last SPAN_S no board changed by STEADY_C.
SPAN_S = 20.0
TAIL_BYTES = 1 << 18
FIRST_READING_S = 2.0
LOOK_EVERY_S = 0.05
SALT_STEP = 1 << 50  # prompts that no window has: a prefix cache must not know those that are measured


class _EnoughError(Exception):
    """Ends the load: the boards are steady, or the time is over."""


@dataclass(frozen=True)
class Warmth:
    """What was reached: ``drift_c`` is the largest change of a board over the last SPAN_S, None: not seen
    that long."""

    took_s: float
    temperature_c: float
    drift_c: float | None

    @property
    def is_steady(self) -> bool:
        return self.drift_c is not None and self.drift_c < STEADY_C

    def __str__(self) -> str:
        reached = f"{self.took_s:.0f} s of load before measuring: {self.temperature_c:.0f} °C"
        if self.drift_c is None:
            return f"{reached}; too short to tell whether that is steady"
        if self.is_steady:
            return f"{reached}, steady"
        return f"{reached}, not steady: a board changed by {self.drift_c:.1f} °C in the last {SPAN_S:.0f} s"


class Thermometer:
    """Follows the temperatures of ``gpus`` (UUIDs) in a sample file that grows."""

    def __init__(self, path: Path, gpus: Container[str]) -> None:
        self._tail, self._gpus = Tail(path, TAIL_BYTES), gpus
        self._boards: dict[str, deque[tuple[float, float]]] = {}

    def read(self) -> bool:
        """Take in what was appended; whether any temperature has been seen so far."""
        for sample in self._tail.read():
            if sample.name == TEMPERATURE and sample.source.removeprefix("gpu:") in self._gpus:
                self._boards.setdefault(sample.source, deque()).append((sample.t_ns / 1e9, sample.value))
        return bool(self._boards)

    def forget(self) -> None:
        """Only the present reading of each board stays: what was before the load says nothing of it."""
        for readings in self._boards.values():
            while len(readings) > 1:
                readings.popleft()

    @property
    def hottest_c(self) -> float:
        return max(readings[-1][1] for readings in self._boards.values())

    def drift_c(self) -> float | None:
        """The largest change of a board over the last SPAN_S; None until all were seen that long."""
        drifts = [_drift_c(readings) for readings in self._boards.values()]
        known = [drift for drift in drifts if drift is not None]
        return max(known) if known and len(known) == len(drifts) else None


def _drift_c(readings: deque[tuple[float, float]]) -> float | None:
    """Mean of the last EDGE_S − mean of the first EDGE_S of the last SPAN_S, absolute."""
    last_s = readings[-1][0]
    while len(readings) > 1 and readings[1][0] <= last_s - SPAN_S:
        readings.popleft()
    if last_s - readings[0][0] < SPAN_S:
        return None
    first = [value for t_s, value in readings if t_s <= last_s - SPAN_S + EDGE_S]
    last = [value for t_s, value in readings if t_s >= last_s - EDGE_S]
    return abs(sum(last) / len(last) - sum(first) / len(first))


def warm(
    job: LoadJob,
    worker: LoadWorker,
    samples: Path,
    gpus: Container[str],
    max_s: float,
    say: Callable[[str], None],
    check: Callable[[], None],
) -> Warmth | None:
    """Hold the load of ``job`` until ``gpus`` are steady by ``samples``, ``max_s`` at most, and keep no
    record of it.  None where ``max_s`` is 0 or, after FIRST_READING_S, no temperature of theirs was sampled.

    Raises what ``check`` and the load worker raise.
    """
    thermometer = Thermometer(samples, gpus)
    if not max_s or not _has_temperatures(thermometer):
        return None
    thermometer.forget()
    start_s = time.monotonic()

    def watch() -> None:
        check()
        thermometer.read()
        drift = thermometer.drift_c()
        if time.monotonic() - start_s >= max_s or (drift is not None and drift < STEADY_C):
            raise _EnoughError

    def tell(progress: Progress) -> None:
        say(f"warming up · {thermometer.hottest_c:.0f} °C, {progress.done} requests")

    # In the run folder: whatever kills us leaves nothing anywhere else, and sealing clears it.
    with tempfile.TemporaryDirectory(prefix="warming-", dir=samples.parent) as folder:
        try:
            for round_ in range(1, 1 << 10):  # a batch may end before the boards are warm
                worker.run(_unrecorded(job, round_, Path(folder), max_s), tell, watch)
                watch()
        except _EnoughError:
            pass
    return Warmth(time.monotonic() - start_s, thermometer.hottest_c, thermometer.drift_c())


def _has_temperatures(thermometer: Thermometer) -> bool:
    end_s = time.monotonic() + FIRST_READING_S
    while not thermometer.read():
        if time.monotonic() > end_s:
            return False
        time.sleep(LOOK_EVERY_S)
    return True


def _unrecorded(job: LoadJob, round_: int, folder: Path, max_s: float) -> LoadJob:
    """The same load for as long as it takes, with prompts of its own, recorded where it is thrown away."""
    return structs.replace(
        job,
        measure=structs.replace(job.measure, window_s=max_s, max_window_s=max_s, min_requests=0),
        records_path=str(folder / f"warming-{round_}.parquet"),
        prompt_salt=job.prompt_salt + round_ * SALT_STEP,
    )
