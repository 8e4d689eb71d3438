"""A grid and what is done of it → an Outline: everything is resolved, checked, fitted to the machines and
priced before anything is started or written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from profiler import host_facts, pace, prices, spending
from profiler.errors import InputError
from profiler.prepare import Plan
from profiler.report.ahead import duration
from profiler.schema import Manifest
from profiler.spending import Budget
from profiler.sweep import fitting, order, seats
from profiler.sweep.fitting import Fitting
from profiler.sweep.machines import Fitted, Machine
from profiler.sweep.nouns import Attempt, Grid, Job, Record, Start, Visit

Cells = tuple[str, ...]
# Of each run folder beside its windows: opening and sealing it.  The load generator is up and weighed.
AROUND_S = 1.0
AS_SO_FAR = "as the starts of this sweep so far"


class Asked(Struct, frozen=True, kw_only=True):
    """What a user asked for beside the file, which it outweighs.  ``is_dry``: only to be told what it takes,
    on machines that may not be here.  ``out``: where earlier runs lie on this machine, if they do; ``runs``:
    names of all that the sweep's home has, where that is known."""

    price: str | None = None
    budget: str | None = None
    seed: int | None = None
    retry_failed: bool = False
    is_dry: bool = False
    out: Path | None = None
    runs: tuple[str, ...] | None = None


class Takes(NamedTuple):
    """What an engine start takes: seconds of the machine that holds it, and USD a second of the ``gpus`` that
    its engine uses, None without a price.  ``boards``: what those are called, None where it uses none.
    ``grounds``: what the seconds rest on, in words."""

    seconds: float
    gpus: int
    boards: str | None
    usd_per_s: float | None
    grounds: tuple[str, ...]

    @property
    def usd(self) -> float | None:
        return None if self.usd_per_s is None else self.usd_per_s * self.seconds


class Spent(NamedTuple):
    """Seconds of machines, and USD; None without a price."""

    seconds: float
    usd: float | None


class Outline(Struct, frozen=True, kw_only=True, dict=True):
    """A sweep that can begin or go on.  ``record`` is as it was read, or new; failures among its attempts
    before ``since`` are forgiven.  ``visits``: all that is missing, in order, as far as it is not given up.
    ``wall_s``: by the clock, on all ``machines``.  ``notes``: what to know before it starts."""

    grid: Grid
    job: Job
    record: Record
    since: int
    machines: tuple[Machine, ...]
    visits: tuple[Visit, ...]
    each: Mapping[Cells, Takes]
    wall_s: float
    budget: Budget | None = None
    notes: tuple[str, ...] = ()

    def takes(self, start: Start) -> Takes:
        """Of one that part of the cells are held of already: what all of them take."""
        return self.each.get(start.cells) or self._of_cell[start.cells[0]]

    @cached_property
    def _of_cell(self) -> dict[str, Takes]:
        largest_last = sorted(self.each.items(), key=lambda known: len(known[0]))
        return {cell: takes for cells, takes in largest_last for cell in cells}

    def missing(self, record: Record) -> list[Visit]:
        """What ``record`` leaves to be held, in order, each start with as many GPUs as it needs."""
        return [
            _on_gpus(visit, self.takes) for visit in order.visits(self.grid, record, record.seed, self.since)
        ]

    @cached_property
    def starts(self) -> tuple[Start, ...]:
        return tuple(start for visit in self.visits for start in visit.starts)

    @cached_property
    def whole(self) -> Spent:
        """What all that is missing takes."""
        return self.cost(self.starts)

    def left(self, record: Record) -> Spent:
        """What the starts take that are still to come, at the pace so far."""
        done = {(cell, each.number) for each in self._news(record) for cell in each.cells}
        done |= order.given_up(self.grid, record, self.since).keys()
        rest = [each for each in self.starts if any((cell, each.number) not in done for cell in each.cells)]
        return self.cost(rest, self.pace(record))

    def pace(self, record: Record) -> float:
        """How many times as long as expected the starts took that were held since this was planned."""
        paced = [each for each in self._news(record) if each.cells in self.each]
        known_s = sum(self.each[each.cells].seconds for each in paced)
        return sum(each.took_s for each in paced) / known_s if known_s else 1.0

    def _news(self, record: Record) -> list[Attempt]:
        return [each for each in record.attempts[len(self.record.attempts) :] if each.outcome == "held"]

    def cost(self, starts: Iterable[Start], times: float = 1.0) -> Spent:
        """What these take, so many ``times`` as long as expected."""
        found = [self.takes(start) for start in starts]
        paid = [each.usd for each in found if each.usd is not None]
        return Spent(times * sum(each.seconds for each in found), times * sum(paid) if paid else None)


def outline(grid: Grid, record: Record | None, at_hand: Sequence[Machine], asked: Asked) -> Outline:
    """Nothing is started or written.  Raises InputError, in one line, for machines that cannot hold a cell,
    models that are not to be had, and a budget that pays for nothing."""
    record = record or Record(name=grid.name, seed=_seed(grid, asked))
    since = len(record.attempts) if asked.retry_failed else 0
    visits = order.visits(grid, record, record.seed, since)
    job = Job(name=grid.name, price=_price(grid, asked))
    with Fitting(grid.label, at_hand, job.price, asked.is_dry) as fits:
        fitted = {start.cells: fits.of(start) for start in _unlike(grid, visits)}
    earlier = _Earlier(asked.out)
    each = _paced({cells: _takes(fit, earlier) for cells, fit in fitted.items()}, record)
    visits = [_on_gpus(visit, lambda start: each[start.cells]) for visit in visits]
    used = _used(visits, at_hand, fitted.values())
    seconds = {start.key: each[start.cells].seconds for visit in visits for start in visit.starts}
    found = Outline(
        grid=grid,
        job=job,
        record=record,
        since=since,
        machines=tuple(used),
        visits=tuple(visits),
        each=each,
        wall_s=seats.wall_s(visits, used, seconds, grid.file.pack),
        notes=tuple(
            dict.fromkeys(
                [
                    *_notes(grid, record, asked, fitted.values()),
                    *_of_machines(used, visits),
                    *_elsewhere(record, at_hand, visits),
                ]
            )
        ),
    )
    return replace(found, budget=_budget(found, asked))


def _seed(grid: Grid, asked: Asked) -> int:
    given = grid.file.seed if asked.seed is None else asked.seed
    return int.from_bytes(os.urandom(4)) if given is None else given


def _price(grid: Grid, asked: Asked) -> str | None:
    given = grid.file.price if asked.price is None else asked.price
    return None if given is None else str(given)


def _unlike(grid: Grid, visits: Iterable[Visit]) -> list[Start]:
    """One start of each kind, in the order of the grid: of the same file always the same is refused."""
    found = {start.cells: start for visit in visits for start in visit.starts}
    place = {cell.id: number for number, cell in enumerate(grid.cells)}
    return sorted(found.values(), key=lambda start: place[start.cells[0]])


def _used(visits: Sequence[Visit], at_hand: Sequence[Machine], fitted: Iterable[Fitted]) -> list[Machine]:
    """The machines that something is held on, those that are only imagined among them."""
    imagined = {fit.machine.boards: fit.machine for fit in fitted if fit.machine.is_imagined}
    every = [*at_hand, *imagined.values()]
    return [each for each in every if any(seats.takes(each, visit) for visit in visits)] or every


def _on_gpus(visit: Visit, takes: Callable[[Start], Takes]) -> Visit:
    return replace(visit, starts=tuple(replace(each, gpus=takes(each).gpus) for each in visit.starts))


# ------------------------------------------------------------------------------------ what a start takes


class _Earlier:
    """Runs of a model on a machine, looked for once."""

    def __init__(self, out: Path | None) -> None:
        self._out = out
        self._known: dict[str, list[Manifest]] = {}

    def of(self, plan: Plan) -> list[Manifest]:
        if self._out is None:
            return []
        key = repr((plan.models[0].name, plan.settings[0].kind, host_facts.facts(plan.host)))
        if key not in self._known:
            self._known[key] = pace.earlier(plan, self._out)
        return self._known[key]


def _takes(fit: Fitted, earlier: _Earlier) -> Takes:
    """The engine starts once, and idles once for its baselines."""
    known = [earlier.of(replace(plan, host=fit.machine.host)) for plan in fit.plans]
    legs = [pace.leg_takes(plan, runs) for plan, runs in zip(fit.plans, known, strict=True)]
    around_s = legs[0].around_s - pace.AROUND_S + len(legs) * AROUND_S
    grounds = dict.fromkeys(words for leg in legs for words in leg.grounds)
    return Takes(
        seconds=legs[0].start_s + around_s + sum(leg.windows_s for leg in legs),
        gpus=fit.gpus,
        boards=fit.machine.cards[0].name if fit.gpus and fit.machine.gpus else None,
        usd_per_s=prices.usd_per_s(fit.plans[0].price, fit.gpus or 1),
        grounds=tuple(grounds),
    )


def _paced(each: dict[Cells, Takes], record: Record) -> dict[Cells, Takes]:
    """As long as starts of the same cells have taken before, where some are held."""
    before = [held for held in _counted(record) if held.cells in each]
    if not before:
        return each
    times = sum(held.took_s for held in before) / sum(each[held.cells].seconds for held in before)
    return {
        cells: takes._replace(seconds=times * takes.seconds, grounds=(AS_SO_FAR,))
        for cells, takes in each.items()
    }


# ------------------------------------------------------------------------------------------ the budget


def _budget(found: Outline, asked: Asked) -> Budget | None:
    """Machine time and money.  Raises InputError for one that does not pay for the first visit of a sweep."""
    where = f"{found.grid.label}: budget" if asked.budget is None else "--budget"
    rates = [each.usd_per_s for each in found.each.values() if each.usd_per_s is not None]
    text = found.grid.file.budget if asked.budget is None else asked.budget
    budget = spending.read(text, max(rates, default=None) if found.each else 0.0, where)
    if budget is None or not found.visits or found.record.spent_s:
        return budget
    seconds, usd = found.cost(found.visits[0].starts)
    if not budget.pays(seconds, usd):
        money = "" if usd is None else f" and {usd:.2f} USD"
        raise InputError(f"{where} {text}: the first starts alone take about {duration(seconds)}{money}")
    return budget


# ------------------------------------------------------------------------------------------- the notes


def _notes(grid: Grid, record: Record, asked: Asked, fitted: Iterable[Fitted]) -> Iterator[str]:
    if asked.seed not in (None, record.seed):
        yield f"--seed {asked.seed}: the order of this sweep was drawn with {record.seed}, and stays"
    if left := order.unasked(grid, record):
        yield f"{len(left)} that are held (cells × starts) are not asked for any more: they stay as they are"
    counted = {run for each in _counted(record) for run in each.runs}
    if gone := sorted(counted.difference(counted if asked.runs is None else asked.runs)):
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        yield f"{gone[0]}{more} counts as held and is not there any more: it is not held again"
    for fit in fitted:
        if fit.machine.is_imagined:
            yield f"no machine at hand has a {fit.machine.gpu}: planned for one with {fit.machine.boards}"
        yield from (note for plan in fit.plans for note in plan.notes)


def _counted(record: Record) -> list[Attempt]:
    return [each for each in record.attempts if each.outcome == "held"]


def _elsewhere(record: Record, at_hand: Sequence[Machine], visits: Sequence[Visit]) -> Iterator[str]:
    """What is held on machines, or by versions of an engine, that are not at hand any more."""
    here = [host_facts.facts(each.host) for each in at_hand if not each.is_imagined]
    there = [each.place.machine for each in _counted(record) if each.place]
    if not visits or not here or not (unlike := [each for each in there if each not in here]):
        return
    first = unlike[0]
    words = [f"{name} {first.get(name)} ≠ {new}" for name, new in here[0].items() if first.get(name) != new]
    yield (
        f"{len(unlike)} of {len(there)} engine starts so far had a machine unlike those at hand, and their "
        f"runs are never pooled with what comes: {'; '.join(words)}"
    )


def _of_machines(used: Sequence[Machine], visits: Sequence[Visit]) -> Iterator[str]:
    """Machines with boards of one kind whose runs are never pooled; those that nothing is held on."""
    kinds: dict[str, list[Machine]] = {}
    for each in fitting.unlike(used):
        kinds.setdefault(each.cards[0].name if each.gpus else "no GPU", []).append(each)
    for name, (first, *others) in kinds.items():
        for other in others:
            if unlike := host_facts.differences(first.host, other.host):
                pair = f"{first.name} and {other.name} ({name})"
                yield f"{pair} are unlike, and their runs are never pooled: {'; '.join(unlike)}"
    pairs = len({visit.pair for visit in visits})
    if 0 < pairs < len(used):
        yield (
            f"{len(used) - pairs} of {len(used)} machines stay idle: what is to be compared is held on one "
            "(interleave = [] spreads it)"
        )
