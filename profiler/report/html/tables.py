"""Rows of the comparison, and sections of other reports, → tables of a page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from profiler.charts.words import one_line
from profiler.comparison import COLUMNS, money
from profiler.comparison.lines import Line as Load
from profiler.report import sections, table
from profiler.report.html.nouns import Cell, Data, Head, Line, Table
from profiler.report.sections import Section
from profiler.report.table import Row, Shown, with_interval

MOST_LINES = 500  # more are no table to read, and a page has to open at once
MOST_DATA = 1000  # rows with all their columns, which a page carries as well: 2 kB each, of 6 MB in all
SAID_BELOW = ("notes",)  # columns that a page says in words, each line once
_SPREAD = re.compile(r"^(.*?) (±\S+|\(.*\))(.*)$")


def _ms(row: Row, column: str) -> str:
    return with_interval(row, column, 1e3)


_AFTER = {
    "usd_per_m_output_tokens": (
        Shown("USD/M in", "usd_per_m_input_tokens", with_interval),
        Shown("USD/M blended", "usd_per_m_blended_tokens", with_interval),
    ),
    "ttft_s_p99": (Shown("TPOT p50 ms", "tpot_s_p50", _ms),),
}
_WITH_INTERVAL = ("energy_j_per_output_token", "usd_per_m_output_tokens", "gco2e_per_m_output_tokens")
_IN_MS = ("ttft_s_p50", "ttft_s_p99", "itl_s_p50", "itl_s_p99")


def _shown() -> tuple[Shown, ...]:
    """Those of the terminal, which has less room: with their intervals, and what input and requests cost."""
    found: list[Shown] = []
    for each in table.SHOWN:
        found += [_wider(each), *_AFTER.get(each.column, ())]
    return tuple(found)


HEADERS = {
    "conc": "in flight",
    "req/s due": "requests/s due",
    "TTFT p99": "TTFT p99 ms",
    "ITL p99": "ITL p99 ms",
}


def _wider(shown: Shown) -> Shown:
    header = HEADERS.get(shown.header, shown.header)
    if shown.column in _WITH_INTERVAL:
        return Shown(header, shown.column, with_interval, shown.marks_best)
    if shown.column in _IN_MS:
        return Shown(header, shown.column, _ms, shown.marks_best)
    return Shown(header, shown.column, shown.write, shown.marks_best)


SHOWN = _shown()


def of_loads(loads: Sequence[Load], *, name: str, caption: str, notes: Sequence[str] = ()) -> Table:
    """A line a load of a run, of which money can be computed again."""
    rows = [each.row() for each in loads[:MOST_DATA]]
    keys = [money.key(each.found) for each in loads[:MOST_DATA]]
    found = of_rows(rows, SHOWN, name=name, caption=caption, notes=notes)
    lines = tuple(
        Line(tuple(map(_as_money, found.heads, line.cells)), key)
        for line, key in zip(found.lines, keys, strict=False)
    )
    return replace(found, lines=lines, data=_every_column(rows, keys), more=_more(len(loads)))


def _as_money(head: Head, cell: Cell) -> Cell:
    if head.key not in money.COLUMNS:
        return cell
    return Cell(cell.text, cell.value, cell.spread, is_best=cell.is_best, money=head.key)


def of_rows(
    rows: Sequence[Row], shown: Sequence[Shown], *, name: str, caption: str, notes: Sequence[str] = ()
) -> Table:
    """The columns of ``shown`` that say something of these rows."""
    kept = list(rows[:MOST_LINES])
    optional = {each.column for extra in _AFTER.values() for each in extra}
    columns = [
        each
        for each in table.chosen(kept, table.ROOM_FOR_ALL, shown)
        if each.column not in optional or any(row[each.column] is not None for row in kept)
    ]
    stars = table.marked(kept, columns)
    lines = [
        Line(tuple(_cell(row, each, (number, place) in stars) for place, each in enumerate(columns)))
        for number, row in enumerate(table.with_relative(kept))
    ]
    return Table(
        id=name,
        caption=caption,
        heads=tuple(_head(each, kept) for each in columns),
        lines=tuple(lines),
        notes=tuple(notes),
        more=_more(len(rows)),
    )


def of_section(section: Section, name: str) -> Table:
    """A table that another report prints, with what it says below it."""
    kept = list(section.rows[:MOST_LINES])
    columns = sections.chosen(section.view, kept)
    return Table(
        id=name,
        caption=sections.title(section),
        heads=tuple(_head(each, kept) for each in columns),
        lines=tuple(Line(tuple(_cell(row, each) for each in columns)) for row in kept),
        notes=tuple(map(one_line, section.lines)),
        more=_more(len(section.rows)),
    )


def of_texts(name: str, caption: str, heads: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    """Words and no figures."""
    return Table(
        id=name,
        caption=caption,
        heads=tuple(Head(label=each, is_number=False) for each in heads),
        lines=tuple(Line(tuple(Cell(one_line(text), text) for text in line)) for line in lines[:MOST_LINES]),
        more=_more(len(lines)),
    )


def _head(shown: Shown, rows: Sequence[Row]) -> Head:
    is_text = any(isinstance(row.get(shown.column), str) for row in rows)
    key = shown.column if shown.column in COLUMNS or shown.column.endswith("_ratio") else None
    return Head(label=shown.header.replace("\n", " "), key=key, is_number=not is_text)


def _cell(row: Row, shown: Shown, is_best: bool = False) -> Cell:
    text, spread = split(one_line(shown.write(row, shown.column)))
    return Cell(text, _sortable(row.get(shown.column)), spread, is_best=is_best)


def split(text: str) -> tuple[str, str | None]:
    """A figure, and its interval, which stands in lighter ink after it."""
    found = _SPREAD.match(text)
    return (text, None) if found is None else (found[1] + found[3], found[2])


def _sortable(value: Any) -> float | str | None:
    return value if value is None or isinstance(value, int | float | str) else None


def _more(rows: int) -> str | None:
    if rows <= MOST_LINES:
        return None
    return (
        f"The first {MOST_LINES:,} of {rows:,} rows; its CSV has {min(rows, MOST_DATA):,}, "
        "and profile compare RUN… --format csv all of them."
    )


def _every_column(rows: Sequence[Row], keys: Sequence[str]) -> Data:
    """Every column in which anything was measured."""
    names = [name for name in rows[0] if name not in SAID_BELOW] if rows else []
    fields = tuple(name for name in names if any(row[name] is not None for row in rows))
    return Data(
        fields=fields, rows=tuple(tuple(row[name] for name in fields) for row in rows), keys=tuple(keys)
    )
