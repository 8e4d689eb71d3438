"""A run over time: power, clocks and temperature of the boards, output tokens/s, the KV cache and the
requests at hand, in every window from its opening to its end; the steady stretch is what figures are of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from profiler.charts import loads, traces, words
from profiler.charts.encoding import tooltip
from profiler.charts.nouns import Absent, Chart, Column, Row
from profiler.charts.strip import NEVER, STEADY, Span, spans
from profiler.charts.theme import colours, dashes
from profiler.charts.traces import Trace
from profiler.schema import LoadPoint
from profiler.store import RunResult

DIGITS = 6
HEIGHT_PX, MARK_PX = 220, 4
# Where the titles stand above the loads.
ABOVE_PX = -30
ENVELOPE = ("low", "high", "samples")


class What(NamedTuple):
    """A quantity over time: its id and title, its axis with its unit, by what factor a sample becomes that
    unit, whether its axis begins at 0; ``estimate``: by what name the figures of a load tell it."""

    id: str
    title: str
    label: str
    unit: str | None
    factor: float = 1.0
    from_zero: bool = True
    estimate: str | None = None


POWER = What("power", "Power over time", "power", "W", estimate="power_w_mean")
CLOCKS = What("clocks", "Clocks over time", "SM clock", "MHz", from_zero=False)
TEMPERATURE = What("temperature", "Temperature over time", "temperature", "°C", from_zero=False)
TOKENS = What("tokens", "Output tokens/s over time", "output tokens/s", None, estimate="output_tokens_per_s")
CACHE = What("kv", "KV cache in use over time", "KV cache in use", "%", factor=100.0)
REQUESTS = What("requests", "Requests at hand over time", "requests", None)


def of_run(run: RunResult, wanted: Sequence[What] = ()) -> tuple[Chart | Absent, ...]:
    """A figure a quantity, or why there is none."""
    every = (POWER, TOKENS, REQUESTS, CACHE, CLOCKS, TEMPERATURE)
    parts = spans(run.manifest.windows)
    return tuple(_figure(run, parts, what) for what in wanted or every)


def _figure(run: RunResult, parts: list[Span], what: What) -> Chart | Absent:
    key = f"{what.id}-{words.slug(run.folder.name)}"
    if not parts:
        told = run.manifest.imported
        why = f"{words.one_line(told.by)} keeps no times" if told else "no window was finished"
        return Absent(id=key, title=what.title, reason=why)
    found = traces.OF[what.id](run, parts)
    if isinstance(found, str):
        return Absent(id=key, title=what.title, reason=found)
    return _chart(run, parts, what, found, key)


# -------------------------------------------------------------------------------------------- chart


def _chart(run: RunResult, parts: list[Span], what: What, lines: list[Trace], key: str) -> Chart:
    rows = [row for line in lines for row in _rows(run, what, line)]
    unsaid = set() if any(row["low"] < row["high"] for row in rows) else {*ENVELOPE}
    if not any(row["held_back_by"] for row in rows):
        unsaid.add("held_back_by")
    columns = tuple(each for each in _columns(what) if each.name not in unsaid)
    every = [*(_phase(run, part) for part in parts), *rows]
    kept = tuple({each.name: row.get(each.name) for each in columns} for row in every)
    return Chart(
        id=key,
        title=f"{what.title}: {words.model(run)}",
        summary=_summary(run, parts, what, rows),
        columns=columns,
        rows=kept,
        spec=_spec(run, parts, what, columns, [line.name for line in lines]),
        height=HEIGHT_PX,
        notes=(*_notes(parts, lines, rows, "low" not in unsaid), *loads.caveats([run])),
    )


def _columns(what: What) -> tuple[Column, ...]:
    return (
        Column(name="part", label="part"),
        Column(name="model", label="model"),
        Column(name="line", label="of"),
        Column(name="engine_start", label="engine start"),
        Column(name="window", label="window"),
        Column(name="load", label="load"),
        Column(name="phase", label="phase"),
        Column(name="at_s", label="time in windows", unit="s"),
        Column(name="from_s", label="from", unit="s"),
        Column(name="until_s", label="until", unit="s"),
        Column(name="mean", label=what.label, unit=what.unit),
        Column(name="low", label="lowest", unit=what.unit),
        Column(name="high", label="highest", unit=what.unit),
        Column(name="samples", label="samples"),
        Column(name="held_back_by", label="clocks held back by"),
    )


def _phase(run: RunResult, part: Span) -> Row:
    """A phase of a window, whatever was seen in it."""
    return {
        "part": "phase",
        "model": words.model(run),
        "engine_start": part.window.engine_start,
        "window": part.window.index,
        "load": words.load(part.window.point),
        "phase": part.phase,
        "from_s": round(part.at_s, 3),
        "until_s": round(part.at_s + part.length_s, 3),
    }


def _rows(run: RunResult, what: What, line: Trace) -> Iterator[Row]:
    """What was seen of one line."""
    bins = line.bins
    for each in line.seen:
        yield _phase(run, bins.spans[each.bin]) | {
            "part": "seen",
            "line": line.name,
            "at_s": round(each.at_s, 3),
            "from_s": round(float(bins.at_s[each.bin]), 3),
            "until_s": round(float(bins.until_s[each.bin]), 3),
            "mean": _rounded(each.mean * what.factor),
            "low": _rounded(each.low * what.factor),
            "high": _rounded(each.high * what.factor),
            "samples": each.n,
            "held_back_by": line.held_back.get(each.bin),
        }


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _spec(
    run: RunResult, parts: list[Span], what: What, columns: Sequence[Column], lines: list[str]
) -> dict[str, Any]:
    shown = [each.name for each in columns]
    colour: dict[str, Any] = {"field": "line", "type": "nominal", "sort": lines}
    if len(lines) == 1:
        colour = {"field": "model", "type": "nominal", "legend": None} | colours([words.model(run)])
    value = {
        "field": "mean",
        "type": "quantitative",
        "title": f"{what.label} ({what.unit})" if what.unit else what.label,
        "scale": {"zero": what.from_zero, "nice": True} | ({} if what.from_zero else {"padding": 10}),
        "axis": {"titleY": ABOVE_PX, "tickCount": 5},
    }
    broken = [{"field": "window"}, {"field": "line"}]
    seen = [{"filter": "datum.part === 'seen'"}]
    layers = [_steady(parts), *_starts(parts)]
    if "low" in shown:
        ends = {"y": value | {"field": "low"}, "y2": {"field": "high"}}
        band = {"x": _x(None), **ends, "fill": colour | {"legend": None}, "detail": broken}
        layers.append({"transform": seen, "mark": {"type": "area", "style": "band"}, "encoding": band})
    told = [name for name in shown if name not in ("part", "model", "from_s", "until_s")]
    line = {
        "x": _x({"title": "seconds in windows", "tickCount": 8}),
        "y": value,
        "color": colour,
        "detail": broken,
        "tooltip": tooltip(columns, *told),
    }
    if len(lines) > 1:
        line["strokeDash"] = {"field": "line", "sort": lines} | dashes(lines)
    mark = {"type": "line", "strokeWidth": 1.5, "point": "transparent"}
    layers.append({"transform": seen, "mark": mark, "encoding": line})
    if "held_back_by" in shown:
        layers.append(_held_back(columns))
    return {"layer": layers, "resolve": {"axis": {"x": "independent"}}}


def _x(axis: dict[str, Any] | None, field: str = "at_s") -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "axis": axis, "scale": {"nice": False, "zero": True}}


def _steady(parts: list[Span]) -> dict[str, Any]:
    """The steady stretches, shaded, with the load of each window above it."""
    held = [part for part in parts if part.phase in (STEADY, NEVER)]
    middles = [round(part.at_s + part.length_s / 2, 3) for part in held]
    named = [words.load(part.window.point) for part in held]
    above = {
        "orient": "top",
        "values": middles,
        "labelExpr": f"{named}[indexof({middles}, datum.value)]",
        "labelOverlap": "greedy",
        "labelSeparation": 4,
        "title": f"{loads.axis([part.window.point for part in held])} ↓",
        "titleAnchor": "end",
        "titleY": ABOVE_PX,
        "titleOpacity": 0.65,
        "ticks": False,
        "domain": False,
    }
    return {
        "transform": [{"filter": f"datum.part === 'phase' && datum.phase === '{STEADY}'"}],
        "mark": {"type": "rect", "style": "shade"},
        "encoding": {"x": _x(above, "from_s"), "x2": {"field": "until_s"}},
    }


def _starts(parts: list[Span]) -> list[dict[str, Any]]:
    """A line where the engine was started anew."""
    starts = list(dict.fromkeys(part.window.engine_start for part in parts))
    if len(starts) < 2:
        return []
    begun = [{"op": "min", "field": "from_s", "as": "first_s"}]
    return [
        {
            "transform": [
                {"aggregate": begun, "groupby": ["engine_start"]},
                {"filter": f"datum.engine_start !== {starts[0]}"},
            ],
            "mark": {"type": "rule", "style": "reference"},
            "encoding": {"x": _x(None, "first_s")},
        }
    ]


def _held_back(columns: Sequence[Column]) -> dict[str, Any]:
    """At the foot, where something held the clocks back."""
    return {
        "transform": [{"filter": "isValid(datum.held_back_by)"}],
        "mark": {"type": "rect", "style": "bad"},
        "encoding": {
            "x": _x(None, "from_s"),
            "x2": {"field": "until_s"},
            "y": {"value": {"expr": f"height - {MARK_PX}"}},
            "y2": {"value": {"expr": "height"}},
            "tooltip": tooltip(columns, "line", "window", "held_back_by"),
        },
    }


# -------------------------------------------------------------------------------------------- words


def _summary(run: RunResult, parts: list[Span], what: What, rows: Sequence[Row]) -> str:
    windows, length_s = run.manifest.windows, sum(part.length_s for part in parts)
    points = list(dict.fromkeys(window.point for window in windows))
    said = "; ".join(f"at {words.load(point)}: {_at(run, what, point, rows)}" for point in points)
    return (
        f"{what.title} of {words.model(run)}: {loads.held(windows)}, {words.significant(length_s)} s in all. "
        f"Mean in the steady windows by load ({loads.axis(points)}): {said}."
    )


def _at(run: RunResult, what: What, point: LoadPoint, rows: Sequence[Row]) -> str:
    """The mean of a load: as the tables have it where they do, else that of what is drawn, line by line."""
    unit = f" {what.unit}" if what.unit else ""
    found = next((each for each in loads.measured(run) if each.point == point), None)
    estimate = found.estimates.get(what.estimate) if found and what.estimate else None
    if estimate is not None:
        together = " together" if len({row["line"] for row in rows}) > 1 else ""
        return f"{words.interval(estimate)}{unit}{together}"
    load = words.load(point)
    by_line: dict[str, list[Row]] = {}
    for row in rows:
        inside = row["phase"] == STEADY and row["load"] == load
        by_line.setdefault(row["line"], []).extend([row] if inside else [])
    means = {line: _mean(inside) for line, inside in by_line.items()}
    if len(means) == 1:
        return "".join(means.values()) + unit
    return ", ".join(f"{line} {mean}{unit}" for line, mean in means.items())


def _mean(rows: Sequence[Row]) -> str:
    seconds = [row["until_s"] - row["from_s"] for row in rows]
    total = sum(row["mean"] * each for row, each in zip(rows, seconds, strict=True))
    return words.significant(total / sum(seconds)) if rows else words.NA


def _notes(parts: list[Span], lines: list[Trace], rows: Sequence[Row], enveloped: bool) -> Iterator[str]:
    yield "shaded: the steady windows, which the figures are of; what passed between windows is left out"
    if len({part.window.engine_start for part in parts}) > 1:
        yield "upright lines: the engine was started anew"
    never = sorted({part.window.index for part in parts if part.phase == NEVER})
    if never:
        yield f"never steady: window {loads.joined([str(index) for index in never])}"
    if enveloped:
        width = words.significant(float(lines[0].bins.width_s.mean()), 2)
        yield f"line: mean of each {width} s; band: its lowest and highest sample"
    held = [row["held_back_by"] for row in rows if row["held_back_by"]]
    if held:
        reasons = loads.joined(sorted({each for text in held for each in text.split(", ")}))
        share = len(held) / len(rows)
        yield f"marks at the foot: clocks held back by {reasons}, in {share:.0%} of the points"
