"""Which load next?  A monotone search for the capacity under an SLO, or for the knee of the load curve.

Pure: ``next_point`` and ``outcome`` are functions of the scenario and of the windows held so far, so an
interrupted search goes on where it stood and anyone recomputes its result from the run folder.

*Capacity* is the highest load at which every limit is kept.  From a cheap first probe the load is doubled
(quadrupled while nothing waits) until a limit is missed; then the bracket [highest met, lowest missed] is
narrowed in log space until its ends are ``resolution_frac`` apart.  An overloaded probe shows the rate at
which the server serves, and the next probe goes just below it instead of to the middle.  A load whose
verdict is open, or whose windows were all spoilt by the client, is probed again, up to MAX_WINDOWS windows;
then the estimate decides, and that is said.  The load found is held until it has ``measure.repeats``
windows, or REPEATS.

The *knee* is the load of greatest power, throughput over time in system (Kleinrock, "Power and
deterministic rules of thumb for probabilistic problems in computer communications", ICC 1979): the load is
doubled until throughput grows by less than MIN_GAIN_FRAC, then its neighbourhood is probed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

from msgspec.structs import replace

from profiler import slo
from profiler.errors import InputError
from profiler.levels import KEEPS_UP_FRAC, MAX_WINDOWS, Level, Probe, levels, probes
from profiler.schema import LoadPoint
from profiler.settings import Scenario, Search
from profiler.store import RunResult
from profiler.windows import OPEN_MODES, WindowView

FIRST_RATE_PER_S = 1.0
REPEATS = 3
MIN_IN_FLIGHT = 0.1  # below this a request has the server for itself
MIN_GAIN_FRAC = 0.10
KNEE_STEP = 1.5
NOTHING_WAITS = 1.1
DIGITS = 4


@dataclass(frozen=True)
class Found:
    """The outcome of a search.  ``load`` is in ``unit``: the highest load found to keep the limits, or the
    knee; None: no load tried does.  ``above`` is the lowest load found to miss them, or the knee's upper
    neighbour; None: none was reached.  ``level`` holds the windows at ``load``."""

    find: Literal["capacity", "knee"]
    unit: Literal["requests_per_s", "concurrency"]
    load: float | None
    below: float | None
    above: float | None
    windows: int
    requests: int
    level: Level | None
    notes: tuple[str, ...]
    judged: tuple[slo.Judged, ...] = ()


def found(run: RunResult) -> Found:
    """The outcome of a run's search, with the verdict on each limit at the load found.

    Raises InputError when the run was no search.
    """
    if run.manifest.scenario.search is None:
        raise InputError(f"{run.folder} is no search: profile run --find capacity makes one")
    result = outcome(run.manifest.scenario, probes(run))
    if result.level is None:
        return result
    held = {each.point for each in result.level.probes}
    at = [window for window in run.manifest.windows if window.point in held]
    fair = [window for window in at if not (window.audit and window.audit.bound_by)]
    views = [WindowView(window, run.requests) for window in fair or at]
    wanted = slo.limits(run.manifest.scenario.slo)
    return dataclasses.replace(result, judged=slo.judge(views, wanted))


def next_point(scenario: Scenario, history: Sequence[Probe]) -> LoadPoint | None:
    """The next load to hold for one window; None when the search is over."""
    search = _search(scenario)
    if len(history) >= search.max_probes:
        return None
    found = levels(scenario, history)
    step = _next_capacity if search.find == "capacity" else _next_knee
    load = step(found, search) if found else _start(scenario)
    if load is None:
        top = _settled(found) if search.find == "capacity" else _strongest(found)
        wanting = top is not None and top.windows < (scenario.measure.repeats or REPEATS)
        load = top.load if top is not None and wanting else None
    return None if load is None else _point(scenario, load)


def _search(scenario: Scenario) -> Search:
    if scenario.search is None:
        raise ValueError("the scenario asks for no search")
    return scenario.search


def _is_open(scenario: Scenario) -> bool:
    return scenario.load.mode in OPEN_MODES


def _point(scenario: Scenario, load: float) -> LoadPoint:
    if _is_open(scenario):
        return LoadPoint(mode=scenario.load.mode, requests_per_s=load)
    return LoadPoint(mode=scenario.load.mode, concurrency=int(load))


def _start(scenario: Scenario) -> float:
    """The first load the user names, else a low one."""
    rates = scenario.load.requests_per_s or (FIRST_RATE_PER_S,)
    return rates[0] if _is_open(scenario) else float(scenario.load.concurrency[0])


def _tidy(load: float, scenario: Scenario) -> float:
    """Rates of DIGITS digits, whole numbers of slots."""
    return float(f"{load:.{DIGITS}g}") if _is_open(scenario) else float(max(1, round(load)))


# ------------------------------------------------------------------------------------------ capacity


def _settled(found: Sequence[Level]) -> Level | None:
    """The highest load that is met with no missed load below it."""
    missed = [level.load for level in found if level.verdict == "missed"]
    met = [
        level for level in found if level.verdict == "met" and level.load < min(missed, default=float("inf"))
    ]
    return met[-1] if met else None


def _contradiction(found: Sequence[Level]) -> tuple[Level, Level] | None:
    """A load that is missed although a higher one is met: (the lowest missed, the highest met)."""
    missed = [level for level in found if level.verdict == "missed"]
    met = [level for level in found if level.verdict == "met"]
    return (missed[0], met[-1]) if missed and met and missed[0].load < met[-1].load else None


def _next_capacity(found: list[Level], search: Search) -> float | None:
    for level in found:
        if level.verdict == "undecided":
            return level.load
    for level in _contradiction(found) or ():
        if level.windows < MAX_WINDOWS:
            return level.load
    best = _settled(found)
    worst = next((level for level in found if level.verdict == "missed"), None)
    if worst is None:
        return _higher(found)
    if best is None:
        return _lower(worst)
    return _between(best, worst, found, search)


def _higher(found: Sequence[Level]) -> float | None:
    """Further up: quickly while nothing waits, not at all when it is the client that cannot."""
    first, top = found[0], found[-1]
    if top.bound_by:
        return None
    scenario = top.scenario
    idle = bool(top.e2e_s and first.e2e_s and top.e2e_s <= NOTHING_WAITS * first.e2e_s)
    relaxed = idle and not any(late.late for late in top.late.values())
    load = top.load * (4 if relaxed else 2)
    if _is_open(scenario) and relaxed and top is first and top.e2e_s:
        load = max(load, 0.5 / top.e2e_s)  # even a server of one place would be half busy
    return _tidy(load, scenario)


def _lower(worst: Level) -> float | None:
    """Further down, until a request has the server for itself: then no load can be kept."""
    scenario = worst.scenario
    if not _is_open(scenario):
        return None if worst.load <= 1 else _tidy(max(1.0, worst.load / 4), scenario)
    alone = worst.e2e_s is not None and worst.load * worst.e2e_s < MIN_IN_FLIGHT
    if alone or (worst.e2e_s is None and worst.windows >= MAX_WINDOWS):
        return None
    if worst.e2e_s is None:
        return worst.load  # nothing was answered: once more before it is believed
    served = 0.9 * worst.completed_per_s
    return _tidy(served if worst.load / 16 < served < worst.load / 2 else worst.load / 4, scenario)


def _between(best: Level, worst: Level, found: Sequence[Level], search: Search) -> float | None:
    """The next load inside the bracket; None when it is narrow enough."""
    scenario, factor = best.scenario, 1 + search.resolution_frac
    low, high = best.load, worst.load
    if high <= low * factor * (1 + 10.0 ** (1 - DIGITS)):
        return None
    behind = [
        level.completed_per_s
        for level in found
        if level.verdict == "missed" and level.completed_per_s < KEEPS_UP_FRAC * level.load
    ]
    served = max(behind, default=0.0)
    # Around the service rate, so that two neighbours are a whole resolution apart.
    guesses = [served * factor**place for place in (-0.5, 0.5, -1.5)] if _is_open(scenario) else []
    inside = [guess for guess in guesses if low * sqrt(factor) < guess < high / sqrt(factor)]
    load = _tidy(inside[0] if inside else sqrt(low * high), scenario)
    return load if low < load < high else None


# ---------------------------------------------------------------------------------------------- knee


def _strongest(found: Sequence[Level]) -> Level | None:
    able = [level for level in found if level.steady]
    return max(able, key=lambda level: level.power) if able else None


def _next_knee(found: list[Level], _search: Search) -> float | None:
    for level in found:
        if level.bound_by and level.windows < MAX_WINDOWS:
            return level.load
    best = _strongest(found)
    if best is None:
        return _lower(found[0])
    top, scenario = found[-1], best.scenario
    below = found[-2] if len(found) > 1 else None
    gains = below is None or top.throughput_per_s >= (1 + MIN_GAIN_FRAC) * below.throughput_per_s
    if (gains or best is top) and top.steady and not top.bound_by:
        return _tidy(top.load * 2, scenario)
    place = found.index(best)
    for near, far in ((best.load, _load_at(found, place + 1)), (_load_at(found, place - 1), best.load)):
        if near is None or far is None or far / near <= KNEE_STEP:
            continue
        load = _tidy(sqrt(near * far), scenario)
        if near < load < far:
            return load
    return None


def _load_at(found: Sequence[Level], place: int) -> float | None:
    return found[place].load if 0 <= place < len(found) else None


# ------------------------------------------------------------------------------------------- outcome


def outcome(scenario: Scenario, history: Sequence[Probe]) -> Found:
    """What the windows held so far say."""
    search = _search(scenario)
    found = levels(scenario, history)
    capacity = search.find == "capacity"
    level = _settled(found) if capacity else _strongest(found)
    higher = [each for each in found if level is None or each.load > level.load]
    above = next((each for each in higher if not capacity or each.verdict == "missed"), None)
    below = [each.load for each in found if level is not None and each.load < level.load]
    notes = _capacity_notes(found, level, above) if capacity else []
    notes += [
        f"at {each.load:g} the client was the limit ({'; '.join(each.bound_by)})"
        for each in (level, above)
        if each is not None and each.bound_by
    ]
    if len(history) >= search.max_probes and next_point(_unbounded(scenario), history) is not None:
        notes.append(f"stopped after search.max_probes = {search.max_probes} windows, before it was done")
    return Found(
        find=search.find,
        unit="requests_per_s" if _is_open(scenario) else "concurrency",
        load=level.load if level else None,
        below=max(below, default=None),
        above=above.load if above else None,
        windows=len(history),
        requests=sum(each.requests for each in history),
        level=level,
        notes=tuple(notes),
    )


def _capacity_notes(found: Sequence[Level], level: Level | None, above: Level | None) -> list[str]:
    notes = []
    if level is None:
        worst = found[0] if found else None
        tried = f": at {worst.load:g} {', '.join(worst.reasons)}" if worst and worst.reasons else ""
        notes.append(f"no load tried keeps the limits{tried}")
    elif above is None:
        notes.append("no load tried misses the limits: the capacity is at least this")
    else:
        notes.append(f"missed at {above.load:g}: {', '.join(above.reasons)}")
    notes += [
        f"at {each.load:g} {each.windows} windows leave a limit open: decided by the estimate"
        for each in (level, above)
        if each is not None and each.doubtful
    ]
    clash = _contradiction(found)
    if clash:
        notes.append(f"not monotone: {clash[0].load:g} missed, {clash[1].load:g} met; the lower is believed")
    return notes


def _unbounded(scenario: Scenario) -> Scenario:
    return replace(scenario, search=replace(_search(scenario), max_probes=10**6))
