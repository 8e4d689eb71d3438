"""The open loop: requests are due at instants fixed beforehand, whatever the server does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from time import perf_counter_ns
from typing import Any

from profiler import workload
from profiler.loadgen.client import Connection
from profiler.loadgen.exchange import Exchange
from profiler.loadgen.job import Part
from profiler.loadgen.pool import Pool
from profiler.loadgen.session import Session
from profiler.loadgen.stock import Prepared, Stock

BUILT_AHEAD = 256
SENT_AT_ONCE = 16
FEWEST_CONNECTIONS = 8
MOST_CONNECTIONS_AHEAD = 256
CONNECTIONS_FOR_S = 0.5
USELESS_FOR_S = 2.0
FRESHEN_EVERY_NS = 250_000_000
SPIN_NS, SPIN_FRAC = 100_000, 0.2


class OpenLoop:
    """See :mod:`profiler.loadgen.driver`.

    A sleeping process wakes some 50 µs late, now more, now less.  So it wakes ``SPIN_NS`` early (a fifth of
    the mean gap at most) and looks at the clock until the instant has come.
    """

    def __init__(self, session: Session) -> None:
        job, part = session.job, session.part
        self.session = session
        self.start_ns: int | None = None
        self.end_ns: int | None = None
        self._schedule = workload.schedule(job.load, job.point, job.measure, job.workload.seed, job.window)
        self._stock = Stock(self._requests(), BUILT_AHEAD)
        self._pool = Pool(session)
        self._began_ns = 0
        self._rate = (job.point.requests_per_s or 1.0) / part.shards
        self._spin_ns = min(SPIN_NS, round(SPIN_FRAC / self._rate * 1e9))
        session.useless_after = max(8, math.ceil(USELESS_FOR_S * self._rate))

    async def run(self) -> None:
        session, schedule = self.session, self._schedule
        ahead = math.ceil(self._rate * CONNECTIONS_FOR_S)
        await self._pool.open(min(MOST_CONNECTIONS_AHEAD, max(FEWEST_CONNECTIONS, ahead)))
        self._stock.fill()
        self._began_ns, _ = await session.meet("open")
        start_ns = self._began_ns + round(schedule.start_s * 1e9)
        end_ns = self._began_ns + round(schedule.end_s * 1e9)
        self._set_out()
        session.at(self._began_ns, self._freshen)
        await session.until_ns(start_ns)
        await session.open_window(self._began_ns)
        self.start_ns = start_ns
        await session.until_ns(end_ns)
        self.end_ns = end_ns
        session.phase = "finishing"
        await session.until(lambda: self._is_over(start_ns, end_ns))
        await session.meet("drained")

    def expected_s(self, _now_ns: int) -> float:
        """Length of the whole, from opening on."""
        began_ns = self._began_ns or perf_counter_ns()
        return (began_ns - self.session.opened_ns) / 1e9 + float(self._schedule.end_s)

    def _requests(self) -> Iterator[Prepared]:
        """This process's requests (openings of conversations) in order, each with its due offset in ns."""
        for due_ns in own_ns(self._schedule.blocks(), self.session.part):
            yield self.session.opening(1.0, due_ns)

    def _freshen(self) -> None:
        self._pool.freshen(FEWEST_CONNECTIONS)
        self.session.at(perf_counter_ns() + FRESHEN_EVERY_NS, self._freshen)

    def _set_out(self) -> None:
        """Sleep until just before the next request is due."""
        first = self._stock.first()
        if first is None:
            return
        wake_ns = self._began_ns + first.due_ns - self._spin_ns
        self._stock.quiet_until_ns = wake_ns
        self._stock.refill()
        self.session.at(wake_ns, self._send_due)

    def _send_due(self) -> None:
        """Send what is due, or very soon; after some of it see first what has come."""
        for _ in range(SENT_AT_ONCE):
            first = self._stock.first()
            if first is None or self._began_ns + first.due_ns - self._spin_ns > perf_counter_ns():
                break
            self._stock.take()
            due_ns = self._began_ns + first.due_ns
            while perf_counter_ns() < due_ns:
                pass
            self._send(first, due_ns)
        self._set_out()

    def _send(self, prepared: Prepared, due_ns: int) -> None:
        connection = self._pool.take()
        if connection is None:
            text = (
                f"all {self._pool.most} connections that this process may have are in use: raise the limit "
                "on open files (ulimit -n) or lower the load"
            )
            self.session.refuse(prepared, due_ns, text, _nothing)
        else:
            self.session.issue(connection, prepared, due_ns, partial(self._ended, connection, prepared))

    def _ended(self, connection: Connection, prepared: Prepared, exchange: Exchange) -> None:
        self._pool.give_back(connection)
        turn = self.session.next_turn(prepared, exchange)
        if turn is not None:
            self.session.send_at(turn[1], partial(self._send, *turn))

    def _is_over(self, start_ns: int, end_ns: int) -> bool:
        """Whether all that was due inside the window, of a finite schedule all, has ended."""
        session, following = self.session, self._stock.first()
        if self._schedule.finite:
            return following is None and not session.waiting and not session.in_flight
        is_all_sent = following is not None and self._began_ns + following.due_ns >= end_ns
        return is_all_sent and not session.is_measured_in_flight(start_ns, end_ns)


def own_ns(blocks: Iterator[Any], part: Part) -> Iterator[int]:
    """Of all instants (arrays, s) those that belong to this part, in ns."""
    skip = part.shard
    for block in blocks:
        yield from (block[skip :: part.shards] * 1e9).round().astype("int64").tolist()
        skip = (skip - len(block)) % part.shards


def _nothing(_: Any) -> None:
    pass
