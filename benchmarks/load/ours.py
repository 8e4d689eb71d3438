"""How exact our load generator is, how much it can take and what it costs, against servers of known truth.

    python benchmarks/load/ours.py [--seconds 4] [--only accuracy,chunks,…] [--json PATH]

Server and load process have a core each.  Errors are what the load process says of the requests sent inside
its steady window over what the server did for the same requests, minus 1; the server's own lateness is in
both.  CPU is all the load process spends, the kernel's part included.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from common import CLIENT_CORE, SERVER_CORE, Metronome, PeakMemory, Settings, on_core, steady_law, table
from rows import open_loop, open_shown, wakes, wakes_shown

from profiler.calibrate import hold, summary
from profiler.errors import ProfilerError
from profiler.loadgen.client import Connection, target_of
from profiler.loadgen.exchange import Exchange
from profiler.loadgen.worker import LoadWorker
from profiler.schema import Endpoint
from profiler.settings import Timeouts
from profiler.workload import PlannedRequest

Row = dict[str, Any]

TOKENS = 64
# Streams and the gap between the chunks of each: up to some 25,000 chunks/s.
ACCURACY = ((1, 0.025), (32, 0.025), (256, 0.025), (1_024, 0.040))
CHUNKS_PER_S = ((5_000, 256), (10_000, 256), (20_000, 256), (30_000, 512), (40_000, 1_024), (45_000, 1_024))
REQUESTS_PER_S = (500, 1_000, 2_000, 3_000, 4_000, 5_000, 6_000)
ITL_P99_LIMIT_FRAC = 0.05
MEMORY_STREAMS = 256
STARTS = 5


def measure(law: Settings, streams: int, tokens: int, seconds: float, *, weigh: bool = False) -> Row:
    """One window of a fresh load process against a fresh server; ``trouble`` where it came to nothing.

    Memory is looked at only when ``weigh``: looking stops the process for milliseconds.
    """
    row: Row = {"streams": streams, "tokens": tokens, "ttft_s": law.ttft_s, "itl_s": law.itl_s}
    with Metronome(law, core=SERVER_CORE) as server, on_core(CLIENT_CORE), LoadWorker() as worker:
        children = psutil.Process().children()
        client = next(each for each in children if each.pid != server.pid)
        with PeakMemory(client.pid) if weigh else contextlib.nullcontext() as memory:
            try:
                seen = hold(server, worker, streams, tokens, seconds)
            except ProfilerError as error:
                return row | {"trouble": str(error)}
    found, window = summary(seen), seen.window
    assert window.steady_start_ns is not None
    assert window.steady_end_ns is not None
    assert window.audit is not None
    length_s = (window.steady_end_ns - window.steady_start_ns) / 1e9
    return row | {
        **{name: getattr(found, name) for name in found.__struct_fields__},
        "requests_per_s": len(seen.truth.arrived_ns) / length_s,
        "loop_lag_p99_s": window.audit.loop_lag_p99_s,
        "send_lag_p99_s": window.audit.send_lag_p99_s,
        "client_peak_pss_bytes": memory.bytes if memory else None,
    }


def shown(row: Row) -> Row:
    """The columns every table of windows has, in readable units."""
    if "trouble" in row:
        return {"streams": row["streams"], "trouble": row["trouble"]}
    return {
        "streams": row["streams"],
        "chunks/s": round(row["chunks_per_s"]),
        "requests/s": round(row["requests_per_s"]),
        "TTFT mean %": signed(row["ttft_mean_error_frac"], 100),
        "TTFT p99 %": signed(row["ttft_p99_error_frac"], 100),
        "TTFT ms": signed(row["ttft_mean_error_s"], 1e3),
        "ITL mean %": signed(row["itl_mean_error_frac"], 100),
        "ITL p99 %": signed(row["itl_p99_error_frac"], 100),
        "CPU %": scaled(row["client_cpu_frac"], 100),
        "µs/chunk": scaled(row["client_cpu_s_per_chunk"], 1e6),
        "server late p99 ms": scaled(row["server_late_p99_s"], 1e3),
    }


def signed(value: float | None, factor: float) -> str | None:
    return None if value is None else f"{value * factor:+.2f}"


def scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


# ---------------------------------------------------------------------------------- the rows


def accuracy(seconds: float) -> Iterator[Row]:
    """TTFT 0.1 s; 1 to 1,024 streams."""
    for streams, itl_s in ACCURACY:
        law = Settings(ttft_s=0.1, itl_s=itl_s, jitter_frac=0.05)
        yield measure(law, streams, TOKENS, max(seconds, 8.0) if streams == 1 else seconds)


def chunks(seconds: float) -> Iterator[Row]:
    """A ladder of rates; it is held as long as the rate is reached and ITL p99 is within 5 %."""
    for chunks_per_s, streams in CHUNKS_PER_S:
        row = measure(steady_law(chunks_per_s, streams, tokens=TOKENS), streams, TOKENS, seconds)
        yield row | {"wanted_per_s": chunks_per_s, "held": held(row, chunks_per_s)}


def held(row: Row, chunks_per_s: float) -> bool:
    return (
        "trouble" not in row
        and row["chunks_per_s"] > 0.97 * chunks_per_s
        and abs(row["itl_p99_error_frac"]) <= ITL_P99_LIMIT_FRAC
    )


def requests(seconds: float) -> Iterator[Row]:
    """Answers of one token after 0.1 s: all a client does is begin and end requests."""
    for requests_per_s in REQUESTS_PER_S:
        row = measure(Settings(ttft_s=0.1, itl_s=0), requests_per_s // 10, 1, seconds)
        yield row | {"wanted_per_s": requests_per_s}


def memory(seconds: float) -> Iterator[Row]:
    """The load process at its largest, records written, while 256 streams of 256 tokens ran."""
    law = Settings(ttft_s=0.1, itl_s=0.025, jitter_frac=0.05)
    yield measure(law, MEMORY_STREAMS, 256, 4 * seconds, weigh=True)


def start(_seconds: float) -> Iterator[Row]:
    """From starting the load process to its first request at the server, beside a bare interpreter."""
    law = Settings(ttft_s=0.001, itl_s=0)
    for _ in range(STARTS):
        began_s = time.perf_counter()
        with on_core(CLIENT_CORE):
            subprocess.run([sys.executable, "-c", "pass"], check=True)
        bare_s = time.perf_counter() - began_s
        with Metronome(law, core=SERVER_CORE) as server:
            began_ns = time.perf_counter_ns()
            with on_core(CLIENT_CORE), LoadWorker() as worker:
                seen_ns = hold_first(server, worker)
        yield {"bare_s": bare_s, "first_request_s": (seen_ns - began_ns) / 1e9}


def own(_seconds: float) -> Iterator[Row]:
    """CPU of stamping, framing and keeping one chunk, without kernel and event loop."""
    chunks = 100_000

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
        return (time.process_time_ns() - began_ns) / chunks / 1e9

    yield {"own_cpu_s_per_chunk": asyncio.run(feed())}


class Nowhere(asyncio.Transport):
    """A transport that leads nowhere."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return False


def own_shown(row: Row) -> Row:
    return {"µs/chunk": row["own_cpu_s_per_chunk"] * 1e6}


def hold_first(server: Metronome, worker: LoadWorker) -> int:
    hold(server, worker, 1, 1, 0.2)
    return int(server.truth().arrived_ns[0])


def start_shown(row: Row) -> Row:
    return {
        "bare interpreter ms": row["bare_s"] * 1e3,
        "first request ms": row["first_request_s"] * 1e3,
        "beyond ms": (row["first_request_s"] - row["bare_s"]) * 1e3,
    }


def chunks_shown(row: Row) -> Row:
    return {"wanted/s": row["wanted_per_s"], "held": "yes" if row["held"] else "no"} | shown(row)


def requests_shown(row: Row) -> Row:
    return {"wanted/s": row["wanted_per_s"]} | shown(row)


def memory_shown(row: Row) -> Row:
    return {"peak PSS MiB": row.get("client_peak_pss_bytes", 0) / 2**20} | shown(row)


# Each section: its title, what measures its rows, and how a row is shown.
SECTIONS: dict[str, tuple[str, Callable[[float], Iterator[Row]], Callable[[Row], Row]]] = {
    "accuracy": ("Accuracy (TTFT 100 ms, ITL 25 and 40 ms)", accuracy, shown),
    "chunks": ("Chunk capacity", chunks, chunks_shown),
    "requests": ("Request capacity (one token after 100 ms)", requests, requests_shown),
    "open": ("Open loop, exponential gaps (KS: distance of the gaps from that law)", open_loop, open_shown),
    "start": ("Start to first request", start, start_shown),
    "own": ("Our code alone, fed from memory", own, own_shown),
    "wakes": ("A process that only wakes", wakes, wakes_shown),
    "memory": ("Memory", memory, memory_shown),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a steady window")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--json", type=Path, help="write the raw numbers here")
    options = parser.parse_args()
    raw: dict[str, list[Row]] = {}
    for name in options.only.split(","):
        title, rows, show = SECTIONS[name]
        raw[name] = list(rows(options.seconds))
        print(table(title, [show(row) for row in raw[name]]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(raw, indent=1))


if __name__ == "__main__":
    main()
