"""Published quality scores: what a leaderboard or a maker says a model reaches on a benchmark.

``quality.csv`` is rebuilt by ``tools/build_quality.py``; every row names its source and date.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import msgspec
from msgspec import Struct

from profiler.catalog.boards import FOLDER

Unit = Literal["elo", "percent", "frac", "points"]


class Score(Struct, frozen=True, kw_only=True):
    """What one model reached on one benchmark.

    ``value`` and the bounds of its 95 % interval, None where none was published, are in ``unit``: ``elo`` (a
    rating), ``percent``, ``frac`` (a share, as evaluation harnesses write it) or ``points`` (anything else;
    more is better).  ``n`` counts the questions it rests on.  ``benchmark`` names the column: scores of two
    benchmarks are never compared, and ``lmarena_text_elo`` and ``lmarena_text_elo_style_control`` are two.
    """

    model: str
    benchmark: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    date: str | None = None
    source: str
    unit: Unit = "points"

    @property
    def share(self) -> float | None:
        """The share of the questions that were solved; None where the score is not one."""
        return {"frac": self.value, "percent": self.value / 100}.get(self.unit)


@cache
def quality() -> tuple[Score, ...]:
    """All published scores in the catalog."""
    import csv

    with (FOLDER / "quality.csv").open(newline="", encoding="utf-8") as file:
        rows = ({name: text for name, text in row.items() if text} for row in csv.DictReader(file))
        return tuple(msgspec.convert(row, Score, strict=False) for row in rows)
