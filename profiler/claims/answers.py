"""What an answer takes where a model thinks before it speaks: one model's runs at two lengths of answers.

An answer costs its output tokens, each with its share of the whole bill or energy, prompts included:

    per answer = per output token · mean output tokens of a request

Tokens inside a window count whichever request they belong to, so that few long answers tell as much as many
short ones.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from profiler import consumption
from profiler.claims import cells, comparable, making, sides
from profiler.claims.cells import Found, Point
from profiler.claims.nouns import Case, Cell, Claim, Evidence, Models, Setting, Side
from profiler.claims.sides import Group, Pair, Start
from profiler.errors import InputError

# Metric → the column of the table it is made from, per output token, and by what.
_PER_TOKEN = {
    "usd_per_answer": ("usd_per_m_output_tokens", 1e-6),
    "energy_j_per_answer": (consumption.GROSS, 1.0),
}
_MEAN = "output_tokens_mean"


class Wanted(NamedTuple):
    """Mean tokens of an answer on either side."""

    subject: int
    baseline: int


def of_starts(claim: Claim, starts: Iterable[Start]) -> list[Case]:
    """A case for every model and machine of which there are such answers.  Raises InputError for a claim that
    does not say how long answers are."""
    wanted = _wanted(claim)
    bearing = [start for start in starts if _bears(claim, start)]
    found = [_case(claim, group, wanted) for group in sides.groups(bearing, set())]
    return [
        case for case in found if any(each.subject.values or each.baseline.values for each in case.evidence)
    ]


def missing(claim: Claim) -> tuple[str, ...]:
    """Where there is no run at all: which there would have to be, and the command that makes them."""
    wanted, side = _wanted(claim), _named(claim)
    lacking = (f"no run of {making.who(side)} with answers of {n:,} tokens" for n in wanted)
    return (*lacking, _command(claim, making.any_of(side)))


def _wanted(claim: Claim) -> Wanted:
    if claim.subject.output_tokens is None or claim.baseline.output_tokens is None:
        raise InputError(
            f"{claim.metric}: subject.output_tokens and baseline.output_tokens say which answers"
        )
    return Wanted(claim.subject.output_tokens, claim.baseline.output_tokens)


def _named(claim: Claim) -> Models:
    """Both sides are one model: what a side does not say, the other does."""
    return claim.subject if claim.subject.names or claim.subject.kind else claim.baseline


def _bears(claim: Claim, start: Start) -> bool:
    met = sides.unmet(claim.conditions, start.manifest) is None
    return met and sides.is_of(_named(claim), start.manifest)


def _case(claim: Claim, group: Group, wanted: Wanted) -> Case:
    pair = Pair(group, group, ())
    told = sides.setting(pair)
    evidence = tuple(_evidence(claim, group, cell, wanted) for cell in claim.grid())
    lacking = any(each.missing for each in evidence)
    return Case(
        claim=claim,
        setting=Setting(
            subject=f"{group.model}, answers of {wanted.subject:,} tokens",
            baseline=f"of {wanted.baseline:,}",
            machine=told.machine,
            engine=told.engine,
        ),
        evidence=evidence,
        doubts=tuple(comparable.doubts(claim, pair)),
        missing=(_command(claim, group.model),) if lacking else (),
    )


def _evidence(claim: Claim, group: Group, cell: Cell, wanted: Wanted) -> Evidence:
    at_cell = [each for each in cells.points(group.starts) if cells.fits(_open(cell), each)]
    kinds = _kinds(at_cell)
    found = Found(cell, *_most(kinds, wanted))
    column, factor = _PER_TOKEN[claim.metric]
    both = [_side(points, column, factor) for points in (found.subject, found.baseline)]
    missing = [
        line
        for side, length in zip(both, wanted, strict=True)
        for line in _missing(side, f"{group.model} with answers of {length:,} tokens at {making.place(cell)}")
    ]
    under = msgspec.structs.replace(claim, metric=column)
    lacking = [
        f"{group.model}: n/a in {len(points) - len(side.values)} of {len(points)} starts"
        for points, side in zip((found.subject, found.baseline), both, strict=True)
        if 0 < len(side.values) < len(points)
    ]
    return Evidence(
        cell=cell,
        subject=both[0],
        baseline=both[1],
        doubts=(*comparable.doubts_of_cell(under, found), *lacking),
        missing=tuple(missing),
        notes=tuple(comparable.notes(found)),
        systematic_frac=comparable.systematic_frac(column, found),
    )


def _open(cell: Cell) -> Cell:
    return msgspec.structs.replace(cell, output_tokens=None)


def _kinds(points: Iterable[Point]) -> dict[str, list[Point]]:
    """Points by what was asked, the length of the answers apart."""
    held: dict[str, list[Point]] = {}
    for point in points:
        workload, rest = json.loads(point.asked)
        held.setdefault(json.dumps([workload | {"output_tokens": None}, rest]), []).append(point)
    return held


def _most(kinds: dict[str, list[Point]], wanted: Wanted) -> tuple[list[Point], list[Point]]:
    """Of the kind of requests with most starts on both sides; each side's own where there is none."""
    found = [tuple(list(_of_length(held, n)) for n in wanted) for held in kinds.values()]
    if not found:
        return [], []
    ours, theirs = max(found, key=lambda pair: (min(map(len, pair)), max(map(len, pair))))
    return ours, theirs


def _of_length(points: Iterable[Point], tokens: int) -> Iterator[Point]:
    return (each for each in points if cells.near(each.lengths[1], tokens))


def _side(points: Sequence[Point], column: str, factor: float) -> Side:
    known = []
    for point in points:
        each, length = point.line.estimate(column), point.line.estimate(_MEAN)
        if each is not None and length is not None:
            known.append((point, each.value * length.value * factor, length.value))
    return Side(
        values=tuple(value for _, value, _ in known),
        runs=tuple(dict.fromkeys(point.start.folder for point, *_ in known)),
        facts={
            "model": known[0][0].start.manifest.model.name,
            "output_tokens_mean": sum(length for *_, length in known) / len(known),
        }
        if known
        else {},
    )


def _missing(side: Side, of: str) -> list[str]:
    return making.more_starts(len(side.values), of) if side.values else [f"no figure of {of}"]


def _command(claim: Claim, model: str) -> str:
    """What holds a trial: both lengths in turns."""
    one = Models(names=(model,))
    words = making.command(msgspec.structs.replace(claim, subject=one, baseline=one))
    return words if len(_named(claim).names) == 1 else f"{words} --model {shlex.quote(model)}"
