"""When the requests of an open loop or a replay are due: fixed before the run, whatever the server does.

An open loop is drawn at unit rate and then stretched: with gaps g_j of mean 1 and their sums u_j, request
j is due when the expected number of requests Λ(t) = ∫ rate reaches u_j (time-rescaling: D. R. Cox and V.
Isham, Point Processes, 1980, ch. 4; the same holds for steps and ramps).  The gaps are 1 (``constant``:
the first request is due at once), exponential (``poisson``) or gamma distributed with shape k =
``burstiness`` and scale 1/k (coefficient of variation 1/√k), as vLLM's benchmark defines it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from msgspec import Struct

from profiler.schema import LoadPoint
from profiler.settings import Load, Measure, Stage
from profiler.workload.draws import GAPS, generator
from profiler.workload.trace import Trace, load_trace

if TYPE_CHECKING:
    import numpy as np

    Times = np.ndarray[tuple[int], np.dtype[np.float64]]

BLOCK = 4096


class Schedule:
    """Due offsets in seconds from the load's start, and the window measured: [``start_s``, ``end_s``).

    Stages and replays are ``finite`` and measured whole.  A plain open loop is endless (it goes on until
    the measured requests have ended); its window opens after ``warmup_s`` and closes at the first whole
    multiple of ``window_s`` by which ``min_requests`` of it are due, at most ``max_window_s``.
    """

    start_s: float
    end_s: float
    finite: bool

    def blocks(self) -> Iterator[Times]:
        """All due offsets, ascending, some thousand at once; every call begins anew."""
        raise NotImplementedError


def schedule(load: Load, point: LoadPoint, measure: Measure, seed: int, window: int) -> Schedule:
    """The schedule of one window of an ``open`` or ``replay`` load.  Raises InputError for its trace."""
    if load.mode == "replay":
        assert load.trace is not None, "a replay without its trace"
        return _Replay(load_trace(load.trace, load))
    if load.stages:
        return _Staged(load, seed, window)
    assert point.requests_per_s is not None, "an open loop without its rate"
    return _Plain(load, point.requests_per_s, measure, (seed, window))


def mean_rate(load: Load) -> float:
    """Requests per second over all stages, or over the whole trace."""
    if load.mode == "replay":
        assert load.trace is not None, "a replay without its trace"
        trace = load_trace(load.trace, load)
        return len(trace) / trace.whole_s
    return sum(map(_expected, load.stages)) / sum(stage.for_s for stage in load.stages)


class _Replay(Schedule):
    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self.start_s, self.end_s, self.finite = 0.0, trace.whole_s, True

    def blocks(self) -> Iterator[Times]:
        import numpy as np

        times = np.asarray(self._trace.times_s, dtype=np.float64)
        yield from (times[at : at + BLOCK] for at in range(0, len(times), BLOCK))


class _Plain(Schedule):
    """One rate for ever."""

    def __init__(self, load: Load, rate: float, measure: Measure, stream: tuple[int, int]) -> None:
        self._load, self._rate, self._stream = load, rate, stream
        self.start_s, self.finite = measure.warmup_s, False
        self.end_s = self.start_s + self._length_s(measure)

    def blocks(self) -> Iterator[Times]:
        return (counts / self._rate for counts in _unit_rate(self._load, *self._stream))

    def _length_s(self, measure: Measure) -> float:
        """Whole windows until ``min_requests`` are due in them."""
        enough_s = self._due_s(measure.min_requests, measure.max_window_s)
        windows = math.floor(enough_s / measure.window_s) + 1
        return min(windows * measure.window_s, measure.max_window_s)

    def _due_s(self, count: int, limit_s: float) -> float:
        """How long after ``start_s`` the ``count``-th request from then on is due; at most ``limit_s``."""
        due_s = 0.0
        for block in self.blocks() if count else ():
            inside = block[block >= self.start_s] - self.start_s
            due_s = float(inside[min(count, len(inside)) - 1]) if len(inside) else 0.0
            count -= len(inside)
            if count <= 0 or due_s >= limit_s:
                break
        return min(due_s, limit_s)


class _Piece(Struct, frozen=True):
    """A stage placed in time: from ``start_s`` on, when ``expected`` requests were due before."""

    start_s: float
    expected: float
    stage: Stage

    def times(self, counts: Times) -> Times:
        """When Λ reaches these counts: r·t + s·t²/2 = u solved for t in the form that suffers no
        cancellation, s the slope of the rate r."""
        import numpy as np

        rate, beyond = self.stage.requests_per_s, counts - self.expected
        slope = (_last_rate(self.stage) - rate) / self.stage.for_s
        root = np.sqrt(np.maximum(rate * rate + 2 * slope * beyond, 0.0))
        times: Times = self.start_s + 2 * beyond / (rate + root)
        return times


class _Staged(Schedule):
    """Steps and ramps, one after another."""

    def __init__(self, load: Load, seed: int, window: int) -> None:
        self._load, self._stream = load, (seed, window)
        self.start_s, self.finite = 0.0, True
        self.end_s = sum(stage.for_s for stage in load.stages)

    def blocks(self) -> Iterator[Times]:
        import numpy as np

        pieces = self._pieces
        limits = np.array([piece.expected for piece in pieces[1:]])
        whole = pieces[-1].expected + _expected(pieces[-1].stage)
        for counts in _unit_rate(self._load, *self._stream):
            inside = counts[counts < whole]
            places = np.searchsorted(limits, inside, side="right")
            parts = [pieces[place].times(inside[places == place]) for place in np.unique(places)]
            if parts:
                yield np.concatenate(parts)
            if len(inside) < len(counts):
                return

    @cached_property
    def _pieces(self) -> list[_Piece]:
        pieces, at_s, expected = [], 0.0, 0.0
        for stage in self._load.stages:
            pieces.append(_Piece(at_s, expected, stage))
            at_s += stage.for_s
            expected += _expected(stage)
        return pieces


def _expected(stage: Stage) -> float:
    """Requests expected in a stage."""
    return stage.for_s * (stage.requests_per_s + _last_rate(stage)) / 2


def _last_rate(stage: Stage) -> float:
    return stage.requests_per_s if stage.to_requests_per_s is None else stage.to_requests_per_s


def _unit_rate(load: Load, seed: int, window: int) -> Iterator[Times]:
    """The instants of an endless process of rate 1, some thousand at once."""
    import numpy as np

    draw = generator(GAPS, seed, window)
    start = 0.0
    while True:
        if load.arrivals == "constant":
            yield np.arange(start, start + BLOCK, dtype=np.float64)
            start += BLOCK
            continue
        shape = load.burstiness if load.arrivals == "gamma" else 1.0
        instants = start + np.cumsum(draw.gamma(shape, 1 / shape, BLOCK))
        start = float(instants[-1])
        yield instants
