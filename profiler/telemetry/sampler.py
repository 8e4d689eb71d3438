"""The sampling process: ``python -m profiler.telemetry.sampler``.

Reads JSON lines on stdin: first a ``Config``, then ``Watch``, ``Unwatch`` and ``Stop``; answers the
config with one line, the status of each probe.  It ends on Stop, at the end of stdin and when its parent
is gone, so no way of dying of the parent leaves it behind.  SIGINT is the parent's affair.

Each probe ticks in a thread of its own, so a slow server or a long /proc walk never delays the power
readings.  Ticks are due at fixed times (start + k·period); one that is missed is counted, not made up.
Every probe is read once more when it stops, so that the end of the last window has a sample behind it; the
energy counters, polled faster than the rest of NVML (``nvml_energy``), until they have stepped again.

Every ``REPORT_S`` the sampler writes of itself, as source ``sampler``: ``cpu_s`` (CPU seconds used), and of
each probe ``<probe>_late_max_s`` (worst lateness of a tick since the last report), ``<probe>_missed_ticks``
and ``<probe>_errors`` (counts since the start).
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from profiler.samples import Sample, complete_bytes, encode
from profiler.telemetry.engine_metrics import EngineMetricsProbe
from profiler.telemetry.machine import MachineProbe
from profiler.telemetry.nvml import NvmlProbe
from profiler.telemetry.nvml_tenants import Family
from profiler.telemetry.process import ProcessProbe, usual_status
from profiler.telemetry.rapl import POWERCAP, RaplProbe

NVML_PERIOD_S, PROCESS_PERIOD_S, RAPL_PERIOD_S, METRICS_PERIOD_S = 0.1, 0.5, 0.2, 1.0
REPORT_S = 5.0
PARENT_CHECK_S = 1.0
JOIN_S = 1.0


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: where samples go and what to read.  ``powercap`` is moved by tests.

    ``starts_engine``: whether our parent starts the engine, after us (else it may be up already).
    """

    path: str
    gpus: tuple[str, ...] | None
    starts_engine: bool = True
    powercap: str = str(POWERCAP)


class Watch(msgspec.Struct, frozen=True, kw_only=True, tag_field="command", tag="watch"):
    name: str
    pid: int | None
    metrics_url: str | None


class Unwatch(msgspec.Struct, frozen=True, kw_only=True, tag_field="command", tag="unwatch"):
    name: str


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag_field="command", tag="stop"):
    pass


class Probe(Protocol):
    """What is sampled.  ``sample`` may raise: it is counted and tried again."""

    def sample(self) -> Iterable[Sample]: ...


class SampleFile:
    """Appends whole lines; what a crash left incomplete at the end is cut off first."""

    def __init__(self, path: Path) -> None:
        if path.exists():
            os.truncate(path, complete_bytes(path.read_bytes()))
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._lock = threading.Lock()

    def append(self, samples: Iterable[Sample]) -> None:
        """Write ``samples`` whole or, when the disk is full, not at all (OSError); threads may share it."""
        lines = memoryview(encode(samples))
        with self._lock:
            size = os.fstat(self._file).st_size
            try:
                while lines:
                    lines = lines[os.write(self._file, lines) :]
            except OSError:
                os.ftruncate(self._file, size)
                raise


class Ticker:
    """Samples one probe at start + k·period in a thread until stopped, and once more then.

    ``period_s`` may be a function: a probe may change its pace.
    """

    def __init__(self, probe: Probe, period_s: float | Callable[[], float], file: SampleFile) -> None:
        self._probe, self._file = probe, file
        self._period_s = period_s if callable(period_s) else lambda: period_s
        self._late_max_ns = self._missed = self._errors = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask for the last sample and the end; ``join`` waits for them."""
        self._stopped.set()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def account(self, name: str, t_ns: int) -> Iterator[Sample]:
        """How well the schedule was kept; the worst lateness starts anew."""
        late_ns, self._late_max_ns = self._late_max_ns, 0
        yield Sample(t_ns, "sampler", f"{name}_late_max_s", late_ns / 1e9)
        yield Sample(t_ns, "sampler", f"{name}_missed_ticks", self._missed)
        yield Sample(t_ns, "sampler", f"{name}_errors", self._errors)

    def _run(self) -> None:
        due_ns = time.perf_counter_ns()
        while not self._stopped.wait(max(0, due_ns - time.perf_counter_ns()) / 1e9):
            self._late_max_ns = max(self._late_max_ns, time.perf_counter_ns() - due_ns)
            self._tick()
            period_ns = round(self._period_s() * 1e9)
            passed = max(1, -((due_ns - time.perf_counter_ns()) // period_ns))
            self._missed += passed - 1
            due_ns += passed * period_ns
        self._tick()

    def _tick(self) -> None:
        """A probe that fails must not end the sampling of the others, nor take with it what it had read
        before; the count is in the file."""
        taken: list[Sample] = []
        try:
            for sample in self._probe.sample():
                taken.append(sample)
        except Exception:
            self._errors += 1
        try:
            if taken:
                self._file.append(taken)
        except OSError:
            self._errors += 1


class Sampling:
    """The running set of tickers: the machine's from the start, an engine's while watched."""

    def __init__(self, config: Config) -> None:
        self._file = SampleFile(Path(config.path))
        self._family = Family(config.starts_engine)
        nvml = NvmlProbe(config.gpus, family=self._family)
        rapl = RaplProbe(Path(config.powercap))
        self.probes = (nvml.status(), rapl.status(), usual_status())
        self._ticks = nvml.ticks
        self._tickers: dict[str, Ticker] = {}
        if nvml.status().usable:
            self._tickers["nvml"] = Ticker(nvml, NVML_PERIOD_S, self._file)
            self._tickers["nvml_energy"] = Ticker(self._ticks, lambda: self._ticks.period_s, self._file)
        if rapl.status().usable:
            self._tickers["rapl"] = Ticker(rapl, RAPL_PERIOD_S, self._file)
        machine = MachineProbe(lambda: self._family.roots)
        if machine.is_usable:
            self._tickers["machine"] = Ticker(machine, PROCESS_PERIOD_S, self._file)
        self._ending: list[Ticker] = []

    def watch(self, watch: Watch) -> None:
        self.unwatch(watch.name)
        if watch.pid is not None:
            self._family.watch(watch.name, watch.pid)
            probe = ProcessProbe(watch.name, watch.pid)
            self._tickers[f"process:{watch.name}"] = Ticker(probe, PROCESS_PERIOD_S, self._file)
        if watch.metrics_url is not None:
            scraper = EngineMetricsProbe(watch.name, watch.metrics_url)
            self._tickers[f"engine:{watch.name}"] = Ticker(scraper, METRICS_PERIOD_S, self._file)

    def unwatch(self, name: str) -> None:
        self._family.unwatch(name)
        for key in (f"process:{name}", f"engine:{name}"):
            if ticker := self._tickers.pop(key, None):
                ticker.stop()
                self._ending.append(ticker)

    def report(self) -> None:
        t_ns = time.perf_counter_ns()
        own = [Sample(t_ns, "sampler", "cpu_s", round(time.process_time(), 4))]
        self._file.append(
            own + [s for name, ticker in self._tickers.items() for s in ticker.account(name, t_ns)]
        )

    def stop(self) -> None:
        self._await_step()
        ending = [*self._tickers.values(), *self._ending]
        for ticker in ending:
            ticker.stop()
        deadline = time.monotonic() + JOIN_S
        for ticker in ending:
            ticker.join(max(0.0, deadline - time.monotonic()))
        self.report()

    def _await_step(self) -> None:
        """The last window needs a step of every energy counter behind its end."""
        now_ns = time.perf_counter_ns()
        deadline_ns = now_ns + JOIN_S * 1e9
        while (last_ns := self._ticks.last_step_ns()) is not None and last_ns < now_ns:
            if time.perf_counter_ns() > deadline_ns:
                return
            time.sleep(0.01)


class Commands:
    """Lines of stdin, waited for no longer than asked; the end of stdin is ``b""``."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pending = b""

    def next(self, timeout_s: float | None) -> bytes | None:
        """The next line, ``b""`` at the end of stdin, None when there was none in time."""
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self._descriptor], [], [], timeout_s)
            if not ready:
                return None
            piece = os.read(self._descriptor, 65536)
            if not piece:
                return b""
            self._pending += piece
        line, _, self._pending = self._pending.partition(b"\n")
        return line + b"\n"


def main() -> None:
    """Sample until told to stop or left alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setswitchinterval(0.001)  # a long /proc walk in one thread must not hold back a tick of another
    parent = os.getppid()
    commands = Commands(sys.stdin.fileno())
    first = commands.next(None)
    if not first:
        return
    sampling = Sampling(msgspec.json.decode(first, type=Config))
    sys.stdout.buffer.write(msgspec.json.encode(sampling.probes) + b"\n")
    sys.stdout.flush()
    _obey(sampling, commands, parent)
    sampling.stop()


def _obey(sampling: Sampling, commands: Commands, parent: int) -> None:
    report_at = time.monotonic() + REPORT_S
    while os.getppid() == parent:
        line = commands.next(PARENT_CHECK_S)
        if line == b"":
            return
        command = msgspec.json.decode(line, type=Watch | Unwatch | Stop) if line else None
        if isinstance(command, Stop):
            return
        if isinstance(command, Watch):
            sampling.watch(command)
        elif isinstance(command, Unwatch):
            sampling.unwatch(command.name)
        if time.monotonic() >= report_at:
            sampling.report()
            report_at += REPORT_S


if __name__ == "__main__":
    main()
