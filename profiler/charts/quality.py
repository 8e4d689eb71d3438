"""Cost beside quality: which models no other beats in both, how surely, and which are equally good."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from profiler import frontier, scores
from profiler.charts import bills, decades, encoding, loads, theme, words
from profiler.charts.bills import MONEY, Layer
from profiler.charts.kinds import Asked
from profiler.charts.nouns import Absent, Chart, Column, Row
from profiler.cost import question
from profiler.cost.basis import share_lines
from profiler.cost.terms import Terms
from profiler.figures import NOTE_SEPARATOR
from profiler.store import RunResult

HEIGHT_PX = 380
MOST_CHARTS = 3
# More names beside their points are in each other's way: a legend has them.
MOST_NAMED = 10
MOST_TOLD = 4
# What a name beside its point takes of the width and the height.
NAME_WIDE, NAME_HIGH = 0.5, 0.08
SIDES = {"left": {"align": "right", "dx": -11}, "right": {"align": "left", "dx": 11}}
COST = MONEY.column
TITLE = "Cost beside quality"
UNITS = {"elo": "Elo", "frac": "share solved"}


def of_runs(runs: Sequence[RunResult], asked: Asked) -> list[Chart | Absent]:
    """A chart a scenario, by the benchmark that was named or else the one that most of the models have."""
    known = scores.quality()
    models = list(dict.fromkeys(run.manifest.model.name for run in runs))
    benchmark = scores.benchmark_named(asked.score, known) if asked.score else _commonest(models, known)
    if benchmark is None:
        names = loads.joined([words.short(model) for model in models[:MOST_NAMED]])
        reason = f"no score is published of {names} (profile list quality)"
        return [Absent(id="quality", title=TITLE, reason=reason)]
    measured = [each for run in runs for each in loads.measured(run)]
    candidates = frontier.of_question(
        question.asked(runs, asked.terms, slo={}, measured=measured), benchmark, known, ()
    )
    rows = frontier.rows(candidates, benchmark)
    pairs = frontier.pairs(candidates, None) if rows else []
    scenarios = list(dict.fromkeys(row["scenario"] for row in rows))[:MOST_CHARTS]
    found: list[Chart | Absent] = []
    for place, scenario in enumerate(scenarios, 1):
        held, matched = ([row for row in some if row["scenario"] == scenario] for some in (rows, pairs))
        name = f"quality-{place}" if len(scenarios) > 1 else "quality"
        found.append(_chart(name, held, matched, asked.terms, runs))
    return found or [Absent(id="quality", title=TITLE, reason="no window of these runs was finished")]


def _commonest(models: Sequence[str], known: Sequence[scores.Score]) -> str | None:
    every = list(dict.fromkeys(score.benchmark for score in known))
    having = {
        each: sum(scores.of_model(model, each, known)[0] is not None for model in models) for each in every
    }
    best = max(every, key=lambda each: having[each], default=None)
    return best if best is not None and having[best] else None


def _chart(
    name: str, held: Sequence[Row], matched: Sequence[Row], terms: Terms, runs: Sequence[RunResult]
) -> Chart | Absent:
    full = [row for row in held if row["p_on_frontier"] is not None]
    scenario, benchmark = words.one_line(held[0]["scenario"]), held[0]["benchmark"]
    if not full:
        lacking = [f"{words.short(row['model'])}: {_why(row)}" for row in held[:MOST_NAMED]]
        return Absent(id=name, title=f"{TITLE} ({scenario})", reason="; ".join(lacking))
    equal = [row for row in matched if row["verdict"] == "equivalent"]
    rows = (*_points(full), *_lines(full, equal))
    return Chart(
        id=name,
        title=f"{TITLE}: {benchmark} ({scenario})",
        summary=" ".join(_summary(full, equal, matched)),
        columns=_columns(full),
        rows=rows,
        spec=_spec(rows, full),
        height=HEIGHT_PX,
        notes=(*_notes(full, held, equal, matched), *share_lines(terms), *loads.caveats(runs)),
    )


def _why(row: Row) -> str:
    return words.one_line((row["notes"] or row["at"]).split(NOTE_SEPARATOR)[0])


# ----------------------------------------------------------------------------------------------- rows


def _points(full: Sequence[Row]) -> Iterator[Row]:
    low, high = (pick(row[COST] for row in full) for pick in (min, max))
    middle = math.sqrt(low * high)
    for row in full:
        yield {
            "part": "model",
            "model": words.one_line(row["model"]),
            "name": words.short(row["model"]),
            "side": "left" if row[COST] > middle else "right",
            **{name + end: row[name + end] for name in (COST, "score") for end in bills.ENDS},
            "place": "on the front" if row["on_frontier"] else "behind it",
            "p_on_frontier": row["p_on_frontier"],
            "ruled_out_by": row["ruled_out_by"] and words.short(row["ruled_out_by"]),
            "at": words.one_line(row["at"]),
            "score_source": row["score_source"],
        }


def _lines(full: Sequence[Row], equal: Sequence[Row]) -> Iterator[Row]:
    """A row for two models that are equally good: from the one to the other."""
    by_model = {row["model"]: row for row in full}
    for pair in equal:
        ends = [by_model.get(pair[name]) for name in ("model", "other")]
        one, other = ends
        if one and other:
            yield {
                "part": "equally good",
                "model": words.one_line(one["model"]),
                "other": words.one_line(other["model"]),
                COST: one[COST],
                "score": one["score"],
                "other_cost": other[COST],
                "other_score": other["score"],
                "margin": pair["margin"],
            }


def _columns(full: Sequence[Row]) -> tuple[Column, ...]:
    unit = UNITS.get(full[0]["score_unit"], full[0]["score_unit"])
    ends = tuple(zip(bills.ENDS, ("", ", low", ", high"), strict=True))
    return (
        Column(name="part", label="part"),
        Column(name="model", label="model"),
        *(Column(name=COST + end, label=f"cost{said}", unit=MONEY.unit) for end, said in ends),
        *(Column(name=f"score{end}", label=f"{full[0]['benchmark']}{said}", unit=unit) for end, said in ends),
        Column(name="place", label="place"),
        Column(name="p_on_frontier", label="P(on the front)"),
        Column(name="ruled_out_by", label="ruled out by"),
        Column(name="at", label="cost taken at"),
        Column(name="score_source", label="score by"),
        Column(name="other", label="equally good as"),
        Column(name="other_cost", label="its cost", unit=MONEY.unit),
        Column(name="other_score", label="its score", unit=unit),
        Column(name="margin", label="within", unit=unit),
    )


# ---------------------------------------------------------------------------------------------- words


def _summary(full: Sequence[Row], equal: Sequence[Row], matched: Sequence[Row]) -> Iterator[str]:
    yield f"{MONEY.unit} against the score in {full[0]['benchmark']}: {loads.count(len(full), 'model')}."
    for row in full:
        where = "on the front" if row["on_frontier"] else f"ruled out by {words.short(row['ruled_out_by'])}"
        yield (
            f"{words.short(row['model'])}: {bills.text(row, COST)} USD, score {_score(row)}, {where}, "
            f"P(on the front) {row['p_on_frontier']:.0%}."
        )
    pairs = [f"{words.short(row['model'])} and {words.short(row['other'])}" for row in equal]
    if matched:
        within = f"within ±{matched[0]['margin']:g}"
        yield (
            f"Equally good {within}: {loads.joined(pairs)}."
            if pairs
            else f"No two are shown equally good {within}."
        )


def _score(row: Row) -> str:
    low, high = row["score_low"], row["score_high"]
    digits = 3 if abs(row["score"]) < 1 else 1
    bounds = "" if low is None else f" ({low:,.{digits}f}–{high:,.{digits}f})"
    return f"{row['score']:,.{digits}f}{bounds}"


def _notes(
    full: Sequence[Row], held: Sequence[Row], equal: Sequence[Row], matched: Sequence[Row]
) -> Iterator[str]:
    yield (
        f"percentages: in how many of {frontier.DRAWS:,} draws from the intervals no other model is as good "
        "and as cheap; large, on the line: so at the figures as they stand"
    )
    if equal:
        yield f"dashed: equally good within ±{matched[0]['margin']:g}, by two one-sided tests at 5 %"
    bare = [words.short(row["model"]) for row in full if row[f"{COST}_low"] is None]
    if bare:
        yield f"no interval of the cost of {loads.joined(bare)}: taken as exact"
    sources = dict.fromkeys(words.one_line(row["score_source"]) for row in full)
    yield f"bars: 95 % intervals; scores: {'; '.join(sources)}"
    yield from _where(full)
    lacking = [f"{words.short(row['model'])} ({_why(row)})" for row in held if row["p_on_frontier"] is None]
    if lacking:
        yield f"not drawn: {'; '.join(lacking[:MOST_NAMED])}"


def _where(full: Sequence[Row]) -> Iterator[str]:
    """At which load and price the costs were taken, models of the same together."""
    models: dict[str, list[str]] = {}
    for row in full:
        models.setdefault(bills.without_names(row["at"]), []).append(words.short(row["model"]))
    told = [f"cost of {loads.joined(names)}: {at}" for at, names in models.items()]
    yield from told[:MOST_TOLD]
    if len(told) > MOST_TOLD:
        yield "where other costs were taken is in the rows"


# -------------------------------------------------------------------------------------------- drawing


def _spec(rows: Sequence[Row], full: Sequence[Row]) -> dict[str, Any]:
    points = [row for row in rows if row["part"] == "model"]
    x = decades.amounts(
        [row[COST] for row in full], [row[f"{COST}_{e}"] for row in full for e in ("low", "high")]
    )
    y = {"scale": {"zero": False, "padding": 24}, "axis": {"tickCount": 6, "format": ",~f"}}
    is_named = len(points) <= MOST_NAMED and not _are_close(points)
    who = _who(points, is_named)
    front = {"condition": {"test": "datum.place === 'on the front'", "value": 1}, "value": 0.45}
    return {
        "encoding": {
            "x": {"field": COST, "type": "quantitative", "title": MONEY.unit} | x,
            "y": {"field": "score", "type": "quantitative", "title": f"{full[0]['benchmark']}"} | y,
        },
        "layer": [
            _equal(),
            _step(),
            bills.bars("x", COST, color=who, opacity=front),
            bills.bars("y", "score", color=who, opacity=front),
            _dots(full, who),
            *(_words(side, is_named) for side in SIDES),
        ],
    }


def _are_close(points: Sequence[Row]) -> bool:
    """Whether names beside two points on the same side would meet."""
    at = [(row["side"], math.log(row[COST]), row["score"]) for row in points]
    wide, high = (max(row[axis] for row in at) - min(row[axis] for row in at) or 1.0 for axis in (1, 2))
    return any(
        a[0] == b[0] and abs(a[1] - b[1]) < NAME_WIDE * wide and abs(a[2] - b[2]) < NAME_HIGH * high
        for a, b in combinations(at, 2)
    )


def _who(points: Sequence[Row], is_named: bool) -> Layer:
    if not is_named:
        return bills.by_model(points)
    models = list(dict.fromkeys(row["model"] for row in points))
    return {"field": "model", "type": "nominal", "legend": None} | theme.colours(models)


def _of(part: str) -> Layer:
    return {"filter": f"datum.part === '{part}'"}


def _equal() -> Layer:
    ends = {"x2": {"field": "other_cost"}, "y2": {"field": "other_score"}}
    return {
        "transform": [_of("equally good")],
        "mark": {"type": "rule", "style": "computed"},
        "encoding": ends,
    }


def _step() -> Layer:
    """What the models of the front leave to no other: dearer and no better."""
    return {
        "transform": [_of("model"), {"filter": "datum.place === 'on the front'"}],
        "mark": {
            "type": "line",
            "interpolate": "step-after",
            "style": "reference",
            "strokeWidth": 1,
            "opacity": 0.7,
        },
    }


def _dots(full: Sequence[Row], who: Layer) -> Layer:
    told = ("model", "place", "ruled_out_by", "at")
    formats = {COST: encoding.NUMBER, "score": ",.4~g", "p_on_frontier": encoding.SHARE}
    on_front = {"test": "datum.place === 'on the front'"}
    return {
        "transform": [_of("model")],
        "mark": {"type": "point", "filled": True},
        "encoding": {
            "color": who,
            "shape": who,
            "size": {"condition": on_front | {"value": 130}, "value": 64},
            "opacity": {"condition": on_front | {"value": 1}, "value": 0.45},
            "tooltip": encoding.tooltip(_columns(full), *told, **formats),
        },
    }


def _words(side: str, is_named: bool) -> Layer:
    """How surely a model is on the front, and before that its name where there is room for it."""
    chance = "format(datum.p_on_frontier, '.0%')"
    text = {"calculate": f"datum.name + ' · ' + {chance}" if is_named else chance, "as": "words"}
    mark = {"type": "text", "style": "label", "baseline": "bottom", "dy": -3}
    return {
        "transform": [_of("model"), {"filter": f"datum.side === '{side}'"}, text],
        "mark": mark | SIDES[side],
        "encoding": {"text": {"field": "words"}},
    }
