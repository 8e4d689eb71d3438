"""Tables of samples whose truth is known: counters, power, RAPL zones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

S = 1_000_000_000
RANGE_UJ = 65_712_999_613.0


def table(*columns: tuple[str, str, Any, Any]) -> pa.Table:
    """Samples from (source, name, times in ns, values)."""
    rows = [
        (int(t), source, name, float(v))
        for source, name, ts, vs in columns
        for t, v in zip(ts, vs, strict=True)
    ]
    schema = [("t_ns", pa.int64()), ("source", pa.string()), ("name", pa.string()), ("value", pa.float64())]
    return pa.Table.from_arrays(
        [pa.array([row[i] for row in rows], type=kind) for i, (_, kind) in enumerate(schema)],
        names=[name for name, _ in schema],
    )


def ticks(times: Any, joules: Any, within_s: float = 0.0, uuid: str = "a") -> tuple[Any, Any]:
    """A counter seen to reach ``joules`` at ``times``, no more than ``within_s`` before."""
    return (
        (f"gpu:{uuid}", "energy_mj", times, np.asarray(joules) * 1000),
        (f"gpu:{uuid}", "energy_seen_within_s", times, np.full(len(times), within_s)),
    )


def gpu(watts: float, uuid: str = "a", seconds: int = 40, period_s: float = 0.1) -> tuple[Any, Any, Any]:
    """Counter, seen to tick at once, and power of a board that draws ``watts``, from t = 0."""
    times = np.arange(0, seconds, period_s) * S
    power = (f"gpu:{uuid}", "power_w", times, np.full(len(times), watts))
    return (*ticks(times, watts * times / S, uuid=uuid), power)


def once(uuid: str = "a", **values: float) -> list[Any]:
    """Rows that are written once, at the start."""
    return [(f"gpu:{uuid}", name, [0], [value]) for name, value in values.items()]


def rapl(times: Any, joules: Any, zone: str = "package-0", start_uj: float = 0.0) -> tuple[Any, Any]:
    """A counter that spends ``joules`` and wraps, in µJ."""
    counted = (start_uj + np.asarray(joules) * 1e6) % RANGE_UJ
    return (
        (f"rapl:{zone}", "energy_uj", times, counted),
        (f"rapl:{zone}", "max_energy_range_uj", times, [RANGE_UJ] * len(counted)),
    )
