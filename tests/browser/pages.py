"""A page with one of everything, made of runs with known truth: what the browser tests open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from profiler import comparison, figures, store
from profiler.charts import theme
from profiler.charts.nouns import Chart, Column
from profiler.comparison import Question, money
from profiler.comparison.lines import Line
from profiler.cost.terms import Terms
from profiler.report.html import document as documents
from profiler.report.html import nouns, tables
from profiler.report.html.nouns import Document, Evidence, Figure, Item, Paragraph, Section
from profiler.schema import LoadPoint, Model, RequestRecord, Window
from tests import make

PRICE_USD_PER_HOUR = 2.5
NAMES = ("moe", "dense", "dense-active")
MODEL = Column(name="model", label="model")
LOAD = Column(name="load", label="requests in flight")


# ------------------------------------------------------------------------------------------ its runs


def busy(place: int, load: int, slowness: float) -> tuple[Window, list[RequestRecord]]:
    """A window of ``load`` requests at a time that take the longer the slower the model."""
    start_s, period_s = 100.0 * (place + 1), 0.2 * slowness / load
    records = [make.request(place, n, start_s + n * period_s) for n in range(int(20 / period_s))]
    point = LoadPoint(mode="closed", concurrency=load)
    return make.window(place, start_s, start_s + 20, repeat=0, point=point), records


def sealed(out: Path, names: Sequence[str] = NAMES, loads: Sequence[int] = (1, 2, 4)) -> list[Path]:
    """A run a name on a machine of one board, a window a load; each is slower than the one before it."""
    found = []
    for number, name in enumerate(names):
        run = make.writer(
            out,
            [busy(place, load, 1 + number / 2) for place, load in enumerate(loads)],
            run_id=f"run-{number}",
            host=replace(make.HOST, gpus=(make.GPU,)),
            model=Model(name=name, weights="random", facts=make.FACTS),
        )
        run.seal()
        found.append(run.folder)
    return found


def lines_of(runs: Sequence[Path], on: Terms) -> list[Line]:
    return comparison.answer(figures.of_runs(store.find(runs)), Question(terms=on)).lines


def models_of(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line.found.model for line in lines))


# ---------------------------------------------------------------------------------------- its charts


def quantity(field: str, **more: Any) -> dict[str, Any]:
    return {"field": field, "type": "quantitative"} | more


def curve(lines: Sequence[Line]) -> Chart:
    """Tokens a second over load, a line a model."""
    rows = tuple(
        {
            "model": row["model"],
            "load": row["concurrency"],
            "tokens": rate,
            "low": rate * 0.9,
            "high": rate * 1.1,
        }
        for row in (line.row() for line in lines)
        for rate in (row["output_tokens_per_s"],)
    )
    colour = {"field": "model", "type": "nominal"} | theme.colours(models_of(lines))
    x = quantity("load", scale={"type": "log", "base": 2, "nice": False}, title="requests in flight")
    band = {"y": quantity("low", title="output tokens/s"), "y2": {"field": "high"}}
    line = {"y": quantity("tokens"), "tooltip": [{"field": "model"}, {"field": "tokens"}]}
    return Chart(
        id="speed",
        title="Output tokens a second by load",
        summary="Output tokens a second of each model at 1, 2 and 4 requests in flight; one window a load.",
        columns=(
            MODEL,
            LOAD,
            Column(name="tokens", label="output tokens", unit="tokens/s"),
            Column(name="low", label="lower end", unit="tokens/s"),
            Column(name="high", label="upper end", unit="tokens/s"),
        ),
        rows=rows,
        spec={
            "encoding": {"x": x, "color": colour},
            "layer": [
                {"mark": {"type": "area", "style": "band"}, "encoding": band},
                {"mark": {"type": "line", "point": True}, "encoding": line},
            ],
        },
        notes=("made by a test: no engine ran",),
    )


def money_chart(lines: Sequence[Line]) -> Chart:
    """What a million tokens cost, which the page computes again."""
    cost = "usd_per_m_output_tokens"
    return Chart(
        id="bill",
        title="Cost of output tokens by load",
        summary="USD per million output tokens of each model at each load.",
        columns=(MODEL, LOAD, Column(name=cost, label="cost", unit="USD per million", is_money=True)),
        rows=tuple(
            {"key": money.key(line.found), "model": row["model"], "load": row["concurrency"], cost: row[cost]}
            for line in lines
            for row in (line.row(),)
        ),
        spec={
            "mark": "point",
            "encoding": {
                "x": {"field": "load", "type": "ordinal", "axis": {"labelAngle": 0}},
                "y": quantity(cost, title="USD per million output tokens"),
                "color": {"field": "model", "type": "nominal"} | theme.colours(models_of(lines)),
                "tooltip": [{"field": "model"}, {"field": cost}],
            },
        },
    )


# ---------------------------------------------------------------------------------------- its pages


def page(runs: Sequence[Path], word: str = "plain", **terms: Any) -> Document:
    """``word`` stands wherever a user's text may."""
    on = Terms(price=PRICE_USD_PER_HOUR, **terms)
    lines = lines_of(runs, on)
    found = Document(
        title=f"Three models, {word}",
        kicker="profile report",
        lead=f"The MoE is cheaper up to 7 requests in flight. {word}",
        findings=(f"It is quicker everywhere. {word}",),
        facts=(Item("Hardware", f"NVIDIA H100 80GB HBM3 {word}"), Item(word, word)),
        sections=(_cost(lines, on, word), _speed(lines, word), _claims(word)),
    )
    return documents.numbered(found, models_of(lines))


def _cost(lines: list[Line], on: Terms, word: str) -> Section:
    caption = f"Every load {word}"
    return Section(
        id="cost",
        title="Cost",
        blocks=(
            Paragraph(f"What a million tokens cost at each load. {word}"),
            nouns.Form("Price and terms", money.of_lines(lines, on)),
            tables.of_loads(lines, name="loads", caption=caption, notes=(word, "random weights")),
            Figure(money_chart(lines)),
        ),
    )


def _speed(lines: list[Line], word: str) -> Section:
    chart = curve(lines)
    return Section(
        id="speed-section",
        title=f"Speed {word}",
        blocks=(
            Figure(replace(chart, title=f"{chart.title} {word}"), notes=(word,)),
            nouns.Gaps((Item("Power", f"n/a: no power was measured {word}"),)),
            nouns.Notes((f"a caveat {word}", "another"), "To know"),
            Paragraph(f"Two runs differ in their driver. {word}", is_warning=True),
        ),
        parts=(Section(id="part", title=f"A part {word}", blocks=(Paragraph("Words."),)),),
    )


def _claims(word: str) -> Section:
    claims = (
        Evidence(
            id="a", text="It is cheaper.", verdict="supported", mark="good", why="ratio 1.8", lines=(word,)
        ),
        Evidence(id="b", text="A MoE is slower.", verdict="refuted", mark="bad", why=word, about=word),
        Evidence(id="c", text=word, verdict="undecided", mark="open", why="one start"),
    )
    return Section(id="claims", title="Claims", blocks=(nouns.Docket(claims),))


def long(runs: Sequence[Path], figures: int) -> Document:
    """A page of many figures, one below the other."""
    chart = curve(lines_of(runs, Terms(price=PRICE_USD_PER_HOUR)))
    blocks = tuple(Figure(replace(chart, id=f"speed-{number}"), number + 1) for number in range(figures))
    found = Section(id="figures", title="Figures", blocks=blocks)
    return Document(title="Many", kicker="profile report", lead="", findings=(), facts=(), sections=(found,))
