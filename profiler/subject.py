"""One model under test: its run folder and, while it is up, its engine and sampler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace as replace_struct

from profiler import manifest, routing_pass, scenario, store
from profiler.engines import boards, open_engine, open_recorder
from profiler.engines.base import RunningEngine
from profiler.errors import (
    EngineError,
    InputError,
    LoadError,
    MeasurementError,
    ProfilerError,
    StoreError,
    describe,
)
from profiler.kept_engine import Engines
from profiler.loadgen.job import LoadJob, Progress
from profiler.loadgen.worker import LoadWorker
from profiler.prepare import PROBE_TIMEOUT_S, Plan
from profiler.schema import Endpoint, EngineFacts, LoadPoint, Model, Window
from profiler.settings import EngineSettings
from profiler.telemetry import Sampler

if TYPE_CHECKING:
    from profiler.adaptive import Held, Precision
    from profiler.levels import Probe

STREAM_CHUNKS_PER_S = 10.0


class Slot(NamedTuple):
    """One entry of the schedule: which model is held at which point for which repeat, and for how many times
    ``window_s`` at least."""

    subject: int
    repeat: int
    point: LoadPoint
    stretch: int = 1


class Sources(NamedTuple):
    """Where an engine that is up leaves its samples: the file, its name there, the boards it uses (UUIDs;
    none on a CPU, None where it cannot tell which of those sampled).  ``reads_power``: whether what this
    machine draws is drawn for it; ``is_made_up``: whether that is no hardware's."""

    path: Path
    name: str
    gpus: tuple[str, ...] | None
    reads_power: bool = True
    is_made_up: bool = False


class Subject:
    """One model under test: its run folder and, while it is up, its engine and sampler.

    The engine is one of ``engines`` where there are any: it may be up already, and stays up.
    """

    def __init__(self, plan: Plan, number: int, engines: Engines | None = None) -> None:
        self.plan = plan
        self._engines = engines
        self.model: Model = plan.models[number]
        self.settings: EngineSettings = plan.settings[number]
        self._engine: RunningEngine | None = None
        self._stack: ExitStack | None = None
        self._sampler: Sampler | None = None
        self._warm_at: LoadPoint | None = None
        self._warming_left_s = 0.0
        self._is_account_final = False
        self._probes: list[Probe] = []
        self._held: list[Held] = []
        self._probed = plan.probed[number] if plan.probed else None
        before = plan.resumed[number] if plan.resumed else None
        self.writer = (
            store.RunWriter.reopen(before)
            if before
            else store.RunWriter.create(plan.out, manifest.of(plan, number))
        )

    @property
    def name(self) -> str:
        """What sets it apart from the others of its run."""
        alike = sum(model.name == self.model.name for model in self.plan.models) > 1
        return f"{self.model.name}, routing {self.settings.routing}" if alike else self.model.name

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

    def precision(self, point: LoadPoint) -> Precision:
        """How well a load is known by the windows held so far; each is read from disk once."""
        from profiler import adaptive

        windows, plan = self.writer.manifest.windows, self.plan.scenario
        for window in windows[len(self._held) :]:
            self._held += adaptive.held(self._alone(window))
        own = [held for window, held in zip(windows, self._held, strict=True) if window.point == point]
        return adaptive.precision(plan.measure, own, self._start_share_s())

    def _start_share_s(self) -> float:
        """What a window costs in engine starts: none where the engine stays up from repeat to repeat."""
        starts_s, points = self.writer.manifest.starts_s, scenario.points(self.plan.scenario)
        if not (self.plan.exclusive and len(self.plan.models) > 1 and starts_s and points):
            return 0.0
        return sum(starts_s) / len(starts_s) / len(points)

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

    def start(self, say: Callable[[str], None], worker: LoadWorker, is_alone: bool) -> Sources:
        """Bring sampler and engine up and hold the idle baselines; those without an engine once a run, and
        only where no other engine is up (``is_alone``).  What samples there are from now on."""
        from profiler import baselines

        plan = self.plan.scenario.telemetry
        kept = self._engines.find(self.settings, self.model, self._to_others) if self._engines else None
        if kept is not None:
            kept.hand_on(self.writer)
        with ExitStack() as stack:
            gpus = boards(self.settings, plan.devices)
            sampler = stack.enter_context(
                Sampler(
                    self.writer.samples_path,
                    self._boards_read(gpus),
                    starts_engine=self.settings.kind != "endpoint" and kept is None,
                )
            )
            idle_s = plan.idle_s if sampler.reads_energy else 0.0
            if idle_s and is_alone and self.settings.kind != "endpoint" and kept is None:
                baselines.hold_without_engine(self.writer, gpus, idle_s, say)
            engine = stack.enter_context(self._opened(say))
            if engine.facts.kind == "endpoint":
                found = self._probed or worker.ask(engine.endpoint, PROBE_TIMEOUT_S)
                engine = replace_struct(engine, endpoint=found)
            if engine.facts.device == "none":  # it cannot tell which of the boards it uses: all count
                engine = replace_struct(engine, facts=replace_struct(engine.facts, gpus=gpus))
            sampler.watch(self.model.name, engine.endpoint.pid, engine.endpoint.metrics_url)
            self._stack, self._engine, self._sampler = stack.pop_all(), engine, sampler
            self._warm_at, self._warming_left_s = None, plan.warm_max_s
            self._is_account_final = False
        self._note_start(engine, sampler)
        if idle_s and engine.facts.device != "remote" and not (kept and kept.baselines):
            check = partial(self._check, "an idle baseline")
            baselines.hold(self.writer, "loaded", self._engine_start, idle_s, say, check)
        return self._sources(engine.facts)

    def _opened(self, say: Callable[[str], None]) -> AbstractContextManager[RunningEngine]:
        if self._engines is None or self.settings.kind == "endpoint":
            return open_engine(self.settings, self.model, self.writer.folder, say, self._to_others)
        return self._engines.opened(self.settings, self.model, self.writer, say, self._to_others)

    @property
    def _to_others(self) -> bool:
        """Whether other machines send to the engine."""
        return self.plan.scenario.load.machines > 1

    def _sources(self, engine: EngineFacts) -> Sources:
        boards = [gpu.simulated for gpu in self.plan.host.gpus if gpu.uuid in engine.gpus]
        return Sources(
            path=self.writer.samples_path,
            name=self.model.name,
            gpus=None if engine.device == "none" and not engine.gpus else engine.gpus,
            reads_power=engine.device != "remote",
            is_made_up=any(boards or (each.made_up for each in self.writer.manifest.probes)),
        )

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
        check = partial(self._check, "a warm-up")
        reached = warming.warm(self._job(slot), worker, path, gpus, most_s, say, check)
        is_first, self._warm_at = self._warm_at is None, slot.point
        self._warming_left_s -= reached.took_s if reached else most_s  # no temperature: nothing to wait for
        if reached is not None and (is_first or not reached.is_steady):
            self.writer.note(f"engine start {self._engine_start + 1}: {reached}")

    @property
    def _may_know_prompts(self) -> bool:
        """Whether prompts of another run may be in the engine's prefix cache."""
        return self._up.facts.kind == "endpoint" or self.writer.manifest.engine_from is not None

    def _check(self, during: str) -> None:
        """Some four times a second: a dead engine ends the run (EngineError), a dead sampler is replaced, and
        the run says what that cost; ``during``: what is going on."""
        self._up.check()
        if self._sampler is None or (why := self._sampler.trouble()) is None:
            return
        try:
            self._sampler.renew()
        except MeasurementError as error:
            self._sampler = None
            self.writer.note(f"{_no_samples(why, during)} and all after it: {error}")
        else:
            self.writer.update(probes=self._sampler.probes)
            self.writer.note(f"{_no_samples(why, during)}; it was started anew")

    def _job(self, slot: Slot) -> LoadJob:
        engine, index, measure = self._up, self.writer.next_index, self.plan.scenario.measure
        window_s = slot.stretch * measure.window_s
        return LoadJob(
            endpoint=self._spoken_to(engine.endpoint),
            workload=self.plan.scenario.workload,
            load=self.plan.scenario.load,
            point=slot.point,
            measure=replace_struct(
                measure, window_s=window_s, max_window_s=max(window_s, measure.max_window_s)
            ),
            timeouts=self.plan.scenario.timeouts,
            window=index,
            repeat=slot.repeat,
            engine_start=self._engine_start,
            records_path=str(self.writer.records_path(index)),
            prompt_salt=self.plan.prompt_salt if self._may_know_prompts else 0,
        )

    def hold(self, slot: Slot, worker: LoadWorker, on_progress: Callable[[Progress], None]) -> Window:
        """Hold one load point once; when this returns its requests and window are on disk."""
        job = self._job(slot)
        check = partial(self._check, f"window {job.window}")
        try:
            window = worker.run(job, on_progress, check)
            check()
        except BaseException:
            if worker.cut_short is not None:
                with suppress(StoreError):  # a full disk: what ended the window has the word
                    self.writer.add_cut_short(worker.cut_short)
            raise
        self.writer.add(window)
        return window

    @property
    def owes_routing(self) -> bool:
        """Whether the experts of this model are still to be recorded."""
        return self.writer.manifest.routing_missing == routing_pass.NOT_YET

    @property
    def tells_routing(self) -> bool:
        """Whether the engine that is up can be asked for its routing."""
        return self._engine is not None and self._engine.routing is not None

    def record_routing(self, say: Callable[[str], None]) -> None:
        """Once all windows are held; with an engine of its own where the timed one does not tell.

        What goes wrong here is noted, unless the scenario insists (``routing.record``): the windows stay.
        """
        plan = self.plan.scenario
        try:
            with self._recorder(say) as engine:
                source, how = engine.routing, engine.facts.routing
                if source is None:
                    raise EngineError(f"engine {engine.facts.kind} does not tell its experts")
                table, found = routing_pass.record(source, plan, self.model, how, say)
        except (ProfilerError, OSError) as error:
            if plan.routing.record == "on":
                raise
            self.writer.update(routing_missing=f"it failed: {error}")
        else:
            self.writer.add_routing(table, found)

    @contextmanager
    def _recorder(self, say: Callable[[str], None]) -> Iterator[RunningEngine]:
        if self._engine is not None and self._engine.routing is not None:
            self._ask_account(self._engine)  # of the windows: the pass may raise its peaks
            self._is_account_final = True
            yield self._engine
            return
        self.stop()

        def say_why(text: str) -> None:
            say(f"to record the routing, {text}")

        if self._engines is not None:
            yield self._engines.recorder(self.settings, self.model, say_why)
            return
        with open_recorder(self.settings, self.model, self.writer.folder, say_why) as engine:
            yield engine

    def _spoken_to(self, endpoint: Endpoint) -> Endpoint:
        """Pictures travel in chat messages only."""
        if self.plan.scenario.workload.images is None:
            return endpoint
        return replace_struct(endpoint, protocol="chat", prompt="text")

    def stop(self) -> None:
        """Ask for the memory account a last time, unless that is done, then end engine and sampler."""
        engine, stack, sampler = self._engine, self._stack, self._sampler
        self._engine = self._stack = self._sampler = None
        if engine is None or stack is None:
            return
        with stack:
            last = self.writer.next_index - 1
            if sampler is not None and last >= 0 and (why := sampler.trouble()) is not None:
                with suppress(StoreError):
                    self.writer.note(f"{_no_samples(why, f'window {last}')}, its end")
            self._ask_account(engine)

    def _ask_account(self, engine: RunningEngine) -> None:
        """A dead engine keeps the account it gave when it started."""
        if not self._is_account_final:
            with suppress(ProfilerError, OSError):
                self.writer.update(memory=engine.memory())

    def mark(self, error: BaseException) -> None:
        """Write into the folder how the run ended, keeping whatever was measured."""
        if (self.writer.folder / store.MANIFEST).exists() or not self.writer.folder.exists():
            return  # sealed by then, or taken away
        if isinstance(error, InputError) and not (self.plan.resumed or self.writer.next_index):
            self.writer.discard()  # an engine found the request impossible: nothing half-written
            return
        status, reason = describe(error)
        self.writer.update(status=status, reason=reason)


def _no_samples(why: str, during: str) -> str:
    return f"the sampler {why}: energy and memory are not known of all of {during}"


def _streams(alone: store.RunResult, window: Window) -> int:
    from profiler import metrics
    from profiler.windows import WindowView

    return metrics.in_flight(WindowView(window, alone.requests))
