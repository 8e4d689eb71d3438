"""Run folders with a recorded routing of known truth, written through the real store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from profiler import experts, records, store
from profiler.schema import RoutingRecord
from tests import make

FACTS = msgspec.structs.replace(make.FACTS, experts=16, experts_per_token=4)


def drawn(requests: int, tokens: int, shares: list[np.ndarray], seed: int = 0) -> np.ndarray:
    """Independent tokens by these marginals of each layer: [requests, tokens, layers, k]."""
    layers = [experts.choices(each, requests * tokens, seed + n) for n, each in enumerate(shares)]
    return np.stack(layers, axis=1).reshape(requests, tokens, len(shares), -1)


def table(chosen: np.ndarray, prompt: int) -> pa.Table:
    """As an engine's pass stores it; the first ``prompt`` tokens of each request are its prompt."""
    requests, tokens, layers, per_token = chosen.shape
    flat = pa.array(chosen.astype(np.uint16).ravel())
    columns = {
        "request": np.repeat(np.arange(requests, dtype=np.int32), tokens),
        "position": np.tile(np.arange(tokens, dtype=np.int32), requests),
        "is_output": np.tile(np.arange(tokens) >= prompt, requests),
        "experts": pa.FixedSizeListArray.from_arrays(flat, layers * per_token),
    }
    return pa.table(columns, schema=records.routing_schema(layers, per_token))


def record(chosen: np.ndarray, count: int, routing: str = "model") -> RoutingRecord:
    requests, tokens, layers, per_token = chosen.shape
    return RoutingRecord(
        source="a test",
        routing=routing,
        requests=requests,
        tokens=requests * tokens,
        layers=tuple(range(1, layers + 1)),
        experts=count,
        experts_per_token=per_token,
    )


def run(
    out: Path,
    chosen: np.ndarray,
    count: int,
    *,
    prompt: int = 0,
    windows: list[Any] | None = None,
    **changes: Any,
) -> store.RunResult:
    """``chosen``: [requests, tokens, layers, k]."""
    routing = changes.pop("routing", "model")
    writer = make.writer(out, windows or [], **changes)
    writer.close()
    return add(store.load(writer.folder), chosen, count, prompt, routing)


def add(
    written: store.RunResult, chosen: np.ndarray, count: int, prompt: int = 0, routing: str = "model"
) -> store.RunResult:
    """The run with this recording in its folder."""
    writer = store.RunWriter.reopen(written)
    writer.add_routing(table(chosen, prompt), record(chosen, count, routing))
    writer.close()
    return store.load(writer.folder)
