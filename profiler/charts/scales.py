"""Logarithmic axes whose ticks a reader counts by: doublings of a batch, times better."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

MOST_TICKS = 12
# Ratios that an axis is marked at which has too few powers of two on it, and one that has next to none.
_FINE = (0.5, 0.6, 0.7, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
_FINEST = (0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3)
_NARROW = 1.6
_REACH = 2.0  # times beyond the outermost value: as far as intervals may stretch an axis


def batches(held: Sequence[int]) -> dict[str, Any]:
    """Scale and axis of requests in flight: a tick at each that was measured, or where those are many at the
    powers of two."""
    low, high = min(held), max(held)
    pad = (high / low) ** 0.03 if high > low else 2.0
    ticks = sorted(set(held)) if len(set(held)) <= MOST_TICKS else _powers(low, high)
    return {
        "scale": {"type": "log", "base": 2, "nice": False, "domain": [low / pad, high * pad]},
        "axis": {"values": ticks, "format": ",d", "labelOverlap": "greedy", "labelFlush": False},
    }


def ratio(values: Iterable[float], ends: Iterable[float | None] = ()) -> dict[str, Any]:
    """Scale and axis of a ratio: 1 is on it, each doubling takes as much room, and an interval stretches it
    by no more than twice its outermost value."""
    held = [1.0, *values]
    low, high = min(held), max(held)
    for end in ends:
        if end is not None:
            low, high = min(low, max(end, min(held) / _REACH)), max(high, min(end, max(held) * _REACH))
    pad = max(1.06, (high / low) ** 0.06)
    domain = [low / pad, high * pad]
    ticks = _powers(*domain)
    if len(ticks) < 3:
        fine = _FINEST if domain[1] / domain[0] < _NARROW else _FINE
        ticks = [each for each in fine if domain[0] <= each <= domain[1]]
    return {
        "scale": {"type": "log", "base": 2, "nice": False, "domain": domain},
        "axis": {"values": ticks, "labelExpr": "format(datum.value, '~g') + '×'"},
    }


def _powers(low: float, high: float) -> list[float]:
    """Of two, within these bounds."""
    found = range(math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9) + 1)
    return [2.0**power if power < 0 else 1 << power for power in found]
