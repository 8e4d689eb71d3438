"""What a command hangs on: the streams it prints to, and the signals that ask it to end.

The first Ctrl-C, SIGTERM or SIGHUP (which ``nohup`` ignores) is a KeyboardInterrupt: what was measured is
written down and every process ended.  That is bounded, but takes a while, and who asks again must not break
it off half-way: a second one is answered in words, a third kills what is being waited for.
"""

from __future__ import annotations

import io
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from profiler.errors import StoreError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AT_ONCE = 3  # how often it has to be asked
PATIENCE_S = 10.0
AGAIN = b"\nstopping: requests are being written and processes ended; once more kills them\n"
KILLED = b"\nprocesses are killed; finished windows are kept, requests under way are lost\n"


def catch_signals() -> None:
    """From now on; signals that are ignored stay so."""
    asked = _Asked()
    for each in SIGNALS:
        if signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, asked)


class _Asked:
    """How often the command was asked to end."""

    def __init__(self) -> None:
        self.times = 0
        self._killed_s = math.inf

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        self.times += 1
        if self.times == 1:
            raise KeyboardInterrupt
        if self.times < AT_ONCE:
            _tell(AGAIN)
        elif self.times == AT_ONCE:
            self._killed_s = time.monotonic()
            _tell(KILLED)
            _kill_children()
        elif time.monotonic() - self._killed_s > PATIENCE_S:
            os._exit(128 + signal.SIGINT)


def be_deaf() -> None:
    """A command that was asked to end, and has, is asked no more: the interpreter, which is about to end,
    would let the next signal kill it and its exit code be lost."""
    for each in SIGNALS:
        if isinstance(handler := signal.getsignal(each), _Asked) and handler.times:
            signal.signal(each, signal.SIG_IGN)


def _tell(text: bytes) -> None:
    """Past Python's buffers, which the signal may have come in the middle of."""
    with suppress(OSError):
        os.write(2, text)


def _kill_children() -> None:
    """All that was started, and what that has started: whoever waits for them goes on at once."""
    import psutil

    for each in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            each.kill()


def settle_streams() -> None:
    """Print to streams that can lose their reader without ending the command or changing its exit code.

    A descriptor 0, 1 or 2 that is closed would be given to the next file that is opened, and what is printed
    land in it.
    """
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(null, True)
    os.close(null)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _stream(1, sys.stdout, lambda error: isinstance(error, BrokenPipeError))
    if sys.stderr is sys.__stderr__:
        sys.stderr = _stream(2, sys.stderr, lambda _: True)


class _Forgiving(io.FileIO):
    """What cannot be written for a reason that is ``forgiven`` is gone; any other is a StoreError, once."""

    def __init__(self, descriptor: int, forgiven: Callable[[OSError], bool]) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._forgiven = forgiven

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if not self._forgiven(error):
                self._forgiven = lambda _: True  # it is tried again at the very end
                raise StoreError(f"the result cannot be printed: {error.strerror}") from None
            return len(data)


def _stream(descriptor: int, before: Any, forgiven: Callable[[OSError], bool]) -> io.TextIOWrapper:
    raw = _Forgiving(descriptor, forgiven)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", "utf-8"),
        errors=getattr(before, "errors", "backslashreplace"),
        line_buffering=descriptor == 2 or raw.isatty(),
    )
