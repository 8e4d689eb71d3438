"""``profile frontier``: the cost of models beside how good they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profiler.cli.base import UNDECIDED, Basis, PriceText, TermWords, Utilization, console, promised, write
from profiler.errors import InputError, nearest


def frontier(
    context: typer.Context,
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of run folders.")],
    score: Annotated[
        str, typer.Option(help="Benchmark, by its column: lmarena_text_elo (profile list quality), gsm8k.")
    ],
    own_scores: Annotated[
        Path | None,
        typer.Option("--scores", help="Your scores: lm-evaluation-harness JSON, or a CSV.  [the catalog]"),
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Equally good is within this much.  [20 Elo, 2 percentage points]")
    ] = None,
    api: Annotated[
        list[str] | None, typer.Option(help="A model at its API list price beside the runs; repeatable.")
    ] = None,
    price: PriceText = None,
    basis: Basis = None,
    utilization: Utilization = None,
    terms: TermWords = None,
    form: Annotated[str, typer.Option("--format", help="table, csv (the frontier), md or json.")] = "table",
) -> None:
    """Say which models no other beats in both cost and quality, and how surely.

    Models are equally good only by an equivalence test.
    Each model's cost is taken at the highest load that keeps --slo-METRIC-QUANTILE LIMIT, as in profile cost.
    """
    from profiler import frontier as found
    from profiler import scores, store
    from profiler.cost import question
    from profiler.cost import terms as given
    from profiler.cost.basis import share_lines
    from profiler.report import frontier as report
    from profiler.report import sections
    from profiler.report.table import FORMATS

    if form not in FORMATS:
        raise InputError(f"--format {form}: no such format{nearest(form, FORMATS)}")
    known = scores.read(own_scores) if own_scores else scores.quality()
    benchmark = scores.benchmark_named(score, known)
    folders, wanted = promised(runs, context)
    on = given.read(terms or (), price=price, basis=basis, utilization=utilization)
    asked = question.asked(store.find(folders), on, slo=wanted)
    candidates = found.of_question(asked, benchmark, known, api or ())
    if not candidates:
        raise InputError("no window of these runs was finished: there is nothing to place")
    rows = found.rows(candidates, benchmark)
    pairs = found.pairs(candidates, margin)
    parts = report.sections(rows, pairs, share_lines(on), every=form == "json")
    if form == "table":
        sections.show(parts, console())
    elif form == "csv":
        write(sections.csv(parts[0]))
    else:
        write(sections.markdown(parts) if form == "md" else sections.as_json(parts))
    if all(row["p_on_frontier"] is None for row in rows):
        raise typer.Exit(UNDECIDED)
