"""Where the memory of a run went: its account side by side up to the device's size, parts below what they are
part of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from profiler import alike, memory
from profiler.charts import memories, memory_use
from profiler.charts.encoding import BAR, NUMBER, SHARE, tooltip
from profiler.charts.loads import caveats
from profiler.charts.memories import GROUPS, NOBODYS
from profiler.charts.memory_use import GIB, gib
from profiler.charts.nouns import Absent, Chart, Column
from profiler.charts.words import model, one_line, slug
from profiler.memory import MemoryAccount, Row
from profiler.store import RunResult

KNOWN = {"engine": "by the engine", "computed": "computed", "sampled": "sampled", None: ""}
COLUMNS = (
    Column(name="part", label="part"),
    Column(name="group", label="for"),
    Column(name="level", label="depth in the account"),
    Column(name="part_of", label="part of"),
    Column(name="gib", label="size", unit="GiB"),
    Column(name="share", label="share of the device"),
    Column(name="from_gib", label="drawn from", unit="GiB"),
    Column(name="to_gib", label="drawn to", unit="GiB"),
    Column(name="known", label="how it is known"),
    Column(name="note", label="note"),
)
LEVEL_PX = 54
LETTER_PX = 7.2
USUAL_PX = 700
LEAST_FRAC = 0.005  # parts of parts below it are a line, and take a row of their own
DRAWN = "isValid(datum.from_gib)"


class _Placed(NamedTuple):
    """A row of the account, and where it is drawn; nowhere where its size is unknown or not above 0."""

    row: Row
    level: int
    group: str
    start: float | None
    end: float | None


def of_runs(runs: Sequence[RunResult]) -> tuple[Chart | Absent, ...]:
    """Of several runs what each holds, beside each other; of one all that :func:`of_run` shows."""
    if len(runs) == 1:
        return of_run(runs[0])
    return (memories.of_accounts([(run, memory.account(run)) for run in runs]),) if runs else ()


def of_run(run: RunResult) -> tuple[Chart | Absent, ...]:
    """The account, the cache in use by load, and the experts of a MoE that a step reads.

    Raises InputError where the recorded routing is damaged.
    """
    found = memory.account(run)
    return (_account(run, found), *memory_use.of_account(run, found))


def _account(run: RunResult, found: MemoryAccount) -> Chart | Absent:
    boards = f"{alike.gpus(run)} × {one_line(alike.gpu_name(run) or 'GPU')}"
    device = boards if run.manifest.engine.gpus else found.device
    name, title = f"memory-{slug(run.folder.name)}", f"Memory of {device}: {model(run)}"
    placed = list(_placed([*found.rows, *_held(found)]))
    most = _most(placed, found.total_bytes)
    drawn = [each for each in placed if _width(each) > (LEAST_FRAC * most if each.level > 1 else 0)]
    if all(each.group in NOBODYS for each in drawn):
        used = f"; its processes had {gib(found.total_bytes)}" if found.total_bytes else ""
        return Absent(id=name, title=title, reason=f"the engine does not say what it holds{used}")
    return Chart(
        id=name,
        title=title,
        summary=_summary(found),
        columns=COLUMNS,
        rows=tuple(_row(each, found.total_bytes) for each in placed),
        spec=_spec(drawn, found.total_bytes),
        height=LEVEL_PX * (1 + max(each.level for each in drawn)),
        notes=(*_nameless(drawn, found.total_bytes), *_notes(found), *caveats([run])),
    )


def _held(found: MemoryAccount) -> Iterator[Row]:
    """Of the cache, the part that ever held tokens."""
    used = [use.kv_max_bytes for use in found.uses if use.kv_max_bytes is not None]
    if used and found.bytes_of("KV cache"):
        note = "the highest sample of all loads"
        yield Row(name="held tokens", bytes=max(used), known="sampled", part_of="KV cache", note=note)


def _placed(rows: Sequence[Row]) -> Iterator[_Placed]:
    """Side by side; a part begins where what it is part of does, or where the part before it ends."""
    above: dict[str | None, _Placed] = {}
    ends: dict[str | None, float] = {}
    for row in rows:
        parent = above.get(row.part_of)
        start = ends.get(row.part_of, parent.start if parent else 0.0)
        known = row.bytes is not None and row.bytes > 0 and start is not None
        end = start + (row.bytes or 0) / GIB if known and start is not None else None
        above[row.name] = _Placed(
            row=row,
            level=parent.level + 1 if parent else 0,
            group=parent.group if parent else _group(row.name),
            start=start if known else None,
            end=end,
        )
        if end is not None:
            ends[row.part_of] = end
        yield above[row.name]


def _group(name: str) -> str:
    return name if name == "weights" else GROUPS.get(name, name)


def _row(each: _Placed, total: int | None) -> dict[str, Any]:
    size = each.row.bytes
    return {
        "part": each.row.name,
        "group": each.group,
        "level": each.level,
        "part_of": each.row.part_of,
        "gib": None if size is None else size / GIB,
        "share": None if size is None or not total else size / total,
        "from_gib": each.start,
        "to_gib": each.end,
        "known": KNOWN[each.row.known],
        "note": each.row.note,
    }


def _summary(found: MemoryAccount) -> str:
    held = [f"{row.name} {gib(row.bytes)}" for row in found.rows if row.part_of is None and row.bytes]
    inside = [f"{row.name} {gib(row.bytes)}" for row in found.rows if row.part_of and row.bytes]
    unknown = [row.name for row in found.rows if row.bytes is None]
    whole = f"{gib(found.total_bytes)} of {found.device}" if found.total_bytes else found.device
    told = [
        f"Where memory went, of {whole}: {', '.join(held)}.",
        f"Parts: {', '.join(inside)}." if inside else "",
        f"Not known: {', '.join(unknown)}." if unknown else "",
        "One account of the run: the engine's own at its end, samples at the moment of the highest use.",
    ]
    return " ".join(filter(None, told))


def _notes(found: MemoryAccount) -> Iterator[str]:
    if found.total_bytes is None:
        yield "memory in use was not sampled: how much of the device is left is not known"
    else:
        yield (
            "one account of the whole run, at the moment when most was in use: no interval; grey is what no "
            "named part explains, or nobody uses"
        )
    for row in found.rows:
        if row.bytes is None and row.part_of is None:
            yield f"{row.name} n/a{f': {row.note}' if row.note else ''}"
        elif row.bytes is not None and row.bytes < 0:
            yield f"{row.name} {gib(row.bytes)}: {row.note}; the bars reach beyond the device by it"
    yield from map(one_line, found.notes)


def _nameless(drawn: Sequence[_Placed], total: int | None) -> Iterator[str]:
    """What has no room for its name in a drawing of the usual width, lest print leaves it out."""
    narrow = [each for each in drawn if _needs_px(each) > USUAL_PX * _width(each) / _most(drawn, total)]
    names = [f"{each.row.name} {gib(each.row.bytes)}" for each in narrow]
    if names:
        yield f"too narrow for a name: {', '.join(names)}"


def _needs_px(each: _Placed) -> float:
    return LETTER_PX * max(len(each.row.name), len(gib(each.row.bytes))) + 6


def _width(each: _Placed) -> float:
    return 0.0 if each.end is None or each.start is None else each.end - each.start


def _most(drawn: Sequence[_Placed], total: int | None) -> float:
    """Where the longest row of bars ends, or the device, GiB."""
    return max((total or 0) / GIB, *(each.end or 0.0 for each in drawn))


# ------------------------------------------------------------------------------------------ drawing


def _spec(drawn: Sequence[_Placed], total: int | None) -> dict[str, Any]:
    most = _most(drawn, total)
    owned = f"indexof({list(NOBODYS)}, datum.group) < 0"
    tips = tooltip(COLUMNS, "part", gib=NUMBER, share=SHARE) + tooltip(COLUMNS, "known", "note")
    return {
        "transform": [
            {"filter": f"{DRAWN} && datum.level <= {max(each.level for each in drawn)}"},
            {"calculate": "(datum.from_gib + datum.to_gib) / 2", "as": "middle"},
            {"calculate": "format(datum.gib, '.3~g') + ' GiB'", "as": "size"},
        ],
        "encoding": {"y": _levels(), "tooltip": tips},
        "layer": [
            _bars(owned, BAR, most, _colour(drawn)),
            _bars(f"!({owned})", {"type": "bar", "style": "shade", "cornerRadius": 2}, most, {}),
            _text("part", {"style": "label", "dy": -8}, most),
            _text("size", {"style": "note", "dy": 9}, most),
            *([_edge(total / GIB)] if total else []),
        ],
    }


def _levels() -> dict[str, Any]:
    scale = {"paddingInner": 0.12, "paddingOuter": 0.06}
    return {"field": "level", "type": "ordinal", "axis": None, "scale": scale}


def _colour(drawn: Sequence[_Placed]) -> dict[str, Any]:
    groups = list(dict.fromkeys(each.group for each in drawn if each.group not in NOBODYS))
    fill = {"field": "group", "type": "nominal", "scale": {"domain": groups}}
    return {"fill": fill, "stroke": fill}


def _bars(kept: str, mark: dict[str, Any], most: float, colour: dict[str, Any]) -> dict[str, Any]:
    x = {
        "field": "from_gib",
        "type": "quantitative",
        "title": "GiB",
        "scale": {"domain": [0, most], "nice": False},
        "axis": {"grid": False, "tickCount": {"expr": "max(3, width / 90)"}},
    }
    return {
        "transform": [{"filter": kept}],
        "mark": mark,
        "encoding": {"x": x, "x2": {"field": "to_gib"}, **colour},
    }


def _text(field: str, look: dict[str, Any], most: float) -> dict[str, Any]:
    """In a bar, where it is wide enough for them."""
    room = f"(datum.to_gib - datum.from_gib) / {most!r} * width"
    fits = {"test": f"{room} > {LETTER_PX} * max(length(datum.part), length(datum.size)) + 6", "value": 1}
    return {
        "mark": {"type": "text", "clip": True, **look},
        "encoding": {
            "x": {"field": "middle", "type": "quantitative"},
            "text": {"field": field},
            "opacity": {"condition": fits, "value": 0},
        },
    }


def _edge(size: float) -> dict[str, Any]:
    """Where the device ends."""
    return {
        "data": {"values": [{}]},
        "mark": {"type": "rule", "style": "reference"},
        "encoding": {
            "x": {"datum": size, "type": "quantitative"},
            "y": {"value": 0},
            "y2": {"value": {"expr": "height"}},
            "tooltip": {"value": None},
        },
    }
