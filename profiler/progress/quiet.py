"""Nobody watches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from profiler.charts.words import one_line
from profiler.loadgen.job import Progress
from profiler.measure import Ahead
from profiler.progress.words import out
from profiler.schema import Window
from profiler.subject import Slot, Sources

if TYPE_CHECKING:
    from profiler.adaptive import Precision


class Quiet:
    """Says nothing of the progress."""

    def begin(self, ahead: Ahead) -> None: ...
    def up(self, model: str, sources: Sources) -> None: ...
    def phase(self, model: str, text: str) -> None: ...
    def progress(self, model: str, slot: Slot, progress: Progress) -> None: ...
    def window(
        self, model: str, slot: Slot, window: Window, left: int | None, known: Precision | None
    ) -> None: ...
    def sealed(self, folders: Sequence[Path]) -> None: ...

    def note(self, text: str) -> None:
        out(one_line(text))
