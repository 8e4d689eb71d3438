"""AIPerf's exports: ``profile_export.jsonl`` (a line a request), ``profile_export_aiperf.json`` and ``.csv``.

Fields as 0.13.0 writes them.  Given one of the three, those beside it are read too: requests from the lines,
model and load from the JSON.  Its "inter-chunk latency" is our ITL but for the zero gaps of a chunk of
several tokens, its "inter-token latency" our TPOT; its TTFT counts from sending, ours of an open loop from
when the schedule gave the request out (``credit_issued_ns``).  Prompts are counted by the server's usage
where it tells, else by AIPerf's tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any

from profiler.errors import InputError
from profiler.importing import content as contents
from profiler.importing import requests
from profiler.importing.content import Content, Json, Reader
from profiler.importing.nouns import Found, Held
from profiler.importing.requests import Told
from profiler.schema import Estimate, LoadPoint

NAME = "AIPerf"
LINES, SUMMARY = "profile_export.jsonl", "profile_export_aiperf.json"
# Its metric → ours, and what its unit takes to ours.
METRICS = {
    "time_to_first_token": ("ttft_s", 1e3),
    "inter_chunk_latency": ("itl_s", 1e3),
    "inter_token_latency": ("tpot_s", 1e3),
    "request_latency": ("e2e_s", 1e3),
}
RATES = {
    "output_token_throughput": "output_tokens_per_s",
    "input_token_throughput": "input_tokens_per_s",
    "total_token_throughput": "total_tokens_per_s",
    "request_throughput": "requests_per_s",
}
COUNTS = {"input_sequence_length": "input_tokens_mean", "output_sequence_length": "output_tokens_mean"}
# GPU telemetry, by vendor: energy in mJ a token.
ENERGY, POWER = "_energy_per_output_token", "_total_gpu_power"
# Below this share of the rate that was asked for, a cap on requests in flight was the load: AIPerf's schedule
# gives no request out before there is a place.
HELD_BACK_FRAC = 0.8
STATISTICS = {"avg": "mean", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
# The table's names of the metrics.
HEADERS = {
    "Time to First Token (ms)": "time_to_first_token",
    "Inter Chunk Latency (ms)": "inter_chunk_latency",
    "Inter Token Latency (ms)": "inter_token_latency",
    "Request Latency (ms)": "request_latency",
    "Output Token Throughput (tokens/sec)": "output_token_throughput",
    "Input Token Throughput (tokens/sec)": "input_token_throughput",
    "Total Token Throughput (tokens/sec)": "total_token_throughput",
    "Request Throughput (requests/sec)": "request_throughput",
    "Input Sequence Length (tokens)": "input_sequence_length",
    "Output Sequence Length (tokens)": "output_sequence_length",
    "Request Count": "request_count",
    "Error Request Count": "error_request_count",
    "Effective Concurrency": "effective_concurrency",
}


def claims(content: Content) -> bool:
    return bool(_is_summary(content) or _is_lines(content) or _is_table(content))


def _is_summary(content: Content) -> bool:
    return len(content.values) == 1 and "aiperf_version" in content.values[0]


def _is_lines(content: Content) -> bool:
    return bool(content.values) and all(
        isinstance(value.get("metadata"), dict) and "request_start_ns" in value["metadata"]
        for value in content.values
    )


def _is_table(content: Content) -> bool:
    return bool(content.rows) and content.rows[0][:2] == ("Metric", "avg")


def found(content: Content) -> Iterator[Found]:
    """One run from all that lies beside the file."""
    parts = _beside(content)
    digest = sha256("".join(part.sha256 for part in parts).encode()).hexdigest()
    reader = Reader(content.path)
    summary: Json = next((part.values[0] for part in parts if _is_summary(part)), {})
    table = next((part for part in parts if _is_table(part)), None)
    if not summary and table is not None:
        summary = _of_table(table)
    lines: Sequence[Json] = next((part.values for part in parts if _is_lines(part)), ())
    models = reader.list(summary, "input_config", "models", "items") or [{}]
    if len(models) != 1:
        raise InputError(f"{content.path}: several models under one load: their figures cannot be told apart")
    point, notes = _point(reader, summary, lines)
    told = list(_requests(reader, lines, point.mode == "open"))
    if not requests.streamed(told):
        told, notes = [], (*notes, requests.NOT_STREAMED)
    records = requests.records(told)
    failed = reader.count(summary, "error_request_count", "avg")
    ok = reader.count(summary, "request_count", "avg")
    started = [reader.number(line, "metadata", "request_start_ns") for line in lines]
    yield Found(
        tool=NAME,
        version=reader.text(summary, "aiperf_version"),
        model=reader.text(models[0], "name") if isinstance(models[0], dict) else None,
        held=(
            Held(
                point=point,
                records=records,
                figures=_energy(reader, summary) if records else _figures(reader, summary),
                requests_ok=ok,
                requests_failed=failed if failed is not None or not summary else 0,
                notes=notes,
            ),
        ),
        lengths=_lengths(reader, summary),
        unix_ns=min((int(each) for each in started if each), default=None),
        sha256=digest,
        notes=() if len(parts) < 2 else (f"read with {', '.join(part.path.name for part in parts[1:])}",),
    )


def _beside(content: Content) -> list[Content]:
    """The file and its companions, in the same order whichever was given; ``--profile-export-prefix`` calls
    them all alike."""
    stem = content.path.stem
    usual = stem in (Path(LINES).stem, Path(SUMMARY).stem)
    names = (LINES, SUMMARY) if usual else (f"{stem}.jsonl", f"{stem}.json")
    near = [content.path.with_name(name) for name in names]
    others = [contents.read(path) for path in near if path.is_file() and path.name != content.path.name]
    parts = [content, *(each for each in others if claims(each))]
    if any(_is_summary(part) for part in parts):
        parts = [part for part in parts if not _is_table(part)]
    order = (_is_lines, _is_summary, _is_table)
    return sorted(parts, key=lambda part: [not of(part) for of in order])


# ------------------------------------------------------------------------------------------- the load


def _point(reader: Reader, summary: Json, lines: Sequence[Json]) -> tuple[LoadPoint, tuple[str, ...]]:
    """What was asked for, else (only lines, or a table) what was seen at most."""
    phases = reader.list(summary, "input_config", "phases") or ()
    phase: Json = next((p for p in phases if isinstance(p, dict) and p.get("kind") == "profiling"), {})
    rate, streams = reader.positive(phase, "rate"), reader.count(phase, "concurrency") or None
    seen = reader.about(summary, "effective_concurrency", "max") or _in_flight(reader, lines)
    if rate is not None:
        sent = _rate(reader, summary, lines)
        if streams is None or seen < streams:
            return LoadPoint(mode="open", requests_per_s=rate), ()
        if sent is None or sent > HELD_BACK_FRAC * rate:
            note = f"{streams} requests in flight were the most: AIPerf counts no waiting for a place"
            return LoadPoint(mode="open", requests_per_s=rate), (note,)
        note = f"{rate:g} requests/s were asked for and {sent:.3g} sent: a place was free for no more of them"
        return LoadPoint(mode="closed", concurrency=streams), (note,)
    if streams is not None:
        return LoadPoint(mode="closed", concurrency=streams), ()
    note = "the load that was asked for is not in the file: as many streams as were seen at once"
    return LoadPoint(mode="closed", concurrency=seen or None), (note,)


def _rate(reader: Reader, summary: Json, lines: Sequence[Json]) -> float | None:
    """Requests a second, as they were sent."""
    told = (reader.number(line, "metadata", "request_start_ns") for line in _measured(reader, lines))
    sent = [each for each in told if each is not None]
    span_s = (max(sent) - min(sent)) / 1e9 if sent else 0.0
    return (len(sent) - 1) / span_s if span_s > 0 else reader.positive(summary, "request_throughput", "avg")


def _in_flight(reader: Reader, lines: Sequence[Json]) -> int:
    """The most requests at a time."""
    changes = []
    for line in _measured(reader, lines):
        start, end = (reader.number(line, "metadata", f"request_{which}_ns") for which in ("start", "end"))
        changes += [(start or 0.0, 1), (end or start or 0.0, -1)]
    return max(accumulate(change for _, change in sorted(changes)), default=0)


def _lengths(reader: Reader, summary: Json) -> tuple[int, int] | None:
    """Of synthetic prompts without spread."""
    sets = reader.list(summary, "input_config", "datasets") or ()
    data: Json = sets[0] if len(sets) == 1 and isinstance(sets[0], dict) else {}
    asked = reader.table(data, "prompts")
    if reader.number(data, "turns", "mean") not in (None, 1.0):  # what was said before is in the prompts too
        return None
    if any(reader.number(asked, kind, "stddev") != 0 for kind in ("isl", "osl")):
        return None
    prompt, answer = (reader.about(asked, kind, "mean") for kind in ("isl", "osl"))
    return (prompt, answer) if prompt and answer else None


# ------------------------------------------------------------------------------------------- requests


def _measured(reader: Reader, lines: Sequence[Json]) -> Iterator[Json]:
    """AIPerf's warm-up is in the same file."""
    for line in lines:
        if reader.table(line, "metadata").get("benchmark_phase", "profiling") == "profiling":
            yield line


def _requests(reader: Reader, lines: Sequence[Json], is_open: bool) -> Iterator[Told]:
    for line in _measured(reader, lines):
        about = reader.table(line, "metadata")
        sent, ended = (reader.number(about, f"request_{which}_ns") for which in ("start", "end"))
        if sent is None:
            raise InputError(f"{reader.path}: a request without request_start_ns: damaged")
        error, due = reader.table(line, "error"), reader.number(about, "credit_issued_ns")
        yield Told(
            sent=sent / 1e9,
            due=due / 1e9 if is_open and due is not None else None,
            tokens=_times(reader, line, sent / 1e9),
            done=None if ended is None else ended / 1e9,
            input_tokens=_count(reader, line, "usage_prompt_tokens", "input_sequence_length"),
            output_tokens=_count(reader, line, "usage_completion_tokens", "output_sequence_length") or 0,
            asked_input_tokens=_count(reader, line, "input_sequence_length", "error_isl"),
            error=f"{error.get('type')}: {error.get('message')}" if error else None,
            status=reader.count(error, "code") if error else None,
            cancelled=bool(about.get("was_cancelled")),
        )


def _times(reader: Reader, line: Json, sent: float) -> list[float]:
    first_ms = reader.number(line, "metrics", "time_to_first_token", "value")
    if first_ms is None:
        return []
    gaps = reader.list(line, "metrics", "inter_chunk_latency", "value") or ()
    try:
        return list(accumulate([sent + first_ms / 1e3, *(each / 1e3 for each in gaps)]))
    except (TypeError, OverflowError):
        raise InputError(f"{reader.path}: inter_chunk_latency holds what is no number: damaged") from None


def _count(reader: Reader, line: Json, *names: str) -> int | None:
    each = (reader.count(line, "metrics", name, "value") for name in names)
    return next((value for value in each if value is not None), None)


# ------------------------------------------------------------------------------------------- figures


def _figures(reader: Reader, summary: Json) -> dict[str, Estimate]:
    """What the summary says, where there are no lines; 0 is what it has where there is nothing."""
    n = reader.count(summary, "request_count", "avg") or 0
    found: dict[str, float | None] = {}
    for theirs, (ours, per_s) in METRICS.items():
        for statistic, name in STATISTICS.items():
            value = reader.positive(summary, theirs, statistic)
            found[f"{ours}_{name}"] = None if value is None else value / per_s
    found |= {ours: reader.positive(summary, theirs, "avg") for theirs, ours in (RATES | COUNTS).items()}
    told = {name: Estimate(each, n=n, over="requests") for name, each in found.items() if each and n}
    return told | _energy(reader, summary)


def _energy(reader: Reader, summary: Json) -> dict[str, Estimate]:
    """Of the whole run, by the GPUs' own counters; None of it where its unit is another than known."""
    found: dict[str, Estimate] = {}
    for vendor in ("nvidia", "amd"):
        energy, power = (reader.table(summary, vendor + name) for name in (ENERGY, POWER))
        if (mj := reader.positive(energy, "avg")) and energy.get("unit") == "mJ/token":
            found["energy_j_per_output_token"] = Estimate(mj / 1e3)
        if (watts := reader.positive(power, "avg")) and power.get("unit") == "W":
            found["power_w_mean"] = Estimate(watts)
    return found


def _of_table(content: Content) -> Json:
    """The CSV export as the JSON one would have it: a table of statistics, then one of single values."""
    header = content.rows[0]
    found: dict[str, Any] = {}
    for row in content.rows[1:]:
        name = HEADERS.get(row[0])
        if name is None:
            continue
        columns = header[1:] if len(row) > 2 else ("avg",)
        try:
            found[name] = {key: float(cell) for key, cell in zip(columns, row[1:], strict=False) if cell}
        except ValueError:
            raise InputError(f"{content.path}: {row[0]}: {' '.join(row[1:])[:40]!r} is no number") from None
    return found
