"""What can be said of run folders: whole, under way, older than checksums, damaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from profiler.errors import DamagedError
from profiler.store.files import JOURNAL, MANIFEST, PARTS, SUMMARY
from profiler.store.reading import faults, load, sums, within

State = Literal["whole", "unfinished", "unknown", "damaged"]


class Standing(NamedTuple):
    """A run folder as the user would write it, and why it stands as it does.  ``unfinished``: what it calls
    finished is whole; ``unknown``: it can be read, and nothing tells whether it is what was written."""

    folder: str
    state: State
    words: str


def standings(paths: Iterable[Path | str]) -> Iterator[Standing]:
    """Every file of every run, read; a folder that holds run folders stands for all of them.

    Raises InputError for a path that holds no run.
    """
    for path in map(Path, paths):
        for folder in [path / name for name in within(path)] or [path]:
            yield _standing(folder)


def _standing(folder: Path) -> Standing:
    wrong = faults(folder)
    damage = [why for each in wrong if isinstance(each, DamagedError) for _, why in each.faults]
    if damage:
        return Standing(str(folder), "damaged", "; ".join(damage))
    if wrong:
        if not (folder / MANIFEST).exists() and not (folder / JOURNAL).exists():
            raise wrong[0]
        return Standing(str(folder), "unknown", str(wrong[0]))
    return Standing(str(folder), *_of_undamaged(folder))


def _of_undamaged(folder: Path) -> tuple[State, str]:
    run = load(folder)
    known, windows = sums(run.manifest), len(run.manifest.windows)
    if not run.is_sealed:
        return "unfinished", f"{run.manifest.status}, {windows} windows finished; profile resume completes it"
    if not known:
        return "unknown", f"sealed before there were checksums (schema {run.manifest.schema_version})"
    here = {each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()}
    others = sorted(name for name in here - {*known, MANIFEST, SUMMARY} if not _is_passing(name))
    beside = f"; not of the run: {', '.join(others)}" if others else ""
    return "whole", f"{len(known) + 1} files, {windows} windows{beside}"


def _is_passing(name: str) -> bool:
    """What a run has while it goes on, and a crash may leave."""
    return name == JOURNAL or name.startswith((f"{PARTS}/", "."))


def worst(found: Iterable[Standing]) -> State:
    """Of several: ``whole`` where all are."""
    states = {each.state for each in found}
    worse: tuple[State, ...] = ("damaged", "unknown", "unfinished")
    return next((each for each in worse if each in states), "whole")
