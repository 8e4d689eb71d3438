"""Runs taken apart: each engine start, or each repeat, as if it were a run of its own.

What starts scatter is what the next one will; what windows scatter within one start is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

from msgspec.structs import replace

from profiler import figures, index, store
from profiler.errors import InputError
from profiler.figures import Figures
from profiler.schema import Window
from profiler.store import RunResult

_KEPT = "_figures_of_starts"


class Part(RunResult, frozen=True, dict=True):
    """A run as if nothing else had been held.  Its tables are those of the ``whole``, read once, and only
    where something asks for them."""

    whole: RunResult

    @cached_property
    def requests(self) -> Any:
        return self.whole.requests

    @cached_property
    def samples(self) -> Any:
        return self.whole.samples


def starts(runs: Iterable[RunResult]) -> list[RunResult]:
    """Each engine start of the runs; a run that has one, or no windows of its own (imported), stays whole."""
    return [part for run in runs for part in _parts(run, lambda window: window.engine_start)]


def repeats(runs: Iterable[RunResult]) -> list[RunResult]:
    """Each repeat of the load points."""
    return [part for run in runs for part in _parts(run, lambda window: window.repeat)]


def figures_of_starts(runs: Iterable[RunResult], processes: int = 1) -> list[tuple[RunResult, list[Figures]]]:
    """Each engine start with its load points.  ``processes`` as of ``index.runs``.

    What was made once is kept with the run, as its tables are; of sealed runs it comes from the indices of
    their folder.
    """
    runs = list(runs)
    new = {id(run): (run, starts([run])) for run in runs if _KEPT not in run.__dict__}
    whole = [run for run, parts in new.values() if parts[0] is run]
    several = [run for run, parts in new.values() if parts[0] is not run and _is_sealed(run)]
    for asked, kind in ((whole, index.WHOLE), (several, STARTS)):
        found = index.groups([run.folder for run in asked], kind, processes=processes)
        for run, (_, groups) in zip(asked, found, strict=True):
            run.__dict__[_KEPT] = list(zip(new[id(run)][1], groups, strict=True))
    for run, parts in new.values():
        if _KEPT not in run.__dict__:
            run.__dict__[_KEPT] = [(part, list(figures.of_run(part))) for part in parts]
    return [each for run in runs for each in run.__dict__[_KEPT]]


def _groups(run: RunResult) -> list[list[Figures]]:
    return [list(figures.of_run(part)) for part in starts([run])]


STARTS = index.Kind(".starts.index", _groups)


def _is_sealed(run: RunResult) -> bool:
    """Whether the run stands on disk as it is here: a part of one, or one that is not finished, does not."""
    try:
        return run.manifest.status == "complete" and store.load(run.folder).manifest == run.manifest
    except InputError:
        return False


def _parts(run: RunResult, part: Callable[[Window], int]) -> list[RunResult]:
    windows = run.manifest.windows
    numbers = sorted({part(window) for window in windows})
    if len(numbers) < 2:
        return [run]
    return [_only(run, tuple(w for w in windows if part(w) == number)) for number in numbers]


def _only(run: RunResult, windows: tuple[Window, ...]) -> RunResult:
    return Part(run.folder, replace(run.manifest, windows=windows), run)
