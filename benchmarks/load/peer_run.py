"""One run of one load generator: pinned, timed, weighed, and held against what the server really did."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from common import CLIENT_CORE, PeakMemory, Truth, on_core
from peer_tools import Case, Reported, Tool

from profiler.engines.simulated import command

TAIL_CHARS = 2_000


def run(
    tool: Tool, case: Case, patience_s: float, *, pinned: bool = True, weigh: bool = False
) -> dict[str, Any]:
    """Run ``tool`` on ``case``; everything it said and cost, and None for what it did not say.

    ``exit_code`` is None when it had to be killed after ``patience_s``.  Memory is looked at only when
    ``weigh``, because looking disturbs.  ``cpu_s`` is that of the whole process tree, of which a killed
    grandchild is missing.
    """
    program = tool.program()
    assert program is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, open(f"{name}/log", "wb") as log:
        folder = Path(name)
        with on_core(CLIENT_CORE) if pinned else contextlib.nullcontext():
            before, spawned_ns = _children_cpu_s(), time.perf_counter_ns()
            process = subprocess.Popen(
                [*program, *tool.arguments(case)],
                cwd=folder,
                env=tool.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        memory, code = _wait(process, patience_s, weigh)
        ended_ns, cpu_s = time.perf_counter_ns(), _children_cpu_s() - before
        reported = tool.read(folder)
        tail = (folder / "log").read_text(errors="replace")[-TAIL_CHARS:]
    return {
        **asdict(reported),
        "exit_code": code,
        "wall_s": (ended_ns - spawned_ns) / 1e9,
        "spawned_ns": spawned_ns,
        "cpu_s": cpu_s if pinned else None,
        "memory": memory,
        "said": tail if reported == Reported() or code != 0 else "",
    }


def against_truth(found: dict[str, Any], truth: Truth, case: Case) -> dict[str, Any]:
    """Reported / real − 1 of the answers the report is of, and what the server saw of the load."""
    whole = _reported_on(found, truth, case)
    ttft_s, gaps_s, late_s = whole.ttft_s(), whole.gaps_s(), whole.late_s()
    compared: dict[str, Any] = {
        "server_requests": len(truth.arrived_ns),
        "server_completed": len(whole.arrived_ns),
        "server_late_p99_s": float(np.percentile(late_s, 99)) if len(late_s) else None,
    }
    for name, true_s in (("ttft", ttft_s), ("itl", gaps_s)):
        for what, of in (("mean", np.mean), ("p99", lambda values: np.percentile(values, 99))):
            said_s = found[f"{name}_{what}_s"]
            known = said_s is not None and len(true_s)
            compared[f"{name}_{what}_error_frac"] = float(said_s / of(true_s) - 1) if known else None
            compared[f"{name}_{what}_error_s"] = float(said_s - of(true_s)) if known else None
    compared["peak_memory_bytes"] = max((held for _, held in found["memory"]), default=None)
    load_ns = truth.arrived_ns[truth.arrived_ns >= (found["opened_ns"] or 0)]
    if len(load_ns):
        compared["start_s"] = (int(load_ns[0]) - found["spawned_ns"]) / 1e9
        inside = [held for t, held in found["memory"] if load_ns[0] <= t <= truth.emitted_ns.max()]
        compared["load_memory_bytes"] = max(inside, default=None)
    return compared | _rates(found, truth, whole, case)


def _reported_on(found: dict[str, Any], truth: Truth, case: Case) -> Truth:
    """The complete answers the report is of: those sent in its span, else the last ``case.requests`` (before
    them the tool was only trying)."""
    keep = truth.chunks == case.output_tokens
    if found["span_ns"]:
        keep &= (truth.arrived_ns >= found["span_ns"][0]) & (truth.arrived_ns < found["span_ns"][1])
    else:
        keep &= keep.cumsum() > keep.sum() - case.requests
    chunks = np.repeat(keep, truth.chunks)
    return Truth(truth.arrived_ns[keep], truth.chunks[keep], truth.emitted_ns[chunks], truth.due_ns[chunks])


def _rates(found: dict[str, Any], truth: Truth, whole: Truth, case: Case) -> dict[str, Any]:
    """Chunks and requests per second as the server saw them, and how far the gaps between requests are from
    the exponential law where that was asked for (Kolmogorov and Smirnov's distance)."""
    if not len(whole.arrived_ns):
        return {}
    rates: dict[str, Any] = {"chunks": len(truth.emitted_ns)}
    if found["span_ns"]:
        start_ns, end_ns = found["span_ns"]
        arrived_ns = truth.arrived_in(start_ns, end_ns).arrived_ns
        emitted = ((truth.emitted_ns >= start_ns) & (truth.emitted_ns < end_ns)).sum()
        rates["requests_per_s"] = len(arrived_ns) / (end_ns - start_ns) * 1e9
    else:
        arrived_ns, emitted = whole.arrived_ns, len(whole.emitted_ns)
        start_ns, end_ns = int(arrived_ns[0]), int(whole.emitted_ns.max())
        # a closed loop begins with a request of every stream at once: what follows has a rate
        first = (case.streams or 1) - 1
        span_s = (arrived_ns[-1] - arrived_ns[first]) / 1e9
        rates["requests_per_s"] = float((len(arrived_ns) - 1 - first) / span_s) if span_s else None
    rates["chunks_per_s"] = float(emitted / (end_ns - start_ns) * 1e9)
    if case.requests_per_s:
        rates["ks"] = _law_distance(np.diff(arrived_ns) / 1e9, case.requests_per_s)
    return rates


def _law_distance(gaps_s: Any, asked_per_s: float) -> float:
    from scipy import stats

    return float(stats.kstest(gaps_s, "expon", args=(0, 1 / asked_per_s)).statistic)


def interpreter_start_s() -> float:
    """How long ``python -c pass`` takes, best of five."""
    took_s = []
    for _ in range(5):
        began_s = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        took_s.append(time.perf_counter() - began_s)
    return min(took_s)


@contextlib.contextmanager
def simulated(settings: dict[str, Any]) -> Iterator[int]:
    """The port of a simulated engine, whose faults are the ones asked for."""
    with subprocess.Popen(command(settings), stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield int(server.stdout.readline().split()[1])
        finally:
            server.terminate()


def _wait(
    process: subprocess.Popen[bytes], patience_s: float, weigh: bool
) -> tuple[list[tuple[int, int]], int | None]:
    """What was seen of its memory where that was asked for, and the exit code, None when killed."""
    tree: list[psutil.Process] = []
    try:
        with PeakMemory(process.pid) if weigh else contextlib.nullcontext() as peak:
            try:
                code: int | None = process.wait(patience_s)
            except subprocess.TimeoutExpired:
                code = None
                tree = psutil.Process(process.pid).children(recursive=True)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for each in tree:
            with contextlib.suppress(psutil.Error):
                each.kill()
        process.wait()
    return (peak.seen if peak else []), code


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
