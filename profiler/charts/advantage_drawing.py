"""How a MoE's advantage is drawn: bands and whiskers, the line at 1, crossovers, names at their curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from profiler.charts import encoding, scales, theme, words
from profiler.charts.nouns import Column
from profiler.charts.ratios import Curve

ROOM = 0.07  # of the height, that a line of words takes
EDGE = 0.25  # of the width, within which words do not fit between a place and the edge


ANY = "datum.part != 'crossover'"
Layer = dict[str, Any]
PLAIN: Layer = {"color": None}  # in no rival's colour


def spec(held: Sequence[Curve], columns: Sequence[Column], axis: str, better: str) -> dict[str, Any]:
    """Of rows as ``advantage`` makes them.  ``axis``: what the ratio is of; ``better``: what one does that is
    ahead (``is faster``)."""
    x = {"field": "batch", "type": "quantitative", "title": "requests in flight"}
    y = {"field": "ratio", "type": "quantitative", "title": axis}
    placed = _placed(held)
    rivals = list(dict.fromkeys(curve.rival for curve in held))
    colour = {"field": "rival", "type": "nominal"} | theme.colours(rivals)
    own = {"color": colour if placed is None else colour | {"legend": None}}
    layers = [*_curves(columns, rivals), *_computed(held), *_crossovers(held), *(placed or [])]
    return {
        "encoding": {
            "x": x | scales.batches([spot.batch for curve in held for spot in curve.spots]),
            "y": y | _ratio_axis(held),
        },
        "layer": [
            *_ground(words.short(held[0].moe), better),
            *({**layer, "encoding": _known(own | layer["encoding"])} for layer in layers),
        ],
    }


def _ratio_axis(held: Sequence[Curve]) -> dict[str, Any]:
    spots = [spot for curve in held for spot in curve.spots]
    values = [spot.ratio.value for spot in spots] + [spot.computed for spot in spots if spot.computed]
    return scales.ratio(values, [end for spot in spots for end in (spot.ratio.low, spot.ratio.high)])


def is_cut(held: Sequence[Curve]) -> bool:
    """Whether an interval reaches beyond the frame."""
    low, high = _ratio_axis(held)["scale"]["domain"]
    ratios = [spot.ratio for curve in held for spot in curve.spots]
    return any((each.low or low) < low or (each.high or high) > high for each in ratios)


def _known(encoded: Layer) -> Layer:
    return {name: each for name, each in encoded.items() if each is not None}


def _ground(moe: str, better: str) -> list[Layer]:
    """The line at 1, and who is ahead above and below it."""
    line = {"x": {"value": 0}, "x2": {"value": "width"}}
    high = {"x": {"value": {"expr": "width / 2"}}, "y": {"value": 2}}
    low = {"x": {"value": 8}, "y": {"value": {"expr": "height - 6"}}}

    def layer(encoded: Layer, **mark: Any) -> Layer:
        return {"data": {"values": [{"ratio": 1}]}, "mark": mark, "encoding": encoded}

    above, below = ({"text": {"value": text}} for text in (f"↑ {moe} {better}", f"↓ dense {better}"))
    return [
        layer(line, type="rule", style="reference"),
        layer(high | above, type="text", style="note", align="center", baseline="top"),
        layer(low | below, type="text", style="note", align="left", baseline="bottom"),
    ]


def _curves(columns: Sequence[Column], rivals: Sequence[str]) -> list[Layer]:
    """What is computed; then what was measured, faint where it may not be compared."""
    ends = {"y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}}
    own = {"detail": {"field": "stretch", "type": "nominal"}}
    tips = encoding.tooltip(
        columns, "rival", "batch", "starts", "doubt", ratio=".3~g", low=".3~g", high=".3~g"
    )
    point = {
        "shape": {"field": "rival", "type": "nominal", "legend": None} | theme.colours(rivals),
        "tooltip": tips,
    }
    computed = {"y": {"field": "computed", "type": "quantitative"}}
    sure, doubtful = "datum.part == 'measured'", "datum.part == 'doubtful'"
    return [
        _layer(
            f"{ANY} && isValid(datum.computed)", computed, type="line", style="computed", strokeWidth=1.25
        ),
        _layer(sure, ends | own, type="area", style="band", clip=True),
        _layer(f"{ANY} && isValid(datum.low)", ends, type="rule", style="whisker", clip=True),
        _layer(ANY, {}, type="line", style="faint"),
        _layer(sure, own, type="line"),
        _layer(sure, point, type="point"),
        _layer(doubtful, PLAIN, type="point", style="paper", size=60),
        _layer(doubtful, point, type="point", style="hollow"),
    ]


def _computed(held: Sequence[Curve]) -> list[Layer]:
    """A word at the highest of the computed lines, on its side away from what was measured."""
    known = [(each.computed, each, curve) for curve in held for each in curve.spots[1:2] if each.computed]
    if not known:
        return []
    value, spot, curve = max(known, key=lambda each: each[0])
    rows = [{"field": "rival", "equal": curve.rival}, {"field": "batch", "equal": spot.batch}]
    above = {"align": "left", "dx": 8, "dy": -6}
    side = above if value >= spot.ratio.value else {"align": "right", "dx": -8, "dy": 8}
    place = {"y": {"field": "computed", "type": "quantitative"}, "text": {"value": "computed"}, **PLAIN}
    mark = {"type": "text", "style": "note"} | side
    return [{"transform": [{"filter": {"and": rows}}], "mark": mark, "encoding": place}]


def _layer(rows: str, encoded: Layer, **mark: Any) -> Layer:
    return {"transform": [{"filter": rows}], "mark": mark, "encoding": encoded}


def _crossovers(held: Sequence[Curve]) -> list[Layer]:
    """The interval on the line at 1, the place itself, and both in words where the curve leaves room for
    them: outside of the U below the line, near an edge inside above it."""
    rows = "datum.part == 'crossover'"
    ends = {"x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}}
    found = [
        _layer(rows, ends, type="rule", strokeWidth=6, opacity=0.55, strokeCap="round"),
        _layer(rows, {}, type="point", style="hollow", shape="diamond", size=110),
    ]
    first, last = (
        math.log(end({spot.batch for curve in held for spot in curve.spots})) for end in (min, max)
    )
    for curve in held:
        for each in curve.crossovers:
            falls = _leader_before(curve, each.value) == "moe"
            place = (math.log(each.value) - first) / (last - first)
            outside = place > EDGE if falls else place < 1 - EDGE
            mark = {"align": "right" if falls == outside else "left", "dx": -10 if falls == outside else 10}
            at = [{"field": "rival", "equal": curve.rival}, {"field": "batch", "equal": each.value}]
            found.append(
                {
                    "transform": [{"filter": {"and": [{"field": "part", "equal": "crossover"}, *at]}}],
                    "mark": {"type": "text", "style": "label", "dy": 18 if outside else -14} | mark,
                    "encoding": {"text": {"field": "label"}},
                }
            )
    return found


def _leader_before(curve: Curve, batch: float) -> str:
    """Who is surely ahead at the last batch before this one at which anyone is."""
    return [spot.leader for spot in curve.spots if spot.batch < batch and spot.leader != "undecided"][-1]


def _placed(held: Sequence[Curve]) -> list[Layer] | None:
    """Each rival's name at the end of its curve, on the side the curve does not come from, or before an
    interval that leaves no room there; None where two would meet, which takes a legend."""
    low, high = _ratio_axis(held)["scale"]["domain"]
    room = ROOM * math.log(high / low)
    found: list[Layer] = []
    at: list[float] = []
    for curve in held:
        last = curve.spots[-1]
        rises = len(curve.spots) < 2 or last.ratio.value >= curve.spots[-2].ratio.value
        beside = (last.ratio.high if rises else last.ratio.low, last.ratio.value, last.computed)
        end = (max if rises else min)(each for each in beside if each)
        fits = room < math.log(high / end) and room < math.log(end / low)
        end = end if fits else last.ratio.value
        at.append(math.log(end))
        mark = {"type": "text", "style": "label", "align": "right", "dx": 6 if fits else -10}
        mark |= {"dy": -12 if rises else 14}
        rows = [{"field": "rival", "equal": curve.rival}, {"field": "batch", "equal": last.batch}]
        place = {"y": {"datum": end}, "text": {"value": f"over {words.short(curve.rival)}"}}
        found.append({"transform": [{"filter": {"and": rows}}], "mark": mark, "encoding": place})
    close = any(above - below < room for below, above in pairwise(sorted(at)))
    return None if close else found
