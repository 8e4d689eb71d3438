"""The windows of a run laid end to end and cut into bins: what a picture over time is made of.

What passed between two windows (other loads, other models, engine starts) is left out, so the axis counts the
seconds of windows.  Every window is cut at the edges of its steady stretch, so a bin lies in one phase.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from profiler.schema import Window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

BEFORE, STEADY, AFTER, NEVER = "warming up", "steady", "ending", "never steady"


class Span(NamedTuple):
    """A phase of a window; ``at_s`` is where it begins on the axis."""

    window: Window
    phase: str
    start_ns: int
    end_ns: int
    at_s: float

    @property
    def length_s(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9


class Binned(NamedTuple):
    """What was seen in one bin: its mean, lowest and highest value, of ``n`` samples, whose mean time on the
    axis is ``at_s``."""

    bin: int
    at_s: float
    mean: float
    low: float
    high: float
    n: int


def spans(windows: Sequence[Window]) -> list[Span]:
    """The phases of the windows in the order they were held, end to end."""
    found: list[Span] = []
    at_s = 0.0
    for window in sorted(windows, key=lambda each: each.opened_ns):
        for phase, start_ns, end_ns in _phases(window):
            if end_ns > start_ns:
                found.append(Span(window, phase, start_ns, end_ns, at_s))
                at_s += found[-1].length_s
    return found


def _phases(window: Window) -> Iterator[tuple[str, int, int]]:
    start_ns, end_ns = window.steady_start_ns, window.steady_end_ns
    if start_ns is None or end_ns is None:
        yield NEVER, window.opened_ns, window.closed_ns
        return
    yield BEFORE, window.opened_ns, start_ns
    yield STEADY, start_ns, end_ns
    yield AFTER, end_ns, window.closed_ns


class Bins:
    """About ``most`` bins of like width over all spans; a span has at least one, and none reaches past it."""

    def __init__(self, parts: Sequence[Span], most: int) -> None:
        import numpy as np

        self.total_s = sum(part.length_s for part in parts)
        shares = [max(1, int(most * part.length_s / self.total_s)) for part in parts]
        edges = [
            np.linspace(part.start_ns, part.end_ns, n + 1).astype(np.int64)
            for part, n in zip(parts, shares, strict=True)
        ]
        self.start_ns: Ints = np.concatenate([each[:-1] for each in edges])
        self.end_ns: Ints = np.concatenate([each[1:] for each in edges])
        self.spans = [part for part, n in zip(parts, shares, strict=True) for _ in range(n)]
        behind_s = [part.at_s - (part.start_ns - parts[0].start_ns) / 1e9 for part in self.spans]
        self._origin_ns, self._behind_s = parts[0].start_ns, np.array(behind_s)
        self.at_s = self._on_axis(self.start_ns)
        self.until_s = self._on_axis(self.end_ns)
        self.width_s: Floats = (self.end_ns - self.start_ns) / 1e9

    def __len__(self) -> int:
        return len(self.spans)

    def _on_axis(self, times_ns: Ints) -> Floats:
        found: Floats = (times_ns - self._origin_ns) / 1e9 + self._behind_s
        return found

    def place(self, times_ns: Ints) -> Ints:
        """The bin of each instant, −1 between the windows."""
        import numpy as np

        at = np.searchsorted(self.start_ns, times_ns, side="right") - 1
        found: Ints = np.where((at >= 0) & (times_ns < self.end_ns[at]), at, -1)
        return found

    def gauge(self, times_ns: Ints, values: Floats) -> list[Binned]:
        """Samples in ascending order of time; bins without any are left out."""
        import numpy as np

        at = self.place(times_ns)
        times_ns, values, at = times_ns[at >= 0], values[at >= 0], at[at >= 0]
        if not len(at):
            return []
        first = np.flatnonzero(np.diff(at, prepend=-1))
        n = np.diff(first, append=len(at))
        middle_s = np.add.reduceat((times_ns - self.start_ns[at]) / 1e9, first) / n
        columns = (
            at[first],
            self.at_s[at[first]] + middle_s,
            np.add.reduceat(values, first) / n,
            np.minimum.reduceat(values, first),
            np.maximum.reduceat(values, first),
            n,
        )
        return [Binned(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]

    def total(self, times_ns: Ints, amounts: Floats) -> Floats:
        """The sum of what came in each bin."""
        import numpy as np

        at = self.place(times_ns)
        found = np.bincount(at[at >= 0], weights=amounts[at >= 0], minlength=len(self))
        return found.astype(np.float64)  # without a single one bincount forgets the type of its weights

    def level(self, up_ns: Ints, down_ns: Ints) -> Floats:
        """How many there were, on the mean of each bin's time, of what begins and ends at these instants."""
        import numpy as np

        times = np.concatenate([up_ns, down_ns])
        order = np.argsort(times, kind="stable")
        times = times[order]
        there = np.cumsum(np.repeat([1.0, -1.0], [len(up_ns), len(down_ns)])[order])
        until = np.concatenate([[0.0], np.cumsum(there[:-1] * np.diff(times) / 1e9)])
        spent = np.interp(self.end_ns, times, until) - np.interp(self.start_ns, times, until)
        found: Floats = spent / self.width_s
        return found

    def means(self, values: Floats) -> list[Binned]:
        """A value a bin, which is of its whole time."""
        middle_s = ((self.at_s + self.until_s) / 2).tolist()
        return [
            Binned(place, middle_s[place], each, each, each, 1) for place, each in enumerate(values.tolist())
        ]
