"""``profile export``: the table and the raw records for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profiler.cli.base import PriceText


def export(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of run folders.")],
    to: Annotated[str, typer.Option("--to", help="csv, parquet, jsonl, prometheus or mlflow.")],
    out: Annotated[Path, typer.Option(help="File to write; for mlflow a folder.  Must not be there yet.")],
    what: Annotated[
        str, typer.Option(help="table (a row a load point), requests or telemetry (raw).")
    ] = "table",
    price: PriceText = None,
) -> None:
    """Write runs for other tools: what was not measured is null or absent, never 0."""
    from profiler import exporting

    exporting.export(runs, to, out, what, price)
