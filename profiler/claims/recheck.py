"""A record of a ruling against the runs it names: the same files, and the same verdicts of them?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from profiler import __version__
from profiler.claims import docket, ledger, record
from profiler.claims.nouns import Cell, Setting
from profiler.claims.record import CellRecord, Record, RulingRecord, RunRecord, TrialRecord
from profiler.errors import InputError
from profiler.schema import Estimate
from profiler.store import RunResult

# Numbers that two machines make of the same file differ by rounding alone.
SAME_FRAC = 1e-9


class Check(NamedTuple):
    """``differences``: what is not as the record says, none: the runs are the same and so is every verdict.
    ``notes``: what else to know."""

    differences: tuple[str, ...]
    notes: tuple[str, ...] = ()


def verify(path: Path, runs: Sequence[RunResult]) -> Check:
    """Judge again, by those of ``runs`` that the record names, and say what differs.  Raises InputError."""
    told = record.read(path)
    at_hand = {each.folder: _meant(each, runs) for each in told.runs}
    files = [line for each in told.runs for line in _unlike_files(each, at_hand[each.folder])]
    notes = [f"made by version {told.tool_version}, checked by {__version__}"]
    held = [run for run in at_hand.values() if run is not None]
    return Check(
        (*files, *_edited(told), *_judged_otherwise(told, held)),
        tuple(notes if told.tool_version != __version__ else ()),
    )


def _meant(told: RunRecord, runs: Sequence[RunResult]) -> RunResult | None:
    """Of several runs in folders of one name the one whose files are the record's, if there is one."""
    named = [run for run in runs if run.folder.name == told.folder]
    return next(
        (run for run in named if record.hashes(run.folder) == told.sha256), named[0] if named else None
    )


def _edited(told: Record) -> Iterator[str]:
    for each in told.rulings:
        if ledger.digest(each.claim) != each.claim_sha256:
            yield f"claim {each.claim.id}: its digest is not that of what the record says it says"


def _judged_otherwise(told: Record, runs: Sequence[RunResult]) -> Iterator[str]:
    claims = {each.claim_sha256 + each.claim.id: each.claim for each in told.rulings}
    try:
        again = record.of(docket.docket(list(claims.values()), runs), runs, told.command)
    except InputError as error:
        yield f"these runs cannot be judged: {error}"
        return
    yield from _unlike_trials(told.trials, again.trials)
    yield from _unlike(told.rulings, again.rulings)
    if told.tool_version == __version__:  # another may say the same in other words
        yield from _retold(told, again)


def _retold(told: Record, found: Record) -> Iterator[str]:
    """What a record says beside its figures: of the runs, and of what came of those cells that have any."""
    runs = {each.folder: each for each in found.runs}
    for run in told.runs:
        for name in _others(run, runs.get(run.folder, run), set(run.__struct_fields__) - {"sha256"}):
            yield f"run {run.folder}: its {name} is another than the record says"
    rulings = {_key(each): each for each in found.rulings}
    for each in told.rulings:
        again = rulings.get(_key(each), each)
        cells = [(cell, like) for cell in each.cells for like in again.cells if like.cell == cell.cell]
        known = [(cell, like) for cell, like in cells if cell.ratio]
        if known:
            yield from (
                f"{_name(each)}: another {name}" for name in _others(each, again, {"region", "crossovers"})
            )
        for cell, like in known:
            where = f"{_name(each)}, {_place(cell.cell)}"
            for name in _others(cell, like, {"confidence", "p", "systematic_frac", "doubts"}):
                yield f"{where}: another {name} than in the record"
            for side in ("subject", "baseline"):
                for name in _others(getattr(cell, side), getattr(like, side), {"runs", "facts"}):
                    yield f"{where}: other {name} of the {side} than in the record"


def _others(told: Struct, found: Struct, names: AbstractSet[str]) -> list[str]:
    """The fields in which two records differ."""
    one, other = map(msgspec.to_builtins, (told, found))
    return [name for name in sorted(names) if not _alike(one[name], other[name])]


def _alike(told: Any, found: Any) -> bool:
    """As :func:`_same`, of whatever JSON holds."""
    if isinstance(told, dict) and isinstance(found, dict):
        return told.keys() == found.keys() and all(_alike(told[key], found[key]) for key in told)
    if isinstance(told, list | tuple) and isinstance(found, list | tuple):
        return len(told) == len(found) and all(map(_alike, told, found))
    if all(isinstance(each, int | float | None) for each in (told, found)):
        return _same([told], [found])
    return bool(told == found)


def _unlike_files(told: RunRecord, run: RunResult | None) -> Iterator[str]:
    if run is None:
        yield f"run {told.folder} is not at hand"
        return
    found = record.hashes(run.folder)
    for name in sorted({*told.sha256, *found}):
        if name not in found:
            yield f"run {told.folder}: {name} is missing"
        elif name not in told.sha256:
            yield f"run {told.folder}: {name} is new"
        elif found[name] != told.sha256[name]:
            yield f"run {told.folder}: {name} is another file than the one that was judged"


def _unlike_trials(told: Sequence[TrialRecord], found: Sequence[TrialRecord]) -> Iterator[str]:
    known = {each.id: each.sha256 for each in found}
    for each in told:
        if each.id not in known:
            yield f"the ledger of trial {each.id} is not beside the runs"
        elif known[each.id] != each.sha256:
            yield f"the ledger of trial {each.id} has changed: it went on since, or was edited"


def _unlike(told: Sequence[RulingRecord], found: Sequence[RulingRecord]) -> Iterator[str]:
    """Of those that rest on figures: what rests on none holds for any runs."""
    known = {_key(each): each for each in found}
    for each in told:
        if not any(cell.ratio or cell.subject.runs or cell.baseline.runs for cell in each.cells):
            continue
        again = known.get(_key(each))
        if again is None:
            yield f"{_name(each)}: there is no such case among these runs"
        else:
            yield from _unlike_rulings(each, again)


def _key(ruling: RulingRecord) -> tuple[str, str, Setting | None]:
    return ruling.claim.id, ruling.claim_sha256, ruling.setting


def _name(ruling: RulingRecord) -> str:
    at = ruling.setting
    return f"{ruling.claim.id} ({at.pair}, {at.machine}, {at.engine})" if at else ruling.claim.id


def _unlike_rulings(told: RulingRecord, found: RulingRecord) -> Iterator[str]:
    where = _name(told)
    if told.verdict != found.verdict:
        yield f"{where}: {found.verdict}, the record says {told.verdict}"
    if told.looks != found.looks:
        yield f"{where}: looked at {_looks(found)}, the record says {_looks(told)}"
    cells = {each.cell: each for each in found.cells}
    for each in told.cells:
        again = cells.pop(each.cell, None)
        if again is None:
            yield f"{where}, {_place(each.cell)}: no longer judged"
        else:
            yield from (f"{where}, {_place(each.cell)}: {line}" for line in _unlike_cells(each, again))
    yield from (f"{where}, {_place(cell)}: not in the record" for cell in cells)


def _unlike_cells(told: CellRecord, found: CellRecord) -> Iterator[str]:
    if told.verdict != found.verdict:
        yield f"{found.verdict}, the record says {told.verdict}"
    for name in ("ratio", "statistical", "fieller"):
        one, other = getattr(told, name), getattr(found, name)
        if not _same(_ends(one), _ends(other)):
            yield f"{name} {_text(other)}, the record says {_text(one)}"
    for side in ("subject", "baseline"):
        one, other = getattr(told, side), getattr(found, side)
        if not _same((*one.values, one.exact), (*other.values, other.exact)):
            yield f"the figures of the {side} are others"


def _ends(estimate: Estimate | None) -> tuple[float | None, ...]:
    return (None,) * 3 if estimate is None else (estimate.value, estimate.low, estimate.high)


def _same(told: Sequence[float | None], found: Sequence[float | None]) -> bool:
    """An end that is no number is written as null."""

    def alike(one: float | None, other: float | None) -> bool:
        one, other = (None if x is None or not math.isfinite(x) else x for x in (one, other))
        if one is None or other is None:
            return one is other
        return math.isclose(one, other, rel_tol=SAME_FRAC)

    return len(told) == len(found) and all(map(alike, told, found))


def _text(estimate: Estimate | None) -> str:
    if estimate is None:
        return "none"
    low, high = ("…" if end is None else f"{end:.6g}" for end in (estimate.low, estimate.high))
    return f"{estimate.value:.6g} [{low}, {high}]"


def _looks(ruling: RulingRecord) -> str:
    return (
        "outside of a trial" if ruling.looks is None else f"at {', '.join(f'{x:.0%}' for x in ruling.looks)}"
    )


def _place(cell: Cell) -> str:
    named = zip(
        ("batch", "input", "output"), (cell.batch, cell.input_tokens, cell.output_tokens), strict=True
    )
    return ", ".join(f"{name} {value:,}" for name, value in named if value is not None) or "the one cell"
