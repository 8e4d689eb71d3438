"""How near a run came to what its machine can do: each load under the roofline, and as shares of ceilings.

The roofline is Williams, Waterman and Patterson's (CACM 52(4), 2009): operations a second against operations
a byte read, below the lines of full bandwidth and of the full matrix rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from profiler import utilisation
from profiler.charts import loads
from profiler.charts.decades import amounts
from profiler.charts.encoding import MODEL, NUMBER, SHARE, by_load, of_model, tooltip
from profiler.charts.nouns import Absent, Chart, Column, Row
from profiler.charts.words import interval, load, model, one_line, significant, slug
from profiler.errors import InputError
from profiler.figures import NOTE_SEPARATOR, Figures
from profiler.schema import Estimate
from profiler.store import RunResult
from profiler.utilisation import Ceilings

TERA = 1e12
CEILING, MEASURED = "ceiling", "measured"


def of_run(run: RunResult) -> tuple[Chart | Absent, ...]:
    """Both need the machine's ceilings: without them, why."""
    found = loads.measured(run)
    known = [each for each in found if each.estimates.get("s_mbu_frac")]
    titles = {
        f"roofline-{slug(run.folder.name)}": f"Under the roofline: {model(run)}",
        f"utilisation-{slug(run.folder.name)}": f"Shares of the machine's ceilings: {model(run)}",
    }
    try:
        top = utilisation.ceilings(run)
    except InputError as error:
        return _absent(titles, one_line(str(error)))
    if not known:
        return _absent(titles, _why(found))
    under, shares = titles.items()
    return _roofline(run, known, top, *under), _shares(run, known, top, *shares)


def _absent(titles: dict[str, str], why: str) -> tuple[Absent, ...]:
    return tuple(Absent(id=name, title=title, reason=why) for name, title in titles.items())


def _why(found: Sequence[Figures]) -> str:
    """What the figures say of it themselves."""
    notes = [note for each in found for note in (each.facts["notes"] or "").split(NOTE_SEPARATOR)]
    return next(
        (one_line(note) for note in notes if note.startswith("utilisation n/a")), "no load was steady"
    )


# ------------------------------------------------------------------------------------------ roofline

ROOFLINE = (
    MODEL,
    Column(name="kind", label="line or load"),
    Column(name="load", label="load"),
    Column(name="flops_per_byte", label="operations a byte read", unit="FLOP/byte"),
    Column(name="tflops", label="operations", unit="TFLOP/s"),
    Column(name="low", label="95 % interval from", unit="TFLOP/s"),
    Column(name="high", label="95 % interval to", unit="TFLOP/s"),
    Column(name="ceiling_tflops", label="ceiling there", unit="TFLOP/s"),
    Column(name="share", label="share of the ceiling there"),
)


def _roofline(run: RunResult, known: Sequence[Figures], top: Ceilings, name: str, title: str) -> Chart:
    points = [_under(each, top) for each in known]
    rows = (*_lines(points, top), *points)
    ridge = top.flops_per_s / top.bytes_per_s
    told = [
        f"at {row['load']} {significant(row['tflops'])} TFLOP/s at {significant(row['flops_per_byte'])} "
        f"FLOP/byte, {row['share']:.0%} of the ceiling there"
        for row in points
    ]
    return Chart(
        id=name,
        title=title,
        summary=f"Operations a second over operations a byte read, by load: {'; '.join(told)}. Ceilings: "
        f"{' and '.join(_names(top))}, which meet at {significant(ridge)} FLOP/byte. "
        f"{loads.held(run.manifest.windows)}.",
        columns=ROOFLINE,
        rows=rows,
        spec=_roofline_spec(rows, top, model(run)),
        height=320,
        notes=(*_source(top), *loads.caveats([run])),
    )


def _under(found: Figures, top: Ceilings) -> Row:
    """Experts that tokens went to, and no others, are read and worked on."""
    worked, moved = found.estimates["s_mfu_frac"], found.estimates["s_mbu_frac"]
    flops_per_byte = worked.value * top.flops_per_s / (moved.value * top.bytes_per_s)
    rate = top.flops_per_s / TERA
    ceiling = min(top.flops_per_s, flops_per_byte * top.bytes_per_s) / TERA
    return {
        "model": one_line(found.model),
        "kind": MEASURED,
        "load": load(found.point),
        "flops_per_byte": flops_per_byte,
        "tflops": worked.value * rate,
        "low": None if worked.low is None else worked.low * rate,
        "high": None if worked.high is None else worked.high * rate,
        "ceiling_tflops": ceiling,
        "share": worked.value * rate / ceiling,
    }


def _lines(points: Sequence[Row], top: Ceilings) -> Iterator[Row]:
    """From left of all loads over the ridge to its right."""
    ridge = top.flops_per_s / top.bytes_per_s
    least = min(*(row["flops_per_byte"] for row in points), ridge)
    most = max(*(row["flops_per_byte"] for row in points), ridge)
    for at in (least / 2, ridge, most * 4):
        ceiling = min(top.flops_per_s, at * top.bytes_per_s) / TERA
        row = dict.fromkeys(column.name for column in ROOFLINE)
        yield row | {"kind": CEILING, "flops_per_byte": at, "tflops": ceiling, "ceiling_tflops": ceiling}


def _source(top: Ceilings) -> tuple[str, ...]:
    return f"ceilings {top.source}", "bytes: weights of the experts touched, and the cache; no activations"


def _names(top: Ceilings) -> tuple[str, str]:
    return f"{significant(top.bytes_per_s / 1e9)} GB/s", f"{significant(top.flops_per_s / TERA)} TFLOP/s"


def _roofline_spec(rows: Sequence[Row], top: Ceilings, name: str) -> dict[str, Any]:
    x = {
        "field": "flops_per_byte",
        "type": "quantitative",
        "title": "operations a byte read, FLOP/byte",
        **amounts([row["flops_per_byte"] for row in rows]),
    }
    ends = [row[end] for row in rows for end in ("low", "high")]
    y = {
        "field": "tflops",
        "type": "quantitative",
        "title": "TFLOP/s",
        **amounts([row["tflops"] for row in rows], ends),
    }
    numbers = {"flops_per_byte": NUMBER, "tflops": NUMBER, "ceiling_tflops": NUMBER, "share": SHARE}
    return {
        "encoding": {"x": x, "y": y},
        "layer": [
            _ceiling({"type": "line", "style": "reference", "strokeWidth": 1.5}),
            *(_named(place, words) for place, words in enumerate(_names(top), start=2)),
            {
                "transform": [{"filter": f"datum.kind == '{MEASURED}'"}],
                "encoding": {"tooltip": tooltip(ROOFLINE, "load", **numbers)},
                "layer": _measured(y, name),
            },
        ],
    }


def _ceiling(mark: dict[str, Any], *kept: dict[str, Any]) -> dict[str, Any]:
    return {"transform": [{"filter": f"datum.kind == '{CEILING}'"}, *kept], "mark": mark}


def _named(place: int, words: str) -> dict[str, Any]:
    """Left of the ridge along the line of the bandwidth, and at the end of the other."""
    ranked = {"window": [{"op": "row_number", "as": "place"}], "sort": [{"field": "flops_per_byte"}]}
    look = {"dx": -22, "dy": 4} if place == 2 else {"dy": -9}
    mark = {"type": "text", "style": "reference-label", "align": "right", "text": words, **look}
    return _ceiling(mark, ranked, {"filter": f"datum.place == {place}"})


def _measured(y: dict[str, Any], name: str) -> list[dict[str, Any]]:
    colour = {"color": of_model(name)}
    whisker = {"y": y | {"field": "low"}, "y2": {"field": "high"}, **colour}
    words = {"type": "text", "style": "label", "align": "left", "baseline": "top", "dx": 6, "dy": 5}
    return [
        {
            "mark": {"type": "line", "strokeWidth": 1.25},
            "encoding": {"order": {"field": "flops_per_byte", "type": "quantitative"}, **colour},
        },
        {"mark": {"type": "rule", "style": "whisker"}, "encoding": whisker},
        {"mark": {"type": "point"}, "encoding": colour},
        {"mark": words, "encoding": {"text": {"field": "load"}}},
    ]


# ------------------------------------------------------------------------------------------ shares

MEASURES = {
    "ceiling_frac": "tokens/s, of the ceiling at this load",
    "mbu_frac": "MBU, bandwidth",
    "s_mbu_frac": "S-MBU",
    "mfu_frac": "MFU, matrix rate",
    "s_mfu_frac": "S-MFU",
}
_ALL = (MEASURES["mbu_frac"], MEASURES["mfu_frac"])
SHARES = (
    Column(name="load", label="load"),
    Column(name="measure", label="measure"),
    Column(name="share", label="share of the ceiling"),
    Column(name="low", label="95 % interval from"),
    Column(name="high", label="95 % interval to"),
    Column(name="n", label="n"),
    Column(name="over", label="interval over"),
    Column(name="bound_by", label="bound by"),
)


def _shares(run: RunResult, known: Sequence[Figures], top: Ceilings, name: str, title: str) -> Chart:
    measures = MEASURES if any(each.facts["kind"] == "moe" for each in known) else _of_dense()
    rows = tuple(
        _share(each, words, each.estimates[measure])
        for measure, words in measures.items()
        for each in known
        if measure in each.estimates
    )
    told = [f"{words}: {_by_load(known, measure)}" for measure, words in measures.items()]
    bounds = "; ".join(f"{each.facts['ceiling_bound_by']} at {load(each.point)}" for each in known)
    return Chart(
        id=name,
        title=title,
        summary=f"{'. '.join(told)}. The ceiling is set by: {bounds}. {loads.held(run.manifest.windows)}, "
        "95 % intervals of the token rate.",
        columns=SHARES,
        rows=rows,
        spec=_shares_spec(known, rows, list(measures.values())),
        height=280,
        notes=tuple(_shares_notes(known, rows, top)),
    )


def _of_dense() -> dict[str, str]:
    """Without experts the S-measures are the others."""
    return {name: words for name, words in MEASURES.items() if not name.startswith("s_")}


def _share(found: Figures, measure: str, share: Estimate) -> Row:
    return {
        "load": load(found.point),
        "measure": measure,
        "share": share.value,
        "low": share.low,
        "high": share.high,
        "n": share.n,
        "over": share.over,
        "bound_by": found.facts["ceiling_bound_by"],
    }


def _by_load(known: Sequence[Figures], measure: str) -> str:
    return ", ".join(
        f"{interval(each.estimates[measure], 100)} % at {load(each.point)}"
        for each in known
        if measure in each.estimates
    )


def _shares_notes(known: Sequence[Figures], rows: Sequence[Row], top: Ceilings) -> Iterator[str]:
    if any(each.facts["kind"] == "moe" for each in known):
        yield "S-MBU and S-MFU count the experts that tokens went to, MBU and MFU all of them"
        if any(row["measure"] in _ALL and row["share"] > 1 for row in rows):
            yield "above 100 %: more than the machine could do, had every expert been read or worked on"
    yield f"ceilings {top.source}"
    if any(row["low"] is None for row in rows):
        yield "no interval where one window was held"
    notes = dict.fromkeys(n for each in known for n in (each.facts["notes"] or "").split(NOTE_SEPARATOR))
    yield from (note for note in notes if "above 1:" in note or "coverage is modelled" in note)


def _shares_spec(known: Sequence[Figures], rows: Sequence[Row], measures: Sequence[str]) -> dict[str, Any]:
    found = amounts(
        [1.0, *(row["share"] for row in rows)], [row[end] for row in rows for end in ("low", "high")]
    )
    y = {"field": "share", "type": "quantitative", "title": "share of the ceiling", **found}
    y["axis"] |= {"format": "~%"}
    look = {"field": "measure", "type": "nominal", "scale": {"domain": list(measures)}}
    numbers = {"share": ".3~p", "low": ".3~p", "high": ".3~p"}
    tips = tooltip(SHARES, "measure", "load", **numbers) + tooltip(SHARES, "bound_by")
    whisker = {"y": y | {"field": "low"}, "y2": {"field": "high"}}
    edge = {"data": {"values": [{}]}, "mark": {"type": "rule", "style": "reference"}}
    return {
        "layer": [
            {
                "encoding": {"x": by_load([each.point for each in known]), "color": look, "tooltip": tips},
                "layer": [
                    {"mark": {"type": "line", "strokeWidth": 1.5}, "encoding": {"y": y}},
                    {"mark": {"type": "rule", "style": "whisker"}, "encoding": whisker},
                    {"mark": {"type": "point"}, "encoding": {"y": y, "shape": look}},
                ],
            },
            edge | {"encoding": {"y": {"datum": 1, "type": "quantitative"}}},
        ],
    }
