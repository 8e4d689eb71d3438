"""A small HTTP/1.1 server that streams tokens as OpenAI-compatible servers do (vLLM's dialect).

An engine of our own derives from :class:`App`, gives the name of its model and one coroutine, and
is served by :func:`run` (a process of its own) or :func:`serve` (inside a running event loop)::

    class Echo(App):
        model = "echo"

        async def completions(self, request: dict[str, Any], stream: Stream) -> None:
            prompt = request["prompt"]                       # list of ids or a text, as it was sent
            for token in range(request["max_tokens"]):
                stream.tokens([token], text="x")             # one chunk, written at once
                await asyncio.sleep(0.01)
            stream.finish("length", prompt_tokens=len(prompt), completion_tokens=request["max_tokens"])

    run(Echo(), port=0, api_key="secret")                    # prints "listening PORT"

What is served: ``GET /health`` (200), ``GET /v1/models``, ``POST /v1/completions`` and
``POST /v1/chat/completions`` (the same coroutine: the request then holds ``messages`` instead of
``prompt``, and ``stream.chat`` is true; chunks take the right shape by themselves).  ``"stream":
false`` is answered in one piece from the same calls.  Any other GET asks :meth:`App.page`.  The key guards
all but ``/health`` and ``/metrics``.

To misbehave on purpose an app sets ``stream.head`` and uses :meth:`Stream.event`, ``body``, ``wire``,
``close`` and ``abort``, which say nothing but what they are told.

Handled here, so that an app need not: 401 for a wrong key, 404 for a wrong model or path, 400 for a body
that is not a JSON object, and clients that leave (the coroutine is cancelled).  An app refuses a request by
raising :class:`HttpError`; once tokens were sent that becomes an error event inside the stream, as in vLLM.

``Stream`` methods belong to the event loop's thread; from another thread use
``loop.call_soon_threadsafe(stream.tokens, ids)``.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import struct
import sys
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import httptools
import msgspec

from profiler.engines.sse_stream import Stream

MAX_BODY_BYTES = 256 << 20


class HttpError(Exception):
    """Refuse the request with this status and message; ``retry_after_s`` goes into the head if given."""

    def __init__(self, status: int, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class App:
    """What a server serves: derive, set ``model``, write ``completions``."""

    model: str = ""

    async def completions(self, request: dict[str, Any], stream: Stream) -> None:
        """Answer one request through ``stream``; cancelled when the client leaves.

        Returning without :meth:`Stream.finish` ends the stream without a finish reason.
        """
        raise NotImplementedError

    def health(self) -> int | None:
        """The status of ``GET /health``; None: it is not answered."""
        return 200

    def page(self, path: str) -> Any | None:
        """The JSON-able content of ``GET path``, or None when there is no such page; bytes go out as they
        are, as plain text."""
        del path
        return None


class Connection(asyncio.Protocol):
    """One client connection: parses requests one after another and answers each."""

    def __init__(self, app: App, api_key: str | None, open_connections: set[Connection]) -> None:
        self._app = app
        self._expected = None if api_key is None else b"Bearer " + api_key.encode()
        self._open = open_connections
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._stream: Stream | None = None
        self.on_message_begin()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not derive from it
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self._open.discard(self)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.respond(400, {"error": {"message": "not HTTP", "code": 400}})
            self.drop()

    def on_message_begin(self) -> None:
        self._path = b""
        self._key: bytes | None = None
        self._body = bytearray()

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"authorization":
            self._key = value

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > MAX_BODY_BYTES:
            self.drop()

    def on_message_complete(self) -> None:
        if self._stream is not None and not self._stream.ended:
            self.drop()  # pipelining: a client that does not wait for its answer
            return
        try:
            self._answer(self._parser.get_method(), self._path.split(b"?")[0].decode())
        except HttpError as error:
            self.respond(error.status, {"error": {"message": str(error), "code": error.status}})

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def respond(self, status: int, content: Any, *, retry_after_s: int | None = None) -> None:
        """Answer in one piece: bytes as plain text, all else as JSON."""
        plain = isinstance(content, bytes)
        body = content if plain else msgspec.json.encode(content)
        retry = f"retry-after: {retry_after_s}\r\n" if retry_after_s is not None else ""
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{retry}"
            f"content-type: {'text/plain; charset=utf-8' if plain else 'application/json'}\r\n"
        )
        self.write(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Close with a TCP reset: unsent bytes are discarded, the peer is told at once."""
        if self._transport is not None:
            _linger_zero(self._transport)
            self._transport.abort()

    def _answer(self, method: bytes, path: str) -> None:
        if path == "/health":
            status = self._app.health()
            if status is not None:
                self.respond(status, {"status": "ok" if status == 200 else "unhealthy"})
            return
        if path != "/metrics" and self._expected not in (None, self._key):
            raise HttpError(401, "wrong API key")
        if method == b"GET":
            self._answer_get(path)
        elif method == b"POST" and path in ("/v1/completions", "/v1/chat/completions"):
            self._start(self._request(), chat="chat" in path)
        else:
            raise HttpError(404, f"no such path: {path}")

    def _answer_get(self, path: str) -> None:
        content = self._app.page(path)
        if path == "/v1/models":
            content = {"object": "list", "data": [{"id": self._app.model, "object": "model"}]}
        if content is None:
            raise HttpError(404, f"no such path: {path}")
        self.respond(200, content)

    def _request(self) -> dict[str, Any]:
        try:
            request = msgspec.json.decode(bytes(self._body), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise HttpError(400, f"the body is not a JSON object: {error}") from None
        if request.get("model") != self._app.model:
            raise HttpError(404, f"the model {request.get('model')!r} does not exist")
        return request

    def _start(self, request: dict[str, Any], *, chat: bool) -> None:
        # The next request may come as soon as the last byte has left, before the last task has wound up.
        self._stream = Stream(self, request, chat=chat)
        self._task = asyncio.get_running_loop().create_task(self._complete(request, self._stream))

    async def _complete(self, request: dict[str, Any], stream: Stream) -> None:
        try:
            await self._app.completions(request, stream)
        except HttpError as error:
            stream.error(error.status, str(error), retry_after_s=error.retry_after_s)
        except Exception as error:  # whatever an engine raises is this request's failure, not the server's
            print(f"request failed: {error!r}", file=sys.stderr, flush=True)  # noqa: T201 (the server's log)
            stream.error(500, f"{type(error).__name__}: {error}")
        stream.close()


def _linger_zero(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def serve(
    app: App,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    api_key: str | None = None,
    ready: Callable[[int], None] | None = None,
) -> None:
    """Serve until cancelled.  ``ready`` is called once with the bound port; port 0 picks a free one."""
    connections: set[Connection] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(app, api_key, connections), host, port, backlog=4096)
    try:
        if ready is not None:
            ready(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()
    finally:
        server.close()
        for connection in tuple(connections):
            connection.drop()


def run(app: App, *, host: str = "127.0.0.1", port: int = 0, api_key: str | None = None) -> None:
    """Serve as this process's only work; prints ``listening PORT``; ends on SIGTERM or SIGINT."""

    async def main() -> None:
        task = asyncio.ensure_future(serve(app, host=host, port=port, api_key=api_key, ready=_announce))
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    with _runner() as runner:
        runner.run(main())


def _announce(port: int) -> None:
    print(f"listening {port}", flush=True)  # noqa: T201 (whoever started us waits for this line)


def _runner() -> asyncio.Runner:
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
