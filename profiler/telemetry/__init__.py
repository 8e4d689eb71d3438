"""Telemetry: a process of its own that reads energy, power, memory and engine counters at fixed times.

It runs apart from the load generator so that neither disturbs the other, and in its own session so that
Ctrl-C reaches it only through us.  What it writes is described in ``profiler.samples``.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from profiler.errors import MeasurementError
from profiler.schema import ProbeStatus

if TYPE_CHECKING:
    import subprocess

__all__ = ["Sampler"]

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
# So many times in a row, some four a second, nothing new was in the file: it reports of itself every 5 s.
SILENT_ASKS = 40


class Sampler:
    """Context manager that owns the sampling process; samples are appended to ``path``.

    ``gpus``: UUIDs of the engine's GPUs, None for all of the machine, ``()`` for none.  ``starts_engine``:
    whether the engine is started from here, later (else other processes on the GPUs may be the engine's).
    NVML and RAPL are read from entry to exit; a process tree or an engine's metrics while watched.
    Raises MeasurementError when the process does not start or has ended unbidden.
    """

    def __init__(self, path: Path, gpus: tuple[str, ...] | None, *, starts_engine: bool = True) -> None:
        self.probes: tuple[ProbeStatus, ...] = ()
        self._path = path.absolute()
        self._config = {"path": str(self._path), "gpus": gpus, "starts_engine": starts_engine}
        self._child: subprocess.Popen[bytes] | None = None
        self._watched: dict[str, dict[str, Any]] = {}
        self._seen = (-1, 0)  # bytes of samples, and how often they were as many

    @property
    def reads_energy(self) -> bool:
        """Whether any source of energy can be read here."""
        return any(each.usable for each in self.probes if each.of_energy)

    @property
    def pid(self) -> int | None:
        """The sampling process, None when none runs."""
        return self._child.pid if self._child is not None else None

    def __enter__(self) -> Sampler:
        self._start()
        return self

    def _start(self) -> None:
        import subprocess  # not at the top: the sampling process imports this package too

        self._child = subprocess.Popen(
            [sys.executable, "-m", "profiler.telemetry.sampler"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd=Path(__file__).resolve().parents[2],  # so that it imports this very package
        )
        try:
            self._send(self._config)
            self.probes = msgspec.json.decode(self._ready_line(), type=tuple[ProbeStatus, ...])
            for message in self._watched.values():
                self._send(message)
        except BaseException:
            self._end()
            raise

    def trouble(self) -> str | None:
        """Why nothing is sampled any more; None while there is no sign of it.  To be asked four times a
        second: that time has passed says nothing where we were stopped ourselves."""
        if self._child is None:
            return "is not running"
        code = self._child.poll()
        if code is not None:
            return f"ended ({_ended_by(code)})"
        size = _size(self._path)
        self._seen = (size, self._seen[1] + 1 if size == self._seen[0] else 0)
        return "fell silent" if self._seen[1] >= SILENT_ASKS else None

    def renew(self) -> None:
        """Sample the same with a process of its own anew, whatever has become of the one before.

        Raises MeasurementError when it does not start.
        """
        if self._child is not None:
            self._child.kill()
        self._end()
        self._seen = (-1, 0)
        # What it finds on the boards may be the engine's.
        self._config["starts_engine"] = False
        self._start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(MeasurementError):
            self._send({"command": "stop"})
        self._end()

    def watch(self, name: str, pid: int | None, metrics_url: str | None) -> None:
        """Sample the process tree of ``pid`` as ``process:name`` and the metrics page as ``engine:name``."""
        message = {"command": "watch", "name": name, "pid": pid, "metrics_url": metrics_url}
        self._send(message)
        self._watched[name] = message

    def unwatch(self, name: str) -> None:
        """Take a last sample of ``name`` and stop watching it; unknown names are ignored."""
        self._watched.pop(name, None)
        self._send({"command": "unwatch", "name": name})

    def _send(self, message: dict[str, Any]) -> None:
        child = self._child
        if child is None or child.stdin is None:
            raise MeasurementError("the sampler is not running: use it as a context manager")
        try:
            child.stdin.write(msgspec.json.encode(message) + b"\n")
            child.stdin.flush()
        except OSError as error:
            raise self._lost() from error

    def _ready_line(self) -> bytes:
        assert self._child is not None
        assert self._child.stdout is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._child.stdout], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self._child.stdout.fileno(), 65536) if ready else b""
            if not piece:
                raise self._lost()
            line += piece
        return line

    def _lost(self) -> MeasurementError:
        """Why the child is no more, in one line."""
        import subprocess

        assert self._child is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=1.0)
        self._child.kill()
        said = self._child.stderr.read().decode(errors="replace").strip() if self._child.stderr else ""
        last = said.splitlines()[-1] if said else _ended_by(self._child.wait())
        return MeasurementError(f"the telemetry sampler ended: {last}; start the run again")

    def _end(self) -> None:
        import subprocess

        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(OSError):
            if child.stdin is not None:
                child.stdin.close()
        try:
            child.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()


def _size(path: Path) -> int:
    """0 where there is no file yet."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _ended_by(code: int) -> str:
    import signal

    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
