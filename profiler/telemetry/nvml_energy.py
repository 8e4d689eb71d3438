"""The energy counter, asked so often that each of its steps is known to a few milliseconds.

A counter that steps every 100 ms, read at any moment, is up to 100 ms old; read where it steps it is not.  So
it is polled at a fifth of its own period, and a row is written whenever it changed::

    energy_mj              field 83: energy since the driver was loaded, raw integer millijoules
    energy_seen_within_s   beside a step: it happened in (t_ns − this, t_ns]
    energy_counter_ts_us   the driver's own time for the reading, µs since 1970

An ``energy_mj`` without ``energy_seen_within_s`` is no step but a sign of life, at least every
``HEARTBEAT_S``: the value is up to a period old.

The periods are nowhere documented, so they are observed, for ``OBSERVE_S`` at the start: ``energy_period_s``
and ``power_period_s``, one row each, absent where fewer than ``MIN_STEPS`` steps were seen.

The power of an idle board stands still.  Where its period was not seen it is watched for once more whenever
two steps of the counter show that power changes, for ``WATCH_S`` and at most ``WATCHES`` times a board.  It
is then asked for in the calls that poll the counter, none is added: boards asked too often are known to
answer 0 or not at all (Zeus skips such readings).  The driver's time of a reading would not do instead, it
may be that of the call.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

from profiler.samples import Sample
from profiler.telemetry.nvml_board import Board
from profiler.telemetry.nvml_readings import POWER_INSTANT, TOTAL_ENERGY, fields

OBSERVE_S, OBSERVE_EVERY_S = 3.0, 0.003
POLLS_PER_PERIOD = 5
FASTEST_S, SLOWEST_S = 0.005, 0.02
HEARTBEAT_S = 1.0
MIN_STEPS = 4
WATCH_S, WATCHES = 1.0, 10
# From one step of the counter to the next, a load begins or ends; idle power changes by less.
CHANGE_FRAC = 0.1
NOTHING_TO_POLL_S = 1.0


class EnergyTicks:
    """Polls the boards that have a counter; to be sampled every ``period_s``, which it changes itself."""

    def __init__(self, nvml: Any, boards: Sequence[Board], clock: Any = time) -> None:
        self._nvml, self._clock = nvml, clock
        self._counters = [_Counter(board) for board in boards]
        self._observe_until_ns: int | None = None
        self._observing = True
        self.period_s = OBSERVE_EVERY_S if self._counters else NOTHING_TO_POLL_S

    def sample(self) -> Iterator[Sample]:
        """One poll of every board.  Raises NVMLError at the end if a board answered with an error that it
        has not always given; what the others said has been yielded by then."""
        failed: Exception | None = None
        for counter in self._counters:
            if counter.board.is_lost:
                continue
            before_ns = self._clock.perf_counter_ns()
            try:
                both = self._observing or counter.is_watching
                asked = (TOTAL_ENERGY, POWER_INSTANT) if both else (TOTAL_ENERGY,)
                found = fields(self._nvml, counter.board.handle, *asked)
            except self._nvml.NVMLError as error:
                failed = error
                yield from counter.board.note(self._nvml, error, before_ns)
                continue
            after_ns = self._clock.perf_counter_ns()
            yield from counter.take(found, before_ns, after_ns)
            if not self._observing:
                yield from counter.watch(after_ns)
        if self._observing:
            yield from self._observe()
        if failed is not None:
            raise failed

    def last_step_ns(self) -> int | None:
        """When the counter that was first to stop stepping stepped last; None where none steps."""
        alive = [each.stepped_ns for each in self._counters if not each.board.is_lost]
        return min((stepped for stepped in alive if stepped is not None), default=None)

    def _observe(self) -> Iterator[Sample]:
        now_ns = self._clock.perf_counter_ns()
        if self._observe_until_ns is None:
            self._observe_until_ns = now_ns + round(OBSERVE_S * 1e9)
        if now_ns < self._observe_until_ns or not self._counters:
            return
        self._observing = False
        periods = [period_s for each in self._counters if (period_s := each.steps.period_s()) is not None]
        wanted_s = min(periods, default=math.inf) / POLLS_PER_PERIOD
        self.period_s = min(SLOWEST_S, max(FASTEST_S, wanted_s))
        for counter in self._counters:
            if not counter.board.is_lost:
                yield from counter.observed(now_ns)


class Steps:
    """The times at which a reading was seen to change."""

    def __init__(self) -> None:
        self._value: float | None = None
        self._times_ns: list[int] = []

    def see(self, value: float, t_ns: int) -> None:
        if self._value is not None and value != self._value:
            self._times_ns.append(t_ns)
        self._value = value

    def period_s(self) -> float | None:
        """The period of which all gaps are whole multiples: an update that brings the same value is not
        seen.  None where too few were seen."""
        if len(self._times_ns) < MIN_STEPS:
            return None
        gaps_ns = [b - a for a, b in zip(self._times_ns, self._times_ns[1:], strict=False)]
        least_ns = min(gaps_ns)
        # A gap is off by a poll, so the multiple is first taken where it cannot be mistaken.
        single = [gap for gap in gaps_ns if gap < 1.5 * least_ns]
        base_ns = sum(single) / len(single)
        return sum(gaps_ns) / sum(round(gap / base_ns) for gap in gaps_ns) / 1e9


class _Counter:
    """One board's counter as last seen."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.steps, self._power_steps = Steps(), Steps()
        self.stepped_ns: int | None = None
        self._gained: list[float] = []
        self._power_seen = False
        self._watches, self._watch_until_ns = 0, 0
        self._millijoules: float | None = None
        self._polled_ns = self._wrote_ns = 0

    def take(self, found: list[tuple[float | None, int]], before_ns: int, after_ns: int) -> Iterator[Sample]:
        """What a poll between two times gave."""
        millijoules, stamp_us = found[0]
        for power, _ in found[1:]:
            if power:
                self._power_steps.see(power, after_ns)
        if millijoules is None:
            return
        if len(found) > 1:
            self.steps.see(millijoules, after_ns)
        stepped = self._millijoules not in (None, millijoules)
        if stepped or self._millijoules is None or after_ns - self._wrote_ns >= HEARTBEAT_S * 1e9:
            self._wrote_ns = after_ns
            yield Sample(after_ns, self.board.source, "energy_mj", millijoules)
            if stepped:
                self.stepped_ns = after_ns
                self._gained = [*self._gained[-1:], millijoules - (self._millijoules or 0)]
                within_s = (after_ns - self._polled_ns) / 1e9
                yield Sample(after_ns, self.board.source, "energy_seen_within_s", within_s)
            if stamp_us > 0:
                yield Sample(after_ns, self.board.source, "energy_counter_ts_us", stamp_us)
        self._millijoules, self._polled_ns = millijoules, before_ns

    @property
    def is_watching(self) -> bool:
        """Whether power is asked for beside the counter."""
        return self._watch_until_ns > 0

    def watch(self, t_ns: int) -> Iterator[Sample]:
        """Once the start has been observed: see to it that the power's period is found where it was not."""
        if self.is_watching:
            if t_ns >= self._watch_until_ns:
                self._watch_until_ns = 0
                yield from self._power_period(t_ns)
        elif not self._power_seen and self._watches < WATCHES and self._changes():
            self._watches += 1
            self._watch_until_ns = t_ns + round(WATCH_S * 1e9)
            self._power_steps, self._gained = Steps(), []

    def observed(self, t_ns: int) -> Iterator[Sample]:
        """The periods, once they have been observed."""
        if (period_s := self.steps.period_s()) is not None:
            yield Sample(t_ns, self.board.source, "energy_period_s", round(period_s, 6))
        yield from self._power_period(t_ns)

    def _changes(self) -> bool:
        """Whether the last two steps of the counter say that power is not what it was."""
        return len(self._gained) > 1 and abs(self._gained[1] / self._gained[0] - 1) > CHANGE_FRAC

    def _power_period(self, t_ns: int) -> Iterator[Sample]:
        if (period_s := self._power_steps.period_s()) is not None:
            self._power_seen = True
            yield Sample(t_ns, self.board.source, "power_period_s", round(period_s, 6))
