"""Two rows of ``ours.py`` that need more than a window: the law of an open loop, and what a wake-up costs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from common import CLIENT_CORE, SERVER_CORE, Metronome, Settings, on_core
from numpy.typing import NDArray
from scipy import stats

from profiler.loadgen.job import LoadJob
from profiler.loadgen.worker import LoadWorker
from profiler.records import read_records
from profiler.schema import Endpoint, LoadPoint
from profiler.settings import Load, Measure, Timeouts, Workload

Row = dict[str, Any]

OPEN_PER_S = (400.0, 2_000.0)
WAKES_PER_S = (100, 1_000, 2_500, 10_000)
CHANCE = 1.358  # × n^-1/2: the distance that 5 % of true samples exceed (Kolmogorov's limit law)


def open_loop(seconds: float) -> Iterator[Row]:
    """Answers of one token after 100 ms to requests with exponential gaps: when they were due, were sent, and
    arrived at the server."""
    for rate in OPEN_PER_S:
        law = Settings(ttft_s=0.1, itl_s=0)
        with Metronome(law, core=SERVER_CORE) as server, on_core(CLIENT_CORE), LoadWorker() as worker:
            server.clear()
            with tempfile.TemporaryDirectory() as folder:
                job = _open_job(server, rate, seconds, f"{folder}/records.parquet")
                window = worker.run(job, lambda _: None, lambda: None)
                records = read_records(job.records_path)
            arrived_ns = np.sort(server.truth().arrived_ns)
        start_ns, end_ns = window.steady_start_ns or 0, window.steady_end_ns or 0
        inside = [each for each in records if start_ns <= each.due_ns < end_ns and each.sent_ns is not None]
        due_ns = np.array(sorted(each.due_ns for each in inside))
        sent_ns = np.array(sorted(each.sent_ns or 0 for each in inside))
        seen_ns = arrived_ns[(arrived_ns >= sent_ns[0]) & (arrived_ns <= sent_ns[-1] + 1_000_000)]
        late_s = np.array([(each.sent_ns or 0) - each.due_ns for each in inside]) / 1e9
        yield {
            "asked_per_s": rate,
            "requests": len(inside),
            "due_per_s": len(inside) / (end_ns - start_ns) * 1e9,
            "sent_per_s": (len(sent_ns) - 1) / (sent_ns[-1] - sent_ns[0]) * 1e9,
            "late_p50_s": float(np.median(late_s)),
            "late_p99_s": float(np.percentile(late_s, 99)),
            "distance_due": distance(due_ns, rate),
            "distance_sent": distance(sent_ns, rate),
            "distance_seen": distance(seen_ns, rate),
            "distance_chance": CHANCE / len(inside) ** 0.5,
        }


def distance(times_ns: NDArray[np.int64], rate: float) -> float:
    """Kolmogorov and Smirnov's distance of the gaps from the exponential law of this rate."""
    return float(stats.kstest(np.diff(times_ns) / 1e9, "expon", args=(0, 1 / rate)).statistic)


def open_shown(row: Row) -> Row:
    return {
        "asked/s": row["asked_per_s"],
        "requests": row["requests"],
        "sent / due": f"{row['sent_per_s'] / row['due_per_s'] - 1:+.2%}",
        "late p50 µs": row["late_p50_s"] * 1e6,
        "late p99 µs": row["late_p99_s"] * 1e6,
        **{f"KS {name}": f"{row[f'distance_{name}']:.3f}" for name in ("due", "sent", "seen", "chance")},
    }


def _open_job(server: Metronome, rate: float, seconds: float, path: str) -> LoadJob:
    return LoadJob(
        endpoint=Endpoint(
            base_url=f"http://127.0.0.1:{server.port}/v1", model=server.model, vocab_size=32_000
        ),
        workload=Workload(input_tokens=8, output_tokens=1),
        point=LoadPoint(mode="open", requests_per_s=rate),
        load=Load(mode="open", requests_per_s=(rate,), processes=1),
        measure=Measure(warmup_s=0.5, window_s=seconds, min_requests=1, max_window_s=2 * seconds),
        timeouts=Timeouts(),
        window=0,
        repeat=0,
        engine_start=0,
        records_path=path,
    )


def wakes(seconds: float) -> Iterator[Row]:
    """CPU of a process that wakes so many times a second and does nothing: what no client can go below."""
    with on_core(CLIENT_CORE):
        for rate in WAKES_PER_S:
            beats = 0
            began_s, spent_s = time.perf_counter(), time.process_time()
            while (now_s := time.perf_counter()) - began_s < seconds:
                time.sleep(max(0.0, began_s + (beats + 1) / rate - now_s))
                beats += 1
            yield {"wakes_per_s": beats / seconds, "cpu_s": (time.process_time() - spent_s) / beats}


def wakes_shown(row: Row) -> Row:
    return {"wakes/s": round(row["wakes_per_s"]), "µs/wake": row["cpu_s"] * 1e6}
