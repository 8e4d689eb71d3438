"""Rows as CSV, unrounded (RFC 4180; lines end in a line feed).

A text that a spreadsheet would take for a formula begins with an apostrophe: names may be somebody else's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from profiler.comparison import COLUMNS

Row = dict[str, Any]
FORMULA = ("=", "+", "-", "@", "\t", "\r")
_WORDS = (str, bool)
_SPECIAL = re.compile('[,"\r\n]')


def as_csv(rows: Iterable[Row], columns: Sequence[str] = COLUMNS) -> str:
    return "".join(csv_lines(rows, columns))


def csv_lines(rows: Iterable[Row], columns: Sequence[str] = COLUMNS) -> Iterator[str]:
    """The header, then a line at a time; what a row has not is empty."""
    yield ",".join(columns) + "\n"
    for row in rows:
        yield _csv_line(list(map(row.get, columns)))


def _csv_line(values: list[Any]) -> str:
    """Numbers by the JSON encoder: the ``csv`` module takes four times as long, which many rows show."""
    words = [(place, value) for place, value in enumerate(values) if value.__class__ in _WORDS]
    numbers = list(values)
    for place, _ in words:
        numbers[place] = None
    cells = msgspec.json.encode(numbers)[1:-1].decode().replace("null", "").split(",")
    for place, value in words:
        cells[place] = _quoted(value) if isinstance(value, str) else str(value)
    return ",".join(cells) + "\n"


def _quoted(text: str) -> str:
    text = f"'{text}" if text.startswith(FORMULA) else text
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text
