"""What an engine and the boards under it do right now: the newest samples of the run folder that is open."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Literal

from msgspec import Struct

from profiler.conditions import REASON_BITS
from profiler.samples import Sample, Tail
from profiler.subject import Sources

# At most so much is taken in at once: a second of eight boards, whose energy counters are polled fast.
MOST_BYTES = 1 << 17
EVERY_NS = 500_000_000
# Engines are asked once a second; what is older than a few of their answers says nothing of now.
MOST_AGE_NS = 4_000_000_000
POWER_SPAN_NS = 2_000_000_000
# Of all reasons for a clock those that hold back a board that has work to do.
HOLDS_BACK = (
    "software power cap",
    "hardware slowdown",
    "software thermal slowdown",
    "hardware thermal slowdown",
    "hardware power brake",
)


class Readings(Struct, frozen=True, kw_only=True):
    """None: it cannot be read here, or was not lately.

    ``power_w`` is of the engine's boards together, or, where it uses none, of the CPU and its memory
    (``power_of``).  ``running`` and ``waiting``: requests, by the engine's own count; ``kv_used_frac``: share
    of its KV cache in use.  ``held_back``: why a board runs slower than it could.
    """

    power_w: float | None = None
    power_of: Literal["gpu", "cpu"] | None = None
    is_made_up: bool = False
    hottest_c: float | None = None
    running: float | None = None
    waiting: float | None = None
    kv_used_frac: float | None = None
    held_back: tuple[str, ...] = ()
    is_shared: bool = False
    is_lost: bool = False


NOTHING = Readings()


class Follower:
    """Follows the samples of one engine; looks at them twice a second, however often it is asked."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._tail = Tail(sources.path, MOST_BYTES)
        self._newest: dict[tuple[str, str], Sample] = {}
        self._counters: dict[str, deque[Sample]] = {}
        self._looked_ns = -EVERY_NS
        self._found = NOTHING

    def read(self, now_ns: int | None = None) -> Readings:
        """``now_ns`` stands in for the clock."""
        now_ns = time.perf_counter_ns() if now_ns is None else now_ns
        if now_ns - self._looked_ns >= EVERY_NS:
            self._looked_ns = now_ns
            with suppress(OSError, ValueError):  # the folder is being sealed; a line that is no sample
                self._take_in()
            self._found = self._readings(now_ns)
        return self._found

    def _take_in(self) -> None:
        self._tail.skip(MOST_BYTES)
        for sample in self._tail.read():
            self._newest[sample.source, sample.name] = sample
            if sample.name == "energy_uj":
                counted = self._counters.setdefault(sample.source, deque())
                counted.append(sample)
                while len(counted) > 2 and counted[1].t_ns <= sample.t_ns - POWER_SPAN_NS:
                    counted.popleft()

    def _readings(self, now_ns: int) -> Readings:
        fresh = {key: each.value for key, each in self._newest.items() if each.t_ns > now_ns - MOST_AGE_NS}
        engine, boards = f"engine:{self._sources.name}", self._boards(fresh)
        power_w, power_of = self._power(fresh, boards)
        masks = [int(fresh.get((board, "clocks_event_reasons"), 0)) for board in boards]
        return Readings(
            power_w=power_w,
            power_of=power_of,
            is_made_up=self._sources.is_made_up and power_w is not None,
            hottest_c=max(_each(fresh, boards, "temperature_c"), default=None),
            running=fresh.get((engine, "requests_running")),
            waiting=fresh.get((engine, "requests_waiting")),
            kv_used_frac=fresh.get((engine, "kv_cache_usage_frac")),
            held_back=tuple(why for why in HOLDS_BACK if any(mask & REASON_BITS[why] for mask in masks)),
            is_shared=any(_each(fresh, boards, "foreign_processes")),
            is_lost=any((board, "lost") in self._newest for board in boards),
        )

    def _boards(self, fresh: Iterable[tuple[str, str]]) -> list[str]:
        if self._sources.gpus is None:
            return sorted({source for source, _ in fresh if source.startswith("gpu:")})
        return [f"gpu:{uuid}" for uuid in self._sources.gpus]

    def _power(
        self, fresh: dict[tuple[str, str], float], boards: list[str]
    ) -> tuple[float | None, Literal["gpu", "cpu"] | None]:
        """None unless every board tells: a part of it is not the engine's power."""
        if not self._sources.reads_power:
            return None, None
        if boards:
            each = list(_each(fresh, boards, "power_w"))
            return (sum(each), "gpu") if len(each) == len(boards) else (None, None)
        found = [self._counted_w(fresh, source) for source in self._counters]
        known = [watts for watts in found if watts is not None]
        return (sum(known), "cpu") if known and len(known) == len(found) else (None, None)

    def _counted_w(self, fresh: dict[tuple[str, str], float], source: str) -> float | None:
        """Mean power over the last POWER_SPAN_NS of an energy counter that wraps."""
        counted, wraps_at = self._counters[source], fresh.get((source, "max_energy_range_uj"))
        first, last = counted[0], counted[-1]
        if not wraps_at or last.t_ns <= first.t_ns:
            return None
        return (last.value - first.value) % wraps_at / (last.t_ns - first.t_ns) * 1e3


def _each(fresh: dict[tuple[str, str], float], boards: Iterable[str], name: str) -> Iterator[float]:
    yield from (fresh[board, name] for board in boards if (board, name) in fresh)
