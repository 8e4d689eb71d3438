"""Plain lines, for logs and pipes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from profiler.charts.words import one_line
from profiler.loadgen.job import Progress
from profiler.progress import words
from profiler.progress.standing import Standing, step_of
from profiler.schema import Window
from profiler.subject import Slot

if TYPE_CHECKING:
    from profiler.adaptive import Precision

LINE_EVERY_S = 10.0


class Lines(Standing):
    """One line a step and one every LINE_EVERY_S seconds within a step."""

    def __init__(self, starts: bool = False) -> None:
        super().__init__(starts)
        self._last: tuple[str, float] = ("", 0.0)

    def note(self, text: str) -> None:
        words.out(one_line(text))

    def phase(self, model: str, text: str) -> None:
        super().phase(model, text)
        if self._is_due(f"{model} {step_of(text)}"):
            words.out(one_line(f"{model} · {text}"))

    def progress(self, model: str, slot: Slot, progress: Progress) -> None:
        super().progress(model, slot, progress)
        name = words.label(model, slot)
        if progress.elapsed_s >= LINE_EVERY_S and self._is_due(name):
            said = (name, words.speed(progress), *words.readings_words(self.readings()))
            words.out(one_line(" · ".join(said)))

    def window(
        self, model: str, slot: Slot, window: Window, left: int | None, known: Precision | None
    ) -> None:
        super().window(model, slot, window, left, known)
        seconds = (window.closed_ns - window.opened_ns) / 1e9
        so_far = self.known_of(model, slot.point)
        reached = words.precision_words(so_far.half_frac, so_far.windows) if so_far else ""
        said = [f"done in {seconds:.1f} s", reached, *words.troubles(window), *words.clocks(window)]
        about = "about " if known and left else ""
        to_go = "searching" if left is None else f"{about}{left} to go"
        rest = ", ".join(filter(None, (to_go, words.time_left(self.left_s()))))
        words.out(one_line(f"{words.label(model, slot)} · {' · '.join(filter(None, said))} ({rest})"))

    def _is_due(self, step: str) -> bool:
        now, (said, at) = time.monotonic(), self._last
        if said == step and now - at < LINE_EVERY_S:
            return False
        self._last = (step, now)
        return True
