"""Tables of measurements: CSV with a header, or JSON rows, as ML.ENERGY publishes them.

A row is a load point.  Names of columns are read in any case, with any of the spellings below; a unit in a
name is the unit of its numbers.  Our own names (``profile compare --format csv``) with ``_low`` and
``_high`` are read too.  Empty is not measured; 0 is refused, because no figure here can be 0.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from profiler.errors import InputError
from profiler.importing.content import MAX_COUNT, MAX_NUMBER, Content
from profiler.importing.nouns import Found, Held
from profiler.schema import Estimate, LoadPoint

NAME = "a table"
Row = Mapping[str, Any]
WORDS = {
    "model": ("model", "model_id", "model_name"),
    "gpu": ("gpu", "gpu_model", "gpu_name"),
    "engine": ("engine", "framework", "backend"),
    "engine_version": ("engine_version", "framework_version"),
    "precision": ("precision", "weight_precision", "dtype"),
    "asked": ("workload", "task", "dataset", "scenario"),
    "tool": ("tool", "benchmark"),
    "version": ("tool_version", "benchmark_version"),
    "source": ("source",),
    "date": ("date",),
}
NUMBERS = {
    "gpus": ("num_gpus", "gpus", "gpu_count", "n_gpus"),
    "max_num_seqs": ("max_num_seqs",),
    "concurrency": ("concurrency", "max_concurrency", "batch", "batch_size", "batch_or_concurrency"),
    "rate": ("load_requests_per_s", "request_rate"),
    "requests": ("requests_ok", "requests", "num_requests"),
    "failed": ("requests_failed",),
}
# One engine in another way is another run.
ARGS = ("tensor_parallel", "pipeline_parallel", "data_parallel", "expert_parallel", "max_num_batched_tokens")
TEXTS = (*ARGS, *(name for names in WORDS.values() for name in names))
FIGURES = {
    "output_tokens_per_s": (
        "output_throughput_tokens_per_sec",
        "output_throughput",
        "output_tokens_per_second",
        "tokens_per_s",
        "tokens_per_second",
    ),
    "input_tokens_per_s": ("input_throughput", "input_tokens_per_second"),
    "total_tokens_per_s": ("total_token_throughput", "total_tokens_per_second"),
    "requests_per_s": ("request_throughput", "requests_per_second"),
    "power_w_mean": ("avg_power_watts", "avg_power_w", "power_w", "power_watts"),
    "energy_j_per_output_token": (
        "energy_per_token_joules",
        "energy_per_output_token_joules",
        "joules_per_token",
        "j_per_token",
    ),
    "input_tokens_mean": ("avg_input_len", "input_len"),
    "output_tokens_mean": ("avg_output_len", "output_len"),
}
LATENCIES = {"ttft": "ttft_s", "itl": "itl_s", "tpot": "tpot_s", "e2e": "e2e_s", "e2el": "e2e_s"}
STATISTICS = {"mean": "mean", "avg": "mean", "median": "p50", "p50": "p50", "p90": "p90", "p95": "p95"}
STATISTICS |= {"p99": "p99"}
LATENCY = re.compile(rf"({'|'.join(STATISTICS)})_({'|'.join(LATENCIES)})_(ms|s)")
OURS = re.compile(rf"(ttft|itl|tpot|e2e)_s_({'|'.join(STATISTICS)})")
ENDS = ("_low", "_high")


def claims(content: Content) -> bool:
    names = content.rows[0] if len(content.rows) > 1 else next(iter(_objects(content)), {})
    return any(_figure(_plain(name)) for name in names)


def _rows(content: Content) -> list[Row]:
    if not content.rows:
        return _objects(content)
    header, *rows = content.rows
    names = [_plain(name) for name in header if name]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{content.path}: two columns are called {twice}")
    for number, row in enumerate(rows, 2):
        if len(row) > len(header):
            raise InputError(f"{content.path}: row {number}: {len(row)} cells for {len(header)} columns")
    return [dict(zip(header, row, strict=False)) for row in rows]


def _objects(content: Content) -> list[Row]:
    """Rows of JSON, or objects that hold some as ``configurations`` with what they share beside."""
    found: list[Row] = []
    for value in content.values:
        own = value.get("configurations")
        if isinstance(own, list):
            shared = {key: each for key, each in value.items() if isinstance(each, str)}
            found += [shared | row for row in own if isinstance(row, dict)]
        else:
            found.append(value)
    return found


def _plain(name: str) -> str:
    """``J/token`` → ``j_per_token``."""
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower().replace("/", " per ")).strip("_")


def _figure(name: str) -> tuple[str, float] | None:
    """Ours by a column's name, and what its unit takes to ours."""
    for ours, theirs in FIGURES.items():
        if name == ours or name in theirs:
            return ours, 1.0
    if found := LATENCY.fullmatch(name):
        return f"{LATENCIES[found[2]]}_{STATISTICS[found[1]]}", 1e3 if found[3] == "ms" else 1.0
    return (name, 1.0) if OURS.fullmatch(name) else None


def found(content: Content) -> Iterator[Found]:
    """A run a model, machine and way of running it."""
    runs: dict[tuple[Any, ...], list[tuple[int, Row]]] = {}
    for number, given in enumerate(_rows(content), start=2 if content.rows else 1):
        where = f"{content.path}: row {number}"
        row = {_plain(name): value for name, value in given.items() if value not in (None, "")}
        for column in (each for each in TEXTS if each in row):
            if isinstance(row[column], list | dict) or not str(row[column]).isprintable():
                raise InputError(
                    f"{where}: {column} is {str(row[column])[:40]!r}, expected a word or a number"
                )
        if "metric" in row and "value" in row:
            raise InputError(
                f"{where}: a row a figure (metric, value); make it a row a load, a column a figure"
            )
        words = (_word(row, name) for name in WORDS)
        key = (*words, _count(row, "gpus", where), *_args(row).items())
        runs.setdefault(key, []).append((number, row))
    for rows in runs.values():
        yield _run(content, rows)


def _run(content: Content, rows: Sequence[tuple[int, Row]]) -> Found:
    number, first = rows[0]
    at = f"{content.path}: row {number}"
    held: dict[LoadPoint, Held] = {}
    for number, row in rows:
        where = f"{content.path}: row {number}"
        each = _held(row, where)
        if each.point in held:
            raise InputError(f"{where}: a second row of the same load; tell them apart by a workload column")
        held[each.point] = each
    engine, version = _word(first, "engine"), _word(first, "engine_version")
    date, source = _word(first, "date"), _word(first, "source")
    return Found(
        tool=_word(first, "tool") or NAME,
        version=_word(first, "version"),
        held=tuple(held.values()),
        model=_word(first, "model"),
        engine=f"{engine} {version}" if engine and version else engine,
        gpu=_word(first, "gpu"),
        gpus=_count(first, "gpus", at),
        precision=_word(first, "precision"),
        asked=_word(first, "asked"),
        args=_args(first),
        unix_ns=_unix_ns(date, at) if date else None,
        notes=(f"source: {source}",) if source else (),
    )


def _held(row: Row, where: str) -> Held:
    streams, limit = (_count(row, name, where) for name in ("concurrency", "max_num_seqs"))
    rate = _number(row, "rate", where)
    if rate is not None:
        point = LoadPoint(mode="open", requests_per_s=rate)
    elif streams or limit:
        point = LoadPoint(mode="closed", concurrency=streams or limit)
    else:
        raise InputError(f"{where}: at which load? give concurrency (or batch, max_num_seqs) or request_rate")
    n = _count(row, "requests", where)
    note = "the load is the engine's limit of sequences (max_num_seqs), not what clients kept in flight"
    return Held(
        point=point,
        figures=_figures(row, n or 1, where),
        requests_ok=n,
        requests_failed=_count(row, "failed", where),
        notes=(note,) if rate is None and not streams else (),
    )


def _figures(row: Row, n: int, where: str) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    for column in row:
        known = _figure(column)
        value = None if known is None else _positive(row, column, where)
        if known is None or value is None:
            continue
        ours, per = known
        if ours in found:
            raise InputError(f"{where}: two columns for {ours}, one of them is {column}")
        low, high = (_positive(row, column + end, where) for end in ENDS)
        if not (low or value) <= value <= (high or value):
            raise InputError(f"{where}: {column} {value:g} lies outside its interval, {low} to {high}")
        found[ours] = Estimate(
            value / per,
            None if low is None else low / per,
            None if high is None else high / per,
            n,
            "requests" if n > 1 else None,
        )
    return found


# ------------------------------------------------------------------------------------------- cells


def _word(row: Row, name: str) -> str | None:
    return next((str(row[each]) for each in WORDS[name] if each in row), None)


def _args(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in ARGS if name in row}


def _number(row: Row, name: str, where: str) -> float | None:
    column = next((each for each in NUMBERS[name] if each in row), None)
    return None if column is None else _positive(row, column, where, zero=name == "failed")


def _count(row: Row, name: str, where: str) -> int | None:
    found = _number(row, name, where)
    if found is not None and (found > MAX_COUNT or found != int(found)):
        raise InputError(f"{where}: {name} is {found:g}, expected a whole number up to {MAX_COUNT:,}")
    return None if found is None else int(found)


def _positive(row: Row, column: str, where: str, *, zero: bool = False) -> float | None:
    if column not in row:
        return None
    try:
        value = math.nan if isinstance(row[column], bool) else float(row[column])
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not 0 <= value < MAX_NUMBER or (value == 0 and not zero):
        found = str(row[column])[:40]
        raise InputError(f"{where}: {column} is {found!r}, expected a positive number (empty: not measured)")
    return value


def _unix_ns(date: str, where: str) -> int:
    import calendar

    for form in ("%Y-%m-%d", "%Y-%m"):
        try:
            return calendar.timegm(time.strptime(date, form)) * 10**9
        except ValueError:
            continue
    raise InputError(f"{where}: date is {date[:40]!r}, expected 2026-01-31")
