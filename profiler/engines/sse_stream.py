"""The answer to one request of :mod:`profiler.engines.sse_server`: chunks, usage, end, or misbehaviour."""

from __future__ import annotations

import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from profiler.engines.sse_server import Connection

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
CLOSING_HEAD = STREAM_HEAD.removesuffix(b"\r\n") + b"connection: close\r\n\r\n"

_encode = msgspec.json.Encoder().encode


class Stream:
    """The answer to one request.  ``arrived_ns`` is when its last byte was read (perf_counter_ns)."""

    def __init__(self, connection: Connection, request: dict[str, Any], *, chat: bool) -> None:
        options = request.get("stream_options") or {}
        self.arrived_ns = time.perf_counter_ns()
        self.chat = chat
        self.streaming = bool(request.get("stream", False))
        self.started = False
        self.ended = False
        self.beside: dict[str, Any] = {}  # what goes out with an answer in one piece, in its choice
        self.head = STREAM_HEAD
        self.chunked = True
        self.hangs_up = False  # closes the connection at the end, whatever the head said
        self.after_end = b""
        self._connection = connection
        self._usage_wanted = bool(options.get("include_usage", False))
        self._ids_wanted = bool(request.get("return_token_ids", False))
        self._frame = {
            "id": f"cmpl-{self.arrived_ns:x}",
            "object": ("chat.completion" if chat else "text_completion")
            + (".chunk" if chat and self.streaming else ""),
            "created": 0,
            "model": request.get("model"),
        }
        # All of a plain chunk but its text and ids is the same from one to the next: it is encoded once.
        self._before = b"data: " + _encode(self._frame)[:-1] + b',"choices":[{"index":0,"finish_reason":null,'
        self._before += b'"delta":{"content":' if chat else b'"text":'
        self._ids: list[int] = []
        self._texts: list[str] = []
        self._reason: str | None = None

    def tokens(self, ids: Sequence[int], text: str = "", finish_reason: str | None = None) -> None:
        """Send one chunk of output tokens now (or keep it, when the answer goes out in one piece)."""
        self._reason = finish_reason
        if not self.streaming:
            self._ids.extend(ids)
            self._texts.append(text)
        else:
            self.body(self.chunk(ids, text, finish_reason))

    def chunk(self, ids: Sequence[int], text: str = "", finish_reason: str | None = None) -> bytes:
        """The event of one chunk of a stream."""
        if finish_reason is not None:
            content = self._frame | {"choices": [self._choice(ids, text, finish_reason)]}
            return b"data: " + _encode(content) + b"\n\n"
        after = b"}" if self.chat else b""
        if self._ids_wanted:
            after += b',"token_ids":' + _encode(list(ids))
        return self._before + _encode(text) + after + b"}]}\n\n"

    def role(self) -> None:
        """Send what holds no token: a delta with the role, or an empty text."""
        if self.chat and self.streaming:
            choice = {"index": 0, "finish_reason": None, "delta": {"role": "assistant", "content": ""}}
            self.event(_encode(self._frame | {"choices": [choice]}))
        else:
            self.tokens([])

    def finish(
        self,
        reason: str | None = None,
        *,
        prompt_tokens: int,
        completion_tokens: int,
        cached_tokens: int | None = None,
    ) -> None:
        """End the answer: finish reason, usage where asked for, end mark.  Later calls do nothing.

        ``reason`` is None when the last chunk of tokens carried it; ``cached_tokens`` are those of the prompt
        that a prefix cache held, None where there is no cache.
        """
        if self.ended:
            return
        usage: dict[str, Any] = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        }
        if cached_tokens is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": cached_tokens}
        if not self.streaming:
            choice = self._choice(self._ids, "".join(self._texts), reason or self._reason) | self.beside
            self.ended = True
            self._connection.respond(200, self._frame | {"choices": [choice], "usage": usage})
            return
        if reason is not None:
            self.tokens([], finish_reason=reason)
        if self._usage_wanted:
            self.event(_encode(self._frame | {"choices": [], "usage": usage}))
        self.event(b"[DONE]")
        self.close()

    def event(self, data: bytes) -> None:
        """Send one event of this data."""
        self.body(b"data: " + data + b"\n\n")

    def body(self, body: bytes) -> None:
        """Send a piece of the response body, whatever it is."""
        self.wire(b"%x\r\n%b\r\n" % (len(body), body) if self.chunked else body)

    def wire(self, data: bytes) -> None:
        """Send bytes as they are; the response head goes out before the first, with them."""
        if self.ended:
            return
        self._connection.write(data if self.started else self.head + data)
        self.started = True

    def error(self, status: int, message: str, *, retry_after_s: int | None = None) -> None:
        """Report a failure: a status while nothing was sent, an error event afterwards."""
        content = {"error": {"message": message, "type": HTTPStatus(status).phrase, "code": status}}
        if self.ended:
            return
        if not self.started:
            self.ended = True
            self._connection.respond(status, content, retry_after_s=retry_after_s)
            return
        self.event(_encode(content))
        self.event(b"[DONE]")
        self.close()

    def close(self) -> None:
        """End the response in good HTTP order, whatever was said in it."""
        if self.ended:
            return
        self.wire((b"0\r\n\r\n" if self.chunked else b"") + self.after_end)
        self.ended = True
        if self.head == CLOSING_HEAD or self.hangs_up:
            self._connection.drop()

    def abort(self) -> None:
        """Drop the connection at once (the client sees a reset)."""
        self.ended = True
        self._connection.reset()

    def _choice(self, ids: Sequence[int], text: str, reason: str | None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason}
        if not self.chat:
            choice["text"] = text
        elif self.streaming:
            choice["delta"] = {"content": text}
        else:
            choice["message"] = {"role": "assistant", "content": text}
        if self._ids_wanted:
            choice["token_ids"] = list(ids)
        return choice
