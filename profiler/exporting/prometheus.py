"""Rows of the comparison table → Prometheus text exposition (format 0.0.4), for a node exporter's textfile
collector or a push gateway.

A gauge a figure, named as Prometheus wants it: base units in full, at the end.  What was not measured has no
sample: a gauge without one is no 0 and no NaN.  The ends of an interval are gauges of their own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from profiler.comparison.columns import ENDS, ESTIMATES

Row = dict[str, Any]
PREFIX = "profile"
COUNTS = ("requests_ok", "requests_failed", "repeats", "gpus")
LABELS = ("model", "engine", "scenario", "load", "concurrency", "load_requests_per_s", "gpu", "run")
# (pattern in a column's name, words before the unit, unit); the first that fits counts.
NAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^(\w+)_s_(mean|p\d+)$", r"\1_\2_seconds"),
        (r"^(\w+)_per_s$", r"\1_per_second"),
        (r"^(\w+)_w_mean$", r"\1_mean_watts"),
        (r"^(\w+)_w$", r"\1_watts"),
        (r"^(\w+)_j_per_(\w+)$", r"\1_joules_per_\2"),
        (r"^(\w+)_frac$", r"\1_ratio"),
        (r"^(\w*)usd_per_m_(\w+)$", r"\1usd_per_million_\2"),
        (r"^gco2e_per_m_(\w+)$", r"co2e_grams_per_million_\1"),
    )
)


def exposition(rows: Sequence[Row]) -> str:
    return "".join(f"{line}\n" for line in _lines(rows))


def name_of(column: str) -> str:
    """``ttft_s_p50`` → ``profile_ttft_p50_seconds``."""
    for pattern, name in NAMES:
        if pattern.match(column):
            return f"{PREFIX}_{pattern.sub(name, column)}"
    return f"{PREFIX}_{column}"


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    for column in (*ESTIMATES, *COUNTS):
        yield from _gauge(rows, column, name_of(column), f"{column} of the cost table")
        for end, word in zip(ENDS.get(column, ()), ("lower", "upper"), strict=False):
            name = name_of(column).replace(f"{PREFIX}_", f"{PREFIX}_{word}95_", 1)
            yield from _gauge(rows, end, name, f"{word} end of the 95 % interval of {column}")


def _gauge(rows: Sequence[Row], column: str, name: str, about: str) -> Iterator[str]:
    known = [row for row in rows if row[column] is not None and math.isfinite(row[column])]
    if known:
        yield f"# HELP {name} {about}"
        yield f"# TYPE {name} gauge"
        yield from (f"{name}{{{_labels(row)}}} {float(row[column])!r}" for row in known)


def _labels(row: Row) -> str:
    known = {name: row[name] for name in LABELS if row[name] is not None}
    texts = known | {"run": PurePath(row["run"]).name}
    return ",".join(f'{name}="{_escaped(str(value))}"' for name, value in texts.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
