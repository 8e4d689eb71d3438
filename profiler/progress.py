"""Who watches a run: a live line on a terminal, plain lines when piped, nothing when quiet.

All of it goes to stderr, so that stdout carries results only.  The load generator runs in a process of
its own and is not slowed by any drawing here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from profiler.loadgen.job import Progress
from profiler.measure import Show
from profiler.schema import LoadPoint, Window
from profiler.subject import Slot

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from profiler.adaptive import Precision

LINE_EVERY_S = 10.0


class Quiet:
    """Says nothing."""

    def phase(self, model: str, text: str) -> None: ...
    def progress(self, model: str, slot: Slot, progress: Progress) -> None: ...
    def window(
        self, model: str, slot: Slot, window: Window, left: int | None, known: Precision | None
    ) -> None: ...


class Clock:
    """Time left, from the finished windows alone: engine starts are not windows.  With ``starts``, for what
    starts an engine every few windows, from all the time since the beginning."""

    def __init__(self, starts: bool = False) -> None:
        self._began_ns = time.perf_counter_ns() if starts else None
        self._spent_ns = 0
        self._windows = 0

    def add(self, window: Window) -> None:
        self._windows += 1
        if self._began_ns is None:
            self._spent_ns += window.closed_ns - window.opened_ns
        else:
            self._spent_ns = time.perf_counter_ns() - self._began_ns

    def left(self, windows: int | None) -> str:
        if not self._windows or windows is None:
            return ""
        seconds = round(windows * self._spent_ns / self._windows / 1e9)
        return f", about {seconds // 60}:{seconds % 60:02d} left" if seconds else ""


def label(model: str, slot: Slot) -> str:
    return f"{model} · {load_words(slot.point)} · repeat {slot.repeat + 1}"


def load_words(point: LoadPoint) -> str:
    if point.concurrency is None:
        return f"{point.requests_per_s:.4g} requests/s"
    return f"{'batch of' if point.mode == 'batch' else 'concurrency'} {point.concurrency}"


def precision_words(known: Precision | None) -> str:
    """`` · ±2.4 % after 3 windows``: what is known of the load by now."""
    if known is None or known.half_frac is None:
        return ""
    return f" · ±{known.half_frac:.1%} after {known.windows} windows"


def speed(progress: Progress) -> str:
    rate = "" if progress.chunks_per_s is None else f" · {progress.chunks_per_s:,.0f} tokens/s"
    failed = f" · {progress.failed} failed" if progress.failed else ""
    far = "" if progress.decoded_frac is None else f" {progress.decoded_frac:.0%}"
    return f"{progress.phase}{far}{rate} · {progress.done} requests{failed}"


class Lines:
    """One line a step and one every LINE_EVERY_S seconds within a step, for logs and pipes."""

    def __init__(self, starts: bool = False) -> None:
        self._clock = Clock(starts)
        self._last: tuple[str, float] = ("", 0.0)

    def _say(self, step: str, text: str) -> None:
        now = time.monotonic()
        said, at = self._last
        if said == step and now - at < LINE_EVERY_S:
            return
        self._last = (step, now)
        print(text, file=sys.stderr, flush=True)  # noqa: T201

    def phase(self, model: str, text: str) -> None:
        self._say(f"{model} {text.split(' · ', maxsplit=1)[0]}", f"{model} · {text}")

    def progress(self, model: str, slot: Slot, progress: Progress) -> None:
        if progress.elapsed_s >= LINE_EVERY_S:
            self._say(label(model, slot), f"{label(model, slot)} · {speed(progress)}")

    def window(
        self, model: str, slot: Slot, window: Window, left: int | None, known: Precision | None
    ) -> None:
        self._clock.add(window)
        trouble = f" · {window.trouble}" if window.trouble else ""
        seconds = (window.closed_ns - window.opened_ns) / 1e9
        about = "about " if known and left else ""
        to_go = "searching" if left is None else f"{about}{left} to go{self._clock.left(left)}"
        said = f"{precision_words(known)}{trouble}"
        text = f"{label(model, slot)} · done in {seconds:.1f} s{said} ({to_go})"
        self._say(text, text)


class Live:
    """One redrawn line: bar, phase, tokens/s, time left."""

    def __init__(self, starts: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._clock = Clock(starts)
        self._todo: int | None = None
        self._bar: Bar = Progress(
            BarColumn(bar_width=16),
            TextColumn("{task.description}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None)
        self._done = 0
        self._known: dict[tuple[str, LoadPoint], Precision | None] = {}

    def __enter__(self) -> Live:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def phase(self, model: str, text: str) -> None:
        self._bar.update(self._task, description=f"{model} · {text}")

    def progress(self, model: str, slot: Slot, progress: Progress) -> None:
        within = min(1.0, progress.elapsed_s / progress.expected_s) if progress.expected_s else 0.0
        left = self._clock.left(self._todo)
        so_far = precision_words(self._known.get((model, slot.point)))
        self._bar.update(
            self._task,
            completed=self._done + within,
            description=f"{label(model, slot)} · {speed(progress)}{so_far}{left}",
        )

    def window(
        self, model: str, slot: Slot, window: Window, left: int | None, known: Precision | None
    ) -> None:
        self._clock.add(window)
        self._known[model, slot.point] = known
        self._done += 1
        self._todo = left
        total = None if left is None else self._done + left
        self._bar.update(self._task, total=total, completed=self._done)
        if window.trouble:
            self._bar.console.print(f"{label(model, slot)} · {window.trouble}", markup=False)


@contextmanager
def watcher(quiet: bool, starts: bool = False) -> Iterator[Show]:
    """The watcher that fits stderr; ``starts`` as in :class:`Clock`."""
    if quiet or not sys.stderr.isatty():
        yield Quiet() if quiet else Lines(starts)
    else:
        with Live(starts) as live:
            yield live
