"""Cases with known figures: each side's starts have exactly the mean and the scatter asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from profiler.claims.nouns import Case, Cell, Claim, Evidence, Models, Side, Source

ONCE = (1.0,)  # a trial looked at when all its starts were in


def claim(**changes: Any) -> Claim:
    base = {
        "id": "test",
        "text": "a is faster than b",
        "source": Source(name="a test", date="2026-01-01"),
        "subject": Models(names=("a",)),
        "baseline": Models(names=("b",)),
        "metric": "output_tokens_per_s",
        "relation": "more",
    }
    return Claim(**base | changes)


def starts(mean: float, spread: float = 0.01, n: int = 4) -> tuple[float, ...]:
    """``n`` values with this geometric mean and this standard deviation of their logarithms."""
    steps = [place - (n - 1) / 2 for place in range(n)]
    scale = spread / math.sqrt(sum(each**2 for each in steps) / (n - 1)) if n > 1 else 0.0
    return tuple(mean * math.exp(each * scale) for each in steps)


def side(figures: float | Sequence[float] | Side) -> Side:
    if isinstance(figures, Side):
        return figures
    return Side(values=starts(figures) if isinstance(figures, int | float) else tuple(figures))


def evidence(subject: Any, baseline: Any = 1.0, batch: int | None = None, **changes: Any) -> Evidence:
    cell = changes.pop("cell", Cell(batch=batch))
    return Evidence(cell=cell, subject=side(subject), baseline=side(baseline), **changes)


def case(*cells: Evidence, looks: tuple[float, ...] | None = ONCE, **changes: Any) -> Case:
    """``changes`` of the claim, and of the case by the names it has."""
    own = {
        name: changes.pop(name) for name in ("doubts", "impossible", "missing", "setting") if name in changes
    }
    return Case(claim=claim(**changes), evidence=cells, looks=looks, **own)
