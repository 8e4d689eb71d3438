"""A line of the table before it is written out: Figures with what they cost on given terms.

Ten thousand of them are sorted, filtered and grouped by a column or two; the whole row is made for those that
are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from profiler import cost, figures
from profiler.comparison.columns import COLUMNS, ENDS
from profiler.cost import Costs
from profiler.cost.terms import Terms
from profiler.figures import NOTE_SEPARATOR, Figures
from profiler.schema import Estimate

Row = dict[str, Any]
T = TypeVar("T")
_EMPTY = dict.fromkeys(COLUMNS)
_HAS_COST = {*cost.ESTIMATES, *cost.FACTS, "notes"}
_ESTIMATE_OF = {
    end: (name, attr) for name, ends in ENDS.items() for end, attr in zip(ends, ("low", "high"), strict=True)
}
_ESTIMATE_OF |= {name: (name, "value") for name in ENDS}


class Line:
    """One load point of one run (``members`` empty), or of the runs of a group.  ``against`` holds the
    columns that a baseline adds, ``over`` the lines it was put over."""

    def __init__(self, found: Figures, price: Callable[[Figures], Costs]) -> None:
        self.found = found
        self.members: Sequence[Line] = ()
        self.against: Row = {}
        self.over: Sequence[Line] = ()
        self._price = price

    @cached_property
    def costs(self) -> Costs:
        return self._price(self.found)

    @property
    def runs(self) -> int:
        return len(self.members) or 1

    @property
    def folders(self) -> list[str]:
        return [each.found.run for each in self.members] or [self.found.run]

    def estimate(self, name: str) -> Estimate | None:
        return (self.costs if name in _HAS_COST else self.found).estimates.get(name)

    def values(self, name: str) -> list[float]:
        """The figure of each run; none unless all have it."""
        members = self.members or [self]
        if name in _HAS_COST:
            held = [line.costs.estimates for line in members]
        else:
            held = [line.found.estimates for line in members]
        return [each[name].value for each in held] if all(name in each for each in held) else []

    def value(self, column: str) -> Any:
        """One cell of the row."""
        if column in _ESTIMATE_OF:
            name, attr = _ESTIMATE_OF[column]
            held = self.estimate(name)
            return None if held is None else getattr(held, attr)
        if column in self.against:
            return self.against[column]
        return self.row()[column] if column in _HAS_COST or column == "runs" else self.found.facts.get(column)

    def row(self) -> Row:
        """Every name of COLUMNS, in that order, None where nothing is known; then what a baseline added."""
        row = _EMPTY.copy()
        for held in (self.found.estimates, self.costs.estimates):
            for name, each in held.items():
                if name in ENDS:
                    low, high = ENDS[name]
                    row[name], row[low], row[high] = each.value, each.low, each.high
        row.update(self.found.facts)
        row.update(self.costs.facts)
        row["runs"] = self.runs
        if self.costs.notes:
            notes = [row["notes"], *self.costs.notes] if row["notes"] else self.costs.notes
            row["notes"] = NOTE_SEPARATOR.join(notes)
        row.update(self.against)
        return row


def of(found: Sequence[Figures], terms: Terms) -> list[Line]:
    """A line each.  Costs are asked for when they are needed; raises InputError then where the terms do not
    fit."""
    if terms.pue is not None:
        found = [figures.with_pue(each, terms.pue) for each in found]
    alone = figures.prefill_s(found)

    def price(each: Figures) -> Costs:
        return cost.columns(each, alone[each.run], terms)

    return [Line(each, price) for each in found]


def same_load(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What rows share that may be compared with each other."""
    return row["scenario"], row["load"], row["concurrency"], row["load_requests_per_s"]


def ordered(held: Iterable[T], facts: Callable[[T], Mapping[str, Any]]) -> list[T]:
    """What is to be compared stands together: by scenario and load, models in the order given."""
    found = [(each, facts(each)) for each in held]
    models = _places(of["model"] for _, of in found)
    scenarios = _places(of["scenario"] for _, of in found)

    def key(each: tuple[T, Mapping[str, Any]]) -> tuple[Any, ...]:
        scenario, load, concurrency, rate = same_load(each[1])
        return scenarios[scenario], load, concurrency or 0, rate or 0.0, models[each[1]["model"]]

    return [each for each, _ in sorted(found, key=key)]


def _places(names: Iterable[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(dict.fromkeys(names))}
