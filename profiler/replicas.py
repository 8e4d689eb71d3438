"""Runs taken apart: each engine start, or each repeat, as if it were a run of its own.

What starts scatter is what the next one will; what windows scatter within one start is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from profiler import figures, index
from profiler.figures import Figures
from profiler.schema import Window
from profiler.store import RunResult

_KEPT = "_figures_of_starts"


def starts(runs: Iterable[RunResult]) -> list[RunResult]:
    """Each engine start of the runs; a run that has one, or no windows of its own (imported), stays whole."""
    return [part for run in runs for part in _parts(run, lambda window: window.engine_start)]


def repeats(runs: Iterable[RunResult]) -> list[RunResult]:
    """Each repeat of the load points."""
    return [part for run in runs for part in _parts(run, lambda window: window.repeat)]


def figures_of_starts(runs: Iterable[RunResult], processes: int = 1) -> list[tuple[RunResult, list[Figures]]]:
    """Each engine start with its load points.  ``processes`` as of ``index.runs``.

    What was made once is kept with the run, as its tables are; of sealed runs with a single start it comes
    from the index of their folder.
    """
    runs = list(runs)
    parts = {id(run): starts([run]) for run in runs if _KEPT not in run.__dict__}
    new = [run for run in runs if id(run) in parts]
    whole = [run for run in new if parts[id(run)][0] is run]
    indexed = index.runs([run.folder for run in whole], processes=processes)
    for run, found in zip(whole, indexed, strict=True):
        run.__dict__[_KEPT] = [(run, found.figures)]
    for run in new:
        if _KEPT not in run.__dict__:
            run.__dict__[_KEPT] = [(part, list(figures.of_run(part))) for part in parts[id(run)]]
    return [each for run in runs for each in run.__dict__[_KEPT]]


def _parts(run: RunResult, part: Callable[[Window], int]) -> list[RunResult]:
    windows = run.manifest.windows
    numbers = sorted({part(window) for window in windows})
    if len(numbers) < 2:
        return [run]
    return [_only(run, tuple(w for w in windows if part(w) == number)) for number in numbers]


def _only(run: RunResult, windows: tuple[Window, ...]) -> RunResult:
    """The run as if nothing else had been held; its tables are read once."""
    part = RunResult(run.folder, replace(run.manifest, windows=windows))
    part.__dict__.update(requests=run.requests, samples=run.samples)
    return part
