"""How the latencies of a run are distributed, load by load: the share of requests (of ITL: of gaps) that were
no slower, on a scale on which a normal distribution is a straight line, so that both tails can be read.

A curve pools the requests of all windows of a load; the points on it are the figures of the tables, with the
intervals they have there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from profiler import levels
from profiler.charts import decades, loads, words
from profiler.charts.encoding import NUMBER, tooltip
from profiler.charts.latency import NAMES, seconds
from profiler.charts.nouns import Absent, Chart, Column, Row
from profiler.charts.theme import colours
from profiler.figures import Figures
from profiler.metrics import QUANTILES
from profiler.schema import LoadPoint
from profiler.store import RunResult
from profiler.windows import LATENCIES, WindowView, latency_samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MARKED = ("p50", "p90", "p99")
# Shares that the axis names, and how finely a curve is drawn between them.
SHARES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999)
FROM_SHARE, MOST_Z, STEP_Z = 0.01, 3.75, 0.15
DIGITS = 6
HEIGHT_PX = 320


class Sample(NamedTuple):
    """What was seen at one load: the latencies in ascending order, of ``windows`` steady windows; ``zeros``:
    the share of them that is 0, tokens that came together with the one before."""

    point: LoadPoint
    figures: Figures
    values_s: Floats
    windows: int
    zeros: float


def of_run(run: RunResult) -> tuple[Chart | Absent, ...]:
    """A figure a latency."""
    views: dict[LoadPoint, list[WindowView]] = {}
    for window in run.manifest.windows:
        views.setdefault(window.point, []).append(WindowView(window, run.requests))
    measured = [each for each in loads.measured(run) if each.point in views]
    measured.sort(key=lambda each: levels.load_of(each.point))
    timed = run.manifest.imported is None or run.manifest.imported.gaps_known
    return tuple(
        _figure(run, name, measured, views if timed or name != "itl_s" else {}) for name in LATENCIES
    )


def _figure(
    run: RunResult, latency: str, measured: Sequence[Figures], views: dict[LoadPoint, list[WindowView]]
) -> Chart | Absent:
    short = NAMES[latency][0]
    key, title = f"{short.lower()}-{words.slug(run.folder.name)}", f"Distribution of {short}"
    seen = (_sample(each, latency, views.get(each.point, [])) for each in measured)
    samples = [each for each in seen if each]
    if all(each.zeros == 1 for each in samples):
        return Absent(id=key, title=title, reason=_why(run, latency, views))
    columns = _columns(short)
    found = [row for place, each in enumerate(samples) for row in _rows(run, latency, place, each)]
    rows = tuple({each.name: row.get(each.name) for each in columns} for row in found)
    return Chart(
        id=key,
        title=f"{title}: {words.short(words.model(run))}",
        summary=_summary(run, latency, samples),
        columns=columns,
        rows=rows,
        spec=_spec(run, latency, samples, rows),
        height=HEIGHT_PX,
        notes=(*_notes(latency, samples), *loads.caveats([run])),
    )


def _why(run: RunResult, latency: str, views: dict[LoadPoint, list[WindowView]]) -> str:
    every = [view for held in views.values() for view in held]
    told = run.manifest.imported
    if told is not None and not every:
        return f"{words.one_line(told.by)} keeps no {NAMES[latency][1]} of each request"
    steady = [view for view in every if view.span_s is not None]
    if not steady:
        return "no window became steady"
    if not any(view.measured.any() for view in steady):
        return "no request of a steady window ended well"
    many = any((view["output_tokens"][view.measured] > 1).any() for view in steady)
    return "all tokens of an answer came at once" if many else "no answer was longer than one token"


def _sample(found: Figures, latency: str, views: Sequence[WindowView]) -> Sample | None:
    """None where nothing was seen."""
    import numpy as np

    steady = [view for view in views if view.span_s is not None]
    values = np.sort(np.concatenate([np.array([]), *(latency_samples(view, latency) for view in steady)]))
    if not len(values):
        return None
    zeros = int(np.searchsorted(values, 0.0, side="right"))
    return Sample(found.point, found, values, len(steady), zeros / len(values))


# --------------------------------------------------------------------------------------------- rows


def _columns(short: str) -> tuple[Column, ...]:
    return (
        Column(name="part", label="part"),
        Column(name="model", label="model"),
        Column(name="load", label="load"),
        Column(name="place", label="place of the load"),
        Column(name="statistic", label="statistic"),
        Column(name="share", label="share no slower"),
        Column(name="z", label="its normal quantile"),
        Column(name="latency_s", label=short, unit="s"),
        Column(name="latency_s_low", label=f"{short}, low", unit="s"),
        Column(name="latency_s_high", label=f"{short}, high", unit="s"),
        Column(name="n", label="n"),
    )


def _rows(run: RunResult, latency: str, place: int, sample: Sample) -> Iterator[Row]:
    """The curve, then the figures on it."""
    own = {"model": words.model(run), "load": words.load(sample.point), "place": place}
    n = len(sample.values_s)
    for share, z, value_s in _curve(sample.values_s):
        yield {"part": "curve", **own, "share": share, "z": z, "latency_s": value_s, "n": n}
    for statistic in MARKED:
        found = sample.figures.estimates.get(f"{latency}_{statistic}")
        if found is None:
            continue
        share = QUANTILES[statistic]
        at = {"statistic": statistic, "share": share, "z": round(_z(share), 4)}
        ends = {"latency_s_low": found.low, "latency_s_high": found.high}
        yield {"part": "figure", **own, **at, "latency_s": found.value, **ends, "n": found.n}


def _curve(values_s: Floats) -> Iterator[tuple[float, float, float]]:
    """Share, normal quantile and latency, up to the slowest: the k-th of n stands at (k − ½)/n (Hazen 1914),
    straight lines between.  Of the fast end the last hundredth is left out."""
    import numpy as np
    from scipy.special import ndtr

    n = len(values_s)
    least, most = _z(max(FROM_SHARE, 0.5 / n)), min(MOST_Z, -_z(0.5 / n))
    between = np.arange(np.ceil(least / STEP_Z), np.floor(most / STEP_Z) + 1) * STEP_Z
    z = np.unique(np.concatenate([[least], between, [most]]))
    share = ndtr(z)
    seen = np.quantile(values_s, share, method="hazen")
    for row in zip(share.tolist(), z.tolist(), seen.tolist(), strict=True):
        yield _rounded(row[0]), round(row[1], 4), _rounded(row[2])


def _z(share: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(share))


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


# -------------------------------------------------------------------------------------------- drawing


def _spec(run: RunResult, latency: str, samples: Sequence[Sample], rows: Sequence[Row]) -> dict[str, Any]:
    short, long = NAMES[latency]
    columns = _columns(short)
    ends = [row.get(f"latency_s_{end}") for row in rows for end in ("low", "high")]
    axis = decades.times([row["latency_s"] for row in rows if row["latency_s"] > 0], ends)
    x = {"field": "latency_s", "type": "quantitative", "title": f"{short}, {long}", **axis}
    positive = {"filter": "datum.latency_s > 0"}  # a logarithm has no 0: their share is in the notes
    curve, figure = ({"filter": f"datum.part === '{part}'"} for part in ("curve", "figure"))
    colour = {"field": "model", "type": "nominal", "legend": None} | colours([words.model(run)])
    scale = {"domain": [0, max(1, len(samples) - 1)], "range": [0.5, 1]}
    faint = {"field": "place", "type": "quantitative", "scale": scale, "legend": None}
    who = {"color": colour, "opacity": faint}
    whisker = {"x": x | {"field": "latency_s_low"}, "x2": {"field": "latency_s_high"}}
    bounded = {"filter": "isValid(datum.latency_s_low) && isValid(datum.latency_s_high)"}
    told = tooltip(columns, "load", "statistic", "n", share=".4~p", latency_s=NUMBER)
    top = {"aggregate": [{"op": "argmax", "field": "z", "as": "end"}], "groupby": ["load"]}
    label = {
        "text": {"field": "load"},
        "x": x | {"field": "end['latency_s']"},
        "y": _y(rows) | {"field": "end['z']"},
    }
    return {
        "encoding": {"x": x, "y": _y(rows)},
        "layer": [
            {
                "transform": [curve, positive],
                "mark": {"type": "line", "strokeWidth": 1.75},
                "encoding": who | {"detail": {"field": "load"}, "order": {"field": "z"}},
            },
            {
                "transform": [figure, positive, bounded],
                "mark": {"type": "rule", "strokeWidth": 6, "opacity": 0.2, "clip": True},
                "encoding": {"color": colour} | whisker,
            },
            {
                "transform": [figure, positive],
                "mark": {"type": "point", "filled": True, "size": 45},
                "encoding": who | {"tooltip": told},
            },
            {
                "transform": [curve, positive, top],
                "mark": {"type": "text", "style": "note", "baseline": "bottom", "dy": -5},
                "encoding": label,
            },
        ],
    }


def _y(rows: Sequence[Row]) -> dict[str, Any]:
    """Shares at their normal quantiles, as far as the longest curve reaches."""
    most = max(_z(0.99), *(row["z"] for row in rows)) + 0.02
    named = [share for share in SHARES if _z(share) <= most]
    at = [round(_z(share), 4) for share in named]
    texts = [f"{share * 100:.6g} %" for share in named]
    return {
        "field": "z",
        "type": "quantitative",
        "title": "share that is no slower",
        "scale": {"domain": [_z(FROM_SHARE), most], "nice": False, "zero": False},
        "axis": {"values": at, "labelExpr": f"{texts}[indexof({at}, datum.value)]", "titleY": -22},
    }


# -------------------------------------------------------------------------------------------- words


def _summary(run: RunResult, latency: str, samples: Sequence[Sample]) -> str:
    axis = loads.axis([each.point for each in samples])
    said = "; ".join(_told(latency, each) for each in samples)
    return f"{NAMES[latency][0]} of {words.model(run)} by load ({axis}): {said}."


def _told(latency: str, sample: Sample) -> str:
    found = {name: sample.figures.estimates.get(f"{latency}_{name}") for name in MARKED}
    figures = [f"{name} {seconds(each) if each else words.NA}" for name, each in found.items()]
    n = f"{len(sample.values_s):,} {_of(latency)} in {loads.count(sample.windows, 'window')}"
    return f"at {words.load(sample.point)}: {', '.join(figures)} ({n})"


def _of(latency: str) -> str:
    return "gaps" if latency == "itl_s" else "requests"


def _notes(latency: str, samples: Sequence[Sample]) -> Iterator[str]:
    counts = [len(each.values_s) for each in samples]
    least, most = min(counts), max(counts)
    n = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    yield f"n: {n} {_of(latency)} a load; a curve ends where so many tell no more"
    yield f"beside the curves: {loads.axis([each.point for each in samples])}; the fainter the fewer"
    found = [each.figures.estimates.get(f"{latency}_{name}") for each in samples for name in MARKED]
    bounded = [each for each in found if each is not None and each.low is not None and each.high is not None]
    over = loads.joined(list(dict.fromkeys(f"{each.over}" for each in bounded)))
    bars = f"; bars: 95 % intervals over {over}" if over else ""
    yield f"points: {', '.join(MARKED)} as in the tables, over windows, so beside the curve of all{bars}"
    if len(bounded) < len(found):
        yield "no bar: one window of gaps, which are not independent, or too few requests to bound it"
    zeros = {words.load(each.point): each.zeros for each in samples if each.zeros}
    if zeros:
        said = ", ".join(f"{share:.1%} at {load}" for load, share in zeros.items())
        yield f"not drawn: gaps of 0, tokens that came together ({said})"
