"""What a reader of a comparison sees, in order: tables and what is said below each; as terminal text and as
Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from profiler import alike
from profiler.report import energy, routing, skew, table, utilisation, verdicts
from profiler.report.table import Row, Shown
from profiler.store import RunResult

if TYPE_CHECKING:
    from rich.console import Console

BULLET = "· "


class Part(NamedTuple):
    """A table, if there is one, and the lines below it as a terminal shows them."""

    rows: Sequence[Row]
    shown: Sequence[Shown]
    lines: Sequence[str]


def parts(rows: Sequence[Row], runs: Sequence[RunResult]) -> Iterator[Part]:
    """Cost table, energy table where energy was measured, utilisation table where ceilings are known, and
    what holds for all of it."""
    notes = table.footnotes(rows, alike.host_differences(runs))
    yield Part(rows, table.SHOWN, [*verdicts.found_lines(runs), *_bulleted(notes)])
    if found := energy.measured(rows):
        yield Part(found, energy.SHOWN, _bulleted(energy.footnotes(found)))
    if found := utilisation.known(rows):
        yield Part(found, utilisation.SHOWN, _bulleted(utilisation.footnotes(found)))
    limits = verdicts.limit_lines(rows, runs)
    experts = [*routing.lines(runs), *skew.lines(runs)]
    errors = [*verdicts.calibration_lines(runs), *verdicts.sampler_lines(rows)]
    prices = sorted({table.price_line(row) for row in rows})
    yield Part((), (), _bulleted([*limits, *experts, *errors, *table.empty_runs(runs), *prices]))


def _bulleted(notes: Sequence[str]) -> list[str]:
    return [BULLET + note for note in notes]


def show(rows: Sequence[Row], runs: Sequence[RunResult], console: Console) -> None:
    for part in parts(rows, runs):
        if part.shown:
            console.print(table.rich_table(part.rows, console.width, part.shown))
        for line in part.lines:
            console.print(line, markup=False)


def markdown(rows: Sequence[Row], runs: Sequence[RunResult]) -> str:
    """Each part's table, then its lines as a list."""
    texts = []
    for part in parts(rows, runs):
        texts += [table.markdown(part.rows, part.shown)] if part.shown else []
        texts += ["".join(f"* {line.removeprefix(BULLET)}\n" for line in part.lines)] if part.lines else []
    return "\n".join(texts)
