"""Load processes as the profiler holds them, whichever machine they run on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from typing import IO

import msgspec

from profiler.client import Clock
from profiler.errors import InputError, LoadError
from profiler.loadgen.job import Ask, Asked, Order, Reply
from profiler.schema import Endpoint

EXIT_PATIENCE_S = 5.0
STDERR_LINES = 15


class Member(ABC):
    """One of the load processes that hold a load together: is told orders, and replies.

    ``ahead_ns``: its clock less ours; what it is told and what it replies is in our time, the records it
    writes are in its own.  ``notice_ns``: how far ahead it has to be told of an instant.
    """

    machine: str | None = None  # this one
    ahead_ns: int = 0
    notice_ns: int = 5_000_000
    _pending = b""

    @abstractmethod
    def fileno(self) -> int:
        """The pipe it replies through, for select."""

    @abstractmethod
    def tell(self, order: Order) -> None:
        """LoadError when it is no more."""

    @abstractmethod
    def kill(self) -> None:
        """End it now, whatever it does."""

    @abstractmethod
    def dismiss(self) -> None:
        """Tell it to end; :meth:`close` waits for it."""

    @abstractmethod
    def close(self) -> None:
        """End it; safe to repeat."""

    @abstractmethod
    def _died(self) -> LoadError:
        """What is to be said of one that is no more."""

    def synchronise(self) -> None:  # noqa: B027 (our own clock is known)
        """Before a window: find out ``ahead_ns``.  LoadError when it is no more."""

    def clock(self) -> Clock | None:
        """After a window: how well its clock was known in it; None for our own.  LoadError as above."""
        return None

    def replies(self) -> list[Reply]:
        """What it has said, waiting until it says something; LoadError when it is no more."""
        data = os.read(self.fileno(), 1 << 16)
        if not data:
            raise self._died()
        *lines, self._pending = (self._pending + data).split(b"\n")
        return [msgspec.json.decode(line, type=Reply) for line in lines]

    def ask(self, endpoint: Endpoint, timeout_s: float) -> Endpoint:
        """The endpoint as it turns out to be; raises as :func:`profiler.loadgen.probe.probe`."""
        self.tell(Ask(endpoint, timeout_s))
        reply = next(iter(self.replies()))
        if isinstance(reply, Asked) and reply.endpoint is not None:
            return reply.endpoint
        if isinstance(reply, Asked):
            raise InputError(reply.why_not)
        raise LoadError(f"the load generator failed: {reply}")


class LoadProcess(Member):
    """One of this machine.  It lives in a session of its own, so that Ctrl-C does not reach it, and ends when
    its stdin closes, so that it cannot outlive the profiler."""

    def __init__(self) -> None:
        self._stderr: IO[bytes] = _nameless_file()  # lives as long as the child
        self._is_told = False
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "profiler.loadgen.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
            env=os.environ | {"MALLOC_ARENA_MAX": "1"},  # the thread that writes needs no heap of its own
        )

    def fileno(self) -> int:
        assert self.popen.stdout is not None
        return self.popen.stdout.fileno()

    def tell(self, order: Order) -> None:
        self.write(msgspec.json.encode(order) + b"\n")

    def write(self, line: bytes) -> None:
        """An order as it travels."""
        assert self.popen.stdin is not None
        self._is_told = True
        try:
            self.popen.stdin.write(line)
            self.popen.stdin.flush()
        except OSError:
            raise self._died() from None

    def kill(self) -> None:
        self.popen.kill()

    def dismiss(self) -> None:
        """One that was told nothing has nothing to finish."""
        assert self.popen.stdin is not None
        if not self._is_told:
            self.popen.kill()
        with contextlib.suppress(OSError):
            self.popen.stdin.close()

    def close(self) -> None:
        self.dismiss()
        try:
            self.popen.wait(EXIT_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        assert self.popen.stdout is not None
        self.popen.stdout.close()
        self._stderr.close()

    def last_words(self) -> str:
        """How it ended, and the end of what it said on stderr."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(EXIT_PATIENCE_S)
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").splitlines()[-STDERR_LINES:]
        return "\n".join([f"the load process died ({_ended_by(self.popen.poll())})", *lines])

    def _died(self) -> LoadError:
        return LoadError(self.last_words())


def _ended_by(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    likely = ", most likely for memory" if -code == signal.SIGKILL else ""
    return f"killed by {signal.Signals(-code).name}{likely}"


def _nameless_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("stderr"), "w+b")
    import tempfile  # 5 ms of imports

    return tempfile.TemporaryFile()
