"""One keep-alive HTTP/1.1 connection on a raw asyncio protocol.

On arrival bytes are stamped, framed and kept; nothing else happens to them inside a window.  Only the
beginning of each answer, up to its first token, is understood at once: whether a first token has come
decides which timeout applies and when the load is warm.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
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

    ``exchange`` is the one under way; ``pieces`` counts body pieces and ``had_token`` says whether any
    token came, both over all exchanges so far.
    """

    def __init__(self, target: Target, timeouts: Timeouts) -> None:
        self._target = target
        self._timeouts = timeouts
        self._tls = tls_context() if target.tls else None
        self._transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.pieces = 0
        self.had_token = False
        self._done: asyncio.Future[None] | None = None
        self._opening: Answer | None = None
        self._stamp_ns = 0
        self._framed = False
        self._parser: Any = None

    # ------------------------------------------------------------------------------ for the driver

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

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
        assert self._transport is not None
        assert self.exchange is None
        self.exchange = exchange
        self._opening = Answer()
        self._parser = httptools.HttpResponseParser(self)
        self._framed = False
        self._done = asyncio.get_running_loop().create_future()
        exchange.sent_ns = perf_counter_ns()
        self._transport.write(payload)
        return self._done

    def expire(self, now_ns: int) -> None:
        """End the exchange when one of its timeouts has passed."""
        exchange = self.exchange
        if exchange is None or exchange.sent_ns is None:
            return
        limits = self._timeouts
        if exchange.first_token_ns is None:
            if now_ns - exchange.sent_ns > limits.first_token_s * 1e9:
                self.fail("first_token_timeout", f"no token in {limits.first_token_s} s")
        elif now_ns - exchange.stamps[-1] > limits.gap_s * 1e9:
            self.fail("gap_timeout", f"the stream fell silent for {limits.gap_s} s")
        if now_ns - exchange.sent_ns > limits.total_s * 1e9:
            self.fail("total_timeout", f"not done in {limits.total_s} s")

    def fail(self, outcome: Outcome, error: str | None) -> None:
        """End the running exchange, if any, with this outcome and drop the connection."""
        if self.exchange is not None:
            self.exchange.failure = outcome
            self.exchange.error = error
            self._end(perf_counter_ns())
        self.close()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # ------------------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._stamp_ns = perf_counter_ns()
        if self.exchange is None:
            self.close()  # nobody asked: whatever this is, the connection cannot be trusted
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.fail("malformed", f"not HTTP: {error}")

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

    def on_header(self, name: bytes, _value: bytes) -> None:
        if name.lower() in (b"transfer-encoding", b"content-length"):
            self._framed = True

    def on_headers_complete(self) -> None:
        if self.exchange is not None:
            self.exchange.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        exchange.stamps.append(self._stamp_ns)
        exchange.pieces.append(body)
        self.pieces += 1
        if self._opening is not None:
            self._look_for_token(exchange, body)

    def on_message_complete(self) -> None:
        if self.exchange is None or self.exchange.status in (100, 102, 103):
            return
        keep = self._parser.should_keep_alive()
        self._end(self._stamp_ns)
        if not keep:
            self.close()

    def _look_for_token(self, exchange: Exchange, body: bytes) -> None:
        assert self._opening is not None
        self._opening.feed(self._stamp_ns, body)
        if self._opening.arrivals_ns:
            exchange.first_token_ns = self._stamp_ns
            self.had_token = True
            self._opening = None

    def _end(self, stamp_ns: int) -> None:
        exchange, done = self.exchange, self._done
        self.exchange = self._done = self._opening = None
        if exchange is not None:
            exchange.end_ns = stamp_ns
        if done is not None and not done.done():
            done.set_result(None)
