"""Throughput against latency: what a load gives and how long its requests wait, load by load.

A line is one configuration, over its runs where there are several.  A load whose figures are in doubt keeps
its place, hollow and with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from profiler import levels
from profiler.charts import configurations, decades, loads, words
from profiler.charts.configurations import At, Curve
from profiler.charts.encoding import NUMBER, tooltip
from profiler.charts.nouns import Absent, Chart, Column, Row
from profiler.charts.theme import colours
from profiler.schema import Estimate
from profiler.store import RunResult
from profiler.windows import LATENCIES

NAMES = {
    "ttft_s": ("TTFT", "time to first token"),
    "itl_s": ("ITL", "time between tokens"),
    "tpot_s": ("TPOT", "time per output token"),
    "e2e_s": ("E2E", "time to the last token"),
}
MIDDLE, TAIL = "p50", "p99"
RATE, TIME = "output_tokens_per_s", "latency_s"
STATISTICS = {"domain": [MIDDLE, TAIL], "range": [[1, 0], [5, 3]]}
# More lines than this and no eye follows one; loads are written beside no more than so many.
MOST_LINES, MOST_LABELLED = 8, 2
HEIGHT_PX = 340


def of_runs(runs: Sequence[RunResult]) -> tuple[Chart | Absent, ...]:
    """A figure a latency: TTFT, ITL (TPOT where nobody timed the gaps) and E2E."""
    curves = configurations.curves(runs)
    own = f"-{words.slug(runs[0].folder.name)}" if len(runs) == 1 else ""
    gaps = "itl_s" if any(_has(each, "itl_s") for each in curves) else "tpot_s"
    return tuple(_figure(runs, curves, name, own) for name in LATENCIES if name in ("ttft_s", gaps, "e2e_s"))


def _has(curve: Curve, latency: str) -> bool:
    return any(f"{latency}_{MIDDLE}" in each.found.estimates for each in curve.at)


def _figure(runs: Sequence[RunResult], curves: list[Curve], latency: str, own: str) -> Chart | Absent:
    short, long = NAMES[latency]
    key, title = f"latency-{short.lower()}{own}", f"Throughput and {short}"
    drawn = [curve for curve in curves if _has(curve, latency)]
    if not drawn:
        return Absent(id=key, title=title, reason=f"no request's {long} was measured: {_why(runs, curves)}")
    shown, left_out = drawn[:MOST_LINES], drawn[MOST_LINES:]
    columns = _columns(short)
    found = [row for curve in shown for row in _rows(curve, latency)]
    rows = tuple({each.name: row.get(each.name) for each in columns} for row in found)
    one = f": {words.short(shown[0].model)}" if len({curve.model for curve in shown}) == 1 else ""
    return Chart(
        id=key,
        title=title + one,
        summary=_summary(shown, latency),
        columns=columns,
        rows=rows,
        spec=_spec(shown, latency, rows),
        height=HEIGHT_PX,
        notes=(*_notes(shown, rows, left_out), *loads.caveats(runs)),
    )


# --------------------------------------------------------------------------------------------- rows


def _columns(short: str) -> tuple[Column, ...]:
    return (
        Column(name="part", label="part"),
        Column(name="line", label="configuration"),
        Column(name="model", label="model"),
        Column(name="load", label="load"),
        Column(name="place", label="place of the load"),
        Column(name="statistic", label="statistic"),
        Column(name="output_tokens_per_s", label="output tokens/s"),
        Column(name="output_tokens_per_s_low", label="output tokens/s, low"),
        Column(name="output_tokens_per_s_high", label="output tokens/s, high"),
        Column(name="latency_s", label=short, unit="s"),
        Column(name="latency_s_low", label=f"{short}, low", unit="s"),
        Column(name="latency_s_high", label=f"{short}, high", unit="s"),
        Column(name="windows", label="windows"),
        Column(name="starts", label="engine starts"),
        Column(name="requests", label="requests"),
        Column(name="doubt", label="in doubt"),
        Column(name="found", label="found"),
    )


def _rows(curve: Curve, latency: str) -> Iterator[Row]:
    """The loads that have both, then the limits."""
    own = {"line": curve.name, "model": curve.model}
    for place, each in enumerate(curve.at):
        rate = each.found.estimates.get(RATE)
        for statistic in (MIDDLE, TAIL):
            seen = each.found.estimates.get(f"{latency}_{statistic}")
            if rate is None or seen is None:
                continue
            yield {
                "part": "measured",
                **own,
                "load": words.load(each.found.point),
                "place": place,
                "statistic": statistic,
                **_ends(RATE, rate),
                **_ends(TIME, seen),
                "windows": each.windows,
                "starts": each.starts,
                "requests": each.requests,
                "doubt": each.doubt,
                "found": curve.found.get(levels.load_of(each.found.point)),
            }
    for limit in curve.limits:
        if limit.metric == latency:
            statistic = limit.words.split()[1]
            yield {"part": "limit", **own, "statistic": statistic, TIME: limit.limit_s}


def _ends(name: str, estimate: Estimate) -> Row:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


# -------------------------------------------------------------------------------------------- drawing


def _spec(curves: Sequence[Curve], latency: str, rows: Sequence[Row]) -> dict[str, Any]:
    short, long = NAMES[latency]
    columns = _columns(short)
    x = {
        "field": RATE,
        "type": "quantitative",
        "title": "output tokens/s",
        **_scale(rows, RATE, decades.amounts),
    }
    y = {
        "field": TIME,
        "type": "quantitative",
        **_scale(rows, TIME, decades.times),
        "title": f"{short}, {long}: {MIDDLE} solid, {TAIL} dashed",
    }
    dash = {"field": "statistic", "type": "nominal", "scale": STATISTICS, "legend": None}
    told = ("line", "load", "statistic", "doubt", "found", "windows", "starts", "requests")
    measured = {"filter": "datum.part === 'measured'"}
    doubtful = {"filter": "datum.part === 'measured' && isValid(datum.doubt)"}
    at, who = {"x": x, "y": y}, _who(curves)
    line = at | {"detail": {"field": "line"}, "order": {"field": "place"}, "strokeDash": dash}
    line["color"] = who["color"]
    point = at | who | {"tooltip": tooltip(columns, *told, **{RATE: NUMBER, TIME: NUMBER})}
    across = {
        "x": x | {"field": f"{RATE}_low"},
        "x2": {"field": f"{RATE}_high"},
        "y": y,
        "color": who["color"],
    }
    upright = {
        "y": y | {"field": f"{TIME}_low"},
        "y2": {"field": f"{TIME}_high"},
        "x": x,
        "color": who["color"],
    }
    whisker = {"type": "rule", "style": "whisker", "clip": True, "opacity": 0.55}
    layers = [
        *_limits(curves, latency, y),
        {"transform": [measured], "mark": {"type": "line"}, "encoding": line},
        {"transform": [_both(RATE)], "mark": whisker, "encoding": across},
        {"transform": [_both(TIME)], "mark": whisker, "encoding": upright},
        {
            "transform": [measured, {"filter": "!isValid(datum.doubt)"}],
            "mark": {"type": "point", "filled": True, "size": 50},
            "encoding": point,
        },
        {
            "transform": [doubtful],
            "mark": {"type": "point", "style": "paper", "size": 60},
            "encoding": at,
        },
        {
            "transform": [doubtful],
            "mark": {"type": "point", "style": "hollow", "size": 60},
            "encoding": point,
        },
        *_words(curves, at),
    ]
    return {"layer": layers}


def _scale(rows: Sequence[Row], name: str, axis: Any) -> dict[str, Any]:
    """Of a logarithmic axis over these values and their intervals."""
    ends = [row.get(f"{name}_{end}") for row in rows for end in ("low", "high")]
    found: dict[str, Any] = axis([row[name] for row in rows if row.get(name)], ends)
    return found


def _both(name: str) -> dict[str, Any]:
    """Rows with an interval of this."""
    return {"filter": f"isValid(datum.{name}_low) && isValid(datum.{name}_high)"}


def _who(curves: Sequence[Curve]) -> dict[str, Any]:
    """A model has its colour; a shape tells its configurations apart too, where it has several."""
    models, lines = list(dict.fromkeys(c.model for c in curves)), [c.name for c in curves]
    scale = colours(models) | {"legend": {} if len(models) > 1 else None}
    model = {"field": "model", "type": "nominal"} | scale
    if len(lines) == len(models):
        return {"color": model, "shape": model}
    return {"color": model, "shape": {"field": "line", "type": "nominal", "sort": lines}}


def _limits(curves: Sequence[Curve], latency: str, y: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What is within each limit, shaded, with its line and its words."""
    limits = dict.fromkeys(limit for curve in curves for limit in curve.limits if limit.metric == latency)
    for limit in limits:
        # All rows of the limit lie at one height: one mark is drawn of them.
        one = [
            {"filter": f"datum.part === 'limit' && datum.{TIME} === {limit.limit_s}"},
            {"aggregate": [{"op": "min", "field": TIME, "as": TIME}], "groupby": ["part"]},
        ]
        text = {"value": f"limit: {limit.words} ≤ {seconds(Estimate(limit.limit_s))}"}
        label = {"type": "text", "style": "reference-label", "align": "left", "baseline": "bottom"}
        for mark, encoding in (
            ({"type": "rect", "style": "shade"}, {"y": y, "y2": {"value": {"expr": "height"}}}),
            ({"type": "rule", "style": "reference"}, {"y": y}),
            (label | {"dx": 4, "dy": -4}, {"x": {"value": 0}, "y": y, "text": text}),
        ):
            yield {"transform": one, "mark": mark, "encoding": encoding}


def _words(curves: Sequence[Curve], at: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The loads beside the points of the upper line, with a ring around those found; where there are many
    lines beside these alone."""
    upper = {"filter": f"datum.part === 'measured' && datum.statistic === '{TAIL}'"}
    found = {"filter": "isValid(datum.found)"}
    ring = {"type": "point", "style": "good", "size": 260, "filled": False, "shape": "circle"}
    ring |= {"fill": "transparent", "strokeWidth": 1.75}
    yield {"transform": [upper, found], "mark": ring, "encoding": at}
    low, high = at["x"]["scale"]["domain"]
    is_left = f"datum.{RATE} < {(low * high) ** 0.5}"
    side = {"align": {"expr": f"{is_left} ? 'left' : 'right'"}, "dx": {"expr": f"{is_left} ? 7 : -7"}}
    yield {
        "transform": [upper, *([found] if len(curves) > MOST_LABELLED else [])],
        "mark": {"type": "text", "style": "note", "baseline": "bottom", "dy": -7} | side,
        "encoding": at | {"text": {"field": "load"}},
    }


# -------------------------------------------------------------------------------------------- words


def seconds(estimate: Estimate) -> str:
    """``12.3 (11.8–12.9) ms``, ``1.40 s``."""
    factor, unit = (1e3, "ms") if estimate.value < 1 else (1.0, "s")
    return f"{words.interval(estimate, factor)} {unit}"


def _summary(curves: Sequence[Curve], latency: str) -> str:
    return " ".join(_told(curve, latency) for curve in curves)


def _told(curve: Curve, latency: str) -> str:
    """One line: all of its loads, what they give and how long requests wait."""
    points = [each.found.point for each in curve.at]
    short, _ = NAMES[latency]
    said = "; ".join(_point(each, latency) for each in curve.at)
    return f"{curve.name}, {short} by load ({loads.axis(points)}): {said}."


def _point(at: At, latency: str) -> str:
    found = at.found.estimates
    rate = found.get(RATE)
    seen = [
        f"{statistic} {seconds(each) if each else words.NA}"
        for statistic in (MIDDLE, TAIL)
        for each in (found.get(f"{latency}_{statistic}"),)
    ]
    gives = f"{words.interval(rate)} tokens/s" if rate else f"tokens/s {words.NA}"
    doubt = f" (in doubt: {at.doubt})" if at.doubt else ""
    return f"at {words.load(at.found.point)}: {gives}, {', '.join(seen)}{doubt}"


def _notes(curves: Sequence[Curve], rows: Sequence[Row], left_out: Sequence[Curve]) -> Iterator[str]:
    held = [each for curve in curves for each in curve.at]
    yield from _counted(held)
    yield from _intervals(held, rows)
    if len(curves) <= MOST_LABELLED:
        yield f"beside the points: {loads.axis([each.found.point for each in held])}"
    hollow: dict[str, list[str]] = {}
    for row in rows:
        if row.get("doubt"):
            hollow.setdefault(row["doubt"], []).append(f"{row['line']} at {row['load']}")
    for why, where in hollow.items():
        yield f"hollow, in doubt ({', '.join(dict.fromkeys(where))}): {why}"
    if any(row["part"] == "limit" for row in rows):
        yield "shaded: within the limit"
    found = dict.fromkeys(f"{row['line']}, {row['found']}: {row['load']}" for row in rows if row.get("found"))
    if found:
        yield f"ring: {'; '.join(found)}"
    if left_out:
        yield f"not drawn, for want of room: {', '.join(curve.name for curve in left_out)}"


def _why(runs: Sequence[RunResult], curves: Sequence[Curve]) -> str:
    if curves and all(run.manifest.imported for run in runs):
        return "the tool that measured gave none"
    return "no load became steady" if curves else "no run has a load that was finished"


def _counted(held: Sequence[At]) -> Iterator[str]:
    """The n of the loads; other tools, whose results were imported, seldom tell theirs."""
    own = [each for each in held if each.windows]
    counted = {
        "window": [each.windows for each in own],
        "engine start": [each.starts for each in own],
        "request": [each.requests for each in held if each.requests],
    }
    if n := [_span(numbers, what) for what, numbers in counted.items() if numbers]:
        yield f"n of each load: {loads.joined(n)}"
    if len(own) < len(held):
        yield f"of {loads.count(len(held) - len(own), 'imported load')} no windows are known"


def _span(numbers: Sequence[int], what: str) -> str:
    """``4 windows``, ``96 to 2,041 requests``."""
    low, high = min(numbers), max(numbers)
    return loads.count(high, what) if low == high else f"{low:,} to {loads.count(high, what)}"


def _intervals(held: Sequence[At], rows: Sequence[Row]) -> Iterator[str]:
    """What the whiskers are over, and where there are none."""
    rates = [rate for each in held if (rate := each.found.estimates.get(RATE))]
    over = dict.fromkeys(f"{rate.n:,} {rate.over}" for rate in rates if rate.low is not None)
    if over:
        yield f"whiskers: 95 % intervals; of tokens/s over {loads.joined(list(over))}"
    if any(rate.over == "batches" for rate in rates):
        yield "one window: the interval of its tokens/s is precision within it, not what the next will give"
    seen = [row for row in rows if row["part"] == "measured"]
    if any(row[f"{name}_{end}"] is None for row in seen for name in (RATE, TIME) for end in ("low", "high")):
        whose = "" if all(each.windows for each in held) else ", or results that came without intervals"
        yield f"no whisker: one window, or too few requests to bound it{whose}"
