"""Requests built ahead of their time, so that sending one is a single write."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from time import perf_counter_ns

from msgspec import Struct

from profiler.workload import PlannedRequest, Talk

MOST_BYTES = 32 << 20
URGENT_FRAC = 0.25
SLICE_NS = 50_000


class Prepared(Struct, frozen=True, gc=False):
    """A request ready to be written.  ``talk`` is the conversation it opens or goes on with, ``due_ns`` when
    the schedule wants it, counted from the load's start; 0 where no schedule does."""

    planned: PlannedRequest
    payload: bytes
    talk: Talk | None = None
    due_ns: int = 0


class Stock:
    """The next ``depth`` requests of ``source`` (fewer where they are large), in order.

    It is filled up between the turns of the event loop, a request or ``SLICE_NS`` at a time, so that no stamp
    waits for long.  ``quiet_until_ns`` is when the next send is due: unless the stock runs low,
    nothing is built so shortly before it that it would be late.
    """

    def __init__(self, source: Iterator[Prepared], depth: int) -> None:
        self._source = source
        self._depth = depth
        self._ready: deque[Prepared] = deque()
        self._bytes = 0
        self._dry = False
        self._building = False
        self._build_ns = 0
        self.quiet_until_ns: int | None = None

    def fill(self) -> None:
        """Build all of it now."""
        while self._wants():
            self._build()

    def first(self) -> Prepared | None:
        """The next request, still kept; None when there are no more."""
        if not self._ready and not self._dry:
            self._build()
        return self._ready[0] if self._ready else None

    def take(self) -> Prepared | None:
        """The next request; None when there are no more.  To be followed by :meth:`refill`, once what was
        taken is sent."""
        first = self.first()
        if first is not None:
            self._ready.popleft()
            self._bytes -= len(first.payload)
        return first

    def refill(self) -> None:
        """Go on building, a little between two turns of the event loop."""
        if not self._building and self._wants():
            self._building = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._building = False
        if not self._wants():
            return
        low = len(self._ready) < self._depth * URGENT_FRAC
        soon_ns = perf_counter_ns() + 2 * self._build_ns
        if not low and self.quiet_until_ns is not None and soon_ns > self.quiet_until_ns:
            return  # whoever sends next calls refill
        self._build()
        self.refill()

    def _wants(self) -> bool:
        return not self._dry and len(self._ready) < self._depth and (self._bytes < MOST_BYTES)

    def _build(self) -> None:
        began_ns = perf_counter_ns()
        made = next(self._source, None)
        if made is None:
            self._dry = True
            return
        self._build_ns = perf_counter_ns() - began_ns
        self._ready.append(made)
        self._bytes += len(made.payload)
