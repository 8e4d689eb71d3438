import asyncio
from time import perf_counter_ns

import numpy as np
import pytest

from profiler.alarm import Alarm


async def late_ns(alarm, at_ns):
    await alarm.until(at_ns)
    return perf_counter_ns() - at_ns


@pytest.mark.timing
async def test_wakes_at_the_instant_far_below_a_millisecond():
    alarm = Alarm()
    start = perf_counter_ns() + 20_000_000
    late = await asyncio.gather(*[late_ns(alarm, start + i * 1_300_001) for i in range(100)])
    alarm.close()
    assert min(late) >= 0
    assert np.median(late) < 500_000


async def test_sleepers_wake_in_order_whatever_order_they_came_in():
    alarm = Alarm()
    now = perf_counter_ns()
    woken = []

    async def sleeper(delay_ms):
        await alarm.until(now + delay_ms * 1_000_000)
        woken.append(delay_ms)

    await asyncio.gather(*map(sleeper, [30, 10, 50, 20, 40]))
    alarm.close()
    assert woken == [10, 20, 30, 40, 50]


async def test_past_times_return_at_once_and_leavers_disturb_nobody():
    alarm = Alarm()
    await alarm.until(perf_counter_ns() - 1)
    leaver = asyncio.ensure_future(alarm.until(perf_counter_ns() + 10_000_000))
    await asyncio.sleep(0)
    leaver.cancel()
    assert await late_ns(alarm, perf_counter_ns() + 30_000_000) >= 0
    alarm.close()


async def test_without_timerfd_it_is_late_but_never_early(monkeypatch):
    alarm = Alarm()
    monkeypatch.setattr(alarm, "_libc", None)
    late = await asyncio.gather(*[late_ns(alarm, perf_counter_ns() + i * 5_000_000) for i in range(1, 10)])
    assert min(late) >= 0
    assert max(late) < 200_000_000


async def test_calls_are_made_in_order_and_what_they_ask_for_later():
    """A call that asks for another at once does not keep the event loop from what else has come."""
    alarm = Alarm()
    now = perf_counter_ns()
    made = []

    def again():
        made.append("again")
        if made.count("again") < 3:
            alarm.at(now, again)
            asyncio.get_running_loop().call_soon(made.append, "other")

    alarm.at(now + 2_000_000, lambda: made.append("last"))
    alarm.at(now, again)
    await alarm.until(now + 10_000_000)
    alarm.close()
    assert [each for each in made if each != "last"] == ["again", "other", "again", "other", "again"]
    assert "last" in made


async def test_a_call_that_fails_leaves_the_others_their_turn():
    alarm = Alarm()
    failures, made = [], []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
    now = perf_counter_ns()
    alarm.at(now - 1, lambda: made.append(2))
    alarm.at(now - 3, lambda: made.append(1))
    alarm.at(now - 2, lambda: 1 / 0)
    await asyncio.sleep(0.02)
    alarm.close()
    assert made == [1, 2]
    assert [type(failure) for failure in failures] == [ZeroDivisionError]


async def test_a_closed_alarm_calls_nobody():
    alarm = Alarm()
    made = []
    alarm.at(perf_counter_ns() + 5_000_000, lambda: made.append(1))
    alarm.close()
    await asyncio.sleep(0.02)
    assert made == []
