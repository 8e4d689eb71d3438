"""What happens during a run, one JSON object a line, for programs that watch (docs/events.md).

Every key of an event is always there; null says that it is not known or not measured.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from profiler.errors import describe
from profiler.loadgen.job import Phase, Progress
from profiler.measure import Ahead
from profiler.progress import words
from profiler.progress.readings import Readings
from profiler.progress.standing import Standing
from profiler.schema import LoadPoint, Window
from profiler.subject import Slot, Sources

if TYPE_CHECKING:
    from profiler.adaptive import Precision
    from profiler.claims.ledger import Trial

VERSION = 1  # raised when a key goes or changes its meaning; new keys and new events leave it
EVERY_S = 1.0  # of progress events within a phase


class Event(Struct, frozen=True, kw_only=True, tag_field="event", tag=str.lower):
    """``at_s``: seconds since the first event's clock began."""

    version: int = VERSION
    at_s: float


class Begin(Event, frozen=True, kw_only=True):
    """A run, or one of a trial, is about to begin; as :class:`profiler.measure.Ahead`."""

    scenario: str
    engine: str
    models: tuple[str, ...]
    runs: tuple[str, ...]
    points: tuple[LoadPoint, ...]
    windows: int | None
    target_frac: float | None


class Note(Event, frozen=True, kw_only=True):
    """Words for a person."""

    text: str


class Step(Event, frozen=True, kw_only=True, tag="phase"):
    """Something is done outside any window."""

    model: str
    text: str


class Up(Event, frozen=True, kw_only=True):
    """An engine is up.  ``gpus``: null where it cannot tell which of the boards it uses."""

    model: str
    gpus: tuple[str, ...] | None


class Underway(Event, frozen=True, kw_only=True, tag="progress"):
    """Where a window stands, once a second and at each new phase."""

    model: str
    point: LoadPoint
    repeat: int
    phase: Phase
    elapsed_s: float
    expected_s: float
    chunks_per_s: float | None
    in_flight: int
    done: int
    failed: int
    decoded_frac: float | None
    left_s: float | None
    now: Readings


class Held(Event, frozen=True, kw_only=True, tag="window"):
    """A window is finished and on disk."""

    model: str
    point: LoadPoint
    repeat: int
    index: int
    took_s: float
    troubles: tuple[str, ...]
    half_interval_frac: float | None
    windows_of_load: int
    target_frac: float | None
    windows_left: int | None
    left_s: float | None


class Sealed(Event, frozen=True, kw_only=True):
    """Run folders are whole: the last event of a run."""

    runs: tuple[str, ...]


class Failed(Event, frozen=True, kw_only=True):
    """It ended early: the last event.  ``status`` as in the run folders, of which ``runs`` hold something."""

    status: str
    reason: str
    runs: tuple[str, ...]


class Look(Struct, frozen=True, kw_only=True):
    """As :class:`profiler.claims.ledger.Look`."""

    starts: int
    verdict: str
    why: str
    decision: str


class OfTrial(Event, frozen=True, kw_only=True, tag="trial"):
    """What is new of a trial.  ``what``: "begun", "block", "held", "dropped", "look" or, the last event of
    all, "ended"."""

    what: str
    trial: str
    record: str
    starts: int
    most_starts: int
    spent_s: float
    look: Look | None
    dropped: str | None
    verdict: str | None
    runs: tuple[str, ...]


class OfSweep(Event, frozen=True, kw_only=True, tag="sweep"):
    """What is new of a sweep.  ``what``: "begun", "start" (one begins), how one ended ("held", "disturbed",
    "failed", "cut short", "lost") or, the last event of all, "ended".  ``held`` of ``asked`` starts of cells
    count."""

    what: str
    sweep: str
    record: str
    model: str | None
    node: str | None
    cells: tuple[str, ...]
    number: int | None
    why: str | None
    runs: tuple[str, ...]
    held: int
    asked: int
    spent_s: float
    spent_usd: float | None


class Events(Standing):
    """Writes them to stderr; a context manager, which writes the last one where something ends it."""

    def __init__(self, starts: bool = False) -> None:
        super().__init__(starts)
        self._began_ns = time.perf_counter_ns()
        self._runs: tuple[str, ...] = ()
        self._phase: tuple[Slot, Phase] | None = None
        self._said_s = 0.0

    def __enter__(self) -> Events:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            status, reason = describe(error)
            runs = tuple(run for run in self._runs if Path(run).exists())
            self._write(Failed, status=status, reason=reason, runs=runs)

    def begin(self, ahead: Ahead) -> None:
        super().begin(ahead)
        self._runs = ahead.folders
        asked = {name: getattr(ahead, name) for name in ahead.__struct_fields__ if name != "folders"}
        self._write(Begin, runs=ahead.folders, **asked)

    def note(self, text: str) -> None:
        self._write(Note, text=text)

    def phase(self, model: str, text: str) -> None:
        super().phase(model, text)
        self._write(Step, model=model, text=text)

    def up(self, model: str, sources: Sources) -> None:
        super().up(model, sources)
        self._write(Up, model=model, gpus=sources.gpus)

    def progress(self, model: str, slot: Slot, progress: Progress) -> None:
        super().progress(model, slot, progress)
        at_s, phase = self._at_s(), (slot, progress.phase)
        if phase == self._phase and at_s - self._said_s < EVERY_S:
            return
        self._phase, self._said_s = phase, at_s
        self._write(
            Underway,
            model=model,
            point=slot.point,
            repeat=slot.repeat,
            left_s=self.left_s(),
            now=self.readings(),
            **{name: getattr(progress, name) for name in progress.__struct_fields__},
        )

    def window(
        self, model: str, slot: Slot, window: Window, left: int | None, known: Precision | None
    ) -> None:
        super().window(model, slot, window, left, known)
        so_far = self.known_of(model, slot.point)
        self._write(
            Held,
            model=model,
            point=slot.point,
            repeat=slot.repeat,
            index=window.index,
            took_s=(window.closed_ns - window.opened_ns) / 1e9,
            troubles=tuple(words.troubles(window)),
            half_interval_frac=so_far.half_frac if so_far else None,
            windows_of_load=so_far.windows if so_far else 1,
            target_frac=so_far.target_frac if so_far else None,
            windows_left=left,
            left_s=self.left_s(),
        )

    def sealed(self, folders: Sequence[Path]) -> None:
        super().sealed(folders)
        self._write(Sealed, runs=tuple(map(str, folders)))

    def trial(self, what: str, trial: Trial, record: Path, verdict: str | None = None) -> None:
        """``record``: the file that the trial is in."""
        last = trial.looks[-1] if trial.looks else None
        self._write(
            OfTrial,
            what=what,
            trial=trial.id,
            record=str(record),
            starts=trial.starts,
            most_starts=trial.most,
            spent_s=trial.spent_s,
            look=msgspec.convert(last, Look, from_attributes=True) if last and what == "look" else None,
            dropped=trial.dropped[-1].why if trial.dropped and what == "dropped" else None,
            verdict=verdict,
            runs=trial.runs(),
        )

    def sweep(self, **told: Any) -> None:
        """The keys of :class:`OfSweep`."""
        self._write(OfSweep, **told)

    def _at_s(self) -> float:
        return round((time.perf_counter_ns() - self._began_ns) / 1e9, 3)

    def _write(self, kind: type[Event], **what: Any) -> None:
        words.out(msgspec.json.encode(kind(at_s=self._at_s(), **what)).decode())
