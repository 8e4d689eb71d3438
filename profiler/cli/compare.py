"""``profile compare``: the tables of sealed runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler.cli.base import UNDECIDED, PriceText, console, write
from profiler.errors import InputError, nearest

if TYPE_CHECKING:
    from profiler.store import RunResult


def compare_runs(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of run folders.")],
    form: Annotated[str, typer.Option("--format", help="table, csv, md or json.")] = "table",
    price: PriceText = None,
    pue: Annotated[
        str | None, typer.Option(help="Energy the building takes over energy the machine takes: 1.2.")
    ] = None,
    split: Annotated[
        bool, typer.Option(help="What an input and what an output token takes, in place of the cost table.")
    ] = False,
    memory: Annotated[bool, typer.Option(help="Where the memory went, in place of the cost table.")] = False,
    routing: Annotated[
        bool, typer.Option(help="Which experts tokens were sent to, in place of the cost table.")
    ] = False,
) -> None:
    """Print the cost table of sealed runs."""
    from profiler import comparison, store
    from profiler.report import page
    from profiler.report import table as report

    if form not in report.FORMATS:
        raise InputError(f"--format {form}: no such format{nearest(form, report.FORMATS)}")
    results = store.find(runs)
    if split:
        _split(results, form, price)
        return
    if memory:
        _memory(results, form)
        return
    if routing:
        _routing(results, form)
        return
    rows = comparison.rows(results, price, pue)
    if form == "table":
        page.show(rows, results, console())
    elif form == "md":
        write(page.markdown(rows, results))
    else:
        write(report.as_csv(rows) if form == "csv" else comparison.as_json(rows))


def _split(results: Sequence[RunResult], form: str, price: str | None) -> None:
    from profiler import split
    from profiler.report import split as report

    rows = split.rows(results, price)
    if not rows:
        raise InputError(f"no steady load of these runs decodes (batches are not split): {split.HOW}")
    if form in report.TEXTS:
        write(report.TEXTS[form](rows))
    else:
        screen = console()
        screen.print(report.rich_table(rows))
        for note in report.footnotes(rows):
            screen.print(f"· {note}", markup=False)
    if all(row["per_input_token"] is None for row in rows):
        raise typer.Exit(UNDECIDED)


def _memory(results: Sequence[RunResult], form: str) -> None:
    from profiler.memory import account
    from profiler.report import memory as report

    if form == "json":
        write(report.as_json(results))
        return
    if form != "table":
        raise InputError(f"--format {form}: the memory account is printed as table or json")
    screen = console()
    for run in results:
        found = account(run)
        screen.print(report.rich_table(found, run.folder.name))
        for line in report.lines(found):
            screen.print(f"· {line}", markup=False)


def _routing(results: Sequence[RunResult], form: str) -> None:
    from profiler.report import routing as report

    found = report.found(results)
    if form in report.TEXTS:
        write(report.TEXTS[form](found))
        return
    screen = console()
    for each in found:
        for table in report.rich_tables(each):
            screen.print(table)
        for line in report.lines_below(each.report):
            screen.print(f"· {line}", markup=False)
