"""``profile import``: what other tools measured, as run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profiler.cli.base import PriceText, say, write
from profiler.errors import InputError


def import_results(
    files: Annotated[list[Path], typer.Argument(help="Result files: JSON, JSON lines or CSV.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The model, where the file calls it else.")
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="The GPU it was measured on: H100, L4, …")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="How many of them.")] = None,
    engine: Annotated[str | None, typer.Option(help="The engine and its version: 'vllm 0.11.1'.")] = None,
    scenario: Annotated[
        str | None, typer.Option(help="A name for what was asked: runs of one name are compared.")
    ] = None,
    price: PriceText = None,
    tool: Annotated[
        str | None,
        typer.Option("--from", help="vllm, guidellm, aiperf or table; by the content if not given."),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option("--whole", help="Figures of all of the run, start and end included, as the tools do."),
    ] = False,
    out: Annotated[Path, typer.Option(help="Where run folders are made.")] = Path("results"),
) -> None:
    """Make run folders of what vllm bench, GuideLLM, AIPerf or a table say."""
    from profiler import importing

    if model is not None and not model.strip():
        raise InputError("--model is empty")
    given = importing.Given(
        model=model, gpu=gpu, gpus=gpus, engine=engine, scenario=scenario, price=price, whole=whole
    )
    written = []
    for file in files:
        for run in importing.run_folders(file, out, given, tool):
            how = "imported" if run.new else "was imported before"
            told = run.manifest.imported
            loads = len(told.points) if told else 0
            say(f"{file} → {run.folder}: {how}, {told.by if told else ''}, {loads} load{'s' * (loads != 1)}")
            written.append(run)
    write("".join(f"{run.folder}\n" for run in written))
    if written:
        say(f"next: profile compare {' '.join(str(run.folder) for run in written[:4])}")
