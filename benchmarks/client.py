"""What the load generator costs and how exact it is: CPU per streamed chunk, chunks/s reached, errors.

    python benchmarks/client.py [--seconds 4] [--concurrency 64] [RATE …]

The simulated engine streams at known instants; the load process is measured by its own clock and CPU
account.  Both share this machine, so at high rates the server's lateness is part of what is seen.  CPU per
chunk is all the process spends, the kernel's part (waking up, receiving) included; what our own code takes
of it is measured apart, by feeding a connection from memory.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from profiler.engines.simulated import Law, command, law, parse
from profiler.loadgen.client import Connection, target_of
from profiler.loadgen.exchange import Exchange
from profiler.loadgen.job import LoadJob
from profiler.loadgen.worker import LoadWorker
from profiler.records import read_records
from profiler.schema import Endpoint, LoadPoint, RequestRecord, Window
from profiler.settings import Measure, Timeouts, Workload
from profiler.workload import PlannedRequest

TTFT_S = 0.1
OUTPUT_TOKENS = 128
INPUT_TOKENS = 128


def hold(
    worker: LoadWorker, port: int, concurrency: int, seconds: float
) -> tuple[Window, list[RequestRecord]]:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/records.parquet"
        job = LoadJob(
            endpoint=Endpoint(base_url=f"http://127.0.0.1:{port}/v1", model="simulated", vocab_size=32_000),
            workload=Workload(input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS),
            point=LoadPoint(mode="closed", concurrency=concurrency),
            measure=Measure(warmup_s=0.5, window_s=seconds, min_requests=0, max_window_s=2 * seconds),
            timeouts=Timeouts(),
            window=0,
            repeat=0,
            engine_start=0,
            records_path=path,
        )
        window = worker.run(job, lambda _: None, lambda: None)
        return window, read_records(path)


def row(window: Window, records: list[RequestRecord], truth: Law, chunks_per_s: float) -> str:
    start, end, audit = window.steady_start_ns, window.steady_end_ns, window.audit
    if start is None or end is None or audit is None:
        return f"{chunks_per_s:10,.0f}  no steady window: {window.trouble}"
    length_s = (end - start) / 1e9
    inside = [r for r in records if start <= r.due_ns < end and r.outcome == "ok"]
    ttft_s = np.array([(r.first_ns or 0) - r.due_ns for r in inside]) / 1e9
    gaps_s = np.concatenate([np.diff(r.arrivals_ns) for r in inside] or [np.zeros(1)]) / 1e9
    return (
        f"{chunks_per_s:10,.0f} {audit.chunks / length_s:10,.0f} {audit.cpu_frac * 100:7.1f} "
        f"{audit.cpu_frac * length_s / max(1, audit.chunks) * 1e6:9.1f} "
        f"{(ttft_s.mean() / truth.ttft_s - 1) * 100 if inside else float('nan'):+9.2f} "
        f"{(np.percentile(gaps_s, 99) / truth.chunk_gap_s - 1) * 100:+9.2f} "
        f"{(audit.loop_lag_p99_s or 0) * 1e3:8.2f} {(audit.send_lag_p99_s or 0) * 1e3:8.2f}"
    )


def own_us_per_chunk(chunks: int = 100_000) -> float:
    """CPU of stamping, framing and keeping one chunk, without kernel and event loop, in µs."""

    class Nowhere(asyncio.Transport):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            pass

        def is_closing(self) -> bool:
            return False

    async def feed() -> float:
        connection = Connection(target_of(Endpoint(base_url="http://nowhere/v1", model="m")), Timeouts())
        connection.connection_made(Nowhere())
        connection.send(Exchange(PlannedRequest(0, 1, chunks), 0), b"")
        connection.data_received(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        event = b'data: {"id":"cmpl-1","choices":[{"index":0,"text":" a","token_ids":[7]}]}\n\n'
        piece = b"%x\r\n%b\r\n" % (len(event), event)
        began_ns = time.process_time_ns()
        for _ in range(chunks):
            connection.data_received(piece)
        return (time.process_time_ns() - began_ns) / chunks / 1e3

    return asyncio.run(feed())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rates", nargs="*", type=int, default=[50, 1_000, 3_000, 6_000, 12_000])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--concurrency", type=int, default=64)
    options = parser.parse_args()
    print(f"own code: {own_us_per_chunk():.2f} µs a chunk")
    print("   nominal    reached   CPU %  µs/chunk  TTFT err%  ITL p99%  lag ms  send ms")
    with LoadWorker() as worker:
        for rate in options.rates:
            concurrency = min(options.concurrency, max(1, rate // 50))
            itl_s = concurrency / rate
            args = {"ttft_s": TTFT_S, "itl_s": itl_s}
            truth = law(
                parse(args), concurrency=concurrency, input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS
            )
            with subprocess.Popen(command(args), stdout=subprocess.PIPE, text=True) as server:
                assert server.stdout is not None
                port = int(server.stdout.readline().split()[1])
                window, records = hold(worker, port, concurrency, options.seconds)
                server.terminate()
            print(row(window, records, truth, truth.output_tokens_per_s), flush=True)


if __name__ == "__main__":
    main()
