"""A live view on a terminal: a few lines that are drawn over and over, and gone when it ends.

It is drawn by a thread of the measuring process, REDRAWS_PER_S times a second at most; the load generator,
the sampler and the engine are other processes.  What has to stay is printed above it.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from contextlib import suppress
from copy import copy
from typing import IO, TYPE_CHECKING, Any, TextIO, cast

from profiler.charts.words import one_line
from profiler.progress import words
from profiler.progress.frame import BAD, frame
from profiler.progress.standing import RATES_KEPT, Standing
from profiler.schema import Window
from profiler.subject import Slot

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

    from profiler.adaptive import Precision

REDRAWS_PER_S = 4
LINE_UP = "\x1b[2K\x1b[1A"
# A terminal that knows these (synchronized output) shows all between them at once; others pass over them.
TOGETHER, SHOWN = "\x1b[?2026h", "\x1b[?2026l"


class Whole:
    """A stream to a terminal, which gets each of its writes as one picture."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Nobody at the other end any more: nothing is shown, and the run goes on."""
        with suppress(OSError):
            self._stream.write(f"{TOGETHER}{text}{SHOWN}")
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def is_drawable() -> bool:
    """Whether stderr is a terminal that can be drawn on."""
    can_move = os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    encoding = (sys.stderr.encoding or "").lower().replace("-", "")
    return sys.stderr.isatty() and can_move and encoding == "utf8"


class Screen(Standing):
    """The view; a context manager, which leaves the terminal as it was."""

    def __init__(self, starts: bool = False) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(starts)
        self._stream = cast(IO[str], Whole(sys.stderr))
        self._console = Console(file=self._stream, highlight=False, soft_wrap=True)
        self._watts: deque[float] = deque(maxlen=RATES_KEPT)
        self._draws = 0
        self._last: list[Text] = []
        self._last_width = self._console.width
        self._live = Live(
            console=self._console,
            get_renderable=self._drawn,
            refresh_per_second=REDRAWS_PER_S,
            transient=True,
            redirect_stdout=False,  # results go elsewhere, or come after
            vertical_overflow="crop",
        )

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def note(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(one_line(text), style=style))

    def window(
        self, model: str, slot: Slot, window: Window, left: int | None, known: Precision | None
    ) -> None:
        super().window(model, slot, window, left, known)
        for trouble in words.troubles(window):
            self.note(f"⚠ {words.label(model, slot)} · {trouble}", BAD)
        for known_within in words.clocks(window):
            self.note(f"{words.label(model, slot)} · {known_within}")

    def _drawn(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        width = self._console.width
        self._make_room(width)
        self._draws += 1
        try:
            lines = self._lines(width)
        except Exception as error:  # no run ends by its picture
            lines = [Text(f"⚠ this view cannot be drawn: {error!r}", style=BAD)]
        self._last, self._last_width = lines, width
        return Group(*lines)

    def _lines(self, width: int) -> list[Text]:
        now = copy(self)  # what is drawn does not change meanwhile
        power_w = now.readings().power_w
        if power_w is None:
            self._watts.clear()
        elif self._draws % REDRAWS_PER_S == 0:
            self._watts.append(power_w)
        return frame(now, self._watts, width)

    def _make_room(self, width: int) -> None:
        """A terminal that was made narrower has wrapped the lines that are there: they are more now than
        those that will be drawn over.  (One that cuts them instead loses as many lines above.)"""
        if width < self._last_width:
            more = sum(-(-max(1, line.cell_len) // width) - 1 for line in self._last)
            self._stream.write(LINE_UP * more)
