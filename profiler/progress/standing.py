"""Where a run stands: what the watchers hear of it, put together."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from profiler.loadgen.job import Progress
from profiler.measure import Ahead
from profiler.progress.readings import NOTHING, Follower, Readings
from profiler.schema import LoadPoint, Window
from profiler.subject import Slot, Sources

if TYPE_CHECKING:
    from profiler.adaptive import Precision

RATES_KEPT = 60  # seconds, one value each
SECOND = 4  # reports of the load generator


class SoFar(NamedTuple):
    """What is known of a load: half its interval as a share, after so many windows; what was asked for."""

    half_frac: float | None
    windows: int
    target_frac: float | None = None


class Pace:
    """How long it will go on, by what finished windows took: engine starts are not windows.  With ``starts``,
    for what starts an engine every few windows, by all the time since the beginning."""

    def __init__(self, starts: bool = False) -> None:
        self._starts = starts
        self._since_ns = self._began_ns = time.perf_counter_ns()
        self._spent_ns = 0
        self._windows = 0

    def add(self, window: Window) -> None:
        self._windows += 1
        self._since_ns = time.perf_counter_ns()
        self._spent_ns += window.closed_ns - window.opened_ns

    def left_s(self, windows: int | None, under_way: Progress | None = None) -> float | None:
        """Seconds that so many windows take, the one ``under_way`` among them; None: nobody can tell yet."""
        if windows is None:
            return None
        mean_s, elapsed_s = self._mean_s, under_way.elapsed_s if under_way else 0.0
        if mean_s is None and under_way is not None and not self._starts:
            mean_s = under_way.expected_s
        if mean_s is None:
            return None
        if self._starts:
            elapsed_s = (time.perf_counter_ns() - self._since_ns) / 1e9
        return windows * mean_s - min(elapsed_s, mean_s)

    @property
    def _mean_s(self) -> float | None:
        if not self._windows:
            return None
        spent_ns = self._since_ns - self._began_ns if self._starts else self._spent_ns
        return spent_ns / self._windows / 1e9


class Standing:
    """Hears what a :class:`profiler.measure.Show` hears and keeps it.

    Outside windows ``slot`` and ``progress`` are None and ``step`` says what is done.
    """

    def __init__(self, starts: bool = False) -> None:
        self.ahead: Ahead | None = None
        self.model = ""
        self.step = "starting"
        self.since_ns = time.perf_counter_ns()  # when the model was last said to do something else
        self.slot: Slot | None = None
        self.progress_now: Progress | None = None
        self.held = 0
        self.left: int | None = None
        self.rates: deque[float] = deque(maxlen=RATES_KEPT)
        self._pace = Pace(starts)
        self._lately: deque[float] = deque(maxlen=SECOND)
        self._reports = 0
        self._known: dict[tuple[str, LoadPoint], SoFar] = {}
        self._rates_of: dict[tuple[str, LoadPoint], list[float]] = {}
        self._followers: dict[str, Follower] = {}

    # ------------------------------------------------------------------------------ what is heard

    def begin(self, ahead: Ahead) -> None:
        self.ahead, self.left = ahead, ahead.windows
        self._known.clear()  # another run, of other requests perhaps
        self._rates_of.clear()

    def up(self, model: str, sources: Sources) -> None:
        self._followers[model] = Follower(sources)

    def phase(self, model: str, text: str) -> None:
        step = step_of(text)
        if (model, step) != (self.model, step_of(self.step)) or self.slot is not None:
            self.since_ns = time.perf_counter_ns()
        self.model, self.step, self.slot, self.progress_now = model, text, None, None

    def progress(self, model: str, slot: Slot, progress: Progress) -> None:
        if self.slot != slot:
            self.rates.clear()
            self._lately.clear()
            self._reports = 0
        self.model, self.slot, self.progress_now = model, slot, progress
        if progress.chunks_per_s is None:
            return
        self._lately.append(progress.chunks_per_s)
        self._reports += 1
        if self._reports % SECOND == 0:
            self.rates.append(sum(self._lately) / len(self._lately))

    def window(
        self, model: str, slot: Slot, window: Window, left: int | None, known: Precision | None
    ) -> None:
        self._pace.add(window)
        self.held += 1
        self.left = left
        found = self._so_far(model, window, known)
        self._known.pop((model, slot.point), None)  # the newest is the last one
        self._known[model, slot.point] = found
        self.step, self.slot, self.progress_now = "between windows", None, None
        self.since_ns = time.perf_counter_ns()

    def sealed(self, folders: Sequence[Path]) -> None:  # noqa: ARG002 (for those that tell them)
        self._followers.clear()

    # ------------------------------------------------------------------------------ what is known

    @property
    def rate(self) -> float | None:
        """Pieces of answers per second, over the last second."""
        return sum(self._lately) / len(self._lately) if self._lately and self.slot else None

    def last_known(self) -> tuple[LoadPoint, SoFar] | None:
        """Of the load that is held now; where that has no interval yet, of the model's last one that has."""
        if (
            self.slot
            and (found := self.known_of(self.model, self.slot.point))
            and found.half_frac is not None
        ):
            return self.slot.point, found
        for (model, point), found in reversed(list(self._known.items())):
            if model == self.model and found.half_frac is not None:
                return point, found
        return None

    def known_of(self, model: str, point: LoadPoint) -> SoFar | None:
        return self._known.get((model, point))

    def left_s(self) -> float | None:
        return self._pace.left_s(self.left, self.progress_now)

    def load_number(self) -> int | None:
        """Which of the loads is held now, from 1; None where a search chooses them."""
        if self.slot is None or self.ahead is None or self.slot.point not in self.ahead.points:
            return None
        return self.ahead.points.index(self.slot.point) + 1

    def readings(self) -> Readings:
        follower = self._followers.get(self.model)
        return follower.read() if follower else NOTHING

    def _so_far(self, model: str, window: Window, known: Precision | None) -> SoFar:
        """By the run's own rule where that decides how many windows there are; else the interval over windows
        of the rate at which pieces came, which needs nothing from disk."""
        if known is not None:
            return SoFar(known.half_frac, known.windows, known.target_frac)
        rates = self._rates_of.setdefault((model, window.point), [])
        start_ns, end_ns = window.steady_start_ns, window.steady_end_ns
        if window.point.concurrency is not None and window.audit and start_ns is not None and end_ns:
            rates.append(window.audit.chunks / (end_ns - start_ns) * 1e9)
        if len(rates) < 2:
            return SoFar(None, len(rates))
        from profiler import stats
        from profiler.stats import looked

        return SoFar(looked.half_frac(stats.over_repeats(rates)), len(rates))


def step_of(text: str) -> str:
    """What is done, without how far it is: ``vllm · loading weights`` is a step of ``vllm``."""
    return text.split(" · ", maxsplit=1)[0]
