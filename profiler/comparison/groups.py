"""``--by``: repeated runs pooled, a line a group.

The unit of replication is the run: a figure is the mean over runs with the t interval on logarithms of
``stats.over_repeats``, of a single run its own.  What is pooled was asked for the same requests at the same
load of the same model, routed alike, on the same engine, precision and machine; where a group falls apart by
that, each part is a line and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from msgspec.structs import replace

from profiler import cost, stats
from profiler.comparison.choice import column
from profiler.comparison.lines import Line, same_load
from profiler.cost import Costs
from profiler.figures import NOTE_SEPARATOR
from profiler.schema import Estimate

OVER = "runs"
SUMMED = ("requests_ok", "requests_failed", "repeats", "first_wave_requests")
WORST = (
    *("send_lag_p99_s", "client_cpu_frac", "loop_lag_p99_s", "sampler_cpu_frac", "sampler_late_s_max"),
    *("others_cpu_cores", "cpu_steal_frac"),
)
NOTES = ("notes", "energy_trouble")
LISTS = ("client_bound", "slo_verdicts", "failures", "status")


def pool(lines: Iterable[Line], by: Sequence[str]) -> list[Line]:
    """A line for each group, in the order in which they begin."""
    columns = [column(name, "--by") for name in by]
    groups: dict[tuple[Any, ...], dict[tuple[str, str], list[Line]]] = {}
    for line in lines:
        key = (*(line.value(name) for name in columns), *same_load(line.found.facts))
        groups.setdefault(key, {}).setdefault((line.found.alike, line.found.work), []).append(line)
    return [_pooled(members, len(kinds)) for kinds in groups.values() for members in kinds.values()]


def _pooled(members: list[Line], kinds: int) -> Line:
    apart = (
        f"{kinds} kinds of runs in this group are kept apart: engine, precision, routing, machine or the "
        "lengths of requests differ"
    )
    notes = [apart] if kinds > 1 else []
    first = members[0]
    if len(members) == 1 and not notes:
        return first
    estimates, missing = _means([each.found.estimates for each in members])
    facts = {name: _fact(name, [each.found.facts[name] for each in members]) for name in first.found.facts}
    notes += [f"n/a in some of {len(members)} runs, so of all: {', '.join(missing)}"] if missing else []
    facts["notes"] = NOTE_SEPARATOR.join([*notes, *filter(None, [facts["notes"]])]) or None
    found = Line(replace(first.found, estimates=estimates, facts=facts), lambda _: _costs(members))
    found.members = members
    return found


def _costs(members: Sequence[Line]) -> Costs:
    each = [line.costs for line in members]
    facts = {name: _fact(name, [costs.facts[name] for costs in each]) for name in cost.FACTS}
    estimates, _ = _means([costs.estimates for costs in each])
    return Costs(estimates, facts, tuple(dict.fromkeys(note for costs in each for note in costs.notes)))


def _means(held: Sequence[dict[str, Estimate]]) -> tuple[dict[str, Estimate], list[str]]:
    """The mean of each figure, and the names of those that one of the runs lacks: the group lacks them."""
    if len(held) == 1:
        return held[0], []
    counts = Counter(chain.from_iterable(held))
    means = {
        name: _mean(name, [each[name].value for each in held])
        for name, count in counts.items()
        if count == len(held)
    }
    return means, [name for name, count in counts.items() if count < len(held)]


def _mean(name: str, values: Sequence[float]) -> Estimate:
    found = replace(stats.over_repeats(values), over=OVER)
    if name.endswith("_frac") and found.high is not None:  # no share is above 1
        return replace(found, high=min(found.high, max(1.0, found.value)))
    return found


def _fact(name: str, values: Sequence[Any]) -> Any:
    """What the runs agree on; else their sum, worst or mean where that means something, None elsewhere."""
    if name in SUMMED:
        counted = [value for value in values if value is not None]
        return sum(counted) if counted else None
    if values.count(values[0]) == len(values):
        return values[0]
    known = list(dict.fromkeys(value for value in values if value is not None))
    if name in WORST:
        return max(known)
    if name in NOTES or name in LISTS:
        mark = NOTE_SEPARATOR if name in NOTES else ", "
        return mark.join(dict.fromkeys(word for text in known for word in text.split(mark)))
    if name == "shared_gpu":
        return True if True in known else None
    is_figure = all(isinstance(value, float) for value in values)
    return sum(values) / len(values) if is_figure else None
