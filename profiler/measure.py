"""The whole measurement, top to bottom: ``prepare`` has decided everything, ``execute`` does it.

    for each (repeat, model, load point) of the schedule:
        engine up → sampler on → one window of load → requests and window on disk
    weigh the load generator itself, seal every folder

Three orders.  *Resident*: all engines stay up and the models alternate window by window, A B A B, so that
drift of the machine meets both alike; for machines where an idle engine costs nothing but memory.
*Exclusive*: one engine at a time has the machine (a GPU's memory is not shared), the models alternate by
repeat, and every repeat is a fresh engine start, the unit of replication that run-to-run variance asks for.
*Search*: the models run one after another, and the windows so far choose the next load (``search``).
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from msgspec.structs import replace as replace_struct

from profiler import __version__, metrics, scenario, search, store
from profiler.engines import open_engine
from profiler.engines.base import RunningEngine
from profiler.errors import EngineError, InputError, LoadError, ProfilerError, StoreError
from profiler.levels import Probe, probes
from profiler.loadgen.job import LoadJob, Progress
from profiler.loadgen.probe import probe_endpoint
from profiler.loadgen.worker import LoadWorker
from profiler.prepare import PROBE_TIMEOUT_S, Plan
from profiler.schema import (
    SCHEMA_VERSION,
    Calibration,
    Endpoint,
    EngineFacts,
    LoadPoint,
    Manifest,
    Memory,
    Model,
    Window,
    is_secret,
)
from profiler.settings import EngineSettings
from profiler.telemetry import Sampler
from profiler.windows import WindowView

MAX_NAME = 60
# A second holds enough answers at this rate and above; what a client adds there it adds below it too.
CALIBRATION_S, CALIBRATION_CHUNKS_PER_S = 1.0, 50.0
STREAM_CHUNKS_PER_S = 10.0


@dataclass(frozen=True)
class Slot:
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


def execute(plan: Plan, show: Show) -> list[Path]:
    """Measure everything in ``plan`` and return the sealed run folders, one a model.

    On an error, Ctrl-C or a dead engine the finished windows stay in folders marked ``failed`` or
    ``interrupted``, every process that was started is gone, and the exception goes on.
    Raises EngineError, LoadError, StoreError; KeyboardInterrupt.
    """
    with ExitStack() as stack:
        subjects: list[Subject] = []
        stack.callback(_stop_all, subjects)
        try:
            for number in range(len(plan.models)):
                subjects.append(Subject(plan, number))
            worker = stack.enter_context(LoadWorker())
            for left, slot in _searched(plan, subjects) if plan.scenario.search else _undone(plan, subjects):
                _one_window(subjects, slot, left, worker, show)
            _stop_all(subjects)
            _calibrate(subjects, show)
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
    for number, subject in enumerate(subjects):
        while (point := search.next_point(plan.scenario, subject.probes())) is not None:
            yield None, Slot(number, subject.held(point), point)


def _one_window(
    subjects: list[Subject], slot: Slot, left: int | None, worker: LoadWorker, show: Show
) -> None:
    subject = subjects[slot.subject]
    if subject.plan.exclusive:
        _stop_all([other for other in subjects if other is not subject])
    subject.start(lambda text: show.phase(subject.model.name, text))
    window = subject.hold(slot, worker, lambda progress: show.progress(subject.model.name, slot, progress))
    show.window(subject.model.name, slot, window, left)


def _stop_all(subjects: Sequence[Subject]) -> None:
    for subject in subjects:
        subject.stop()


def _calibrate(subjects: Sequence[Subject], show: Show) -> None:
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
        found = calibrate(max(rate, CALIBRATION_CHUNKS_PER_S), streams, seconds=CALIBRATION_S)
    except (ProfilerError, OSError) as error:
        note = (f"the client's own error is not known: {error}",)
    for subject in subjects:
        engine = subject.writer.manifest.engine
        subject.writer.update(calibration=found, engine=replace_struct(engine, notes=(*engine.notes, *note)))


class Subject:
    """One model under test: its run folder and, while it is up, its engine and sampler."""

    def __init__(self, plan: Plan, number: int) -> None:
        self.plan = plan
        self.model: Model = plan.models[number]
        self.settings: EngineSettings = plan.settings[number]
        self._engine: RunningEngine | None = None
        self._stack: ExitStack | None = None
        self._probes: list[Probe] = []
        self._probed = plan.probed[number] if plan.probed else None
        before = plan.resumed[number] if plan.resumed else None
        self.writer = (
            store.RunWriter.reopen(before)
            if before
            else store.RunWriter.create(plan.out, self._manifest(number))
        )

    def _manifest(self, number: int) -> Manifest:
        plan = self.plan
        utc = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        asked = replace_struct(plan.scenario, engine=without_secrets(plan.scenario.engine))
        digest = scenario.digest(asked)
        own = hashlib.sha256(f"{digest} {plan.group} {number}".encode()).hexdigest()
        return Manifest(
            schema_version=SCHEMA_VERSION,
            run_id=f"{_in_a_path(self.model.name)}-{_in_a_path(plan.scenario.name)}-{utc}-{own[:8]}",
            group=plan.group,
            tool_version=__version__,
            status="running",
            reason=None,
            utc=utc,
            unix_ns=time.time_ns(),
            clock_ns=time.perf_counter_ns(),
            scenario=asked,
            scenario_hash=digest,
            model=self.model,
            settings=without_secrets(self.settings),
            exclusive=plan.exclusive,
            engine=EngineFacts(kind=self.settings.kind, version=None, device="none"),
            memory=Memory(),
            host=plan.host,
            probes=(),
            price=plan.price,
        )

    def has(self, slot: Slot) -> bool:
        return any((w.repeat, w.point) == (slot.repeat, slot.point) for w in self.writer.manifest.windows)

    def held(self, point: LoadPoint) -> int:
        """How many windows this load has had."""
        return sum(window.point == point for window in self.writer.manifest.windows)

    def probes(self) -> list[Probe]:
        """The windows held so far as a search sees them; each is read from disk once."""
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
        streams = metrics.in_flight(WindowView(window, self._alone(window).requests))
        return rate, min(streams, max(1, round(rate / STREAM_CHUNKS_PER_S)))

    def start(self, report: Callable[[str], None]) -> None:
        """Bring the engine and its sampler up, unless they are."""
        if self._engine is not None:
            return
        with ExitStack() as stack:
            engine = stack.enter_context(open_engine(self.settings, self.model, self.writer.folder, report))
            if engine.facts.kind == "endpoint":
                found = self._probed or probe_endpoint(engine.endpoint, PROBE_TIMEOUT_S)
                engine = replace(engine, endpoint=found)
            on_gpu = engine.facts.device == "cuda"
            sampler = stack.enter_context(
                Sampler(self.writer.samples_path, engine.facts.gpus if on_gpu else ())
            )
            sampler.watch(self.model.name, engine.endpoint.pid, engine.endpoint.metrics_url)
            self._stack, self._engine = stack.pop_all(), engine
        self._note_start(engine, sampler)

    def _note_start(self, engine: RunningEngine, sampler: Sampler) -> None:
        starts = self.writer.manifest.starts_s
        took = engine.facts.start_s
        self.writer.update(
            engine=engine.facts if not starts else self.writer.manifest.engine,
            memory=engine.memory(),
            probes=sampler.probes,
            starts_s=(*starts, took) if took is not None else starts,
            status="running",
            reason=None,
        )

    def hold(self, slot: Slot, worker: LoadWorker, on_progress: Callable[[Progress], None]) -> Window:
        """Hold one load point once; when this returns its requests and window are on disk."""
        engine = self._engine
        if engine is None:
            raise LoadError("a window needs a running engine")
        index = self.writer.next_index
        job = LoadJob(
            endpoint=self._spoken_to(engine.endpoint),
            workload=self.plan.scenario.workload,
            load=self.plan.scenario.load,
            point=slot.point,
            measure=self.plan.scenario.measure,
            timeouts=self.plan.scenario.timeouts,
            window=index,
            repeat=slot.repeat,
            engine_start=max(0, len(self.writer.manifest.starts_s) - 1),
            records_path=str(self.writer.records_path(index)),
            prompt_salt=self.plan.prompt_salt if engine.facts.kind == "endpoint" else 0,
        )
        try:
            window = worker.run(job, on_progress, engine.check)
            engine.check()
        except BaseException:
            if worker.cut_short is not None:
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


def _in_a_path(name: str) -> str:
    """The last part of a model's or scenario's name, fit for any file system."""
    return re.sub(r"[^\w.-]+", "-", name.rsplit("/", 1)[-1])[:MAX_NAME]


def without_secrets(settings: EngineSettings) -> EngineSettings:
    """The settings as they may stand in a manifest: tokens and keys are left out, not masked, so that a
    resumed run takes them from the environment again."""
    return replace_struct(settings, env=_safe(settings.env), args=_safe(settings.args))


def _safe(values: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in values.items() if not is_secret(name)}
    return {name: _safe(value) if isinstance(value, dict) else value for name, value in kept.items()}


def describe(error: BaseException) -> tuple[str, str]:
    """Status and reason a folder gets when a run ends by ``error``."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "interrupted by the user"
    lines = error.log_lines if isinstance(error, EngineError) else ()
    return "failed", "\n".join([f"{error}" or type(error).__name__, *lines])
