"""Open loops and replays, in this process, against the simulated engine in another."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from functools import partial

import numpy as np
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from profiler import workload
from profiler.loadgen import openloop, pool
from profiler.loadgen.job import Part
from profiler.loadgen.openloop import own_ns
from profiler.settings import Conversation, Stage, Timeouts
from tests.loadgen.test_driver import QUICK, hold, inside

pytestmark = pytest.mark.timing


def due_s(held, records):
    """Due instants inside the window, from its start, in s."""
    return np.sort([r.due_ns - held.steady_start_ns for r in inside(held, records)]) / 1e9


@given(
    sizes=st.lists(st.integers(0, 7), max_size=8),
    shards=st.integers(1, 5),
)
def test_every_instant_belongs_to_one_shard_whatever_the_blocks(sizes, shards):
    ends = np.cumsum([0, *sizes])
    blocks = [np.arange(a, b, dtype=float) for a, b in itertools.pairwise(ends)]
    parts = [list(own_ns(iter(blocks), Part(shard=shard, shards=shards))) for shard in range(shards)]
    for shard, part in enumerate(parts):
        assert part == [i * 10**9 for i in range(shard, sum(sizes), shards)]


async def test_requests_are_due_when_the_schedule_says(simulated, job):
    plan = job(simulated(ttft_s=0.01, itl_s=0.002), mode="open", rate=200.0, n_out=2, window_s=1.0)
    held, records = await hold(plan)
    assert held.trouble is None
    assert held.steady_end_ns - held.steady_start_ns == 1_000_000_000
    schedule = workload.schedule(plan.load, plan.point, plan.measure, plan.workload.seed, plan.window)
    offsets = next(schedule.blocks())
    wanted = offsets[(offsets >= schedule.start_s) & (offsets < schedule.end_s)] - schedule.start_s
    np.testing.assert_allclose(due_s(held, records), wanted, atol=2e-9)
    assert {r.outcome for r in inside(held, records)} == {"ok"}
    assert sorted(r.index for r in records) == list(range(len(records)))
    assert all(r.sent_ns >= r.due_ns for r in records if r.sent_ns)


@pytest.mark.parametrize("arrivals", [{"arrivals": "poisson"}, {"arrivals": "gamma", "burstiness": 2.0}])
async def test_sent_gaps_follow_the_asked_law(simulated, job, arrivals):
    """A disturbed machine sends late, never by the law: the best of three tries."""
    endpoint = simulated(ttft_s=0.01, itl_s=0.002)
    found = []
    for window in range(3):
        plan = job(
            endpoint,
            mode="open",
            rate=400.0,
            n_out=1,
            window_s=1.5,
            load=arrivals,
            window=window,
            warmup_s=0.3,
        )
        held, records = await hold(plan)
        own = inside(held, records)
        shape = arrivals.get("burstiness", 1.0)
        law = stats.gamma(shape, scale=1 / 400.0 / shape)
        due = np.diff(np.sort([r.due_ns for r in own])) / 1e9
        sent = np.diff(np.sort([r.sent_ns for r in own])) / 1e9
        late_s = np.array([r.sent_ns - r.due_ns for r in own]) / 1e9
        found.append((stats.kstest(due, law.cdf).pvalue, stats.kstest(sent, law.cdf).pvalue, late_s.mean()))
        if min(found[-1][:2]) > 0.05 and late_s.mean() < 0.001:
            return
    pytest.fail(f"p of due gaps, p of sent gaps, mean lateness: {found}")


async def test_constant_gaps_are_constant_and_the_rate_exact(simulated, job):
    plan = job(
        simulated(ttft_s=0.01, itl_s=0.002),
        mode="open",
        rate=250.0,
        n_out=1,
        window_s=1.0,
        load={"arrivals": "constant"},
    )
    held, records = await hold(plan)
    assert len(inside(held, records)) == 250
    np.testing.assert_allclose(np.diff(due_s(held, records)), 0.004, atol=3e-9)
    sent = np.sort([r.sent_ns for r in inside(held, records)])
    assert 249 / ((sent[-1] - sent[0]) / 1e9) == pytest.approx(250, rel=0.01)


async def test_a_stalled_server_cannot_hide(simulated, job):
    """One at a time, 0.05 s each, asked for 40/s: the queue grows, and every request's latency says so."""
    endpoint = simulated(ttft_s=0.05, itl_s=0.0, max_running=1)
    plan = job(
        endpoint, mode="open", rate=40.0, n_out=1, window_s=0.5, warmup_s=0.0, load={"arrivals": "constant"}
    )
    held, records = await hold(plan)
    own = sorted(inside(held, records), key=lambda r: r.due_ns)
    assert len(own) == 20
    waits = np.array([r.first_ns - r.due_ns for r in own]) / 1e9
    np.testing.assert_allclose(waits, 0.05 + 0.025 * np.arange(20), atol=0.04)
    assert max(r.sent_ns - r.due_ns for r in own) < 0.04e9  # sent in time all the same


async def test_load_goes_on_until_what_was_measured_has_ended(simulated, job):
    plan = job(simulated(ttft_s=0.6, itl_s=0.0), mode="open", rate=50.0, n_out=1, window_s=0.3)
    held, records = await hold(plan)
    own = inside(held, records)
    assert own
    assert {r.outcome for r in own} == {"ok"}
    last_done = max(r.done_ns for r in own)
    after = [r for r in records if held.steady_end_ns <= r.due_ns < last_done]
    assert after
    assert np.diff([held.steady_end_ns, *sorted(r.due_ns for r in after), last_done]).max() < 0.3e9
    assert {r.outcome for r in records} <= {"ok", "cancelled"}


async def test_stages_run_to_their_end_and_nothing_is_cut(simulated, job):
    stages = (Stage(for_s=0.5, requests_per_s=40.0), Stage(for_s=0.5, requests_per_s=200.0))
    load = {"stages": stages, "arrivals": "constant"}
    plan = job(simulated(ttft_s=0.3, itl_s=0.0), mode="open", rate=120.0, n_out=1, load=load)
    held, records = await hold(plan)
    assert held.steady_end_ns - held.steady_start_ns == 1_000_000_000
    assert {r.outcome for r in records} == {"ok"}
    offsets = due_s(held, records)
    assert (sum(offsets < 0.5), sum(offsets >= 0.5)) == (20, 100)


async def test_a_replay_asks_what_the_trace_says_when_it_says_so(simulated, job, tmp_path):
    trace = tmp_path / "trace.csv"
    rows = [(0.0, 5, 3), (0.2, 50, 1), (0.2, 7, 9), (0.35, 9, 2)]
    trace.write_text("time_s,input_tokens,output_tokens\n" + "".join(f"{t},{i},{o}\n" for t, i, o in rows))
    load = {"trace": str(trace), "time_scale": 2.0}
    plan = job(simulated(ttft_s=0.05, itl_s=0.002), mode="replay", rate=4.0, load=load)
    held, records = await hold(plan)
    assert held.trouble is None
    records.sort(key=lambda r: r.index)
    assert [(r.input_tokens, r.output_tokens, r.outcome) for r in records] == [
        (i, o, "ok") for _, i, o in rows
    ]
    offsets = [(r.due_ns - held.steady_start_ns) / 1e9 for r in records]
    assert offsets == pytest.approx([2 * t for t, _, _ in rows], abs=1e-6)


async def test_conversations_of_an_open_loop_grow_turn_by_turn(simulated, job):
    talk = {"conversation": Conversation(turns=3, think_s=0.3)}
    plan = job(
        simulated(ttft_s=0.02, itl_s=0.002),
        mode="open",
        rate=40.0,
        n_in=10,
        n_out=5,
        window_s=0.6,
        workload=talk,
        load={"stages": (Stage(for_s=0.2, requests_per_s=100.0),), "arrivals": "constant"},
    )
    held, records = await hold(plan)
    assert held.trouble is None
    assert Counter(r.turn for r in records) == {0: 20, 1: 20, 2: 20}
    assert {(r.turn, r.input_tokens) for r in records} == {(0, 10), (1, 25), (2, 40)}
    assert {r.outcome for r in records} == {"ok"}
    ends = {r.done_ns for r in records}
    assert all(r.due_ns - 300_000_000 in ends for r in records if r.turn)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ({"kind": "hang", "after_frac": 0.0}, "first_token_timeout"),
        ({"kind": "reset"}, "reset"),
        ({"kind": "http_429"}, "http_error"),
    ],
)
async def test_faults_are_counted_and_the_schedule_stays(simulated, job, fault, outcome):
    endpoint = simulated(ttft_s=0.02, itl_s=0.002, faults=[fault | {"every": 4}])
    plan = job(endpoint, mode="open", rate=60.0, window_s=1.0, timeouts=QUICK, load={"arrivals": "constant"})
    held, records = await hold(plan)
    own = inside(held, records)
    assert len(own) == 60
    assert Counter(r.outcome for r in own) == {"ok": 45, outcome: 15}
    assert max(r.sent_ns - r.due_ns for r in own) < 0.1e9


async def test_beyond_the_limit_on_files_requests_are_refused_with_a_reason(simulated, job, monkeypatch):
    monkeypatch.setattr(pool, "most_connections", lambda: 5)
    plan = job(simulated(ttft_s=0.4, itl_s=0.0), mode="open", rate=50.0, n_out=1, window_s=0.5)
    _, records = await hold(plan)
    outcomes = Counter(r.outcome for r in records)
    assert outcomes["ok"] >= 5
    assert "ulimit -n" in next(r.error for r in records if r.outcome == "connect_error")


async def test_an_engine_that_dies_ends_an_open_loop(simulated, job):
    endpoint = simulated(ttft_s=0.02, itl_s=0.005, faults=[{"kind": "exit", "every": 20}])
    held, records = await hold(job(endpoint, mode="open", rate=50.0, window_s=30.0, max_window_s=60.0))
    assert "requests failed one after another" in held.trouble
    assert held.lost
    assert Counter(r.outcome for r in records)["ok"] >= 5


async def test_cancel_ends_an_open_loop_with_an_outcome_for_everything(simulated, job):
    plan = job(simulated(ttft_s=0.3, itl_s=0.01), mode="open", rate=50.0, window_s=30.0, max_window_s=60.0)
    held, records = await hold(plan, act=lambda driver: (1.0, driver.cancel))
    assert held.trouble == "cancelled"
    outcomes = Counter(r.outcome for r in records)
    assert outcomes.keys() == {"ok", "cancelled"}
    assert outcomes["cancelled"] >= 10
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_progress_expects_the_schedules_end(simulated, job):
    reports = []
    plan = job(simulated(ttft_s=0.02, itl_s=0.0), mode="open", rate=50.0, n_out=1, window_s=1.0, warmup_s=0.5)
    await hold(plan, reports)
    phases = [k for k, _ in itertools.groupby(r.phase for r in reports)]
    assert phases[:2] == ["warm-up", "measuring"]
    assert all(1.5 <= r.expected_s < 1.8 for r in reports if r.phase != "finishing")


async def test_connections_that_a_server_closes_while_idle_are_replaced(scripted, monkeypatch, job):
    """It drops the connection after every answer: no request fails for it, and none stays behind."""
    monkeypatch.setattr(pool, "most_connections", lambda: 3)

    async def answer(writer, head, body):
        events = b'data: {"choices": [{"token_ids": [1], "finish_reason": "length"}]}\n\ndata: [DONE]\n\n'
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(events) + events)
        await writer.drain()
        raise ConnectionError

    async with scripted(answer) as endpoint:
        held, records = await hold(
            job(endpoint, mode="open", rate=20.0, n_out=1, timeouts=Timeouts(first_token_s=1))
        )
    assert {r.outcome for r in inside(held, records)} == {"ok"}


async def test_connections_that_were_idle_for_long_are_opened_anew(scripted, monkeypatch, job):
    """A server that closes what was idle for 0.3 s, as others do after 5 s; requests come every 0.25 s.

    Each of the eight connections opened ahead is renewed before that, and every request finds one open.
    """
    monkeypatch.setattr(pool, "IDLE_NS", 200_000_000)
    monkeypatch.setattr(openloop, "FRESHEN_EVERY_NS", 20_000_000)
    writers = set()

    async def answer(writer, head, body):
        writers.add(writer)
        events = b'data: {"choices": [{"token_ids": [1], "finish_reason": "length"}]}\n\ndata: [DONE]\n\n'
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(events) + events)

    load = {"arrivals": "constant"}
    async with scripted(answer) as endpoint:
        plan = job(endpoint, mode="open", rate=4.0, n_out=1, window_s=1.0, warmup_s=0.0, load=load)
        held, records = await hold(plan)
    assert {r.outcome for r in inside(held, records)} == {"ok"}
    assert len(writers) == len(records)  # never the same twice


def test_what_was_due_but_could_not_be_sent_in_time_is_sent_and_measured(simulated, job):
    """Our loop stands still over the window's end, nothing being under way: what was due comes late."""
    load = {"arrivals": "constant"}
    endpoint = simulated(ttft_s=0.005, itl_s=0.0)
    plan = job(endpoint, mode="open", rate=20.0, n_out=1, window_s=0.5, warmup_s=0.0, load=load)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # looks at its timers first
        held, records = runner.run(hold(plan, act=lambda _: (0.335, partial(time.sleep, 0.3))))
    own = inside(held, records)
    assert len(own) == 10
    assert {r.outcome for r in own} == {"ok"}
    assert max(r.sent_ns - r.due_ns for r in own) > 0.1e9
