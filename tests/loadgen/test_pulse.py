import asyncio
import time
from time import perf_counter_ns

import pytest

from profiler.alarm import Alarm
from profiler.loadgen.pulse import Pulse


async def run(seconds, disturb=None):
    beats = []
    alarm = Alarm()
    pulse = Pulse(beats.append, alarm)
    start = perf_counter_ns()
    pulse.start()
    while perf_counter_ns() - start < seconds * 1e9:
        if disturb is not None:
            disturb()
        await asyncio.sleep(0.005)
    end = perf_counter_ns()
    pulse.stop()
    alarm.close()
    return pulse, beats, start, end


async def test_an_idle_loop_is_on_time_and_costs_little():
    pulse, beats, start, end = await run(0.5)
    assert 25 <= len(beats) <= 51
    assert pulse.lag_p99_s(start, end) < 0.05
    assert 0 <= pulse.cpu_frac(start, end) < 0.5


async def test_a_blocked_loop_shows():
    pulse, _, start, end = await run(0.5, lambda: time.sleep(0.06))
    assert 0.03 < pulse.lag_p99_s(start, end) < 0.3


async def test_one_long_stop_counts_for_all_the_time_it_took():
    """0.2 s of 1 s: a fifth of the time is late, though the loop was late only once."""
    stops = iter([0.2])
    pulse, _, start, end = await run(1.0, lambda: time.sleep(next(stops, 0)))
    assert 0.1 < pulse.lag_p99_s(start, end) <= pulse.lag_max_s(start, end) < 0.4
    assert pulse.lag_p99_s(start + 300_000_000, end) < 0.1


async def test_a_machine_that_slept_shows(monkeypatch):
    """Its clock stops as well: no tick is missed."""
    naps = iter([0, 0, 0, 3600 * 10**9])
    monkeypatch.setattr("profiler.loadgen.pulse.slept_ns", lambda: next(naps, 3600 * 10**9))
    pulse, _, start, end = await run(0.5)
    assert 3600 <= pulse.lag_max_s(start, end) < 3601
    assert pulse.lag_p99_s(start, end) < 3600


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
    assert pulse.cpu_frac(end + 10**9, end + 2 * 10**9) is None
    assert pulse.lag_p99_s(start, end) == pytest.approx(pulse.lag_p99_s(start - 10**9, end + 10**9))


async def test_an_hour_takes_few_megabytes():
    pulse, _, start, end = await run(0.5)
    kept = [pulse._late_s, pulse._seen_ns, pulse._cpu_ns]
    held_bytes = sum(len(each) * each.itemsize for each in kept)
    assert held_bytes / ((end - start) / 1e9) * 3600 < 3 << 20
