"""``profile cost``: what tokens, requests and answers of sealed runs cost, and what that depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profiler.cli.base import (
    UNDECIDED,
    Basis,
    PriceText,
    Pue,
    TermWords,
    Utilization,
    console,
    promised,
    say,
    write,
)
from profiler.errors import InputError, nearest


def cost(
    context: typer.Context,
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of run folders.")],
    show: Annotated[
        list[str] | None,
        typer.Option(
            help="kinds, invoice, requests, solved, at-slo, break-even, flips or sensitivity; repeatable."
        ),
    ] = None,
    price: PriceText = None,
    basis: Basis = None,
    utilization: Utilization = None,
    pue: Pue = None,
    terms: TermWords = None,
    accuracy: Annotated[
        Path | None, typer.Option(help="lm-evaluation-harness JSON, or a CSV of scores: USD per solved task.")
    ] = None,
    api: Annotated[
        str | None, typer.Option(help="Model whose API list price is the alternative.  [the run's own]")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="table, csv (of one --show), md or json.")] = "table",
) -> None:
    """Say what input, cached and output tokens cost, what a request and a solved task cost, at which load a
    latency promise is kept, against an API, and where the verdict flips.

    Limits on latency are given as --slo-METRIC-QUANTILE LIMIT: --slo-ttft-p99 500ms --slo-tpot-p99 50ms.
    """
    from profiler import index, scores, store
    from profiler.cost import question
    from profiler.cost import terms as given
    from profiler.report import cost as report
    from profiler.report import sections
    from profiler.report.table import FORMATS

    if form not in FORMATS:
        raise InputError(f"--format {form}: no such format{nearest(form, FORMATS)}")
    for name in show or ():
        if name not in report.VIEWS:
            raise InputError(f"--show {name}: no such section{nearest(name, report.VIEWS)}")
    if form == "csv" and len(show or ()) != 1:
        raise InputError(f"--format csv holds one table: choose it with --show {'|'.join(report.VIEWS)}")
    folders, slo = promised(runs, context)
    on = given.read(terms or (), price=price, basis=basis, utilization=utilization, pue=pue)
    known = scores.read(accuracy) if accuracy else ()
    asked = question.asked(
        store.find(folders), on, slo=slo, api=api, scores=known, measured=index.figures(folders)
    )
    found = sections.answer({name: v for name, v in report.VIEWS.items() if name in (show or (name,))}, asked)
    if form == "table":
        sections.show(found, console())
    elif form == "csv":
        for line in (line for each in found for line in each.lines if not each.rows):
            say(line)
        write("".join(sections.csv(each) for each in found))
    else:
        write(sections.markdown(found) if form == "md" else sections.as_json(found))
    if not any(each.rows for each in found):
        raise typer.Exit(UNDECIDED)
