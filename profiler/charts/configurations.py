"""Runs → configurations: a model, routed so, on an engine and a machine, asked for the same work, load by
load over its runs, with what speaks against each load's figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from profiler import levels, search
from profiler.charts import loads, words
from profiler.cost import promise
from profiler.figures import Figures
from profiler.schema import LoadPoint
from profiler.slo import Limit
from profiler.store import RunResult


class At(NamedTuple):
    """One load of a configuration: its figures, of ``windows`` of ``starts`` engine starts with ``requests``
    that ended well; ``doubt``: why its figures may not be what they look like."""

    found: Figures
    windows: int
    starts: int
    requests: int | None
    doubt: str | None


class Curve(NamedTuple):
    """A configuration: its name among the others, its loads ascending, its latency limits, and the loads that
    were found, by what each is."""

    name: str
    model: str
    at: list[At]
    limits: tuple[Limit, ...]
    found: dict[float, str]


def curves(runs: Sequence[RunResult]) -> list[Curve]:
    """The configurations in the order of the runs."""
    groups: dict[object, list[tuple[RunResult, Figures]]] = {}
    for run in runs:
        slo = tuple(sorted(run.manifest.scenario.slo.items()))
        for each in loads.measured(run):
            key = each.alike, each.facts["scenario"], each.work, each.point.mode, slo
            groups.setdefault(key, []).append((run, each))
    names = _names([held[0] for held in groups.values()])
    return [_curve(name, held) for name, held in zip(names, groups.values(), strict=True)]


def _names(firsts: Sequence[tuple[RunResult, Figures]]) -> list[str]:
    """The models, with what tells configurations of one model apart."""
    models = [words.model(run) for run, _ in firsts]
    told = {
        "engine": [found.facts["engine"] for _, found in firsts],
        "boards": [f"{found.gpus} × {found.gpu}" if found.gpu else None for _, found in firsts],
        "routing": [run.manifest.engine.routing for run, _ in firsts],
        "scenario": [found.facts["scenario"] for _, found in firsts],
        "run": [run.folder.name for run, _ in firsts],
    }
    names = [words.short(model) for model in models]
    if len(set(names)) < len(set(models)):
        names = list(models)
    for facts in told.values():
        if len(set(names)) == len(names):
            break
        names = [_apart(place, names, facts) for place in range(len(names))]
    return names


def _apart(place: int, names: Sequence[str], facts: Sequence[Any]) -> str:
    """A name with this fact, where namesakes differ in it."""
    same = {facts[other] for other, name in enumerate(names) if name == names[place]}
    fact = facts[place]
    return f"{names[place]}, {words.one_line(str(fact))}" if len(same) > 1 and fact else names[place]


def _curve(name: str, held: Sequence[tuple[RunResult, Figures]]) -> Curve:
    by_load: dict[LoadPoint, list[tuple[RunResult, Figures]]] = {}
    for run, each in held:
        by_load.setdefault(each.point, []).append((run, each))
    at = [_at(point, by_load[point]) for point in sorted(by_load, key=levels.load_of)]
    runs = list({id(run): run for run, _ in held}.values())
    limits, found = _promised(runs, [each for _, each in held])
    return Curve(name, words.model(runs[0]), at, limits, found)


def _at(point: LoadPoint, held: Sequence[tuple[RunResult, Figures]]) -> At:
    windows = [
        (id(run), window) for run, _ in held for window in run.manifest.windows if window.point == point
    ]
    counted = [found.facts["requests_ok"] for _, found in held]
    return At(
        promise.merged([found for _, found in held]),
        len(windows),
        len({(run, window.engine_start) for run, window in windows}),
        None if None in counted else sum(counted),
        "; ".join(dict.fromkeys(why for run, found in held for why in loads.doubts(run, found))) or None,
    )


def _promised(
    runs: Sequence[RunResult], found: Sequence[Figures]
) -> tuple[tuple[Limit, ...], dict[float, str]]:
    """The limits of these runs, and the loads that a search or the limits single out."""
    whole = [run for run in runs if run.manifest.status == "complete"]
    searched = [search.found(run) for run in whole if run.manifest.scenario.search is not None]
    marks = {each.load: f"{each.find} found" for each in searched if each.load is not None}
    if not runs[0].manifest.scenario.slo:
        return (), marks
    (choice,) = promise.choices(runs, list(found), {})
    if choice.best and runs[0].manifest.scenario.search is None:
        marks = {choice.best.load: "highest sure to keep the limits"}
    return choice.limits, marks
