"""Holds one load point once and notes the bounds of its steady window.

Closed loop.  The first slot starts alone; once the length of its request can be told (its 17th piece,
or its end) the others follow, evenly spread over that length or ``warmup_s``, whichever is shorter.  The
first answer of slot i of c is cut to i/c of its length, so that from then on the slots are evenly spread
over all phases of a request, however fast the engine turns out to be under the full load: without that, a
workload of equal lengths runs in waves that never dissolve, and a window sees a wave or misses it.

The window opens when every slot has had a first token and ``warmup_s`` have passed since the first
request.  It ends at the first whole multiple of ``window_s`` after its start by which ``min_requests``, and
one request a slot on average, were completed in it (or at ``max_window_s``): an instant set beforehand,
since a window that ends with a completion holds one more than its length is worth.  The slots then go on
until every request sent inside it is done: no measured request sees an emptying server.  What then still
runs is cancelled.

Batch.  A few short requests warm the engine (not recorded), then all prompts are due at one instant.
The window is from the first sent to the last arrival.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable
from time import perf_counter_ns

from msgspec import Struct

from profiler.loadgen.client import Connection
from profiler.loadgen.exchange import Exchange
from profiler.loadgen.job import LoadJob, Progress
from profiler.loadgen.pulse import Pulse
from profiler.loadgen.session import BACKOFF_S, Prepared, Session, Stopped, Unreachable

SCOUT_PIECES = 16
BATCH_WARMUP_REQUESTS = 4
BATCH_WARMUP_TOKENS = 16


class Held(Struct, frozen=True, kw_only=True):
    """What came of a window: its exchanges, and its bounds where it became steady.

    ``steady_end_ns`` is None for a batch: the last arrival is known only once decoded.  ``unreachable``:
    the last error, where the window was given up because no connection could be had or kept any more.
    """

    opened_ns: int
    steady_start_ns: int | None
    steady_end_ns: int | None
    closed_ns: int
    exchanges: list[Exchange]
    pulse: Pulse
    trouble: str | None
    unreachable: str | None


class Driver:
    """One window of load.  Use once: ``held = await Driver(job, report).hold()``."""

    def __init__(self, job: LoadJob, report: Callable[[Progress], None]) -> None:
        self._job = job
        self._session = Session(job, report)
        self._indices = itertools.count()
        self._start_ns: int | None = None
        self._end_ns: int | None = None

    async def hold(self) -> Held:
        """Run the window to its end or until :meth:`cancel`; whatever the server does is data."""
        session = self._session
        trouble = unreachable = None
        session.pulse.start()
        try:
            await session.open_all()
            await (self._closed() if self._job.point.mode == "closed" else self._batch())
        except Stopped as stopped:
            trouble = str(stopped)
            unreachable = session.last_error if isinstance(stopped, Unreachable) else None
        finally:
            await session.let_go()
        return Held(
            opened_ns=session.opened_ns,
            steady_start_ns=self._start_ns,
            steady_end_ns=self._end_ns,
            closed_ns=perf_counter_ns(),
            exchanges=session.exchanges,
            pulse=session.pulse,
            trouble=trouble,
            unreachable=unreachable if self._end_ns is None else None,
        )

    def cancel(self) -> None:
        """End the window as soon as possible; what was recorded is kept."""
        self._session.cancelled = True

    # ------------------------------------------------------------------------------ closed loop

    async def _closed(self) -> None:
        session, measure = self._session, self._job.measure
        began_ns = perf_counter_ns()
        ramp_s = await self._start_slots()
        warm_ns = began_ns + round(measure.warmup_s * 1e9)
        give_up_ns = perf_counter_ns() + round((ramp_s + measure.warmup_s + measure.max_window_s) * 1e9)
        await session.until(lambda: self._warm(warm_ns, give_up_ns))
        self._start_ns = session.open_window()
        self._end_ns = await self._window_end(self._start_ns)
        session.phase = "finishing"
        await session.until(lambda: not self._measured_in_flight())

    async def _start_slots(self) -> float:
        """Start all slots, the first alone, the others spread over a ramp; the ramp's length in s."""
        first, *others = self._session.connections
        began_ns = perf_counter_ns()
        self._session.spawn(self._slot(first, 1.0))
        if not others:
            return 0.0
        await self._session.until(lambda: self._length_known(first))
        ramp_s = min(self._first_length_s(began_ns), self._job.measure.warmup_s)
        ramp_ns = perf_counter_ns()
        self._session.warm_s = max(self._session.warm_s, (ramp_ns - began_ns) / 1e9 + ramp_s)
        for place, connection in enumerate(others, start=1):
            await self._session.until_ns(ramp_ns + round(place / len(others) * ramp_s * 1e9))
            self._session.spawn(self._slot(connection, place / (len(others) + 1)))
        return ramp_s

    async def _slot(self, connection: Connection, first_part: float) -> None:
        """One user: sends the next request, already built, the moment the last has ended.

        Its first answer is cut to ``first_part`` of the planned length.
        """
        index = next(self._indices)
        planned = self._session.planned(index)
        prepared = self._session.prepare(index, math.ceil(planned.output_tokens * first_part))
        due_ns = perf_counter_ns()
        while True:
            exchange, prepared = await self._session.issue(connection, prepared, due_ns, self._next)
            due_ns = exchange.end_ns or perf_counter_ns()
            if not exchange.answered:
                await asyncio.sleep(BACKOFF_S)
                due_ns = perf_counter_ns()

    def _next(self, at_most: int | None = None) -> Prepared:
        return self._session.prepare(next(self._indices), at_most)

    def _length_known(self, scout: Connection) -> bool:
        return scout.pieces > SCOUT_PIECES or bool(self._session.done + self._session.failed)

    def _first_length_s(self, began_ns: int) -> float:
        """Length of the first request: measured, or told from its first pieces (a piece a token)."""
        exchange = self._session.exchanges[0]
        if exchange.end_ns is not None:
            return (exchange.end_ns - began_ns) / 1e9
        gap_ns = (exchange.stamps[-1] - exchange.stamps[0]) / (len(exchange.stamps) - 1)
        return (exchange.stamps[0] - began_ns + gap_ns * exchange.planned.output_tokens) / 1e9

    def _warm(self, warm_ns: int, give_up_ns: int) -> bool:
        now_ns = perf_counter_ns()
        cold = sum(not connection.had_token for connection in self._session.connections)
        if cold and now_ns > give_up_ns:
            raise Stopped(f"never steady: {cold} of {self._job.point.concurrency} slots had no first token")
        return not cold and now_ns >= warm_ns

    async def _window_end(self, start_ns: int) -> int:
        """Wait for the window's end; the instant that was set for it, not that at which we woke up."""
        measure = self._job.measure
        needed = max(measure.min_requests, self._job.point.concurrency)
        for number in itertools.count(1):
            lasted_s = min(number * measure.window_s, measure.max_window_s)
            end_ns = start_ns + round(lasted_s * 1e9)
            await self._session.until_ns(end_ns)
            if lasted_s >= measure.max_window_s or self._session.done_by(end_ns) >= needed:
                break
        return end_ns

    def _measured_in_flight(self) -> bool:
        assert self._start_ns is not None
        assert self._end_ns is not None
        start_ns, end_ns = self._start_ns, self._end_ns
        return any(start_ns <= exchange.due_ns < end_ns for exchange in self._session.in_flight)

    # ------------------------------------------------------------------------------ batch

    async def _batch(self) -> None:
        session = self._session
        prompts = [self._next() for _ in session.connections]
        await self._warm_batch()
        self._start_ns = session.open_window()
        due_ns = perf_counter_ns()
        pairs = zip(session.connections, prompts, strict=True)
        await session.wait_for([session.spawn(self._once(c, prepared, due_ns)) for c, prepared in pairs])
        if not session.done_in_window:
            raise session.stopped(f"no request of the batch was answered; last: {session.last_error}")

    async def _warm_batch(self) -> None:
        """Run a few short requests to their end; they leave no record."""
        session = self._session
        now_ns = perf_counter_ns()
        burst = [
            session.spawn(self._once(connection, self._next(BATCH_WARMUP_TOKENS), now_ns))
            for connection in session.connections[:BATCH_WARMUP_REQUESTS]
        ]
        await session.wait_for(burst)
        if not session.done:
            raise session.stopped(f"no warm-up request was answered; last: {session.last_error}")
        session.forget()
        await session.open_all()  # a server may have closed connections that were idle during the burst

    async def _once(self, connection: Connection, prepared: Prepared, due_ns: int) -> None:
        await self._session.issue(connection, prepared, due_ns, lambda: None)
