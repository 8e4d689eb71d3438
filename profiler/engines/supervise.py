"""The supervisor: runs one engine command and outlives neither it nor the profiler.

Started by path, not as a module, so that it imports nothing of the package:
``python -P supervise.py -- CMD…``.  Standard input is a pipe that the profiler holds; its end of file
means that the profiler is gone, however it died, and everything below is terminated.  Standard output
tells the profiler ``pid N`` and, if the command ends by itself, ``exit N`` (negative: killed by that
signal).  Standard error is the engine's log; the command writes its output and errors there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import psutil

TERM_GRACE_S = 5.0
KILL_GRACE_S = 5.0
COMMAND_NOT_FOUND = 127

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(argv: list[str]) -> int:
    """Run ``-- CMD…`` until it ends, standard input ends or SIGTERM comes; leave no descendant."""
    prctl = _prctl()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # who blocks a signal hands that down
    wake_fd = _wake_on_signals()
    try:
        child = subprocess.Popen(
            argv[1:],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            stderr=sys.stderr,
            start_new_session=True,
            preexec_fn=partial(_end_with, os.getpid(), prctl),  # noqa: PLW1509 (one thread only)
        )
    except OSError as error:
        os.write(sys.stderr.fileno(), f"cannot run {argv[1]}: {error}\n".encode())
        _say(f"exit {COMMAND_NOT_FOUND}")
        return COMMAND_NOT_FOUND
    _say(f"pid {child.pid}")
    code = _watch(child.pid, wake_fd)
    if code is not None:
        _say(f"exit {code}")
    sweep()
    return 0


def _end_with(supervisor: int, prctl: Callable[[int, int], int]) -> None:
    """In the engine to be: should the supervisor itself be killed, it is asked to end.  One that was killed
    before this could be arranged is no longer its parent."""
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:
        os._exit(1)


def sweep() -> None:
    """End every descendant, also those that left the session: SIGTERM, a grace, SIGKILL.

    Orphans stay below this process because it is their subreaper.  Takes at most the two graces.
    """
    asked: set[psutil.Process] = set()
    for signum, grace_s in ((signal.SIGTERM, TERM_GRACE_S), (signal.SIGKILL, KILL_GRACE_S)):
        end = time.monotonic() + grace_s
        while (left := _descendants()) and time.monotonic() < end:
            for process in left:
                if signum == signal.SIGKILL or process not in asked:
                    asked.add(process)
                    with contextlib.suppress(psutil.Error):
                        process.send_signal(signum)
            time.sleep(0.02)
            _reap()


def _watch(pid: int, wake_fd: int) -> int | None:
    """Exit code of ``pid`` once it has ended, or None when asked to stop before."""
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        selector.register(wake_fd, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
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
