"""What closed loops do beyond sending the next request: pause, converse, give way to more processes."""

from __future__ import annotations

import itertools
from collections import defaultdict
from time import perf_counter_ns

import pytest

from profiler.loadgen import closed, session
from profiler.loadgen.client import Connection
from profiler.loadgen.driver import Driver
from profiler.loadgen.job import Part
from profiler.loadgen.session import Setting
from profiler.settings import Conversation, Length, Pause
from tests.loadgen.test_driver import hold, inside

pytestmark = pytest.mark.timing


async def test_a_slot_pauses_after_each_answer_and_is_due_when_that_is_over(simulated, job):
    plan = job(
        simulated(ttft_s=0.02, itl_s=0.002), concurrency=1, load={"think_s": 0.08}, window_s=0.6, n_out=2
    )
    _, records = await hold(plan)
    records.sort(key=lambda r: r.due_ns)
    assert len(records) >= 5
    for before, after in itertools.pairwise(records):
        assert after.due_ns == before.done_ns + 80_000_000
        assert 0 <= after.sent_ns - after.due_ns < 50e6


async def test_drawn_pauses_are_spread_as_asked(simulated, job):
    pause = Pause(mean_s=0.05, spread=0.8)
    plan = job(
        simulated(ttft_s=0.005, itl_s=0.0), concurrency=4, load={"think_s": pause}, n_out=1, window_s=1.5
    )
    held, records = await hold(plan)
    span_s = (held.steady_end_ns - held.steady_start_ns) / 1e9
    assert len(inside(held, records)) / span_s == pytest.approx(4 / 0.055, rel=0.2)


async def test_a_slot_holds_one_conversation_after_another(simulated, job):
    talk = {"conversation": Conversation(turns=3, think_s=0.03)}
    plan = job(
        simulated(ttft_s=0.02, itl_s=0.002), concurrency=1, n_in=10, n_out=5, workload=talk, window_s=0.8
    )
    held, records = await hold(plan)
    assert held.trouble is None
    ended = sorted((r for r in records if r.outcome == "ok"), key=lambda r: r.due_ns)
    assert [r.turn for r in ended] == [place % 3 for place in range(len(ended))]
    assert [r.input_tokens for r in ended] == [10 + 15 * (place % 3) for place in range(len(ended))]
    assert sorted(r.index for r in records) == sorted({r.index for r in records})
    for before, after in itertools.pairwise(ended):
        pause_ns = 30_000_000 if after.turn else 0
        assert after.due_ns == before.done_ns + pause_ns
        assert after.sent_ns - after.due_ns < 50e6


async def test_the_prompt_of_a_turn_repeats_what_was_said(scripted, job):
    import json

    asked = []

    async def answer(writer, head, body):
        asked.append(json.loads(body)["prompt"])
        ids = [900 + len(asked), 17]
        chunk = {"choices": [{"token_ids": ids, "finish_reason": "length"}]}
        events = b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n"
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(events) + events)

    talk = {"conversation": Conversation(turns=Length(mean=3, spread=0.0), think_s=0.02)}
    async with scripted(answer) as endpoint:
        await hold(job(endpoint, concurrency=1, n_in=4, n_out=2, workload=talk, window_s=0.3))
    first, second, third, new = asked[:4]
    assert (len(first), len(second), len(third), len(new)) == (4, 10, 16, 4)
    assert second[:6] == [*first, 901, 17]
    assert third[:12] == [*second, 902, 17]
    assert new != first


async def test_a_conversation_that_fails_is_given_up(simulated, job):
    endpoint = simulated(ttft_s=0.01, itl_s=0.002, faults=[{"kind": "http_500", "every": 2}])
    talk = {"conversation": Conversation(turns=3)}
    held, records = await hold(job(endpoint, concurrency=1, workload=talk, window_s=1.0, n_out=2))
    assert held.trouble is None
    turns = defaultdict(set)
    for record in records:
        turns[record.outcome].add(record.turn)
    assert turns["ok"] == {0}
    assert turns["http_error"] == {1}


@pytest.mark.parametrize("may_grow", [True, False])
@pytest.mark.parametrize("mode", ["closed", "open"])
async def test_a_busy_load_process_gives_way_before_the_window(simulated, job, monkeypatch, may_grow, mode):
    monkeypatch.setattr(session, "CROWDED_CPU_FRAC", 0.0)
    plan = job(simulated(ttft_s=0.01, itl_s=0.002), mode=mode, rate=50.0, warmup_s=0.6, window_s=0.2)
    held = await Driver(Setting(plan, lambda _: None, Part(may_grow=may_grow))).hold()
    held.exchanges.close()
    assert held.crowded is may_grow
    assert (held.steady_end_ns is None) is may_grow


async def test_a_connection_is_opened_anew_before_a_long_pause_ends(simulated, job, monkeypatch):
    monkeypatch.setattr(closed, "IDLE_NS", 100_000_000)
    monkeypatch.setattr(closed, "OPEN_AHEAD_NS", 50_000_000)
    opened = []
    made = Connection.connection_made

    def connection_made(self, transport):
        opened.append(perf_counter_ns())
        made(self, transport)

    monkeypatch.setattr(Connection, "connection_made", connection_made)
    plan = job(simulated(ttft_s=0.02, itl_s=0.0), concurrency=1, load={"think_s": 0.2}, window_s=0.6, n_out=1)
    _, records = await hold(plan)
    dues = sorted(r.due_ns for r in records)
    assert len(dues) >= 3
    ahead_s = [(due - at) / 1e9 for due, at in zip(dues[1:], opened[1:], strict=False)]
    assert ahead_s == pytest.approx([0.05] * len(ahead_s), abs=0.04)
