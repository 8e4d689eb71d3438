"""What an output token costs at each load: a curve a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from profiler import levels
from profiler.charts import bills, encoding, loads, words
from profiler.charts.bills import Bill, Layer, Points
from profiler.charts.nouns import Absent, Chart, Row
from profiler.cost.terms import Terms

HEIGHT_PX = 340
MOST_TOLD = 6


def chart(points: Points, terms: Terms, name: str) -> Chart | Absent:
    """USD per 10⁶ output tokens, or without any price the engine's time, by load."""
    bill = points.bill
    rows = tuple(bills.row(each, (bill.column,)) for each in points.held)
    title = f"{bill.title} of an output token by load ({points.scenario})"
    if len({row["load"] for row in rows}) < 2:
        return Absent(id=name, title=title, reason="one load was measured: there is no curve")
    return Chart(
        id=name,
        title=title,
        summary=" ".join(_summary(points, rows, bill)),
        columns=bills.columns(bill, ()),
        rows=rows,
        spec=_spec(points, rows, bill),
        height=HEIGHT_PX,
        notes=(
            bills.interval_note(rows, [bill.column]),
            *bills.doubt_note(rows),
            *bills.bill_notes(points, terms, bill),
            *loads.caveats(points.runs),
        ),
    )


def _summary(points: Points, rows: Sequence[Row], bill: Bill) -> Iterator[str]:
    by, runs = loads.axis(points.loads), loads.count(len(points.runs), "run")
    yield f"{bill.unit[:1].upper()}{bill.unit[1:]} by {by}, in {runs} of scenario {points.scenario}."
    curves = [list(held) for _, held in groupby(rows, key=lambda row: row["run"])]
    known = [[row for row in held if row[bill.column] is not None] for held in curves]
    told = [_curve(held, bill) for held in known if held]
    told[MOST_TOLD:] = [f"and {len(told) - MOST_TOLD} more runs"] if len(told) > MOST_TOLD else []
    yield f"{'; '.join(told)}."


def _curve(held: Sequence[Row], bill: Bill) -> str:
    ends = [held[0], held[-1]] if len(held) > 1 else held
    told = [f"{bills.text(row, bill.column)} at {row['load']}" for row in ends]
    return f"{words.short(held[0]['model'])} {' to '.join(told)}"


def _spec(points: Points, rows: Sequence[Row], bill: Bill) -> Layer:
    who, told = bills.by_model(rows), ("model", "machine", "load", "doubt", "n", "requests")
    tips = encoding.tooltip(bills.columns(bill, ()), *told, **{bill.column: encoding.NUMBER})
    y = {"field": bill.column, "type": "quantitative", "title": bill.unit}
    encoded = {"shape": who, "tooltip": tips}
    return {
        "transform": [{"filter": f"isValid(datum.{bill.column})"}],
        "encoding": {
            "x": encoding.by_load(sorted(set(points.loads), key=levels.load_of)),
            "y": y | bills.following(rows, bill.column),
            "color": who,
        },
        "layer": [
            bills.trails(),
            bills.bars("y", bill.column),
            {
                "transform": [{"filter": bills.SURE}],
                "mark": {"type": "point", "size": 56},
                "encoding": encoded,
            },
            *bills.hollow(f"!({bills.SURE})", 56, **encoded),
        ],
    }
