"""Every way in which the simulated engine can be told to fail.

``{"kind": K, "every": n, "burst": b, "after_frac": f}`` strikes the last b of every n requests (default one).
Where tokens come first, it does so after a fraction f of the chunks (default one half; 0: before the first,
and before the head of the answer).

====================  ==================================================  ==================================
kind                  what the server does                                what a client must make of it
====================  ==================================================  ==================================
``http_301``          sends on to another path, as do 307 below         http_error
``http_307``          the same, the method to be kept                     http_error
``http_400``          refuses at once, as do those below                  http_error
``http_401``          the key is wrong                                    http_error
``http_404``          no such model                                       http_error
``http_429``          refuses at once, with ``Retry-After``               http_error
``http_500``          refuses at once                                     http_error
``http_503``          refuses at once, with ``Retry-After``               http_error
``reset``             resets the connection                               reset
``hang``              falls silent                                        first_token_timeout, gap_timeout
``hang_after_head``   sends the head, then nothing                        first_token_timeout
``pings``             sends comments and no tokens any more               first_token_timeout, gap_timeout
``trickle``           sends the next chunk byte by byte, itl_s apart      ok, or a time-out as above
``loris``             sends all the rest byte by byte, LORIS_S apart      first_token_timeout, gap_timeout
``loris_head``        sends its head so                                   first_token_timeout
``split_utf8``        cuts a chunk in the middle of a character           ok
``giant_chunk``       sends the next event behind 8 MiB of comment        ok
``duplicate``         sends an event twice                                malformed
``error_event``       reports an engine failure as vLLM does              stream_error
``malformed``         sends an event that is no JSON, goes on             malformed
``garbage``           sends a data line that is no text, goes on          malformed
``bad_framing``       sends what is no HTTP chunk                         malformed
``long_line``         sends an event of 17 MiB, goes on                   malformed
``wrong_type``        answers 200 with a web page                         malformed
``json_body``         answers 200 with JSON in one piece                  malformed
``gzip``              compresses the answer, which nobody asked for       malformed
``empty``             ends in good order without a token                  empty
``too_few``           stops after the fraction of the tokens              short (ok where it may stop)
``too_many``          sends one token more than asked for                 malformed
``no_finish``         all tokens, no finish reason                        no_end
``no_done``           all tokens, no end mark                             no_end
``wrong_usage``       reports one token more each way than there were     ok, with what was reported
``early_role``        sends what holds no token before the first token    ok, timed by the token
``close``             closes the connection after the answer, announced   ok
``hang_up``           the same, unannounced                               ok, the next one too or reset
``interim``           announces the answer by ``100 Continue``            ok
``http_10``           answers as HTTP/1.0 does: the end is the close      ok
``trailing``          sends more bytes after the end                      ok
``exit``              its process dies                                    reset, then connect_error
====================  ==================================================  ==================================
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import math
import os
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from profiler.engines.sse_server import HttpError
from profiler.engines.sse_stream import CLOSING_HEAD, Stream

FaultKind = Literal[
    "http_301",
    "http_307",
    "http_400",
    "http_401",
    "http_404",
    "http_429",
    "http_500",
    "http_503",
    "reset",
    "hang",
    "hang_after_head",
    "pings",
    "trickle",
    "loris",
    "loris_head",
    "split_utf8",
    "giant_chunk",
    "duplicate",
    "error_event",
    "malformed",
    "garbage",
    "bad_framing",
    "long_line",
    "wrong_type",
    "json_body",
    "gzip",
    "empty",
    "too_few",
    "too_many",
    "no_finish",
    "no_done",
    "wrong_usage",
    "early_role",
    "close",
    "hang_up",
    "interim",
    "http_10",
    "trailing",
    "exit",
]
REFUSALS: dict[str, tuple[int, int | None]] = {
    "http_400": (400, None),
    "http_401": (401, None),
    "http_404": (404, None),
    "http_429": (429, 1),
    "http_500": (500, None),
    "http_503": (503, 5),
}
REDIRECTS = {"http_301": b"301 Moved Permanently", "http_307": b"307 Temporary Redirect"}
INSTEAD_OF_ALL = ("empty", "wrong_type", "json_body", "gzip", "hang_after_head", "loris_head")
LORIS_S = 0.25
GIANT_BYTES = 8 << 20
EXIT_CODE = 70
LONG_LINE_BYTES = 17 << 20
PAUSE_S = 0.001
HTTP_10_HEAD = b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
PAGE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ntransfer-encoding: chunked\r\n\r\n"
GZIP_HEAD = CLOSING_HEAD.removesuffix(b"connection: close\r\n\r\n") + b"content-encoding: gzip\r\n\r\n"
JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"


class Fault(Struct, frozen=True, forbid_unknown_fields=True):
    """The last ``burst`` of every ``every`` requests fail so, after this fraction of their chunks."""

    kind: FaultKind
    every: Annotated[int, Meta(ge=1)] = 1
    after_frac: Annotated[float, Meta(ge=0, le=1)] = 0.5
    burst: Annotated[int, Meta(ge=1)] = 1


def fault_of(faults: list[Fault], number: int) -> Fault | None:
    """The fault that strikes the ``number``-th request (from 1): the first that fits."""
    return next((fault for fault in faults if (number - 1) % fault.every >= fault.every - fault.burst), None)


class ToldFaults:
    """The faults that a file lists, which may be replaced (by rename, never half written) at any time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._faults: list[Fault] = []

    def now(self) -> list[Fault]:
        """None where there is no file; raises msgspec.DecodeError where it is no list of faults."""
        try:
            found = os.stat(self._path)
        except OSError:
            self._seen, self._faults = None, []
            return []
        seen = found.st_ino, found.st_mtime_ns
        if seen != self._seen:
            with open(self._path, "rb") as file:
                self._faults = msgspec.json.decode(file.read(), type=list[Fault])
            self._seen = seen
        return self._faults


class Fate:
    """What becomes of one request for ``output_tokens``; without a fault nothing happens to it.

    ``output_tokens`` are those that will be sent, ``finish_reason`` comes with the last of them.
    """

    def __init__(self, fault: Fault | None, prompt_tokens: int, output_tokens: int) -> None:
        self.kind = fault.kind if fault is not None else None
        self.output_tokens = output_tokens
        self.finish_reason: str | None = "length"
        self._prompt_tokens = prompt_tokens
        self._after_frac = fault.after_frac if fault is not None else 0.0
        if self.kind == "too_few":
            self.output_tokens = max(1, math.floor(output_tokens * self._after_frac))
            self.finish_reason = "stop"
        elif self.kind == "too_many":
            self.output_tokens += 1
        elif self.kind == "no_finish":
            self.finish_reason = None

    def strike_at(self, chunks: int) -> int | None:
        """The chunk in whose place the fault strikes; None where it does not."""
        if self.kind in INSTEAD_OF_ALL:
            return 0
        struck = self.kind in _STRIKES or self.kind in _SLOW_STRIKES
        return min(chunks - 1, math.floor(chunks * self._after_frac)) if struck else None

    def begin(self, stream: Stream) -> None:
        """What goes wrong when the request has come; HttpError refuses it."""
        if self.kind in REFUSALS:
            status, retry_after_s = REFUSALS[self.kind]
            raise HttpError(status, "simulated refusal", retry_after_s=retry_after_s)
        if self.kind in REDIRECTS:
            stream.head = (
                b"HTTP/1.1 %b\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n" % REDIRECTS[self.kind]
            )
            stream.wire(b"")
            stream.ended = True
        elif self.kind == "early_role":
            stream.role()
        elif self.kind == "close":
            stream.head = CLOSING_HEAD
        elif self.kind == "hang_up":
            stream.hangs_up = True
        elif self.kind == "interim":
            stream.head = b"HTTP/1.1 100 Continue\r\n\r\n" + stream.head
        elif self.kind == "http_10":
            stream.head, stream.chunked, stream.hangs_up = HTTP_10_HEAD, False, True
        elif self.kind == "trailing":
            stream.after_end = b"what is this?\r\n"
        elif self.kind == "hang_after_head":
            stream.wire(b"")

    async def strike(self, stream: Stream, next_chunk: bytes, pause_s: float) -> bool:
        """What goes wrong in the place of ``next_chunk``; whether that is still to be sent."""
        if self.kind in _STRIKES:
            _STRIKES[self.kind](stream)
            return not stream.ended
        assert self.kind is not None
        await _SLOW_STRIKES[self.kind](stream, next_chunk, pause_s)
        return False

    def end(self, stream: Stream, cached_tokens: int | None) -> None:
        """End the answer, with what goes wrong there."""
        if self.kind == "no_done":
            stream.close()
        extra = 1 if self.kind == "wrong_usage" else 0
        stream.finish(
            prompt_tokens=self._prompt_tokens + extra,
            completion_tokens=self.output_tokens + extra,
            cached_tokens=cached_tokens,
        )


def _instead(stream: Stream, head: bytes, body: bytes) -> None:
    stream.head = head
    stream.body(body)
    stream.close()


def _exit(_: Stream) -> None:
    os._exit(EXIT_CODE)


_STRIKES: dict[str, Callable[[Stream], None]] = {
    "exit": _exit,
    "reset": lambda stream: stream.abort(),
    "error_event": lambda stream: stream.error(500, "simulated engine failure"),
    "malformed": lambda stream: stream.event(b'{"choices": [{"text": "cut'),
    "garbage": lambda stream: stream.event(bytes(range(128, 256))),
    "bad_framing": lambda stream: stream.wire(b"what is this?\r\n"),
    "long_line": lambda stream: stream.event(bytes(LONG_LINE_BYTES)),
    "empty": lambda stream: stream.finish("stop", prompt_tokens=0, completion_tokens=0),
    "wrong_type": lambda stream: _instead(stream, PAGE_HEAD, b"<html><p>data: no</p>\n</html>\n"),
    "gzip": lambda stream: _instead(stream, GZIP_HEAD, gzip.compress(b"data: {}\n\n")),
    "json_body": lambda stream: _instead(stream, JSON_HEAD, b'{"choices": [{"text": "all at once"}]}'),
}


async def _hang(_stream: Stream, _chunk: bytes, _pause_s: float) -> None:
    await asyncio.Event().wait()


async def _pings(stream: Stream, _chunk: bytes, pause_s: float) -> None:
    while True:
        stream.body(b": still here\n\n")
        await asyncio.sleep(max(pause_s, PAUSE_S))


async def _trickle(stream: Stream, chunk: bytes, pause_s: float) -> None:
    for byte in chunk:
        stream.body(bytes([byte]))
        await asyncio.sleep(max(pause_s, PAUSE_S))


async def _loris(stream: Stream, chunk: bytes, _pause_s: float) -> None:
    for byte in itertools.chain(chunk, itertools.repeat(ord(":"))):
        stream.body(bytes([byte]))
        await asyncio.sleep(LORIS_S)


async def _loris_head(stream: Stream, _chunk: bytes, _pause_s: float) -> None:
    head, stream.head = stream.head, b""
    for byte in itertools.chain(head[:-1], itertools.repeat(ord("x"))):
        stream.wire(bytes([byte]))
        await asyncio.sleep(LORIS_S)


async def _split_utf8(stream: Stream, chunk: bytes, pause_s: float) -> None:
    """The text becomes one of two-byte and four-byte characters; the event is cut inside each."""
    whole = chunk.replace(b" tok", " tök 🙂".encode())
    for piece in re.split(rb"(?<=\xc3)|(?<=\xf0\x9f)", whole):
        stream.body(piece)
        await asyncio.sleep(max(pause_s, PAUSE_S))


async def _giant_chunk(stream: Stream, chunk: bytes, _pause_s: float) -> None:
    stream.body(b":" + b"x" * GIANT_BYTES + b"\n\n" + chunk)


async def _duplicate(stream: Stream, chunk: bytes, _pause_s: float) -> None:
    stream.body(chunk)
    stream.body(chunk)


_SLOW_STRIKES: dict[str, Callable[[Stream, bytes, float], Awaitable[None]]] = {
    "hang": _hang,
    "hang_after_head": _hang,
    "pings": _pings,
    "trickle": _trickle,
    "loris": _loris,
    "loris_head": _loris_head,
    "split_utf8": _split_utf8,
    "giant_chunk": _giant_chunk,
    "duplicate": _duplicate,
}
