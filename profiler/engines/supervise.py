"""The supervisor: runs one engine command and outlives neither it nor the profiler.

Started by path, not as a module, so that it imports nothing of the package:
``python -P supervise.py -- CMD…``.  Standard input is a pipe that the profiler holds; its end of file
means that the profiler is gone, however it died, and everything below is terminated.  Standard output
tells the profiler ``pid N`` and, if the command ends by itself, ``exit N`` (negative: killed by that
signal).  Standard error is the engine's log.  What the command says comes through a pipe, and no secret of
its environment gets from there into the log (:mod:`profiler.secret`).

The command has a folder of its own for temporary files, which goes with it: vLLM leaves files there even
where it ends in good order, and any engine that is killed leaves its sockets.
"""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import importlib.util
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

import psutil

TERM_GRACE_S = 5.0
KILL_GRACE_S = 5.0
COMMAND_NOT_FOUND = 127
UNENDED_S = 1.0  # a line that has no end by then is written as it is
LONGEST_LINE_BYTES = 1 << 16
LONGEST_SECRET_BYTES = 1 << 12
READS_AT_ONCE = 16  # then signals and our own end are looked for: an engine may say more than can be cleaned
LONGEST_FOLDER = 64  # with the names that engines give their sockets, 107 bytes at most

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(argv: list[str]) -> int:
    """Run ``-- CMD…`` until it ends, standard input ends or SIGTERM comes; leave no descendant."""
    prctl = _prctl()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # who blocks a signal hands that down
    wake_fd = _wake_on_signals()
    says_fd, said_fd = os.pipe()
    log = Log(says_fd, sys.stderr.fileno())
    with _temporary_files() as env:
        return _run(argv[1:], env, prctl, wake_fd, said_fd, log)


def _run(
    argv: list[str],
    env: dict[str, str],
    prctl: Callable[[int, int], int],
    wake_fd: int,
    said_fd: int,
    log: Log,
) -> int:
    try:
        child = subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=said_fd,
            stderr=said_fd,
            start_new_session=True,
            preexec_fn=partial(_end_with, os.getpid(), prctl),  # noqa: PLW1509 (one thread only)
        )
    except OSError as error:
        os.write(sys.stderr.fileno(), f"cannot run {argv[0]}: {error}\n".encode())
        _say(f"exit {COMMAND_NOT_FOUND}")
        return COMMAND_NOT_FOUND
    os.close(said_fd)
    _say(f"pid {child.pid}")
    code = _watch(child.pid, wake_fd, log)
    log.take(is_all=True)
    if code is not None:
        _say(f"exit {code}")
    sweep(log)
    log.take(is_all=True)
    return 0


@contextlib.contextmanager
def _temporary_files() -> Iterator[dict[str, str]]:
    """The command's environment, with a folder for its temporary files, which is removed at the end; ours
    where none can be made or its name would be too long.  What torch has compiled stays where it was."""
    env, folder = dict(os.environ), None
    with contextlib.suppress(OSError, KeyError):  # a disk that is full, a user without a name
        shared = tempfile.gettempdir()
        if len(shared) + len("/engine-1234567-12345678") <= LONGEST_FOLDER:
            env.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{shared}/torchinductor_{getpass.getuser()}")
            env["TMPDIR"] = folder = tempfile.mkdtemp(prefix=f"engine-{os.getpid()}-")
    try:
        yield env
    finally:
        if folder is not None:
            with contextlib.suppress(OSError):
                os.rmdir(folder)  # an empty one needs no descriptor, of which there may be none left
            shutil.rmtree(folder, ignore_errors=True)


class Log:
    """What the command says, on its way from ``says_fd`` to ``log_fd``: whole lines, without secrets."""

    def __init__(self, says_fd: int, log_fd: int) -> None:
        os.set_blocking(says_fd, False)
        self.says_fd, self._log_fd = says_fd, log_fd
        self._secret = _module_of_secrets()
        self._known = self._secret.values(os.environ)
        self._rest = b""

    @property
    def is_in_a_line(self) -> bool:
        return bool(self._rest)

    def take(self, is_all: bool = False) -> bool:
        """Write what was said by now, as far as ``READS_AT_ONCE`` take it; of a line that has not ended only
        with ``is_all``, once nothing else is to be read.  False once nobody is left who could say more."""
        try:
            for _ in range(READS_AT_ONCE):
                piece = os.read(self.says_fd, LONGEST_LINE_BYTES)
                if not piece:
                    break
                self._rest += piece
                self._write_lines()
            else:
                return True
            goes_on = False
        except BlockingIOError:
            goes_on = True
        if is_all or not goes_on:
            self._write(len(self._rest))
        return goes_on

    def _write_lines(self) -> None:
        end = max(self._rest.rfind(b"\n"), self._rest.rfind(b"\r")) + 1
        self._write(end)
        if len(self._rest) > LONGEST_LINE_BYTES:  # a secret may begin where it is cut
            self._rest = self._clean(self._rest)
            self._write(len(self._rest) - LONGEST_SECRET_BYTES)

    def _write(self, end: int) -> None:
        clean, self._rest = self._clean(self._rest[:end]), self._rest[end:]
        with contextlib.suppress(OSError):  # a full disk stops no engine
            while clean:
                clean = clean[os.write(self._log_fd, clean) :]

    def _clean(self, said: bytes) -> bytes:
        text = said.decode(errors="surrogateescape")
        return str(self._secret.without(text, self._known)).encode(errors="surrogateescape")


def _module_of_secrets() -> ModuleType:
    """``profiler.secret``, by its path as this file was found."""
    path = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "secret.py")
    spec = importlib.util.spec_from_file_location("secret_of_engines", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _end_with(supervisor: int, prctl: Callable[[int, int], int]) -> None:
    """In the engine to be: should the supervisor itself be killed, it is asked to end.  One that was killed
    before this could be arranged is no longer its parent."""
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:
        os._exit(1)


def sweep(log: Log) -> None:
    """End every descendant, also those that left the session: SIGTERM, a grace, SIGKILL.

    Orphans stay below this process because it is their subreaper.  Takes at most the two graces; what they
    say meanwhile is taken, for who waits to be heard does not end.  Python's resource trackers are the last
    to be killed: they end by themselves once nobody is left, and remove what these had in shared memory.
    """
    asked: set[psutil.Process] = set()
    for signum, grace_s in ((signal.SIGTERM, TERM_GRACE_S), (signal.SIGKILL, KILL_GRACE_S)):
        end = time.monotonic() + grace_s
        while (left := _descendants()) and time.monotonic() < end:
            others = [process for process in left if not _tracks_resources(process)]
            is_late = time.monotonic() > end - grace_s / 2
            for process in others or (left if is_late else ()):
                if signum == signal.SIGKILL or process not in asked:
                    asked.add(process)
                    with contextlib.suppress(psutil.Error):
                        process.send_signal(signum)
            time.sleep(0.02)
            log.take()
            _reap()


def _tracks_resources(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "multiprocessing.resource_tracker" in " ".join(process.cmdline())
    return False


def _watch(pid: int, wake_fd: int, log: Log) -> int | None:
    """Exit code of ``pid`` once it has ended, or None when asked to stop before."""
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        selector.register(wake_fd, selectors.EVENT_READ)
        selector.register(log.says_fd, selectors.EVENT_READ)
        while True:
            ready = selector.select(UNENDED_S if log.is_in_a_line else None)
            if not ready:
                log.take(is_all=True)
            for key, _ in ready:
                if key.fd == log.says_fd:
                    if not log.take():  # closed, though the command may go on
                        selector.unregister(key.fd)
                    continue
                data = os.read(key.fd, 4096)
                if key.fd != wake_fd and not data:
                    return None
                if key.fd == wake_fd and {signal.SIGTERM, signal.SIGHUP} & set(data):
                    return None
            ended = _reap()
            if pid in ended:
                return ended[pid]


def _reap() -> dict[int, int]:
    """Exit codes of the children that have ended since, adopted ones included."""
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended[pid] = os.waitstatus_to_exitcode(status)
    return ended


def _descendants() -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        return psutil.Process().children(recursive=True)
    return []


def _wake_on_signals() -> int:
    """A descriptor that receives the number of each signal.

    Handlers, unlike SIG_IGN, are not inherited by the engine across exec.
    """
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    signal.set_wakeup_fd(write_fd, warn_on_full_buffer=False)
    for signum in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(signum, lambda _signum, _frame: None)
    return read_fd


def _prctl() -> Callable[[int, int], int]:
    """Linux ``prctl``; elsewhere a no-op, where an engine's orphans can escape."""
    if not sys.platform.startswith("linux"):
        return lambda _option, _value: 0
    libc = ctypes.CDLL(None)
    return lambda option, value: int(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0))


def _say(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
