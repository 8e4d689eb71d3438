"""How busy simulated boards are: an append-only file between a simulated engine and the boards.

A line is ``t_ns  pid  busy_frac``, tab-separated: from this CLOCK_MONOTONIC time on, process ``pid`` holds a
CUDA context and keeps the boards busy to this fraction; ``-`` instead of a fraction: it has let go.  A
process writes at least every ``HEARTBEAT_S``; one that was silent for ``HOLD_S`` has been killed and holds
nothing any more.  Fractions of several processes add up to 1 at most.

The file alone decides the power, so the true energy of any stretch of time can be computed from it later.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter_ns
from typing import NamedTuple

LOAD_VARIABLE = "PROFILER_SIMULATED_LOAD"
HEARTBEAT_S, HOLD_S, MERGE_S = 0.5, 2.0, 0.005
GONE = b"-"


class LoadWriter:
    """Tells the boards how busy one process keeps them, from when it is made until it is closed."""

    def __init__(self, path: Path | str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._state = 0.0
        self._wrote_ns = 0
        self._lock = threading.Lock()
        self._waiting = threading.Event()
        self._write()
        threading.Thread(target=self._keep_telling, daemon=True).start()

    def tell(self, busy_frac: float) -> None:
        """From now on this busy; changes within ``MERGE_S`` are told as one, which is then the truth."""
        self._state = busy_frac
        if perf_counter_ns() - self._wrote_ns >= MERGE_S * 1e9:
            self._write()
        else:
            self._waiting.set()

    def close(self) -> None:
        """Let go of the boards."""
        with self._lock:
            file, self._file = self._file, -1
            os.write(file, _line(GONE))
            os.close(file)
        self._waiting.set()

    def _keep_telling(self) -> None:
        while self._file >= 0:
            if self._waiting.wait(HEARTBEAT_S):
                time.sleep(MERGE_S)
                self._waiting.clear()
            self._write()

    def _write(self) -> None:
        with self._lock:
            if self._file >= 0:  # one write a line, so that those of several processes do not mix
                os.write(self._file, _line(b"%.4f" % self._state))
                self._wrote_ns = perf_counter_ns()


def _line(state: bytes) -> bytes:
    return b"%d\t%d\t%s\n" % (perf_counter_ns(), os.getpid(), state)


class Held(NamedTuple):
    """Seconds up to a time in which a process held a context, and the integral of the busy fraction."""

    context_s: float
    busy_s: float


class Load:
    """The file as read so far; without a path, or before there is a file, nobody is busy.

    Times are seconds of CLOCK_MONOTONIC.  A line that is older than its predecessor (two processes wrote
    at once) counts from the time of that.
    """

    def __init__(self, path: Path | str | None) -> None:
        self._path = path
        self._file: int | None = None
        self._begun = b""
        self._busy: dict[int, float] = {}
        self._silent_at_s: dict[int, float] = {}
        self._starts_s = [0.0]
        self._states = [(0, 0.0)]
        self._held = [Held(0.0, 0.0)]

    def refresh(self) -> None:
        """Read what has been appended since."""
        if self._file is None:
            if self._path is None or not os.path.exists(self._path):
                return
            self._file = os.open(self._path, os.O_RDONLY)
        while piece := os.read(self._file, 1 << 16):
            *lines, self._begun = (self._begun + piece).split(b"\n")
            for line in lines:
                t_ns, pid, state = line.split(b"\t")
                self._take(int(t_ns) / 1e9, int(pid), state)

    def pids(self, t_s: float) -> list[int]:
        """Who holds a context at this time, which must not lie before the last line."""
        return [pid for pid, silent_s in self._silent_at_s.items() if silent_s > t_s]

    def busy_frac(self, t_s: float) -> float | None:
        """How busy the boards are; None while nobody holds a context."""
        holders, busy = self._at(t_s)[1]
        return busy if holders else None

    def held(self, t_s: float) -> Held:
        """The integrals from time 0 to ``t_s``."""
        start_s, (holders, busy), before = self._at(t_s)
        return Held(
            before.context_s + (t_s - start_s) * bool(holders), before.busy_s + (t_s - start_s) * busy
        )

    def _take(self, t_s: float, pid: int, state: bytes) -> None:
        t_s = max(t_s, self._starts_s[-1])
        for silent_s, silent in sorted((s, p) for p, s in self._silent_at_s.items() if s <= t_s):
            self._forget(silent)
            self._append(silent_s)
        if state == GONE:
            self._forget(pid)
        else:
            self._busy[pid], self._silent_at_s[pid] = float(state), t_s + HOLD_S
        self._append(t_s)

    def _forget(self, pid: int) -> None:
        self._busy.pop(pid, None)
        self._silent_at_s.pop(pid, None)

    def _append(self, t_s: float) -> None:
        state = len(self._busy), min(1.0, sum(self._busy.values()))
        if state != self._states[-1]:
            self._held.append(self.held(max(t_s, self._starts_s[-1])))
            self._starts_s.append(t_s)
            self._states.append(state)

    def _at(self, t_s: float) -> tuple[float, tuple[int, float], Held]:
        """Start, state and integrals of the segment in force at ``t_s``."""
        if t_s < self._starts_s[-1]:
            place = bisect_right(self._starts_s, t_s) - 1
            return self._starts_s[place], self._states[place], self._held[place]
        last = self._starts_s[-1], self._states[-1], self._held[-1]
        for segment in self._dying(t_s):
            last = segment
        return last

    def _dying(self, t_s: float) -> Iterator[tuple[float, tuple[int, float], Held]]:
        """The segments behind the last line, as one process after another falls silent."""
        start_s, (holders, busy), held = self._starts_s[-1], self._states[-1], self._held[-1]
        left = dict(self._busy)
        for silent_s, pid in sorted((s, p) for p, s in self._silent_at_s.items() if s <= t_s):
            del left[pid]
            span_s = silent_s - start_s
            held = Held(held.context_s + span_s * bool(holders), held.busy_s + span_s * busy)
            start_s, holders, busy = silent_s, len(left), min(1.0, sum(left.values()))
            yield start_s, (holders, busy), held
