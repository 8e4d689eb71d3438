"""The whole measurement, top to bottom: ``prepare`` has decided everything, ``execute`` does it.

    for each (repeat, model, load point) of the schedule:
        sampler on → engine up → boards warm → one window of load → requests and window on disk
    record which experts a MoE uses (outside every window), weigh the load generator itself, seal every folder

How many windows a load gets is said beforehand (``measure.repeats``) or decided after each (``adaptive``).

Three orders.  *Resident*: all engines stay up and the models take turns window by window, A B B A, so that
drift of the machine meets both alike; for machines where an idle engine costs nothing but memory.
*Exclusive*: one engine at a time has the machine (a GPU's memory is not shared), the models alternate by
repeat, and every repeat is a fresh engine start, the unit of replication that run-to-run variance asks for.
*Search*: the models run one after another, and the windows so far choose the next load (``search``).
"""

from __future__ import annotations

import itertools
import math
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from profiler import scenario
from profiler.errors import ProfilerError, StoreError
from profiler.kept_engine import Engines
from profiler.loadgen.job import Progress
from profiler.loadgen.worker import LoadWorker
from profiler.nvml import BOARDS_VARIABLE, holding, shared_load
from profiler.prepare import Plan
from profiler.schema import LoadPoint, Window
from profiler.subject import Slot, Sources, Subject

if TYPE_CHECKING:
    from profiler.adaptive import Precision

# A second holds enough answers at this rate and above; what a client adds there it adds below it too.
CALIBRATION_S, CALIBRATION_CHUNKS_PER_S = 1.0, 50.0
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AT_ONCE = 3  # how often who seals has to be asked
SEALING = b"\nstopping: the run is being sealed first; asked twice more, it is left as it is\n"
CALIBRATED_BEFORE = "the load generator was calibrated after a run before, at a load like this one's"


class Ahead(Struct, frozen=True, kw_only=True):
    """What is about to be measured: models by the names the watcher hears, their run folders, loads.

    ``points`` are empty where a search chooses them; ``windows``: how many are to be held, at a guess where
    they decide themselves, None of a search.  ``target_frac``: what half an interval is to come to, None
    where the number of windows was asked for.
    """

    scenario: str
    engine: str
    models: tuple[str, ...]
    folders: tuple[str, ...]
    points: tuple[LoadPoint, ...]
    windows: int | None
    target_frac: float | None


class Show(Protocol):
    """Who watches a run.  Called from the measuring process, never from the load generator's."""

    def begin(self, ahead: Ahead) -> None:
        """Nothing is started yet."""

    def up(self, model: str, sources: Sources) -> None:
        """An engine is up, and what it does is sampled."""

    def phase(self, model: str, text: str) -> None:
        """A step outside any window: an engine's start, sealing."""

    def progress(self, model: str, slot: Slot, progress: Progress) -> None:
        """About four times a second inside a window."""

    def window(
        self, model: str, slot: Slot, window: Window, left: int | None, known: Precision | None
    ) -> None:
        """A window is finished and safe on disk; ``left`` more are to come (None: a search does not know).
        ``known``: how well the load is known now, where that decides how many."""

    def sealed(self, folders: Sequence[Path]) -> None:
        """The run is over and whole."""


def schedule(
    subjects: int, points: Sequence[LoadPoint], repeats: int | None, exclusive: bool
) -> Iterator[Slot]:
    """The order of the windows, without end where ``repeats`` is None; models rotate by repeat so that none
    is always first.

    >>> [s.subject for s in schedule(2, [LoadPoint(mode="closed", concurrency=1)], 2, False)]
    [0, 1, 1, 0]
    """
    for repeat in itertools.count() if repeats is None else range(repeats):
        turn = [(repeat + place) % subjects for place in range(subjects)]
        if exclusive:
            yield from (Slot(s, repeat, point) for s in turn for point in points)
        else:
            yield from (Slot(s, repeat, point) for point in points for s in turn)


def execute(
    plan: Plan, show: Show, worker: LoadWorker | None = None, engines: Engines | None = None
) -> list[Path]:
    """Measure everything in ``plan`` and return the sealed run folders, one a model.

    With ``engines`` the engine of a plan of one model is taken from there and left there, up, for the next
    plan of equal settings; ``worker`` is left ready too.
    On an error, Ctrl-C or a dead engine the finished windows stay in folders marked ``failed`` or
    ``interrupted``, every process that was started is gone, and the exception goes on.
    Raises InputError where another run has a GPU of its; EngineError, LoadError, StoreError;
    KeyboardInterrupt.
    """
    with ExitStack() as stack:
        stack.enter_context(holding.held(_boards(plan), plan.out))
        stack.enter_context(shared_load())
        if engines is not None:
            assert len(plan.models) == 1, "one engine is kept, and others would take turns with it"
            stack.enter_context(engines.serving())
        subjects: list[Subject] = []
        stack.callback(_stop_all, subjects)
        try:
            for number in range(len(plan.models)):
                subjects.append(Subject(plan, number, engines))
            show.begin(_ahead(plan, subjects))
            worker = worker or stack.enter_context(LoadWorker())
            worker.renew()
            _join_machines(plan, worker)
            for slot in _slots(plan, subjects):
                _one_window(subjects, slot, worker, show)
            _record_routing(subjects, show, engines)
            _stop_all(subjects)
            _calibrate(subjects, worker, show)
            if engines is None:
                worker.close()
            for subject in subjects:
                with _not_half_way():
                    show.phase(subject.name, "sealing")
                    subject.writer.seal()
        except BaseException as error:
            for subject in subjects:
                with suppress(StoreError):  # a full disk: the journal that is there stays
                    subject.mark(error)
            raise
        finally:
            for subject in subjects:
                subject.writer.close()
    folders = [subject.writer.folder for subject in subjects]
    show.sealed(folders)
    return folders


def _boards(plan: Plan) -> tuple[str, ...]:
    """The GPUs that no other run may use meanwhile; the simulated engine uses none but simulated ones."""
    from profiler.engines import boards

    used = [each for each in plan.settings if each.kind != "simulated" or BOARDS_VARIABLE in os.environ]
    devices = plan.scenario.telemetry.devices
    return tuple(dict.fromkeys(uuid for each in used for uuid in boards(each, devices)))


@contextmanager
def _not_half_way() -> Iterator[None]:
    """Who asks to stop inside the block is answered in words, and heard at its end or the third time; what is
    broken off can be sealed by a resume.  Signals are the main thread's affair."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[tuple[int, FrameType | None]] = []
    before = {each: signal.getsignal(each) for each in STOPS}
    mine = {each: handler for each, handler in before.items() if callable(handler)}

    def hear(signum: int, frame: FrameType | None) -> None:
        heard.append((signum, frame))
        if len(heard) == 1:
            with suppress(OSError):  # past Python's buffers, which the signal may have come in the middle of
                os.write(2, SEALING)
        if len(heard) >= AT_ONCE:
            mine[signal.Signals(signum)](signum, frame)

    for each in mine:
        signal.signal(each, hear)
    try:
        yield
    finally:
        for each, handler in mine.items():
            signal.signal(each, handler)
    for signum, frame in heard:
        mine[signal.Signals(signum)](signum, frame)


def _join_machines(plan: Plan, worker: LoadWorker) -> None:
    """Have others send too, where the load is for several; before an engine is started for nothing."""
    if plan.scenario.load.machines > 1:
        from profiler.cluster import remote_load

        remote_load.join(worker, plan.scenario.load.machines)


def _ahead(plan: Plan, subjects: Sequence[Subject]) -> Ahead:
    return Ahead(
        scenario=plan.scenario.name,
        engine=plan.settings[0].kind,
        models=tuple(subject.name for subject in subjects),
        folders=tuple(str(subject.writer.folder) for subject in subjects),
        points=() if plan.scenario.search else tuple(scenario.points(plan.scenario)),
        windows=_left(plan, subjects),
        target_frac=plan.scenario.measure.target_ci_frac if plan.scenario.is_adaptive else None,
    )


def _slots(plan: Plan, subjects: list[Subject]) -> Iterator[Slot]:
    """The slots still to be held: a resumed run has done some."""
    if plan.scenario.search:
        return _searched(plan, subjects)
    points, repeats = scenario.points(plan.scenario), plan.scenario.measure.repeats
    slots = schedule(len(plan.models), points, repeats, plan.exclusive)
    if repeats is None:
        return _wanted(slots, len(plan.models) * len(points), subjects)
    return (slot for slot in slots if not subjects[slot.subject].has(slot))


def _wanted(slots: Iterator[Slot], loads: int, subjects: list[Subject]) -> Iterator[Slot]:
    """Of an endless schedule of so many ``loads``, each as long as it is not known well enough; the loads
    that are share no further turn."""
    while True:
        is_held = False
        for slot in itertools.islice(slots, loads):
            subject = subjects[slot.subject]
            if subject.has(slot):
                is_held = True
                continue
            known = subject.precision(slot.point)
            if known.done is None:
                is_held = True
                yield slot._replace(stretch=known.stretch)
        if not is_held:
            return


def _left(plan: Plan, subjects: Sequence[Subject]) -> int | None:
    """How many windows are to come; at a guess where the windows decide, and a search does not know."""
    measure, points = plan.scenario.measure, scenario.points(plan.scenario)
    if plan.scenario.search:
        return None
    pairs = itertools.product(subjects, points)
    if measure.repeats is None:
        return sum(subject.precision(point).to_go for subject, point in pairs)
    return sum(measure.repeats - subject.held(point) for subject, point in pairs)


def _searched(plan: Plan, subjects: list[Subject]) -> Iterator[Slot]:
    """What each model's search asks for next, until it is over."""
    from profiler import search

    for number, subject in enumerate(subjects):
        while (point := search.next_point(plan.scenario, subject.probes())) is not None:
            slots = (Slot(number, repeat, point) for repeat in itertools.count())
            yield next(slot for slot in slots if not subject.has(slot))  # a damaged window left a gap


def _one_window(subjects: list[Subject], slot: Slot, worker: LoadWorker, show: Show) -> None:
    subject = subjects[slot.subject]
    if subject.plan.exclusive:
        _stop_all([other for other in subjects if other is not subject or _is_next_repeat(subject, slot)])

    def say(text: str) -> None:
        show.phase(subject.name, text)

    if not subject.is_up:
        is_alone = not any(other.is_up for other in subjects)
        show.up(subject.name, subject.start(say, worker, is_alone))
    subject.warm_up(slot, worker, say)
    window = subject.hold(slot, worker, lambda progress: show.progress(subject.name, slot, progress))
    known = subject.precision(slot.point) if subject.plan.scenario.is_adaptive else None
    show.window(subject.name, slot, window, _left(subject.plan, subjects), known)


def _is_next_repeat(subject: Subject, slot: Slot) -> bool:
    """Whether this window begins a repeat that is to be a start of its own, though the model had the machine
    last; a model that is alone keeps its engine, and so does a search."""
    plan, held = subject.plan, subject.writer.manifest.windows
    takes_turns = len(plan.models) > 1 and plan.scenario.search is None
    return takes_turns and bool(held) and held[-1].repeat != slot.repeat


def _record_routing(subjects: Sequence[Subject], show: Show, engines: Engines | None = None) -> None:
    """Engines that are up and tell come first; each of the others then has the machine to itself, once no
    kept engine is needed any more."""
    owing = [subject for subject in subjects if subject.owes_routing]
    for subject in sorted(owing, key=lambda each: not each.tells_routing):
        record = partial(subject.record_routing, partial(show.phase, subject.name))
        if not subject.tells_routing and engines is not None:
            engines.put_off(record)
            continue
        if not subject.tells_routing:
            _stop_all(subjects)
        record()


def _stop_all(subjects: Sequence[Subject]) -> None:
    for subject in subjects:
        subject.stop()


def _calibrate(subjects: Sequence[Subject], worker: LoadWorker, show: Show) -> None:
    """What the load generator adds on this machine, at the highest rate it had to take, into every
    manifest; as it was in a run of like load before, where there was one.  Not knowing it fails no run: the
    reason is noted."""
    from profiler.calibrate import calibrate, earlier

    rate, streams = max((subject.busiest() for subject in subjects), default=(0.0, 0))
    if not streams:
        return
    machines = subjects[0].plan.scenario.load.machines  # a machine's own part of it
    rate, streams = max(rate / machines, CALIBRATION_CHUNKS_PER_S), math.ceil(streams / machines)
    found = earlier(worker, rate, streams)
    note = (CALIBRATED_BEFORE,) if found else ()
    if found is None:
        show.phase(subjects[0].name, "calibrating the load generator")
        try:
            folder = subjects[0].writer.samples_path.parent
            found = calibrate(rate, streams, seconds=CALIBRATION_S, worker=worker, folder=folder)
        except (ProfilerError, OSError) as error:
            note = (f"the client's own error is not known: {error}",)
    for subject in subjects:
        subject.writer.update(calibration=found)
        subject.writer.note(*note)
