"""Between a client and a real server: what the network, and servers behind gateways, do to answers.

A process of its own.  Its mode is changed while it runs and takes effect at once, also on answers under way::

    with Proxy(port_of_the_server) as proxy:
        proxy.set("stall")
        ...                      # clients use proxy.url
        proxy.set("pass")

==========  =======================================================================================
mode        what becomes of an answer
==========  =======================================================================================
pass        it passes
slow        every byte comes ``delay_s`` later, the order and the gaps as they were
stall       its bytes are held back until the mode changes
cut         its connection is reset (``how = "close"``: closed) where it stands
split       it comes ``size`` bytes at a time; its texts begin with ☃, so that characters are cut too
glue        its events come ``count`` in one chunk of HTTP, with the last of them
drip        it comes byte by byte, ``delay_s`` apart
no_done     the end mark of the stream is missing
twice       an event comes twice
corrupt     an event has bytes that are no text in it
bad_frame   in place of an event comes what is no chunk of HTTP
status      the server is not asked: ``status``, with ``Retry-After`` where ``retry_after_s`` is given
refuse      nobody listens any more, and what was connected is reset
==========  =======================================================================================

``after`` events of an answer pass unharmed; of all answers only each ``every``-th is struck.  Answers that
are no event stream count as one event.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from http import HTTPStatus
from types import TracebackType
from typing import IO, Any, Literal, get_args

import msgspec
from msgspec import Struct

Kind = Literal[
    "pass",
    "slow",
    "stall",
    "cut",
    "split",
    "glue",
    "drip",
    "no_done",
    "twice",
    "corrupt",
    "bad_frame",
    "status",
    "refuse",
]
HOST = "127.0.0.1"
LIMIT_BYTES = 1 << 24
LOOK_EVERY_S = 0.02
IN_CHARACTER_S = 0.002  # for the client to see half of one
DONE = b"data: [DONE]"


class Mode(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See the table above."""

    kind: Kind = "pass"
    after: int = 0
    every: int = 1
    size: int = 1
    count: int = 4
    delay_s: float = 0.1
    how: Literal["reset", "close"] = "reset"
    status: int = 503
    retry_after_s: int | None = None


class Proxy:
    """The proxy as its user holds it; it ends with the block, or with whoever started it."""

    def __init__(self, server_port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.harden.proxy", str(server_port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.port = int(self._heard()["port"])

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/v1"

    def set(self, kind: Kind, **changes: Any) -> None:
        """From now on; when this returns it is so."""
        self._told({"kind": kind, **changes})

    @property
    def struck(self) -> int:
        """How many answers were struck since the mode was set."""
        return int(self._told(None)["struck"])

    def _told(self, order: dict[str, Any] | None) -> dict[str, Any]:
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(json.dumps(order).encode() + b"\n")
        stdin.flush()
        return self._heard()

    def _heard(self) -> dict[str, Any]:
        stdout: IO[bytes] | None = self._process.stdout
        assert stdout is not None
        answer = json.loads(stdout.readline() or b'{"wrong": "the proxy has died"}')
        assert "wrong" not in answer, answer["wrong"]
        return dict(answer)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait(5)
        self._process.stdout.close()


class Server:
    """The proxy as it runs."""

    def __init__(self, server_port: int) -> None:
        self.mode = Mode()
        self.struck = 0
        self._changed = asyncio.Event()
        self._to_port = server_port
        self._port = 0
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._answers = 0

    async def listen(self) -> int:
        """Listen, always on the same port; which it is."""
        if self._listener is None:
            self._listener = await asyncio.start_server(
                self._serve, HOST, self._port, limit=LIMIT_BYTES, backlog=1024
            )
            self._port = self._listener.sockets[0].getsockname()[1]
        return self._port

    async def turn(self, mode: Mode) -> None:
        """Change the mode."""
        self.mode, self.struck = mode, 0
        self._changed.set()
        self._changed = asyncio.Event()
        if mode.kind != "refuse":
            await self.listen()
        elif self._listener is not None:
            self._listener.close()
            self._listener = None
            self.struck = len(self._writers)
            for writer in list(self._writers):
                _reset(writer)

    # ------------------------------------------------------------------------------ one client

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        behind: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                request = await _request(reader)
                self._answers += 1
                if self.mode.kind == "status" and self._answers % self.mode.every == 0:
                    self.struck += 1
                    writer.write(_refusal(self.mode))
                    continue
                if behind is None or behind[0].at_eof():
                    behind = await asyncio.open_connection(HOST, self._to_port, limit=LIMIT_BYTES)
                behind[1].write(request)
                await self._until_gone(Answer(self, writer, self._answers).relay(behind[0]), reader)
        except (OSError, EOFError, asyncio.LimitOverrunError):
            _reset(writer)
        finally:
            self._writers.discard(writer)
            for each in (writer, *(() if behind is None else behind[1:])):
                each.close()

    async def _until_gone(self, relay: Any, reader: asyncio.StreamReader) -> None:
        """Relay an answer; EOFError when the client leaves meanwhile, which the server is to see too."""
        task = asyncio.ensure_future(relay)
        try:
            while not task.done():
                await asyncio.wait([task], timeout=LOOK_EVERY_S)
                if not task.done() and (reader.at_eof() or reader.exception() is not None):
                    raise EOFError("the client left")
            await task
        finally:
            task.cancel()

    async def change(self, within_s: float | None = None) -> None:
        """Return when the mode changes, or the time is over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), within_s)


class Answer:
    """One answer on its way from the server to a client."""

    def __init__(self, server: Server, writer: asyncio.StreamWriter, number: int) -> None:
        self._server = server
        self._writer = writer
        self._number = number
        self._passed = 0
        self._counted = False
        self._done_once = False
        self._held: list[bytes] = []

    @property
    def _mode(self) -> Mode:
        mode = self._server.mode
        is_struck = self._number % mode.every == 0 and self._passed >= mode.after
        return mode if is_struck else Mode()

    async def relay(self, source: asyncio.StreamReader) -> None:
        """Take it from the server as it comes and hand it on as the mode says."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes, bool] | BaseException | None] = asyncio.Queue()

        async def pump() -> None:
            try:
                async for piece, is_event in _pieces(source):
                    queue.put_nowait((loop.time(), piece, is_event))
                queue.put_nowait(None)
            except (OSError, EOFError) as error:
                queue.put_nowait(error)

        pumping = asyncio.ensure_future(pump())
        try:
            while (item := await queue.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                at, piece, is_event = item
                if self._mode.kind == "slow":
                    self._strike()
                    await asyncio.sleep(at + self._mode.delay_s - loop.time())
                await self._hand_on(piece, is_event)
        finally:
            pumping.cancel()

    async def _hand_on(self, piece: bytes, is_event: bool) -> None:
        while self._mode.kind == "stall":
            self._strike()
            await self._server.change()
        if self._mode.kind == "cut":
            self._strike()
            if self._mode.how == "reset":
                _reset(self._writer)
            raise EOFError("cut")
        if not is_event:
            await self._write(b"".join([*self._freed(), piece]))
            return
        events = self._as_struck(piece)
        if self._mode.kind == "glue":
            self._strike()
            self._held += events
            events = self._freed() if len(self._held) >= self._mode.count else []
        else:
            events = [*self._freed(), *(_chunk(event) for event in events)]
        self._passed += 1
        if events:
            await self._write(b"".join(events))

    def _freed(self) -> list[bytes]:
        """What was held back to be glued, in one chunk."""
        held, self._held = self._held, []
        return [_chunk(b"".join(held))] if held else []

    def _as_struck(self, event: bytes) -> list[bytes]:
        """The events that come in the place of one; what strikes an event strikes one of an answer."""
        kind = self._mode.kind
        if kind == "no_done" and event.startswith(DONE):
            self._strike()
            return []
        if kind == "split":
            return [event.replace(b'"text":"', '"text":"☃'.encode())]
        if event.startswith(DONE) or self._done_once or kind not in ("twice", "corrupt", "bad_frame"):
            return [event]
        self._done_once = True
        self._strike()
        if kind == "twice":
            return [event, event]
        if kind == "corrupt":
            middle = len(event) // 2
            return [event[:middle] + b"\xff\xfe" + event[middle + 2 :]]
        self._writer.write(b"what is this?\r\n")
        return []

    async def _write(self, data: bytes) -> None:
        """In pieces where the mode says so, and for as long as it does."""
        kind = self._mode.kind
        while data and self._mode.kind == kind and kind in ("split", "drip"):
            self._strike()
            size = self._mode.size if kind == "split" else 1
            self._writer.write(data[:size])
            data = data[size:]
            await self._writer.drain()
            if kind == "drip":
                await self._server.change(self._mode.delay_s)
            else:
                is_in_character = data[:1] and data[0] & 0xC0 == 0x80
                await asyncio.sleep(IN_CHARACTER_S if is_in_character else 0)
        self._writer.write(data)
        await self._writer.drain()

    def _strike(self) -> None:
        """Count this answer among those that were struck."""
        if not self._counted:
            self._counted = True
            self._server.struck += 1


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    return head + await reader.readexactly(_length(head))


async def _pieces(source: asyncio.StreamReader) -> AsyncIterator[tuple[bytes, bool]]:
    """The answer as (bytes, whether they are an event): the head, each event without its chunk's frame, the
    end; a body that is not chunked is one piece of bytes with its head."""
    head = await source.readuntil(b"\r\n\r\n")
    if b"chunked" not in head.lower():
        yield head + await source.readexactly(_length(head)), False
        return
    yield head, False
    rest = b""
    while size := int(await source.readuntil(b"\r\n"), 16):
        rest += (await source.readexactly(size + 2))[:-2]
        *events, rest = re.split(rb"(?<=\n\n)", rest)
        for event in events:
            yield event, True
    await source.readexactly(2)
    if rest:
        yield rest, True
    yield b"0\r\n\r\n", False


def _length(head: bytes) -> int:
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return int(found[1]) if found else 0


def _chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _refusal(mode: Mode) -> bytes:
    body = json.dumps({"error": {"message": "refused on the way", "code": mode.status}}).encode()
    retry = f"retry-after: {mode.retry_after_s}\r\n" if mode.retry_after_s is not None else ""
    head = f"HTTP/1.1 {mode.status} {HTTPStatus(mode.status).phrase}\r\n{retry}"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def main(server_port: int) -> None:
    """Until stdin ends: a mode (or null) a line in, what is so now a line out."""
    server = Server(server_port)
    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    _say({"port": await server.listen()})
    while line := await orders.readline():
        try:
            if (order := msgspec.json.decode(line, type=Mode | None)) is not None:
                await server.turn(order)
        except msgspec.MsgspecError as error:
            _say({"wrong": f"{error}; modes: {', '.join(get_args(Kind))}"})
        else:
            _say({"struck": server.struck})


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
