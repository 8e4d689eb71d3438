"""Encodings that several families share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from profiler.charts import loads, words
from profiler.charts.nouns import Column
from profiler.schema import LoadPoint

NUMBER = ".4~g"
SHARE = ".1%"
MODEL = Column(name="model", label="model")
# Light enough for words in it, on either theme.
BAR = {"type": "bar", "fillOpacity": 0.3, "strokeWidth": 1.25, "cornerRadius": 2}


def tooltip(columns: Sequence[Column], *names: str, **formats: str) -> list[dict[str, Any]]:
    """The values of a mark under the words of its columns; ``formats`` by name are of numbers."""
    known = {column.name: column for column in columns}
    found = []
    for name in (*names, *formats):
        column = known[name]
        share = formats.get(name, "").endswith("%")
        title = column.label if column.unit is None or share else f"{column.label}, {column.unit}"
        found.append({"field": name, "title": title} | ({"format": formats[name]} if name in formats else {}))
    return found


def of_model(name: str) -> dict[str, Any]:
    """The colour of the model that a whole chart is of; its rows name it, as ``model``."""
    return {"field": "model", "type": "nominal", "scale": {"domain": [name]}, "legend": None}


def by_load(points: Sequence[LoadPoint]) -> dict[str, Any]:
    """The loads of a run, side by side in their order; a row has its own in words, as ``load``."""
    return {
        "field": "load",
        "type": "ordinal",
        "sort": [words.load(point) for point in points],
        "title": loads.axis(points),
        "axis": {"labelAngle": 0},
    }
