"""An engine that stays up from one run to the next, so that several scenarios share its start.

Each run has a folder, a sampler and windows of its own.  What belongs to the start goes with the engine into
every run that uses it: how long it took, and the idle baselines with the samples they are read from (once
the engine is up there is no idling without it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from msgspec import Struct

from profiler.counters import MAX_GAP_S
from profiler.engines import open_engine, open_recorder
from profiler.engines.base import RunningEngine
from profiler.nvml import shared_load
from profiler.schema import Baseline, Model
from profiler.settings import EngineSettings
from profiler.store import RunWriter

SHARED = "the engine was up from a run before: they share its start, and its memory's peaks"
# Both sides of a span, so that the energy counters have ticks around it (energy.py takes as much).
AROUND_NS = round(2 * MAX_GAP_S * 1e9)


class Kept(Struct):
    """An engine that is up, and what a run that goes on with it takes over.

    ``run``: which started it.  ``samples``: lines of a sample file, those of the ``baselines``.
    """

    engine: RunningEngine
    settings: EngineSettings
    model: Model
    run: str
    to_others: bool
    baselines: tuple[Baseline, ...] = ()
    samples: bytes = b""

    def hand_on(self, writer: RunWriter) -> None:
        """Begin the folder of a run that goes on with this engine."""
        with writer.samples_path.open("ab") as file:
            file.write(self.samples)
        writer.update(engine_from=self.run, baselines=self.baselines)
        writer.note(SHARED)

    def take_baselines(self, writer: RunWriter) -> None:
        """Those of the run that has come to its end, where there were none before."""
        if not self.baselines and (held := writer.manifest.baselines):
            spans = [(each.start_ns - AROUND_NS, each.end_ns + AROUND_NS) for each in held]
            with writer.samples_path.open("rb") as lines:
                self.samples = b"".join(_within(lines, spans))
            self.baselines = held


def _within(lines: Iterable[bytes], spans: list[tuple[int, int]]) -> Iterator[bytes]:
    """The sample lines of these spans; a file is in the order of time but for a tick or two, and long."""
    last_ns = max(end for _, end in spans) + AROUND_NS
    for line in lines:
        t_ns = int(line.partition(b"\t")[0])
        if t_ns > last_ns or not line.endswith(b"\n"):
            return
        if any(start <= t_ns <= end for start, end in spans):
            yield line


class Engines:
    """Keeps the engine of one run for the next that asks for the same: model and settings must be equal.

    For runs of one model each, one after another.  A context manager: at its end nothing is up.  What needs
    the machine for an engine of its own, to record the experts of a run, is put off until then.
    """

    def __init__(self) -> None:
        self._kept: Kept | None = None
        self._recorder: RunningEngine | None = None
        self._put_off: list[Callable[[], None]] = []
        self._stack = ExitStack()
        self._boards = ExitStack()

    def __enter__(self) -> Engines:
        self._boards.enter_context(shared_load())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._boards, self._stack:
            self.close()
            for record in self._put_off if error is None else ():
                record()

    def close(self) -> None:
        """End the engine that is up, if one is; safe to repeat."""
        self._kept = self._recorder = None
        self._stack.close()

    def put_off(self, record: Callable[[], None]) -> None:
        """To be done when the last run has been held, unless something went wrong by then."""
        self._put_off.append(record)

    def recorder(self, settings: EngineSettings, model: Model, say: Callable[[str], None]) -> RunningEngine:
        """As :func:`profiler.engines.open_recorder`, one for all runs of the start."""
        from tempfile import TemporaryDirectory

        if self._recorder is None:
            folder = self._stack.enter_context(TemporaryDirectory(prefix="profiler-recorder-"))
            self._recorder = self._stack.enter_context(open_recorder(settings, model, Path(folder), say))
        return self._recorder

    @contextmanager
    def serving(self) -> Iterator[None]:
        """The length of a run: an engine under which one failed serves no other."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def find(self, settings: EngineSettings, model: Model, to_others: bool = False) -> Kept | None:
        """The engine that is up, if it is such a one; any other makes room."""
        kept = self._kept
        is_seen = kept is not None and kept.to_others >= to_others
        if kept is not None and is_seen and (kept.settings, kept.model) == (settings, model):
            kept.engine.check()
            return kept
        self.close()
        return None

    @contextmanager
    def opened(
        self,
        settings: EngineSettings,
        model: Model,
        writer: RunWriter,
        say: Callable[[str], None],
        to_others: bool = False,
    ) -> Iterator[RunningEngine]:
        """As :func:`profiler.engines.open_engine`, but the engine outlives the block.

        At its end the run's folder has the log as it is then.
        """
        if self.find(settings, model, to_others) is None:
            opening = open_engine(settings, model, writer.folder, say, to_others)
            engine = self._stack.enter_context(opening)
            self._kept = Kept(engine, settings, model, writer.manifest.run_id, to_others)
        kept = self._kept
        assert kept is not None
        try:
            yield kept.engine
        finally:
            kept.take_baselines(writer)
            if kept.engine.process is not None:
                kept.engine.process.part_with_log(writer.folder)
