"""Load points → cells: what each side measured at a pre-registered place, like with like.

A cell's batch is the number of requests in flight of a closed loop.  Lengths are the means that were asked
for where it came to them, else those measured, and lie within NEAR of the cell's.  A length that the cell
leaves open may be any, alike on both sides, and each that was measured makes a cell of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import astuple, replace

from profiler.claims.nouns import Cell
from profiler.claims.sides import Pair, Start
from profiler.comparison.lines import Line
from profiler.schema import Estimate
from profiler.settings import Length, Workload

NEAR = 0.05
DRAWN = 3.0  # standard errors that the mean of lengths drawn at random may be off
LENGTHS = ("input_tokens", "output_tokens")
Means = tuple[float | None, float | None]


class Point(NamedTuple):
    """One start at one load.  ``asked``: its requests in words, seed apart; ``lengths``: their mean prompt
    and answer."""

    start: Start
    line: Line
    batch: int
    asked: str
    lengths: Means


class Found(NamedTuple):
    """What both sides have of a cell.  ``unlike``: how their requests differed, if they did."""

    cell: Cell
    subject: list[Point]
    baseline: list[Point]
    unlike: str | None = None
    notes: tuple[str, ...] = ()


def places(grid: Iterable[Cell], pair: Pair, depends_on_load: bool) -> Iterator[Found]:
    """Every cell of the grid with what was measured of it.  What does not depend on the load is the same at
    all of a start's points."""
    ours, theirs = points(pair.subject.starts), points(pair.baseline.starts)
    for cell in grid:
        if depends_on_load:
            a, b = ([each for each in side if fits(cell, each)] for side in (ours, theirs))
            yield from _of_cell(cell, a, b)
        else:
            yield Found(cell, _one_a_start(ours), _one_a_start(theirs))


def points(starts: Iterable[Start]) -> list[Point]:
    """Every closed load that was held without pauses, so that its concurrency is what was in flight."""
    return [
        Point(start, line, line.found.point.concurrency, _asked(start), _lengths(start, line))
        for start in starts
        if not start.manifest.scenario.load.think_s
        for line in start.lines
        if line.found.point.mode == "closed" and line.found.point.concurrency is not None
    ]


def fits(cell: Cell, point: Point) -> bool:
    """Whether a point was measured at the cell's place."""
    if cell.batch is not None and point.batch != cell.batch:
        return False
    asked, work = (cell.input_tokens, cell.output_tokens), point.start.manifest.scenario.workload
    if any(asked) and (work.shared_prefix_tokens or work.conversation or work.images):
        return False  # of other requests than the lengths tell
    return all(
        wanted is None or near(held, wanted) for wanted, held in zip(asked, point.lengths, strict=True)
    )


def near(a: float | None, b: float | None) -> bool:
    return a is not None and b is not None and abs(a - b) <= NEAR * b


# --------------------------------------------------------------------------------------- like with like


def _of_cell(cell: Cell, ours: list[Point], theirs: list[Point]) -> Iterator[Found]:
    """The same requests on both sides; of several kinds at one place the one with the most starts."""
    a, b = _by_kind(ours), _by_kind(theirs)
    common: dict[Cell, list[str]] = {}
    for asked in a.keys() & b.keys():
        common.setdefault(_place(cell, a[asked], b[asked]), []).append(asked)
    if not common:
        yield Found(cell, ours, theirs, _requests_unlike(ours, theirs))
    for place, kinds in sorted(common.items(), key=lambda each: [at or 0 for at in astuple(each[0])]):
        most = max(sorted(kinds), key=lambda asked: min(len(a[asked]), len(b[asked])))
        subject, baseline = a[most], b[most]
        left_out = f"requests of {len(kinds)} kinds were measured at this place: those with the most starts"
        notes = (left_out,) if len(kinds) > 1 else ()
        yield Found(place, subject, baseline, _lengths_unlike(subject, baseline), notes)


def _by_kind(found: Iterable[Point]) -> dict[str, list[Point]]:
    """Of an engine start that several runs share, with the same requests in each, the first counts."""
    held: dict[str, dict[Any, Point]] = {}
    for point in found:
        held.setdefault(point.asked, {}).setdefault((point.start.engine_start, point.batch), point)
    return {asked: list(points.values()) for asked, points in held.items()}


def _place(cell: Cell, ours: Sequence[Point], theirs: Sequence[Point]) -> Cell:
    """The cell with what it leaves open as both sides together measured it; open where they are unlike."""
    open_ = _lengths_unlike(ours, theirs) is not None
    before, after = (
        wanted if wanted is not None or open_ else _rounded([each.lengths[at] for each in (*ours, *theirs)])
        for at, wanted in enumerate((cell.input_tokens, cell.output_tokens))
    )
    return Cell(batch=ours[0].batch, input_tokens=before, output_tokens=after)


def _rounded(held: Sequence[float | None]) -> int | None:
    """What was asked for, and came to it, as it is; else what is known of it, in two digits."""
    known = [each for each in held if each is not None]
    if not known:
        return None
    mean = sum(known) / len(known)
    return int(mean) if mean == int(mean) else int(float(f"{mean:.1e}"))


def _lengths(start: Start, line: Line) -> Means:
    """Means of prompts and answers: as asked where what was measured agrees, or nothing was."""
    before, after = (
        _mean(_kinds(start.manifest.scenario.workload, name), line.found.estimates.get(f"{name}_mean"))
        for name in LENGTHS
    )
    return before, after


def _kinds(workload: Workload, name: str) -> list[tuple[float, Length]]:
    """Lengths that were asked for, with their weights; none where they follow from what was said before."""
    if workload.conversation is not None or workload.images is not None:
        return []
    kinds = [(share.weight, getattr(share, name)) for share in workload.mix]
    kinds = kinds or [(1.0, getattr(workload, name))]
    return [
        (weight, each if isinstance(each, Length) else Length(mean=each))
        for weight, each in kinds
        if each is not None
    ]


def _mean(kinds: Sequence[tuple[float, Length]], told: Estimate | None) -> float | None:
    if not kinds:
        return None if told is None else told.value
    whole = sum(weight for weight, _ in kinds)
    mean = sum(weight * each.mean for weight, each in kinds) / whole
    if told is None:
        return mean
    # The variance of a uniform distribution is (half its width)² / 3.
    square = sum(weight * each.mean**2 * (1 + each.spread**2 / 3) for weight, each in kinds) / whole
    error = math.sqrt(max(0.0, square - mean**2) / told.n)
    return mean if near(told.value, mean) or abs(told.value - mean) <= DRAWN * error else told.value


def _asked(start: Start) -> str:
    """What requests a run sent and how, but for the seed they were drawn with."""
    scenario = start.manifest.scenario
    told = msgspec.to_builtins((replace(scenario.workload, seed=0), scenario.load.think_s))
    return msgspec.json.encode(told, order="sorted").decode()


def _one_a_start(found: Sequence[Point]) -> list[Point]:
    first: dict[Any, Point] = {}
    for point in found:
        first.setdefault(point.start.engine_start, point)
    return list(first.values())


def _requests_unlike(ours: Sequence[Point], theirs: Sequence[Point]) -> str | None:
    if not ours or not theirs:
        return None
    return "the sides were asked for requests of other kinds"


def _lengths_unlike(ours: Sequence[Point], theirs: Sequence[Point]) -> str | None:
    """A model that stops early did other work."""
    for name, place in zip(("prompts", "answers"), (0, 1), strict=True):
        a, b = (
            [held for each in side if (held := each.lengths[place]) is not None] for side in (ours, theirs)
        )
        if a and b and not near(sum(a) / len(a), sum(b) / len(b)):
            return f"{name} of {sum(a) / len(a):,.0f} tokens against {sum(b) / len(b):,.0f}"
    return None
