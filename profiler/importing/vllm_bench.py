"""``vllm bench serve`` (plain, ``--save-detailed``, ``--append-result``), ``throughput`` and ``latency``.

Fields as vLLM 0.32.0 writes them (vllm/benchmarks/serve.py, throughput.py, latency.py); none names its
version. Its TPOT is ours; its ITL has a gap a chunk, ours k − 1 zero gaps more for a chunk of k tokens; its
TTFT and E2E count from sending, its rates from the first request to the end of the last.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from profiler.errors import InputError
from profiler.importing import requests
from profiler.importing.content import MAX_NUMBER, Content, Json, Reader
from profiler.importing.nouns import Found, Held
from profiler.importing.requests import Told
from profiler.schema import Estimate, LoadPoint

NAMES = {
    "vllm bench serve": ("completed", "request_throughput", "duration"),
    "vllm bench throughput": ("elapsed_time", "num_requests", "total_num_tokens"),
    "vllm bench latency": ("avg_latency", "latencies", "percentiles"),
}
LATENCIES = {"ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s", "e2el": "e2e_s"}
STATISTICS = {"mean": "mean", "median": "p50", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
DETAILS = ("start_times", "ttfts", "itls", "output_lens", "input_lens")


def claims(content: Content) -> bool:
    return bool(content.values) and all(_kind(value) for value in content.values)


def _kind(value: Json) -> str | None:
    return next((name for name, keys in NAMES.items() if all(key in value for key in keys)), None)


def found(content: Content) -> Iterator[Found]:
    """A run a model, kind of benchmark and workload; results of the same load in one file are its repeats."""
    reader = Reader(content.path)
    grouped: list[list[Json]] = []
    for value in content.values:
        own = next((each for each in grouped if _same_workload(reader, each[0], value)), None)
        if own is None:
            grouped.append(own := [])
        own.append(value)
    for values in grouped:
        kind = _kind(values[0]) or ""
        held = [_held(reader, kind, value) for value in values]
        yield Found(
            tool=kind,
            held=tuple(held),
            model=reader.text(values[0], "model_id"),
            engine="vllm" if kind == "vllm bench latency" else None,
            lengths=_lengths(held),
            unix_ns=_unix_ns(reader.text(values[0], "date")),
        )


def _same_workload(reader: Reader, one: Json, other: Json) -> bool:
    """Whether both asked the same of the same model, as far as they tell; lengths within 10 %."""
    words = [(_kind(each), reader.text(each, "model_id"), _shape(reader, each)) for each in (one, other)]
    lengths = zip(_mean_lengths(reader, one), _mean_lengths(reader, other), strict=True)
    return words[0] == words[1] and all(
        a is None or b is None or math.isclose(a, b, rel_tol=0.1) for a, b in lengths
    )


def _shape(reader: Reader, value: Json) -> tuple[float | None, str | None]:
    """How requests came, beside their rate."""
    return reader.number(value, "burstiness"), reader.text(value, "ramp_up_strategy")


def _mean_lengths(reader: Reader, value: Json) -> list[float | None]:
    n = reader.count(value, "completed") or reader.count(value, "num_requests")
    totals = (f"total_{which}_tokens" for which in ("input", "output", "num"))
    found = (reader.positive(value, name) for name in totals)
    return [total / n if total and n else None for total in found]


def _held(reader: Reader, kind: str, value: Json) -> Held:
    if kind == "vllm bench serve":
        return _serve(reader, value)
    return _throughput(reader, value) if kind == "vllm bench throughput" else _latency(reader, value)


def _unix_ns(date: str | None) -> int | None:
    """vLLM writes local time without saying which; the importing machine's is taken."""
    try:
        return int(time.mktime(time.strptime(date or "", "%Y%m%d-%H%M%S"))) * 10**9
    except (ValueError, OverflowError):
        return None


def _lengths(held: Sequence[Held]) -> tuple[int, int] | None:
    """Of the answered requests, where all are alike; prompts of random words differ by a token or two."""
    ok = [each for one in held for each in one.records if each.outcome == "ok"]
    prompt = requests.alike([each.input_tokens for each in ok])
    answer = requests.alike([each.output_tokens for each in ok])
    return (prompt, answer) if prompt and answer else None


# ----------------------------------------------------------------------------------------------- serve


def _serve(reader: Reader, value: Json) -> Held:
    point, notes = _point(reader, value)
    ok = reader.count(value, "completed") or 0
    failed = reader.count(value, "failed")
    sent = reader.count(value, "num_prompts")
    if failed is None and sent is not None:
        failed = max(0, sent - ok)
    if _is_detailed(reader, value):
        told = tuple(_requests(reader, value, point.mode == "open"))
        return Held(point=point, records=requests.records(told), notes=notes)
    if reader.list(value, "itls") is not None:
        notes += ("an older vLLM kept no start times of its requests: its summary is taken",)
    figures = _summary(reader, value, ok)
    return Held(point=point, figures=figures, requests_ok=ok, requests_failed=failed, notes=notes)


def _is_detailed(reader: Reader, value: Json) -> bool:
    return all(reader.list(value, key) is not None for key in DETAILS)


def _point(reader: Reader, value: Json) -> tuple[LoadPoint, tuple[str, ...]]:
    """The load that was asked for: a rate, else so many streams, else all prompts at once."""
    cap, sent = (reader.count(value, name) or None for name in ("max_concurrency", "num_prompts"))
    burstiness, ramp = _shape(reader, value)
    rate = None if value.get("request_rate") == "inf" else reader.positive(value, "request_rate")
    notes = []
    low, high = (reader.positive(value, f"ramp_up_{end}_rps") for end in ("start", "end"))
    if ramp and low and high:
        rate = _mean_rate(ramp, low, high)
        notes += [f"the rate was ramped from {low:g} to {high:g}/s ({ramp}): its mean was held at no time"]
    if burstiness not in (None, 1.0):
        notes += [f"requests came as a gamma process of burstiness {burstiness:g}, not as Poisson's"]
    if rate is not None:
        if cap:
            counts = "counts" if _is_detailed(reader, value) else "is in none of its summary's times"
            notes += [f"no more than {cap} requests were in flight: waiting for a place {counts}"]
        return LoadPoint(mode="open", requests_per_s=rate), tuple(notes)
    if cap is not None and (sent is None or cap < sent):
        return LoadPoint(mode="closed", concurrency=cap), ()
    return LoadPoint(mode="batch", concurrency=sent), ()


def _mean_rate(ramp: str, low: float, high: float) -> float:
    """Requests over time: request i of n waits 1/r(i/n), where r grows from low to high as ``ramp`` says
    (``_get_current_request_rate`` of vllm/benchmarks/serve.py)."""
    if math.isclose(low, high):
        return low
    per_log = math.log(high / low) / (high - low)
    return low * high * per_log if ramp == "exponential" else 1 / per_log


def _requests(reader: Reader, value: Json, is_open: bool) -> Iterator[Told]:
    columns: dict[str, Sequence[Any]] = {key: reader.list(value, key) or () for key in DETAILS}
    n = len(columns["start_times"])
    errors = reader.list(value, "errors") or [""] * n
    # Before a rate's request was sent it waited for a place, where places were few.
    waits = reader.list(value, "queue_times") or [0.0] * n
    if {len(each) for each in (*columns.values(), errors, waits)} != {n}:
        raise InputError(f"{reader.path}: its lists of requests differ in length: damaged")
    try:
        for start, ttft, itls, answer, prompt, error, wait in zip(
            *columns.values(), errors, waits, strict=True
        ):
            times = list(accumulate([start + ttft, *itls])) if ttft else []
            yield Told(
                sent=float(start),
                due=start - wait if is_open else None,
                tokens=times,
                input_tokens=int(prompt),
                output_tokens=int(answer) if answer else len(times),
                error=str(error) if error or not answer else None,
            )
    except (TypeError, ValueError, OverflowError) as damage:
        raise InputError(f"{reader.path}: a request in it is damaged: {damage}") from None


def _summary(reader: Reader, value: Json, ok: int) -> dict[str, Estimate]:
    """A latency of 0 is what vLLM writes where it has none."""
    duration_s = reader.positive(value, "duration")
    rates = {
        "output_tokens_per_s": reader.positive(value, "output_throughput"),
        "requests_per_s": reader.positive(value, "request_throughput"),
        "total_tokens_per_s": reader.positive(value, "total_token_throughput"),
    }
    sums = {"input": reader.positive(value, "total_input_tokens")}
    sums["output"] = reader.positive(value, "total_output_tokens")
    if sums["input"] and duration_s:
        rates["input_tokens_per_s"] = sums["input"] / duration_s
    means = {f"{kind}_tokens_mean": total / ok for kind, total in sums.items() if total and ok}
    found = {name: each for name, each in (rates | means).items() if each is not None}
    for theirs, ours in LATENCIES.items():
        for statistic, name in STATISTICS.items():
            ms = reader.positive(value, f"{statistic}_{theirs}_ms")
            if ms is not None:
                found[f"{ours}_{name}"] = ms / 1e3
    figures = {name: Estimate(each, n=ok, over="requests") for name, each in found.items()}
    return _e2e(reader, value) | figures


def _e2e(reader: Reader, value: Json) -> dict[str, Estimate]:
    """End-to-end times, which 0.32 keeps for every request also in plain results; 0 where one failed."""
    import numpy as np

    told = reader.list(value, "latencies") or ()
    times = [each for each in told if isinstance(each, float) and 0 < each < MAX_NUMBER]
    if not times:
        return {}
    shares = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
    found = {name: float(np.quantile(times, q)) for name, q in shares.items()} | {
        "mean": float(np.mean(times))
    }
    return {f"e2e_s_{name}": Estimate(each, n=len(times), over="requests") for name, each in found.items()}


# ------------------------------------------------------------------------------------ throughput, latency


def _throughput(reader: Reader, value: Json) -> Held:
    """Offline: all prompts at once; the file has the sum of input and output tokens, not the parts."""
    sent = reader.count(value, "num_requests") or None
    rates = {
        "requests_per_s": reader.positive(value, "requests_per_second"),
        "total_tokens_per_s": reader.positive(value, "tokens_per_second"),
    }
    return Held(
        point=LoadPoint(mode="batch", concurrency=sent),
        figures={name: Estimate(each, n=sent or 1, over="requests") for name, each in rates.items() if each},
        requests_ok=sent,
        notes=("vllm bench throughput does not tell input from output tokens: no cost of an output token",),
    )


def _latency(reader: Reader, value: Json) -> Held:
    """One batch after the other: seconds from its start to its end."""
    n = len(reader.list(value, "latencies") or ())
    given = {"mean": reader.positive(value, "avg_latency")}
    given |= {f"p{q}": reader.positive(value, "percentiles", str(q)) for q in (50, 90, 99)}
    return Held(
        point=LoadPoint(mode="batch"),
        figures={f"e2e_s_{q}": Estimate(each, n=n, over="batches") for q, each in given.items() if each},
        notes=("vllm bench latency does not say how large its batch and how long its prompts were",),
    )
