"""The closed loop: a fixed number of slots, each with one request at a time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from functools import partial
from time import perf_counter_ns

from profiler.loadgen.client import Connection
from profiler.loadgen.exchange import Exchange
from profiler.loadgen.failing import LONGEST_BACKOFF_NS, backoff_ns
from profiler.loadgen.pool import IDLE_NS
from profiler.loadgen.session import Session, Stopped
from profiler.loadgen.stock import Prepared, Stock

SCOUT_PIECES = 16
PAUSES_OF_A_SLOT = 3  # of the longest: so many, and no good answer, are the end
DEEPEST_STOCK = 1024
OPEN_AHEAD_NS = 1_000_000_000


class Slot:
    """One user: sends the next request when the last has ended and its pause is over."""

    __slots__ = ("_loop", "_now", "connection")

    def __init__(self, loop: ClosedLoop, connection: Connection) -> None:
        self._loop = loop
        self._now: Prepared | None = None
        self.connection = connection

    def start(self, part: float) -> Exchange | None:
        """Send the first request, its answer cut to this part of its length."""
        prepared = self._loop.session.opening(part)
        return self._send(prepared, perf_counter_ns())

    def _send(self, prepared: Prepared, due_ns: int) -> Exchange | None:
        self._now = prepared
        return self._loop.session.issue(self.connection, prepared, due_ns, self._ended)

    def _ended(self, exchange: Exchange) -> None:
        assert self._now is not None
        end_ns = exchange.end_ns or perf_counter_ns()
        turn = self._loop.session.next_turn(self._now, exchange)
        if turn is not None:
            self._send_at(*turn)
        elif exchange.answered:
            self._go_on(end_ns + self._loop.pause_ns(exchange))
        else:
            self._go_on(end_ns + backoff_ns(exchange))

    def _go_on(self, due_ns: int) -> None:
        prepared = self._loop.stock.take()
        assert prepared is not None
        self._send_at(prepared, due_ns)
        self._loop.stock.refill()

    def _send_at(self, prepared: Prepared, due_ns: int) -> None:
        now_ns, session = perf_counter_ns(), self._loop.session
        if due_ns <= now_ns:
            self._send(prepared, due_ns)
            return
        if due_ns - now_ns > IDLE_NS:
            self.connection.close()
            session.at(due_ns - OPEN_AHEAD_NS, lambda: session.spawn(self._reopen()))
        session.send_at(due_ns, partial(self._send, prepared, due_ns))

    async def _reopen(self) -> None:
        """In time, or not at all: the next request opens what is still closed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.9 * OPEN_AHEAD_NS / 1e9):
                await self.connection.open()


class ClosedLoop:
    """See :mod:`profiler.loadgen.driver`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.start_ns: int | None = None
        self.end_ns: int | None = None
        self.total = session.job.point.concurrency or 1
        self.places = session.own(self.total)
        self.slots = [Slot(self, session.connect()) for _ in self.places]
        self.stock = Stock(
            (session.opening() for _ in itertools.count()), min(len(self.slots), DEEPEST_STOCK)
        )
        self._warm_s = session.job.measure.warmup_s
        self._think = session.job.load.think_s
        session.useless_after = max(8, 2 * len(self.slots))
        session.useless_after_pauses_ns = PAUSES_OF_A_SLOT * LONGEST_BACKOFF_NS * len(self.slots)

    async def run(self) -> None:
        session, measure = self.session, self.session.job.measure
        await session.open_all()
        began_ns, _ = await session.meet("open")
        ramp_s = await self._start_slots(began_ns)
        self.stock.refill()
        warm_ns = began_ns + round(measure.warmup_s * 1e9)
        give_up_ns = perf_counter_ns() + round((ramp_s + measure.warmup_s + measure.max_window_s) * 1e9)
        await session.until(lambda: self._is_warm(warm_ns, give_up_ns))
        self.start_ns = start_ns = await session.open_window(began_ns)
        self.end_ns = end_ns = await self._window_end(start_ns)
        session.phase = "finishing"
        await session.until(lambda: not session.is_measured_in_flight(start_ns, end_ns))
        await session.meet("drained")

    def expected_s(self, _now_ns: int) -> float:
        """Length of the whole, from opening on."""
        opened_ns = self.session.opened_ns
        before_s = self._warm_s if self.start_ns is None else (self.start_ns - opened_ns) / 1e9
        return before_s + self.session.job.measure.window_s

    def pause_ns(self, exchange: Exchange) -> int:
        """How long the slot pauses after this answer."""
        if not self._think:
            return 0
        return round(self.session.plan.think_s(self._think, exchange.planned.index) * 1e9)

    async def _start_slots(self, began_ns: int) -> float:
        """Start all slots, the first of all alone, the others spread over a ramp; the ramp's length in s."""
        if self.total == 1:
            self.slots[0].start(1.0)
            return 0.0
        length_s = 0.0
        if self.places[0] == 0:
            scout = self.slots[0]
            first = scout.start(1.0)
            await self.session.until(lambda: self._length_known(scout))
            length_s = self._first_length_s(first, began_ns)
        ramp_ns, lengths_s = await self.session.meet("ramp", length_s)
        ramp_s = min(max(lengths_s), self.session.job.measure.warmup_s)
        self._warm_s = max(self._warm_s, (ramp_ns - began_ns) / 1e9 + ramp_s)
        for place, slot in zip(self.places, self.slots, strict=True):
            if place:
                at_ns = ramp_ns + round(place / (self.total - 1) * ramp_s * 1e9)
                self.session.at(at_ns, partial(slot.start, place / self.total))
        await self.session.until_ns(ramp_ns + round(ramp_s * 1e9))
        return ramp_s

    def _length_known(self, scout: Slot) -> bool:
        return scout.connection.pieces > SCOUT_PIECES or bool(self.session.done + self.session.failed)

    def _first_length_s(self, exchange: Exchange | None, began_ns: int) -> float:
        """Length of the first request: measured, or told from its first pieces (a piece a token)."""
        assert exchange is not None
        if exchange.end_ns is not None:
            return (exchange.end_ns - began_ns) / 1e9
        gap_ns = (exchange.stamps[-1] - exchange.stamps[0]) / (len(exchange.stamps) - 1)
        return (exchange.stamps[0] - began_ns + gap_ns * exchange.planned.output_tokens) / 1e9

    def _is_warm(self, warm_ns: int, give_up_ns: int) -> bool:
        now_ns = perf_counter_ns()
        cold = sum(not slot.connection.had_token for slot in self.slots)
        if cold and now_ns > give_up_ns:
            raise Stopped(f"never steady: {cold} of {len(self.slots)} slots had no first token")
        return not cold and now_ns >= warm_ns

    async def _window_end(self, start_ns: int) -> int:
        """Wait for the window's end; the instant that was set for it, not that at which we woke up."""
        measure = self.session.job.measure
        needed = max(measure.min_requests, self.total)
        for number in itertools.count(1):
            lasted_s = min(number * measure.window_s, measure.max_window_s)
            end_ns = start_ns + round(lasted_s * 1e9)
            await self.session.until_ns(end_ns)
            if lasted_s >= measure.max_window_s:
                break
            _, done = await self.session.meet(f"end {number}", self.session.ends.by(end_ns))
            if sum(done) >= needed:
                break
        return end_ns
