"""What the metronome reads of a request, and every byte it answers with, encoded before it is due."""

from __future__ import annotations

import functools
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
ANY_ID = 7  # every output token has it


class _Options(Struct):
    include_usage: bool = False


class _Message(Struct):
    content: str | list[Any] | None = None


class Ask(Struct):
    """What of a request's body matters here; the prompt is left undecoded, it may be long."""

    model: str | None = None
    prompt: Raw = Raw(b"[]")
    messages: Raw = Raw(b"[]")
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    stream: bool = False
    stream_options: _Options | None = None
    return_token_ids: bool | None = None

    def input_tokens(self, chat: bool) -> int:
        """Ids are counted; of texts the blanks between words."""
        if chat:
            messages = msgspec.json.decode(self.messages, type=list[_Message])
            return sum(str(message.content).count(" ") + 1 for message in messages)
        prompt = bytes(self.prompt)
        if prompt[:1] == b'"':
            return prompt.count(b" ") + 1
        return prompt.count(b",") + 1 if len(prompt) > len(b"[]") else 0


decode_ask = msgspec.json.Decoder(Ask).decode


def _piece(content: bytes) -> bytes:
    """One SSE event as one chunk of the chunked encoding."""
    event = b"data: " + content + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


END = _piece(b"[DONE]") + b"0\r\n\r\n"


def _frame(model: str, chat: bool, stream: bool) -> dict[str, Any]:
    kind = "text_completion" if not chat else "chat.completion.chunk" if stream else "chat.completion"
    return {"id": "cmpl-metronome", "object": kind, "created": 0, "model": model}


def _choice(chat: bool, stream: bool, ids: int | None, tokens: int, last: bool) -> dict[str, Any]:
    """A choice of this many tokens; ``ids`` is the id they all have, None where ids are not wanted."""
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": "length" if last else None}
    text = " tok" * tokens
    if not chat:
        choice["text"] = text
    elif stream:
        choice["delta"] = {"content": text}
    else:
        choice["message"] = {"role": "assistant", "content": text}
    return choice if ids is None else choice | {"token_ids": [ids] * tokens}


@functools.lru_cache(maxsize=256)
def _tokens_piece(model: str, chat: bool, ids: int | None, tokens: int, last: bool) -> bytes:
    choice = _choice(chat, True, ids, tokens, last)
    return _piece(msgspec.json.encode(_frame(model, chat, True) | {"choices": [choice]}))


def stream_pieces(
    model: str, ask: Ask, chat: bool, per_chunk: int, tokens: int
) -> tuple[bytes, dict[int, bytes]]:
    """The chunk that repeats, and those at other places: the first with the head, the last with the end."""
    ids = ANY_ID if ask.return_token_ids else None
    final = (tokens - 1) // per_chunk
    last = _tokens_piece(model, chat, ids, tokens - final * per_chunk, True)
    if ask.stream_options is not None and ask.stream_options.include_usage:
        content = _frame(model, chat, True) | {"choices": [], "usage": _usage(ask, chat, tokens)}
        last += _piece(msgspec.json.encode(content))
    last += END
    middle = _tokens_piece(model, chat, ids, per_chunk, False)
    if not final:
        return middle, {0: SSE_HEAD + last}
    return middle, {0: SSE_HEAD + middle, final: last}


def in_one_piece(model: str, ask: Ask, chat: bool, tokens: int) -> bytes:
    """The answer to a request that did not ask for a stream."""
    choice = _choice(chat, False, ANY_ID if ask.return_token_ids else None, tokens, True)
    usage = _usage(ask, chat, tokens)
    return json_answer(200, _frame(model, chat, False) | {"choices": [choice], "usage": usage})


def _usage(ask: Ask, chat: bool, tokens: int) -> dict[str, int]:
    inputs = ask.input_tokens(chat)
    return {"prompt_tokens": inputs, "completion_tokens": tokens, "total_tokens": inputs + tokens}


def json_answer(status: int, content: Any, reason: str = "OK") -> bytes:
    return whole(status, reason, "application/json", msgspec.json.encode(content))


def whole(status: int, reason: str, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def refusal(status: int, reason: str, message: str) -> bytes:
    return json_answer(status, {"error": {"message": message, "type": reason, "code": status}}, reason)
