"""How far this machine's load generator can be believed: it measures a server whose truth is known.

A metronome (:mod:`profiler.engines.metronome`) streams at a given rate to the very load process that
measures engines.  Both clocks are one, so what the load process says of some requests is compared with what
the server did for the same requests; the server's own lateness is in both and cancels.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from profiler.client import Calibration
from profiler.engines.metronome_law import Settings
from profiler.engines.truth import Metronome, Truth
from profiler.errors import LoadError
from profiler.loadgen.job import LoadJob
from profiler.loadgen.worker import LoadWorker
from profiler.records import read_records
from profiler.schema import Endpoint, LoadPoint, RequestRecord, Window
from profiler.settings import Load, Measure, Timeouts, Workload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TTFT_S = 0.1
JITTER_FRAC = 0.05  # so that streams which once met do not go in step ever after
LONGEST_ANSWER_S = 0.5
INPUT_TOKENS = 128
FEWEST_REQUESTS = 5
FEWEST_GAPS = 50
# Another run's calibration stands for this one's when it was done lately and at a load at least as hard, but
# for the scatter of rates, and no more than twice as hard.
FRESH_S, AS_HARD = 3600.0, (0.9, 2.0)


class Seen(Struct, frozen=True, kw_only=True):
    """The same requests twice: what the client says of them and what the server did."""

    window: Window
    ttft_s: Any  # NDArray[np.float64]
    gaps_s: Any  # NDArray[np.float64]
    truth: Truth


def calibrate(
    chunks_per_s: float,
    concurrency: int,
    *,
    seconds: float = 2.0,
    tokens_per_answer: int = 64,
    worker: LoadWorker | None = None,
    folder: Path | None = None,
) -> Calibration:
    """Measure the load generator at about this rate, in a steady window of at least ``seconds``.

    Answers are shorter than ``tokens_per_answer`` where they would take more than half a second.  Server and
    client get a core each where there are two.  Without a ``worker`` that already runs a load process is
    started.  Its requests are written to ``folder`` and removed; where none is given to one for temporary
    files, where they stay when this process is killed.  Raises LoadError when no steady window came about,
    EngineError when the metronome fails; nothing it started outlives the call.
    """
    if worker is not None:
        with worker.kept_to(_cores()[1]):
            found = calibrate_worker(worker, chunks_per_s, concurrency, seconds, tokens_per_answer, folder)
        worker.calibrations.append((time.monotonic(), found))
        return found
    with load_process() as own:
        return calibrate_worker(own, chunks_per_s, concurrency, seconds, tokens_per_answer, folder)


def earlier(worker: LoadWorker, chunks_per_s: float, concurrency: int) -> Calibration | None:
    """The latest calibration of ``worker`` that stands for one at this load, if there is any."""
    least, most = AS_HARD
    for when_s, found in reversed(worker.calibrations):
        loads = (found.chunks_per_s / chunks_per_s, found.concurrency / concurrency)
        if time.monotonic() - when_s < FRESH_S and all(least <= each <= most for each in loads):
            return found
    return None


def calibrate_worker(
    worker: LoadWorker,
    chunks_per_s: float,
    concurrency: int,
    seconds: float,
    tokens_per_answer: int,
    folder: Path | None = None,
) -> Calibration:
    """:func:`calibrate` with a load process that is already there (see :func:`load_process`)."""
    tokens = min(tokens_per_answer, max(2, round(chunks_per_s / concurrency * LONGEST_ANSWER_S)))
    law = steady_law(chunks_per_s, concurrency, tokens=tokens)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        path = f"{own}/records.parquet"
        with Metronome(law, core=_cores()[0], key=secrets.token_hex(16)) as server:
            window, truth = _held(server, worker, _job(server, concurrency, tokens, seconds, path))
        return summary(_seen(window, read_records(path), truth))  # the metronome, and its memory, are gone


@contextlib.contextmanager
def load_process() -> Iterator[LoadWorker]:
    """A load process that keeps off the metronome's core."""
    worker = LoadWorker()
    with on_cores(_cores()[1]):
        worker.__enter__()
    try:
        yield worker
    finally:
        worker.__exit__(None, None, None)


def steady_law(
    chunks_per_s: float,
    streams: int,
    *,
    tokens: int = 64,
    ttft_s: float = TTFT_S,
    jitter_frac: float = JITTER_FRAC,
) -> Settings:
    """The law under which ``streams`` back-to-back answers of ≥ 2 ``tokens`` make this many chunks/s::

        streams · tokens = chunks_per_s · (ttft_s + (tokens − 1) · itl_s)

    ``ttft_s`` is cut to half of an answer's length where it is more.
    """
    answer_s = streams * tokens / chunks_per_s
    ttft_s = min(ttft_s, answer_s / 2)
    return Settings(ttft_s=ttft_s, itl_s=(answer_s - ttft_s) / (tokens - 1), jitter_frac=jitter_frac)


def hold(server: Metronome, worker: LoadWorker, concurrency: int, tokens: int, seconds: float) -> Seen:
    """One closed-loop window against a metronome; LoadError when it never became steady."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/records.parquet"
        window, truth = _held(server, worker, _job(server, concurrency, tokens, seconds, path))
        return _seen(window, read_records(path), truth)


def _held(server: Metronome, worker: LoadWorker, job: LoadJob) -> tuple[Window, Truth]:
    server.clear()
    window = worker.run(job, lambda _: None, lambda: None)
    if window.steady_start_ns is None or window.steady_end_ns is None:
        raise LoadError(f"the load generator could not be calibrated: {window.trouble}")
    return window, server.truth()


def _job(server: Metronome, concurrency: int, tokens: int, seconds: float, path: str) -> LoadJob:
    address = f"http://127.0.0.1:{server.port}/v1"
    return LoadJob(
        endpoint=Endpoint(base_url=address, model=server.model, api_key=server.key, vocab_size=32_000),
        workload=Workload(input_tokens=INPUT_TOKENS, output_tokens=tokens),
        point=LoadPoint(mode="closed", concurrency=concurrency),
        load=Load(processes=1),
        measure=Measure(
            warmup_s=0.3, window_s=seconds, min_requests=FEWEST_REQUESTS, max_window_s=5 * seconds
        ),
        timeouts=Timeouts(),
        window=0,
        repeat=0,
        engine_start=0,
        records_path=path,
    )


def _seen(window: Window, records: list[RequestRecord], truth: Truth) -> Seen:
    """Pick the requests sent inside the window.  Server and client know a request by its place in order:
    the n-th sent is the n-th to arrive, up to neighbours that overtake each other on the way."""
    import numpy as np

    assert window.steady_start_ns is not None
    assert window.steady_end_ns is not None
    sent = sorted(
        (record for record in records if record.sent_ns is not None), key=lambda record: record.sent_ns or 0
    )
    times = np.array([record.sent_ns for record in sent], dtype=np.int64)
    first, last = (int(np.searchsorted(times, at)) for at in (window.steady_start_ns, window.steady_end_ns))
    chosen = [record for record in sent[first:last] if record.outcome == "ok"]
    ttft_ns = [(record.first_ns or 0) - record.due_ns for record in chosen]
    gaps_ns = [np.diff(np.array(record.arrivals_ns, dtype=np.int64)) for record in chosen]
    return Seen(
        window=window,
        ttft_s=np.array(ttft_ns, dtype=np.int64) / 1e9,
        gaps_s=np.concatenate([np.zeros(0, dtype=np.int64), *gaps_ns]) / 1e9,
        truth=truth.part(first, last),
    )


def summary(seen: Seen) -> Calibration:
    """The errors of what was seen, and what seeing it took."""
    import numpy as np

    window, audit = seen.window, seen.window.audit
    length_s = ((window.steady_end_ns or 0) - (window.steady_start_ns or 0)) / 1e9
    chunks = audit.chunks if audit is not None else 0
    ttft_s, gaps_s = seen.truth.ttft_s(), seen.truth.gaps_s()
    enough = min(seen.ttft_s.size, ttft_s.size) >= FEWEST_REQUESTS
    enough_gaps = min(seen.gaps_s.size, gaps_s.size) >= FEWEST_GAPS
    late_s = seen.truth.late_s()
    cpu_frac = audit.cpu_frac if audit is not None else None
    return Calibration(
        chunks_per_s=chunks / length_s,
        concurrency=window.point.concurrency or 0,
        requests=len(seen.ttft_s),
        chunks=chunks,
        ttft_mean_error_frac=_error_frac(np.mean, seen.ttft_s, ttft_s) if enough else None,
        ttft_p99_error_frac=_error_frac(_p99, seen.ttft_s, ttft_s) if enough else None,
        ttft_mean_error_s=float(seen.ttft_s.mean() - ttft_s.mean()) if enough else None,
        itl_mean_error_frac=_error_frac(np.mean, seen.gaps_s, gaps_s) if enough_gaps else None,
        itl_p99_error_frac=_error_frac(_p99, seen.gaps_s, gaps_s) if enough_gaps else None,
        server_late_p99_s=_p99(late_s) if late_s.size else None,
        client_cpu_frac=cpu_frac,
        client_cpu_s_per_chunk=cpu_frac * length_s / chunks if cpu_frac is not None and chunks else None,
    )


def _error_frac(
    of: Callable[[NDArray[np.float64]], Any], measured: NDArray[np.float64], true: NDArray[np.float64]
) -> float:
    return float(of(measured) / of(true) - 1)


def _p99(values: NDArray[np.float64]) -> float:
    import numpy as np

    return float(np.percentile(values, 99))


def _cores() -> tuple[int | None, set[int]]:
    """A core for the server alone and those left to the client; None and none where that cannot be had."""
    if not hasattr(os, "sched_getaffinity"):
        return None, set()
    first, *others = sorted(os.sched_getaffinity(0))
    return (first, set(others)) if others else (None, set())


@contextlib.contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """This thread, and with it every process it starts meanwhile, runs on these cores; none: anywhere."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
