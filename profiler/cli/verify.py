"""``profile verify``: are run folders what was written?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profiler.cli.base import FAILED, UNDECIDED, write


def verify(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of run folders.")],
) -> None:
    """Hold every file of run folders against its checksum.

    Exit code: 0 all are whole, 1 one is damaged, 3 one is unfinished, older than checksums or cannot be told.
    """
    from profiler.store import verifying

    found = []
    for each in verifying.standings(runs):
        write(f"{each.state:<11}{each.folder}: {each.words}\n")
        found.append(each)
    code = {"damaged": FAILED, "unknown": UNDECIDED, "unfinished": UNDECIDED}.get(verifying.worst(found))
    if code is not None:
        raise typer.Exit(code)
