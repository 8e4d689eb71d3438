"""Cost and energy against latency: which load points no other beats in both."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from msgspec.structs import replace

from profiler.charts import bills, cost_by_load, decades, encoding, loads, words
from profiler.charts.bills import ENDS, JOULES, MONEY, Bill, Layer, Points
from profiler.charts.kinds import Asked
from profiler.charts.nouns import Absent, Chart, Column, Row
from profiler.comparison.lines import Line
from profiler.cost.terms import Terms
from profiler.figures import NOTE_SEPARATOR
from profiler.store import RunResult

FRONT, NEAR, BEHIND, UNJUDGED = "on the front", "not told apart from it", "behind it", "not judged"
HEIGHT_PX = 380
# A page shows so many kinds of requests; of others it says that there are some.
MOST_KINDS = 3
MOST_NAMED = 8
STATISTICS = ("p99", "p50", "mean")
TOLD = {"tpot": "time per output token", "itl": "time between tokens", "ttft": "time to first token"}


class Latency(NamedTuple):
    """A latency as titles say it, and in which figures it is looked for, the first that is known."""

    name: str
    words: str
    figures: tuple[str, ...]


LATENCIES = (
    Latency("pace", "time per token", ("tpot", "itl")),
    Latency("ttft", "time to first token", ("ttft",)),
)


class Axes(NamedTuple):
    """Columns of a row, both better where less."""

    x: str
    y: str


def of_runs(runs: Sequence[RunResult], asked: Asked) -> list[Chart | Absent]:
    """Of each kind of requests: cost and energy against both latencies, and the cost by load."""
    kinds = bills.groups(runs, asked.terms)
    if not kinds:
        reason = "no output tokens were measured"
        return [Absent(id="front-cost-pace", title="Cost of an output token", reason=reason)]
    found = [
        chart
        for place, points in enumerate(kinds[:MOST_KINDS])
        for chart in _of_kind(points, asked.terms, f"-{place + 1}" if len(kinds) > 1 else "")
    ]
    left = list(dict.fromkeys(points.scenario for points in kinds[MOST_KINDS:]))
    note = f"requests of other kinds are not drawn: {loads.joined(left[:MOST_NAMED])}; choose their runs"
    return [replace(each, notes=(*each.notes, note)) if left and isinstance(each, Chart) else each
            for each in found]  # fmt: skip


def _of_kind(points: Points, terms: Terms, suffix: str) -> Iterator[Chart | Absent]:
    for latency in LATENCIES:
        yield _front(points, terms, points.bill, latency, f"front-cost-{latency.name}{suffix}")
    yield cost_by_load.chart(points, terms, f"cost-by-load{suffix}")
    metered, left = _of_one_boundary(points)
    if not metered.held:
        title = f"{JOULES.title} of an output token against latency"
        yield Absent(id=f"front-energy-pace{suffix}", title=title, reason=_why_no_energy(points))
        return
    for latency in LATENCIES:
        found = _front(metered, terms, JOULES, latency, f"front-energy-{latency.name}{suffix}")
        yield found if isinstance(found, Absent) else replace(found, notes=(*found.notes, *left))


# ---------------------------------------------------------------------------------------------- places


def places(rows: Sequence[Row], axes: Axes) -> list[str | None]:
    """Where each row stands among the others, less being better in both.  On the front none is as good in
    both and better in one; behind it one is so even where the intervals speak for the row.  A row with a
    doubt takes no part, one without a figure has no place.  The page has the same in ``money.js``."""
    spans = [_spans(row, axes) for row in rows]
    others = [each for row, each in zip(rows, spans, strict=True) if each and not row["doubt"]]
    at_value, at_worst = Rivals(others, VALUE), Rivals(others, HIGH)

    def place(row: Row, own: Sequence[Span] | None) -> str | None:
        if own is None:
            return None
        if row["doubt"]:
            return UNJUDGED
        is_front = not at_value.beat(*(axis[VALUE] for axis in own))
        return FRONT if is_front else BEHIND if at_worst.beat(*(axis[LOW] for axis in own)) else NEAR

    return [place(row, own) for row, own in zip(rows, spans, strict=True)]


class Rivals:
    """One end of the figures of many points, in such order that asking takes no look at each of them."""

    def __init__(self, points: Sequence[Sequence[Span]], end: int) -> None:
        ranked = sorted((x[end], y[end]) for x, y in points)
        self._x = [x for x, _ in ranked]
        self._least_y = list(accumulate((y for _, y in ranked), min))

    def beat(self, x: float, y: float) -> bool:
        """Whether one has no more of both, and less of one."""
        below, up_to = bisect_left(self._x, x), bisect_right(self._x, x)
        return (up_to > 0 and self._least_y[up_to - 1] < y) or (below > 0 and self._least_y[below - 1] <= y)


Span = tuple[float, float, float]
VALUE, LOW, HIGH = 0, 1, 2


def _spans(row: Row, axes: Axes) -> list[Span] | None:
    """Value, low and high of both; an end that is not known is the value's."""
    found = [[row[axis + end] for end in ENDS] for axis in axes]
    if any(value is None for value, _, _ in found):
        return None
    return [(v, v if low is None else low, v if high is None else high) for v, low, high in found]


# ------------------------------------------------------------------------------------------ one front


def _front(points: Points, terms: Terms, bill: Bill, latency: Latency, name: str) -> Chart | Absent:
    title = f"{bill.title} of an output token against {latency.words}"
    known = [line for line in points.lines if bills.estimate(line, bill.column)]
    x = statistic(known, latency)
    if x is None:
        return Absent(id=name, title=title, reason=_why(points, latency))
    axes = Axes(x, bill.column)
    beside = _beside(x, known)
    rows = [bills.row(each, (bill.column, *beside)) for each in points.held]
    for row, place in zip(rows, places(rows, axes), strict=True):
        row["place"] = place
    # Without a cost yet: a price that is entered gives one.
    shown = tuple(row for row in rows if row[x] is not None and (bill is MONEY or row["place"]))
    return Chart(
        id=name,
        title=f"{title} ({points.scenario})",
        summary=" ".join(_summary(points, shown, bill, axes)),
        columns=_columns(bill, beside),
        rows=shown,
        spec=_spec(shown, bill, axes),
        height=HEIGHT_PX,
        notes=tuple(_notes(points, shown, terms, bill, axes)),
    )


def statistic(held: Sequence[Line], latency: Latency) -> str | None:
    """The column of the axis: the strictest statistic that more than half of the points have."""
    for rank in STATISTICS:
        for figure in latency.figures:
            name = f"{figure}_s_{rank}"
            if 2 * sum(line.estimate(name) is not None for line in held) > len(held):
                return name
    return None


def _beside(x: str, held: Sequence[Line]) -> tuple[str, ...]:
    """The latency of the axis and, for a reader of the rows, its median."""
    median = f"{x.partition('_s_')[0]}_s_p50"
    return (x, median) if median != x and any(line.estimate(median) for line in held) else (x,)


def _of_one_boundary(points: Points) -> tuple[Points, tuple[str, ...]]:
    """Joules are compared inside one boundary: that of most points; on shared boards they are in doubt."""
    known = [each for each in points.held if each.line.estimate(JOULES.column)]
    counts = Counter(each.line.found.facts["energy_boundary"] for each in known)
    inside, *others = counts.most_common() or [(None, 0)]
    held = [
        each._replace(doubt=each.doubt or "the boards were shared")
        if each.line.found.facts["shared_gpu"]
        else each
        for each in known
        if each.line.found.facts["energy_boundary"] == inside[0]
    ]
    left = [f"{n} of {words.one_line(str(boundary))}" for boundary, n in others]
    notes = (f"not drawn, energy of another boundary: {loads.joined(left)}",) if left else ()
    return points._replace(held=held), notes


def _why(points: Points, latency: Latency) -> str:
    figures = " or ".join(TOLD[figure] for figure in latency.figures)
    return f"no {figures} was measured at most of these loads ({points.scenario})"


def _why_no_energy(points: Points) -> str:
    told = [(each.line.found.facts["notes"] or "").split(NOTE_SEPARATOR) for each in points.held]
    why = dict.fromkeys(
        words.one_line(text) for texts in told for text in texts if text.startswith("J/token")
    )
    return "; ".join(why) or "no energy was measured"


def _told(name: str) -> str:
    """``time per output token, p99``."""
    figure, _, rank = name.partition("_s_")
    return f"{TOLD[figure]}, {rank}"


def _columns(bill: Bill, names: Sequence[str]) -> tuple[Column, ...]:
    place = Column(name="place", label="place", is_money=bill is MONEY)
    first, *rest = bills.columns(bill, [(name, _told(name)) for name in names])
    return (first, place, *rest)


# ---------------------------------------------------------------------------------------------- words


def _summary(points: Points, rows: Sequence[Row], bill: Bill, axes: Axes) -> Iterator[str]:
    models = list(dict.fromkeys(words.short(row["model"]) for row in rows))
    yield (
        f"{bill.unit[:1].upper()}{bill.unit[1:]} against {_told(axes.x)}, both better where less: "
        f"{loads.count(len(rows), 'load point')} of {loads.joined(models)} in "
        f"{loads.count(len(points.runs), 'run')} of scenario {points.scenario}."
    )
    front = sorted((row for row in rows if row["place"] == FRONT), key=lambda row: row[axes.x])
    told = [
        f"{words.short(row['model'])} at {row['load']}: {bills.text(row, axes.y)} at "
        f"{bills.text(row, axes.x, 1e3)} ms"
        for row in front[:MOST_NAMED]
    ]
    told += [f"{len(front) - MOST_NAMED} more"] if len(front) > MOST_NAMED else []
    yield f"On the front, from the quickest: {'; '.join(told)}." if front else "No point can be judged."
    counts = Counter(row["place"] or "without a cost" for row in rows if row["place"] != FRONT)
    if counts:
        yield f"Of the others {loads.joined([f'{n} {place}' for place, n in counts.items()])}."


def _notes(points: Points, rows: Sequence[Row], terms: Terms, bill: Bill, axes: Axes) -> Iterator[str]:
    kinds = [row["place"] for row in rows]
    yield f"large, on the line: no other point is as {bill.better} and as quick"
    if NEAR in kinds:
        yield "small: beaten by a point, but not beyond the intervals of both"
    if BEHIND in kinds:
        known = any(row[f"{axes.y}_low"] is not None for row in rows)
        yield f"faint: beaten{' beyond the intervals' if known else ', the figures taken as exact'}"
        blind = sum(row["place"] is not None and row[f"{axes.x}_low"] is None for row in rows)
        if known and blind:
            yield f"{_told(axes.x)} of {loads.count(blind, 'point')} has no interval and is taken as exact"
    yield f"numbers: {loads.axis(points.loads)}"
    yield bills.interval_note(rows, axes)
    yield from bills.doubt_note(rows)
    yield from bills.bill_notes(points, terms, bill)
    yield from loads.caveats(points.runs)


# -------------------------------------------------------------------------------------------- drawing


def _is(place: str) -> str:
    return f"datum.place === '{place}'"


FAINT = {"opacity": {"condition": {"test": _is(BEHIND), "value": 0.35}, "value": 1}}


def _spec(rows: Sequence[Row], bill: Bill, axes: Axes) -> dict[str, Any]:
    name = TOLD[axes.x.partition("_s_")[0]]
    x = {"field": axes.x, "type": "quantitative", "title": f"{axes.x.rpartition('_')[2]} of {name}"}
    y = {"field": axes.y, "type": "quantitative", "title": bill.unit}
    return {
        "usermeta": {"front": axes._asdict()},
        "transform": [{"filter": "isValid(datum.place)"}],
        "encoding": {"x": x | _seconds(rows, axes.x), "y": y | _amounts(rows, bill)},
        "layer": [
            bills.trails(color=bills.by_model(rows), opacity={"value": 0.3}),
            _step(),
            bills.bars("x", axes.x, color=bills.by_model(rows), **FAINT),
            bills.bars("y", axes.y, color=bills.by_model(rows), **FAINT),
            *_dots(rows, bill, axes),
            _numbers(),
        ],
    }


def _seconds(rows: Sequence[Row], name: str) -> Layer:
    found: Layer = decades.times([row[name] for row in rows], _ends(rows, name))
    return found


def _amounts(rows: Sequence[Row], bill: Bill) -> Layer:
    if bill is MONEY:
        return bills.following(rows, bill.column)
    found: Layer = decades.amounts([row[bill.column] for row in rows], _ends(rows, bill.column))
    return found


def _ends(rows: Sequence[Row], name: str) -> list[float | None]:
    return [row[f"{name}_{end}"] for row in rows for end in ("low", "high")]


def _step() -> Layer:
    """What the points of the front leave to no other."""
    return {
        "transform": [{"filter": _is(FRONT)}],
        "mark": {
            "type": "line",
            "interpolate": "step-after",
            "style": "reference",
            "strokeWidth": 1,
            "opacity": 0.7,
        },
    }


def _dots(rows: Sequence[Row], bill: Bill, axes: Axes) -> Iterator[Layer]:
    columns = _columns(bill, [axes.x])
    told = ("model", "machine", "load", "place", "doubt", "n", "requests")
    formats = {axes.y: encoding.NUMBER, axes.x: encoding.NUMBER}
    who = bills.by_model(rows)
    encoded = {
        "color": who,
        "shape": who,
        "tooltip": encoding.tooltip(columns, *told, **formats),
    }
    size = {"condition": {"test": _is(FRONT), "value": 120}, "value": 56}
    yield {
        "transform": [{"filter": f"!({_is(UNJUDGED)})"}],
        "mark": {"type": "point", "filled": True},
        "encoding": encoded | FAINT | {"size": size},
    }
    yield from bills.hollow(_is(UNJUDGED), 56, **encoded)


def _numbers() -> Layer:
    return {
        "transform": [{"filter": _is(FRONT)}],
        "mark": {"type": "text", "style": "label", "align": "right", "dx": -9, "dy": 9},
        "encoding": {"text": {"field": "load"}},
    }
