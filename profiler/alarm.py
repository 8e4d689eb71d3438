"""Waking at an exact instant.  Event loops round their timers to a millisecond; timerfd (Linux) does not."""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import itertools
import os
import sys
from collections.abc import Callable
from time import perf_counter_ns

CLOCK_MONOTONIC = 1
TFD_TIMER_ABSTIME = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class Alarm:
    """Any number of calls and sleepers on one timer.  Belongs to the event loop it is first used in."""

    def __init__(self) -> None:
        self._calls: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._set_ns: int | None = None
        self._ringing = False
        self._descriptor: int | None = None
        self._libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        self._spec = _Itimerspec(_Timespec(0, 0), _Timespec(0, 0))
        self._spec_at = ctypes.byref(self._spec)

    def at(self, at_ns: int, call: Callable[[], None]) -> None:
        """Call at this time of ``perf_counter_ns``, from the event loop; at once, but not from here, when it
        has passed.  Calls are made in the order of their times and, at one time, in that of asking."""
        heapq.heappush(self._calls, (at_ns, next(self._order), call))
        if not self._ringing and (self._set_ns is None or at_ns < self._set_ns):
            self._set(at_ns)

    async def until(self, at_ns: int) -> None:
        """Sleep until this time of ``perf_counter_ns``; times past return at once."""
        if at_ns <= perf_counter_ns():
            return
        sleeper = asyncio.get_running_loop().create_future()
        self.at(at_ns, lambda: None if sleeper.done() else sleeper.set_result(None))
        await sleeper

    def close(self) -> None:
        """Forget all calls and let go of the timer."""
        self._calls.clear()
        self._set_ns = None
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _set(self, at_ns: int) -> None:
        self._set_ns = at_ns
        if self._libc is None:
            asyncio.get_running_loop().call_later((at_ns - perf_counter_ns()) / 1e9, self._ring)
            return
        if self._descriptor is None:
            self._descriptor = self._libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
            asyncio.get_running_loop().add_reader(self._descriptor, self._expired)
        value = self._spec.it_value
        value.tv_sec, value.tv_nsec = divmod(max(1, at_ns), 10**9)
        self._libc.timerfd_settime(self._descriptor, TFD_TIMER_ABSTIME, self._spec_at, None)

    def _expired(self) -> None:
        assert self._descriptor is not None
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return  # set anew between expiry and this call
        self._ring()

    def _ring(self) -> None:
        """Make the calls due by now; what they ask for comes later, even if due at once."""
        self._set_ns, self._ringing = None, True
        now_ns = perf_counter_ns()
        due = []
        while self._calls and self._calls[0][0] <= now_ns:
            due.append(heapq.heappop(self._calls))
        due.reverse()
        try:
            while due:
                due.pop()[2]()
        finally:
            for left in due:  # one failed
                heapq.heappush(self._calls, left)
            self._ringing = False
            if self._calls:
                self._set(self._calls[0][0])
