"""How far a sweep has come, as values: what ``profile sweep status`` and the end of a sweep are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from profiler.sweep import order
from profiler.sweep.nouns import Attempt, Cell, Grid, Outcome, Record

Values = dict[str, Any]
LOADS = ("load.concurrency", "load.requests_per_s")  # axes that engine starts have in common


class GivenUp(Struct, frozen=True, kw_only=True):
    """A start of a cell that was begun ``times`` times and is not begun again; ``why``: of the last time."""

    cell: str
    values: Values
    number: int
    times: int
    outcome: Outcome
    why: str | None


class Row(Struct, frozen=True, kw_only=True):
    """Cells alike in all but their load: of ``asked`` starts of cells so many are held, and given up."""

    values: Values
    asked: int
    held: int
    given_up: int


class Standing(Struct, frozen=True, kw_only=True):
    """``asked`` and ``held`` count a start of each cell; ``whole`` counts cells with all of them.  Where only
    the record is known, what the file asks for is None, and ``cells`` are those with a start that is held.
    ``under_way``: engine starts that were begun and have not ended, or that a crash broke off.  ``ended``:
    attempts by what became of them; ``unasked``: held, and no more in the file."""

    name: str
    seed: int
    cells: int
    starts: int | None
    asked: int | None
    held: int
    whole: int | None
    under_way: int
    unasked: int | None
    spent_s: float
    spent_usd: float | None
    ended: dict[Outcome, int]
    given_up: tuple[GivenUp, ...]
    rows: tuple[Row, ...]


def of_record(record: Record) -> Standing:
    """Without the file of the sweep."""
    held = {(cell, each.number) for each in record.attempts if each.outcome == "held" for cell in each.cells}
    return Standing(
        name=record.name,
        seed=record.seed,
        cells=len({cell for cell, _ in held}),
        starts=None,
        asked=None,
        held=len(held),
        whole=None,
        under_way=len(record.under_way),
        unasked=None,
        spent_s=record.spent_s,
        spent_usd=record.spent_usd,
        ended=dict(Counter(each.outcome for each in record.attempts)),
        given_up=(),
        rows=(),
    )


def standing(grid: Grid, record: Record, since: int = 0) -> Standing:
    """``since``: failures of attempts before that are forgiven."""
    missing = order.missing(grid, record)
    given_up = order.given_up(grid, record, since)
    missing_of = Counter(cell for cell, _ in missing)
    asked = len(grid.cells) * grid.file.starts
    times = _times(record.attempts[since:])
    values = {cell.id: cell.values for cell in grid.cells}
    return Standing(
        name=grid.name,
        seed=record.seed,
        cells=len(grid.cells),
        starts=grid.file.starts,
        asked=asked,
        held=asked - len(missing),
        whole=sum(missing_of[cell.id] == 0 for cell in grid.cells),
        under_way=len(record.under_way),
        unasked=len(order.unasked(grid, record)),
        spent_s=record.spent_s,
        spent_usd=record.spent_usd,
        ended=dict(Counter(each.outcome for each in record.attempts)),
        given_up=tuple(
            GivenUp(
                cell=cell,
                values=values[cell],
                number=number,
                times=times[cell, number],
                outcome=last.outcome,
                why=last.why,
            )
            for (cell, number), last in given_up.items()
        ),
        rows=_rows(grid, missing_of, Counter(cell for cell, _ in given_up)),
    )


def _times(attempts: Iterable[Attempt]) -> Counter[tuple[str, int]]:
    return Counter(
        (cell, each.number) for each in attempts if each.outcome in ("failed", "lost") for cell in each.cells
    )


def _rows(grid: Grid, missing: Counter[str], given_up: Counter[str]) -> tuple[Row, ...]:
    alike: dict[str, list[Cell]] = {}
    for cell in grid.cells:
        alike.setdefault(repr(_apart(grid, cell)), []).append(cell)
    return tuple(_row(grid, cells, missing, given_up) for cells in alike.values())


def _row(grid: Grid, cells: Sequence[Cell], missing: Counter[str], given_up: Counter[str]) -> Row:
    asked = len(cells) * grid.file.starts
    return Row(
        values=_apart(grid, cells[0]),
        asked=asked,
        held=asked - sum(missing[cell.id] for cell in cells),
        given_up=sum(given_up[cell.id] for cell in cells),
    )


def _apart(grid: Grid, cell: Cell) -> Values:
    """What sets it apart from others, its load aside."""
    varied = {name for name, values in grid.axes.items() if len(values) > 1}
    return {
        name: value
        for name, value in cell.values.items()
        if name == "model" or (name in varied and name not in LOADS)
    }
