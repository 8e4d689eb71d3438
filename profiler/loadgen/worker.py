"""The profiler's side of the load generator.

Children of its own send, stamp and keep, so that nothing of ours disturbs them (see
:mod:`profiler.loadgen.child`): one, or as many as the load takes.  Both sides speak JSON lines over the
child's stdin and stdout; the API key travels nowhere else.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Protocol

from msgspec import structs

from profiler.client import Calibration, Clock
from profiler.errors import EngineError, LoadError
from profiler.loadgen.audit import merged_window
from profiler.loadgen.crew import Crew, merge_parts, part_path
from profiler.loadgen.job import Finished, LoadJob, Part, Progress, Start
from profiler.loadgen.process import LoadProcess, Member
from profiler.schema import Endpoint, Window

CHECK_EVERY_S = 0.25
ENGINE_CHECKS = 10  # within a second
CANCEL_PATIENCE_S = 30.0  # with processes that say nothing; to decode a long window may take more
BUSY_FRAC = 0.5  # above it a load process gets help
CLOCK_FRAC = 0.01  # of a window by which another machine's part of it may be displaced
SALT_STEP = 1 << 40  # far beyond any salt a run has of itself


class Others(Protocol):
    """``count`` machines that send beside this one.  ``most``: load processes that each may have."""

    count: int
    most: int

    def team(self, each: int, endpoint: Endpoint) -> list[list[Member]]:
        """So many load processes of each machine, all of which reach the endpoint.  LoadError."""

    def close(self) -> None:
        """End them all."""


class LoadWorker:
    """Owns the load processes of this machine; a context manager.  Windows are run one after another.

    Where the job does not say how many processes hold its load, one begins.  When its warm-up, or the last
    window where there is no warm-up to tell by, took more than half a core, the load is started anew (with
    fresh prompts) with twice as many, and stays with them.

    A job for several machines needs ``others``; they have as many processes each.  ``calibrations``: when
    (``time.monotonic``) and how it was calibrated so far.
    """

    def __init__(self) -> None:
        self.others: Others | None = None
        self._processes: list[LoadProcess] = []
        self._wanted = 1
        self._restarts = 0
        self.calibrations: list[tuple[float, Calibration]] = []
        self._clocks: tuple[Clock, ...] = ()
        self.cut_short: Window | None = None

    def __enter__(self) -> LoadWorker:
        self._processes = [LoadProcess()]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def kept_to(self, cores: set[int]) -> Iterator[None]:
        """Inside the block the load processes run on these cores; none: wherever they do."""
        before = [(each.popen.pid, os.sched_getaffinity(each.popen.pid)) for each in self._processes if cores]
        for pid, _ in before:
            _pin(pid, cores)
        try:
            yield
        finally:
            for pid, own in before:
                with suppress(OSError):  # it died, and whoever needs it next will say so
                    _pin(pid, own)

    def close(self) -> None:
        """End the load processes; safe to repeat."""
        self.part_with_others()
        self._keep(0)

    def part_with_others(self) -> None:
        """Send alone from now on."""
        if self.others is not None:
            self.others.close()
        self.others = None

    def renew(self) -> None:
        """As it began: what an earlier load took says nothing of the next."""
        self._wanted, self._restarts = 1, 0
        self._keep(1)

    def _keep(self, count: int) -> None:
        for process in self._processes[count:]:
            process.dismiss()
        while len(self._processes) > count:
            self._processes.pop().close()

    def ask(self, endpoint: Endpoint, timeout_s: float = 30.0) -> Endpoint:
        """The endpoint as it turns out to be: how it talks (:func:`profiler.loadgen.probe.probe`).

        Raises InputError, one line with advice, when it cannot be measured; LoadError.
        """
        return self._own(1)[0].ask(endpoint, timeout_s)

    def run(self, job: LoadJob, on_progress: Callable[[Progress], None], check: Callable[[], None]) -> Window:
        """Hold one load point once; its records are in ``job.records_path`` on return.

        ``check`` is called some four times a second.  Whatever it raises (and KeyboardInterrupt) ends
        the window early: the records so far are written, then it is raised again.  EngineError when the
        window was given up because the endpoint could not be reached any more, LoadError when because the
        disk took no more, or when a load process itself fails; what there is of its records is written too,
        and in each case ``cut_short`` is the window.
        """
        self.cut_short = None
        while True:
            most = self._most(job)
            count = min(most, job.load.processes or self._wanted)
            shards = min(job.load.machines * count, _slots(job))
            part = Part(shards=shards, may_grow=job.load.processes is None and 2 * count <= most)
            finished = self._hold(self._salted(job), part, on_progress, check)
            if not any(each.crowded for each in finished):
                break
            self._wanted = 2 * count
            self._restarts += 1
        window = _merged(finished, self._clocks)
        if part.may_grow and window.audit is not None and (window.audit.cpu_frac or 0) > BUSY_FRAC:
            self._wanted = 2 * count
        if any(each.full for each in finished):
            self.cut_short = window
            raise LoadError(str(window.trouble))
        lost = next((each.lost for each in finished if each.lost is not None), None)
        if lost is not None:
            self.cut_short = window
            _let_engine_speak(check)
            raise EngineError(f"the endpoint at {job.endpoint.base_url} {lost}")
        return window

    def _salted(self, job: LoadJob) -> LoadJob:
        """What was sent before a load was started anew must not be sent again: a cache would know it."""
        return structs.replace(job, prompt_salt=job.prompt_salt + self._restarts * SALT_STEP)

    def _most(self, job: LoadJob) -> int:
        """How many processes each machine may have for this load."""
        most = most_processes(job)
        return most if job.load.machines == 1 or self.others is None else min(most, self.others.most)

    def _hold(
        self, job: LoadJob, part: Part, on_progress: Callable[[Progress], None], check: Callable[[], None]
    ) -> list[Finished]:
        """Hold the load with this many processes; what each of them says at its end."""
        members = self._team(job, part.shards)
        crew = Crew(members, on_progress)
        try:
            for shard, member in enumerate(members):
                path = job.records_path if part.shards == 1 else str(part_path(job.records_path, shard))
                own = structs.replace(part, shard=shard)
                member.tell(Start(structs.replace(job, records_path=path), own))
            self._follow(crew, check)
        except BaseException:
            self._end(crew)
            raise
        finally:
            if part.shards > 1:
                merge_parts(job.records_path, [member.ahead_ns for member in members])
        for failure in crew.failures.values():
            self.part_with_others()  # one of them may be lost; whoever needs others is to look anew
            self._note_cut(crew, str(failure).partition("\n")[0])
            raise failure
        self._clocks = _clocks(members)
        return [crew.finished[shard] for shard in range(part.shards)]

    def _own(self, count: int) -> list[LoadProcess]:
        """So many of this machine."""
        if not self._processes:
            raise LoadError("the load process was not started: use LoadWorker in a with statement")
        while len(self._processes) < count:
            self._processes.append(LoadProcess())
        return self._processes[:count]

    def _team(self, job: LoadJob, count: int) -> list[Member]:
        """So many for this load, of all machines in turn, their clocks known."""
        machines = min(count, job.load.machines)
        each = -(-count // machines)
        own: list[list[Member]] = [[*self._own(each)]]
        if machines > 1:
            if self.others is None:
                raise LoadError("no machine beside this one was told to send a part of the load")
            own += self.others.team(each, job.endpoint)[: machines - 1]
        members = [member for turn in zip(*own, strict=True) for member in turn][:count]
        for member in members:
            member.synchronise()
        return members

    def _follow(self, crew: Crew, check: Callable[[], None], patience_s: float = math.inf) -> None:
        began_s, checked_s = time.monotonic(), 0.0
        while not crew.is_done:
            crew.follow(CHECK_EVERY_S)
            now_s = time.monotonic()
            if now_s - max(began_s, crew.decoding_s) > patience_s:
                raise LoadError("the load generator did not stop in time")
            if now_s - checked_s >= CHECK_EVERY_S and not crew.is_done:
                checked_s = now_s
                check()

    def _end(self, crew: Crew) -> None:
        """Cancel the window and wait until its records are written."""
        crew.mute()
        crew.cancel()
        try:
            self._follow(crew, lambda: None, CANCEL_PATIENCE_S)
        except LoadError:
            crew.kill_rest()
        self._note_cut(crew)

    def _note_cut(self, crew: Crew, trouble: str | None = None) -> None:
        """What there is of a window that ended early."""
        if crew.finished:
            window = _merged(list(crew.finished.values()))
            self.cut_short = structs.replace(window, trouble=trouble or window.trouble)


def _let_engine_speak(check: Callable[[], None]) -> None:
    """An engine of ours that died knows more about it, once its supervisor has seen it."""
    for _ in range(ENGINE_CHECKS):
        check()
        time.sleep(1.0 / ENGINE_CHECKS)


def _pin(pid: int, cores: set[int]) -> None:
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), cores)


def _merged(finished: list[Finished], clocks: tuple[Clock, ...] = ()) -> Window:
    window = merged_window([each.window for each in finished], [each.pace for each in finished])
    if not clocks or window.audit is None:
        return window
    audit, span_ns = window.audit, (window.steady_end_ns or 0) - (window.steady_start_ns or 0)
    vague = tuple(
        f"the clock of {each.machine} is known within {each.bound_s * 1e3:.2g} ms only"
        for each in clocks
        if each.bound_s * 1e9 > CLOCK_FRAC * span_ns
    )
    bound_by = (*audit.bound_by, *vague)
    return structs.replace(window, audit=structs.replace(audit, clocks=clocks, bound_by=bound_by))


def _clocks(members: list[Member]) -> tuple[Clock, ...]:
    """Of each other machine what is known of its clock, by the process that knows least."""
    found: dict[str, Clock] = {}
    for member in members:
        clock = member.clock()
        if clock is not None and clock.bound_s >= found.get(clock.machine, clock).bound_s:
            found[clock.machine] = clock
    return tuple(found.values())


def _slots(job: LoadJob) -> int:
    return job.point.concurrency or 1 << 30


def most_processes(job: LoadJob) -> int:
    """How many processes of a machine may hold this load: half of the cores when nobody said how many, the
    rest is for the engine; and no more than there are slots for."""
    slots = -(-_slots(job) // job.load.machines)
    wanted = job.load.processes or max(1, len(os.sched_getaffinity(0)) // 2)
    return min(slots, wanted)
