"""Runs that are part of something larger, such as a trial or a sweep: shown by where they stand in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from profiler.loadgen.job import Progress
from profiler.measure import Ahead, Show
from profiler.schema import Window
from profiler.subject import Slot, Sources

if TYPE_CHECKING:
    from profiler.adaptive import Precision


class Part:
    """The windows of one run, shown by ``show`` as ``where`` ("block 2 of 8") has them; ``left``: so many
    runs like it are still to come."""

    def __init__(self, show: Show, where: str, left: int) -> None:
        self._show = show
        self._where = where
        self._left = left
        self._held = 0

    def _named(self, model: str) -> str:
        return f"{self._where} · {model}"

    def begin(self, ahead: Ahead) -> None:
        windows = None if ahead.windows is None else ahead.windows * (1 + self._left)
        names = tuple(map(self._named, ahead.models))
        self._show.begin(replace(ahead, models=names, windows=windows))

    def up(self, model: str, sources: Sources) -> None:
        self._show.up(self._named(model), sources)

    def phase(self, model: str, text: str) -> None:
        self._show.phase(self._named(model), text)

    def progress(self, model: str, slot: Slot, progress: Progress) -> None:
        self._show.progress(self._named(model), slot, progress)

    def window(
        self, model: str, slot: Slot, window: Window, left: int | None, known: Precision | None
    ) -> None:
        self._held += 1
        rest = None if left is None else left + self._left * (self._held + left)
        self._show.window(self._named(model), slot, window, rest, known)

    def sealed(self, folders: Sequence[Path]) -> None:
        self._show.sealed(folders)
