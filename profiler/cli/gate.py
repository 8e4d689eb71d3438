"""``profile gate``: may a change go in?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from profiler.cli.base import FAILED, UNDECIDED, PriceText, console, write
from profiler.errors import InputError, nearest

FORMATS = ("table", "json")
BASELINE = "--baseline"


class Command(TyperCommand):
    """``--baseline`` takes all words up to the next option: a shell's ``old/*`` would else make all but its
    first word new runs, without a word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(_one_by_one(args)))


def _one_by_one(words: Sequence[str]) -> Iterator[str]:
    inside = False
    for word in words:
        if word.startswith("-"):
            inside = word == BASELINE
        elif inside:
            yield BASELINE
        if word != BASELINE:
            yield word


def gate(
    runs: Annotated[list[Path], typer.Argument(help="The new runs: run folders, or folders of run folders.")],
    baseline: Annotated[
        list[Path],
        typer.Option(help="Runs to compare with, or folders of them; all words up to the next option."),
    ],
    max_regression: Annotated[str, typer.Option(help="How far a metric may worsen.")] = "5%",
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Column to judge, with a limit of its own or not: ttft_s_p99=10% (repeatable)."),
    ] = None,
    price: PriceText = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write a summary for pull requests.")] = None,
    form: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
) -> None:
    """Fail on a regression beyond noise.

    Exit code: 0 there is none, 1 there is one, 3 the runs cannot tell.
    """
    from profiler import gate as gating
    from profiler import store
    from profiler.charts.words import one_line
    from profiler.gate import limits
    from profiler.report import gate as report

    if form not in FORMATS:
        raise InputError(f"--format {form}: no such format{nearest(form, FORMATS)}")
    allowed = limits.read(max_regression, metric or ())
    found = gating.compare(store.find(runs), store.find(baseline), allowed, price)
    if form == "json":
        write(report.as_json(found))
    else:
        screen = console()
        screen.print(report.rich_table(found))
        for line in report.lines(found):
            screen.print(f"· {one_line(line)}", markup=False)
        write(f"{report.headline(found)}\n")
    for path, text in ((junit, report.junit), (markdown, report.markdown)):
        if path is not None:
            with store.replacing(path) as beside:
                beside.write_text(text(found), encoding="utf-8")
    code = {"pass": 0, "fail": FAILED, "undecided": UNDECIDED}[found.verdict]
    if code:
        raise typer.Exit(code)
