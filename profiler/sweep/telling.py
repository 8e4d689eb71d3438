"""What is said of a sweep: what it will take, how it goes, how it ended."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from profiler.charts.words import one_line, significant
from profiler.report.ahead import duration
from profiler.sweep import standing
from profiler.sweep.nouns import Attempt, Began, Ended, Grid, News, Record, Said, Start
from profiler.sweep.outline import Outline, Spent
from profiler.sweep.standing import GivenUp, Row, Standing

VISITS_SHOWN = 12
VALUES_SHOWN = 6
REASONS_SHOWN = 10
ROWS_SHOWN = 40
# Columns of ``profile compare`` that tell cells apart; it tells scenarios and loads apart by itself.
COLUMNS = {"model": "model", "gpu": "gpu", "weights": "weights", "engine.kind": "engine"}
COLUMNS |= {"scenario": "scenario", "engine.tensor_parallel": "gpus"}
COLUMNS |= {"load.concurrency": "concurrency", "load.requests_per_s": "load_requests_per_s"}
ENDED_BY = {
    "budget": "the budget is spent; the same command, with a larger --budget or without, goes on",
    "machines": "no machine is left that takes what is missing; the same command goes on",
}


# ------------------------------------------------------------------------------------------ before it


def announced(found: Outline) -> Iterator[str]:
    """What a sweep is of and what it will take, before anything is started."""
    grid, record = found.grid, found.record
    yield f"sweep {grid.name}: {_of(grid)}, seed {record.seed}"
    so_far = standing.standing(grid, record, found.since)
    if record.attempts or so_far.held:
        yield f"so far {_held(so_far)}"
    yield from _given_up(so_far.given_up)
    if not found.visits:
        yield "nothing is left to be held"
        return
    yield f"it takes {_whole(found)}"
    yield from _boards(found)
    yield from _budget(found)


def _of(grid: Grid) -> str:
    """``6 cells (2 model × 3 load.concurrency, 1 excluded), 3 engine starts each``."""
    counts = [f"{len(values)} {name}" for name, values in grid.axes.items() if name in grid.file.axes]
    axes = " × ".join([*counts, *(["loads of the scenario"] if len(counts) < len(grid.axes) else [])])
    without = f", {grid.excluded} left out" if grid.excluded else ""
    starts = counted(grid.file.starts, "engine start")
    return f"{counted(len(grid.cells), 'cell')} ({axes}{without}), {starts} each"


def _whole(found: Outline) -> str:
    starts, folders = len(found.starts), sum(len(each.asked) for each in found.starts)
    grounds = dict.fromkeys(words for takes in found.each.values() for words in takes.grounds)
    seconds, usd = found.whole
    is_wide = len(found.machines) > 1
    clock = f", {duration(found.wall_s)} by the clock on {_machines(found)}" if is_wide else ""
    whose = "GPUs in use" if any(takes.boards for takes in found.each.values()) else "machine"
    money = "" if usd is None else f", {_usd(usd)} for the {whose}"
    return (
        f"{counted(starts, 'engine start')} in {counted(folders, 'run folder')}: about {duration(seconds)}"
        f"{' of machine time' if is_wide else ''}{clock}{money} ({'; '.join(grounds)})"
    )


def _machines(found: Outline) -> str:
    from profiler.sweep.fitting import boards

    return f"{counted(len(found.machines), 'machine')} ({boards(found.machines)})"


def _boards(found: Outline) -> Iterator[str]:
    """Which boards an engine of each model needs."""
    needs: dict[str, dict[str, None]] = {}
    for start in found.starts:
        takes = found.takes(start)
        if takes.boards is not None:
            needs.setdefault(f"{takes.gpus} × {takes.boards}", {})[name_words(start.model)] = None
    for boards, models in needs.items():
        yield f"on {boards} each: {', '.join(models)}"


def _budget(found: Outline) -> Iterator[str]:
    budget, record = found.budget, found.record
    if budget is None:
        return
    most = [f"{duration(budget.seconds)} of machine time"] if budget.seconds is not None else []
    most += [_usd(budget.usd)] if budget.usd is not None else []
    spent = (
        f", of which {_spent(Spent(record.spent_s, record.spent_usd))} are spent" if record.spent_s else ""
    )
    runs = itertools.accumulate(
        (found.takes(start) for start in found.starts),
        lambda sums, each: Spent(sums.seconds + each.seconds, _sum(sums.usd, each.usd)),
        initial=Spent(record.spent_s, record.spent_usd),
    )
    paid = sum(budget.pays(*each) for each in runs) - 1
    enough = "enough for all" if paid >= len(found.starts) else f"enough for about {max(0, paid)} starts"
    yield f"budget: {' and '.join(most)}{spent}: {enough}"


def _sum(a: float | None, b: float | None) -> float | None:
    return b if a is None else a + (b or 0.0)


def in_order(found: Outline) -> Iterator[str]:
    """The first block that has starts left: pairs in the order drawn, the starts of each side by side."""
    if not found.visits:
        return
    block = found.visits[0].block
    visits = [visit for visit in found.visits if visit.block == block]
    yield f"block {block + 1} of {found.grid.file.starts}, as --seed {found.record.seed} draws it:"
    for visit in visits[:VISITS_SHOWN]:
        yield f"  {', then '.join(start_words(found.grid, start) for start in visit.starts)}"
    if (more := len(visits) - VISITS_SHOWN) > 0:
        yield f"  … and {more} more"


def dry(found: Outline, as_json: bool) -> Iterator[str]:
    """``--dry-run``: all of it."""
    if as_json:
        yield json.dumps(_document(found))
        return
    yield from map(one_line, found.notes)
    yield from announced(found)
    yield from in_order(found)


def _document(found: Outline) -> dict[str, Any]:
    seconds, usd = found.whole
    return {
        "standing": msgspec.to_builtins(standing.standing(found.grid, found.record, found.since)),
        "engine_starts": len(found.starts),
        "run_folders": sum(len(each.asked) for each in found.starts),
        "machine_s": seconds,
        "wall_s": found.wall_s,
        "usd": usd,
        "budget": msgspec.to_builtins(found.budget),
        "machines": [{"node": each.node, "boards": each.boards} for each in found.machines],
        "notes": found.notes,
        "order": [_planned(found, visit.block, start) for visit in found.visits for start in visit.starts],
    }


def _planned(found: Outline, block: int, start: Start) -> dict[str, Any]:
    takes = found.takes(start)
    return {
        "block": block,
        "key": start.key,
        "cells": start.cells,
        "words": start_words(found.grid, start),
        "seconds": takes.seconds,
        "usd": takes.usd,
        "gpus": takes.gpus,
        "boards": takes.boards,
    }


# ------------------------------------------------------------------------------------------ during it


def heard(news: News, found: Outline, record: Record) -> Iterator[str]:
    """What happened; ``record`` has it already."""
    if isinstance(news, Said):
        yield one_line(news.text)
    elif isinstance(news, Began):
        if news.place.node is not None:
            yield f"{news.place.node}: {start_words(found.grid, news.start)}"
    else:
        yield from _ended(found, news, record)


def _ended(found: Outline, news: Ended, record: Record) -> Iterator[str]:
    words = start_words(found.grid, news.start)
    for attempt in news.attempts:
        if attempt.outcome != "held":
            yield f"{words}: {attempt.outcome}{_why(attempt)}"
    if any(each.outcome == "held" for each in news.attempts):
        now, left = standing.standing(found.grid, record, found.since), found.left(record)
        took_s = sum(each.took_s for each in news.attempts)
        rest = f"; about {_spent(left)} left" if left.seconds else ""
        yield f"{now.held} of {now.asked} held: {words} took {duration(took_s)}{rest}"


def _why(attempt: Attempt) -> str:
    """Its first line: an engine's log follows."""
    return "" if attempt.why is None else f": {one_line(attempt.why.partition(chr(10))[0])}"


# ------------------------------------------------------------------------------------------- after it


def summary(found: Outline, record: Record, where: str, by: str | None) -> Iterator[str]:
    """How far a sweep has come when it ends, what ended it before the end (``by``), and what to do next."""
    now = standing.standing(found.grid, record, found.since)
    yield f"sweep {found.grid.name}: {_held(now)}"
    if by is not None:
        yield ENDED_BY[by]
    yield from _given_up(now.given_up)
    if now.held:
        yield f"next: profile compare {shlex.quote(where)} --by {','.join(columns(found.grid))}"
        yield f"      profile claims {shlex.quote(where)}"


def status(grid: Grid | None, record: Record) -> Iterator[str]:
    """Of a sweep that may be under way; without its file, what the record alone can tell."""
    now = standing.of_record(record) if grid is None else standing.standing(grid, record)
    yield f"sweep {now.name}: {_held(now)}"
    if now.under_way:
        yield f"{counted(now.under_way, 'engine start')} under way, or broken off: the same command goes on"
    if now.unasked:
        yield f"{now.unasked} more held that the file does not ask for any more"
    if now.rows:
        rows = [_row(each) for each in now.rows[:ROWS_SHOWN]]
        yield from _table(("cells", "held", "asked", "given up"), rows)
    if len(now.rows) > ROWS_SHOWN:
        yield f"… and {len(now.rows) - ROWS_SHOWN} more (all of them: --json)"
    yield from _given_up(now.given_up)
    if grid is None:
        yield from _failed(record)
        yield "what is missing is told by its file: profile sweep status FILE.toml --out DIR"


def _failed(record: Record) -> Iterator[str]:
    """Why cells failed that are not held since, each reason once."""
    held = {(cell, each.number) for each in record.attempts if each.outcome == "held" for cell in each.cells}
    whys: dict[str, set[tuple[str, int]]] = {}
    for each in record.attempts:
        if left := {(cell, each.number) for cell in each.cells if each.outcome == "failed"} - held:
            whys.setdefault(one_line((each.why or "").partition("\n")[0]), set()).update(left)
    for why, cells in itertools.islice(whys.items(), REASONS_SHOWN):
        yield f"failed: {counted(len(cells), 'start')} of cells: {why}"


def as_json(grid: Grid | None, record: Record, where: str) -> str:
    """The same as one document; ``out`` is where the runs are."""
    now = standing.of_record(record) if grid is None else standing.standing(grid, record)
    return json.dumps({"out": where, **msgspec.to_builtins(now)})


def _row(each: Row) -> tuple[str, ...]:
    given_up = f"{each.given_up}" if each.given_up else ""
    return value_words(each.values), f"{each.held}", f"{each.asked}", given_up


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Words left, numbers right."""
    lines = [head, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    for line in lines:
        numbers = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        yield "  ".join([line[0].ljust(widths[0]), *numbers]).rstrip()


def columns(grid: Grid) -> list[str]:
    """By which ``profile compare`` pools the starts of each cell."""
    varied = [name for name, values in grid.axes.items() if len(values) > 1]
    of_engine = ["settings" for name in varied if name.startswith("engine.") and name not in COLUMNS]
    return list(dict.fromkeys(["model", *(COLUMNS[name] for name in varied if name in COLUMNS), *of_engine]))


def _held(now: Standing) -> str:
    """``12 of 18 held (6 cells × 3 starts), 4 of them whole; beside them 2 disturbed; 1 h 02 min spent``."""
    parts = [f"{now.held} starts of {counted(now.cells, 'cell')} held"]
    if now.asked is not None and now.starts is not None:
        of = f"{counted(now.cells, 'cell')} × {counted(now.starts, 'start')}"
        whole = f", {counted(now.whole or 0, 'cell')} whole" if 0 < now.held < now.asked else ""
        parts = [f"{now.held} of {now.asked} held ({of}){whole}"]
    others = [f"{count} {outcome}" for outcome, count in now.ended.items() if outcome != "held"]
    parts += [f"engine starts that do not count: {', '.join(others)}"] if others else []
    parts += [f"{_spent(Spent(now.spent_s, now.spent_usd))} of machines spent"] if now.spent_s else []
    return "; ".join(parts)


def _given_up(given_up: Sequence[GivenUp]) -> Iterator[str]:
    yield from _reasons(given_up)
    if given_up:
        yield "--retry-failed holds them again"


def _reasons(given_up: Sequence[GivenUp]) -> Iterator[str]:
    """Grouped by what went wrong."""
    why: dict[str, list[GivenUp]] = {}
    for each in given_up:
        why.setdefault((each.why or each.outcome).partition("\n")[0], []).append(each)
    for reason, found in itertools.islice(why.items(), REASONS_SHOWN):
        first = found[0]
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        which = f"{value_words(first.values)}, start {first.number + 1}"
        yield f"given up after {first.times} times: {which}{more}: {one_line(reason)}"


# ------------------------------------------------------------------------------------------- in words


def start_words(grid: Grid, start: Start) -> str:
    """``Qwen3-8B dtype=float16 concurrency=1,8``: what sets the engine start apart from others."""
    cells = [grid.by_id[cell].values for cell in start.cells if cell in grid.by_id]
    varied = [name for name, values in grid.axes.items() if len(values) > 1 or name == "model"]
    found = {name: dict.fromkeys(_plain(each[name]) for each in cells if name in each) for name in varied}
    return value_words({name: tuple(values) for name, values in found.items() if values})


def value_words(values: dict[str, Any]) -> str:
    """``Qwen3-8B dtype=float16``."""
    words = []
    for name, value in values.items():
        each = value if isinstance(value, tuple) else (value,)
        texts = [name_words(one) if name == "model" else f"{_plain(one)}" for one in each]
        if len(texts) > VALUES_SHOWN:
            texts[VALUES_SHOWN - 1 : -1] = ["…"]
        text = ",".join(texts)
        words.append(text if name == "model" else f"{name.rpartition('.')[2]}={text}")
    return one_line(" ".join(words))


def name_words(model: str) -> str:
    """A folder by its name alone."""
    return Path(model).name if model.startswith("/") else model


def _plain(value: Any) -> Any:
    return repr(value) if isinstance(value, list | dict) else value


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _spent(found: Spent) -> str:
    return duration(found.seconds) + ("" if found.usd is None else f" and {_usd(found.usd)}")


def _usd(amount: float) -> str:
    """``12.50 USD``; of less than ten cents what there is of it: ``0.0042 USD``."""
    return f"{amount:,.2f} USD" if amount >= 0.1 else f"{significant(amount, 2)} USD"
