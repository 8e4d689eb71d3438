"""Every fault of the simulated engine, met by the load generator's own client."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import asynccontextmanager
from time import perf_counter_ns
from typing import get_args

import msgspec
import pytest

from profiler.engines import faults
from profiler.engines.faults import Fate, Fault, FaultKind, fault_of
from profiler.engines.simulated import Settings, Simulated, command, parse
from profiler.engines.sse_server import serve
from profiler.loadgen.client import Connection, target_of
from profiler.loadgen.decode import answer_of, decode
from profiler.loadgen.exchange import Exchange
from profiler.schema import Endpoint
from profiler.settings import Timeouts
from profiler.workload import PlannedRequest

QUICK = {"ttft_s": 0.002, "itl_s": 0.001}
TOKENS = 6
HASTY = Timeouts(connect_s=5, first_token_s=0.4, gap_s=0.4, total_s=5)
PATIENT = Timeouts(connect_s=5, first_token_s=5, gap_s=5, total_s=10)


@asynccontextmanager
async def simulated(**settings):
    """The Endpoint of an engine in this event loop."""
    port = asyncio.get_running_loop().create_future()
    app = Simulated(parse(QUICK | settings), "m")
    task = asyncio.ensure_future(serve(app, ready=port.set_result))
    try:
        yield Endpoint(base_url=f"http://127.0.0.1:{await port}/v1", model="m")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def request(endpoint, **fields):
    target = target_of(endpoint)
    body = {"model": "m", "max_tokens": TOKENS, "stream": True, "stream_options": {"include_usage": True}}
    body |= {"return_token_ids": True, "prompt": [1, 2, 3]} | fields
    data = msgspec.json.encode(body)
    head = f"POST {target.path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


class Caller:
    """One connection, used again as long as it lives."""

    def __init__(self, endpoint, timeouts=PATIENT, **fields):
        self.endpoint = endpoint
        self.connection = Connection(target_of(endpoint), timeouts)
        self.payload = request(endpoint, **fields)

    async def ask(self):
        self.exchange = exchange = Exchange(PlannedRequest(0, 3, TOKENS), perf_counter_ns())
        trouble = await self.connection.open()
        if trouble is not None:
            exchange.failure, exchange.error = trouble
            return decode(exchange, self.endpoint, 0)
        ended = self.connection.send(exchange, self.payload)
        async with asyncio.timeout(10):
            while not ended.done():
                self.connection.expire(perf_counter_ns())
                await asyncio.wait([ended], timeout=0.01)
        return decode(exchange, self.endpoint, 0)


def chat_caller(endpoint, timeouts=PATIENT):
    """A caller that sends words and gets no ids."""
    words = {"messages": [{"role": "user", "content": "a b c"}], "return_token_ids": False}
    texts = msgspec.structs.replace(endpoint, protocol="chat", prompt="text", returns_ids=False)
    return Caller(texts, timeouts, **words)


async def outcomes(count, expected, *, chat=False, **settings):
    """What became of so many requests, one after another; hasty where a time-out is expected of them."""
    async with simulated(**settings) as endpoint:
        hurry = HASTY if expected.endswith("timeout") else PATIENT
        caller = (chat_caller if chat else Caller)(endpoint, hurry)
        records = [await caller.ask() for _ in range(count)]
        caller.connection.close()
    return records


WHAT_COMES_OF = {
    "http_301": "http_error",
    "http_307": "http_error",
    "http_400": "http_error",
    "http_401": "http_error",
    "http_404": "http_error",
    "http_429": "http_error",
    "http_500": "http_error",
    "http_503": "http_error",
    "reset": "reset",
    "hang": "gap_timeout",
    "hang_after_head": "first_token_timeout",
    "pings": "gap_timeout",
    "trickle": "ok",
    "loris": "gap_timeout",
    "loris_head": "first_token_timeout",
    "split_utf8": "ok",
    "giant_chunk": "ok",
    "duplicate": "malformed",
    "error_event": "stream_error",
    "malformed": "malformed",
    "garbage": "malformed",
    "bad_framing": "malformed",
    "long_line": "malformed",
    "wrong_type": "malformed",
    "json_body": "malformed",
    "gzip": "malformed",
    "empty": "empty",
    "too_few": "short",
    "too_many": "malformed",
    "no_finish": "no_end",
    "no_done": "no_end",
    "wrong_usage": "ok",
    "early_role": "ok",
    "close": "ok",
    "interim": "ok",
    "http_10": "ok",
    "trailing": "ok",
}


def test_every_kind_is_tried_here_and_told_in_the_table():
    kinds = set(get_args(FaultKind))
    assert set(WHAT_COMES_OF) == kinds - {"exit", "hang_up"}
    told = dict(re.findall(r"^``(\w+)``  +.*?  +(\w.*)$", faults.__doc__, re.MULTILINE))
    assert told.keys() == kinds
    assert all(outcome in told[kind] for kind, outcome in WHAT_COMES_OF.items())


@pytest.mark.parametrize("kind", WHAT_COMES_OF)
async def test_each_fault_is_counted_as_what_it_is_and_the_next_request_is_well(kind):
    records = await outcomes(4, WHAT_COMES_OF[kind], faults=[{"kind": kind, "every": 2}])
    assert [record.outcome for record in records] == ["ok", WHAT_COMES_OF[kind]] * 2
    assert all(record.error for record in records if record.outcome != "ok")


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("reset", "reset"),
        ("hang", "first_token_timeout"),
        ("pings", "first_token_timeout"),
        ("error_event", "http_error"),
        ("malformed", "malformed"),
        ("bad_framing", "malformed"),
        ("long_line", "malformed"),
    ],
)
async def test_before_the_first_token(kind, outcome):
    records = await outcomes(2, outcome, faults=[{"kind": kind, "every": 2, "after_frac": 0}])
    assert [record.outcome for record in records] == ["ok", outcome]


@pytest.mark.parametrize(("after_frac", "outcome"), [(0, "first_token_timeout"), (0.5, "gap_timeout")])
async def test_an_event_that_trickles_in_is_no_sign_of_life_before_it_is_whole(after_frac, outcome):
    fault = {"kind": "trickle", "after_frac": after_frac}
    (record,) = await outcomes(1, outcome, faults=[fault], itl_s=0.02)
    assert record.outcome == outcome
    assert record.output_tokens == (0 if after_frac == 0 else 3)


@pytest.mark.parametrize("chat", [False, True])
async def test_the_first_token_is_what_is_timed_not_the_early_role(chat):
    async with simulated(faults=[{"kind": "early_role"}], ttft_s=0.1) as endpoint:
        caller = (chat_caller if chat else Caller)(endpoint)
        record = await caller.ask()
    assert record.outcome == "ok"
    assert caller.exchange.first_stamp_ns - record.sent_ns < 0.09e9
    assert record.first_ns - record.sent_ns >= 0.099e9
    assert record.first_ns == caller.exchange.first_token_ns
    assert len(record.arrivals_ns) == TOKENS


async def test_closing_after_each_answer():
    async with simulated(faults=[{"kind": "close", "every": 2}]) as endpoint:
        caller = Caller(endpoint)
        for stays in (True, False) * 2:
            assert (await caller.ask()).outcome == "ok"
            assert caller.connection.is_open == stays
        caller.connection.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", target_of(endpoint).port)
        writer.write(request(endpoint))
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(request(endpoint))
        said = await asyncio.wait_for(reader.read(), 2)
        writer.close()
    assert b"\r\nconnection: close\r\n" in said
    assert said.endswith(b"0\r\n\r\n")


async def test_an_end_that_comes_unannounced():
    """The answer is whole; the next request goes out before or after the end was seen."""
    records = await outcomes(4, "ok", faults=[{"kind": "hang_up", "every": 2}])
    assert [record.outcome for record in records[:2]] == ["ok", "ok"]
    assert {record.outcome for record in records[2:]} <= {"ok", "reset"}


async def test_a_refusal_is_told_with_what_the_server_asks_for():
    (slow,) = await outcomes(1, "http_error", faults=[{"kind": "http_503"}])
    (moved,) = await outcomes(1, "http_error", faults=[{"kind": "http_307"}])
    (packed,) = await outcomes(1, "malformed", faults=[{"kind": "gzip"}])
    assert slow.error.endswith("asks to wait 5 s (Retry-After)")
    assert moved.error == "HTTP 307: sends us on to /elsewhere"
    assert packed.error == "not an event stream: compressed (gzip), which nobody asked for"


async def test_faults_are_told_while_it_runs(tmp_path):
    told = tmp_path / "faults.json"

    def tell(text):
        (tmp_path / "beside").write_text(text)
        (tmp_path / "beside").rename(told)

    async with simulated(faults_file=str(told), faults=[{"kind": "too_many"}]) as endpoint:
        caller = Caller(endpoint)
        seen = [(await caller.ask()).outcome]
        for text in ('[{"kind": "http_500"}]', '[{"kind": "no_done"}]', "[]"):
            tell(text)
            seen.append((await caller.ask()).outcome)
        told.unlink()
        seen.append((await caller.ask()).outcome)
        caller.connection.close()
    assert seen == ["malformed", "http_error", "no_end", "malformed", "malformed"]


@pytest.mark.parametrize("kind", ["split_utf8"])
async def test_text_is_whole_again(kind):
    async with simulated(faults=[{"kind": kind}]) as endpoint:
        caller = chat_caller(endpoint)
        record = await caller.ask()
    assert record.outcome == "ok"
    assert answer_of(caller.exchange, caller.endpoint) == " tok" * 3 + " tök 🙂" + " tok" * 2


@pytest.mark.parametrize("kind", ["hang", "reset", "malformed", "empty", "no_done", "error_event", "close"])
async def test_chat_fails_in_the_same_ways(kind):
    (record,) = await outcomes(1, WHAT_COMES_OF[kind], chat=True, faults=[{"kind": kind}])
    assert record.outcome == WHAT_COMES_OF[kind]


async def test_usage_that_disagrees_is_kept_beside_what_was_seen():
    (record,) = await outcomes(1, "ok", faults=[{"kind": "wrong_usage"}])
    assert (record.input_tokens, record.reported_input_tokens) == (3, 4)
    assert (record.output_tokens, record.reported_output_tokens) == (TOKENS, TOKENS + 1)


async def test_refusals_say_when_to_come_again():
    for kind, retry in (("http_429", b"\r\nretry-after: 1\r\n"), ("http_500", b""), ("http_503", b": 5\r\n")):
        async with simulated(faults=[{"kind": kind}]) as endpoint:
            reader, writer = await asyncio.open_connection("127.0.0.1", target_of(endpoint).port)
            writer.write(request(endpoint))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 2)
            writer.close()
        assert head.startswith(b"HTTP/1.1 " + kind[-3:].encode())
        assert retry in head
        assert (b"retry-after" in head) == bool(retry)


def test_bursts():
    struck = [Fault("http_429", every=10, burst=3), Fault("reset", every=4)]
    kinds = [getattr(fault_of(struck, number), "kind", None) for number in range(1, 13)]
    assert kinds == [*[None] * 3, "reset", *[None] * 3, *["http_429"] * 3, None, "reset"]


async def test_many_at_once_are_counted_exactly():
    struck = [
        {"kind": kind, "every": 20, "burst": place} for place, kind in enumerate(("http_503", "reset"), 1)
    ]
    async with simulated(faults=struck) as endpoint:

        async def user():
            caller = Caller(endpoint)
            return [(await caller.ask()).outcome for _ in range(10)]

        seen = Counter(
            outcome for user in await asyncio.gather(*(user() for _ in range(16))) for outcome in user
        )
    assert seen == {"ok": 144, "http_error": 8, "reset": 8}


async def test_a_process_that_dies():
    child = await asyncio.create_subprocess_exec(
        *command(QUICK | {"faults": [{"kind": "exit", "every": 2}]}, model="m"),
        stdout=asyncio.subprocess.PIPE,
    )
    port = int((await child.stdout.readline()).split()[1])
    caller = Caller(Endpoint(base_url=f"http://127.0.0.1:{port}/v1", model="m"))
    assert [(await caller.ask()).outcome for _ in range(2)] == ["ok", "reset"]
    assert await child.wait() == faults.EXIT_CODE
    assert (await caller.ask()).outcome == "connect_error"


def test_a_fate_without_fault_changes_nothing():
    fate = Fate(None, 3, TOKENS)
    assert (fate.strike_at(TOKENS), fate.output_tokens, fate.finish_reason) == (None, TOKENS, "length")
    assert Fate(Fault("malformed", after_frac=1), 3, TOKENS).strike_at(TOKENS) == TOKENS - 1
    assert Settings().faults == []
