"""Waking at an exact instant.  Event loops round their timers to a millisecond; timerfd (Linux) does not."""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import itertools
import os
import sys
from time import perf_counter_ns

CLOCK_MONOTONIC = 1
TFD_TIMER_ABSTIME = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class Alarm:
    """Any number of sleepers on one timer.  Belongs to the event loop it is first used in."""

    def __init__(self) -> None:
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._set_ns: int | None = None
        self._descriptor: int | None = None
        self._libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    async def until(self, at_ns: int) -> None:
        """Sleep until this time of ``perf_counter_ns``; times past return at once."""
        if at_ns <= perf_counter_ns():
            return
        sleeper = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (at_ns, next(self._order), sleeper))
        if self._set_ns is None or at_ns < self._set_ns:
            self._set(at_ns)
        await sleeper

    def close(self) -> None:
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
        spec = _Itimerspec(_Timespec(0, 0), _Timespec(at_ns // 10**9, at_ns % 10**9))
        self._libc.timerfd_settime(self._descriptor, TFD_TIMER_ABSTIME, ctypes.byref(spec), None)

    def _expired(self) -> None:
        assert self._descriptor is not None
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return  # set anew between expiry and this call
        self._ring()

    def _ring(self) -> None:
        self._set_ns = None
        now_ns = perf_counter_ns()
        while self._sleepers and self._sleepers[0][0] <= now_ns:
            sleeper = heapq.heappop(self._sleepers)[2]
            if not sleeper.done():
                sleeper.set_result(None)
        if self._sleepers:
            self._set(self._sleepers[0][0])
