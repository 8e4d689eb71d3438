"""``profile list`` and ``profile doctor``: what is known, and what this machine can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profiler.cli.base import write
from profiler.errors import InputError, nearest


def list_catalog(
    what: Annotated[
        str,
        typer.Argument(help="models, scenarios, gpus, prices, api-prices, capex, grids, quality or claims."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show the catalog: models, scenarios, GPUs, prices, grids, scores and claims."""
    from profiler.report import listing

    if what not in listing.LISTINGS:
        raise InputError(f"no list of {what!r}{nearest(what, listing.LISTINGS)}")
    write(listing.render(listing.LISTINGS[what](), as_json))


def doctor(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN]...", help="With --bundle: runs to put into it.")
    ] = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure memory bandwidth and matrix rate of GPUs and CPU instead."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="With --measure: write a GPU sheet (TOML) that PROFILER_GPUS can name."),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Write it into an archive (zip) for a bug report, without secrets and prompts."),
    ] = None,
) -> None:
    """Say what can be measured on this machine, what not, and what would mend it."""
    from profiler import doctor

    if runs and bundle is None:
        raise InputError("RUN goes with --bundle: profile doctor --bundle FILE.zip RUN…")
    if bundle is not None and measure:
        raise InputError("--bundle and --measure exclude each other")
    if bundle is not None:
        _bundle(bundle, runs or [])
        return
    if out is not None and not measure:
        raise InputError("--out goes with --measure: profile doctor --measure --out FILE.toml")
    write(doctor.measured(out) if measure else doctor.text())


def _bundle(out: Path, runs: list[Path]) -> None:
    from profiler import bundle

    listed = bundle.write(out, runs)
    write("\n".join(["in it:", *listed, f"written to {out}: look through it before you send it", ""]))
