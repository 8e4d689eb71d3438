import asyncio
import contextlib
import json
import socket
from time import perf_counter_ns

import pytest

from profiler.errors import InputError
from profiler.loadgen.client import Connection, last_data_ns, target_of
from profiler.loadgen.decode import decode
from profiler.loadgen.exchange import Exchange
from profiler.loadgen.payload import build
from profiler.schema import Endpoint
from profiler.settings import Timeouts, Workload
from profiler.workload import Plan, PlannedRequest

CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def event(*tokens, finish=None):
    content = {"choices": [{"text": "", "token_ids": list(tokens), "finish_reason": finish}]}
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


PLANNED = PlannedRequest(0, 4, 2)
DONE, LAST = b"data: [DONE]\n\n", b"0\r\n\r\n"
ANSWER = [event(1), event(2, finish="length"), DONE]


class Caller:
    def __init__(self, endpoint, **timeouts):
        self.endpoint = endpoint
        self.target = target_of(endpoint)
        self.connection = Connection(self.target, Timeouts(**timeouts))
        self.plan = Plan(Workload(input_tokens=4, output_tokens=2), 1000, 0)

    async def ask(self, expire=True):
        planned = self.plan.request(0)
        exchange = Exchange(planned, perf_counter_ns())
        trouble = await self.connection.open()
        if trouble:
            exchange.failure, exchange.error = trouble
            return decode(exchange, self.endpoint, 0)
        ended = self.connection.send(exchange, build(self.endpoint, self.target, self.plan, planned))
        async with asyncio.timeout(5):
            while not ended.done():
                if expire:
                    self.connection.expire(perf_counter_ns())
                await asyncio.wait([ended], timeout=0.01)
        return decode(exchange, self.endpoint, 0)


async def write(writer, *pieces, pause=0.0):
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(pause)


async def test_stamps_are_when_bytes_arrive(scripted):
    written = []

    async def slow(writer, head, body):
        writer.write(CHUNKED)
        for piece in ANSWER:
            await asyncio.sleep(0.05)
            written.append(perf_counter_ns())
            writer.write(chunk(piece))
        writer.write(LAST)

    async with scripted(slow) as endpoint:
        got = await Caller(endpoint).ask()
    assert got.outcome == "ok"
    for arrival, sent in zip(got.arrivals_ns, written, strict=False):
        assert 0 < arrival - sent < 20e6
    assert got.due_ns <= got.sent_ns < written[0]


async def test_request_on_the_wire_is_what_an_engine_needs(scripted):
    seen = []

    async def keep(writer, head, body):
        seen.append((head, json.loads(body)))
        await write(writer, CHUNKED, *map(chunk, ANSWER), LAST)

    async with scripted(keep, api_key="k-1") as endpoint:
        caller = Caller(endpoint)
        await caller.ask()
    (head, request), *_ = seen
    assert head.startswith(b"POST /v1/completions HTTP/1.1\r\n")
    assert b"authorization: Bearer k-1\r\n" in head
    assert request["prompt"] == caller.plan.prompt(caller.plan.request(0))
    assert request["max_tokens"] == 2
    assert request["ignore_eos"] is request["return_token_ids"] is request["stream"] is True
    assert request["stream_options"] == {"include_usage": True}
    assert request["temperature"] == 0


async def test_every_cut_of_the_response_gives_the_same_record(scripted):
    whole = CHUNKED + b"".join(map(chunk, ANSWER)) + LAST
    cuts = iter(range(1, len(whole), 7))

    async def cut_up(writer, head, body):
        at = next(cuts)
        await write(writer, whole[:at], whole[at:], pause=0.001)

    async with scripted(cut_up) as endpoint:
        caller = Caller(endpoint)
        for _ in range(1, len(whole), 7):
            got = await caller.ask()
            assert (got.outcome, got.arrival_tokens) == ("ok", [1, 1])


async def test_connection_is_kept_and_reopened_only_when_it_broke(scripted):
    connections = set()
    count = 0

    async def every_third_closes(writer, head, body):
        nonlocal count
        count += 1
        connections.add(writer)
        await write(writer, CHUNKED, *map(chunk, ANSWER), LAST)
        if count % 3 == 0:
            writer.close()

    async with scripted(every_third_closes) as endpoint:
        caller = Caller(endpoint)
        for _ in range(9):
            assert (await caller.ask()).outcome == "ok"
            await asyncio.sleep(0.01)
    assert len(connections) == 3


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"],
)
async def test_body_that_ends_with_the_connection(scripted, head):
    async def until_eof(writer, _, body):
        await write(writer, head, *ANSWER)
        writer.close()

    async with scripted(until_eof) as endpoint:
        caller = Caller(endpoint)
        assert (await caller.ask()).outcome == "ok"
        assert (await caller.ask()).outcome == "ok"


async def test_content_length_answer(scripted):
    body = b"".join(ANSWER)

    async def sized(writer, head, _):
        await write(
            writer, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body), body[:20], body[20:]
        )

    async with scripted(sized) as endpoint:
        assert (await Caller(endpoint).ask()).outcome == "ok"


@pytest.mark.parametrize(
    ("pieces", "close", "outcome"),
    [
        ([CHUNKED, chunk(ANSWER[0])], True, "reset"),
        ([], True, "reset"),
        ([CHUNKED, chunk(ANSWER[0])], False, "gap_timeout"),
        ([CHUNKED], False, "first_token_timeout"),
        ([], False, "first_token_timeout"),
        ([CHUNKED, chunk(b": ping\n\n")], False, "first_token_timeout"),
        ([b"SSH-2.0-OpenSSH\r\n\r\n"], False, "malformed"),
        ([CHUNKED, b"xyz\r\n"], False, "malformed"),
        ([b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy"], False, "http_error"),
        ([CHUNKED, LAST], False, "empty"),
        (
            [b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>"],
            False,
            "malformed",
        ),
        ([b'HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{"choices":[]}'], False, "malformed"),
        ([b'HTTP/1.1 400 Bad\r\ncontent-length: 11\r\n\r\n{"error":1}'], False, "http_error"),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], False, "http_error"),
        ([b"HTTP/1.1 304 Not Modified\r\n\r\n"], False, "http_error"),
        ([b"HTTP/1.1 307 T\r\nlocation: /v2\r\ncontent-length: 0\r\n\r\n"], False, "http_error"),
        ([b"HTTP/1.1 101 S\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\nxx"], False, "http_error"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"], False, "first_token_timeout"),
        ([b"HTTP/1.1 500 E\r\ncontent-length: 9\r\n\r\nhalf"], True, "http_error"),
    ],
)
async def test_trouble_ends_in_time_with_its_name(scripted, pieces, close, outcome):
    async def bad(writer, head, body):
        await write(writer, *pieces)
        if close:
            writer.close()

    async with scripted(bad) as endpoint:
        caller = Caller(endpoint, first_token_s=0.2, gap_s=0.2, total_s=2)
        got = await caller.ask()
        assert got.outcome == outcome
        assert got.error
        assert got.done_ns - got.due_ns < 1e9
        caller.connection.close()


async def test_a_wait_of_any_number_of_digits_is_a_long_one(scripted):
    async def busy(writer, head, body):
        wait = b"9" * 400
        await write(writer, b"HTTP/1.1 429 Busy\r\nretry-after: %b\r\ncontent-length: 0\r\n\r\n" % wait)

    async with scripted(busy) as endpoint:
        caller = Caller(endpoint)
        got = await caller.ask()
        assert got.error == "HTTP 429: asks to wait 3.1536e+07 s (Retry-After)"
        caller.connection.close()


async def test_interim_answers_are_not_the_answer(scripted):
    async def early(writer, head, body):
        hints = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
        await write(writer, b"HTTP/1.1 100 Continue\r\n\r\n" + hints, CHUNKED, *map(chunk, ANSWER), LAST)

    async with scripted(early) as endpoint:
        caller = Caller(endpoint)
        assert [(await caller.ask()).outcome for _ in range(3)] == ["ok"] * 3
        assert caller.connection.is_open


async def test_two_answers_to_one_request_are_one_answer_and_a_lost_connection(scripted):
    async def twice(writer, head, body):
        whole = CHUNKED + b"".join(map(chunk, ANSWER)) + LAST
        await write(writer, whole + whole)

    async with scripted(twice) as endpoint:
        caller = Caller(endpoint)
        for _ in range(2):
            got = await caller.ask()
            assert (got.outcome, got.output_tokens) == ("ok", 2)
            assert not caller.connection.is_open


@pytest.mark.parametrize("part", ["head", "head line", "body", "event"])
async def test_nothing_a_server_sends_without_end_fills_the_memory(scripted, monkeypatch, part):
    monkeypatch.setattr("profiler.loadgen.client.MAX_HEAD_BYTES", 20_000)
    monkeypatch.setattr("profiler.loadgen.client.MAX_BODY_BYTES", 100_000)
    monkeypatch.setattr("profiler.loadgen.sse.MAX_EVENT_BYTES", 30_000)
    pieces = {
        "head": (b"HTTP/1.1 200 OK\r\n", b"x-more: yes\r\n" * 90),
        "head line": (b"HTTP/1.1 200 OK\r\nx-more: ", b"x" * 1000),
        "body": (CHUNKED + chunk(ANSWER[0]), chunk(b": ping\n\n" * 100)),
        "event": (CHUNKED + chunk(b"data: "), chunk(b"x" * 1000)),
    }
    sent = 0

    async def endless(writer, head, body):
        nonlocal sent
        first, more = pieces[part]
        writer.write(first)
        while not writer.is_closing():
            await write(writer, more)
            sent += len(more)

    async with scripted(endless) as endpoint:
        got = await Caller(endpoint, first_token_s=4, gap_s=4).ask()
    assert got.outcome == "malformed"
    assert f"{part.split()[0]} " in got.error
    assert "is longer than" in got.error
    assert sent < 10e6


async def test_comments_are_no_sign_of_life(scripted):
    async def pings(writer, head, body):
        await write(writer, CHUNKED, chunk(event(1)))
        while not writer.is_closing():
            await write(writer, chunk(b": ping\n\n"), pause=0.02)

    async with scripted(pings) as endpoint:
        got = await Caller(endpoint, gap_s=0.2).ask()
    assert (got.outcome, got.output_tokens) == ("gap_timeout", 1)
    assert 0.2e9 < got.done_ns - got.first_ns < 1e9


@pytest.mark.parametrize("cut", [1, 8, 1000])
async def test_a_slow_stream_lives_however_its_events_are_cut(scripted, cut):
    async def slow(writer, head, body):
        await write(writer, CHUNKED, chunk(ANSWER[0]))
        for _ in range(8):
            content = event(2)
            pieces = [chunk(content[at : at + cut]) for at in range(0, len(content), cut)]
            await write(writer, *pieces, pause=0.08 / len(pieces))
        await write(writer, *map(chunk, ANSWER[1:]), LAST)

    async with scripted(slow) as endpoint:
        got = await Caller(endpoint, gap_s=0.5).ask()
    assert (got.outcome, got.output_tokens) == ("malformed", 10)  # too many tokens, but all of them


DATA = event(1)


@pytest.mark.parametrize(
    ("pieces", "found"),
    [
        ([], 0),
        ([DATA], 1),
        ([DATA, DATA], 2),
        ([DATA, b": ping\n\n"], 1),
        ([b": ping\n\n"], 0),
        ([b"dat", b"a: 1", b"\n", b"\n"], 3),
        ([b"dat", b"a: 1", b"\r\n", b": x\n", b": y\n"], 3),
        ([b"dat", b"a: 1", b"\n", b"dat", b"a: 2"], 3),
        ([b"dat", b"a", b": 1"], 0),
        ([b"\n", b"d"], 0),
    ],
)
def test_when_the_last_data_line_came(pieces, found):
    exchange = Exchange(None, 0)
    for stamp, piece in enumerate([b"data: before\n\n", *pieces]):
        exchange.stamps.append(stamp)
        exchange.pieces.append(piece)
    assert last_data_ns(exchange, 0) == found


async def test_begin_calls_back_and_the_next_exchange_may_begin_at_once(scripted):
    async def answer(writer, head, body):
        await write(writer, CHUNKED, *map(chunk, ANSWER), LAST)

    async with scripted(answer) as endpoint:
        caller = Caller(endpoint)
        connection, planned = caller.connection, caller.plan.request(0)
        payload = build(endpoint, caller.target, caller.plan, planned)
        assert await connection.open() is None
        ended, over = [], asyncio.Event()

        def on_end(exchange):
            assert connection.exchange is None
            ended.append(exchange)
            if len(ended) < 5:
                connection.begin(Exchange(planned, perf_counter_ns()), payload, on_end)
            else:
                over.set()

        connection.begin(Exchange(planned, perf_counter_ns()), payload, on_end)
        await asyncio.wait_for(over.wait(), 5)
        connection.close()
    assert [decode(exchange, endpoint, 0).outcome for exchange in ended] == ["ok"] * 5
    assert connection.pieces == sum(exchange.piece_count for exchange in ended)
    assert len({id(exchange.pieces) for exchange in ended}) == 5


async def test_failing_calls_back_once_with_the_connection_closed(scripted):
    async def silent(writer, head, body):
        await write(writer, CHUNKED, chunk(ANSWER[0]))

    async with scripted(silent) as endpoint:
        caller = Caller(endpoint)
        planned = caller.plan.request(0)
        await caller.connection.open()
        ended = []
        exchange = Exchange(planned, perf_counter_ns())
        payload = build(endpoint, caller.target, caller.plan, planned)
        caller.connection.begin(exchange, payload, lambda e: ended.append((e, caller.connection.is_open)))
        await asyncio.sleep(0.05)
        caller.connection.fail("cancelled", None)
        caller.connection.fail("cancelled", None)
        await asyncio.sleep(0.05)
    assert ended == [(exchange, False)]
    assert exchange.failure == "cancelled"
    assert exchange.first_token_ns is not None


async def test_total_timeout_ends_a_stream_that_never_does(scripted):
    async def endless(writer, head, body):
        await write(writer, CHUNKED)
        for _ in range(100):
            await write(writer, chunk(event(1)), pause=0.02)

    async with scripted(endless) as endpoint:
        got = await Caller(endpoint, total_s=0.3).ask()
    assert got.outcome == "total_timeout"
    assert 0.3e9 <= got.done_ns - got.sent_ns < 0.6e9
    assert got.output_tokens > 3


async def test_nobody_listens():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        endpoint = Endpoint(base_url=f"http://127.0.0.1:{closed.getsockname()[1]}/v1", model="m")
        got = await Caller(endpoint).ask()
    assert got.outcome == "connect_error"
    assert "127.0.0.1" in got.error
    assert got.sent_ns is None


async def test_connecting_takes_finite_time():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        endpoint = Endpoint(base_url=f"http://127.0.0.1:{full.getsockname()[1]}/v1", model="m")
        got = await Caller(endpoint, connect_s=0.2).ask()
        for filler in fillers:
            filler.close()
    assert got.outcome == "connect_timeout"


async def test_unasked_bytes_cost_the_connection_and_no_answer(scripted):
    async def chatty(writer, head, body):
        await write(writer, CHUNKED, *map(chunk, ANSWER), LAST)
        await asyncio.sleep(0.02)
        await write(writer, b"HTTP/1.1 408 Request Timeout\r\n\r\n")

    async with scripted(chatty) as endpoint:
        caller = Caller(endpoint)
        assert (await caller.ask()).outcome == "ok"
        await asyncio.sleep(0.1)
        assert not caller.connection.is_open
        assert (await caller.ask()).outcome == "ok"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host:8000/v1", ("host", 8000, False, "/v1/completions", "host:8000")),
        ("https://api.example.com/v1/", ("api.example.com", 443, True, "/v1/completions", "api.example.com")),
        ("http://[::1]:80/v1", ("::1", 80, False, "/v1/completions", "[::1]:80")),
    ],
)
def test_target(url, expected):
    target = target_of(Endpoint(base_url=url, model="m"))
    assert (target.host, target.port, target.tls, target.path, target.host_header) == expected


async def test_a_host_name_that_cannot_be_one_is_a_connect_error():
    got = await Caller(Endpoint(base_url="http://.a..b/v1", model="m")).ask()
    assert got.outcome == "connect_error"
    assert ".a..b" in got.error


@pytest.mark.parametrize(
    "url", ["host:8000", "ftp://host/v1", "http:///v1", "http://host:99999/v1", "http://[::1", ""]
)
def test_no_url(url):
    with pytest.raises(InputError, match="http://HOST:PORT/v1"):
        target_of(Endpoint(base_url=url, model="m"))


def test_chat_path():
    assert (
        target_of(Endpoint(base_url="http://h/v1", model="m", protocol="chat")).path == "/v1/chat/completions"
    )


async def test_tls(certified):
    """A server with a certificate we trust is spoken to; one we do not trust is a connect_error."""
    served, trust = certified

    async def answer(reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            await write(writer, CHUNKED, *map(chunk, ANSWER), LAST)

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=served)
    port = server.sockets[0].getsockname()[1]
    endpoint = Endpoint(base_url=f"https://127.0.0.1:{port}/v1", model="m")
    try:
        distrusted = await Caller(endpoint).ask()
        trust()
        caller = Caller(endpoint)
        trusted = [await caller.ask() for _ in range(2)]
        caller.connection.close()
    finally:
        server.close()
    assert distrusted.outcome == "connect_error"
    assert "certificate" in distrusted.error
    assert [record.outcome for record in trusted] == ["ok", "ok"]


@contextlib.asynccontextmanager
async def begun(payload):
    """The server's socket, right after this request was begun: the event loop has not run since."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}/v1", model="m")
        connection = Connection(target_of(endpoint), Timeouts())
        assert await connection.open() is None
        peer, _ = listener.accept()
        with peer:
            connection.begin(Exchange(PLANNED, perf_counter_ns()), payload, lambda _: None)
            yield peer
        connection.fail("cancelled", None)


async def test_a_request_is_with_the_kernel_before_begin_returns():
    async with begun(b"GET") as peer:
        assert peer.recv(16, socket.MSG_DONTWAIT) == b"GET"


async def test_a_request_larger_than_all_buffers_arrives_whole_and_in_order():
    sent = bytes(range(256)) * (64 << 10)
    async with begun(sent) as peer:
        assert await asyncio.to_thread(_received, peer, len(sent)) == sent


def _received(peer, size):
    got = bytearray()
    while len(got) < size and (piece := peer.recv(1 << 20)):
        got += piece
    return bytes(got)
