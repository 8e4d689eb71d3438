"""What is said of a run under way, whoever says it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress

from profiler import plain
from profiler.loadgen.job import Progress
from profiler.progress.readings import Readings
from profiler.schema import LoadPoint, Window
from profiler.subject import Slot


def out(text: str) -> None:
    """A line on stderr; that nobody reads it any more ends no run."""
    with suppress(OSError):
        print(plain.visible(text), file=sys.stderr, flush=True)  # noqa: T201


def label(model: str, slot: Slot) -> str:
    return f"{model} · {load_words(slot.point)} · repeat {slot.repeat + 1}"


def load_words(point: LoadPoint) -> str:
    if point.concurrency is None:
        return f"{point.requests_per_s:.4g} requests/s"
    return f"{'batch of' if point.mode == 'batch' else 'concurrency'} {point.concurrency}"


def precision_words(half_frac: float | None, windows: int) -> str:
    """``±2.4% after 3 windows``: what is known of the load by now; empty where that is nothing."""
    return "" if half_frac is None else f"±{_share(half_frac)} after {windows} windows"


def _share(frac: float) -> str:
    return f"{frac:.1%}" if frac < 1 else f"{frac:,.0%}"


def speed(progress: Progress) -> str:
    rate = "" if progress.chunks_per_s is None else f" · {progress.chunks_per_s:,.0f} tokens/s"
    failed = f" · {progress.failed} failed" if progress.failed else ""
    far = "" if progress.decoded_frac is None else f" {progress.decoded_frac:.0%}"
    return f"{progress.phase}{far}{rate} · {progress.done} requests{failed}"


def readings_words(now: Readings) -> Iterator[str]:
    """What could be read, and nothing of what could not."""
    if now.running is not None and now.waiting is not None:
        yield f"{now.running:.0f} running, {now.waiting:.0f} waiting"
    if now.power_w is not None:
        yield power_words(now)
    if now.kv_used_frac is not None:
        yield f"KV cache {used(now.kv_used_frac)}"
    yield from alarms(now)


def power_words(now: Readings) -> str:
    """``512 W``, of the boards unless it says of what."""
    of = ", CPU" if now.power_of == "cpu" else ""
    return f"{now.power_w:,.0f} W{of}{', made up' if now.is_made_up else ''}"


def used(frac: float) -> str:
    """A cache's use: ``34%``; ``0.3%`` is not nothing."""
    if 0 < frac < 0.0005:
        return "<0.1%"
    return f"{frac:.1%}" if 0 < frac < 0.1 else f"{frac:.0%}"


def alarms(now: Readings) -> Iterator[str]:
    """What goes on at this moment and spoils what is measured."""
    if now.is_lost:
        yield "⚠ a GPU has fallen off the bus"
    if now.held_back:
        yield f"⚠ clocks held back: {', '.join(now.held_back)}"
    if now.is_shared:
        yield "⚠ others use the GPUs"


def troubles(window: Window) -> Iterator[str]:
    """What is the matter with a window that has been held."""
    if window.trouble:
        yield window.trouble
    if window.audit and window.audit.bound_by:
        yield f"the client was the limit ({'; '.join(window.audit.bound_by)})"


def clocks(window: Window) -> Iterator[str]:
    """How well the times of other machines that sent are known; latencies are of one clock each."""
    for each in window.audit.clocks if window.audit else ():
        yield f"clock of {each.machine} known within {each.bound_s * 1e3:.2g} ms"


def clock(seconds: float) -> str:
    """``0:07``, ``12:30``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60}:{whole % 60:02d}"


def time_left(seconds: float | None) -> str:
    """``about 12:30 left``; empty where it is not known or next to nothing."""
    return "" if seconds is None or seconds < 0.5 else f"about {clock(seconds)} left"
