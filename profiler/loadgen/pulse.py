"""The load generator watches itself: how late its event loop runs and how much CPU it takes."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING

from profiler.alarm import Alarm

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TICK_S = 0.01
TICK_NS = int(TICK_S * 1e9)
CPU_EVERY_TICKS = 5


def slept_ns() -> int:
    """How long the machine has slept since it was started, to the ms; 0 where the system does not tell."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return 0 if boot is None else time.clock_gettime_ns(boot) - time.monotonic_ns()


class Pulse:
    """Calls ``beat`` every 10 ms of the event loop and notes how late it was.

    A loop that stands still misses ticks; each of them counts with its own lateness, so that percentiles are
    over time: one stop of 100 ms is ten late ticks (100, 90, … ms), not one.  An hour of it takes 3 MiB.
    While the machine sleeps its clock stops too, and no tick is missed: one is late by all of that time.
    """

    def __init__(self, beat: Callable[[int], None], alarm: Alarm) -> None:
        self._beat = beat
        self._alarm = alarm
        self._first_ns = self._next_ns = 0
        self._running = False
        self._late_s = array("f")  # of every tick since the first, TICK_NS apart
        self._seen_ns: array[int] = array("q")
        self._cpu_ns: array[int] = array("q")
        self._slept_ns = slept_ns()

    def start(self) -> None:
        self._running = True
        self._note_cpu(perf_counter_ns())
        self._first_ns = self._next_ns = self._seen_ns[0] + TICK_NS
        self._alarm.at(self._next_ns, self._tick)

    def stop(self) -> None:
        self._running = False

    def lag_p99_s(self, start_ns: int, end_ns: int) -> float | None:
        """99th percentile of the lateness between two times; None without a tick between them."""
        import numpy as np

        late = self._late_between(start_ns, end_ns)
        return None if late.size == 0 else float(np.percentile(late, 99))

    def lag_max_s(self, start_ns: int, end_ns: int) -> float | None:
        """The worst lateness between two times; None without a tick between them."""
        late = self._late_between(start_ns, end_ns)
        return None if late.size == 0 else float(late.max())

    def cpu_frac(self, start_ns: int, end_ns: int) -> float | None:
        """CPU time of this process over the time between the beats nearest to the two given times; None where
        these are one."""
        import numpy as np

        times = np.asarray(self._seen_ns)
        first, last = (min(int(np.searchsorted(times, at)), times.size - 1) for at in (start_ns, end_ns))
        if last <= first:
            return None
        return float((self._cpu_ns[last] - self._cpu_ns[first]) / (times[last] - times[first]))

    def _late_between(self, start_ns: int, end_ns: int) -> NDArray[np.float32]:
        import numpy as np

        first, last = (max(0, -((self._first_ns - at) // TICK_NS)) for at in (start_ns, end_ns))
        return np.asarray(self._late_s)[first:last]

    def _note_cpu(self, now_ns: int) -> None:
        self._seen_ns.append(now_ns)
        self._cpu_ns.append(time.process_time_ns())

    def _note_sleep(self) -> None:
        slept = slept_ns() - self._slept_ns
        self._slept_ns += slept
        if slept > TICK_NS and self._late_s:
            self._late_s[-1] += slept / 1e9

    def _tick(self) -> None:
        if not self._running:
            return
        now_ns = perf_counter_ns()
        while self._next_ns <= now_ns:
            self._late_s.append((now_ns - self._next_ns) / 1e9)
            self._next_ns += TICK_NS
        if now_ns - self._seen_ns[-1] >= CPU_EVERY_TICKS * TICK_NS:
            self._note_cpu(now_ns)
            self._note_sleep()
        self._alarm.at(self._next_ns, self._tick)
        self._beat(now_ns)
