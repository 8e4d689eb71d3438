"""The main result of a page in words, with intervals: how models stand to each other, rates, cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from msgspec.structs import replace

from profiler.charts import loads, ratios, words
from profiler.charts.ratios import Curve, Spot
from profiler.charts.words import interval, one_line
from profiler.comparison import Question, answer, same_load
from profiler.comparison.lines import Line
from profiler.figures import Figures
from profiler.report.html.opening import MOST_NAMED, few
from profiler.store import RunResult

RATE = "output_tokens_per_s"
USD = "usd_per_m_output_tokens"
JOULES = "energy_j_per_output_token"
NOTHING = "No window of these runs was finished: nothing was measured."


def sentences(
    runs: Sequence[RunResult], found: Sequence[Figures], question: Question, baseline: str | None
) -> list[str]:
    """The answer first.  Rates and costs are of the scenario that has most models, runs of the same thing
    pooled; ``baseline``: the model that all are put over, None: a MoE over each dense model."""
    held = _of_one_scenario(answer(found, replace(question, by=("model",), baseline=None, sort=None)).lines)
    if not held:
        return [NOTHING]
    models = {line.found.model for line in held}
    if len(models) == 1:
        return list(_of_one(held))
    over = list(_advantages(runs, baseline)) if baseline or len(models) <= MOST_NAMED else []
    return [*over, *_rates(held), *_least(held, USD), *_least(held, JOULES)]


def _of_one_scenario(lines: Sequence[Line]) -> list[Line]:
    """The loads of the scenario that most models were measured under, lowest first; those at which the client
    was the limit only where there is no other."""
    lines = [line for line in lines if not line.value("client_bound")] or lines
    held: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        if line.estimate(RATE) is not None:
            held.setdefault((line.value("scenario"), line.value("load")), []).append(line)
    if not held:
        return []
    best = max(held.values(), key=lambda each: (len({line.found.model for line in each}), len(each)))
    return sorted(best, key=_size)


def _size(line: Line) -> float:
    point = line.found.point
    return float(point.requests_per_s if point.requests_per_s is not None else point.concurrency or 0)


def _at(line: Line) -> str:
    point = line.found.point
    load = words.load(point)
    return f"at {load}" if point.requests_per_s is not None else f"with {load} in flight"


def _figure(line: Line, name: str, factor: float = 1.0) -> str:
    held = line.estimate(name)
    return words.NA if held is None else interval(held, factor)


def _rate(line: Line) -> float:
    held = line.estimate(RATE)
    return held.value if held else 0.0


def _model(line: Line) -> str:
    return one_line(line.found.model)


# ------------------------------------------------------------------------------------------- one model


def _of_one(lines: Sequence[Line]) -> Iterator[str]:
    """Its rate at the lowest load and at the best, what a user waits there, what it takes."""
    low, best = lines[0], max(lines, key=_rate)
    rise = f", and {_figure(best, RATE)} {_at(best)}" if low is not best else ""
    yield f"{_model(low)} gave {_figure(low, RATE)} output tokens a second {_at(low)}{rise}."
    ends = [low] if low is best else [low, best]
    for name, what in (("ttft_s_p50", "first token took"), ("itl_s_p50", "gap between tokens was")):
        if all(line.estimate(name) for line in ends):
            told = " and ".join(f"{_figure(line, name, 1e3)} ms {_at(line)}" for line in ends)
            yield f"The median {what} {told}."
    if best.estimate(USD):
        yield f"A million output tokens, prompts included, cost {_figure(best, USD)} USD {_at(best)}."
    if best.estimate(JOULES):
        yield f"An output token took {_figure(best, JOULES)} J {_at(best)}."


# --------------------------------------------------------------------------------------- several models


def _advantages(runs: Sequence[RunResult], baseline: str | None) -> Iterator[str]:
    """How many times the tokens/s a MoE gives, as the figure of it draws: a sentence a machine and kind of
    requests, and one for each crossover."""
    places: dict[tuple[str, ...], list[Curve]] = {}
    for curve in ratios.curves(runs, RATE, ratios.pairs(runs, baseline)):
        places.setdefault(curve.place, []).append(curve)
    for curves in places.values():
        where = f"On {curves[0].machine} by {curves[0].engine}, " if len(places) > 1 else ""
        if told := _ends(curves):
            yield f"{where}{curves[0].moe} gives {told}."
        for curve in curves:
            for crossing in curve.crossovers:
                at = interval(crossing)
                yield f"{where}{curve.moe} and {curve.rival} change places at {at} requests in flight."


def _ends(curves: Sequence[Curve]) -> str | None:
    """At the lowest and the highest load at which nothing speaks against any of the ratios, and between them
    where they are least: the advantage of a MoE is a U."""
    fair = [{spot.batch: spot for spot in curve.spots if not spot.doubts} for curve in curves]
    batches = sorted(set.intersection(*map(set, fair)))
    told: list[str] = []
    least = sorted(batches, key=lambda batch: prod(spots[batch].ratio.value for spots in fair))[:1]
    for batch in sorted({*batches[:1], *least, *batches[-1:]}):
        each = [_times(spots[batch]) for spots in fair]
        if told:
            told.append(f"{loads.joined(each)} with {batch:,}")
        else:
            named = [f"{text} times those of {curve.rival}" for text, curve in zip(each, curves, strict=True)]
            named[0] = named[0].replace("those of", "the output tokens/s of")
            told.append(f"{loads.joined(named)} with {batch:,} in flight")
    return ", and ".join(filter(None, [", ".join(told[:-1]), *told[-1:]])) or None


def _times(spot: Spot) -> str:
    """``2.30 (1.96–2.70)``; what is not told from 1 says so."""
    if spot.ratio.low is None:
        return f"{interval(spot.ratio)} (no interval)"
    return interval(spot.ratio) if spot.leader != "undecided" else f"{interval(spot.ratio)}, undecided,"


def _rates(lines: Sequence[Line]) -> Iterator[str]:
    """At the lowest and the highest load that most models share: the fastest first."""
    held: dict[tuple[object, ...], list[Line]] = {}
    for line in lines:
        held.setdefault(same_load(line.found.facts), []).append(line)
    most = max(map(len, held.values()))
    shared = [each for each in held.values() if len(each) == most]
    for each in shared[:: max(1, len(shared) - 1)]:
        ranked = sorted(each, key=_rate, reverse=True)
        told = [f"{_model(line)} {_figure(line, RATE)}" for line in ranked]
        yield f"Output tokens/s {_at(each[0])}: {few(told)}."


def _least(lines: Sequence[Line], name: str) -> Iterator[str]:
    """What each model costs, or takes, at the load at which that is least."""
    held = [(each.value, line) for line in lines if (each := line.estimate(name)) is not None]
    best: dict[str, Line] = {}
    for _, line in sorted(held, key=lambda pair: pair[0]):
        best.setdefault(_model(line), line)
    what = "USD per million output tokens" if name == USD else "J per output token"
    places = {_at(line) for line in best.values()}
    if len(places) == 1:
        told = [f"{model} {_figure(line, name)}" for model, line in best.items()]
        yield f"{what} {places.pop()}, where each model's are least: {few(told)}."
    elif best:
        told = [f"{model} {_figure(line, name)} {_at(line)}" for model, line in best.items()]
        yield f"{what}, each model at the load where they are least: {few(told)}."
