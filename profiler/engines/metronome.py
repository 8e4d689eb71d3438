"""A server whose every emission is known to the microsecond: the truth a load generator is held against.

Each answer keeps to a plan made on its request's arrival (:mod:`profiler.engines.metronome_law`).  What is
kept of it, and had by :class:`profiler.engines.truth.Metronome`, is when the request arrived
(``perf_counter_ns`` right after the recv that completed it), when each chunk was due, and when it was
emitted: stamped just *before* its send, because over loopback the receiver runs inside that very call and may
have stamped the chunk before it returns.  A chunk that meets a full socket buffer counts as emitted when it
was handed over to wait there: that wait is the client's doing.

Raw sockets and epoll, one thread: a chunk costs little more than its send.  The process sleeps while the next
emission is far and spins through the last 1.5 ms before it, so that an idle server is as exact as a busy one.

``POST /v1/completions`` and ``/v1/chat/completions`` (SSE in chunked encoding, or one JSON object), ``GET
/v1/models``, ``/health``, ``/truth`` (NumPy's npz), ``DELETE /truth`` (forget all that was kept).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import itertools
import math
import os
import resource
import select
import signal
import socket
import stat
import sys
from array import array
from collections.abc import Callable, Iterator
from heapq import heappop, heappush, heapreplace
from time import perf_counter_ns
from typing import Any

import msgspec

from profiler.engines.metronome_law import POOL, Plans, Settings, parse
from profiler.engines.metronome_wire import (
    Ask,
    decode_ask,
    in_one_piece,
    json_answer,
    refusal,
    stream_pieces,
    whole,
)
from profiler.errors import InputError

API_KEY_VARIABLE = "PROFILER_API_KEY"
SPIN_NS = 1_500_000
EMISSIONS_A_POLL = 8
EVENTS_A_POLL = 8
RECV_BYTES = 1 << 18


# ---------------------------------------------------------------------------------- one answer


class _Answer:
    """One request under way: its plan, what it sends, and when it did."""

    __slots__ = ("_ends", "_middle", "arrived_ns", "connection", "due_ns", "emitted_ns", "number")

    def __init__(self, connection: _Connection, number: int, arrived_ns: int, due_ns: array[int]) -> None:
        self.connection = connection
        self.number = number
        self.arrived_ns = arrived_ns
        self.due_ns = due_ns
        self.emitted_ns = array("q")

    def prepare(self, model: str, ask: Ask, chat: bool, per_chunk: int, tokens: int) -> None:
        """Have all bytes ready before the first is due."""
        if ask.stream:
            self._middle, self._ends = stream_pieces(model, ask, chat, per_chunk, tokens)
        else:
            self.due_ns = self.due_ns[-1:]
            self._middle, self._ends = in_one_piece(model, ask, chat, tokens), {}

    def emit(self, now_ns: int) -> int:
        """Send the next chunk, stamped ``now_ns``; when the one after it is due, 0 after the last."""
        place = len(self.emitted_ns)
        self.emitted_ns.append(now_ns)
        self.connection.send(self._ends.get(place, self._middle))
        place += 1
        return self.due_ns[place] if place < len(self.due_ns) else 0


class _Kept:
    """The stamps of all answers that have ended, end to end in flat arrays."""

    def __init__(self) -> None:
        self.arrived_ns = array("q")
        self.chunks = array("q")
        self.emitted_ns = array("q")
        self.due_ns = array("q")

    def add(self, answer: _Answer) -> None:
        self.arrived_ns.append(answer.arrived_ns)
        self.chunks.append(len(answer.emitted_ns))
        self.emitted_ns.extend(answer.emitted_ns)
        self.due_ns.extend(answer.due_ns[: len(answer.emitted_ns)])

    def packed(self, under_way: Iterator[_Answer]) -> bytes:
        """Everything as npz, answers under way as far as they have come."""
        import numpy as np

        whole = _Kept()
        for name in vars(whole):
            getattr(whole, name).extend(getattr(self, name))
        for answer in under_way:
            whole.add(answer)
        file = io.BytesIO()
        columns: dict[str, Any] = {name: np.asarray(values) for name, values in vars(whole).items()}
        np.savez(file, **columns)
        return file.getvalue()


# ---------------------------------------------------------------------------------- the server


class _Connection:
    """One client: collects requests, sends what it is given and keeps what the socket would not take."""

    def __init__(self, server: _Server, sock: socket.socket) -> None:
        self.answer: _Answer | None = None
        self._server = server
        self._socket = sock
        self._input = bytearray()
        self._unsent = bytearray()
        self._last = False
        self.closed = False
        self._send = sock.send

    def send(self, data: bytes) -> None:
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the client has left: epoll says so too, and there the connection is closed
        if sent < len(data):
            self._unsent += data[sent:]
            self._server.watch(self._socket, select.EPOLLIN | select.EPOLLOUT)

    def ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            waiting, self._unsent = bytes(self._unsent), bytearray()
            self._server.watch(self._socket, select.EPOLLIN)
            self.send(waiting)
            self._hang_up_after_last()
        if events & ~select.EPOLLOUT:
            self._receive()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(RECV_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        now_ns = perf_counter_ns()
        if not data:
            self.close()
            return
        self._input += data
        if self.answer is None:
            self._next_request(now_ns)

    def _next_request(self, now_ns: int) -> None:
        """Answer the request at the beginning of the input, if all of it is there."""
        end = self._input.find(b"\r\n\r\n")
        if end < 0:
            return
        line, _, fields = bytes(self._input[:end]).lower().partition(b"\r\n")
        _, named, after = fields.partition(b"content-length:")
        length = int(after.split(b"\r\n", 1)[0]) if named else 0
        body_start = end + len(b"\r\n\r\n")
        if len(self._input) < body_start + length:
            if b"100-continue" in fields and len(self._input) == body_start:
                self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        body = bytes(self._input[body_start : body_start + length])
        del self._input[: body_start + length]
        self._last = b"connection: close" in fields
        method, path, *_ = line.decode("latin-1").split(" ")
        if self._server.lets_in(path, fields):
            self._server.request(self, method, path, body, now_ns)
        else:
            self.send(refusal(401, "Unauthorized", "wrong API key"))
        if self.answer is None:
            self.ended()

    def ended(self) -> None:
        """The last answer is out; what has come meanwhile is next."""
        self.answer = None
        self._hang_up_after_last()
        if self._input and not self._last:
            self._next_request(perf_counter_ns())

    def close(self) -> None:
        self.closed = True
        self.answer = None  # it points here: nobody collects cycles
        self._server.forget(self._socket)
        self._socket.close()

    def _hang_up_after_last(self) -> None:
        if self._last and self.answer is None and not self._unsent:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)


class _Server:
    """Everything in one loop: emit what is due, then see to the sockets, waiting no longer than may be."""

    def __init__(
        self, settings: Settings, model: str, listener: socket.socket, key: str | None = None
    ) -> None:
        self._model = model
        self._key = None if key is None else f"authorization: bearer {key.lower()}".encode()
        self._per_chunk = settings.tokens_per_chunk
        self._plans = Plans(settings)
        self._listener = listener
        self._numbers = itertools.count()
        self._due: list[tuple[int, int, _Answer]] = []
        self._kept = _Kept()
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._handle(listener.fileno(), self._accept)
        if stat.S_ISFIFO(os.fstat(0).st_mode):
            self._handle(0, _end_with_parent)

    def serve(self) -> None:
        """Until the process is told to end."""
        poll, handlers = self._epoll.poll, self._handlers
        while True:
            self._emit_due()
            for descriptor, events in poll(self._patience_s(), EVENTS_A_POLL):
                handler = handlers.get(descriptor)
                if handler is not None:
                    handler(events)

    def watch(self, sock: socket.socket, events: int) -> None:
        self._epoll.modify(sock.fileno(), events)

    def forget(self, sock: socket.socket) -> None:
        self._handlers.pop(sock.fileno(), None)

    def lets_in(self, path: str, fields: bytes) -> bool:
        """``fields``: the head of a request without its first line, in small letters."""
        return self._key is None or path == "/health" or self._key in fields.split(b"\r\n")

    def request(self, connection: _Connection, method: str, path: str, body: bytes, arrived_ns: int) -> None:
        """Answer one request, either at once or as its plan wants it."""
        if method == "post" and path in ("/v1/completions", "/v1/chat/completions"):
            self._start(connection, "chat" in path, body, arrived_ns)
        elif (method, path) == ("get", "/health"):
            connection.send(json_answer(200, {"status": "ok"}))
        elif (method, path) == ("get", "/v1/models"):
            models = [{"id": self._model, "object": "model"}]
            connection.send(json_answer(200, {"object": "list", "data": models}))
        elif (method, path) == ("get", "/truth"):
            packed = self._kept.packed(answer for _, _, answer in self._due)
            connection.send(whole(200, "OK", "application/octet-stream", packed))
        elif (method, path) == ("delete", "/truth"):
            self._kept = _Kept()
            connection.send(json_answer(200, {}))
        else:
            connection.send(refusal(404, "Not Found", f"no such path: {method.upper()} {path}"))

    def _start(self, connection: _Connection, chat: bool, body: bytes, arrived_ns: int) -> None:
        try:
            ask = decode_ask(body)
            tokens = ask.max_completion_tokens or ask.max_tokens or 16
            chunks = math.ceil(tokens / self._per_chunk)
            if ask.model not in (None, self._model) or chunks > POOL:
                what = f"the model is {self._model!r}, and an answer has at most {POOL} chunks"
                connection.send(refusal(400, "Bad Request", what))
                return
            number = next(self._numbers)
            due_ns = self._plans.due_ns(number, chunks, arrived_ns)
            answer = _Answer(connection, number, arrived_ns, due_ns)
            answer.prepare(self._model, ask, chat, self._per_chunk, tokens)
        except msgspec.MsgspecError as error:
            connection.send(refusal(400, "Bad Request", str(error)))
            return
        connection.answer = answer
        heappush(self._due, (answer.due_ns[0], number, answer))

    def _emit_due(self) -> None:
        """Emit what is due, not so much of it that arrivals would wait."""
        due = self._due
        for _ in range(EMISSIONS_A_POLL):
            now_ns = perf_counter_ns()
            if not due or due[0][0] > now_ns:
                return
            answer = due[0][2]
            next_ns = 0 if answer.connection.closed else answer.emit(now_ns)
            if next_ns:
                heapreplace(due, (next_ns, answer.number, answer))
            else:
                heappop(due)
                self._kept.add(answer)
                if not answer.connection.closed:
                    answer.connection.ended()

    def _patience_s(self) -> float | None:
        """How long epoll, whose clock is in whole milliseconds rounded up, may wait."""
        if not self._due:
            return None
        return max(0, self._due[0][0] - perf_counter_ns() - SPIN_NS) / 1e9

    def _accept(self, _events: int) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._listener.accept()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._handle(sock.fileno(), _Connection(self, sock).ready)

    def _handle(self, descriptor: int, handler: Callable[[int], None]) -> None:
        self._handlers[descriptor] = handler
        self._epoll.register(descriptor, select.EPOLLIN)


def _end_with_parent(_events: int) -> None:
    if not os.read(0, 1 << 12):
        os._exit(0)


# ---------------------------------------------------------------------------------- the process


def command(
    settings: Settings, *, model: str = "metronome", port: int = 0, core: int | None = None
) -> list[str]:
    """The command line of a metronome; it prints ``listening PORT`` once it serves.

    It asks for the key in the environment variable ``PROFILER_API_KEY``, if there is one.  Where its standard
    input is a pipe it ends when that is closed: it outlives no parent.
    """
    pinned = [] if core is None else ["--core", str(core)]
    module = [sys.executable, "-m", "profiler.engines.metronome", *pinned]
    law = msgspec.json.encode(settings).decode()
    return [*module, "--port", str(port), "--model", model, "--settings", law]


def main(argv: list[str] | None = None) -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(
        prog="python -m profiler.engines.metronome", description="A server of exactly known emissions."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one; the choice is printed")
    parser.add_argument("--model", default="metronome", help="the name it serves")
    parser.add_argument("--core", type=int, help="the only core it runs on")
    parser.add_argument("--settings", default="{}", help='JSON, such as {"ttft_s": 0.1, "itl_s": 0.02}')
    options = parser.parse_args(argv)
    try:
        settings = parse(options.settings)
    except InputError as error:
        parser.error(str(error))
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _allow_many_sockets()
    with socket.create_server((options.host, options.port), backlog=4096) as listener:
        listener.setblocking(False)
        server = _Server(settings, options.model, listener, os.environ.get(API_KEY_VARIABLE))
        try:
            print(f"listening {listener.getsockname()[1]}", flush=True)  # noqa: T201 (whoever started us waits)
        except BrokenPipeError:  # it was killed meanwhile
            return
        gc.freeze()
        gc.disable()
        server.serve()


def _allow_many_sockets() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
