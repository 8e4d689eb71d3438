"""The tables of ``profile cost``, one a section: how each is found, and all of them as terminal text, CSV,
Markdown and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from profiler.charts.words import whole_numbers
from profiler.cost.question import Question
from profiler.report.csv_text import as_csv
from profiler.report.table import Row, Shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


GAP = 2  # between columns


class View(NamedTuple):
    """One section: ``find`` gives rows with every name of ``columns``; ``shown`` says which of them a reader
    sees and how; ``lines`` what is said below them, and instead of them where there are none; a rule is drawn
    where any of ``groups`` changes.

    A section without rows and lines has nothing to say and is left out.
    """

    title: str
    columns: Sequence[str]
    find: Callable[[Question], list[Row]]
    shown: Sequence[Shown]
    lines: Callable[[Question, Sequence[Row]], Iterable[str]]
    groups: Sequence[str] = ()


class Section(NamedTuple):
    """A view's answer to a question."""

    name: str
    view: View
    rows: Sequence[Row]
    lines: Sequence[str]


def answer(views: Mapping[str, View], question: Question) -> list[Section]:
    """Every section that has something to say."""
    found = []
    for name, view in views.items():
        rows = view.find(question)
        lines = list(dict.fromkeys(view.lines(question, rows)))
        if rows or lines:
            found.append(Section(name, view, rows, lines))
    return found


def show(sections: Sequence[Section], console: Console) -> None:
    """What holds for several sections is said below the first of them."""
    for section in each_said_once(sections):
        console.print(title(section), style="bold", markup=False)
        if section.rows:
            console.print(_rich_table(section, console.width), crop=False)
        for line in section.lines:
            console.print(f"· {line}", markup=False)
        console.print()


def each_said_once(sections: Sequence[Section]) -> Iterator[Section]:
    said: set[str] = set()
    for section in sections:
        yield section._replace(lines=[line for line in section.lines if line not in said])
        said |= set(section.lines)


def title(section: Section) -> str:
    """With the scenario, where one column of it would say the same in every row."""
    names = {row["scenario"] for row in section.rows} if _has(section.view, "scenario") else set()
    return section.view.title + (f" (scenario {names.pop()})" if len(names) == 1 else "")


def _has(view: View, column: str) -> bool:
    return any(each.column == column for each in view.shown)


def chosen(view: View, rows: Sequence[Row], width: float = math.inf) -> list[Shown]:
    """Columns that say something of these rows; of those that can be spared the last that
    there is room for."""
    shown = [
        each
        for each in view.shown
        if any(row[each.column] is not None for row in rows) and _tells_apart(each.column, rows)
    ]
    spare = [each for each in shown if each.spare]
    while spare and sum(_width(each, rows) + GAP for each in shown) > width:
        shown.remove(spare.pop(0))
    return shown


def _width(shown: Shown, rows: Sequence[Row]) -> int:
    return max(map(len, (*shown.header.split("\n"), *(shown.write(row, shown.column) for row in rows))))


def _tells_apart(column: str, rows: Sequence[Row]) -> bool:
    """A scenario is shown where there are several, a run where its model and scenario do not name it."""
    if column == "scenario":
        return len({row["scenario"] for row in rows}) > 1
    if column == "run":
        runs = {(row["model"], row["scenario"], row["run"]) for row in rows}
        return len({names[:2] for names in runs}) < len(runs)
    return True


def _rich_table(section: Section, width: int) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    shown = chosen(section.view, section.rows, width)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for each in shown:
        is_text = any(isinstance(row[each.column], str) for row in section.rows)
        cells = [each.write(row, each.column) for row in section.rows]
        table.add_column(
            each.header,
            justify="left" if is_text else "right",
            overflow="fold",
            min_width=0 if is_text else whole_numbers(cells),
        )
    for row, ends in zip(section.rows, _ends(section), strict=True):
        table.add_row(*(escape(each.write(row, each.column)) for each in shown), end_section=ends)
    return table


def _ends(section: Section) -> list[bool]:
    """Whether a rule is drawn below each row: between groups, if any of them has more than one row."""
    keys = [tuple(row[name] for name in section.view.groups) for row in section.rows]
    ends = [key != following for key, following in pairwise(keys)]
    return [*ends, False] if not all(ends) else [False] * len(keys)


def markdown(sections: Sequence[Section]) -> str:
    return "\n".join(_markdown(section) for section in each_said_once(sections))


def _markdown(section: Section) -> str:
    parts = [f"## {title(section)}\n"]
    if section.rows:
        shown = chosen(section.view, section.rows)
        lines = [[each.header.replace("\n", " ") for each in shown], ["---"] * len(shown)]
        lines += [[each.write(row, each.column) for each in shown] for row in section.rows]
        parts.append(
            "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
        )
    if section.lines:
        parts.append("".join(f"* {line}\n" for line in section.lines))
    return "\n".join(parts)


def as_json(sections: Sequence[Section]) -> str:
    """Every section by name: its rows unrounded, and the lines below them."""
    tree = {
        each.name: {"title": each.view.title, "rows": list(each.rows), "lines": list(each.lines)}
        for each in sections
    }
    return json.dumps(tree, indent=1, allow_nan=False) + "\n"


def csv(section: Section) -> str:
    return as_csv(section.rows, tuple(section.view.columns))
