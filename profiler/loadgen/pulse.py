"""The load generator watches itself: how late its event loop runs and how much CPU it takes."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable
from time import perf_counter_ns

TICK_S = 0.01


class Pulse:
    """Calls ``beat`` every 10 ms of the event loop and notes how late each call was.

    uvloop's timers are whole milliseconds: an idle loop is up to 1 ms late here without any stamp being so.
    """

    def __init__(self, beat: Callable[[int], None]) -> None:
        self._beat = beat
        self._due_ns: array[int] = array("q")
        self._late_ns: array[int] = array("q")
        self._cpu_ns: array[int] = array("q")
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._plan(perf_counter_ns())

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def lag_p99_s(self, start_ns: int, end_ns: int) -> float | None:
        """99th percentile of the lateness between two times; None without a beat between them."""
        import numpy as np

        due = np.asarray(self._due_ns)
        late = np.asarray(self._late_ns)[(due >= start_ns) & (due < end_ns)]
        return None if late.size == 0 else float(np.percentile(late, 99)) / 1e9

    def cpu_frac(self, start_ns: int, end_ns: int) -> float:
        """CPU time of this process over the time between the beats nearest to the two given times."""
        import numpy as np

        due, late = np.asarray(self._due_ns), np.asarray(self._late_ns)
        times = due + late
        first, last = (min(int(np.searchsorted(times, at)), times.size - 1) for at in (start_ns, end_ns))
        if last <= first:
            return 0.0
        return float((self._cpu_ns[last] - self._cpu_ns[first]) / (times[last] - times[first]))

    def _plan(self, now_ns: int) -> None:
        self._next_ns = now_ns + int(TICK_S * 1e9)
        self._handle = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        now_ns = perf_counter_ns()
        self._due_ns.append(self._next_ns)
        self._late_ns.append(max(0, now_ns - self._next_ns))
        self._cpu_ns.append(time.process_time_ns())
        self._beat(now_ns)
        self._plan(now_ns)
