"""``profile plan``: what to expect of hardware that is not at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler.cli.base import Overrides, console, figure_file, limits, write, write_figure
from profiler.errors import InputError, nearest

if TYPE_CHECKING:
    from profiler.plan import Plan

Learned = Annotated[
    list[Path] | None, typer.Option(help="Sealed runs that the prediction learns from; repeatable.")
]
Figure = Annotated[
    Path | None, typer.Option(help="Draw the first map of a MoE and a rival: to a .svg, .png or .csv file.")
]


def plan(
    context: typer.Context,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="Hub id, folder or catalog name; repeat to compare."),
    ] = None,
    gpu: Annotated[
        list[str] | None,
        typer.Option("--gpu", "-g", help="H100, A100-80GB, 4090, … or a GPU sheet of your own; repeatable."),
    ] = None,
    gpus: Annotated[
        str | None, typer.Option(help="How many of them: 2, or 1,2,4.  As few as fit by default.")
    ] = None,
    scenario: Annotated[str, typer.Option("--scenario", "-s", help="Scenario name or TOML file.")] = "chat",
    overrides: Overrides = None,
    price: Annotated[
        str | None, typer.Option(help="USD per GPU-hour, or a price sheet; the catalog's by default.")
    ] = None,
    weights: Annotated[
        str, typer.Option(help="auto (as published), random (in engine.dtype), fp8 or int4.")
    ] = "auto",
    metric: Annotated[
        str, typer.Option(help="What the map of a MoE and its rivals compares: speed, energy or cost.")
    ] = "speed",
    calibrate: Learned = None,
    plot: Figure = None,
    form: Annotated[str, typer.Option("--format", help="table, csv, md or json.")] = "table",
) -> None:
    """Predict fit, speed, energy and cost on GPUs that are not at hand.

    With 90 % intervals, and a map of where a MoE beats its dense rivals.
    Limits on latency are given as --slo-METRIC LIMIT, for the request in the middle, or --slo-METRIC-QUANTILE
    LIMIT: --slo-ttft 500ms --slo-tpot-p99 50ms.  Metrics: ttft, itl, tpot, e2e.
    """
    from profiler import plan as planner
    from profiler.report import plan as report

    if form not in report.FORMATS:
        raise InputError(f"--format {form}: no such format{nearest(form, report.FORMATS)}")
    figure_file(plot, "--plot")
    found = planner.answer_all(
        planner.Request(
            models=model or (),
            gpus=gpu or (),
            counts=gpus,
            scenario=scenario,
            overrides=overrides or (),
            slo=limits(context.args, context.command, middle="p50"),
            price=price,
            weights=weights,
            metric=metric,
            calibrate=calibrate or (),
        )
    )
    _draw(found, plot)
    if form == "table":
        report.show(found, console())
    else:
        write(report.TEXTS[form](found))


def _draw(found: Plan, out: Path | None) -> None:
    if out is None:
        return
    from profiler.charts import crossover

    if not found.maps:
        raise InputError("--plot: a map takes a MoE and a dense model that fit on as many GPUs of one kind")
    write_figure(crossover.of_map(found.maps[0]), out)
