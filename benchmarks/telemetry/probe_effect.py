"""What telemetry costs the engine it watches: throughput with it on over throughput with it off.

    python benchmarks/telemetry/probe_effect.py [--pairs 8] [--seconds 5] [--boards h100:8] [--only paced,…]

One engine, one load process, one sampler; windows of load in the order on off off on.  In an "off" window the
sampler is stopped (SIGSTOP): it does nothing and nothing else differs.  The ratio is the geometric mean over
pairs of neighbours, with the 95 % interval of Student's t over them.

========  ==========================================================================================
paced     simulated engine on simulated boards, 32 streams of 50 tokens/s: not at its limit
limit     the same without waits: server and load process take all the CPU there is
engine    the built-in engine on this machine (tiny-moe), 4 streams, with the boards there are
========  ==========================================================================================

What simulated boards cost in Python, where real ones are read in C, is charged to the sampler.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from profiler import models, nvml
from profiler.engines import open_engine
from profiler.loadgen.job import LoadJob
from profiler.loadgen.worker import LoadWorker
from profiler.samples import read_samples, series
from profiler.schema import Endpoint, LoadPoint
from profiler.settings import EngineSettings, Measure, Timeouts, Workload
from profiler.stats import t_quantile
from profiler.telemetry import Sampler

SETTLE_S = 4.0  # the periods of the boards are observed at a faster pace in the first 3 s
CASES: dict[str, tuple[EngineSettings, int, int]] = {
    "paced": (EngineSettings(kind="simulated", args={"ttft_s": 0.05, "itl_s": 0.02}), 32, 64),
    "limit": (EngineSettings(kind="simulated", args={"ttft_s": 0.0, "itl_s": 0.0}), 8, 256),
    "engine": (EngineSettings(kind="transformers", dtype="float32"), 4, 32),
}


def throughput(worker: LoadWorker, endpoint: Endpoint, streams: int, tokens: int, seconds: float) -> float:
    """Chunks a second over the steady window of one closed loop."""
    with tempfile.TemporaryDirectory() as folder:
        job = LoadJob(
            endpoint=endpoint,
            workload=Workload(input_tokens=16, output_tokens=tokens),
            point=LoadPoint(mode="closed", concurrency=streams),
            measure=Measure(warmup_s=1.0, window_s=seconds, max_window_s=seconds, min_requests=0, repeats=1),
            timeouts=Timeouts(),
            window=0,
            repeat=0,
            engine_start=0,
            records_path=f"{folder}/records.parquet",
        )
        window = worker.run(job, lambda _: None, lambda: None)
    if window.steady_start_ns is None or window.steady_end_ns is None or window.audit is None:
        raise SystemExit(f"no steady window: {window.trouble}")
    return window.audit.chunks / (window.steady_end_ns - window.steady_start_ns) * 1e9


@contextlib.contextmanager
def watched(case: str, worker: LoadWorker, path: Path) -> Iterator[tuple[Endpoint, psutil.Process]]:
    """An engine that is up, and the sampler that watches it."""
    settings, _, _ = CASES[case]
    simulated = settings.kind == "simulated"
    model = models.remote("simulated") if simulated else models.resolve("tiny-moe", "random")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(nvml.shared_load())
        sampler = stack.enter_context(Sampler(path, None))
        engine = stack.enter_context(open_engine(settings, model, folder, lambda _: None))
        endpoint = engine.endpoint if simulated else worker.ask(engine.endpoint, 20.0)
        sampler.watch(case, endpoint.pid, endpoint.metrics_url)
        assert sampler.pid is not None
        time.sleep(SETTLE_S)
        yield endpoint, psutil.Process(sampler.pid)


def measure(case: str, pairs: int, seconds: float, path: Path) -> dict[str, Any]:
    """The ratio, and what the sampler took and how well it kept its times."""
    _, streams, tokens = CASES[case]
    rates: list[float] = []
    cpu_s = on_s = 0.0
    with LoadWorker() as worker, watched(case, worker, path) as (endpoint, sampler):
        throughput(worker, endpoint, streams, tokens, 1.0)
        for number in range(2 * pairs):
            is_on = number % 4 in (0, 3)
            sampler.send_signal(signal.SIGCONT if is_on else signal.SIGSTOP)
            before, began_s = _spent_s(sampler), time.perf_counter()
            rates.append(throughput(worker, endpoint, streams, tokens, seconds))
            if is_on:
                cpu_s += _spent_s(sampler) - before
                on_s += time.perf_counter() - began_s
        sampler.send_signal(signal.SIGCONT)
    return ratio(rates) | {"sampler_cpu_frac": cpu_s / on_s} | jitter(path)


def ratio(rates: list[float]) -> dict[str, Any]:
    """Geometric mean of on/off over pairs, with its 95 % interval."""
    pairs = [
        (a, b) if number % 2 == 0 else (b, a)
        for number, (a, b) in enumerate(zip(*[iter(rates)] * 2, strict=True))
    ]
    logs = [math.log(on / off) for on, off in pairs]
    half = t_quantile(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    mean = statistics.fmean(logs)
    return {
        "off_per_s": statistics.fmean(off for _, off in pairs),
        "pairs": [on / off for on, off in pairs],
        "ratio": math.exp(mean),
        "low": math.exp(mean - half),
        "high": math.exp(mean + half),
    }


def shown(case: str, row: dict[str, Any]) -> str:
    pairs = " ".join(f"{each:.3f}" for each in row["pairs"])
    late = ", ".join(f"{name.removesuffix('_late_ms')} {row[name]:.1f} ms" for name in row if "late" in name)
    return (
        f"{case:7} {row['off_per_s']:9,.0f} chunks/s off; on/off {row['ratio']:.4f} "
        f"({row['low']:.4f} to {row['high']:.4f}); sampler {row['sampler_cpu_frac'] * 100:.1f} % of a core; "
        f"worst lateness in 5 s: {late or 'no boards'}; pairs {pairs}"
    )


def jitter(path: Path) -> dict[str, float]:
    """Median over reports of the worst lateness in each; the reports after a stop say nothing."""
    samples = read_samples(path)
    found = {}
    for ticker in ("nvml", "nvml_energy"):
        _, late_s = series(samples, "sampler", f"{ticker}_late_max_s")
        if len(late_s):
            found[f"{ticker}_late_ms"] = statistics.median(late_s) * 1e3
    return found


def _spent_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--boards", default="h100:8", help="the simulated boards of the first two cases")
    parser.add_argument("--only", default=",".join(CASES))
    options = parser.parse_args()
    print(f"{options.pairs} pairs of {options.seconds:g} s; simulated boards: {options.boards}")
    for case in options.only.split(","):
        os.environ[nvml.BOARDS_VARIABLE] = options.boards if CASES[case][0].kind == "simulated" else ""
        with tempfile.TemporaryDirectory() as folder:
            print(shown(case, measure(case, options.pairs, options.seconds, Path(folder) / "samples")))


if __name__ == "__main__":
    main()
