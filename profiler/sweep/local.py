"""The executor of one machine: starts are held one after another, in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from profiler import host, host_facts
from profiler.loadgen.worker import LoadWorker
from profiler.measure import Show
from profiler.progress.part import Part
from profiler.storage import Home
from profiler.sweep import one
from profiler.sweep.nouns import Attempt, Began, Ended, Job, News, Place, Start, UnderWay, Visit


class Local:
    """See :class:`profiler.sweep.holding.Executor`.  ``starts``: how many there are to be held, for ``show``
    to say which this is."""

    def __init__(self, job: Job, home: Home, show: Show, starts: int) -> None:
        self._job = job
        self._home = home
        self._show = show
        self._open = ExitStack()
        self._worker: LoadWorker | None = None
        self._place = Place(machine=host_facts.facts(host.collect()))
        self._next: tuple[Visit, Mapping[str, UnderWay]] | None = None
        self._begun = 0
        self._starts = starts

    def takes(self, visit: Visit) -> bool:  # noqa: ARG002  (there is one place, for any)
        return self._next is None

    def submit(self, visit: Visit, noted: Mapping[str, UnderWay]) -> None:
        self._next = visit, noted

    def news(self, timeout_s: float) -> Iterator[News]:  # noqa: ARG002  (it is made here)
        if self._next is None:
            return
        visit, noted = self._next
        for start in visit.starts:
            yield Began(start, self._place)
            yield Ended(start, self._hold(start, noted[start.key]))
        self._next = None

    def _hold(self, start: Start, noted: UnderWay) -> tuple[Attempt, ...]:
        self._begun += 1
        self._starts = max(self._starts, self._begun)  # some are held again
        where = f"start {self._begun} of {self._starts}"
        part = Part(self._show, where, self._starts - self._begun)
        self._worker = self._worker or self._open.enter_context(LoadWorker())
        attempts = one.hold(start, self._job, self._home.scratch, part, self._worker, noted)
        if any(each.outcome == "failed" for each in attempts):
            self.close()  # whatever was the matter, the next start has a load generator of its own
        for run in (run for each in attempts if each.outcome == "held" for run in each.runs):
            self._home.take_in(self._home.scratch / run)
        return attempts

    def recover(self, under_way: Sequence[UnderWay]) -> None:
        """What this machine had begun lies in the home, or in its scratch: nothing to bring."""

    def close(self) -> None:
        self._worker = None
        self._open.close()
