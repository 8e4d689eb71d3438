"""What of a sweep is still to be held, and in which order.

The lot is drawn by hashing: a start has its place by seed, block and what it is, not by how many others there
are.  So what remains of a sweep keeps its order, whatever was held or added meanwhile.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from profiler.settings import EngineSettings, Scenario
from profiler.sweep.grid import LOADS
from profiler.sweep.nouns import Asked, Attempt, Cell, Grid, Record, Start, Visit

LOST_MOST = 5  # machines that a start may be lost with before it is left out
Held = set[tuple[str, int]]


class _Engine(NamedTuple):
    """Cells that one engine serves; ``key``: of all that shapes it."""

    key: str
    cells: tuple[Cell, ...]


def visits(grid: Grid, record: Record | None, seed: int, since: int = 0) -> list[Visit]:
    """All that is missing, in the order it is to be held: block by block, each a fresh engine start of every
    cell; in a block the pairs in random order, in a pair the starts.  Every second block is the reverse of
    the one before, so that over each two of them a steady drift meets all alike.

    Loads that failed before come last in their start, so that what breaks an engine spoils no other.  What
    was given up by what ``record.attempts[since:]`` say is left out.  Depends on the arguments alone.
    """
    attempts = record.attempts if record else ()
    failures = Counter(cell for each in attempts if each.outcome == "failed" for cell in each.cells)
    over = _held(attempts) | given_up(grid, record, since).keys()
    of = _pairs(_engines(grid.cells), grid.file.interleave)
    found = []
    for number in range(grid.file.starts):
        drawn = [
            Visit(block=number, pair=pair, starts=starts)
            for pair, engines in sorted(of.items(), key=lambda each: _lot(seed, number, each[0]))
            if (starts := _starts(engines, over, failures, seed, number))
        ]
        found += drawn[::-1] if number % 2 else drawn
    return found


def missing(grid: Grid, record: Record | None) -> list[tuple[str, int]]:
    """(cell, start) of all that do not count yet, in the order of the grid."""
    held = _held(record.attempts if record else ())
    return [
        (cell.id, number)
        for cell in grid.cells
        for number in range(grid.file.starts)
        if (cell.id, number) not in held
    ]


def unasked(grid: Grid, record: Record | None) -> list[tuple[str, int]]:
    """(cell, start) that are held and that the file, as it is now, does not ask for."""
    ids = {cell.id for cell in grid.cells}
    held = _held(record.attempts if record else ())
    return sorted(each for each in held if each[0] not in ids or each[1] >= grid.file.starts)


def pairs(grid: Grid) -> list[tuple[str, ...]]:
    """The cells of each pair: what one machine holds."""
    found = _pairs(_engines(grid.cells), grid.file.interleave).values()
    return [tuple(cell.id for engine in engines for cell in engine.cells) for engines in found]


def given_up(grid: Grid, record: Record | None, since: int = 0) -> dict[tuple[str, int], Attempt]:
    """(cell, start) of all that are asked for, do not count, and failed or were lost too often, with the last
    attempt.  A cell that never was held has failed as often as all of its starts together: it is not tried
    over and over in vain."""
    attempts = record.attempts[since:] if record else ()
    most = {"failed": grid.file.retries, "lost": LOST_MOST}
    ever = {cell for cell, _ in _held(record.attempts if record else ())}
    times: Counter[tuple[str, int | None, str]] = Counter()
    over: dict[tuple[str, int | None], Attempt] = {}
    for attempt in attempts:
        for cell in attempt.cells if attempt.outcome in most else ():
            number = None if attempt.outcome == "failed" and cell not in ever else attempt.number
            times[cell, number, attempt.outcome] += 1
            if times[cell, number, attempt.outcome] > most[attempt.outcome]:
                over[cell, number] = attempt
    left = [(each, over.get(each) or over.get((each[0], None))) for each in missing(grid, record)]
    return {each: attempt for each, attempt in left if attempt is not None}


def _held(attempts: Iterable[Attempt]) -> Held:
    return {(cell, each.number) for each in attempts if each.outcome == "held" for cell in each.cells}


# -------------------------------------------------------------------------------------- engines and pairs


def _engines(cells: Sequence[Cell]) -> list[_Engine]:
    """Cells by the engine that serves them, in the order of the grid."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(_engine_key(cell), []).append(cell)
    return [_Engine(key, tuple(of)) for key, of in found.items()]


def _engine_key(cell: Cell) -> str:
    """Cells with the same one are served by one engine start."""
    what = cell.scenario
    return _digest([cell.model, cell.weights, cell.gpu, what.engine, what.telemetry.devices], 16)


def _pairs(engines: Sequence[_Engine], interleave: Sequence[str]) -> dict[str, list[_Engine]]:
    """Engines to be compared with each other: those that have cells alike but for the axes ``interleave``,
    and those that are so joined by a third."""
    first_with: dict[str, int] = {}  # what cells have in common → the first engine with such
    leader = list(range(len(engines)))

    def found(place: int) -> int:
        while leader[place] != place:
            place = leader[place]
        return place

    for place, engine in enumerate(engines):
        for cell in engine.cells:
            one, other = found(first_with.setdefault(_common(cell, interleave), place)), found(place)
            leader[max(one, other)] = min(one, other)
    together: dict[str, list[_Engine]] = {}
    for place, engine in enumerate(engines):
        together.setdefault(_common(engines[found(place)].cells[0], interleave), []).append(engine)
    return together


def _common(cell: Cell, interleave: Sequence[str]) -> str:
    """12 hex digits of what a cell shares with those it is compared with."""
    return _digest({path: each for path, each in cell.values.items() if path not in interleave}, 12)


# ---------------------------------------------------------------------------------------------- starts


def _starts(
    engines: Sequence[_Engine], over: Held, failures: Mapping[str, int], seed: int, number: int
) -> tuple[Start, ...]:
    """Those of a pair in one block, in the order they are held."""
    wanted = {
        engine.key: sorted(
            (cell for cell in engine.cells if (cell.id, number) not in over),
            key=lambda cell: failures.get(cell.id, 0),
        )
        for engine in engines
    }
    drawn = sorted(
        (each for each in engines if wanted[each.key]), key=lambda each: _lot(seed, number, each.key)
    )
    starts = tuple(_start(engine, wanted[engine.key], number) for engine in drawn)
    return starts[::-1] if number % 2 else starts


def _start(engine: _Engine, cells: Sequence[Cell], number: int) -> Start:
    first = cells[0]
    asked = _asked(cells)
    return Start(
        key=_digest([[cell.id for cell in cells], number], 12),
        number=number,
        model=first.model,
        weights=first.weights,
        gpu=first.gpu,
        gpus=_gpus(first.scenario.engine),
        asked=asked,
        sized_for=tuple(each.scenario for each in _asked(engine.cells))
        if len(cells) < len(engine.cells)
        else (),
    )


def _gpus(engine: EngineSettings) -> int | None:
    from profiler.engines.vllm import device_count

    given = device_count(engine)
    if engine.tensor_parallel is not None or given > 1:
        return given
    return 0 if engine.kind in ("simulated", "endpoint") else None


def _asked(cells: Sequence[Cell]) -> tuple[Asked, ...]:
    """One run folder for all loads of a scenario, in the order of the grid."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        found.setdefault(_folder_key(cell.scenario), []).append(cell)
    return tuple(
        Asked(cells=tuple(cell.id for cell in of), scenario=_together([cell.scenario for cell in of]))
        for of in found.values()
    )


def _folder_key(what: Scenario) -> str:
    """Scenarios with the same one differ in the loads that a run can list alone."""
    name = LOADS.get(what.load.mode)
    if name is None or what.search is not None or not getattr(what.load, name):
        return _digest(what, 16)
    return _digest(_with_loads(what, name, ()), 16)


def _together(scenarios: Sequence[Scenario]) -> Scenario:
    first = scenarios[0]
    if len(scenarios) == 1:
        return first
    name = LOADS[first.load.mode]
    return _with_loads(first, name, tuple(load for each in scenarios for load in getattr(each.load, name)))


def _with_loads(what: Scenario, name: str, loads: tuple[Any, ...]) -> Scenario:
    return msgspec.structs.replace(what, load=msgspec.structs.replace(what.load, **{name: loads}))


# ---------------------------------------------------------------------------------------------- lots


def _lot(seed: int, number: int, what: str) -> str:
    """Its place among others; the same in two blocks that follow each other, of which one is reversed."""
    return _digest([seed, number // 2, what], 32)


def _digest(what: Any, length: int) -> str:
    return hashlib.sha256(msgspec.json.encode(what, order="sorted")).hexdigest()[:length]
