"""Sealed runs → one tidy table, a row a load point, or with ``by`` a row a group of repeated runs.

Values only: text is made by ``report.table``.  ``rows`` gives plain dicts so that the command line needs
no pandas; ``compare`` gives the same as a DataFrame.  Of many runs the figures come from ``index``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import msgspec
from msgspec import Struct

from profiler import consumption, cost, figures, index
from profiler.comparison import against, choice, groups, lines
from profiler.comparison.against import MEANING
from profiler.comparison.columns import AGAINST, COLUMNS, ESTIMATES, HIGHER_IS_BETTER
from profiler.comparison.lines import Line, Row, same_load
from profiler.cost import terms
from profiler.cost.terms import Terms
from profiler.errors import StoreError
from profiler.figures import Figures
from profiler.store import RunResult, replacing

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "COLUMNS",
    "ESTIMATES",
    "MEANING",
    "Question",
    "answer",
    "as_json",
    "best",
    "compare",
    "of_figures",
]
__all__ += ["json_parts", "ordered", "rows", "same_load", "summarise", "together"]
SUMMARY = "summary.json"


class Question(Struct, frozen=True, kw_only=True):
    """What is asked of the figures of many runs; conditions first, then groups, ratios, order.

    ``by``: columns; ``sort``: a column, ``-`` before it for descending; ``baseline``: a model, a run or
    COLUMN=VALUE.
    """

    terms: Terms = Terms()
    where: Sequence[str] = ()
    by: Sequence[str] = ()
    baseline: str | None = None
    sort: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return COLUMNS if self.baseline is None else (*COLUMNS, *AGAINST)


class Answer(Struct, frozen=True):
    """Lines in the order asked for, else in that of the runs, and what is to be known of them."""

    lines: list[Line]
    notes: list[str]


def answer(found: Sequence[Figures], question: Question) -> Answer:
    """Raises InputError where a column, a condition, the baseline or the terms are wrong."""
    whole = lines.of(found, question.terms)
    chosen = choice.chosen(whole, question.where)
    shown = {id(line) for line in chosen}
    rest = [line for line in whole if id(line) not in shown]
    if question.by:
        chosen, rest = (groups.pool(each, question.by) for each in (chosen, rest))
    notes = [] if question.baseline is None else against.put_over(chosen, question.baseline, rest)
    if question.sort is None:
        return Answer(chosen, notes)
    return Answer(choice.sort(chosen, question.sort, question.columns), notes)


def rows(
    runs: Sequence[RunResult], price: str | float | None = None, pue: str | float | None = None
) -> list[Row]:
    """One dict a load point with every name of COLUMNS, in that order; None where not measured.

    ``price`` (USD per hour or a price sheet, as for ``--price``) and ``pue`` override what each run was made
    with; a sheet is looked up for each run's own GPU.  Raises InputError.
    """
    return of_figures(figures.of_runs(runs), terms.read(price=price, pue=pue))


def of_figures(found: Sequence[Figures], on: Terms) -> list[Row]:
    """The same of figures that are there already."""
    return [line.row() for line in lines.of(found, on)]


def summarise(runs: Sequence[RunResult]) -> list[Row]:
    """The rows of runs that were just sealed; each run folder keeps its own as ``summary.json``."""
    table = of_figures(index.figures([run.folder for run in runs]), Terms())
    for run in runs:
        own = [row for row in table if row["run"] == str(run.folder)]
        with suppress(StoreError), replacing(run.folder / SUMMARY) as beside:  # it can be made again
            beside.write_text(as_json(own))
    return table


def as_json(table: Iterable[Row]) -> str:
    return "".join(json_parts(table))


def json_parts(table: Iterable[Row]) -> Iterator[str]:
    """The text of a list of rows, a row at a time: ten thousand of them take much memory at once."""
    begin = "["
    for row in table:
        text = msgspec.json.format(msgspec.json.encode(row), indent=1).decode()
        yield f"{begin}\n " + text.replace("\n", "\n ")
        begin = ","
    yield "[]\n" if begin == "[" else "\n]\n"


def ordered(table: Iterable[Row]) -> list[Row]:
    """Rows to compare stand together: by scenario and load, models in the order given."""
    return lines.ordered(table, lambda row: row)


def together(found: Iterable[Line]) -> list[Line]:
    """The same of lines."""
    return lines.ordered(found, lambda line: line.found.facts)


def best(table: Sequence[dict[str, Any]], column: str) -> dict[tuple[Any, ...], int]:
    """The row number holding the best value of ``column`` for each load with at least two rows: highest
    for rates, lowest for everything else.  A row in which the client was the limit is never the best, nor
    is one on shared boards the best in power and energy."""
    places: dict[tuple[Any, ...], list[int]] = {}
    for number, row in enumerate(table):
        if row[column] is not None:
            places.setdefault(same_load(row), []).append(number)
    pick = max if column in HIGHER_IS_BETTER else min
    found = {}
    for key, held in places.items():
        fair = [number for number in held if not _is_doubtful(table[number], column)]
        if len(held) > 1 and fair:
            found[key] = pick(fair, key=lambda n: table[n][column])
    return found


def _is_doubtful(row: dict[str, Any], column: str) -> bool:
    return bool(
        row["client_bound"] or (row["shared_gpu"] and column in (*consumption.ESTIMATES, *cost.METERED))
    )


class Options(TypedDict, total=False):
    """What :func:`compare` takes beside the paths: the options of the command by their names; ``terms``,
    ``where`` and ``by`` are lists."""

    basis: str | None
    utilization: str | float | None
    terms: Sequence[str]
    where: Sequence[str]
    by: Sequence[str]
    baseline: str | None
    sort: str | None


def compare(
    paths: Iterable[str | Path],
    price: str | float | None = None,
    pue: str | float | None = None,
    **options: Unpack[Options],
) -> pd.DataFrame:
    """Run folders (or folders of them) → a DataFrame with COLUMNS; not measured is NA.  Raises InputError."""
    import pandas as pd

    on = terms.read(
        options.get("terms", ()),
        price=price,
        pue=pue,
        basis=options.get("basis"),
        utilization=options.get("utilization"),
    )
    question = Question(
        terms=on,
        where=options.get("where", ()),
        by=options.get("by", ()),
        baseline=options.get("baseline"),
        sort=options.get("sort"),
    )
    found = answer(index.figures(paths), question)
    return pd.DataFrame([line.row() for line in found.lines], columns=list(question.columns))
