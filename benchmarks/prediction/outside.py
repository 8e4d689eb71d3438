"""Rows that no fit has seen: other GPUs, engines, batch 1, long prompts.  None is tuned to."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.prediction import rows
from profiler.arch import work
from profiler.predict.nouns import Load, Point
from profiler.predict.posterior import Calibration
from profiler.predict.uncertain import intervals

USABLE = 0.90  # of the GPU's memory, TensorRT-LLM's default share for the cache after the weights
MOST_SEQUENCES = 2048  # its default max_batch_size


def lines(calibration: Calibration) -> Iterator[str]:
    yield "| rows | n | median error | mean error | worst | bias | in the 90 % interval |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    groups: dict[str, list[tuple[rows.Row, Point]]] = {}
    for source in ("qwen", "tensorrt-llm"):
        for row in rows.rows(source):
            pair = row, rows.point(row) if row.concurrency else unbounded(row)
            groups.setdefault(_group(row), []).append(pair)
    for name, pairs in groups.items():
        yield _line(name, pairs, calibration)


def _group(row: rows.Row) -> str:
    if row.source == "tensorrt-llm":
        return f"TensorRT-LLM 0.17, {row.gpu}, {row.precision}, as fast as it goes"
    engine = row.engine.split("-")
    kind = "MoE" if "A14B" in row.model or "A3B" in row.model else "dense"
    length = "long prompts" if (row.input_tokens or 0) > 10_000 else "prompts to 6 k"
    return f"{engine[0]} {engine[1]}, {row.gpu}, batch 1, {kind}, {length}"


def unbounded(row: rows.Row) -> Point:
    """As many sequences as the cache holds at their mean length."""
    what = rows.deployment(row)
    room = USABLE * what.gpu.memory_bytes * what.tensor - work.weight_bytes(what.shape, what.widths)
    tokens = (row.input_tokens or 0) + row.output_tokens / 2
    each = work.kv_bytes(what.shape, what.widths, tokens, 1)
    most = float(np.clip(room / each, 1, MOST_SEQUENCES))
    load = Load(
        concurrency=most, input_tokens=row.input_tokens, output_tokens=row.output_tokens, backlog=True
    )
    return Point(what=what, load=load, output_tokens_per_s=row.output_tokens_per_s)


def _line(name: str, pairs: list[tuple[rows.Row, Point]], calibration: Calibration) -> str:
    errors, inside = [], []
    for row, point in pairs:
        found = intervals(point.what, point.load, calibration)[0]["output_tokens_per_s"]
        errors.append(float(found.value) / row.output_tokens_per_s - 1)
        inside.append(float(found.low) <= row.output_tokens_per_s <= float(found.high))
    size = 100 * np.abs(errors)
    cells = [f"{np.median(size):.0f} %", f"{size.mean():.0f} %", f"{size.max():.0f} %"]
    cells += [f"{100 * np.mean(errors):+.0f} %", f"{100 * np.mean(inside):.0f} %"]
    return f"| {name} | {len(pairs)} | " + " | ".join(cells) + " |"
