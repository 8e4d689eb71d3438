"""How the recorded tokens fell on the experts, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from profiler.charts.encoding import MODEL, NUMBER, SHARE, of_model, tooltip
from profiler.charts.loads import count
from profiler.charts.nouns import Chart, Column, Row
from profiler.charts.words import NA, model, significant, slug
from profiler.routing import recording
from profiler.routing.nouns import Load, RoutingReport
from profiler.store import RunResult

MOST_CELLS = 8192
MOST_TICKS = 12
# Colours reach from a part to a multiple of the mean: at least so far, lest chance look like skew.
LEAST_REACH, MOST_REACH = 1.0, 3.0

HEAT = (
    Column(name="layer", label="layer"),
    Column(name="place", label="place by load, busiest first"),
    Column(name="expert", label="expert"),
    Column(name="over_mean", label="load over the layer's mean"),
    Column(name="tokens", label="tokens"),
)


def heat(run: RunResult, report: RoutingReport) -> Chart | None:
    """None where the run has no recording."""
    recorded = recording.read(run)
    if recorded is None:
        return None
    together = -(-report.experts * len(report.loads) // MOST_CELLS)
    rows = tuple(_cells(recorded, together))
    spread = report.over_layers("max_over_mean")
    busiest = f"{significant(spread.low)} to {significant(spread.high)}" if spread else NA
    dead = report.over_layers("dead_frac")
    unused = f"; up to {dead.high:.1%} of a layer's experts without a token" if dead and dead.high else ""
    each = f"a cell is the mean of {together} experts of like load" if together > 1 else ""
    even = [load for load in report.loads if load.cv_excess is None]
    chance = f"{len(even)} of {count(len(report.loads), 'layer')} cannot be told from even loads"
    layers = count(len(report.loads), "layer")
    n = f"{layers}, {report.tokens:,} tokens of {count(report.requests, 'request')}"
    return Chart(
        id=f"routing-load-{slug(run.folder.name)}",
        title=f"Load of each expert, layer by layer: {model(run)}",
        summary=f"Tokens that went to each of {report.experts} experts over the mean of their layer, {n}: "
        f"the busiest expert of a layer has {busiest} times the mean{unused}; {chance}.",
        columns=HEAT,
        rows=rows,
        spec=_heat_spec(rows, together),
        height=max(90, min(14 * len(report.loads), 460)),
        notes=tuple(filter(None, [each, chance if even else ""])),
    )


def _cells(recorded: recording.Recording, together: int) -> Iterator[Row]:
    import numpy as np

    for place, layer in enumerate(recorded.layers):
        tokens = np.bincount(recorded.of_layer(place).ravel(), minlength=recorded.experts)
        mean = tokens.mean()
        order = np.argsort(-tokens, kind="stable")
        for first in range(0, recorded.experts, together):
            cell = float(tokens[order[first : first + together]].mean())
            yield {
                "layer": layer,
                "place": first,
                "expert": int(order[first]) if together == 1 else None,
                "over_mean": cell / float(mean),
                "tokens": cell,
            }


def _heat_spec(rows: tuple[Row, ...], together: int) -> dict[str, Any]:
    """Experts have no order, so each layer by load.  Colour by doublings: half is as far as twice."""
    logs = [abs(math.log2(row["over_mean"])) for row in rows if row["over_mean"] > 0]
    reach = min(MOST_REACH, max([LEAST_REACH, *logs]))
    last = max(row["place"] for row in rows) + together
    clipped = f"clamp(datum.over_mean > 0 ? log(datum.over_mean) / LN2 : -{reach}, -{reach}, {reach})"
    x = {
        "field": "place",
        "type": "quantitative",
        "title": "experts of the layer, busiest first",
        "scale": {"domain": [0, last], "nice": False},
        "axis": {"grid": False, "tickCount": {"expr": "max(4, width / 80)"}},
    }
    y = {
        "field": "layer",
        "type": "ordinal",
        "title": "layer",
        "scale": {"padding": 0},
        "axis": {"labelOverlap": "greedy", "grid": False},
    }
    colour = {
        "field": "doublings",
        "type": "quantitative",
        "scale": {
            "range": "diverging",
            "reverse": True,
            "interpolate": "rgb",
            "domain": [-reach, reach],
            "domainMid": 0,
        },
        "legend": {
            "title": "load over the layer's mean",
            "labelExpr": f"(abs(datum.value) < {reach} ? '' : datum.value < 0 ? '≤ ' : '≥ ') + "
            "format(pow(2, datum.value), '.2~g') + '×'",
            "gradientLength": 180,
            "tickCount": 5,
        },
    }
    return {
        "transform": [
            {"calculate": clipped, "as": "doublings"},
            {"calculate": f"datum.place + {together}", "as": "to"},
        ],
        "mark": {"type": "rect", "cornerRadius": 0},
        "encoding": {
            "x": x,
            "x2": {"field": "to"},
            "y": y,
            "color": colour,
            "tooltip": tooltip(HEAT, "layer", "expert", place="d", over_mean=NUMBER, tokens=NUMBER),
        },
    }


# ------------------------------------------------------------------------------------------ by layer

LAYERS = (
    MODEL,
    Column(name="layer", label="layer"),
    Column(name="cv", label="CV of the experts' loads"),
    Column(name="cv_noise", label="CV by chance alone"),
    Column(name="cv_excess", label="CV less chance"),
    Column(name="max_over_mean", label="busiest expert over the mean"),
    Column(name="dead_frac", label="experts without a token"),
    Column(name="effective_experts", label="effective experts"),
)


def imbalance(run: RunResult, report: RoutingReport) -> Chart | None:
    """None of a single layer: three numbers are no picture."""
    if len(report.loads) < 2:
        return None
    rows = tuple(_layer(each, model(run)) for each in report.loads)
    told = [
        f"{label} {significant(spread.median)} ({significant(spread.low)} to {significant(spread.high)})"
        for name, label in (
            ("cv", "CV"),
            ("cv_noise", "chance alone"),
            ("max_over_mean", "busiest over mean"),
        )
        if (spread := report.over_layers(name))
    ]
    return Chart(
        id=f"routing-layers-{slug(run.folder.name)}",
        title=f"How unevenly experts are used, by layer: {model(run)}",
        summary=f"Coefficient of variation of the experts' loads in each of {count(len(rows), 'layer')}, "
        f"median (range): {'; '.join(told)}. "
        f"{report.tokens:,} tokens of {count(report.requests, 'request')}.",
        columns=LAYERS,
        rows=rows,
        spec=_layers_spec([row["layer"] for row in rows], model(run)),
        height=220,
        notes=(
            "shaded, below the dashed line: the CV that so few requests would show if all experts were alike",
        ),
    )


def _layer(load: Load, name: str) -> Row:
    return {"model": name} | {column.name: getattr(load, column.name) for column in LAYERS[1:]}


def _layers_spec(layers: list[int], name: str) -> dict[str, Any]:
    x = {
        "field": "layer",
        "type": "quantitative",
        "title": "layer",
        "scale": {"nice": False, "zero": False, "padding": 8},
        "axis": {"format": "d", "values": layers[:: -(-len(layers) // MOST_TICKS)], "labelOverlap": "parity"},
    }
    y = {"field": "cv", "type": "quantitative", "title": "CV of the experts' loads", "axis": {"tickCount": 5}}
    numbers = {
        "cv": ".3~g",
        "cv_noise": ".3~g",
        "cv_excess": ".3~g",
        "max_over_mean": ".3~g",
        "dead_frac": SHARE,
    }
    return {
        "encoding": {"x": x, "tooltip": tooltip(LAYERS, "layer", **numbers)},
        "layer": [
            {"mark": {"type": "area", "style": "shade"}, "encoding": {"y": y | {"field": "cv_noise"}}},
            {"mark": {"type": "line", "style": "computed"}, "encoding": {"y": y | {"field": "cv_noise"}}},
            {"mark": {"type": "line", "strokeWidth": 1}, "encoding": {"y": y, "color": of_model(name)}},
            {"mark": {"type": "point"}, "encoding": {"y": y, "color": of_model(name)}},
        ],
    }
