"""What is paid for a token, load point by load point: the rows that charts of cost and energy draw.

A point stands beside another only where both were asked for the same requests.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from profiler import consumption, levels, stats
from profiler.charts import loads, theme, words
from profiler.charts.nouns import Column, Row
from profiler.comparison import lines, money
from profiler.comparison.lines import Line
from profiler.cost.basis import share_lines
from profiler.cost.terms import Terms
from profiler.schema import Estimate, LoadPoint
from profiler.store import RunResult

ENDS = ("", "_low", "_high")
MOST_PRICES = 3
MOST_DOUBTS = 2


class Bill(NamedTuple):
    """What a token takes, as charts say it; ``column`` of a row, of the table's where it has it."""

    name: str
    column: str
    words: str
    unit: str
    title: str
    better: str = "cheap"


MONEY = Bill(
    name="cost",
    column="usd_per_m_output_tokens",
    words="cost",
    unit="USD per million output tokens",
    title="Cost",
)
TIME = Bill(
    name="cost",
    column="engine_hours_per_m_output_tokens",
    words="engine time",
    unit="engine hours per million output tokens",
    title="Engine time",
)
JOULES = Bill(
    name="energy",
    column=consumption.GROSS,
    words="energy",
    unit="J per output token",
    title="Energy",
    better="frugal",
)


class Held(NamedTuple):
    """A load point, the run that held it, and why it may not be set against others."""

    line: Line
    run: RunResult
    doubt: str | None


class Points(NamedTuple):
    """Load points that were asked for the same requests."""

    scenario: str
    held: Sequence[Held]

    @property
    def lines(self) -> list[Line]:
        return [each.line for each in self.held]

    @property
    def loads(self) -> list[LoadPoint]:
        return [each.line.found.point for each in self.held]

    @property
    def runs(self) -> list[RunResult]:
        return list({id(each.run): each.run for each in self.held}.values())

    @property
    def bill(self) -> Bill:
        """USD; the engine's time where no run has a price."""
        return MONEY if any(line.estimate(MONEY.column) for line in self.lines) else TIME


def groups(runs: Sequence[RunResult], terms: Terms) -> list[Points]:
    """By what was asked for, most load points first, loads of a run in ascending order; points without a
    token measured are in none."""
    by_folder = {str(run.folder): run for run in runs}
    by_work: dict[tuple[str, str], list[Held]] = {}
    for line in lines.of([each for run in runs for each in loads.measured(run)], terms):
        rate, run = line.found.estimates.get("output_tokens_per_s"), by_folder[line.found.run]
        if rate is not None and rate.value > 0:
            doubt = "; ".join(dict.fromkeys(loads.doubts(run, line.found))) or None
            key = line.found.work, str(line.found.facts["scenario"])
            by_work.setdefault(key, []).append(Held(line, run, doubt))
    return [
        Points(words.one_line(scenario), sorted(held, key=_order(runs)))
        for (_, scenario), held in sorted(by_work.items(), key=lambda item: -len(item[1]))
    ]


def _order(runs: Sequence[RunResult]) -> Any:
    place = {id(run): at for at, run in enumerate(runs)}
    return lambda held: (place[id(held.run)], levels.load_of(held.line.found.point))


# ----------------------------------------------------------------------------------------------- rows


def estimate(line: Line, name: str) -> Estimate | None:
    """A column of the table, or the engine's time: what USD would be at 1 USD an hour."""
    if name == TIME.column:
        return stats.inverted(line.found.estimates["output_tokens_per_s"], 1e6 / 3600)
    return line.estimate(name)


def ends(name: str, found: Estimate | None) -> Row:
    values = (found.value, found.low, found.high) if found else (None, None, None)
    return dict(zip((name + end for end in ENDS), values, strict=True))


def row(held: Held, names: Sequence[str]) -> Row:
    """A load point with these figures and their intervals."""
    line, found = held.line, held.line.found
    rate = found.estimates["output_tokens_per_s"]
    told: Row = {
        "key": money.key(found),
        "model": words.model(held.run),
        "machine": machine(line),
        "load": words.load(found.point),
        "level": levels.load_of(found.point),
        "doubt": held.doubt,
        "n": loads.count(rate.n, (rate.over or "windows").removesuffix("s")) if rate.low else None,
        "requests": found.facts["requests_ok"],
        "run": words.one_line(held.run.folder.name),
    }
    for name in dict.fromkeys(names):
        told |= ends(name, estimate(line, name))
    return told


def machine(line: Line) -> str:
    """``2 × H100, vllm``."""
    facts = line.found.facts
    boards = f"{facts['gpus']} × {facts['gpu']}" if facts["gpu"] else "no GPU"
    return words.one_line(f"{boards}, {facts['engine']}")


def columns(bill: Bill, names: Sequence[tuple[str, str]]) -> tuple[Column, ...]:
    """Of :func:`row`: the bill, and the latencies ``names`` with their words."""
    return (
        Column(name="model", label="model"),
        Column(name="machine", label="machine"),
        Column(name="load", label="load"),
        *_ends(bill.column, bill.words, bill.unit, is_money=bill is MONEY),
        *(column for name, told in names for column in _ends(name, told, "s")),
        Column(name="doubt", label="in doubt"),
        Column(name="n", label="interval over"),
        Column(name="requests", label="requests"),
        Column(name="run", label="run"),
        Column(name="key", label="key"),
    )


def _ends(name: str, told: str, unit: str, is_money: bool = False) -> Iterator[Column]:
    for end, said in zip(ENDS, ("", ", low", ", high"), strict=True):
        yield Column(name=name + end, label=told + said, unit=unit, is_money=is_money)


def text(of: Row, name: str, factor: float = 1.0) -> str:
    """``0.083 (0.071–0.095)``."""
    return words.interval(Estimate(*(of[name + end] for end in ENDS)), factor)


# ---------------------------------------------------------------------------------------------- notes


def interval_note(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Over what the bars are, or that there are none."""
    known = [each for each in rows if any(each[f"{name}_low"] is not None for name in names)]
    if not known:
        return "no intervals: each figure is of one window, or its tool gave none"
    over = list(dict.fromkeys(each["n"] for each in known if each["n"]))
    told = f"{loads.joined(over[:-1])} or {over[-1]}" if len(over) > 1 else "".join(over)
    bare = len(rows) - len(known)
    return f"bars: 95 % intervals over {told} of a run" + (f"; {bare} points have none" if bare else "")


def doubt_note(rows: Sequence[Row]) -> Iterator[str]:
    """What is against hollow points."""
    counts = Counter(each["doubt"] for each in rows if each["doubt"])
    few = counts.most_common(MOST_DOUBTS)
    left = sum(counts.values()) - sum(n for _, n in few)
    told = [f"{why} ({loads.count(n, 'point')})" for why, n in few]
    told += [f"{left} more, by other reasons"] if left else []
    if told:
        yield f"hollow, set against no other: {'; '.join(told)}"


def bill_notes(points: Points, terms: Terms, bill: Bill) -> Iterator[str]:
    """On what basis the bill is, and of which points it is not known."""
    known = [line for line in points.lines if line.estimate(bill.column)]
    missing = [line for line in points.lines if line.estimate(bill.column) is None]
    if bill is JOULES:
        inside = known[0].found.facts["energy_boundary"]
        yield f"boundary: {words.one_line(str(inside))}, all the energy it took while the load was held"
        return
    if bill is TIME:
        yield f"times the USD of an hour, over the utilisation, this is the cost; {_cost_note(missing)}"
        return
    paid = Counter(map(_price, known))
    yield from (each for each, _ in paid.most_common(MOST_PRICES))
    if len(paid) > MOST_PRICES:
        yield f"and {len(paid) - MOST_PRICES} more prices: the cost table has them"
    yield from share_lines(terms) if terms.basis != "api" else ()
    if missing:
        names = list(dict.fromkeys(words.short(line.found.model) for line in missing))
        yield f"without a cost: {loads.joined(names)} ({_cost_note(missing)})"


def _cost_note(missing: Sequence[Line]) -> str:
    notes = [note for line in missing for note in line.costs.notes]
    return words.one_line(notes[0]).removeprefix("cost n/a: ") if notes else "no cost"


def without_names(told: object) -> str:
    """What a price is based on but for whose offers they are, which the cost table has room for."""
    return re.sub(r" \([^()]*\)", "", words.one_line(str(told)))


def _price(line: Line) -> str:
    facts = line.costs.facts
    usd, said = facts["price_usd_per_hour"], without_names(facts["price_basis"])
    return said if usd is None else f"{facts['cost_basis']}: {words.significant(usd)} USD {said}"


# -------------------------------------------------------------------------------------------- drawing

Layer = dict[str, Any]
SURE = "!isValid(datum.doubt)"


def by_model(rows: Sequence[Row]) -> Layer:
    """Colour by model; its legend leaves out whose the models are."""
    models = list(dict.fromkeys(each["model"] for each in rows))
    parts = "split(datum.label, '/')"
    legend = {"labelExpr": f"{parts}[length({parts}) - 1]"} if len(models) > 1 else {}
    scale: Layer = theme.colours(models)
    return {"field": "model", "type": "nominal", "legend": legend if len(models) > 1 else None} | scale


def bars(axis: str, name: str, **more: Any) -> Layer:
    """The intervals of a figure, along its axis."""
    known = f"isValid(datum.{name}_low) && isValid(datum.{name}_high)"
    ends_at = {axis: {"field": f"{name}_low", "type": "quantitative"}, f"{axis}2": {"field": f"{name}_high"}}
    mark = {"type": "rule", "style": "whisker", "clip": True}
    return {"transform": [{"filter": known}], "mark": mark, "encoding": ends_at | more}


def hollow(rows: str, size: int, **encoded: Any) -> Iterator[Layer]:
    """Points in doubt, on paper that hides the lines behind them."""
    of = {"transform": [{"filter": rows}]}
    yield of | {"mark": {"type": "point", "style": "paper", "size": size}}
    yield of | {"mark": {"type": "point", "style": "hollow", "size": size}, "encoding": encoded}


def trails(**more: Any) -> Layer:
    """The loads of a run in their order."""
    encoded = {"detail": {"field": "run"}, "order": {"field": "level", "type": "quantitative"}}
    return {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": encoded | more}


# Leading digits that a logarithmic axis is marked at, and the decades it spans at most for them.
_MARKS = (
    (0.5, (1, 2, 3, 4, 5, 6, 7, 8, 9)),
    (1.2, (1, 2, 3, 5, 7)),
    (2.6, (1, 2, 5)),
    (4.0, (1, 3)),
    (99.0, (1,)),
)
_DIGIT = "round(datum.value / pow(10, floor(log(datum.value) / LN10 + 1e-9)))"


def following(rows: Sequence[Row], name: str) -> Layer:
    """A logarithmic scale and axis that follow their data, for figures that the page computes again, marked
    as densely as these rows want it."""
    known = [each[name + end] for each in rows for end in ENDS if each[name + end]]
    decades = math.log10(max(known) / min(known)) if known else 0.0
    digits = next(marks for most, marks in _MARKS if decades <= most)
    is_marked = f"indexof({list(digits)}, {_DIGIT}) >= 0"
    return {
        "scale": {"type": "log", "nice": False, "padding": 18},
        "axis": {
            "labelExpr": f"{is_marked} ? format(datum.value, ',~g') : ''",
            "gridOpacity": {"condition": {"test": is_marked, "value": 1}, "value": 0},
        },
    }
