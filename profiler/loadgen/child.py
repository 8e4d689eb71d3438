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
from collections.abc import Iterator

import msgspec
import numpy as np

from profiler.loadgen.decode import decode
from profiler.loadgen.driver import Driver, Held
from profiler.loadgen.job import Broken, Finished, LoadJob, Order, Reply, Start, Underway
from profiler.records import write_records
from profiler.schema import ClientAudit, RequestRecord, Window

MAX_LINE_BYTES = 16 << 20


def finish(job: LoadJob, held: Held) -> Window:
    """Decode and write the records of a held window, and sum the window up."""
    tally = _Tally(held)
    write_records(job.records_path, tally.through(_decoded(job, held)))
    start_ns, end_ns = held.steady_start_ns, held.steady_end_ns
    if job.point.mode == "batch" and held.trouble is None:
        start_ns, end_ns = tally.first_sent_ns, tally.last_arrival_ns
    steady = start_ns is not None and end_ns is not None
    return Window(
        index=job.window,
        repeat=job.repeat,
        engine_start=job.engine_start,
        point=job.point,
        opened_ns=held.opened_ns,
        steady_start_ns=start_ns if steady else None,
        steady_end_ns=end_ns if steady else None,
        closed_ns=held.closed_ns,
        audit=tally.audit(start_ns, end_ns) if start_ns is not None and end_ns is not None else None,
        trouble=held.trouble,
    )


def _decoded(job: LoadJob, held: Held) -> Iterator[RequestRecord]:
    """One record after another; the bytes it was read from are let go."""
    for exchange in held.exchanges:
        yield decode(exchange, job.endpoint, job.window)
        exchange.pieces.clear()


class _Tally:
    """Sums over records while they pass by on their way to the file."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._sends: list[tuple[int, int]] = []
        self._arrivals: list[np.ndarray[tuple[int], np.dtype[np.int64]]] = []
        self.first_sent_ns: int | None = None
        self.last_arrival_ns: int | None = None

    def through(self, records: Iterator[RequestRecord]) -> Iterator[RequestRecord]:
        for record in records:
            if record.sent_ns is not None:
                self._sends.append((record.due_ns, record.sent_ns))
                self.first_sent_ns = min(record.sent_ns, self.first_sent_ns or record.sent_ns)
            if record.last_ns is not None:
                self.last_arrival_ns = max(record.last_ns, self.last_arrival_ns or 0)
            self._arrivals.append(np.asarray(record.arrivals_ns, dtype=np.int64))
            yield record

    def audit(self, start_ns: int, end_ns: int) -> ClientAudit:
        lags = [(sent - due) / 1e9 for due, sent in self._sends if start_ns <= sent < end_ns]
        chunks = sum(int(((times >= start_ns) & (times <= end_ns)).sum()) for times in self._arrivals)
        return ClientAudit(
            cpu_frac=self._held.pulse.cpu_frac(start_ns, end_ns),
            loop_lag_p99_s=self._held.pulse.lag_p99_s(start_ns, end_ns),
            send_lag_p99_s=float(np.percentile(lags, 99)) if lags else None,
            chunks=chunks,
        )


class _Child:
    """Takes orders, one window at a time."""

    def __init__(self, orders: asyncio.StreamReader, replies: int) -> None:
        self._orders = orders
        self._replies = replies
        self._driver: Driver | None = None

    async def serve(self) -> None:
        """Until the parent closes our stdin; then the process ends at once, whatever it was doing."""
        window: asyncio.Task[None] | None = None
        while line := await self._orders.readline():
            order = msgspec.json.decode(line, type=Order)
            if isinstance(order, Start):
                window = asyncio.ensure_future(self._window(order.job))
            elif self._driver is not None:
                self._driver.cancel()
        if window is not None and not window.done():
            os._exit(1)

    async def _window(self, job: LoadJob) -> None:
        try:
            self._driver = Driver(job, lambda progress: self._say(Underway(progress)))
            held = await self._hold(self._driver)
            self._driver = None
            window = await asyncio.to_thread(finish, job, held)
            self._say(Finished(window, held.unreachable))
        except Exception as error:
            traceback.print_exc()
            self._say(Broken(f"{type(error).__name__}: {error}"))

    async def _hold(self, driver: Driver) -> Held:
        """No garbage collection inside a window: a full pass would stop every stamp."""
        gc.collect()
        gc.freeze()
        gc.disable()
        try:
            return await driver.hold()
        finally:
            gc.enable()
            gc.unfreeze()

    def _say(self, reply: Reply) -> None:
        data = msgspec.json.encode(reply) + b"\n"
        while data:
            data = data[os.write(self._replies, data) :]


async def _main(replies: int) -> None:
    orders = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin.buffer)
    await _Child(orders, replies).serve()


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
    try:
        import uvloop
    except ImportError:
        asyncio.run(_main(replies))
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(replies))


if __name__ == "__main__":
    main()
