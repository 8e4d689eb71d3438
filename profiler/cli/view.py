"""``profile view``: a results folder in the browser."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from profiler.cli.base import say, write
from profiler.errors import InputError


def view(
    folder: Annotated[Path, typer.Argument(help="Folder of run folders.")] = Path("results"),
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of 127.0.0.1.  [8321]")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """List, pick and compare runs in a page only this machine can reach, until Ctrl-C."""
    from profiler.view import server

    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: profile run makes results/; name where your runs are")

    def ready(address: str) -> None:
        write(f"{address}\n")
        sys.stdout.flush()  # whoever started it may wait for that line
        say(f"runs of {folder}; Ctrl-C ends it")
        if show:
            import webbrowser

            webbrowser.open(address)

    server.serve(folder, port, ready)
