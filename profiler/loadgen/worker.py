"""The profiler's side of the load generator.

Children of its own send, stamp and keep, so that nothing of ours disturbs them (see
:mod:`profiler.loadgen.child`): one, or as many as the load takes.  Both sides speak JSON lines over the
child's stdin and stdout; the API key travels nowhere else.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from types import TracebackType

from msgspec import structs

from profiler.errors import EngineError, LoadError
from profiler.loadgen.audit import merged_window
from profiler.loadgen.crew import Crew, LoadProcess, merge_parts, part_path
from profiler.loadgen.job import Finished, LoadJob, Part, Progress, Start
from profiler.schema import Endpoint, Window

CHECK_EVERY_S = 0.25
CANCEL_PATIENCE_S = 30.0  # with processes that say nothing; to decode a long window may take more
BUSY_FRAC = 0.5  # above it a load process gets help
SALT_STEP = 1 << 40  # far beyond any salt a run has of itself


class LoadWorker:
    """Owns the load processes; a context manager.  Windows are run one after another.

    Where the job does not say how many processes hold its load, one begins.  When its warm-up, or the last
    window where there is no warm-up to tell by, took more than half a core, the load is started anew (with
    fresh prompts) with twice as many, and stays with them.
    """

    def __init__(self) -> None:
        self._processes: list[LoadProcess] = []
        self._wanted = 1
        self._restarts = 0
        self.cut_short: Window | None = None

    def __enter__(self) -> LoadWorker:
        self._processes = [LoadProcess()]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def keep_to(self, cores: set[int]) -> None:
        """Have the load processes run on these cores from now on; none: wherever they do."""
        for process in self._processes if cores else ():
            for thread in os.listdir(f"/proc/{process.popen.pid}/task"):
                os.sched_setaffinity(int(thread), cores)

    def close(self) -> None:
        """End the load processes; safe to repeat."""
        for process in self._processes:
            process.dismiss()
        while self._processes:
            self._processes.pop().close()

    def ask(self, endpoint: Endpoint, timeout_s: float = 30.0) -> Endpoint:
        """The endpoint as it turns out to be: how it talks (:func:`profiler.loadgen.probe.probe`).

        Raises InputError, one line with advice, when it cannot be measured; LoadError.
        """
        return self._team(1)[0].ask(endpoint, timeout_s)

    def run(self, job: LoadJob, on_progress: Callable[[Progress], None], check: Callable[[], None]) -> Window:
        """Hold one load point once; its records are in ``job.records_path`` on return.

        ``check`` is called some four times a second.  Whatever it raises (and KeyboardInterrupt) ends
        the window early: the records so far are written, then it is raised again.  EngineError when the
        window was given up because the endpoint could not be reached any more, LoadError when because the
        disk took no more; its records are written too, and in each case ``cut_short`` is the window.
        LoadError as well when a load process itself fails.
        """
        self.cut_short = None
        while True:
            most = most_processes(job)
            count = min(most, job.load.processes or self._wanted)
            part = Part(shards=count, may_grow=job.load.processes is None and 2 * count <= most)
            finished = self._hold(self._salted(job), part, on_progress, check)
            if not any(each.crowded for each in finished):
                break
            self._wanted = 2 * count
            self._restarts += 1
        window = _merged(finished)
        if part.may_grow and window.audit is not None and (window.audit.cpu_frac or 0) > BUSY_FRAC:
            self._wanted = 2 * count
        if any(each.full for each in finished):
            self.cut_short = window
            raise LoadError(str(window.trouble))
        lost = next((each.unreachable for each in finished if each.unreachable is not None), None)
        if lost is not None:
            self.cut_short = window
            check()  # an engine of ours that died knows more about it
            raise EngineError(f"the endpoint at {job.endpoint.base_url} stopped answering: {lost}")
        return window

    def _salted(self, job: LoadJob) -> LoadJob:
        """What was sent before a load was started anew must not be sent again: a cache would know it."""
        return structs.replace(job, prompt_salt=job.prompt_salt + self._restarts * SALT_STEP)

    def _hold(
        self, job: LoadJob, part: Part, on_progress: Callable[[Progress], None], check: Callable[[], None]
    ) -> list[Finished]:
        """Hold the load with this many processes; what each of them says at its end."""
        processes = self._team(part.shards)
        crew = Crew(processes, on_progress)
        try:
            for shard, process in enumerate(processes):
                path = job.records_path if part.shards == 1 else str(part_path(job.records_path, shard))
                own = structs.replace(part, shard=shard)
                process.tell(Start(structs.replace(job, records_path=path), own))
            self._follow(crew, check)
        except BaseException:
            self._end(crew)
            raise
        finally:
            if part.shards > 1:
                merge_parts(job.records_path, part.shards)
        for failure in crew.failures.values():
            raise failure
        return [crew.finished[shard] for shard in range(part.shards)]

    def _team(self, count: int) -> list[LoadProcess]:
        if not self._processes:
            raise LoadError("the load process was not started: use LoadWorker in a with statement")
        while len(self._processes) < count:
            self._processes.append(LoadProcess())
        return self._processes[:count]

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
        if crew.finished:
            self.cut_short = _merged(list(crew.finished.values()))


def _merged(finished: list[Finished]) -> Window:
    return merged_window([each.window for each in finished], [each.pace for each in finished])


def most_processes(job: LoadJob) -> int:
    """How many processes may hold this load: half of the cores when nobody said how many, the rest is for
    the engine; and no more than there are slots."""
    slots = job.point.concurrency or 1 << 30
    wanted = job.load.processes or max(1, len(os.sched_getaffinity(0)) // 2)
    return min(slots, wanted)
