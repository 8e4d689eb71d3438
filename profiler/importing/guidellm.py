"""GuideLLM's JSON (``guidellm run --output kind=json``), a load point a benchmark.

Fields as 0.8.1 writes them.  Its "inter-token latency" is a request's mean gap, our TPOT; it keeps when the
first and the last token of a request came and none between.  Its TTFT counts from sending, ours of an
open loop from when its schedule wanted the request (``targeted_start``); its request latency runs to the end
of the response, ours to the last token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from profiler.errors import InputError
from profiler.importing import requests
from profiler.importing.content import Content, Json, Reader
from profiler.importing.nouns import Found, Held
from profiler.importing.requests import Told
from profiler.schema import Estimate, LoadPoint

NAME = "GuideLLM"
STATISTICS = ("p50", "p90", "p95", "p99")
# Its metric → ours, and what its unit takes to ours.
METRICS = {
    "time_to_first_token_ms": ("ttft_s", 1e3),
    "inter_token_latency_ms": ("tpot_s", 1e3),
    "request_latency": ("e2e_s", 1.0),
}
RATES = {
    "output_tokens_per_second": "output_tokens_per_s",
    "tokens_per_second": "total_tokens_per_s",
    "requests_per_second": "requests_per_s",
}
COUNTS = {"prompt_token_count": "input_tokens_mean", "output_token_count": "output_tokens_mean"}
NO_GAPS = "GuideLLM keeps no gaps between tokens: ITL n/a, tokens are taken as evenly spread"


def claims(content: Content) -> bool:
    return len(content.values) == 1 and isinstance(content.values[0].get("benchmarks"), list)


def found(content: Content) -> Iterator[Found]:
    reader, (value,) = Reader(content.path), content.values
    benchmarks = reader.list(value, "benchmarks") or ()
    if not benchmarks or not all(isinstance(each, dict) for each in benchmarks):
        raise InputError(f"{content.path}: no benchmark of GuideLLM was finished in it")
    grouped: dict[str | None, list[Json]] = {}
    for benchmark in benchmarks:
        model = reader.text(benchmark, "config", "backend", "model")
        grouped.setdefault(model or reader.text(value, "config", "spec", "backend", "model"), []).append(
            benchmark
        )
    for model, own in grouped.items():
        started = reader.positive(own[0], "start_time")
        yield Found(
            tool=NAME,
            version=reader.text(value, "metadata", "guidellm_version"),
            model=model,
            held=tuple(_held(reader, each) for each in own),
            lengths=_lengths(reader, value),
            gaps_known=False,
            unix_ns=None if started is None else int(started * 1e9),
            notes=(NO_GAPS,),
        )


def _lengths(reader: Reader, value: Json) -> tuple[int, int] | None:
    """Of synthetic data without spread."""
    data = reader.list(value, "config", "spec", "data") or ()
    varying = ("prompt_tokens_stdev", "output_tokens_stdev", "prefix_buckets")
    if len(data) != 1 or not isinstance(data[0], dict) or any(data[0].get(name) for name in varying):
        return None
    if data[0].get("turns", 1) != 1:  # what was said before is in the prompts too
        return None
    prompt, answer = (reader.count(data[0], f"{kind}_tokens") for kind in ("prompt", "output"))
    return (prompt, answer) if prompt and answer else None


def _held(reader: Reader, benchmark: Json) -> Held:
    point, kept = _point(reader, benchmark), reader.table(benchmark, "requests")
    lists = {name: reader.list(kept, name) or () for name in ("successful", "errored", "incomplete")}
    is_open = point.mode in ("open", "replay")
    told = [each for name, own in lists.items() for each in _requests(reader, name, own, is_open)]
    if told and requests.streamed(told):
        return Held(point=point, records=requests.records(told))
    totals = {name: reader.count(benchmark, "metrics", "request_totals", name) for name in lists}
    return Held(
        point=point,
        figures=_summary(reader, benchmark),
        requests_ok=totals["successful"],
        requests_failed=totals["errored"],
        notes=(requests.NOT_STREAMED,) if told else (),
    )


def _point(reader: Reader, benchmark: Json) -> LoadPoint:
    strategy = reader.table(benchmark, "config", "strategy")
    kind = reader.text(strategy, "type_")
    if kind in ("constant", "poisson"):
        return LoadPoint(mode="open", requests_per_s=reader.positive(strategy, "rate"))
    if kind == "trace":
        return LoadPoint(mode="replay")
    if kind in ("concurrent", "throughput", "synchronous"):
        streams = reader.count(strategy, "streams") or reader.count(strategy, "max_concurrency")
        return LoadPoint(mode="closed", concurrency=1 if kind == "synchronous" else streams)
    raise InputError(f"{reader.path}: config.strategy.type_ {str(kind)[:40]!r} is no load that is known here")


def _requests(reader: Reader, kind: str, kept: Sequence[Any], is_open: bool) -> Iterator[Told]:
    """A closed loop has no schedule: ``throughput`` wants all of them at the start."""
    for each in kept:
        if not isinstance(each, dict):
            raise InputError(f"{reader.path}: requests.{kind} holds what is no request: damaged")
        times = reader.table(each, "info", "timings")
        sent = reader.number(times, "request_start")
        if sent is None:  # it waited until the end and was never sent
            continue
        answer = reader.count(each, "output_tokens")
        first, last = (reader.number(times, f"{which}_token_iteration") for which in ("first", "last"))
        error = reader.text(each, "info", "error")
        yield Told(
            sent=sent,
            due=reader.number(times, "targeted_start") if is_open else None,
            ends=None if first is None or last is None else (first, last),
            done=reader.number(times, "request_end"),
            input_tokens=reader.count(each, "prompt_tokens"),
            output_tokens=answer or 0,
            error=error or "failed" if kind == "errored" else None,
            cancelled=kind == "incomplete",
        )


def _summary(reader: Reader, benchmark: Json) -> dict[str, Estimate]:
    """What it says of the successful requests; a distribution of none is all zeros."""
    found: dict[str, Estimate] = {}

    def keep(name: str, value: float | None, n: int) -> None:
        if value:
            found[name] = Estimate(value, n=n, over="requests")

    for theirs in (*METRICS, *RATES, *COUNTS):
        own = reader.table(benchmark, "metrics", theirs, "successful")
        n = reader.count(own, "count") or 0
        if n and theirs in METRICS:
            name, per_s = METRICS[theirs]
            keep(f"{name}_mean", (reader.number(own, "mean") or 0) / per_s, n)
            for q in STATISTICS:
                keep(f"{name}_{q}", (reader.number(own, "percentiles", q) or 0) / per_s, n)
        elif n:
            keep((RATES | COUNTS)[theirs], reader.number(own, "mean"), n)
    return found
