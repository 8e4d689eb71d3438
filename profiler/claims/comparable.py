"""Why the two sides of a cell may not be compared, and how far their ratio may be off whatever the statistics
say.  Values and reasons; judges nothing."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

from profiler import conditions, consumption, cost, scores, steadiness, trust
from profiler.claims import configs, law, metrics
from profiler.claims.cells import Found, Point
from profiler.claims.nouns import Claim
from profiler.claims.sides import Group, Pair, boards
from profiler.errors import InputError
from profiler.figures import NOTE_SEPARATOR
from profiler.schema import Manifest

# Boards of one kind differed in speed by 8 % on average over five clusters: Sinha et al., "Not all GPUs are
# created equal", SC 2022 (arXiv 2208.11035).  Of the same board the difference cancels.
BOARD_SPREAD_FRAC = 0.08
# NVML's accuracy where a run does not say how far its energy may be off (docs/energy.md).
SENSOR_FRAC = 0.05
# A share of a window in which heat held the clocks back that is no accident of one sample.
HEAT_FRAC = 0.01
IN_FLIGHT_FRAC = 0.95
# What a recipe tolerates unless it says otherwise: who tolerates more measures those that were answered.
MOST_FAILED_FRAC = 0.01
# Windows or warm-ups of so unlike lengths see another stretch of what boards and engines go through.
UNLIKE_TIMES = 2.0
# Of all pairs of a start of one side and one of the other: where in more the same side came first, a drift is
# nearly all in the ratio; blocks of one start a side in any order come to two in three at most.
IN_TURN_FRAC = 0.75
UNTUNED = "no tuned MoE kernel config"
APART = (
    "the sides were held one after the other: what changed on the machine between them is in the ratio; "
    "hold them in turns (profile claims run)"
)
OF_ENERGY = (*consumption.ESTIMATES[1:], consumption.POWER, *cost.METERED)
SIMULATED = "simulated"


# ------------------------------------------------------------------------------------- of the whole pair


def doubts(claim: Claim, pair: Pair) -> list[str]:
    """Why no cell of a pair can be compared."""
    sides = (pair.subject, pair.baseline)
    whose: dict[str, list[str]] = {}
    for side in sides:
        for why in _of_side(claim, side):
            whose.setdefault(why, []).append(side.model)
    found = [f"{', '.join(models)}: {why}" for why, models in whose.items()]
    return [*pair.unlike, *found, *_kernels(sides), *_quality(claim, pair)]


def _of_side(claim: Claim, side: Group) -> Iterator[str]:
    """Each reason once, whichever of its starts has it."""
    yield from dict.fromkeys(why for start in side.starts for why in _of_run(claim, start.manifest))


def _of_run(claim: Claim, manifest: Manifest) -> Iterator[str]:
    asked = claim.conditions
    if manifest.imported is not None:
        yield f"measured by {manifest.imported.by}, whose machine and settings are not known"
    elif manifest.engine.device == "remote":
        yield "served elsewhere, by nobody knows what"
    elif manifest.engine.kind == "endpoint":
        yield "a server that was up before: its runs may all be of one engine start"
    yield from _another_model(manifest)
    if asked.weights == "trained":
        yield from filter(None, [_untrained(manifest)])
    if asked.engine != SIMULATED:
        if manifest.engine.kind == SIMULATED:
            yield "the engine is simulated: it follows a law, and no model"
        if any(gpu.simulated for gpu in boards(manifest)) or any(p.made_up for p in manifest.probes):
            yield "the boards are simulated"


def _another_model(manifest: Manifest) -> Iterator[str]:
    """A folder may be called what it likes; scores and claims go by the name."""
    facts, known = manifest.model.facts, configs.listed(manifest.model.name)
    if facts is not None and known is not None and not configs.is_as_listed(manifest.model):
        own, theirs = (
            f"{each.total_params / 1e9:.3g} ({each.active_params / 1e9:.3g} active)"
            for each in (facts, known)
        )
        yield (
            f"its config has {own} billion parameters, the catalog's model of this name {theirs}: "
            "they are not one model"
        )


def _untrained(manifest: Manifest) -> str | None:
    if manifest.model.weights == "random":
        return "random weights, and the claim is of trained ones"
    return trust.routing_made_up(manifest)


def _kernels(sides: Sequence[Group]) -> Iterator[str]:
    """The engine's own word that one side ran on kernels nobody tuned for this GPU."""
    lacking = [side for side in sides if any(_is_untuned(start.manifest) for start in side.starts)]
    if len(lacking) == 1:
        yield f"{lacking[0].model}: {UNTUNED} for this GPU, so its speed may be below its best"


def _is_untuned(manifest: Manifest) -> bool:
    return any(note.startswith(UNTUNED) for note in manifest.engine.notes)


def _quality(claim: Claim, pair: Pair) -> Iterator[str]:
    """Both must be equally good where the claim says so; what is not shown is not so."""
    asked = claim.conditions.quality
    if asked is None:
        return
    known = scores.quality()
    try:
        benchmark = scores.benchmark_named(asked.benchmark, known)
    except InputError as error:
        yield f"equal quality cannot be shown: {error}"
        return
    held = [scores.of_model(side.model, benchmark, known)[0] for side in (pair.subject, pair.baseline)]
    unknown = [
        m for m, score in zip((pair.subject.model, pair.baseline.model), held, strict=True) if not score
    ]
    if unknown:
        yield f"equal quality cannot be shown: no score of {' and '.join(unknown)} on {benchmark}"
    a, b = held
    if a is not None and b is not None:
        found = scores.matched(a, b, asked.margin)
        if found.verdict != "equivalent":
            yield f"not of equal quality on {benchmark} ({found.verdict}): {found.reason}"


# ------------------------------------------------------------------------------------------ of one cell


def doubts_of_cell(claim: Claim, found: Found) -> list[str]:
    """Why one cell cannot be compared."""
    told = [found.unlike] if found.unlike else []
    for side in (found.subject, found.baseline):
        told += _of_points(claim.metric, side)
        told += _unsteady(side, mostly=True)
    contexts = [{_context(point) for point in side} for side in (found.subject, found.baseline)]
    if all(contexts) and contexts[0] != contexts[1]:
        told.append("the engines were given room for requests of unlike length (engine.max_model_len)")
    if metrics.of(claim.metric).unit != "bytes" and _are_apart(found.subject, found.baseline):
        told.append(APART)
    return [*told, *_unlike_measure(claim.metric, found), *_unlike_terms(claim.metric, found)]


def _unlike_measure(metric: str, found: Found) -> Iterator[str]:
    """How long was looked, and from when on; and of goodput, what was good enough."""
    plans = [point.start.manifest.scenario for point in (*found.subject, *found.baseline)]
    for name, words in (("warmup_s", "warm-ups"), ("window_s", "windows")):
        held = [getattr(plan.measure, name) for plan in plans]
        if held and max(held) > UNLIKE_TIMES * min(held):
            yield f"{words} of {min(held):g} s and of {max(held):g} s"
    if metric.startswith("goodput"):
        asked = sorted(
            {", ".join(f"{name} {s:g} s" for name, s in sorted(plan.slo.items())) for plan in plans}
        )
        if len(asked) > 1:
            yield f"what was good enough is unlike: {' and '.join(each or 'no limit' for each in asked)}"


def _unlike_terms(metric: str, found: Found) -> Iterator[str]:
    """A watt of the boards is none of the whole machine, and a dollar an hour not two."""
    every = (*found.subject, *found.baseline)
    for column, words in _terms(metric):
        held = [each.line.costs.facts if column in cost.FACTS else each.line.found.facts for each in every]
        told = sorted({str(each[column]) for each in held if each[column] is not None})
        if len(told) > 1:
            yield f"{words}: {' and '.join(told)}"


def _terms(metric: str) -> Iterator[tuple[str, str]]:
    """Columns that must be alike wherever a figure was made, with the words for those that are not."""
    if metric in cost.METERED:
        yield "electricity_boundary", "the energy is of unlike things"
    elif metric in cost.ESTIMATES:
        yield "price_usd_per_hour", "the runs were made with different prices (USD/h)"
    elif metric in consumption.ESTIMATES:
        yield "energy_boundary", "the energy is of unlike things"
    if metric == consumption.NET:
        yield "idle_kind", "the idle power that is taken off is of unlike kinds"
    if metric == consumption.FACILITY:
        yield "pue", "the runs were made with a different PUE"


def _context(point: Point) -> int | None:
    return point.start.manifest.scenario.engine.max_model_len


def _of_points(metric: str, side: Sequence[Point]) -> Iterator[str]:
    """Each reason once, in the words of the first start that has it."""
    found: dict[str, list[str]] = {}
    for point in side:
        for why in _of_point(metric, point):
            found.setdefault(re.sub(r"[\d.,]+", "", why), []).append(why)
    for each in found.values():
        yield f"{_model(side)}: {each[0]}" + _how_often(len(each), len(side))


def _how_often(count: int, of: int) -> str:
    return f" (so or alike in {count} of {of} starts)" if of > 1 else ""


def _of_point(metric: str, point: Point) -> Iterator[str]:
    facts, manifest = point.line.found.facts, point.start.manifest
    if facts["client_bound"]:
        yield f"the client was the limit ({facts['client_bound']})"
    if facts.get("shared_gpu"):
        yield "others used the GPUs"
    heat = facts.get("throttled_thermal_frac")
    if heat is not None and heat > HEAT_FRAC:
        yield f"heat held the clocks back for {heat:.0%} of the time"
    if metric in OF_ENERGY and facts["energy_trouble"]:
        yield f"energy is doubtful: {facts['energy_trouble']}"
    yield from _failed(facts, manifest)
    hit = point.line.found.estimates.get("prefix_cache_hit_frac")
    if hit is not None and hit.value > trust.FRESH_HIT_FRAC and trust.meant_fresh(manifest.scenario):
        yield f"{hit.value:.0%} of the prompt tokens came from a prefix cache although every prompt was fresh"


def _unsteady(side: Sequence[Point], mostly: bool) -> list[str]:
    """A change of state in most starts is in the ratio; in a few it is part of what starts scatter."""
    each = [(point.line.found.facts["notes"] or "").split(NOTE_SEPARATOR) for point in side]
    said = [next((note for note in notes if note.startswith(steadiness.PREFIX)), None) for notes in each]
    told = [note for note in said if note]
    if not told or (2 * len(told) >= len(side)) is not mostly:
        return []
    return [f"{_model(side)}: {told[0]}{_how_often(len(told), len(side))}"]


def _model(side: Sequence[Point]) -> str:
    return side[0].start.manifest.model.name


def _failed(facts: dict[str, Any], manifest: Manifest) -> Iterator[str]:
    ok, failed = facts["requests_ok"], facts["requests_failed"]
    if ok is None or failed is None:
        yield "nobody says how many requests failed"
    elif failed > min(MOST_FAILED_FRAC, manifest.scenario.max_failed_frac) * (ok + failed):
        yield f"{failed} of {ok + failed} requests failed"


# ------------------------------------------------------------------------------------ beyond statistics


def notes(found: Found) -> Iterator[str]:
    """What casts no doubt, and should be known."""
    sides = (found.subject, found.baseline)
    every = [point for side in sides for point in side]
    if not all(point.start.manifest.exclusive for point in every) and _are_together(*sides):
        yield "the engines of both sides stayed up beside each other"
    if len({point.start.manifest.tool_version for point in every}) > 1:
        yield "measured by several versions of this tool"
    yield from (line for side in sides for line in _unsteady(side, mostly=False))
    capped = [held for each in every if (held := each.line.found.facts.get("throttled_power_frac"))]
    if capped:
        yield f"power capped the clocks for up to {max(capped):.0%} of the time"
    if all(sides) and _machines(found.subject) != _machines(found.baseline):
        yield "not on the same boards"
    yield from (line for side in sides for line in _queued(side))


def _queued(side: Sequence[Point]) -> Iterator[str]:
    """An engine without the memory for a batch lets some of it wait: true, and not what a batch means."""
    for point in side[:1]:
        start, asked = point.start, point.line.found.point
        held = [each for each in start.manifest.windows if each.point == asked]
        most = [
            conditions.requests_running(start.run.samples, each.opened_ns, each.closed_ns) for each in held
        ]
        running = max((each for each in most if each is not None), default=None)
        if running is not None and running < IN_FLIGHT_FRAC * point.batch:
            yield f"{_model(side)}: the engine ran at most {running:.0f} of {point.batch} requests at once"


def _are_together(subject: Sequence[Point], baseline: Sequence[Point]) -> bool:
    groups = [{point.start.manifest.group for point in side} for side in (subject, baseline)]
    return bool(groups[0] & groups[1])


def _are_apart(subject: Sequence[Point], baseline: Sequence[Point]) -> bool:
    """Whether nearly all starts of one side were held before the other's, of so many that they could give a
    verdict: where the machine drifts by 5 % two in five may be false (docs/statistics.md)."""
    if min(len(subject), len(baseline)) < law.FEWEST_STARTS:
        return False
    sides = ([point.start.manifest for point in side] for side in (subject, baseline))
    each = [_before(a, b) for a, b in itertools.product(*sides)]
    return not 1 - IN_TURN_FRAC < sum(each) / len(each) < IN_TURN_FRAC


def _before(a: Manifest, b: Manifest) -> float:
    """1 where run ``a`` was begun before ``b``, 0 after it; between where they were held in turns."""
    return 0.5 if a.group == b.group or a.unix_ns == b.unix_ns else float(a.unix_ns < b.unix_ns)


def systematic_frac(metric: str, found: Found) -> float:
    """How far the ratio may be off whatever the statistics say: what sensors and boards of one kind differ
    by, which cancels where both sides used the same boards."""
    sides = (found.subject, found.baseline)
    machines = [_machines(side) for side in sides]
    if not all(sides) or (machines[0] == machines[1] and len(machines[0]) == 1):
        return 0.0
    beyond = 0.0 if metric.startswith("memory_") else BOARD_SPREAD_FRAC
    if metric not in OF_ENERGY:
        return beyond
    for side in sides:
        told = [point.line.found.facts["energy_systematic_frac"] for point in side]
        beyond = (1 + beyond) * (1 + max(SENSOR_FRAC if each is None else each for each in told)) - 1
    return beyond


def _machines(side: Sequence[Point]) -> set[tuple[str, ...]]:
    """The very boards; of a machine without, the machine."""
    each = [point.start.manifest for point in side]
    return {tuple(sorted(m.engine.gpus)) or (str(m.host.hostname_hash),) for m in each}
