"""The memory of several runs beside each other: what a model holds, whatever a step of it reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from profiler import alike, memory
from profiler.charts.encoding import BAR, NUMBER, SHARE, tooltip
from profiler.charts.loads import caveats, count
from profiler.charts.memory_use import GIB, gib
from profiler.charts.nouns import Absent, Chart, Column
from profiler.charts.nouns import Row as Drawn
from profiler.charts.words import model, one_line
from profiler.memory import MemoryAccount, Row
from profiler.store import RunResult

NAME, TITLE = "memories", "What each model holds in memory"
EXPERTS, OTHER = "routed experts", "other weights"
# In the order of the theme's colours; what nobody holds has none.
GROUPS = {
    EXPERTS: EXPERTS,
    OTHER: OTHER,
    "weights": OTHER,
    "KV cache": "KV cache",
    "activation peak": "activations and graphs",
    "CUDA graphs": "activations and graphs",
    "torch's allocator beside these": "runtime and allocator",
    "CUDA context and other": "runtime and allocator",
    "runtime": "runtime and allocator",
    "other programs": "other programs, driver",
    "reserved by the driver": "other programs, driver",
}
NOBODYS = ("free", memory.REMAINDER)
COLUMNS = (
    Column(name="run", label="run"),
    Column(name="model", label="model"),
    Column(name="device", label="device"),
    Column(name="part", label="part"),
    Column(name="group", label="for"),
    Column(name="gib", label="size", unit="GiB"),
    Column(name="share", label="share of the device"),
    Column(name="from_gib", label="drawn from", unit="GiB"),
    Column(name="to_gib", label="drawn to", unit="GiB"),
    Column(name="device_gib", label="the device", unit="GiB"),
)


def of_accounts(found: Sequence[tuple[RunResult, MemoryAccount]]) -> Chart | Absent:
    """A bar a run, in their order; of those that say nothing why."""
    names = _names([run for run, _ in found])
    rows = [row for name, (run, held) in zip(names, found, strict=True) for row in _rows(name, run, held)]
    told = [row for row in rows if row["to_gib"] is not None and row["group"] not in NOBODYS]
    known = list(dict.fromkeys(row["run"] for row in told))
    if not known:
        return Absent(id=NAME, title=TITLE, reason="no engine of these runs says what it holds")
    silent = [name for name in names if name not in known]
    runs = [run for run, _ in found]
    return Chart(
        id=NAME,
        title=TITLE,
        summary=f"Memory of {count(len(known), 'run')}, by what it is for: "
        f"{'; '.join(_words(name, rows) for name in known)}. One account of each run.",
        columns=COLUMNS,
        rows=tuple(rows),
        spec=_spec(rows, known),
        height=34 * len(known) + 8,
        notes=(
            "grey: free, or not explained",
            "the line ends the device, or on a CPU the engine's processes",
            *(f"{name}: n/a, the engine does not say what it holds" for name in silent),
            *caveats(runs),
        ),
    )


def _names(runs: Sequence[RunResult]) -> list[str]:
    """By model, and by folder where that is not enough."""
    often = Counter(model(run) for run in runs)
    return [
        model(run) if often[model(run)] == 1 else f"{model(run)}, {one_line(run.folder.name)}" for run in runs
    ]


def _rows(name: str, run: RunResult, held: MemoryAccount) -> Iterator[Drawn]:
    at, total = 0.0, held.total_bytes
    boards = alike.gpu_name(run)
    for row in _parts(held):
        size = None if row.bytes is None else row.bytes / GIB
        drawn = size is not None and size > 0
        yield {
            "run": name,
            "model": model(run),
            "device": f"{alike.gpus(run)} × {one_line(boards)}" if boards else held.device,
            "part": row.name,
            "group": GROUPS.get(row.name, row.name),
            "gib": size,
            "share": None if row.bytes is None or not total else row.bytes / total,
            "from_gib": at if drawn else None,
            "to_gib": at + (size or 0.0) if drawn else None,
            "device_gib": total / GIB if total else None,
        }
        at += max(0.0, size or 0.0)


def _parts(held: MemoryAccount) -> Iterator[Row]:
    """The account, its weights told apart where they are a MoE's."""
    routed = held.bytes_of(EXPERTS)
    for row in held.rows:
        if row.name == "weights" and row.bytes is not None and routed:
            yield Row(name=EXPERTS, bytes=routed, known=row.known)
            yield Row(name=OTHER, bytes=row.bytes - routed, known=row.known)
        elif row.part_of is None:
            yield row


def _words(name: str, rows: Sequence[Drawn]) -> str:
    own = [row for row in rows if row["run"] == name]
    parts = [f"{row['part']} {gib(row['gib'] * GIB)}" for row in own if row["gib"]]
    total = own[0]["device_gib"]
    whole = f" of {gib(total * GIB)} ({own[0]['device']})" if total else ""
    return f"{name}{whole}: {', '.join(parts)}"


def _spec(rows: Sequence[Drawn], known: Sequence[str]) -> dict[str, Any]:
    groups = [each for each in dict.fromkeys(GROUPS.values()) if any(row["group"] == each for row in rows)]
    look = {"field": "group", "type": "nominal", "scale": {"domain": groups}}
    x = {
        "field": "from_gib",
        "type": "quantitative",
        "title": "GiB",
        "scale": {"nice": False},
        "axis": {"tickCount": {"expr": "max(3, width / 90)"}},
    }
    y = {"field": "run", "type": "ordinal", "sort": list(known), "title": None, "axis": {"labelLimit": 140}}
    owned = f"indexof({list(NOBODYS)}, datum.group) < 0"
    bars = {"x": x, "x2": {"field": "to_gib"}}
    tips = tooltip(COLUMNS, "run", "device", "part", gib=NUMBER, share=SHARE)
    edge = {"x": x | {"field": "device_gib"}}
    return {
        "transform": [
            {"filter": "isValid(datum.to_gib)"},
            {"filter": {"field": "run", "oneOf": list(known)}},
        ],
        "encoding": {"y": y, "tooltip": tips},
        "layer": [
            {
                "transform": [{"filter": owned}],
                "mark": BAR,
                "encoding": bars | {"fill": look, "stroke": look},
            },
            {
                "transform": [{"filter": f"!({owned})"}],
                "mark": {"type": "bar", "style": "shade", "cornerRadius": 2},
                "encoding": bars,
            },
            {
                "mark": {"type": "tick", "style": "reference", "thickness": 2, "bandSize": 34},
                "encoding": edge,
            },
        ],
    }
