"""Who watches a run: a live view on a terminal, plain lines or events when piped, nothing when quiet.

All of it goes to stderr, so that stdout carries results only.  The load generator runs in a process of
its own and is not slowed by any drawing here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from profiler.measure import Show
from profiler.progress.quiet import Quiet

__all__ = ["Quiet", "Watcher", "watcher"]


class Watcher(Show, Protocol):
    """Who watches, and is told what is no part of the measuring."""

    def note(self, text: str) -> None:
        """Something to know, in words."""


@contextmanager
def watcher(quiet: bool, starts: bool = False, as_json: bool = False) -> Iterator[Watcher]:
    """The watcher that fits stderr: ``starts`` for what starts an engine every few windows; ``as_json`` asks
    for events where nobody looks on."""
    if quiet:
        yield Quiet()
        return
    from profiler.progress.screen import Screen, is_drawable

    if is_drawable():
        with Screen(starts) as screen:
            yield screen
    elif as_json:
        from profiler.progress.events import Events

        with Events(starts) as events:
            yield events
    else:
        from profiler.progress.lines import Lines

        yield Lines(starts)
