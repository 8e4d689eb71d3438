"""``profile compare``: the tables of sealed runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler.cli.base import (
    UNDECIDED,
    Basis,
    PriceText,
    Progress,
    Pue,
    TermWords,
    Utilization,
    console,
    write,
)
from profiler.errors import InputError, nearest

if TYPE_CHECKING:
    from profiler.comparison import Answer, Question
    from profiler.comparison.lines import Line
    from profiler.cost.terms import Terms
    from profiler.index import Run
    from profiler.report.page import Asked
    from profiler.store import RunResult

# More rows are no table to read: the first are shown, and how many there are.
MOST_ROWS = 100
# What is said of single runs (searches, limits, routing) is said of so many at most.
MOST_RUNS = 24
SHOWS = ("cost", "split", "memory", "routing")


def compare_runs(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of run folders.")],
    show: Annotated[
        str,
        typer.Option(
            help="cost; split: what an input and an output token takes; memory: where it went; routing: "
            "which experts tokens were sent to."
        ),
    ] = "cost",
    form: Annotated[str, typer.Option("--format", help="table, csv, md or json.")] = "table",
    price: PriceText = None,
    basis: Basis = None,
    utilization: Utilization = None,
    pue: Pue = None,
    terms: TermWords = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Rows to keep: model~Qwen, concurrency>=8, status!=failed; repeatable."),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Columns whose repeated runs make one row: model,gpu.")
    ] = None,
    sort: Annotated[
        str | None, typer.Option(help="Column to order by; -COLUMN for the highest first.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(help="Model, run or COLUMN=VALUE that all others are put over at the same load."),
    ] = None,
) -> None:
    """Print the cost table of sealed runs."""
    from profiler import comparison
    from profiler.cost import terms as given
    from profiler.report import table as report

    if form not in report.FORMATS:
        raise InputError(f"--format {form}: no such format{nearest(form, report.FORMATS)}")
    if show not in SHOWS:
        raise InputError(f"--show {show}: no such table{nearest(show, SHOWS)}")
    question = comparison.Question(
        terms=given.read(terms or (), price=price, basis=basis, utilization=utilization, pue=pue),
        where=tuple(where or ()),
        by=() if by is None else tuple(each.strip() for each in by.split(",")),
        baseline=baseline,
        sort=sort,
    )
    if show == "cost":
        _cost(runs, form, question)
    elif question != comparison.Question(terms=question.terms):
        raise InputError(f"--where, --by, --sort and --baseline choose rows of --show cost, not of {show}")
    else:
        _other(show, runs, form, question.terms)


def _cost(paths: Sequence[Path], form: str, question: Question) -> None:
    from profiler import comparison, index
    from profiler.report import csv_text, page

    found = index.runs(paths, Progress(), os.cpu_count() or 1)
    answer = comparison.answer([each for run in found for each in run.figures], question)
    if form in ("csv", "json"):
        rows = (line.row() for line in answer.lines)
        texts = csv_text.csv_lines(rows, question.columns) if form == "csv" else comparison.json_parts(rows)
        for text in texts:
            write(text)
        return
    lines = (comparison.together(answer.lines) if question.sort is None else answer.lines)[:MOST_ROWS]
    shown = [line.row() for line in lines]
    told = _runs_behind(lines, found)
    asked = _asked(answer, question, is_brief=len(told) > MOST_RUNS)
    if form == "md":
        write(page.markdown(shown, told, asked))
    else:
        page.show(shown, told, console(), asked)


def _runs_behind(lines: Sequence[Line], found: Sequence[Run]) -> list[RunResult]:
    """The runs of the rows that are shown, of large groups the first ones; and those that have no row."""
    from profiler import store

    folders = [line.folders for line in lines]
    wanted = {each[0] for each in folders}
    for name in (name for each in folders for name in each[1:]):
        if len(wanted) < MOST_ROWS:
            wanted.add(name)
    chosen = [run.folder for run in found if run.folder in wanted or not run.figures]
    return [store.load(folder) for folder in chosen[: 2 * MOST_ROWS]]


def _asked(answer: Answer, question: Question, is_brief: bool) -> Asked:
    from profiler.report.page import Asked

    notes, hidden = list(answer.notes), len(answer.lines) - MOST_ROWS
    if hidden > 0:
        rows = "row" if hidden == 1 else "rows"
        more = f"{hidden:,} more {rows}, not looked at for ★: choose with --where, --by or --sort"
        notes.insert(0, f"{more}; --format csv has all")
    if is_brief:
        notes.append(f"searches, limits and routing of single runs are told of up to {MOST_RUNS} runs")
    sort = [question.sort.removeprefix("-")] if question.sort else []
    return Asked([*question.by, *sort], notes, in_order=question.sort is not None, brief=is_brief)


# ------------------------------------------------------------------------------------ other tables


def _other(show: str, paths: Sequence[Path], form: str, terms: Terms) -> None:
    from profiler import store

    results = store.find(paths)
    if show == "split":
        _split(results, form, terms)
    elif show == "memory":
        _memory(results, form)
    else:
        _routing(results, form)


def _split(results: Sequence[RunResult], form: str, terms: Terms) -> None:
    from profiler import split
    from profiler.cost import question
    from profiler.report import split as report

    rows = split.rows(results, question.asked(results, terms, slo={}).payment)
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
