"""What each load used of the memory that is held: of the KV cache, and of a MoE's experts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from profiler.charts import loads
from profiler.charts.decades import amounts
from profiler.charts.encoding import BAR, MODEL, NUMBER, SHARE, by_load, of_model, tooltip
from profiler.charts.nouns import Absent, Chart, Column, Row
from profiler.charts.words import NA, load, model, significant, slug
from profiler.memory import MemoryAccount, Use
from profiler.schema import LoadPoint
from profiler.store import RunResult

GIB = 1 << 30


def gib(size: float | None) -> str:
    """Bytes in words."""
    return NA if size is None else f"{significant(size / GIB)} GiB"


def of_account(run: RunResult, found: MemoryAccount) -> Iterator[Chart | Absent]:
    """The cache, and the experts of a MoE."""
    yield _cache(run, found)
    if chart := _experts(run, found):
        yield chart


# ------------------------------------------------------------------------------------------ the cache

CACHE = (
    MODEL,
    Column(name="load", label="load"),
    Column(name="mean_gib", label="in use, mean", unit="GiB"),
    Column(name="most_gib", label="in use, highest", unit="GiB"),
    Column(name="cache_gib", label="the whole cache", unit="GiB"),
    Column(name="required_gib", label="required by this load in all", unit="GiB"),
    Column(name="running", label="running requests, mean"),
)


def _cache(run: RunResult, found: MemoryAccount) -> Chart | Absent:
    name, title = f"memory-use-{slug(run.folder.name)}", f"KV cache in use by load: {model(run)}"
    whole = run.manifest.memory.kv_bytes
    if not whole:
        return Absent(id=name, title=title, reason="the engine does not say how large its cache is")
    if not any(use.kv_max_bytes for use in found.uses):
        return Absent(id=name, title=title, reason="no sample of the engine's shows any in use")
    told = [
        f"at {load(use.point)} {gib(use.kv_mean_bytes)} on average, {gib(use.kv_max_bytes)} at most"
        for use in found.uses
    ]
    room = f", which has room for {found.kv_tokens:,} tokens" if found.kv_tokens else ""
    return Chart(
        id=name,
        title=title,
        summary=f"Memory that held tokens, of a cache of {gib(whole)}{room}: {'; '.join(told)}. "
        f"Samples in the steady stretches of {loads.held(run.manifest.windows)}.",
        columns=CACHE,
        rows=tuple(_cache_row(use, whole, model(run)) for use in found.uses),
        spec=_cache_spec(found.uses, whole, model(run)),
        height=240,
        notes=("dot: mean of the samples, dash: the highest; no interval",),
    )


def _cache_row(use: Use, whole: int, name: str) -> Row:
    sizes = {
        "mean": use.kv_mean_bytes,
        "most": use.kv_max_bytes,
        "cache": whole,
        "required": use.required_bytes,
    }
    found = {f"{name}_gib": None if size is None else size / GIB for name, size in sizes.items()}
    return {"model": name, "load": load(use.point), **found, "running": use.batch}


def _cache_spec(uses: Sequence[Use], whole: int, name: str) -> dict[str, Any]:
    """Logarithmic: a cache takes what is left of a board, however little of it is used."""
    used = [use.kv_mean_bytes / GIB for use in uses if use.kv_mean_bytes]
    y = {
        "field": "mean_gib",
        "type": "quantitative",
        "title": "GiB in use",
    } | amounts([*used, whole / GIB])
    most = {"y": y | {"field": "most_gib"}}
    edge = {"y": {"datum": whole / GIB, "type": "quantitative"}, "tooltip": {"value": None}}
    numbers = dict.fromkeys(("mean_gib", "most_gib", "cache_gib", "required_gib", "running"), NUMBER)
    words = {"type": "text", "style": "reference-label", "align": "left", "baseline": "top", "x": 2, "dy": 5}
    return {
        "layer": [
            {
                "transform": [{"filter": "datum.mean_gib > 0"}],
                "encoding": {
                    "x": by_load([use.point for use in uses]),
                    "color": of_model(name),
                    "tooltip": tooltip(CACHE, "load", **numbers),
                },
                "layer": [
                    {"mark": {"type": "line"}, "encoding": {"y": y}},
                    {
                        "mark": {"type": "rule", "style": "whisker"},
                        "encoding": most | {"y2": {"field": "mean_gib"}},
                    },
                    {"mark": {"type": "tick", "width": 12, "thickness": 1.5}, "encoding": most},
                    {"mark": {"type": "point"}, "encoding": {"y": y}},
                ],
            },
            {"data": {"values": [{}]}, "mark": {"type": "rule", "style": "reference"}, "encoding": edge},
            {
                "data": {"values": [{}]},
                "mark": words | {"text": f"the whole cache, {gib(whole)}"},
                "encoding": edge,
            },
        ]
    }


# ------------------------------------------------------------------------------------------ experts

EXPERTS = (
    MODEL,
    Column(name="load", label="load"),
    Column(name="read_gib", label="experts read by a decode step", unit="GiB"),
    Column(name="held_gib", label="experts held", unit="GiB"),
    Column(name="share", label="share read"),
    Column(name="tokens", label="tokens of the step, mean"),
    Column(name="source", label="by"),
)
RECORDED = "the recorded routing"
UNIFORM = "uniform routing, computed: an upper bound, skewed routing reads fewer"


def _experts(run: RunResult, found: MemoryAccount) -> Chart | None:
    """None for a dense model, of which nobody expects it."""
    held = found.bytes_of("routed experts")
    rows = [row for use in found.uses if (row := _experts_row(use, held, model(run)))]
    if not rows:
        return None
    sources = list(dict.fromkeys(row["source"] for row in rows))
    told = [f"at {row['load']} {significant(row['read_gib'])} GiB ({row['share']:.0%})" for row in rows]
    return Chart(
        id=f"memory-experts-{slug(run.folder.name)}",
        title=f"Experts that a decode step reads: {model(run)}",
        summary=f"Of {gib(held)} of routed experts a decode step reads, by load: {'; '.join(told)}. "
        f"By {' and '.join(sources)}.",
        columns=EXPERTS,
        rows=tuple(rows),
        spec=_experts_spec([use.point for use in found.uses], model(run)),
        height=30 * len(rows) + 8,
        notes=(
            *(f"by {source}" for source in sources),
            "at the mean number of running requests; no interval",
        ),
    )


def _experts_row(use: Use, held: int | None, name: str) -> Row | None:
    recorded = use.idle_recorded_bytes is not None
    idle = use.idle_recorded_bytes if recorded else use.idle_uniform_bytes
    if idle is None or not held:
        return None
    return {
        "model": name,
        "load": load(use.point),
        "read_gib": (held - idle) / GIB,
        "held_gib": held / GIB,
        "share": 1 - idle / held,
        "tokens": use.batch,
        "source": RECORDED if recorded else UNIFORM,
    }


def _experts_spec(points: Sequence[LoadPoint], name: str) -> dict[str, Any]:
    x = {
        "field": "held_gib",
        "type": "quantitative",
        "title": "GiB",
        "axis": {"tickCount": {"expr": "max(3, width / 110)"}},
        "scale": {"nice": False},
    }
    read = x | {"field": "read_gib"}
    numbers = {"read_gib": NUMBER, "held_gib": NUMBER, "share": SHARE, "tokens": NUMBER}
    return {
        "encoding": {
            "y": by_load(points),
            "tooltip": [*tooltip(EXPERTS, "load", **numbers), *tooltip(EXPERTS, "source")],
        },
        "layer": [
            {"mark": {"type": "bar", "style": "shade"}, "encoding": {"x": x}},
            {"mark": BAR, "encoding": {"x": read, "fill": of_model(name), "stroke": of_model(name)}},
            _share("datum.share <= 0.9", {"align": "left", "dx": 6}, read),
            _share("datum.share > 0.9", {"align": "right", "dx": -6}, read),
        ],
    }


def _share(kept: str, look: dict[str, Any], read: dict[str, Any]) -> dict[str, Any]:
    """Beside the bar, or in it where there is no room beside."""
    return {
        "transform": [{"filter": kept}],
        "mark": {"type": "text", "style": "label", **look},
        "encoding": {"x": read, "text": {"field": "share", "format": ".0%"}},
    }
