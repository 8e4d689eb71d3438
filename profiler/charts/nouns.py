"""What a chart is: its data, how it is drawn, and what it says to who cannot see it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

Row = dict[str, Any]
DATA = "table"  # what a drawing calls the chart's own rows


class Column(Struct, frozen=True, kw_only=True):
    """A column of a chart's rows: its key in a row, its words and its unit (None: a name or a plain number).
    ``is_money``: it changes with the price; the page that shows the chart may compute it again."""

    name: str
    label: str
    unit: str | None = None
    is_money: bool = False


class Chart(Struct, frozen=True, kw_only=True):
    """One figure.

    ``id``: a slug, unique among the charts of a page, the same for the same runs.  ``summary``: the text
    alternative: what is shown, of how many (n), with the values and intervals that a reader would take from
    it, and what is missing.  ``rows``: tidy, in a fixed order, plain values; None is not measured.  They are
    what the drawing draws (its ``data`` is ``{"name": "table"}``) and what a download as CSV holds.
    ``spec``: Vega-Lite 6 without data, colours of the theme and width; ``height`` in pixels is for a drawing
    of the usual width.  ``notes``: caveats, one line each.
    """

    id: str
    title: str
    summary: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    spec: dict[str, Any]
    height: int = 300
    notes: tuple[str, ...] = ()


class Absent(Struct, frozen=True, kw_only=True):
    """A figure that cannot be drawn of these runs, and why, in one line; ``id`` as it would have had."""

    id: str
    title: str
    reason: str
