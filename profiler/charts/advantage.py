"""The story: how many times better a mixture of experts is than dense rivals, by requests in flight.

Alone, a token reads few experts; in company all are read; where arithmetic binds, few are computed again.  So
the curve is like a U, and where it crosses 1 a user's choice turns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from profiler.charts import loads, ratios, words
from profiler.charts.advantage_drawing import is_cut, spec
from profiler.charts.kinds import Asked
from profiler.charts.nouns import Absent, Chart, Column, Row
from profiler.charts.ratios import Curve, Spot
from profiler.store import RunResult

HEIGHT_PX = 380
MOST_DOUBTS = 4


class _Measure(NamedTuple):
    """A metric as the charts of it say it; ``name`` is a part of their ids."""

    name: str
    metric: str
    title: str
    axis: str
    better: str
    unit: str


MEASURES = (
    _Measure("speed", "output_tokens_per_s", "How many times faster {} is than dense models",
             "output tokens/s, {} ÷ dense", "faster", "tokens/s"),
    _Measure("energy", "energy_j_per_output_token", "How many times less energy {} takes than dense models",
             "energy per output token, dense ÷ {}", "takes less", "J/token"),
)  # fmt: skip


def of_runs(runs: Sequence[RunResult], asked: Asked) -> list[Chart | Absent]:
    """A chart for each MoE, machine, engine and kind of requests, by speed and, where it was measured, by
    energy; or why there is none."""
    chosen = ratios.pairs(runs, asked.baseline)
    found: list[Chart | Absent] = []
    for measure in MEASURES:
        charts = _charts(runs, measure, ratios.curves(runs, measure.metric, chosen))
        found += charts or [_absent(measure, chosen, asked)]
    return found


def _charts(runs: Sequence[RunResult], measure: _Measure, curves: Sequence[Curve]) -> list[Chart | Absent]:
    by_place: dict[tuple[str, ...], list[Curve]] = {}
    for curve in curves:
        by_place.setdefault(curve.place, []).append(curve)
    found: list[Chart | Absent] = []
    for number, held in enumerate(by_place.values(), 1):
        suffix = f"-{number}" if len(by_place) > 1 else ""
        found.append(_chart(runs, measure, held, f"advantage-{measure.name}{suffix}"))
    return found


def _absent(measure: _Measure, chosen: ratios.Pairs, asked: Asked) -> Absent:
    if asked.baseline and not chosen.moes:
        reason = (
            f"no run is of a MoE besides {words.one_line(asked.baseline)}, the baseline: name a dense model"
        )
    elif not chosen.moes or not chosen.rivals:
        kinds = [kind for kind, held in (("MoE", chosen.moes), ("dense model", chosen.rivals)) if not held]
        reason = f"none of these runs is of a {' or a '.join(kinds)} whose config is known"
    elif measure.name == "energy":
        reason = "no energy was measured of a MoE and a dense model at the same closed load"
    else:
        reason = "no MoE and dense model were measured at the same closed load, on the same requests"
    return Absent(id=f"advantage-{measure.name}", title=measure.title.format("a MoE"), reason=reason)


def _chart(runs: Sequence[RunResult], measure: _Measure, held: Sequence[Curve], name: str) -> Chart:
    moe = words.short(held[0].moe)
    own = {folder for curve in held for folder in curve.runs}
    caveats = loads.caveats([run for run in runs if str(run.folder) in own])
    return Chart(
        id=name,
        title=f"{measure.title.format(moe)}, by requests in flight",
        summary=" ".join(_summary(measure, held)),
        columns=_columns(measure),
        rows=tuple(row for curve in held for row in _rows(curve)),
        spec=spec(held, _columns(measure), measure.axis.format(moe), _does(measure)),
        height=HEIGHT_PX,
        notes=(*_notes(measure, held), *caveats),
    )


# ----------------------------------------------------------------------------------------------- data


def _columns(measure: _Measure) -> tuple[Column, ...]:
    return (
        Column(name="part", label="what"),
        Column(name="rival", label="dense model"),
        Column(name="batch", label="requests in flight"),
        Column(name="ratio", label=f"times {measure.better}"),
        Column(name="low", label="95 % low"),
        Column(name="high", label="95 % high"),
        Column(name="moe", label="MoE", unit=measure.unit),
        Column(name="dense", label="dense", unit=measure.unit),
        Column(name="starts", label="engine starts a side"),
        Column(name="leader", label="who is ahead"),
        Column(name="computed", label="computed from the machine's ceilings"),
        Column(name="doubt", label="why it is in doubt"),
    )


def _rows(curve: Curve) -> Iterator[Row]:
    """A row a batch, sure neighbours of one ``stretch``; then one a crossover, where ``low`` and ``high``
    bound the batch and not the ratio, which is 1."""
    stretch = 0
    for spot in curve.spots:
        stretch += not spot.is_sure
        yield {
            "part": "measured" if spot.is_sure else "doubtful",
            "stretch": stretch,
            "rival": curve.rival,
            "batch": spot.batch,
            "ratio": spot.ratio.value,
            "low": spot.ratio.low,
            "high": spot.ratio.high,
            "moe": spot.moe,
            "dense": spot.rival,
            "starts": spot.starts,
            "leader": {"moe": curve.moe, "rival": curve.rival}.get(spot.leader, spot.leader),
            "computed": spot.computed,
            "doubt": "; ".join(spot.doubts) or None,
        }
    for each in curve.crossovers:
        yield {
            "part": "crossover",
            "rival": curve.rival,
            "batch": each.value,
            "ratio": 1.0,
            "low": each.low,
            "high": each.high,
            "label": f"crossover at {ratios.crossing(each)}",
        }


# ---------------------------------------------------------------------------------------------- words


def _summary(measure: _Measure, held: Sequence[Curve]) -> Iterator[str]:
    first = held[0]
    batches = sorted({spot.batch for curve in held for spot in curve.spots})
    yield (
        f"{measure.axis.format(first.moe)}, at {batches[0]:,} to {batches[-1]:,} requests in flight; above 1 "
        f"{first.moe} {_does(measure)}. {_where(first)}."
    )
    yield from (_told(curve) for curve in held)
    if any(spot.is_sure for curve in held for spot in curve.spots):
        yield "Each point by itself with its 95 % interval, one observation an engine start."


def _does(measure: _Measure) -> str:
    return "is faster" if measure.name == "speed" else measure.better


def _where(curve: Curve) -> str:
    lengths = [f"{each:,}" if each else "any" for each in (curve.at.input_tokens, curve.at.output_tokens)]
    asked = f"; {' + '.join(lengths)} tokens a request" if lengths != ["any", "any"] else ""
    return f"{curve.machine}; {curve.engine}{asked}"


def _told(curve: Curve) -> str:
    """One rival: the ends, the lowest point between them, the crossovers, and whether it is a U for sure."""
    spots = curve.spots
    ends = list(dict.fromkeys([spots[0], spots[-1]]))
    lowest = min(spots, key=lambda spot: spot.ratio.value)
    parts = [f"{words.interval(spot.ratio)} at {spot.batch:,}{_hollow(spot)}" for spot in ends]
    if lowest not in ends:
        parts.insert(1, f"lowest {words.interval(lowest.ratio)} at {lowest.batch:,}{_hollow(lowest)}")
    crossed = [f"crossover at {ratios.crossing(each)}" for each in curve.crossovers]
    parts.append(" and ".join(crossed) or "no crossover that the intervals tell")
    if _is_u(spots):
        parts.append("a U: on both sides of the lowest point the intervals lie above its own")
    return f"Over {curve.rival}: {'; '.join(parts)}."


def _hollow(spot: Spot) -> str:
    return "" if spot.is_sure else " (in doubt)" if spot.doubts else " (no interval)"


def _is_u(spots: Sequence[Spot]) -> bool:
    """Whether points at both sides of the lowest one have intervals wholly above its own."""
    sure = [spot for spot in spots if spot.is_sure]
    if len(sure) < 3:
        return False
    place = min(range(len(sure)), key=lambda at: sure[at].ratio.value)
    top = sure[place].ratio.high or 0.0
    sides = (sure[:place], sure[place + 1 :])
    return all(any((spot.ratio.low or 0.0) > top for spot in side) for side in sides)


def _notes(measure: _Measure, held: Sequence[Curve]) -> Iterator[str]:
    yield _where(held[0])
    spots = [spot for curve in held for spot in curve.spots]
    starts = sorted({spot.starts for spot in spots})
    n = f"{starts[0]}" if len(starts) == 1 else f"{starts[0]} to {starts[-1]}"
    if any(spot.ratio.low is not None for spot in spots):
        yield (
            f"n = {n} engine starts a side; band and whiskers: 95 % interval of each point by itself; "
            "between points nothing was measured"
        )
    else:
        yield f"no intervals: n = {n} a side"
    if any(spot.ratio.low is None and not spot.doubts for spot in spots):
        yield "hollow: one engine start a side, whose interval says nothing of the next one"
    if is_cut(held):
        yield "an interval that reaches the frame goes on beyond it: the data have its ends"
    yield from _doubts(held)
    if any(curve.crossovers for curve in held):
        yield "crossover [95 %]: where the ratio and its interval's ends are 1, straight between two batches"
    if any(spot.computed for spot in spots):
        yield "dashed: computed from the configs and this machine's bandwidth and matrix rate, not measured"
    if measure.name == "speed":
        yield from dict.fromkeys(f"no computed line: {curve.why_not}" for curve in held if curve.why_not)
        yield "at the same price per hour for both, cost per output token differs by the same factor"


def _doubts(held: Sequence[Curve]) -> Iterator[str]:
    """Why points are hollow, each reason once whatever its numbers are, and of which points."""
    seen: dict[str, tuple[str, dict[str, list[int]]]] = {}
    for curve in held:
        for spot in curve.spots:
            for doubt in spot.doubts:
                plain = re.sub(r"[\d.,]+", "#", _without_names(doubt, curve))
                _, at = seen.setdefault(plain, (_without_names(doubt, curve), {}))
                at.setdefault(words.short(curve.rival), []).append(spot.batch)
    every = sum(len(curve.spots) for curve in held)
    for reason, at in list(seen.values())[:MOST_DOUBTS]:
        where = [f"over {rival} at {', '.join(map(str, held_at))}" for rival, held_at in at.items()]
        is_all = sum(map(len, at.values())) >= every
        yield f"hollow, in doubt{'' if is_all else f' ({loads.joined(where)})'}: {reason}"
    if len(seen) > MOST_DOUBTS:
        yield f"and for {len(seen) - MOST_DOUBTS} more reasons, which the data have"


def _without_names(doubt: str, curve: Curve) -> str:
    """A reason that names the models of its pair, without them."""
    names, _, why = doubt.partition(": ")
    return why if why and set(names.split(", ")) <= {curve.moe, curve.rival} else doubt
