"""What every kind of load needs: connections, requests sent and counted, time limits, progress."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import count
from time import perf_counter_ns
from typing import Any, Literal

from msgspec import Struct, structs

from profiler.alarm import Alarm
from profiler.errors import LoadError
from profiler.loadgen.client import Connection, target_of
from profiler.loadgen.decode import answer_of
from profiler.loadgen.ends import Ends
from profiler.loadgen.exchange import Exchange
from profiler.loadgen.failing import Failing
from profiler.loadgen.job import LoadJob, Part, Progress
from profiler.loadgen.meeting import Alone
from profiler.loadgen.payload import ASSUMED_VOCAB, build
from profiler.loadgen.pulse import TICK_S, Pulse
from profiler.loadgen.spill import Spill
from profiler.loadgen.stock import Prepared
from profiler.schema import Outcome
from profiler.workload import Plan, PlannedRequest, Talk, load_trace

OPENING_AT_ONCE = 64
PROGRESS_EVERY_BEATS = 25
EXPIRE_ALL_WITHIN_BEATS = 100
CROWDED_CPU_FRAC = 0.5
CPU_SPAN_NS = 2_000_000_000
CPU_SPAN_MIN_NS = 200_000_000

Then = Callable[[Exchange], None]


class Stopped(Exception):  # noqa: N818 (not an error: a window that ends before its time)
    """The window ends now; the text says why."""


class Lost(Stopped):
    """… because the server is not one to be measured, now: ``why``, to follow its address."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(text)
        self.why = why


class Full(Stopped):
    """… because the disk does not take what is recorded; all of it so far is kept."""


class Crowded(Stopped):
    """… because the load is too much for so few processes, and more are to be had."""


class Setting(Struct, frozen=True):
    """What a load is held with: the job, whom progress is told, this process's part and the others."""

    job: LoadJob
    report: Callable[[Progress], None]
    part: Part = Part()
    meeting: Alone = Alone()


class Session:
    """The connections of one window and everything that was sent over them.

    Requests are sent and ended by calls, without a task each: ``issue(…, then)`` calls ``then(exchange)``
    the moment the exchange has ended.
    """

    def __init__(self, setting: Setting) -> None:
        job = setting.job
        self.job = job
        self.part = setting.part
        self.phase: Literal["warm-up", "measuring", "finishing"] = "warm-up"
        self.expected_s: Callable[[int], float] = lambda _: job.measure.warmup_s + job.measure.window_s
        self.kept = Spill(f"{job.records_path}.raw")
        self.recording = True
        self.in_flight: set[Exchange] = set()
        self.waiting: set[tuple[int, int]] = set()
        self.done = 0
        self.ends = Ends()  # of requests answered; from its opening on those of the window
        self.failed = 0
        self.useless_after = 8
        self.useless_after_pauses_ns = math.inf  # of all slots together
        self.cancelled = False
        self.opened_ns = perf_counter_ns()
        self.alarm = Alarm()
        self.pulse = Pulse(self._beat, self.alarm)
        self.connections: list[Connection] = []
        self.plan = _plan(job)
        self._marks = count()
        self._next_index = self.part.shard
        self._talks = count(self.part.shard, self.part.shards)
        self._setting = setting
        self._target = target_of(job.endpoint)
        self._failing = Failing(job.endpoint)
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None
        self._full: LoadError | None = None
        self._beats = 0
        self._swept = 0
        self._sweep_beats = max(1, min(EXPIRE_ALL_WITHIN_BEATS, round(_shortest_s(job) / 10 / TICK_S)))
        self._pieces_seen = 0
        self._reported_ns = self.opened_ns

    # ------------------------------------------------------------------------------ requests

    def own(self, total: int) -> range:
        """This process's numbers of ``total`` numbered things."""
        return range(self.part.shard, total, self.part.shards)

    def prepare(self, index: int, part: float = 1.0, due_ns: int = 0) -> Prepared:
        """Build the ``index``-th request of the plan, its answer cut to this part of its length."""
        return self._built(self.plan.request(index), None, part, due_ns)

    def opening(self, part: float = 1.0, due_ns: int = 0) -> Prepared:
        """Build the next request of the plan, or the opening of its next conversation."""
        if self.job.workload.conversation is None:
            return self.prepare(self._take_index(), part, due_ns)
        talk = self.plan.conversation(next(self._talks))
        return self._built(talk.open(self._take_index()), talk, part, due_ns)

    def next_turn(self, before: Prepared, exchange: Exchange) -> tuple[Prepared, int] | None:
        """What the conversation goes on with and when that is due; None when there is nothing to go on."""
        if before.talk is None or not exchange.answered:
            return None
        planned = before.talk.go_on(self._next_index, answer_of(exchange, self.job.endpoint))
        if planned is None:
            return None
        self._take_index()
        due_ns = (exchange.end_ns or perf_counter_ns()) + round(before.talk.think_s() * 1e9)
        return self._built(planned, before.talk, 1.0, due_ns), due_ns

    def connect(self) -> Connection:
        """One more connection, not open yet."""
        connection = Connection(self._target, self.job.timeouts)
        self.connections.append(connection)
        return connection

    async def open_all(self) -> None:
        """Open every connection, a limited number at once.  Failures show when a request needs one."""
        gate = asyncio.Semaphore(OPENING_AT_ONCE)

        async def open_one(connection: Connection) -> None:
            async with gate:
                await connection.open()

        tasks = [self.spawn(open_one(connection)) for connection in self.connections]
        await self.until(lambda: all(task.done() for task in tasks))

    def issue(self, connection: Connection, prepared: Prepared, due_ns: int, then: Then) -> Exchange | None:
        """Send one request, opening its connection first where need be; None when the load is over."""
        if self._closing:
            return None
        exchange = Exchange(prepared.planned, due_ns)
        self.in_flight.add(exchange)
        if connection.is_open:
            connection.begin(exchange, prepared.payload, partial(self._ended, then))
        else:
            self.spawn(self._reopen(connection, exchange, prepared.payload, then))
        return exchange

    def refuse(self, prepared: Prepared, due_ns: int, error: str, then: Then) -> None:
        """A request for which there is no connection to be had."""
        if not self._closing:
            self._fail(Exchange(prepared.planned, due_ns), "connect_error", error, then)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside the window; its failure is the window's failure."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._note_end)
        self._tasks.add(task)
        return task

    def at(self, at_ns: int, call: Callable[[], object]) -> None:
        """Call at this time, from the event loop; its failure is the window's failure."""
        self.alarm.at(at_ns, partial(self._guarded, call))

    def send_at(self, due_ns: int, send: Callable[[], object]) -> None:
        """Send a request when it is due; until then it is among those ``waiting``."""
        mark = (due_ns, next(self._marks))
        self.waiting.add(mark)
        self.at(due_ns, partial(self._send_waiting, mark, send))

    # ------------------------------------------------------------------------------ stages

    async def meet(self, stage: str, value: float = 0.0) -> tuple[int, list[float]]:
        """Wait until all processes of this load are here; an instant common to all and their values."""
        answer = self._setting.meeting.meet(stage, value)
        while not answer.done():
            self._raise_if_stopped()
            await asyncio.wait([answer], timeout=TICK_S)
        met = answer.result()
        await self.alarm.until(met.at_ns)
        return met.at_ns, met.values

    async def open_window(self, loaded_ns: int) -> int:
        """The load, which began at ``loaded_ns``, is steady from now on; the time.

        Crowded when more processes should hold it, as far as the last half of what was can tell.
        """
        now_ns = perf_counter_ns()
        span_ns = min(CPU_SPAN_NS, (now_ns - loaded_ns) // 2)
        enough = span_ns >= CPU_SPAN_MIN_NS
        cpu_frac = self.pulse.cpu_frac(now_ns - span_ns, now_ns) if enough else None
        at_ns, values = await self.meet("warm", cpu_frac or 0.0)
        if self.part.may_grow and max(values) > CROWDED_CPU_FRAC:
            raise Crowded(f"a load process was busy {max(values):.0%} of the time")
        self.phase = "measuring"
        self.ends.begin(at_ns)
        return at_ns

    def is_measured_in_flight(self, start_ns: int, end_ns: int) -> bool:
        """Whether a request due in this stretch of time is still under way, or not even sent."""
        if any(start_ns <= due_ns < end_ns for due_ns, _ in self.waiting):
            return True
        return any(start_ns <= exchange.due_ns < end_ns for exchange in self.in_flight)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return at the first beat at which the condition holds; Stopped when the load is of no use."""
        while not condition():
            self._raise_if_stopped()
            await asyncio.sleep(TICK_S)
        self._raise_if_broken()

    async def until_ns(self, at_ns: int) -> None:
        """Return at the first beat after this time."""
        await self.until(lambda: perf_counter_ns() >= at_ns)

    def progress(self, now_ns: int) -> Progress:
        """Where the window stands."""
        elapsed_s = (now_ns - self.opened_ns) / 1e9
        pieces = self.pieces()
        fresh, self._pieces_seen = pieces - self._pieces_seen, pieces
        since_s, self._reported_ns = (now_ns - self._reported_ns) / 1e9, now_ns
        return Progress(
            phase=self.phase,
            elapsed_s=elapsed_s,
            expected_s=max(elapsed_s, self.expected_s(now_ns)),
            chunks_per_s=fresh / since_s if since_s > 0 else None,
            in_flight=len(self.in_flight),
            done=self.done,
            failed=self.failed,
        )

    def pieces(self) -> int:
        """Body pieces received so far."""
        return sum(connection.pieces for connection in self.connections)

    async def let_go(self) -> None:
        """Stop issuing, cancel what still runs, close all connections, leave no task behind."""
        self._closing = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        for connection in self.connections:
            connection.fail("cancelled", None)
        await asyncio.gather(*tasks, return_exceptions=True)
        for exchange in list(self.in_flight):  # their connections were still being opened
            self._fail(exchange, "cancelled", None, _nothing)
        self.pulse.stop()
        self.alarm.close()

    @property
    def last_error(self) -> str | None:
        """Why the last request that failed did."""
        return self._failing.last

    def stopped(self, text: str) -> Stopped:
        """How a useless window ends."""
        why = self._failing.why_lost(any(each.had_token for each in self.connections))
        return Stopped(text) if why is None else Lost(text, why)

    # ------------------------------------------------------------------------------ inside

    def _take_index(self) -> int:
        index = self._next_index
        self._next_index += self.part.shards
        return index

    def _built(self, planned: PlannedRequest, talk: Talk | None, part: float, due_ns: int) -> Prepared:
        if part < 1:
            planned = structs.replace(planned, output_tokens=math.ceil(planned.output_tokens * part))
        return Prepared(planned, build(self.job.endpoint, self._target, self.plan, planned), talk, due_ns)

    async def _reopen(self, connection: Connection, exchange: Exchange, payload: bytes, then: Then) -> None:
        exchange.opening_ns = perf_counter_ns()
        trouble = await connection.open()
        if trouble is None and not connection.is_open:
            trouble = ("reset", "the server closed the connection as soon as it was open")
        if trouble is None:
            connection.begin(exchange, payload, partial(self._ended, then))
        else:
            self._fail(exchange, *trouble, then)

    def _fail(self, exchange: Exchange, outcome: Outcome, error: str | None, then: Then) -> None:
        exchange.failure, exchange.error = outcome, error
        exchange.end_ns = None if outcome == "cancelled" else perf_counter_ns()
        self._ended(then, exchange)

    def _ended(self, then: Then, exchange: Exchange) -> None:
        """What follows comes first: the next request may be due now."""
        self.in_flight.discard(exchange)
        self._count(exchange)
        try:
            then(exchange)
            if self.recording:
                self.kept.add(exchange)
        except LoadError as error:
            self._full = error
        except Exception as error:
            self._broken = self._broken or error

    def _send_waiting(self, mark: tuple[int, int], send: Callable[[], object]) -> None:
        self.waiting.discard(mark)
        send()

    def _guarded(self, call: Callable[[], object]) -> None:
        if self._closing:
            return
        try:
            call()
        except Exception as error:
            self._broken = self._broken or error

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and self._broken is None:
            self._broken = task.exception()

    def _count(self, exchange: Exchange) -> None:
        if exchange.failure == "cancelled":
            return
        if self._failing.add(exchange):
            self.done += 1
            self.ends.add(exchange.end_ns or perf_counter_ns())
        else:
            self.failed += 1

    def _raise_if_broken(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _raise_if_stopped(self) -> None:
        self._raise_if_broken()
        if self.cancelled:
            raise Stopped("cancelled")
        if self._full is not None:
            raise Full(str(self._full))
        failed = self._failing.in_row
        if failed >= self.useless_after or self._failing.paused_ns >= self.useless_after_pauses_ns:
            raise self.stopped(f"{failed} requests failed one after another; last: {self.last_error}")

    def _beat(self, now_ns: int) -> None:
        self._beats += 1
        self._sweep(now_ns)
        if self._beats % PROGRESS_EVERY_BEATS == 0:
            self._setting.report(self.progress(now_ns))

    def _sweep(self, now_ns: int) -> None:
        """See to the time limits of some connections; of all within ``_sweep_beats`` beats."""
        total = len(self.connections)
        first = self._swept if self._swept < total else 0
        self._swept = first + -(-total // self._sweep_beats)
        for connection in self.connections[first : self._swept]:
            connection.expire(now_ns)


def _plan(job: LoadJob) -> Plan:
    vocab_size = job.endpoint.vocab_size or ASSUMED_VOCAB
    if job.load.trace is None:
        return Plan(job.workload, vocab_size, job.window, job.prompt_salt)
    trace = load_trace(job.load.trace, job.load)
    return Plan(job.workload, vocab_size, job.window, job.prompt_salt, trace)


def _nothing(_: Exchange) -> None:
    pass


def _shortest_s(job: LoadJob) -> float:
    """The shortest time limit on an answer."""
    limits = job.timeouts
    return min(limits.first_token_s, limits.gap_s, limits.total_s)
