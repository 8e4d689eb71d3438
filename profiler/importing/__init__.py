"""Results of other tools → sealed run folders that say where they come from.

A tool a module: ``claims`` knows its files by their content, ``found`` reads them.  What a file does not say
is unknown, unless the user says it (``Given``); requests, where a tool kept them, become records by our
definitions.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from profiler.errors import InputError, nearest
from profiler.importing import aiperf, content, folder, guidellm, table, vllm_bench
from profiler.importing.folder import Given, Written
from profiler.importing.requests import DamagedError

__all__ = ["TOOLS", "Given", "Written", "run_folders"]

TOOLS: dict[str, ModuleType] = {
    "vllm": vllm_bench,
    "guidellm": guidellm,
    "aiperf": aiperf,
    "table": table,
}


def run_folders(path: Path, out: Path, given: Given, tool: str | None = None) -> list[Written]:
    """The runs that ``path`` tells of, sealed under ``out``; those that are there already are left alone.

    ``tool``: whose file it is (a key of TOOLS), None: by its content.  Raises InputError, before anything is
    written, for a file that cannot be read, or that does not say what nobody gave.
    """
    if tool is not None and tool not in TOOLS:
        raise InputError(f"--from {tool}: no such tool{nearest(tool, TOOLS)}")
    read = content.read(path)
    module = TOOLS[tool] if tool else next((each for each in TOOLS.values() if each.claims(read)), None)
    if module is None or not module.claims(read):
        raise InputError(
            f"{path}: not {'of ' + tool if tool else 'a format that is known here'}; {content.EXPECTED}"
        )
    try:
        runs = [folder.prepare(read, found, given, part) for part, found in enumerate(module.found(read))]
    except DamagedError as damage:
        raise InputError(f"{path}: {damage}: damaged") from None
    there = [folder.earlier(out, run) for run in runs]
    return [old or folder.write(out, run) for old, run in zip(there, runs, strict=True)]
