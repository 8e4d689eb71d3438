"""One keep-alive HTTP/1.1 connection on a raw asyncio protocol.

On arrival bytes are stamped, framed and kept; nothing else happens to them inside a window.  Only the
beginning of each answer, up to its first token, is understood at once: whether a first token has come
decides which timeout applies and when the load is warm.

All pieces that one read from the socket brought have its one stamp.  The bodies' pieces go from the HTTP
parser straight into a list, without a call into Python.
"""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from time import perf_counter_ns
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
from msgspec import Struct

from profiler.errors import InputError
from profiler.loadgen.decode import Answer
from profiler.loadgen.exchange import Exchange
from profiler.schema import Endpoint, Outcome
from profiler.settings import Timeouts

MAX_HEAD_BYTES = 1 << 20
MAX_BODY_BYTES = 256 << 20
LONGEST_RETRY_AFTER_S = 365 * 86_400.0  # some servers write any number of digits
INTERIM = (100, 102, 103)  # statuses that announce another answer to the same request


class Target(Struct, frozen=True):
    """Where an endpoint's requests go."""

    host: str
    port: int
    tls: bool
    path: str
    host_header: str


def target_of(endpoint: Endpoint) -> Target:
    """Take the endpoint's URL apart; InputError when it is none."""
    try:
        parts = urlsplit(endpoint.base_url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise InputError(f"{endpoint.base_url!r} is no URL of a server; write http://HOST:PORT/v1")
    tls = parts.scheme == "https"
    call = "chat/completions" if endpoint.protocol == "chat" else "completions"
    return Target(
        host=parts.hostname,
        port=port or (443 if tls else 80),
        tls=tls,
        path=f"{parts.path.rstrip('/')}/{call}",
        host_header=parts.netloc.rpartition("@")[2],
    )


@functools.cache
def tls_context() -> ssl.SSLContext:
    """One context for all connections: reading the certificate store takes some 20 ms."""
    return ssl.create_default_context()


class Connection(asyncio.Protocol):
    """Carries one exchange at a time; opens itself again after it broke.

    ``exchange`` is the one under way and ``had_token`` says whether any token came, over all exchanges so
    far.
    """

    def __init__(self, target: Target, timeouts: Timeouts) -> None:
        self._target = target
        self._timeouts = timeouts
        self._tls = tls_context() if target.tls else None
        self._transport: asyncio.Transport | None = None
        self._descriptor: int | None = None
        self.exchange: Exchange | None = None
        self.had_token = False
        self._pieces_before = 0
        self._on_end: Callable[[Exchange], None] | None = None
        self._opening: Answer | None = None
        self._alive_ns = 0
        # What may come unseen: nothing until the first token, and nothing after the end.
        self._credit_bytes = -1
        self._room_bytes = 0
        self._framed = False
        self._keep = True
        self._trouble: Exception | None = None
        self._start_parser()

    # ------------------------------------------------------------------------------ for the driver

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def pieces(self) -> int:
        """Body pieces of all exchanges so far."""
        return self._pieces_before + (len(self.exchange.stamps) if self.exchange is not None else 0)

    async def open(self) -> tuple[Outcome, str] | None:
        """Connect unless connected; the failure's name and text, None when all is well."""
        if self.is_open:
            return None
        loop = asyncio.get_running_loop()
        target = self._target
        try:
            async with asyncio.timeout(self._timeouts.connect_s):
                await loop.create_connection(lambda: self, target.host, target.port, ssl=self._tls)
        except TimeoutError:
            return (
                "connect_timeout",
                f"no connection to {target.host}:{target.port} in {self._timeouts.connect_s} s",
            )
        except OSError as error:
            return "connect_error", f"{target.host}:{target.port}: {error.strerror or error}"
        except ValueError as error:  # UnicodeError among them: what the resolver was never even asked
            return "connect_error", f"{target.host!r} is no host name: {error}"
        return None

    def send(self, exchange: Exchange, payload: bytes) -> asyncio.Future[None]:
        """Write one request on the open connection; the future is done when its exchange has ended."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.begin(exchange, payload, lambda _: None if done.done() else done.set_result(None))
        return done

    def begin(self, exchange: Exchange, payload: bytes, on_end: Callable[[Exchange], None]) -> None:
        """Write one request on the open connection; ``on_end`` is called once its exchange has ended.

        By then the connection is free again: ``on_end`` may begin the next exchange if it is still open.
        """
        assert self._transport is not None
        assert self.exchange is None
        self.exchange = exchange
        exchange.pieces = self._inbox
        self._on_end = on_end
        self._opening = Answer()
        self._framed = False
        self._credit_bytes = -1
        self._room_bytes = MAX_HEAD_BYTES
        exchange.sent_ns = perf_counter_ns()
        self._write(self._transport, payload)

    def expire(self, now_ns: int) -> None:
        """End the exchange when one of its timeouts has passed.

        The gap counts from the last ``data`` line: comments, which some servers send to keep a connection
        open, and single bytes of an event that never ends are no sign of life.
        """
        exchange = self.exchange
        if exchange is None or exchange.sent_ns is None:
            return
        limits = self._timeouts
        if exchange.first_token_ns is None:
            if now_ns - exchange.sent_ns > limits.first_token_s * 1e9:
                self.fail("first_token_timeout", f"no token in {limits.first_token_s} s")
        elif now_ns - self._alive_ns > limits.gap_s * 1e9:
            self._alive_ns = last_data_ns(exchange, self._alive_ns)
            if now_ns - self._alive_ns > limits.gap_s * 1e9:
                self.fail("gap_timeout", f"the stream fell silent for {limits.gap_s} s")
        if now_ns - exchange.sent_ns > limits.total_s * 1e9:
            self.fail("total_timeout", f"not done in {limits.total_s} s")

    def fail(self, outcome: Outcome, error: str | None) -> None:
        """End the running exchange, if any, with this outcome and drop the connection."""
        self.close()
        if self.exchange is not None:
            self.exchange.failure = outcome
            self.exchange.error = error
            self._end(perf_counter_ns())

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # ------------------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        plain = None if self._tls else transport.get_extra_info("socket")
        self._descriptor = None if plain is None else plain.fileno()
        self._start_parser()

    def data_received(self, data: bytes) -> None:
        stamp_ns = perf_counter_ns()
        exchange = self.exchange
        if exchange is None:
            self.close()  # nobody asked: whatever this is, the connection cannot be trusted
            return
        self._credit_bytes -= len(data)
        try:
            self._feed(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._trouble = error
            self._credit_bytes = -1
        stamps = exchange.stamps
        fresh = len(self._inbox) - len(stamps)
        if fresh == 1:
            stamps.append(stamp_ns)
        elif fresh:
            stamps.extend([stamp_ns] * fresh)
        if self._credit_bytes < 0:
            self._look(exchange, stamp_ns, len(data), fresh)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        exchange = self.exchange
        if exchange is None:
            return
        if exc is None and exchange.status is not None and not self._framed:
            self._end(perf_counter_ns())  # HTTP/1.0 manner: the body ends where the connection does
            return
        self.fail("reset", f"connection lost: {exc or 'closed by the server before the answer was complete'}")

    # ------------------------------------------------------------------------------ httptools callbacks

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        if key in (b"transfer-encoding", b"content-length"):
            self._framed = True
        elif self.exchange is None:
            return
        elif key == b"location":
            self.exchange.error = f"sends us on to {value.decode(errors='replace')}"
        elif key == b"retry-after" and value.strip().isdigit():  # a date is not understood
            self.exchange.retry_after_s = min(float(value), LONGEST_RETRY_AFTER_S)
        elif key == b"content-encoding" and value.strip().lower() != b"identity":
            self.exchange.error = f"compressed ({value.decode(errors='replace')}), which nobody asked for"

    def on_headers_complete(self) -> None:
        assert self.exchange is not None
        status = self._parser.get_status_code()
        if status not in INTERIM:
            self.exchange.status = status
            self._room_bytes = MAX_BODY_BYTES

    def on_message_complete(self) -> None:
        assert self.exchange is not None
        if self.exchange.status is None:
            return
        self._complete = True
        self._credit_bytes = -1
        self._keep = self._parser.should_keep_alive()

    # ------------------------------------------------------------------------------ inside

    def _start_parser(self) -> None:
        self._inbox: list[bytes] = []
        self.on_body = self._inbox.append  # looked up by the parser, once
        self._parser: Any = httptools.HttpResponseParser(self)
        self._feed = self._parser.feed_data
        self._complete = False
        self._trouble = None

    def _write(self, transport: asyncio.Transport, payload: bytes) -> None:
        """Hand the bytes to the kernel now; the transport would first see to all else that is ready.

        It has what the kernel does not take, and the telling of what is wrong with the connection.
        """
        if self._descriptor is None or transport.get_write_buffer_size():
            transport.write(payload)
            return
        try:
            sent = os.write(self._descriptor, payload)
        except OSError:
            sent = 0
        if sent < len(payload):
            transport.write(payload[sent:])

    def _look(self, exchange: Exchange, stamp_ns: int, data_bytes: int, fresh: int) -> None:
        """What is rare: the beginning of an answer, its end, and trouble."""
        if self._opening is not None:
            self._room_bytes -= data_bytes
            self._look_for_token(self._opening, exchange, stamp_ns, fresh)
        if self._complete:
            if self._trouble is not None or not self._keep:
                self.close()
            self._end(stamp_ns)
        elif self._trouble is not None:
            self.fail("malformed", f"not HTTP: {self._trouble}")
        elif self._opening is not None and self._opening.too_long:
            self.fail("malformed", self._opening.malformed)
        elif (self._credit_bytes if self._opening is None else self._room_bytes) < 0:
            part, limit = ("head", MAX_HEAD_BYTES) if exchange.status is None else ("body", MAX_BODY_BYTES)
            self.fail("malformed", f"the {part} of the answer is longer than {limit >> 20} MiB")

    def _look_for_token(self, opening: Answer, exchange: Exchange, stamp_ns: int, fresh: int) -> None:
        for piece in self._inbox[len(self._inbox) - fresh :]:
            opening.feed(stamp_ns, piece)
        if opening.arrivals_ns:
            exchange.first_token_ns = self._alive_ns = stamp_ns
            self.had_token = True
            self._opening = None
            if not self._complete:
                self._credit_bytes = self._room_bytes

    def _end(self, stamp_ns: int) -> None:
        exchange, on_end = self.exchange, self._on_end
        self.exchange = self._on_end = self._opening = None
        self._complete = False
        if exchange is not None:
            exchange.end_ns = stamp_ns
            exchange.pieces = self._inbox.copy()
            self._inbox.clear()
            self._pieces_before += len(exchange.pieces)
        if exchange is not None and on_end is not None:
            on_end(exchange)


def last_data_ns(exchange: Exchange, after_ns: int) -> int:
    """When the last whole ``data`` line of the answer came, as far as that was after ``after_ns``.

    A piece that holds the beginning of one will do, and is nearly always the very last; only where none does
    are the pieces put together.
    """
    first = bisect_right(exchange.stamps, after_ns)
    pieces = exchange.pieces[first:]
    for place in range(len(pieces) - 1, -1, -1):
        if b"data:" in pieces[place]:
            return exchange.stamps[first + place]
    text = b"".join(pieces).replace(b"\r", b"\n")
    end = text.find(b"\n", max(0, text.rfind(b"data:", 0, text.rfind(b"\n") + 1)))
    if b"data:" not in text[: end + 1]:
        return after_ns
    return exchange.stamps[first + bisect_right(list(accumulate(map(len, pieces))), end)]
