"""What comes from a server: event streams, HTTP around them, cut anywhere."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, cast

import msgspec

from profiler.loadgen.client import Connection, last_data_ns
from profiler.loadgen.client import Target as Address
from profiler.loadgen.decode import Answer, answer_of, decode
from profiler.loadgen.exchange import Exchange
from profiler.loadgen.sse import SseParser
from profiler.schema import Endpoint, RequestRecord
from profiler.settings import Timeouts
from profiler.workload import PlannedRequest
from tests.fuzz.nouns import Target

HEAD = 4  # settings, three numbers that say where to cut
MOST_PIECES = 100
MOST_COUNT = 1 << 53  # what an array of floats holds exactly, and a column of int64 in any case
WORDS = (
    *("choices", "usage", "text", "token_ids", "delta", "content", "reasoning", "reasoning_content"),
    *("tool_calls", "finish_reason", "stop", "length", "prompt_tokens", "completion_tokens", "error"),
    *("prompt_tokens_details", "cached_tokens", "object", "message", "role", "logprobs", "index", "code"),
)
SYNTAX = ("data: ", "data:", "event: error", "[DONE]", ": ping", "id: 1", "retry: 5", "\r\n\r\n", "\ufeff")


def endpoint(choice: int) -> Endpoint:
    return Endpoint(
        base_url="http://127.0.0.1:1/v1",
        model="m",
        protocol="chat" if choice & 1 else "completions",
        prompt="text" if choice & 2 else "ids",
        ignores_eos=bool(choice & 4),
    )


def cuts(head: bytes, body: bytes) -> list[bytes]:
    """``body`` in pieces: at every byte, every few, or at three places."""
    if not body:
        return []
    if head[1] < 32:
        step = max(1 + head[1] % 16, len(body) // MOST_PIECES)
        return [body[at : at + step] for at in range(0, len(body), step)]
    places = sorted({0, len(body), *(len(body) * each // 256 for each in head[1:HEAD])})
    return [body[one:other] for one, other in pairwise(places)]


# ------------------------------------------------------------------------------------- event streams


def parse(data: bytes) -> None:
    """The events are the same however the bytes are cut, and are made of bytes that came."""
    head, body = data[:HEAD].ljust(HEAD, b"\0"), data[HEAD:]
    whole, cut = SseParser(), SseParser()
    events = [*whole.feed(body), *whole.close()]
    pieces = [event for piece in cuts(head, body) for event in cut.feed(piece)]
    assert events == [*pieces, *cut.close()], "other events when cut"
    assert sum(len(name) + len(said) for name, said in events) <= len(body), "more bytes than came"


def exchange(pieces: list[bytes], status: int = 200) -> Exchange:
    """As the client leaves one; every piece has its own instant."""
    found = Exchange(PlannedRequest(index=0, input_tokens=3, output_tokens=4), 0)
    found.sent_ns, found.status = 0, status
    found.pieces, found.stamps = pieces, array("q", range(1, len(pieces) + 1))
    found.end_ns = len(pieces) + 1
    return found


def understand(data: bytes) -> None:
    """A record whatever came: for every cut the same but for the instants, no more tokens than bytes, and
    such that a file of records can hold it."""
    head, body = data[:HEAD].ljust(HEAD, b"\0"), data[HEAD:]
    asked = endpoint(head[0])
    status = 200 if head[0] & 0x38 else 500
    pieces = cuts(head, body)
    record, other = (decode(exchange(each, status), asked, 0) for each in (pieces, [body] if body else []))
    assert _timeless(record) == _timeless(other), "another record when cut"
    _check(record, len(body), len(pieces))
    _check_both_ways(pieces)
    said = answer_of(exchange(pieces), asked)
    assert len(said) <= len(body), "more answered than came"
    for after_ns in (0, len(pieces) // 2):
        assert after_ns <= last_data_ns(exchange(pieces), after_ns) <= max(after_ns, len(pieces))


def _timeless(record: RequestRecord) -> tuple[Any, ...]:
    said = msgspec.structs.replace(record, arrivals_ns=[], first_ns=None, last_ns=None, done_ns=None)
    return msgspec.structs.astuple(said)


def _check(record: RequestRecord, body_bytes: int, pieces: int) -> None:
    assert sum(record.arrival_tokens) <= body_bytes, "more tokens than bytes"
    assert all(tokens > 0 for tokens in record.arrival_tokens)
    assert sorted(record.arrivals_ns) == record.arrivals_ns, "arrivals out of order"
    assert all(1 <= stamp_ns <= pieces for stamp_ns in record.arrivals_ns), "an instant nothing came at"
    counts = (record.output_tokens, record.input_tokens, record.reported_input_tokens)
    for count in (*counts, record.reported_output_tokens, record.cached_tokens):
        assert count is None or 0 <= count <= MOST_COUNT, f"a count of {count}"
    if record.outcome == "ok":
        assert record.output_tokens, "ok without tokens"
        assert record.arrivals_ns, "ok without arrivals"
    (record.error or "").encode()


def _check_both_ways(pieces: list[bytes]) -> None:
    """The short way for plain bodies sees what the parser sees."""
    short, usual = Answer(), Answer()
    if not pieces or not short.take_plain(range(1, len(pieces) + 1), pieces):
        return
    for stamp_ns, piece in enumerate(pieces, 1):
        usual.feed(stamp_ns, piece)
    usual.close(len(pieces))
    for name in ("arrivals_ns", "arrival_tokens", "finish_reason", "ended", "usage", "error", "malformed"):
        assert getattr(short, name) == getattr(usual, name), f"{name} differs by the short way"


def _event(content: Any) -> bytes:
    return b"data: " + (content if isinstance(content, bytes) else json.dumps(content).encode()) + b"\n\n"


def streams() -> Iterator[bytes]:
    ids = [{"choices": [{"index": 0, "text": "a", "token_ids": [n, n + 1]}]} for n in (1, 3)]
    last = {"choices": [{"text": "", "token_ids": [], "finish_reason": "length"}]}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}}
    said = [{"choices": [{"delta": {"role": "assistant"}}]}, {"choices": [{"delta": {"content": "é😀"}}]}]
    thought = [{"choices": [{"delta": {key: "hm"}}]} for key in ("reasoning", "reasoning_content")]
    tools = [{"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "{}"}}]}}]}]
    done = b"[DONE]"
    bodies = [
        [*ids, last, {"choices": [], "usage": usage}, done],
        [
            *said,
            *thought,
            *tools,
            {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": usage},
            done,
        ],
        [ids[0], {"error": {"message": "engine is dead", "code": 500}}],
        [{"object": "error", "message": "full"}, done],
    ]
    for n, body in enumerate(bodies):
        plain = b"".join(map(_event, body))
        for form in (
            plain,
            plain.replace(b"\n", b"\r\n"),
            b"\xef\xbb\xbf: ping\r" + plain.replace(b"data: ", b"data:"),
        ):
            yield bytes([8 + n, 3 * n, 80, 200]) + form
    yield bytes([9, 1, 0, 0]) + b"event: error\nid: 1\nretry: 3\ndata: {\ndata: }\n\ndata\n\nid"
    yield bytes([0, 40, 90, 200]) + b'{"error": "no such model"}'
    yield bytes([12, 40, 90, 200]) + _event(b'{"choices":[{"delta":{"tool_calls":' + b"[" * 1500)


# ---------------------------------------------------------------------------------------------- HTTP


class _Transport:
    """A connection that takes everything and never says a word."""

    def __init__(self) -> None:
        self.closed = False

    def get_extra_info(self, name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, payload: bytes) -> None:
        assert not self.closed

    def abort(self) -> None:
        self.closed = True


def talk(pieces: list[bytes], closes: bool) -> tuple[Exchange, bool]:
    """One exchange over these pieces, and whether the connection is open afterwards; ``closes``: the server
    closes it in good order, else it is reset."""
    address = Address(host="h", port=1, tls=False, path="/v1", host_header="h")
    connection, ended = Connection(address, Timeouts()), cast(list[Exchange], [])
    connection.connection_made(cast(Any, _Transport()))
    connection.begin(exchange([]), b"POST", ended.append)
    mine = cast(Exchange, connection.exchange)
    mine.stamps, mine.status, mine.end_ns = array("q"), None, None
    for piece in pieces:
        if connection.is_open:
            connection.data_received(piece)
    stays = connection.is_open
    if stays:
        connection.connection_lost(None if closes else ConnectionResetError("reset"))
    assert ended == [mine], f"ended {len(ended)} times"
    assert connection.exchange is None
    assert len(mine.stamps) == len(mine.pieces), "pieces without an instant"
    return mine, stays


def http(data: bytes) -> None:
    """An outcome whatever came, the same for every cut, and a record of it."""
    head, body = data[:HEAD].ljust(HEAD, b"\0"), data[HEAD:]
    closes = bool(head[0] & 0x40)
    (one, _), (other, _) = (talk(each, closes) for each in (cuts(head, body), [body] if body else []))
    assert one.status == other.status, "another status when cut"
    assert one.failure == other.failure, "another failure when cut"
    assert b"".join(one.pieces) == b"".join(other.pieces), "another body when cut"
    records = [decode(each, endpoint(head[0]), 0) for each in (one, other)]
    outcomes = {(each.outcome, each.output_tokens, tuple(each.arrival_tokens)) for each in records}
    assert len(outcomes) == 1, f"other records when cut: {outcomes}"


def answers() -> Iterator[bytes]:
    for seed in streams():
        head, body = seed[:HEAD], seed[HEAD:]
        sized = b"Content-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        half = len(body) // 2
        parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part]
        chunked = b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(parts) + b"0\r\n\r\n"
        yield head + b"HTTP/1.1 200 OK\r\n" + sized
        yield head + b"HTTP/1.1 200 OK\r\n" + chunked
    tail = b"\r\nContent-Length: 2\r\n\r\nno"
    yield b"\x48\x01\0\0HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 Too Many\r\nRetry-After: 3" + tail
    yield b"\x48\x50\0\0HTTP/1.0 200 OK\r\n\r\ndata: [DONE]\n\n"
    yield b"\x08\x02\0\0HTTP/1.1 307 Moved\r\nLocation: http://x/\r\nConnection: close" + tail
    yield b"\x08\x30\0\0HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    yield b"\x08\x30\0\0HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK" + tail


HTTP = ("HTTP/1.1 200 OK", "Transfer-Encoding", "chunked", "Content-Length", "Connection", "close", "Upgrade")
TARGETS = (
    Target("sse", parse, streams, "bytes", head=HEAD, most_bytes=600),
    Target("stream", understand, streams, "events", (*SYNTAX, *WORDS), HEAD, 2500),
    Target("http", http, answers, "events", (*HTTP, *SYNTAX, *WORDS), HEAD, 2500),
)
