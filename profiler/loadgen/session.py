"""What every kind of load needs: connections, prepared requests, counters, time limits, progress."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import perf_counter_ns
from typing import Any, Literal, TypeVar

from msgspec import Struct

from profiler.loadgen.client import Connection, target_of
from profiler.loadgen.exchange import Exchange
from profiler.loadgen.job import LoadJob, Progress
from profiler.loadgen.payload import ASSUMED_VOCAB, build
from profiler.loadgen.pulse import TICK_S, Pulse
from profiler.schema import Outcome
from profiler.workload import Plan, PlannedRequest

OPENING_AT_ONCE = 64
BACKOFF_S = 0.25
PROGRESS_EVERY_BEATS = 25
EXPIRE_EVERY_BEATS = 5
CONNECTION_FAILURES: tuple[Outcome, ...] = ("connect_error", "connect_timeout", "reset")

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818 (not an error: a window that ends before its time)
    """The window ends now; the text says why."""


class Unreachable(Stopped):
    """… because connections fail, not answers: nobody is there any more."""


class Prepared(Struct, frozen=True):
    """A request ready to be written."""

    planned: PlannedRequest
    payload: bytes


class Session:
    """The connections of one window and everything that was sent over them."""

    def __init__(self, job: LoadJob, report: Callable[[Progress], None]) -> None:
        self.job = job
        self.phase: Literal["warm-up", "measuring", "finishing"] = "warm-up"
        self.warm_s = job.measure.warmup_s
        self.exchanges: list[Exchange] = []
        self.in_flight: set[Exchange] = set()
        self.done = 0
        self.failed = 0
        self.done_ns: list[int] = []
        self.last_error: str | None = None
        self.cancelled = False
        self.opened_ns = perf_counter_ns()
        self.start_ns: int | None = None
        self.pulse = Pulse(self._beat)
        self._report = report
        self._target = target_of(job.endpoint)
        self._plan = Plan(job.workload, job.endpoint.vocab_size or ASSUMED_VOCAB, job.window, job.prompt_salt)
        self.connections = [Connection(self._target, job.timeouts) for _ in range(job.point.concurrency)]
        self._failed_in_row = 0
        self._disconnected_in_row = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._broken: BaseException | None = None
        self._beats = 0
        self._pieces_seen = 0
        self._pieces_at_start = 0
        self._reported_ns = self.opened_ns

    def planned(self, index: int) -> PlannedRequest:
        """The ``index``-th request of the plan."""
        return self._plan.request(index)

    def prepare(self, index: int, at_most: int | None = None) -> Prepared:
        """Build the ``index``-th request of the plan, its answer cut to ``at_most`` tokens if given."""
        planned = self._plan.request(index)
        if at_most is not None:
            planned = PlannedRequest(index, planned.input_tokens, min(at_most, planned.output_tokens))
        return Prepared(planned, build(self.job.endpoint, self._target, self._plan, planned))

    async def open_all(self) -> None:
        """Open every connection, a limited number at once.  Failures show when a request needs one."""
        gate = asyncio.Semaphore(OPENING_AT_ONCE)

        async def open_one(connection: Connection) -> None:
            async with gate:
                await connection.open()

        await self.wait_for([self.spawn(open_one(connection)) for connection in self.connections])

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside the window; its failure is the window's failure."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._note_failure)
        self._tasks.append(task)
        return task

    async def issue(
        self, connection: Connection, prepared: Prepared, due_ns: int, meanwhile: Callable[[], T]
    ) -> tuple[Exchange, T]:
        """Send one request and wait for its end; ``meanwhile`` is called once, right after it was sent."""
        exchange = Exchange(prepared.planned, due_ns)
        self.exchanges.append(exchange)
        self.in_flight.add(exchange)
        trouble = None if connection.is_open else await connection.open()
        if trouble is None:
            ended = connection.send(exchange, prepared.payload)
            made = meanwhile()
            await ended
        else:
            exchange.failure, exchange.error = trouble
            exchange.end_ns = perf_counter_ns()
            made = meanwhile()
        self.in_flight.discard(exchange)
        self._count(exchange)
        return exchange, made

    def forget(self) -> None:
        """What was sent so far was practice."""
        self.exchanges.clear()
        self.done = self.failed = 0

    def open_window(self) -> int:
        """The load is steady from now on; the time."""
        self.phase = "measuring"
        self.done_ns.clear()
        self._pieces_at_start = self._pieces()
        self.start_ns = perf_counter_ns()
        return self.start_ns

    @property
    def done_in_window(self) -> int:
        """Requests answered since the window was opened."""
        return len(self.done_ns)

    def done_by(self, at_ns: int) -> int:
        """Requests answered since the window was opened and not after this time."""
        return sum(done_ns <= at_ns for done_ns in self.done_ns)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return at the first beat at which the condition holds; Stopped when the load is of no use."""
        while not condition():
            self._raise_if_stopped()
            await asyncio.sleep(TICK_S)

    async def until_ns(self, at_ns: int) -> None:
        """Return at the first beat after this time."""
        await self.until(lambda: perf_counter_ns() >= at_ns)

    async def wait_for(self, tasks: list[asyncio.Task[None]]) -> None:
        """Return once all tasks are done; Stopped as in :meth:`until`."""
        await self.until(lambda: all(task.done() for task in tasks))

    async def let_go(self) -> None:
        """Stop issuing, cancel what still runs, close all connections, leave no task behind."""
        for task in self._tasks:
            task.cancel()
        for connection in self.connections:
            connection.fail("cancelled", None)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for exchange in self.exchanges:
            if exchange.end_ns is None:  # its connection was still being opened
                exchange.failure = "cancelled"
        self.pulse.stop()

    def stopped(self, text: str) -> Stopped:
        """How a useless window ends: Unreachable where all failures in a row were connections'."""
        lost = 0 < self._disconnected_in_row == self._failed_in_row
        return Unreachable(text) if lost else Stopped(text)

    def _note_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and self._broken is None:
            self._broken = task.exception()

    def _count(self, exchange: Exchange) -> None:
        if exchange.failure == "cancelled":
            return
        if exchange.answered:
            self.done += 1
            self.done_ns.append(exchange.end_ns or perf_counter_ns())
            self._failed_in_row = self._disconnected_in_row = 0
            return
        self.failed += 1
        self._failed_in_row += 1
        refused = exchange.status not in (None, 200)
        self._disconnected_in_row += not refused and exchange.failure in CONNECTION_FAILURES
        self.last_error = exchange.error or f"HTTP {exchange.status}"

    def _raise_if_stopped(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self.cancelled:
            raise Stopped("cancelled")
        if self._failed_in_row >= max(8, 2 * self.job.point.concurrency):
            count = self._failed_in_row
            raise self.stopped(f"{count} requests failed one after another; last: {self.last_error}")

    def _beat(self, now_ns: int) -> None:
        self._beats += 1
        if self._beats % EXPIRE_EVERY_BEATS == 0:
            for connection in self.connections:
                connection.expire(now_ns)
        if self._beats % PROGRESS_EVERY_BEATS == 0:
            self._report(self._progress(now_ns))

    def _progress(self, now_ns: int) -> Progress:
        elapsed_s = (now_ns - self.opened_ns) / 1e9
        pieces = self._pieces()
        fresh, self._pieces_seen = pieces - self._pieces_seen, pieces
        since_s, self._reported_ns = (now_ns - self._reported_ns) / 1e9, now_ns
        return Progress(
            phase=self.phase,
            elapsed_s=elapsed_s,
            expected_s=max(elapsed_s, self._expected_s(now_ns)),
            chunks_per_s=fresh / since_s if since_s > 0 else None,
            in_flight=len(self.in_flight),
            done=self.done,
            failed=self.failed,
        )

    def _expected_s(self, now_ns: int) -> float:
        """Length of the whole, from opening on; of a batch told from the share of its tokens that came."""
        if self.start_ns is None:
            return self.warm_s + self.job.measure.window_s
        before_s = (self.start_ns - self.opened_ns) / 1e9
        if self.job.point.mode == "closed":
            return before_s + self.job.measure.window_s
        wanted = sum(exchange.planned.output_tokens for exchange in self.exchanges)
        came = self._pieces() - self._pieces_at_start
        return before_s + (now_ns - self.start_ns) / 1e9 * wanted / max(1, min(came, wanted))

    def _pieces(self) -> int:
        return sum(connection.pieces for connection in self.connections)
