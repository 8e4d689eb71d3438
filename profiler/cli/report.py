"""``profile report``: sealed runs as one page of figures, tables and verdicts."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter
from typing import Annotated

import typer

from profiler.cli.base import Basis, PriceText, Progress, Pue, TermWords, Utilization, say, write

REPORT = Path("report.html")


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of run folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = REPORT,
    title: Annotated[str | None, typer.Option(help="Heading of the page.  [the models]")] = None,
    price: PriceText = None,
    basis: Basis = None,
    utilization: Utilization = None,
    pue: Pue = None,
    terms: TermWords = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Rows to keep: model~Qwen, concurrency>=8; repeatable.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Model, run or COLUMN=VALUE that all others are put over.")
    ] = None,
    score: Annotated[
        str | None, typer.Option(help="Benchmark for cost against quality: profile list quality.")
    ] = None,
) -> None:
    """Write one HTML file: figures, tables, verdicts, caveats; no network needed."""
    from profiler.comparison import Question
    from profiler.cost import terms as given
    from profiler.report.html import making
    from profiler.report.html.document import Asked
    from profiler.report.html.nouns import Figure, Table

    making.check_output(output)
    on = given.read(terms or (), price=price, basis=basis, utilization=utilization, pue=pue)
    question = Question(terms=on, where=tuple(where or ()), baseline=baseline)
    begin = perf_counter()
    made = making.report(
        runs, Asked(question=question, title=title, score=score), os.cpu_count() or 1, Progress(), say
    )
    size = making.write(made, output)
    figures, tables = (sum(isinstance(each, kind) for each in made.blocks()) for kind in (Figure, Table))
    took = f"{size / 1e6:.1f} MB, {perf_counter() - begin:.1f} s"
    write(f"{output}: {figures} figures, {tables} tables ({took}); open it in a browser\n")
    say("one figure as a file: profile plot advantage|latency|power|memory|routing RUN… -o figure.svg")
