"""A results folder that others write while we look: which runs it holds, and when that changes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from profiler import index, store
from profiler.errors import InputError
from profiler.figures import Figures
from profiler.store import RunResult

TRIALS = "trials"


class Entry(NamedTuple):
    """A run and its load points, of which there are none while its first window is still open."""

    run: RunResult
    figures: Sequence[Figures]


class Folder:
    """A folder of run folders; it may not be there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        """The run folders in it."""
        return store.within(self.path)

    def stamp(self) -> str:
        """Another one whenever a run was begun, went on, was sealed or taken away, or a trial went on."""
        trials = self.path / TRIALS
        files = [self.path / name / file for name in self.names() for file in (store.MANIFEST, store.JOURNAL)]
        files += sorted(trials.glob("*.json")) if trials.is_dir() else []
        seen = "\n".join(f"{file} {_changed(file)}" for file in files)
        return blake2b(seen.encode(), digest_size=12).hexdigest()

    def named(self, names: Sequence[str]) -> list[Path]:
        """The folders of these runs.  Raises InputError for what is no run of this folder."""
        here = set(self.names())
        for name in names:
            if name not in here:
                raise InputError(f"{name}: no such run in {self.path}")
        return [self.path / name for name in dict.fromkeys(names)]

    def entries(self) -> tuple[list[Entry], list[str]]:
        """The runs, newest first, and why others cannot be read."""
        runs, broken = [], []
        for name in self.names():
            try:
                runs.append(store.load(self.path / name))
            except InputError as error:
                broken.append(str(error))
        runs.sort(key=lambda run: run.manifest.unix_ns, reverse=True)
        try:
            figures = {each.folder: each.figures for each in index.runs([run.folder for run in runs])}
        except InputError:  # one of them is damaged: which, tells reading them one by one
            figures = {}
            for run in runs:
                try:
                    figures[str(run.folder)] = index.runs([run.folder])[0].figures
                except InputError as error:
                    broken.append(str(error))
        return [Entry(run, figures.get(str(run.folder), ())) for run in runs], broken


def _changed(file: Path) -> int:
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return 0
