"""Logarithmic axes of amounts and times, marked at round numbers of each decade."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

MOST_TICKS = 9
# Marks of a decade, the most first.
_STEPS = ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))
# Times beyond the outermost value that an interval may stretch an axis by.
_REACH = 2.5
_TIME = (
    "datum.value < 0.000999 ? format(datum.value * 1e6, '~g') + ' µs' : "
    "datum.value < 0.999 ? format(datum.value * 1e3, '~g') + ' ms' : format(datum.value, ',~g') + ' s'"
)


def amounts(values: Sequence[float], ends: Iterable[float | None] = ()) -> dict[str, Any]:
    """Scale and axis of these amounts, and of as much of their intervals as leaves them in view."""
    return _axis(values, ends, {"format": ",~g"})


def times(values: Sequence[float], ends: Iterable[float | None] = ()) -> dict[str, Any]:
    """The same of seconds, written in the unit that suits each."""
    return _axis(values, ends, {"labelExpr": _TIME})


def _axis(values: Sequence[float], ends: Iterable[float | None], label: dict[str, Any]) -> dict[str, Any]:
    low, high = _domain(values, ends)
    return {
        "scale": {"type": "log", "nice": False, "domain": [low, high]},
        "axis": {"values": _ticks(low, high), "labelOverlap": "greedy", "labelSeparation": 6} | label,
    }


def _domain(values: Sequence[float], ends: Iterable[float | None]) -> tuple[float, float]:
    low, high = min(values), max(values)
    bounds = [min(max(end, low / _REACH), high * _REACH) for end in ends if end]
    lowest, highest = min([low, *bounds]), max([high, *bounds])
    pad = max(1.08, (highest / lowest) ** 0.05)
    low, high = lowest / pad, highest * pad
    if len(_within(low, high, _STEPS[0])) < 2:  # values so alike that nothing would say how large they are
        return max(_within(low / 2, low, _STEPS[0])), min(_within(high, high * 2, _STEPS[0]))
    return low, high


def _ticks(low: float, high: float) -> list[float]:
    every = [_within(low, high, steps) for steps in _STEPS]
    return next((ticks for ticks in every if len(ticks) <= MOST_TICKS), every[-1])


def _within(low: float, high: float, steps: Sequence[float]) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [float(f"{step * 10.0**decade:.6g}") for decade in decades for step in steps]
    return [tick for tick in found if low <= tick <= high]
