"""A batch: all requests at once, to the end."""

from __future__ import annotations

from functools import partial
from time import perf_counter_ns

from profiler.loadgen.exchange import Exchange
from profiler.loadgen.session import Session
from profiler.loadgen.stock import Prepared

WARMUP_REQUESTS = 4
WARMUP_TOKENS = 16
SENT_AT_ONCE = 64


class Batch:
    """See :mod:`profiler.loadgen.driver`.  ``end_ns`` stays None: the last arrival is known only once
    decoded."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.start_ns: int | None = None
        self.end_ns: int | None = None
        self._total = session.job.point.concurrency or 1
        self._wanted_tokens = 0
        self._pieces_at_start = 0
        for _ in session.own(self._total):
            session.connect()
        session.useless_after = max(8, 2 * len(session.connections))

    async def run(self) -> None:
        session = self.session
        await session.open_all()
        prompts = [session.prepare(index) for index in session.own(self._total)]
        self._wanted_tokens = sum(prepared.planned.output_tokens for prepared in prompts)
        await session.meet("open")
        await self._warm_up()
        self._pieces_at_start = session.pieces()
        self.start_ns = due_ns = await session.open_window(perf_counter_ns())  # the burst tells nothing
        self._send(prompts, 0, due_ns)
        await session.until(lambda: session.done + session.failed >= len(prompts))
        _, done = await session.meet("drained", session.done)
        if not sum(done):
            raise session.stopped(f"no request of the batch was answered; last: {session.last_error}")

    def expected_s(self, now_ns: int) -> float:
        """Length of the whole, from opening on, told from the share of the batch's tokens that came."""
        measure = self.session.job.measure
        if self.start_ns is None:
            return measure.warmup_s + measure.window_s
        before_s = (self.start_ns - self.session.opened_ns) / 1e9
        came = self.session.pieces() - self._pieces_at_start
        share = max(1, min(came, self._wanted_tokens)) / max(1, self._wanted_tokens)
        return before_s + (now_ns - self.start_ns) / 1e9 / share

    def _send(self, prompts: list[Prepared], first: int, due_ns: int) -> None:
        """Send some, let the event loop see what has come, send some more."""
        session = self.session
        last = first + SENT_AT_ONCE
        for connection, prepared in zip(session.connections[first:last], prompts[first:last], strict=True):
            session.issue(connection, prepared, due_ns, _nothing)
        if last < len(prompts):
            session.at(due_ns, partial(self._send, prompts, last, due_ns))

    async def _warm_up(self) -> None:
        """Run a few short requests to their end; they leave no record."""
        session = self.session
        session.recording = False
        burst = range(min(WARMUP_REQUESTS, self._total))[session.part.shard :: session.part.shards]
        began_ns, _ = await session.meet("burst")
        for place, connection in zip(burst, session.connections, strict=False):
            planned = session.plan.request(self._total + place)
            part = min(1.0, WARMUP_TOKENS / planned.output_tokens)
            session.issue(connection, session.prepare(planned.index, part), began_ns, _nothing)
        await session.until(lambda: not session.in_flight)
        if burst and not session.done:
            raise session.stopped(f"no warm-up request was answered; last: {session.last_error}")
        session.done = session.failed = 0
        session.recording = True
        await session.open_all()  # a server may have closed connections that were idle during the burst


def _nothing(_: Exchange) -> None:
    pass
