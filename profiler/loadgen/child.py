"""The load process: takes jobs, holds windows, writes records.

Within a window it only sends, stamps and keeps; decoding and disk come after.  Started as
``python -m profiler.loadgen.child`` by :class:`profiler.loadgen.worker.LoadWorker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from time import perf_counter_ns

import msgspec
from msgspec import structs

from profiler import without_pandas
from profiler.errors import InputError, ProfilerError
from profiler.loadgen.audit import Tally
from profiler.loadgen.decode import decode
from profiler.loadgen.driver import Driver, Held
from profiler.loadgen.exchange import Exchange
from profiler.loadgen.job import (
    Ask,
    Asked,
    Broken,
    Finished,
    LoadJob,
    Met,
    Order,
    Progress,
    Reply,
    Start,
    Underway,
)
from profiler.loadgen.meeting import Alone, Meeting
from profiler.loadgen.probe import probe
from profiler.loadgen.session import Setting
from profiler.records import write_records
from profiler.schema import RequestRecord, Window

MAX_LINE_BYTES = 16 << 20
REPORT_EVERY_NS = 250_000_000


def finish(job: LoadJob, held: Held, report: Callable[[Progress], None]) -> Finished:
    """Decode and write the records of a held window, and sum the window up.  StoreError as they do."""
    tally = Tally(held, job.point.mode == "batch")
    try:
        if not held.crowded:
            write_records(job.records_path, tally.through(_decoded(job, held, report)))
    finally:
        held.exchanges.close()
    start_ns, end_ns = tally.bounds_ns
    window = Window(
        index=job.window,
        repeat=job.repeat,
        engine_start=job.engine_start,
        point=job.point,
        opened_ns=held.opened_ns,
        steady_start_ns=start_ns,
        steady_end_ns=end_ns,
        closed_ns=held.closed_ns,
        audit=tally.audit(),
        trouble=held.trouble,
    )
    return Finished(window, tally.pace, held.lost, held.crowded, held.full)


def _decoded(
    job: LoadJob, held: Held, report: Callable[[Progress], None]
) -> Iterator[tuple[Exchange, RequestRecord]]:
    """All exchanges with what they mean, reporting now and then how far that is."""
    began_ns = said_ns = perf_counter_ns()
    report(_decoding(held, 0.0, began_ns))
    for exchange in held.exchanges.read():
        yield exchange, decode(exchange, job.endpoint, job.window)
        if perf_counter_ns() - said_ns >= REPORT_EVERY_NS:
            said_ns = perf_counter_ns()
            report(_decoding(held, held.exchanges.read_frac, began_ns))
    report(_decoding(held, 1.0, began_ns))


def _decoding(held: Held, done_frac: float, began_ns: int) -> Progress:
    now_ns = perf_counter_ns()
    elapsed_s = (now_ns - held.opened_ns) / 1e9
    left_s = (now_ns - began_ns) / 1e9 * (1 / done_frac - 1) if done_frac else 0.0
    return structs.replace(
        held.progress,
        phase="decoding",
        elapsed_s=elapsed_s,
        expected_s=elapsed_s + left_s,
        chunks_per_s=None,
        in_flight=0,
        decoded_frac=done_frac,
    )


class _Child:
    """Takes orders, one window at a time."""

    def __init__(self, orders: asyncio.StreamReader, replies: int) -> None:
        self._orders = orders
        self._replies = replies
        self._driver: Driver | None = None
        self._meeting = Meeting(self._say)

    async def serve(self) -> None:
        """Until the parent closes our stdin; then the process ends at once, whatever it was doing."""
        window: asyncio.Task[None] | None = None
        question: asyncio.Task[None] | None = None
        while line := await self._orders.readline():
            order = msgspec.json.decode(line, type=Order)
            if isinstance(order, Ask):
                question = asyncio.ensure_future(self._answer(order))
            elif isinstance(order, Start):
                self._driver = Driver(self._setting(order))
                window = asyncio.ensure_future(self._window(order.job, self._driver))
            elif isinstance(order, Met):
                self._meeting.answer(order)
            elif self._driver is not None:
                self._driver.cancel()
        if any(task is not None and not task.done() for task in (window, question)):
            os._exit(1)

    def _setting(self, order: Start) -> Setting:
        meeting = self._meeting if order.part.shards > 1 else Alone()
        return Setting(order.job, self._report, order.part, meeting)

    def _report(self, progress: Progress) -> None:
        self._say(Underway(progress))

    async def _answer(self, order: Ask) -> None:
        try:
            self._say(Asked(await probe(order.endpoint, order.timeout_s)))
        except InputError as error:
            self._say(Asked(None, str(error)))
        except Exception as error:
            self._say(_broken(error))

    async def _window(self, job: LoadJob, driver: Driver) -> None:
        try:
            held = await self._hold(driver)
            self._say(await asyncio.to_thread(finish, job, held, self._report))
        except ProfilerError as error:
            self._say(Broken(str(error)))
        except Exception as error:
            self._say(_broken(error))

    async def _hold(self, driver: Driver) -> Held:
        """No garbage collection inside a window: a full pass would stop every stamp."""
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            with _ahead_of_others():
                return await driver.hold()
        finally:
            gc.enable()
            gc.unfreeze()

    def _say(self, reply: Reply) -> None:
        data = msgspec.json.encode(reply) + b"\n"
        while data:
            data = data[os.write(self._replies, data) :]


def _broken(error: Exception) -> Broken:
    traceback.print_exception(error)
    return Broken(f"{type(error).__name__}: {error}")


async def _main(replies: int) -> None:
    orders = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin.buffer)
    await _Child(orders, replies).serve()


@contextlib.contextmanager
def _ahead_of_others() -> Iterator[None]:
    """Real-time scheduling, where the system allows it (root, CAP_SYS_NICE): an engine that computes on the
    same cores then delays no stamp.  We sleep between chunks, and the kernel leaves a part to the others."""
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _allow_many_sockets() -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Serve one parent: stdout becomes the reply pipe, anything printed goes to stderr."""
    replies = os.dup(1)
    os.dup2(2, 1)
    _allow_many_sockets()
    without_pandas.keep_out()
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # gives back what it does not need
    try:
        import uvloop
    except ImportError:
        asyncio.run(_main(replies))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(replies))


if __name__ == "__main__":
    main()
