"""What a reader of a comparison sees, in order: tables and what is said below each; as terminal text and as
Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from profiler import alike, comparison
from profiler.charts import words
from profiler.report import against, energy, routing, skew, table, utilisation, verdicts
from profiler.report.table import Row, Shown
from profiler.store import RunResult

if TYPE_CHECKING:
    from rich.console import Console

BULLET = "· "


class Asked(NamedTuple):
    """How a comparison was asked for.  ``columns`` are shown whatever they are; ``notes`` are said first;
    ``in_order``: the rows stand in the order that was wanted; ``brief``: nothing is told of single runs;
    ``undated``: nor of how long ago anything was."""

    columns: Sequence[str] = ()
    notes: Sequence[str] = ()
    in_order: bool = False
    brief: bool = False
    undated: bool = False


class Part(NamedTuple):
    """A table, if there is one, and the lines below it as a terminal shows them."""

    rows: Sequence[Row]
    shown: Sequence[Shown]
    lines: Sequence[str]


PLAINLY = Asked()


def parts(rows: Sequence[Row], runs: Sequence[RunResult], asked: Asked = PLAINLY) -> Iterator[Part]:
    """Cost table, ratios where there is a baseline, energy table where energy was measured, utilisation table
    where ceilings are known, and what holds for all of it."""
    if not rows:
        yield Part((), (), _bulleted([*asked.notes, *table.empty_runs(runs)]))
        return
    rows = rows if asked.in_order else comparison.ordered(rows)
    notes = [*asked.notes, *table.footnotes(rows, alike.host_differences(runs))]
    searches = [] if asked.brief else verdicts.found_lines(runs)
    yield Part(rows, table.with_columns(asked.columns), [*searches, *_bulleted(notes)])
    if found := against.known(rows):
        yield Part(found, against.SHOWN, _bulleted(against.footnotes(found)))
    if found := energy.measured(rows):
        yield Part(found, energy.SHOWN, _bulleted(energy.footnotes(found)))
    if found := utilisation.known(rows):
        yield Part(found, utilisation.SHOWN, _bulleted(utilisation.footnotes(found)))
    single = [] if asked.brief else _of_runs(rows, runs)
    prices = table.price_lines(rows, with_ages=not asked.undated)
    yield Part((), (), _bulleted([*single, *table.empty_runs(runs), *prices]))


def _of_runs(rows: Sequence[Row], runs: Sequence[RunResult]) -> list[str]:
    limits = verdicts.limit_lines(rows, runs)
    precision = verdicts.precision_lines(rows)
    experts = [*routing.lines(runs), *skew.lines(runs)]
    return [*precision, *limits, *experts, *verdicts.calibration_lines(runs), *verdicts.sampler_lines(rows)]


def _bulleted(notes: Sequence[str]) -> list[str]:
    return [BULLET + note for note in notes]


def show(rows: Sequence[Row], runs: Sequence[RunResult], console: Console, asked: Asked = PLAINLY) -> None:
    for part in parts(rows, runs, asked):
        if part.shown:
            console.print(table.rich_table(part.rows, console.width, part.shown), crop=False)
        for line in part.lines:
            console.print(words.one_line(line), markup=False)


def markdown(rows: Sequence[Row], runs: Sequence[RunResult], asked: Asked = PLAINLY) -> str:
    """Each part's table, then its lines as a list."""
    texts = []
    for part in parts(rows, runs, asked):
        texts += [table.markdown(part.rows, part.shown)] if part.shown else []
        items = (table.in_markdown(line.removeprefix(BULLET)) for line in part.lines)
        texts += ["".join(f"* {item}\n" for item in items)] if part.lines else []
    return "\n".join(texts)
