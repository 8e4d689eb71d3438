"""Our own command line as one of the tools: ``profile run`` against the address, and its run folder read."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from peer_tools import Case, Reported, Tool

from profiler.errors import InputError

RUNS = "runs"


class Ours(Tool):
    """``profile run``, in one load process.

    It measures a steady window of ``case.seconds`` where the others count requests; where the case has no
    length, as many requests as they do, all at once.
    """

    name = "ours"

    def program(self) -> list[str] | None:
        return [sys.executable, "-m", "profiler", "run", "--engine", "endpoint", "--quiet", "--out", RUNS]

    def arguments(self, case: Case) -> list[str]:
        fields: dict[str, object] = {
            "workload.input_tokens": case.input_tokens,
            "workload.output_tokens": case.output_tokens,
            "measure.repeats": 1,
            "measure.min_requests": 0,
            "load.processes": 1,
            **self._load(case),
        }
        if case.timeout_s:
            fields |= {"timeouts.first_token_s": case.timeout_s, "timeouts.gap_s": case.timeout_s}
        changes = [part for name, value in fields.items() for part in ("--set", f"{name}={value}")]
        return ["--url", f"{case.url}/v1", "--model", case.model, *changes]

    def read(self, folder: Path) -> Reported:
        from profiler import store

        try:
            found = store.find([folder / RUNS])
        except InputError:  # it had reason not to measure at all
            return Reported()
        if not found or not found[0].manifest.windows:
            return Reported()
        window = found[0].manifest.windows[0]
        requests = found[0].requests.to_pandas()
        ok = requests["outcome"] == "ok"
        counts = Reported(
            requests_ok=int(ok.sum()),
            requests_failed=int((~ok & (requests["outcome"] != "cancelled")).sum()),
            opened_ns=window.opened_ns,
        )
        if window.steady_start_ns is None or window.steady_end_ns is None:
            return counts
        span_ns = (window.steady_start_ns, window.steady_end_ns)
        sent_ns = requests["sent_ns"].fillna(0).astype("int64")
        inside = requests[ok & (sent_ns >= span_ns[0]) & (sent_ns < span_ns[1])]
        return _with_latencies(replace(counts, span_ns=span_ns), inside) if len(inside) else counts

    def _load(self, case: Case) -> dict[str, object]:
        if case.seconds is None:
            return {"load.mode": "batch", "load.requests": case.requests}
        window = {"measure.window_s": case.seconds, "measure.max_window_s": 5 * case.seconds}
        if case.requests_per_s:
            rate = {"load.mode": "open", "load.requests_per_s": case.requests_per_s, "measure.warmup_s": 1}
            return {**window, **rate}
        one_answer_s = case.seconds * (case.streams or 1) / case.requests
        closed = {"load.mode": "closed", "load.concurrency": case.streams, "measure.warmup_s": one_answer_s}
        return {**window, **closed}


def _with_latencies(counts: Reported, requests: Any) -> Reported:
    import numpy as np

    ttft_s = (requests["first_ns"] - requests["due_ns"]).to_numpy(dtype=float) / 1e9
    gaps_s = np.concatenate([np.diff(np.asarray(each)) for each in requests["arrivals_ns"]]) / 1e9
    some = len(gaps_s) > 0
    return replace(
        counts,
        ttft_mean_s=float(ttft_s.mean()),
        ttft_p99_s=float(np.percentile(ttft_s, 99)),
        itl_mean_s=float(gaps_s.mean()) if some else None,
        itl_p99_s=float(np.percentile(gaps_s, 99)) if some else None,
    )
