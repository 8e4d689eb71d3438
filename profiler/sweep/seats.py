"""How long a sweep takes by the clock: visits given out to machines as they become free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from profiler.sweep import machines
from profiler.sweep.machines import Machine
from profiler.sweep.nouns import Start, Visit

ALL = 1 << 30


def wall_s(
    visits: Sequence[Visit], at_hand: Sequence[Machine], seconds: Mapping[str, float], pack: bool
) -> float:
    """``seconds`` by a start's key.  An engine has its machine to itself, unless they ``pack``; visits of one
    pair go to one machine."""
    free_s = [[0.0] * max(1, each.gpus if pack else 1) for each in at_hand]
    homes: dict[str, int] = {}
    for visit in visits:
        takes_s = sum(seconds[start.key] for start in visit.starts)
        if any(machines.spans(start.asked[0].scenario.engine) for start in visit.starts):
            end_s = max(max(each) for each in free_s) + takes_s
            free_s = [[end_s] * len(each) for each in free_s]
            continue
        wanted = _seats(visit) if pack else ALL
        place = homes.get(visit.pair)
        if place is None:
            fitting = [place for place, each in enumerate(at_hand) if takes(each, visit)]
            place = min(fitting or range(len(at_hand)), key=lambda each: _from_s(free_s[each], wanted))
            homes[visit.pair] = place
        seats = sorted(free_s[place])
        taken = min(wanted, len(seats))
        end_s = seats[taken - 1] + takes_s
        free_s[place] = [end_s] * taken + seats[taken:]
    return max((max(each) for each in free_s), default=0.0)


def _from_s(seats: Sequence[float], wanted: int) -> float:
    """When so many are free."""
    return sorted(seats)[min(wanted, len(seats)) - 1]


def _seats(visit: Visit) -> int:
    return max(start.gpus or 1 for start in visit.starts)


def takes(machine: Machine, visit: Visit) -> bool:
    """Whether it has the boards that a visit is to be held on."""
    return all(
        machines.is_of(machine, start.gpu) and _boards(start) <= machine.gpus for start in visit.starts
    )


def _boards(start: Start) -> int:
    """Of one machine: an engine that spans several takes what it gets."""
    return 0 if machines.spans(start.asked[0].scenario.engine) else start.gpus or 0
