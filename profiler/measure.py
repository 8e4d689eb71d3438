"""The whole measurement, top to bottom: ``prepare`` has decided everything, ``execute`` does it.

    for each (repeat, model, load point) of the schedule:
        sampler on → engine up → boards warm → one window of load → requests and window on disk
    weigh the load generator itself, seal every folder

Three orders.  *Resident*: all engines stay up and the models alternate window by window, A B A B, so that
drift of the machine meets both alike; for machines where an idle engine costs nothing but memory.
*Exclusive*: one engine at a time has the machine (a GPU's memory is not shared), the models alternate by
repeat, and every repeat is a fresh engine start, the unit of replication that run-to-run variance asks for.
*Search*: the models run one after another, and the windows so far choose the next load (``search``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from msgspec.structs import replace as replace_struct

from profiler import manifest, scenario, store
from profiler.engines import boards, open_engine
from profiler.engines.base import RunningEngine
from profiler.errors import InputError, LoadError, ProfilerError, StoreError, describe
from profiler.loadgen.job import LoadJob, Progress
from profiler.loadgen.worker import LoadWorker
from profiler.nvml import shared_load
from profiler.prepare import PROBE_TIMEOUT_S, Plan
from profiler.schema import Calibration, Endpoint, LoadPoint, Model, Window
from profiler.settings import EngineSettings
from profiler.telemetry import Sampler

if TYPE_CHECKING:
    from profiler.levels import Probe

# A second holds enough answers at this rate and above; what a client adds there it adds below it too.
CALIBRATION_S, CALIBRATION_CHUNKS_PER_S = 1.0, 50.0
STREAM_CHUNKS_PER_S = 10.0


class Slot(NamedTuple):
    """One entry of the schedule: which model is held at which point for which repeat."""

    subject: int
    repeat: int
    point: LoadPoint


class Show(Protocol):
    """Who watches a run.  Called from the measuring process, never from the load generator's."""

    def phase(self, model: str, text: str) -> None:
        """A step outside any window: an engine's start, sealing."""

    def progress(self, model: str, slot: Slot, progress: Progress) -> None:
        """About four times a second inside a window."""

    def window(self, model: str, slot: Slot, window: Window, left: int | None) -> None:
        """A window is finished and safe on disk; ``left`` more are to come (None: a search does not know)."""


def schedule(subjects: int, points: Sequence[LoadPoint], repeats: int, exclusive: bool) -> Iterator[Slot]:
    """The order of the windows; models rotate by repeat so that none is always first.

    >>> [s.subject for s in schedule(2, [LoadPoint(mode="closed", concurrency=1)], 2, False)]
    [0, 1, 1, 0]
    """
    for repeat in range(repeats):
        turn = [(repeat + place) % subjects for place in range(subjects)]
        if exclusive:
            yield from (Slot(s, repeat, point) for s in turn for point in points)
        else:
            yield from (Slot(s, repeat, point) for point in points for s in turn)


def execute(plan: Plan, show: Show, worker: LoadWorker | None = None) -> list[Path]:
    """Measure everything in ``plan`` and return the sealed run folders, one a model.

    On an error, Ctrl-C or a dead engine the finished windows stay in folders marked ``failed`` or
    ``interrupted``, every process that was started is gone, and the exception goes on.
    Raises EngineError, LoadError, StoreError; KeyboardInterrupt.
    """
    with ExitStack() as stack:
        stack.enter_context(shared_load())
        subjects: list[Subject] = []
        stack.callback(_stop_all, subjects)
        try:
            for number in range(len(plan.models)):
                subjects.append(Subject(plan, number))
            worker = worker or stack.enter_context(LoadWorker())
            for left, slot in _searched(plan, subjects) if plan.scenario.search else _undone(plan, subjects):
                _one_window(subjects, slot, left, worker, show)
            _stop_all(subjects)
            _calibrate(subjects, worker, show)
            worker.close()
            for subject in subjects:
                show.phase(subject.model.name, "sealing")
                subject.writer.seal()
        except BaseException as error:
            for subject in subjects:
                with suppress(StoreError):  # a full disk: the journal that is there stays
                    subject.mark(error)
            raise
        finally:
            for subject in subjects:
                subject.writer.close()
    return [subject.writer.folder for subject in subjects]


def _undone(plan: Plan, subjects: list[Subject]) -> Iterator[tuple[int, Slot]]:
    """The slots still to be held (a resumed run has done some), with the number left after each."""
    slots = schedule(len(plan.models), scenario.points(plan.scenario), plan.repeats, plan.exclusive)
    todo = [slot for slot in slots if not subjects[slot.subject].has(slot)]
    for number, slot in enumerate(todo):
        yield len(todo) - number - 1, slot


def _searched(plan: Plan, subjects: list[Subject]) -> Iterator[tuple[None, Slot]]:
    """What each model's search asks for next, until it is over."""
    from profiler import search

    for number, subject in enumerate(subjects):
        while (point := search.next_point(plan.scenario, subject.probes())) is not None:
            yield None, Slot(number, subject.held(point), point)


def _one_window(
    subjects: list[Subject], slot: Slot, left: int | None, worker: LoadWorker, show: Show
) -> None:
    subject = subjects[slot.subject]
    if subject.plan.exclusive:
        _stop_all([other for other in subjects if other is not subject])

    def say(text: str) -> None:
        show.phase(subject.model.name, text)

    subject.start(say, worker, is_alone=not any(other.is_up for other in subjects))
    subject.warm_up(slot, worker, say)
    window = subject.hold(slot, worker, lambda progress: show.progress(subject.model.name, slot, progress))
    show.window(subject.model.name, slot, window, left)


def _stop_all(subjects: Sequence[Subject]) -> None:
    for subject in subjects:
        subject.stop()


def _calibrate(subjects: Sequence[Subject], worker: LoadWorker, show: Show) -> None:
    """What the load generator adds on this machine, at the highest rate it had to take, into every
    manifest.  Not knowing it fails no run: the reason is noted."""
    from profiler.calibrate import calibrate

    rate, streams = max((subject.busiest() for subject in subjects), default=(0.0, 0))
    if not streams:
        return
    show.phase(subjects[0].model.name, "calibrating the load generator")
    found: Calibration | None = None
    note: tuple[str, ...] = ()
    try:
        found = calibrate(max(rate, CALIBRATION_CHUNKS_PER_S), streams, seconds=CALIBRATION_S, worker=worker)
    except (ProfilerError, OSError) as error:
        note = (f"the client's own error is not known: {error}",)
    for subject in subjects:
        subject.writer.update(calibration=found)
        subject.writer.note(*note)


class Subject:
    """One model under test: its run folder and, while it is up, its engine and sampler."""

    def __init__(self, plan: Plan, number: int) -> None:
        self.plan = plan
        self.model: Model = plan.models[number]
        self.settings: EngineSettings = plan.settings[number]
        self._engine: RunningEngine | None = None
        self._stack: ExitStack | None = None
        self._warm_at: LoadPoint | None = None
        self._warming_left_s = 0.0
        self._probes: list[Probe] = []
        self._probed = plan.probed[number] if plan.probed else None
        before = plan.resumed[number] if plan.resumed else None
        self.writer = (
            store.RunWriter.reopen(before)
            if before
            else store.RunWriter.create(plan.out, manifest.of(plan, number))
        )

    def has(self, slot: Slot) -> bool:
        return any((w.repeat, w.point) == (slot.repeat, slot.point) for w in self.writer.manifest.windows)

    def held(self, point: LoadPoint) -> int:
        """How many windows this load has had."""
        return sum(window.point == point for window in self.writer.manifest.windows)

    def probes(self) -> list[Probe]:
        """The windows held so far as a search sees them; each is read from disk once."""
        from profiler.levels import probes

        for window in self.writer.manifest.windows[len(self._probes) :]:
            self._probes += probes(self._alone(window))
        return self._probes

    def _alone(self, window: Window) -> store.RunResult:
        """The run as if it had this window only."""
        return store.RunResult(self.writer.folder, replace_struct(self.writer.manifest, windows=(window,)))

    def busiest(self) -> tuple[float, int]:
        """The highest rate of chunks over a steady window, and the number of streams that made it; requests
        that wait in a queue stream nothing.  (0, 0) when no window was steady."""
        rates = [
            (window.audit.chunks / (window.steady_end_ns - window.steady_start_ns) * 1e9, window)
            for window in self.writer.manifest.windows
            if window.audit and window.steady_start_ns and window.steady_end_ns
        ]
        if not rates:
            return 0.0, 0
        rate, window = max(rates, key=lambda each: each[0])
        streams = window.point.concurrency or _streams(self._alone(window), window)
        return rate, min(streams, max(1, round(rate / STREAM_CHUNKS_PER_S)))

    @property
    def is_up(self) -> bool:
        return self._engine is not None

    @property
    def _engine_start(self) -> int:
        return max(0, len(self.writer.manifest.starts_s) - 1)

    def start(self, say: Callable[[str], None], worker: LoadWorker, is_alone: bool) -> None:
        """Bring sampler and engine up, unless they are, and hold the idle baselines; those without an engine
        once a run, and only where no other engine is up (``is_alone``)."""
        if self.is_up:
            return
        plan = self.plan.scenario.telemetry
        with ExitStack() as stack:
            gpus = boards(self.settings, plan.devices)
            sampler = stack.enter_context(
                Sampler(
                    self.writer.samples_path,
                    self._boards_read(gpus),
                    starts_engine=self.settings.kind != "endpoint",
                )
            )
            idle_s = plan.idle_s if sampler.reads_energy else 0.0
            if idle_s and is_alone and self.settings.kind != "endpoint":
                from profiler import baselines

                baselines.hold_without_engine(self.writer, gpus, idle_s, say)
            engine = stack.enter_context(open_engine(self.settings, self.model, self.writer.folder, say))
            if engine.facts.kind == "endpoint":
                found = self._probed or worker.ask(engine.endpoint, PROBE_TIMEOUT_S)
                engine = replace_struct(engine, endpoint=found)
            if (
                engine.facts.device == "none"
            ):  # it cannot tell which of the boards it may use it does: all count
                engine = replace_struct(engine, facts=replace_struct(engine.facts, gpus=gpus))
            sampler.watch(self.model.name, engine.endpoint.pid, engine.endpoint.metrics_url)
            self._stack, self._engine = stack.pop_all(), engine
            self._warm_at, self._warming_left_s = None, plan.warm_max_s
        self._note_start(engine, sampler)
        if idle_s and engine.facts.device != "remote":
            from profiler import baselines

            baselines.hold(self.writer, "loaded", self._engine_start, idle_s, say, engine.check)

    def _boards_read(self, gpus: tuple[str, ...]) -> tuple[str, ...]:
        """All boards of the machine, not the engine's alone: the host's energy is that of all of them."""
        if self.settings.kind == "endpoint":
            from profiler.engines.endpoint import is_here

            if not is_here(self.settings.args):
                return ()
        return tuple(dict.fromkeys((*gpus, *(gpu.uuid for gpu in self.plan.host.gpus))))

    def _note_start(self, engine: RunningEngine, sampler: Sampler) -> None:
        starts = self.writer.manifest.starts_s
        took, noted = engine.facts.start_s, self.writer.manifest.engine.notes
        self.writer.update(
            engine=self.writer.manifest.engine if starts else engine.facts,
            memory=engine.memory(),
            probes=sampler.probes,
            starts_s=(*starts, took) if took is not None else starts,
            status="running",
            reason=None,
        )
        self.writer.note(*noted)

    @property
    def _up(self) -> RunningEngine:
        if self._engine is None:
            raise LoadError("a window needs a running engine")
        return self._engine

    def warm_up(self, slot: Slot, worker: LoadWorker, say: Callable[[str], None]) -> None:
        """Where the load differs from the one before: hold it until the temperature of the engine's boards is
        steady.  ``warm_max_s`` is for all loads of an engine start together."""
        gpus = self._up.facts.gpus
        sampled = any(each.probe == "nvml" and each.usable for each in self.writer.manifest.probes)
        if slot.point == self._warm_at or not (gpus and sampled) or self._warming_left_s <= 0:
            return
        from profiler import warming

        most_s, path = self._warming_left_s, self.writer.samples_path
        reached = warming.warm(self._job(slot), worker, path, gpus, most_s, say, self._up.check)
        is_first, self._warm_at = self._warm_at is None, slot.point
        self._warming_left_s -= reached.took_s if reached else most_s  # no temperature: nothing to wait for
        if reached is not None and (is_first or not reached.is_steady):
            self.writer.note(f"engine start {self._engine_start + 1}: {reached}")

    def _job(self, slot: Slot) -> LoadJob:
        engine, index = self._up, self.writer.next_index
        return LoadJob(
            endpoint=self._spoken_to(engine.endpoint),
            workload=self.plan.scenario.workload,
            load=self.plan.scenario.load,
            point=slot.point,
            measure=self.plan.scenario.measure,
            timeouts=self.plan.scenario.timeouts,
            window=index,
            repeat=slot.repeat,
            engine_start=self._engine_start,
            records_path=str(self.writer.records_path(index)),
            prompt_salt=self.plan.prompt_salt if engine.facts.kind == "endpoint" else 0,
        )

    def hold(self, slot: Slot, worker: LoadWorker, on_progress: Callable[[Progress], None]) -> Window:
        """Hold one load point once; when this returns its requests and window are on disk."""
        engine, job = self._up, self._job(slot)
        try:
            window = worker.run(job, on_progress, engine.check)
            engine.check()
        except BaseException:
            if worker.cut_short is not None:
                with suppress(StoreError):  # a full disk: what ended the window has the word
                    self.writer.add_cut_short(worker.cut_short)
            raise
        self.writer.add(window)
        return window

    def _spoken_to(self, endpoint: Endpoint) -> Endpoint:
        """Pictures travel in chat messages only."""
        if self.plan.scenario.workload.images is None:
            return endpoint
        return replace_struct(endpoint, protocol="chat", prompt="text")

    def stop(self) -> None:
        """Ask for the memory account a last time, then end engine and sampler."""
        engine, stack = self._engine, self._stack
        self._engine = self._stack = None
        if engine is None or stack is None:
            return
        # A dead engine keeps the account it gave when it started.
        with stack, suppress(ProfilerError, OSError):
            self.writer.update(memory=engine.memory())

    def mark(self, error: BaseException) -> None:
        """Write into the folder how the run ended, keeping whatever was measured."""
        if not (self.writer.folder / store.JOURNAL).exists():
            return  # already sealed
        if isinstance(error, InputError) and not self.writer.manifest.windows:
            self.writer.discard()  # an engine found the request impossible: nothing half-written
            return
        status, reason = describe(error)
        self.writer.update(status=status, reason=reason)


def _streams(alone: store.RunResult, window: Window) -> int:
    from profiler import metrics
    from profiler.windows import WindowView

    return metrics.in_flight(WindowView(window, alone.requests))
