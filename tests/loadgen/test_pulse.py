import asyncio
import time
from time import perf_counter_ns

import pytest

from profiler.loadgen.pulse import Pulse


async def run(seconds, disturb=None):
    beats = []
    pulse = Pulse(beats.append)
    start = perf_counter_ns()
    pulse.start()
    while perf_counter_ns() - start < seconds * 1e9:
        if disturb is not None:
            disturb()
        await asyncio.sleep(0.005)
    end = perf_counter_ns()
    pulse.stop()
    return pulse, beats, start, end


async def test_an_idle_loop_is_on_time_and_costs_little():
    pulse, beats, start, end = await run(0.5)
    assert 25 <= len(beats) <= 51
    assert pulse.lag_p99_s(start, end) < 0.05
    assert 0 <= pulse.cpu_frac(start, end) < 0.5


async def test_a_blocked_loop_shows():
    pulse, _, start, end = await run(0.5, lambda: time.sleep(0.06))
    assert 0.03 < pulse.lag_p99_s(start, end) < 0.3


async def test_cpu_time_shows():
    def burn():
        end = perf_counter_ns() + 20_000_000
        while perf_counter_ns() < end:
            pass

    pulse, _, start, end = await run(0.5, burn)
    assert 0.3 < pulse.cpu_frac(start, end) <= 1.05


async def test_only_the_asked_time_counts():
    pulse, _, start, end = await run(0.2)
    assert pulse.lag_p99_s(end, end + 10**9) is None
    assert pulse.cpu_frac(end + 10**9, end + 2 * 10**9) == 0.0
    assert pulse.lag_p99_s(start, end) == pytest.approx(pulse.lag_p99_s(start - 10**9, end + 10**9))
