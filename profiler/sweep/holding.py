"""Holding a sweep: whatever ends it, the same command goes on where it was.

    for each visit that is missing, as long as the budget lasts and a place is free:
        its starts are noted as under way, then given to the executor
    for each start that comes back:
        folders that do not count are put aside, then the record takes it in

The record is on disk before anything is begun and after anything ended, and a start that a crash caught in
between is found by the group of its runs: sealed, it counts; otherwise it is held again.  So no start counts
twice, and none that was finished is lost.  What failed, was disturbed or lost its machine comes once more
when all else is done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple, Protocol

from msgspec.structs import replace

from profiler import store
from profiler.errors import ProfilerError
from profiler.nvml.holding import kept
from profiler.storage import Found, Home
from profiler.sweep import ledger, one, order
from profiler.sweep.nouns import Attempt, Began, Ended, News, Record, Start, UnderWay, Visit
from profiler.sweep.outline import Outline

MOST_DISTURBED = 2  # times that a disturbed start is held anew
NEWS_S = 1.0
PATIENCE_S = 600.0  # without any machine that takes what is left


class Executor(Protocol):
    """Where starts are held: on this machine or on those of a cluster."""

    def takes(self, visit: Visit) -> bool:
        """Whether a place for it is free now."""

    def submit(self, visit: Visit, noted: Mapping[str, UnderWay]) -> None:
        """Begin its starts, one after another; returns at once.  ``noted`` by their keys."""

    def news(self, timeout_s: float) -> Iterator[News]:
        """What happened since; waits for the first.  In the end each start that was submitted has one
        :class:`Ended`, and by then its sealed runs that count are in the home."""

    def recover(self, under_way: Sequence[UnderWay]) -> None:
        """Of a driver that is gone: end what is still held of these, and bring home what is sealed."""

    def close(self) -> None:
        """End all that is being held, and every process that was started; safe to repeat."""


Tell = Callable[[News, Record], None]
EndedBy = Literal["budget", "machines"]


class Ending(NamedTuple):
    """A sweep that is over for now.  ``by``: what ended it before all was held, None where nothing did."""

    record: Record
    by: EndedBy | None = None


def hold(outline: Outline, home: Home, executor: Executor, tell: Tell) -> Ending:
    """Hold what is missing, and return the record.

    What was held before an error or Ctrl-C stays.  ``tell`` hears of everything after it is on disk.
    Raises InputError where another process holds it or measures on a board of its; StoreError; what the
    executor raises; KeyboardInterrupt.
    """
    name = outline.record.name
    with ledger.locked(home, name), kept():
        book = _Book(outline, home, tell, ledger.read(home, name) or outline.record)
        try:
            book.recover(executor)
            return Ending(by=_drive(book, executor), record=book.record)
        finally:
            executor.close()
            with suppress(ProfilerError, OSError):  # a full disk: the next one to go on settles it
                book.settle(is_over=True)


def _drive(book: _Book, executor: Executor) -> EndedBy | None:
    """Until nothing is missing that may still be held."""
    queue, idle_since_s = book.missing(), time.monotonic()
    while queue or book.record.under_way:
        is_paid = _submit(queue, book, executor)
        if book.record.under_way:
            idle_since_s = time.monotonic()
        elif not is_paid:
            return "budget"
        elif time.monotonic() - idle_since_s > PATIENCE_S:
            return "machines"
        for each in executor.news(NEWS_S):
            book.hear(each)
        queue = book.without_given_up(queue)
        if not (queue or book.record.under_way):
            queue = book.missing()
    return None


def _submit(queue: list[Visit], book: _Book, executor: Executor) -> bool:
    """Give out, in their order, what there are places for; whether the budget lasted."""
    for visit in list(queue):
        if not executor.takes(visit):
            continue
        if not book.pays(visit):
            return False
        queue.remove(visit)
        executor.submit(visit, book.begin(visit))
    return True


class _Book:
    """The record as it is on disk, and what changes it."""

    def __init__(self, outline: Outline, home: Home, tell: Tell, record: Record) -> None:
        self.outline = outline
        self.home = home
        self.record = record
        self._tell = tell
        self._starts: dict[str, Start] = {}
        self._write()

    def _write(self, **changes: Any) -> None:
        """What is not on disk is not known here either."""
        record = replace(self.record, **changes)
        ledger.write(self.home, record)
        self.record = record

    def missing(self) -> list[Visit]:
        return self.outline.missing(self.record)

    def without_given_up(self, queue: list[Visit]) -> list[Visit]:
        """A model that never starts is not tried in every block."""
        over = order.given_up(self.outline.grid, self.record, self.outline.since).keys()
        if not over:
            return queue
        left = [
            replace(visit, starts=tuple(each for each in visit.starts if not _all_in(over, each)))
            for visit in queue
        ]
        return [visit for visit in left if visit.starts]

    def pays(self, visit: Visit) -> bool:
        """Whether the budget lasts for a visit beside what is under way."""
        if (budget := self.outline.budget) is None:
            return True
        ahead = [*(self._starts[each.key] for each in self.record.under_way), *visit.starts]
        takes = self.outline.cost(ahead, self.outline.pace(self.record))
        seconds = self.record.spent_s + takes.seconds
        usd = (self.record.spent_usd or 0.0) + (takes.usd or 0.0)
        return budget.pays(seconds, usd)

    def begin(self, visit: Visit) -> dict[str, UnderWay]:
        noted = {start.key: self._noted(start) for start in visit.starts}
        self._starts |= {start.key: start for start in visit.starts}
        self._write(under_way=(*self.record.under_way, *noted.values()))
        return noted

    def _noted(self, start: Start) -> UnderWay:
        return UnderWay(
            key=start.key,
            portions=one.portions(start),
            number=start.number,
            group=os.urandom(4).hex(),
            utc=now(),
            takes_disturbed=self._is_put_up_with(start),
        )

    def _is_put_up_with(self, start: Start) -> bool:
        """Whether a disturbed start counts by now: what disturbs a cell each time belongs to the machine."""
        return any(self._times_disturbed(cell, start.number) >= MOST_DISTURBED for cell in start.cells)

    def _times_disturbed(self, cell: str, number: int) -> int:
        """Of this start; of all starts of a cell that was never held undisturbed."""
        own = [each for each in self.record.attempts if cell in each.cells]
        if any(each.outcome == "held" and each.why is None for each in own):
            own = [each for each in own if each.number == number]
        return sum(each.outcome == "disturbed" for each in own)

    def hear(self, news: News) -> None:
        if isinstance(news, Ended):
            self._end(news.start.key, news.attempts)
        elif isinstance(news, Began) and news.place.node is not None:
            self._moved(news.start.key, news.place.node)
        self._tell(news, self.record)

    def _moved(self, key: str, node: str) -> None:
        each = [replace(one, node=node) if one.key == key else one for one in self.record.under_way]
        self._write(under_way=tuple(each))

    def _end(self, key: str, attempts: Sequence[Attempt]) -> None:
        """First aside what does not count: a crash in between has it held again, and never counted twice."""
        aside = [run for each in attempts if each.outcome != "held" for run in each.runs]
        self.home.put_aside(aside, ledger.aside_of(self.record.name))
        usd_per_s = self._usd_per_s(key)
        took_s = sum(each.took_s for each in attempts)
        before_usd = self.record.spent_usd
        self._write(
            attempts=(*self.record.attempts, *attempts),
            under_way=tuple(each for each in self.record.under_way if each.key != key),
            spent_s=self.record.spent_s + took_s,
            spent_usd=before_usd if usd_per_s is None else (before_usd or 0.0) + took_s * usd_per_s,
        )

    def _usd_per_s(self, key: str) -> float | None:
        start = self._starts.get(key)
        return None if start is None else self.outline.takes(start).usd_per_s

    # ------------------------------------------------------------------------------ after a crash

    def recover(self, executor: Executor) -> None:
        """What a driver that is gone left behind."""
        if self.record.under_way:
            executor.recover(self.record.under_way)
            self._starts |= {start.key: start for visit in self.missing() for start in visit.starts}
            self.settle()

    def settle(self, is_over: bool = False) -> None:
        """Judge what is under way by the runs it left, once nothing is held any more.  What left none was not
        begun: it is forgotten; where the sweep ``is_over`` and it was given to another machine, it may lie
        sealed there, and whoever goes on asks for it."""
        under_way = self.record.under_way
        groups = {each.group for each in under_way}
        found = self.home.grouped(groups) if groups else []
        for each in under_way:
            left = one.salvaged(each, [run for run in found if run.manifest.group == each.group])
            if left:
                self._take_in(left, attempts := one.judged(each, left))
                self._end(each.key, attempts)
            elif not (is_over and each.node):
                self._end(each.key, ())

    def _take_in(self, left: Sequence[Found], attempts: Sequence[Attempt]) -> None:
        counted = {run for each in attempts if each.outcome == "held" for run in each.runs}
        for run in left:
            if run.folder is not None and run.name in counted:
                store.tidy(run.folder)
                self.home.take_in(run.folder)


def _all_in(over: Collection[tuple[str, int]], start: Start) -> bool:
    return all((cell, start.number) in over for cell in start.cells)


def now() -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
