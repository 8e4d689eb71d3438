"""Where in its grid a claim holds, in words, and the batch at which the ratio crosses 1."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

import msgspec

from profiler.claims import law, making
from profiler.claims.nouns import Cell, Finding, Verdict
from profiler.schema import Estimate
from profiler.stats import robust

WORDS: dict[Verdict, str] = {
    "refuted": "fails",
    "direction only": "only the direction holds",
    "undecided": "undecided",
    "not comparable": "not comparable",
    "not testable here": "not testable here",
}


def words(findings: Sequence[Finding]) -> tuple[str, ...]:
    """``holds in 9 of 14 cells``, and a line for each row of cells that differ in one thing only: ``1,000 +
    256 tokens: holds from batch 1 to 8; fails from batch 16 to 128; crossover at batch 11 [9, 14]``."""
    if len(findings) < 2:
        return ()
    held = sum(each.verdict == "supported" for each in findings)
    rows = _rows(findings)
    lines = [_row(row, named=len(rows) > 1) for row in rows]
    counted = f"holds in {held} of {len(findings)} cells"
    return ("; ".join(filter(None, [counted, *lines])),) if len(lines) == 1 else (counted, *lines)


def crossovers(findings: Sequence[Finding]) -> tuple[tuple[Cell, Estimate], ...]:
    """Batches at which subject / baseline is 1, by the lengths they are at."""
    found = []
    for row in _rows(findings):
        if row.axis == BATCH:
            found += [(row.at, each) for each in _crossings(row)]
    return tuple(found)


# ---------------------------------------------------------------------------------------- rows of cells


class _Axis(NamedTuple):
    """What a row of cells runs along, and how a place on it is written."""

    field: str
    before: str
    after: str


BATCH = _Axis("batch", "batch ", "")
PROMPT = _Axis("input_tokens", "", " input tokens")


class _Row(NamedTuple):
    """Cells in order along one axis; ``at`` is what they share."""

    axis: _Axis
    at: Cell
    findings: list[Finding]

    def place(self, finding: Finding) -> str:
        place: int | None = getattr(finding.evidence.cell, self.axis.field)
        return "any" if place is None else f"{place:,}"


def _rows(findings: Sequence[Finding]) -> list[_Row]:
    """Along the batch; along the prompt where no two cells differ in the batch alone."""
    rows = _along(findings, BATCH)
    if len(rows) == len(findings) > 1:
        other = _along(findings, PROMPT)
        rows = other if len(other) < len(rows) else rows
    return rows


def _along(findings: Sequence[Finding], axis: _Axis) -> list[_Row]:
    def shared(finding: Finding) -> Cell:
        return msgspec.structs.replace(finding.evidence.cell, **{axis.field: None})

    def place(finding: Finding) -> tuple[int, ...]:
        at, own = shared(finding), getattr(finding.evidence.cell, axis.field)
        return tuple(each or 0 for each in (at.input_tokens, at.output_tokens, at.batch, own))

    return [_Row(axis, at, list(own)) for at, own in groupby(sorted(findings, key=place), key=shared)]


def _row(row: _Row, named: bool) -> str:
    """What is said of one row: its stretches of one verdict, and where the ratio crosses 1."""
    said: dict[Verdict, list[str]] = {}
    for verdict, own in groupby(row.findings, key=lambda each: each.verdict):
        said.setdefault(verdict, []).append(_stretch(row, list(own)))
    parts = [
        f"{WORDS.get(verdict, 'holds')} {' and '.join(where)}"
        for verdict, where in said.items()
        if named or verdict != "supported"
    ]
    if row.axis == BATCH:
        crossed = [crossing(each) for each in _crossings(row)]
        parts += [f"crossover at batch {' and '.join(crossed)}"] if crossed else []
    return f"{making.place(row.at)}: {'; '.join(parts)}" if named else "; ".join(parts)


def _stretch(row: _Row, own: Sequence[Finding]) -> str:
    first, last = row.place(own[0]), row.place(own[-1])
    places = f"at {row.axis.before}{first}" if first == last else f"from {row.axis.before}{first} to {last}"
    return places + row.axis.after


def crossing(estimate: Estimate) -> str:
    """``11 [9, 14]``."""
    ends = [_place(each) for each in (estimate.low, estimate.high) if each is not None]
    return f"{_place(estimate.value)} [{', '.join(ends)}]"


def _place(batch: float) -> str:
    return f"{batch:.3g}" if batch < 100 else f"{batch:,.0f}"


# ------------------------------------------------------------------------------------------- crossovers


class _Point(NamedTuple):
    """The log ratio at the logarithm of a batch, with the ends of its interval."""

    x: float
    low: float
    middle: float
    high: float

    @property
    def side(self) -> int:
        """On which side of 1 the whole interval lies; 0 where it includes it."""
        return (self.low > 0) - (self.high < 0)


def _crossings(row: _Row) -> Iterator[Estimate]:
    """One between each two neighbouring batches that are surely on unlike sides of 1.

    The log ratio and the ends of its interval are interpolated in the logarithm of the batch.  To interpolate
    the ends takes cells to err together, as cells of the same engine starts may, and is never too narrow for
    cells that do not; what the curve does between two batches it does not know.
    """
    points = [point for each in row.findings if (point := _point(each)) is not None]
    sure = [place for place, point in enumerate(points) if point.side]
    for before, after in pairwise(sure):
        if points[before].side != points[after].side:
            yield _crossing(points[before : after + 1])


def _point(finding: Finding) -> _Point | None:
    """Of a cell whose figures a test may use; a ratio without an interval is no evidence of a side."""
    ratio, batch = finding.ratio, finding.evidence.cell.batch
    if ratio is None or batch is None or finding.confidence is None:
        return None
    if finding.verdict in ("not comparable", "not testable here") or _is_too_little(finding):
        return None
    low = math.log(ratio.low) if ratio.low else -math.inf
    high = math.log(ratio.high) if ratio.high else math.inf
    return _Point(math.log(batch), low, math.log(ratio.value), high)


def _is_too_little(finding: Finding) -> bool:
    """Of starts that are too few, or all the same, for any verdict; what is counted may have one of two."""
    sides = (finding.evidence.subject, finding.evidence.baseline)
    few = any(
        each.exact is None and (len(each.values) < law.FEWEST_STARTS or robust.no_scatter(each.values))
        for each in sides
    )
    return few and finding.verdict == "undecided"


def _crossing(points: Sequence[_Point]) -> Estimate:
    """The first and the last point are surely on unlike sides of 0, and none between them is."""
    sign = points[0].side
    middles = list(_zeros([(each.x, each.middle) for each in points]))
    near, far = ("low", "high") if sign > 0 else ("high", "low")
    first = next(_zeros([(each.x, getattr(each, near)) for each in points]))
    last = list(_zeros([(each.x, getattr(each, far)) for each in points]))[-1]
    value = middles[len(middles) // 2]
    return Estimate(math.exp(value), math.exp(first), math.exp(last), len(points), "batches measured")


def _zeros(curve: Sequence[tuple[float, float]]) -> Iterator[float]:
    """Where a curve through these points, straight between them, is 0; an infinite end reaches to its
    neighbour."""
    for (x, y), (next_x, next_y) in pairwise(curve):
        if (y > 0) == (next_y > 0):
            continue
        if math.isinf(y) or math.isinf(next_y):
            yield x if math.isinf(next_y) else next_x
        else:
            yield x + (next_x - x) * y / (y - next_y)
