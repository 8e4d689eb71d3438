"""Where a MoE beats a dense rival: requests in flight × prompt length, as measured or as predicted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from profiler.charts import encoding, loads, ratios, words
from profiler.charts.kinds import Asked
from profiler.charts.nouns import Absent, Chart, Column, Row
from profiler.charts.ratios import Curve, Spot
from profiler.plan.crossover import Map
from profiler.store import RunResult

TITLE = "Where {} is faster than {}"
CLEARLY, FAR = 1.5, 2.0  # times better, from which a letter is a capital, and from which a colour is full
UNDECIDED = "undecided"
# In the order of the diverging colours of the theme, which are seven.
BANDS = (
    f"dense ≥ {FAR:g}×",
    f"dense ≥ {CLEARLY:g}×",
    f"dense < {CLEARLY:g}×",
    UNDECIDED,
    f"MoE < {CLEARLY:g}×",
    f"MoE ≥ {CLEARLY:g}×",
    f"MoE ≥ {FAR:g}×",
)
COLUMNS = (
    Column(name="batch", label="requests in flight"),
    Column(name="prompt", label="prompt", unit="tokens"),
    Column(name="band", label="who is ahead"),
    Column(name="letter", label="letter"),
    Column(name="ratio", label="times better"),
    Column(name="low", label="low"),
    Column(name="high", label="high"),
    Column(name="weak", label="why the cell is faint"),
)
LETTERS = f"M the MoE is ahead, D the dense model; small letters: by less than {CLEARLY:g} times"
_ROW_PX = 30
_METRIC = "output_tokens_per_s"
_BETTER = {"speed": "is faster", "energy": "takes less energy", "cost": "is cheaper"}


class _Cell(NamedTuple):
    """``weak``: why it counts for less."""

    batch: int
    prompt: int
    ratio: float
    low: float | None
    high: float | None
    weak: str | None


def of_runs(runs: Sequence[RunResult], asked: Asked) -> list[Chart | Absent]:
    """A map for each pair that was measured at several prompt lengths on one machine and engine."""
    chosen = ratios.pairs(runs, asked.baseline)
    by_pair: dict[tuple[str, ...], list[Curve]] = {}
    for curve in ratios.curves(runs, _METRIC, chosen):
        if curve.at.input_tokens:
            key = (curve.moe, curve.rival, curve.machine, curve.engine, f"{curve.at.output_tokens}")
            by_pair.setdefault(key, []).append(curve)
    maps = [held for held in by_pair.values() if len(held) > 1]
    if not maps:
        reason = "it takes a MoE and a dense model at two prompt lengths or more; these runs have one at most"
        return [Absent(id="crossover", title=TITLE.format("a MoE", "a dense model"), reason=reason)]
    return [_measured(runs, held, f"crossover-{number}") for number, held in enumerate(maps, 1)]


def of_map(found: Map, number: int = 1) -> Chart:
    """The same as a plan predicts it, by 90 % intervals; faint where a cache does not hold all the batch."""
    moe, dense = (words.short(each.candidate.name) for each in (found.moe, found.dense))
    where = f"{found.moe.gpus} × {words.one_line(found.moe.gpu.gpu)}"
    chart = _chart(
        f"crossover-predicted-{found.metric}-{number}",
        f"Where {moe} {_BETTER[found.metric]} than {dense} on {where}, by prediction",
        tuple(_predicted(found)),
        interval="90 %",
    )
    notes = (
        "predicted, not measured; undecided (?): the 90 % interval of the ratio includes 1",
        "faint (+ − ·): a cache does not hold the whole batch, as if it did",
        LETTERS,
    )
    return _with(chart, notes)


def _measured(runs: Sequence[RunResult], held: Sequence[Curve], name: str) -> Chart:
    first = held[0]
    cells = [_cell(curve, spot) for curve in held for spot in curve.spots]
    title = TITLE.format(words.short(first.moe), words.short(first.rival))
    starts = sorted({spot.starts for curve in held for spot in curve.spots})
    n = f"{starts[0]}" if len(starts) == 1 else f"{starts[0]} to {starts[-1]}"
    own = {folder for curve in held for folder in curve.runs}
    notes = (
        f"{first.machine}; {first.engine}",
        f"n = {n} engine starts a side; undecided (?): the 95 % interval of the ratio includes 1",
        LETTERS,
        *(
            ["faint (·): in doubt or without an interval; the data say why"]
            if any(c.weak for c in cells)
            else []
        ),
        *_crossed(held),
        *loads.caveats([run for run in runs if str(run.folder) in own]),
    )
    return _with(_chart(name, f"{title}, as measured", cells, interval="95 %"), notes)


def _cell(curve: Curve, spot: Spot) -> _Cell:
    """Nobody is ahead where the sides may not be compared."""
    why = "; ".join(spot.doubts) or (None if spot.is_sure else "no interval: one engine start")
    low, high = (spot.ratio.low, spot.ratio.high) if spot.is_sure else (None, None)
    return _Cell(spot.batch, curve.at.input_tokens or 0, spot.ratio.value, low, high, why)


def _crossed(held: Sequence[Curve]) -> Iterator[str]:
    for curve in held:
        if curve.crossovers:
            at = " and ".join(map(ratios.crossing, curve.crossovers))
            yield f"prompts of {curve.at.input_tokens:,} tokens: crossover at {at} requests in flight"


def _predicted(found: Map) -> Iterator[_Cell]:
    for row, context in enumerate(found.contexts):
        for column, batch in enumerate(found.batches):
            ratio = found.ratio
            value, low, high = (float(each[row, column]) for each in (ratio.value, ratio.low, ratio.high))
            why = None if found.held[row, column] else "a cache does not hold the whole batch"
            yield _Cell(batch, context, value, low, high, why)


# -------------------------------------------------------------------------------------------- drawing


def _chart(name: str, title: str, cells: Sequence[_Cell], interval: str) -> Chart:
    rows = tuple(_row(cell) for cell in cells)
    prompts = sorted({cell.prompt for cell in cells}, reverse=True)
    return Chart(
        id=name,
        title=title,
        summary=f"{title}. {_counted(rows)} by {interval} intervals of the ratio. {' '.join(_told(rows))}",
        columns=COLUMNS,
        rows=rows,
        spec=_spec(sorted({cell.batch for cell in cells}), prompts),
        height=_ROW_PX * len(prompts),
    )


def _with(chart: Chart, notes: Iterable[str]) -> Chart:
    from msgspec.structs import replace

    return replace(chart, notes=tuple(notes))


def _row(cell: _Cell) -> Row:
    band = _band(cell)
    return cell._asdict() | {"band": band, "letter": _letter(band, cell)}


def _band(cell: _Cell) -> str:
    if cell.low is None or cell.high is None or cell.low <= 1 <= cell.high:
        return UNDECIDED
    times = max(cell.ratio, 1 / cell.ratio)
    step = 1 + (times >= CLEARLY) + (times >= FAR)
    return BANDS[3 + step] if cell.low > 1 else BANDS[3 - step]


def _letter(band: str, cell: _Cell) -> str:
    """As ``profile plan`` prints it: M and D, small where the lead is, ? where none is sure; + − · the same
    of cells that count for less."""
    if cell.weak:
        return "·" if band == UNDECIDED else "+" if band in BANDS[4:] else "−"
    if band == UNDECIDED:
        return "?"
    name = "m" if band in BANDS[4:] else "d"
    return name.upper() if max(cell.ratio, 1 / cell.ratio) >= CLEARLY else name


def _counted(rows: Sequence[Row]) -> str:
    firm = [row["band"] for row in rows if not row["weak"]]
    moe, dense, open_ = (sum(band.startswith(who) for band in firm) for who in ("MoE", "dense", UNDECIDED))
    weak = len(rows) - len(firm)
    return (
        f"Of {len(firm):,} cells the MoE is ahead in {moe:,} and the dense model in {dense:,}, {open_:,} are "
        f"undecided{f' ({weak:,} more are faint)' if weak else ''},"
    )


def _told(rows: Sequence[Row]) -> Iterator[str]:
    """Each prompt length's letters, by batch."""
    for prompt in sorted({row["prompt"] for row in rows}):
        own = [row for row in rows if row["prompt"] == prompt]
        yield f"{prompt:,} tokens: {''.join(row['letter'] for row in own)}."


def _spec(batches: Sequence[int], prompts: Sequence[int]) -> dict[str, Any]:
    few = len(batches) <= 16
    ticks = [each for each in batches if few or each & (each - 1) == 0]
    weak = {"condition": {"test": "isValid(datum.weak)", "value": 0.35}, "value": 1}
    tips = encoding.tooltip(COLUMNS, "batch", "prompt", "band", "weak", ratio=".3~g", low=".3~g", high=".3~g")
    axis = {"labelAngle": 0, "ticks": False, "domain": False, "format": ",d", "labelOverlap": "greedy"}
    x = {"field": "batch", "type": "ordinal", "title": "requests in flight", "sort": list(batches)}
    y = {"field": "prompt", "type": "ordinal", "title": "prompt, tokens", "sort": list(prompts)}
    colour = {"field": "band", "type": "nominal", "scale": {"domain": list(BANDS), "range": "diverging"}}
    legend = {"symbolType": "square", "symbolOpacity": 1}
    full = f"!isValid(datum.weak) && indexof(['{BANDS[0]}', '{BANDS[-1]}'], datum.band) >= 0"
    fits = {"expr": f"width / {len(batches)} < 11 ? '' : datum.letter"}
    letters = {"type": "text", "fontSize": 11, "text": fits}
    return {
        "encoding": {
            "x": x | {"axis": axis | {"values": ticks}, "scale": {"paddingInner": 0.04}},
            "y": y | {"axis": axis | {"grid": False}, "scale": {"paddingInner": 0.04}},
        },
        "layer": [
            {
                "mark": {"type": "rect"},
                "encoding": {"color": colour | {"legend": legend}, "opacity": weak, "tooltip": tips},
            },
            {"transform": [{"filter": f"!({full})"}], "mark": letters},
            {"transform": [{"filter": full}], "mark": letters | {"style": "paper"}},
        ],
    }
