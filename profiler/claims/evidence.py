"""A claim and the runs at hand → Cases: what bears on it, setting by setting and cell by cell, and what is
missing and how to make it.

The unit of evidence is the engine start.  A trial of the claim is judged by what its last look saw and by
nothing else: runs held since wait for the next look, and other runs of the same setting are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from profiler import cost, host_facts
from profiler.claims import (
    answers,
    cells,
    comparable,
    law,
    ledger,
    making,
    metrics,
    percentiles,
    scatter,
    sides,
)
from profiler.claims.cells import Found, Point
from profiler.claims.ledger import Trial
from profiler.claims.nouns import Case, Cell, Claim, Evidence, Setting, Side
from profiler.claims.sides import Pair, Start
from profiler.figures import NOTE_SEPARATOR
from profiler.schema import Manifest
from profiler.store import RunResult


def cases(claim: Claim, runs: Sequence[RunResult]) -> list[Case]:
    """At least one: a claim that nothing bears on says what is missing, or why nothing can.

    Raises InputError for a metric nobody knows, or a damaged run or record of a trial.
    """
    if claim.untestable:
        return [Case(claim=claim, impossible=claim.untestable)]
    if metrics.of(claim.metric).kind not in ("runs", "answers") or metrics.api_priced(claim):
        from profiler.claims import computed

        return computed.cases(claim, runs)
    bearing = [run for run in runs if may_bear(claim, run)]
    starts = sides.starts(bearing)
    known = _trials([run for run in bearing if run.manifest.status == "complete"])
    digest = ledger.digest(claim)
    trials = [trial for trial in known if trial.digest == digest]
    own = {name for trial in trials for name in (*trial.runs(), *(each.run for each in trial.dropped))}
    found = [case for trial in trials for case in _of_trial(claim, trial, starts)]
    tried = {case.setting for case in found}
    others = [start for start in starts if start.manifest.run_id not in own]
    reworded = [trial for trial in known if trial.claim.id == claim.id and trial.digest != digest]
    found += [_noted(case, reworded) for case in _of_starts(claim, others) if case.setting not in tried]
    return found or [_of_nothing(claim, [run.manifest for run in runs])]


def _noted(case: Case, reworded: Sequence[Trial]) -> Case:
    """With a word about figures that were seen before the claim was written as it is now."""
    seen = {run: trial.id for trial in reworded for run in trial.runs()}

    def noted(each: Evidence) -> Evidence:
        runs = [Path(run).name for side in (each.subject, each.baseline) for run in side.runs]
        ids = ", ".join(sorted({seen[run] for run in runs if run in seen}))
        told = f"figures held for another wording of this claim, and so known before this one: trial {ids}"
        return replace(each, notes=(*each.notes, told)) if ids else each

    return replace(case, evidence=tuple(map(noted, case.evidence)))


def may_bear(claim: Claim, run: RunResult) -> bool:
    """Whether a run is of a model of either side, so that its figures are asked for."""
    return any(sides.is_of(side, run.manifest) for side in (claim.subject, claim.baseline))


# ------------------------------------------------------------------------------------------- of trials


def _trials(runs: Sequence[RunResult]) -> list[Trial]:
    """Trials of which runs are at hand, by whatever path they were named."""
    homes = {run.folder.resolve().parent for run in runs}
    known = [trial for home in sorted(homes) for trial in ledger.read_all(home)]
    return ledger.holding(known, {run.manifest.run_id for run in runs})


def _of_trial(claim: Claim, trial: Trial, starts: Sequence[Start]) -> list[Case]:
    at_hand = {start.manifest.run_id for start in starts}
    counted, lost = set(trial.counted), set(trial.counted) - at_hand
    if not counted:
        held = [start for start in starts if start.manifest.run_id in trial.runs()]
        where: list[Setting | None] = [sides.setting(pair) for pair in _bearing(claim, held)]
        first = f"trial {trial.id} is under way and looks first at {trial.looks_at[0]} starts a side"
        missing = (first, making.resumed(trial, held[0].run.folder.resolve().parent))
        return [Case(claim=claim, setting=each, missing=missing) for each in where or [None]]
    chosen = [start for start in starts if start.manifest.run_id in counted]
    found = _of_starts(claim, chosen)
    doubts = [f"{len(lost)} of the {len(counted)} runs of trial {trial.id} are not at hand"] if lost else []
    doubts += [f"the runs of trial {trial.id} are of {len(found)} settings"] if len(found) > 1 else []
    doubts += _left_out(claim, trial, chosen)
    return [
        replace(
            each,
            looks=trial.fractions,
            doubts=(*each.doubts, *doubts),
            evidence=tuple(_after_others(trial, one) for one in each.evidence),
        )
        for each in found
    ]


def _after_others(trial: Trial, each: Evidence) -> Evidence:
    """Whoever holds trials until one supports a claim will find one."""
    if not trial.before:
        return each
    told = (
        f"there were trials of this claim here before ({', '.join(trial.before)}): a verdict is of one alone"
    )
    return replace(each, notes=(*each.notes, told))


def _left_out(claim: Claim, trial: Trial, chosen: Sequence[Start]) -> Iterator[str]:
    """A look that saw fewer starts than it counts would be held to too low a bar."""
    groups = [group for pair in _bearing(claim, chosen) for group in (pair.subject, pair.baseline)]
    placed = {start.folder for group in groups for start in group.starts}
    lacking = [start for start in chosen if start.folder not in placed]
    if placed and lacking:
        yield (
            f"{len(lacking)} of the {len(chosen)} runs of trial {trial.id} are of another machine, engine or "
            "precision than the rest"
        )


# ----------------------------------------------------------------------------------- of starts as such


def _bearing(claim: Claim, starts: Iterable[Start]) -> list[Pair]:
    met = [start for start in starts if sides.unmet(claim.conditions, start.manifest) is None]
    return sides.pairs(claim, met)


def _of_starts(claim: Claim, starts: Iterable[Start]) -> list[Case]:
    """A case for every pair of models in every setting; none where a pair has none in common."""
    if metrics.of(claim.metric).kind == "answers":
        return answers.of_starts(claim, starts)
    found: dict[Setting, Case] = {}
    for pair, case in _telling([(pair, _of_pair(claim, pair)) for pair in _bearing(claim, starts)]):
        where = sides.setting(pair)
        while where in found:  # what differs is in no words of a setting
            where = replace(where, engine=f"{where.engine} ({len(found) + 1})")
        found[where] = replace(case, setting=where)
    return list(found.values())


def _telling(held: Sequence[tuple[Pair, Case]]) -> list[tuple[Pair, Case]]:
    """Of two models what has figures stands for what has none, and on one kind of machine and engine what can
    be compared for what cannot."""
    rated: dict[tuple[Any, ...], bool] = {}
    for pair, case in held:
        models = (pair.subject.model, pair.baseline.model)
        place = (*models, sides.site(pair.subject))
        rated[models] = rated.get(models, False) or _has_figures(case)
        rated[place] = rated.get(place, False) or (_has_figures(case) and not case.doubts)
    return [
        (pair, case)
        for pair, case in held
        if _has_figures(case) or not rated[pair.subject.model, pair.baseline.model]
        if not case.doubts or not rated[pair.subject.model, pair.baseline.model, sides.site(pair.subject)]
    ]


def _has_figures(case: Case) -> bool:
    return any(each.subject.values and each.baseline.values for each in case.evidence)


def _of_pair(claim: Claim, pair: Pair) -> Case:
    loaded = bool(metrics.of(claim.metric).axes)
    evidence = tuple(_evidence(claim, pair, each) for each in cells.places(claim.grid(), pair, loaded))
    lacking = any(each.missing for each in evidence)
    return Case(
        claim=claim,
        evidence=evidence,
        doubts=tuple(comparable.doubts(claim, pair)),
        missing=(making.command(claim, pair.subject.model, pair.baseline.model),) if lacking else (),
    )


def _evidence(claim: Claim, pair: Pair, found: Found) -> Evidence:
    both = [_side(claim.metric, points) for points in (found.subject, found.baseline)]
    doubts = comparable.doubts_of_cell(claim, found)
    missing: list[str] = []
    for group, points, side in zip(
        (pair.subject, pair.baseline), (found.subject, found.baseline), both, strict=True
    ):
        missing += _missing(claim.metric, group.model, found.cell, points, side)
        if 0 < len(side.values) < len(points):
            doubts.append(f"{group.model}: n/a in {len(points) - len(side.values)} of {len(points)} starts")
    return Evidence(
        cell=found.cell,
        subject=both[0],
        baseline=both[1],
        doubts=tuple(doubts),
        missing=tuple(missing),
        notes=(*found.notes, *_notes(claim.metric, found)),
        systematic_frac=comparable.systematic_frac(claim.metric, found),
    )


def _notes(metric: str, found: Found) -> Iterator[str]:
    yield from comparable.notes(found)
    yield from percentiles.notes(metric, found)
    yield from scatter.notes(metric, found)


def _side(metric: str, points: Sequence[Point]) -> Side:
    known = [(point, told) for point in points if (told := point.line.estimate(metric)) is not None]
    return Side(
        values=tuple(told.value for _, told in known),
        within=known[0][1] if len(known) == 1 else None,
        runs=tuple(dict.fromkeys(point.start.folder for point, _ in known)),
        facts=_facts(known[0][0].start) if known else {},
    )


def _missing(metric: str, model: str, cell: Cell, points: Sequence[Point], side: Side) -> list[str]:
    where = making.place(cell)
    if not points:
        return [f"no run of {model} at {where}"]
    if not side.values:
        return [f"{model} at {where}: {metric} n/a{_why_not(metric, points[0])}"]
    fewest = 2 if metrics.of(metric).unit == "bytes" else law.FEWEST_STARTS
    return making.more_starts(len(side.values), f"{model} at {where}", fewest)


def _why_not(metric: str, point: Point) -> str:
    """The run's own word for a figure that is not there."""
    notes = [*point.line.costs.notes] if metric in cost.ESTIMATES else []
    notes += (point.line.found.facts["notes"] or "").split(NOTE_SEPARATOR)
    told = next((note for note in notes if "n/a" in note or note.startswith("no power")), None)
    return f" ({told})" if told else ""


def _facts(start: Start) -> dict[str, Any]:
    """What a record names of a side beside its figures."""
    manifest = start.manifest
    return {
        "model": manifest.model.name,
        "weights": manifest.model.weights,
        "routing": manifest.engine.routing,
        "precision": sides.precision(manifest),
        "engine": manifest.engine.kind,
        "engine_version": manifest.engine.version,
        "gpus": [gpu.name for gpu in sides.boards(manifest)],
        "host": manifest.host.hostname_hash,
        "machine": host_facts.facts(manifest.host),
        "tool_version": manifest.tool_version,
        "utc": manifest.utc,
    }


# ---------------------------------------------------------------------------------- of nothing at hand


def _of_nothing(claim: Claim, at_hand: Sequence[Manifest]) -> Case:
    """Why nothing at hand bears on a claim, and what would."""
    asked = claim.conditions
    elsewhere = [sides.unmet_boards(asked, sides.boards(each)) for each in at_hand]
    if at_hand and all(elsewhere):
        why = f"{elsewhere[0]}, and no run at hand a better one"
        return Case(claim=claim, impossible=why, missing=(making.command(claim),))
    if metrics.of(claim.metric).kind == "answers":
        return Case(claim=claim, missing=answers.missing(claim))
    missing = []
    for side in (claim.subject, claim.baseline):
        own = [each for each in at_hand if each.status == "complete" and sides.is_of(side, each)]
        reasons = dict.fromkeys(sides.unmet(asked, each) for each in own)
        missing += [f"no run of {making.who(side)}"] if not own else []
        missing += [f"runs of {making.who(side)} do not count: {why}" for why in reasons if why]
    return Case(claim=claim, missing=(*missing, making.command(claim)))
