"""Engine processes: started under a supervisor, watched until ready, stopped in bounded time."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from profiler.engines import supervise
from profiler.engines.vllm_log import explain, is_port_taken, telling_lines
from profiler.errors import EngineError
from profiler.store import replacing

STOP_LIMIT_S = supervise.TERM_GRACE_S + supervise.KILL_GRACE_S + 2.0
START_ATTEMPTS = 3
LOG_WINDOW_BYTES = 1 << 20
FORSAKEN = "its supervisor was killed, and so it was ended; if that was for memory, use a larger machine"


class EngineProcess:
    """One engine command, alive from construction until :meth:`stop`.

    It runs in a session of its own, so Ctrl-C in the terminal does not reach it, below a supervisor
    which ends it with all its descendants as soon as this process stops or dies.  Output and errors
    are appended to ``log_path``.  Raises EngineError when the supervisor cannot start.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], log_path: Path) -> None:
        self.log_path = log_path
        with log_path.open("ab") as log:
            self._log_start = log.tell()
            # The folder may be moved, and the name taken by a copy, while the command writes on.
            self._log = os.open(log_path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._log)
            self._supervisor = subprocess.Popen(
                [sys.executable, "-P", supervise.__file__, "--", *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **env},
                start_new_session=True,
            )
        assert self._supervisor.stdout is not None
        said = self._supervisor.stdout.readline().decode().split()
        self.pid: int | None = int(said[1]) if said[:1] == ["pid"] else None
        self._exit_code: int | None = int(said[1]) if said[:1] == ["exit"] else None
        self._is_forsaken = False
        self._doomed: list[psutil.Process] = []
        os.set_blocking(self._supervisor.stdout.fileno(), False)
        if not said:
            self.stop()
            was_killed = self._supervisor.returncode < 0
            end = "was killed before it could start the engine" if was_killed else "did not start"
            raise EngineError(f"the engine's supervisor {end}", self.tail(8))

    def exit_code(self) -> int | None:
        """None while the command runs; then its exit code, negative for the signal that killed it."""
        if self._exit_code is None:
            assert self._supervisor.stdout is not None
            supervisor_ended = self._supervisor.poll() is not None
            said = (self._supervisor.stdout.read() or b"").decode().split()
            if said:
                self._exit_code = int(said[1])
            elif supervisor_ended:
                self._exit_code = -signal.SIGTERM
                self._is_forsaken = True
        return self._exit_code

    def stop(self) -> None:
        """End the command and all its descendants, within ``STOP_LIMIT_S``.  Safe to repeat.

        An interrupt that comes meanwhile is passed on once they have ended: nobody would call again, and who
        asks a third time has the supervisor killed before it has removed the temporary files.
        """
        try:
            self._end()
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        assert self._supervisor.stdin is not None
        assert self._supervisor.stdout is not None
        if self._supervisor.stdout.closed:
            return
        self._doomed = self._doomed or self._tree()
        self._supervisor.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._supervisor.wait(STOP_LIMIT_S)
        # Only a supervisor that was itself killed, or hangs, leaves anything here.
        for process in self._doomed:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._supervisor.wait()
        self.exit_code()
        self._supervisor.stdout.close()
        if self._supervisor.returncode < 0:  # its own last act is to remove them
            psutil.wait_procs(self._doomed, timeout=supervise.KILL_GRACE_S)
            for folder in Path(tempfile.gettempdir()).glob(f"engine-{self._supervisor.pid}-*"):
                shutil.rmtree(folder, ignore_errors=True)

    def _tree(self) -> list[psutil.Process]:
        """The supervisor and the command while they live, with all their descendants."""
        pids = [
            self._supervisor.pid if self._supervisor.poll() is None else None,
            self.pid if self.exit_code() is None else None,
        ]
        found: list[psutil.Process] = []
        for pid in pids:
            with contextlib.suppress(psutil.Error):
                if pid is not None:
                    root = psutil.Process(pid)
                    found += [root, *root.children(recursive=True)]
        return found

    def listens_on(self, port: int) -> bool:
        """Whether it is the command, or a descendant, that listens there and not somebody else."""
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.pid)
            return any(_listens(process, port) for process in (root, *root.children(recursive=True)))
        return False

    def log(self) -> str:
        """What the command has written so far, the last mebibyte of it at most."""
        size = os.fstat(self._log).st_size
        begin = max(self._log_start, size - LOG_WINDOW_BYTES)
        return os.pread(self._log, size - begin, begin).decode(errors="replace")

    def part_with_log(self, folder: Path) -> None:
        """Leave in ``folder`` the log as it is now, as a file that the command writes to no more; what it
        writes from now on is still in :meth:`log`.  Raises StoreError."""
        self.log_path = folder / self.log_path.name
        with replacing(self.log_path) as beside, beside.open("wb") as copy:
            os.lseek(self._log, 0, os.SEEK_SET)
            while piece := os.read(self._log, LOG_WINDOW_BYTES):
                copy.write(piece)

    def tail(self, lines: int) -> list[str]:
        """The last non-empty lines of the log."""
        return [line for line in self.log().splitlines() if line.strip()][-lines:]

    def failure(self, what: str) -> EngineError:
        """An error that says ``what``, the advice its log gives, and the telling lines."""
        log = self.log()
        advice = FORSAKEN if self._is_forsaken else explain(log, self.exit_code())
        return EngineError(
            f"{what}: {advice}" if advice else f"{what}; its log is {self.log_path}", telling_lines(log)
        )


def _listens(process: psutil.Process, port: int) -> bool:
    try:
        sockets = process.net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True  # where sockets may not be listed there is no telling; its answer must do
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in sockets)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How to start one engine server.

    ``argv`` takes the port to listen on; a server that picks its own port ignores it and prints
    ``listening PORT``, which ``announces_port`` says.  ``phase`` turns a log line into a few words of
    progress, None for a line that says nothing of it.
    """

    name: str
    argv: Callable[[int], list[str]]
    timeout_s: float
    env: Mapping[str, str] = field(default_factory=dict)
    announces_port: bool = False
    phase: Callable[[str], str | None] = lambda _line: None


@dataclass(frozen=True)
class Started:
    """A server that answers: its process, its port, its command and the seconds it took to start."""

    process: EngineProcess
    port: int
    argv: tuple[str, ...]
    start_s: float


def start_server(launch: Launch, log_path: Path, report: Callable[[str], None]) -> Started:
    """Start a server and wait until GET /health answers 200; the caller stops ``Started.process``.

    A port that somebody else takes in between is replaced by another one.
    Raises EngineError, with everything stopped, when the server dies or is not ready in time.
    """
    for attempt in range(1, START_ATTEMPTS + 1):
        port = free_port()
        argv = launch.argv(port)
        began_ns = time.perf_counter_ns()
        process = EngineProcess(argv, launch.env, log_path)
        try:
            port = wait_ready(process, launch, port, report)
        except EngineError:
            process.stop()
            if attempt == START_ATTEMPTS or not is_port_taken(process.log()):
                raise
        except BaseException:
            process.stop()
            raise
        else:
            return Started(process, port, tuple(argv), (time.perf_counter_ns() - began_ns) / 1e9)
    raise AssertionError("the last attempt returns or raises")


def wait_ready(process: EngineProcess, launch: Launch, port: int, report: Callable[[str], None]) -> int:
    """Port of the server once it is healthy; reports a timed line about every second until then."""
    began_ns = time.perf_counter_ns()
    reported_s = 0.0
    while True:
        if process.exit_code() is not None:
            raise process.failure(f"{launch.name} ended while starting (exit {process.exit_code()})")
        actual = announced_port(process.log()) if launch.announces_port else port
        if actual is not None and is_healthy(actual) and process.listens_on(actual):
            return actual
        waited_s = (time.perf_counter_ns() - began_ns) / 1e9
        if waited_s > launch.timeout_s:
            what = f"{launch.name} was not ready after {launch.timeout_s:g} s (engine.start_timeout_s)"
            raise process.failure(what)
        if waited_s - reported_s >= 1.0:
            reported_s = waited_s
            _check_takes_a_log(process.log_path, launch.name)
            report(f"{launch.name}: {current_phase(process.tail(40), launch.phase)} · {waited_s:.0f} s")
        time.sleep(0.03 if waited_s < 2.0 else 0.2)


def _check_takes_a_log(path: Path, name: str) -> None:
    """A server that cannot write down what it does, the port it has found among it, is waited for in vain.
    Raises EngineError where nothing can be written beside its log."""
    probe = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            probe.write_bytes(b"\0")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise EngineError(
            f"{name} cannot write its log {path}: {why}; make room there or use --out"
        ) from None


def current_phase(lines: Sequence[str], phase: Callable[[str], str | None]) -> str:
    """What the last telling line says the engine is doing."""
    known = (words for line in reversed(lines) if (words := phase(line)))
    return next(known, "starting")


def announced_port(log: str) -> int | None:
    """The port a server has printed as ``listening PORT``."""
    match = re.search(r"^listening (\d+)\s*$", log, re.MULTILINE)
    return int(match[1]) if match else None


def is_healthy(port: int, timeout_s: float = 2.0) -> bool:
    """Whether GET /health on this loopback port answers 200."""
    return get(port, "/health", timeout_s)[0] == http.HTTPStatus.OK


def get(port: int, path: str, timeout_s: float = 10.0, key: str | None = None) -> tuple[int | None, bytes]:
    """Status and body of a GET on a loopback port, past any proxy; status None when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None, b""
    finally:
        connection.close()


def free_port() -> int:
    """A loopback TCP port that nobody listens on at this moment."""
    with socket.socket() as listener:
        try:
            listener.bind(("127.0.0.1", 0))
        except OSError as error:
            what = errno.errorcode.get(error.errno or 0, str(error))
            raise EngineError(f"no free loopback port for the engine ({what})") from error
        return int(listener.getsockname()[1])
