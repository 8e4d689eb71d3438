"""``profile cost``: what tokens, requests and answers of sealed runs cost, and what that depends on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from profiler.report.sections import Section


def cost(
    context: typer.Context,
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of run folders.")],
    show: Annotated[
        list[str] | None,
        typer.Option(
            help="kinds, invoice, requests, solved, at-slo, break-even, flips, sensitivity or all; "
            "repeatable.  [summary]"
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
    """Say what tokens, requests and solved tasks cost, and when the answer changes.

    Input, cached and output tokens apart, at the load that keeps a latency promise, against an API.
    Limits on latency are given as --slo-METRIC-QUANTILE LIMIT: --slo-ttft-p99 500ms --slo-tpot-p99 50ms.
    """
    from profiler import index, scores, store
    from profiler.cost import question
    from profiler.cost import terms as given
    from profiler.report import cost as report
    from profiler.report import sections
    from profiler.report.table import FORMATS

    known = (*report.VIEWS, report.EVERY)
    for option, words, among in (("--format", [form], FORMATS), ("--show", show or [], known)):
        for word in words:
            if word not in among:
                what = option.removeprefix("--").replace("show", "section")
                raise InputError(f"{option} {word}: no such {what}{nearest(word, among)}")
    if form == "csv" and (len(show or ()) != 1 or show == [report.EVERY]):
        raise InputError(f"--format csv holds one table: choose it with --show {'|'.join(report.VIEWS)}")
    folders, slo = promised(runs, context)
    on = given.read(terms or (), price=price, basis=basis, utilization=utilization, pue=pue)
    solved = scores.read(accuracy) if accuracy else ()
    asked = question.asked(
        store.find(folders), on, slo=slo, api=api, scores=solved, measured=index.figures(folders)
    )
    wanted = show or ([report.EVERY] if form == "json" else report.asked_for(asked))
    found = sections.answer(report.chosen(wanted), asked)
    _put(found, form)
    if form == "table" and not show:
        write(f"{report.others()}\n")
    if not any(each.rows for each in found):
        raise typer.Exit(UNDECIDED)


def _put(found: Sequence[Section], form: str) -> None:
    from profiler.report import sections

    if form == "table":
        sections.show(found, console())
    elif form == "csv":
        for line in (line for each in found for line in each.lines if not each.rows):
            say(line)
        write("".join(sections.csv(each) for each in found))
    else:
        write(sections.markdown(found) if form == "md" else sections.as_json(found))
