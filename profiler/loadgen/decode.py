"""Raw pieces → RequestRecord.  Runs after the window; the only place that knows what chunks mean.

A chunk that lists ``token_ids`` is one arrival of that many tokens.  Without ids, a text or delta with
content (or ``reasoning``/``reasoning_content``) is one arrival of one token; role-only and usage-only
chunks are none.  An event belongs to the instant at which its last byte arrived.

Such pieces are not tokens (a server may put several tokens into one): the number of tokens is that of
the ids, else what ``usage`` says, and a whole answer with neither is malformed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from profiler import secret
from profiler.loadgen.exchange import Exchange
from profiler.loadgen.sse import MAX_EVENT_BYTES, SseParser, TooLongError
from profiler.schema import Endpoint, Outcome, RequestRecord

ERROR_CHARS = 300
PLAIN_START, PLAIN_END = b"data: ", b"\n\n"
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
Count = Annotated[int, Meta(ge=0, le=1 << 53)]  # more is no count, and no column of a file would hold it
NO_COUNT = "no token count: the answer has neither token ids nor usage"


class _Delta(Struct, gc=False):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: Any = None


class _Choice(Struct, gc=False):
    text: str | None = None
    token_ids: list[int] | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _PromptDetails(Struct):
    cached_tokens: Count | None = None


class _Usage(Struct):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Chunk(Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None


class _Trouble(Struct):
    """What a chunk says that speaks of an error, if it does; vLLM of old said it without an ``error``."""

    error: Any = None
    object: Any = None


_decoder = msgspec.json.Decoder(_Chunk)
_trouble_decoder = msgspec.json.Decoder(_Trouble)


class Answer:
    """What a stream said so far.  Feed it pieces with their stamps."""

    def __init__(self) -> None:
        self.arrivals_ns: list[int] = []
        self.arrival_tokens: list[int] = []
        self.has_ids = False
        self.finish_reason: str | None = None
        self.ended = False
        self.usage: _Usage | None = None
        self.error: str | None = None
        self.malformed: str | None = None
        self.too_long = False
        self.events = 0
        self._parser = SseParser()

    def feed(self, stamp_ns: int, piece: bytes) -> None:
        if self.too_long:
            return
        try:
            for name, data in self._parser.feed(piece):
                self._event(stamp_ns, name, data)
        except TooLongError as error:
            self.too_long = True
            self.malformed = self.malformed or str(error)

    def take_plain(self, stamps: Sequence[int], pieces: Sequence[bytes]) -> bool:
        """A short way for a whole body as nearly all servers send it: events of one ``data`` line each, LF
        ends, nothing else.  False, and nothing done, where the body is not like that."""
        text = b"".join(pieces)
        if not (text.startswith(PLAIN_START) and text.endswith(PLAIN_END)) or b"\r" in text:
            return False
        events = text[len(PLAIN_START) : -len(PLAIN_END)].split(PLAIN_END + PLAIN_START)
        if text.count(b"\n") != len(PLAIN_END) * len(events) or max(map(len, events)) > MAX_EVENT_BYTES:
            return False
        place, piece_end, event_end = 0, len(pieces[0]), 0
        for data in events:
            event_end += len(PLAIN_START) + len(data) + len(PLAIN_END)
            while piece_end < event_end:
                place += 1
                piece_end += len(pieces[place])
            self._event(stamps[place], b"", data)
        return True

    def close(self, stamp_ns: int) -> None:
        """The body ended in good order at this time."""
        if self.too_long:
            return
        for name, data in self._parser.close():
            self._event(stamp_ns, name, data)

    @property
    def tokens(self) -> int:
        return sum(self.arrival_tokens)

    @property
    def counted(self) -> int | None:
        """Output tokens by ids, else by usage; None where the server gives neither."""
        if self.has_ids:
            return self.tokens
        return self.usage.completion_tokens if self.usage else None

    def _event(self, stamp_ns: int, name: bytes, data: bytes) -> None:
        self.events += 1
        if data == b"[DONE]":
            self.ended = True
            return
        try:
            if not data.isascii():
                data.decode()  # the decoder skips what it does not look at, whatever bytes these are
            chunk = _decoder.decode(data)
        except UNREADABLE as error:
            self.malformed = self.malformed or f"{error}: {_clip(data)}"
            return
        if name == b"error" or (b"error" in data and _speaks_of_error(data)):
            self.error = self.error or _clip(data)
        if chunk.usage is not None:
            self.usage = chunk.usage
        if chunk.choices:
            for choice in chunk.choices:
                self._choice(stamp_ns, choice)

    def _choice(self, stamp_ns: int, choice: _Choice) -> None:
        if choice.finish_reason is not None:
            self.finish_reason = choice.finish_reason
        if choice.token_ids is not None:
            self.has_ids = True
            tokens = len(choice.token_ids)
        else:
            tokens = 0 if self.has_ids else int(_says_something(choice))
        if tokens:
            self.arrivals_ns.append(stamp_ns)
            self.arrival_tokens.append(tokens)


def decode(exchange: Exchange, endpoint: Endpoint, window: int) -> RequestRecord:
    """The record of one finished exchange; never raises on what a server sent."""
    answer = read(exchange)
    planned = exchange.planned
    usage = answer.usage or _Usage()
    details = usage.prompt_tokens_details
    outcome, error = judge(exchange, answer, endpoint)
    exact = endpoint.prompt == "ids" and endpoint.protocol == "completions"
    return RequestRecord(
        window=window,
        index=planned.index,
        due_ns=exchange.due_ns,
        sent_ns=exchange.sent_ns,
        first_ns=answer.arrivals_ns[0] if answer.arrivals_ns else None,
        last_ns=answer.arrivals_ns[-1] if answer.arrivals_ns else None,
        done_ns=exchange.end_ns,
        planned_input_tokens=planned.input_tokens,
        planned_output_tokens=planned.output_tokens,
        input_tokens=planned.input_tokens if exact else usage.prompt_tokens,
        output_tokens=_output_tokens(answer, error),
        reported_input_tokens=usage.prompt_tokens,
        reported_output_tokens=usage.completion_tokens,
        arrivals_ns=answer.arrivals_ns,
        arrival_tokens=answer.arrival_tokens,
        outcome=outcome,
        error=secret.without(error, (endpoint.api_key,)) if error else None,
        status=exchange.status,
        cached_tokens=details.cached_tokens if details is not None else None,
        share=planned.share,
        turn=planned.turn,
    )


def answer_of(exchange: Exchange, endpoint: Endpoint) -> list[int] | str:
    """What the server answered, for the next turn of a conversation: token ids where prompts travel as ids
    and the stream lists them, else the text (of a chat, what is said aloud: reasoning is not)."""
    ids: list[int] = []
    texts: list[str] = []
    for data in _events(exchange.pieces):
        for choice in _choices(data):
            ids += choice.token_ids or ()
            texts.append((choice.delta.content if choice.delta is not None else choice.text) or "")
    exact = endpoint.prompt == "ids" and endpoint.protocol == "completions"
    return ids if exact and ids else "".join(texts)


def _events(pieces: Sequence[bytes]) -> list[bytes]:
    parser = SseParser()
    try:
        return [data for _, data in parser.feed(b"".join(pieces)) + parser.close()]
    except TooLongError:
        return []


def _choices(data: bytes) -> list[_Choice]:
    try:
        return _decoder.decode(data).choices or []
    except UNREADABLE:
        return []  # the end mark among them


def _output_tokens(answer: Answer, error: str | None) -> int:
    """The count; of an answer that was cut off before its ``usage`` the pieces, which is a lower bound."""
    if error == NO_COUNT:
        return 0
    counted = answer.counted
    return answer.tokens if counted is None else counted


def read(exchange: Exchange) -> Answer:
    """Parse the pieces of an exchange; a body that was refused (status not 200) holds no tokens."""
    answer = Answer()
    if exchange.status != 200:
        return answer
    if answer.take_plain(exchange.stamps, exchange.pieces):
        return answer
    for stamp_ns, piece in zip(exchange.stamps, exchange.pieces, strict=True):
        answer.feed(stamp_ns, piece)
    if exchange.failure is None and exchange.stamps:
        answer.close(exchange.stamps[-1])
    return answer


def judge(exchange: Exchange, answer: Answer, endpoint: Endpoint) -> tuple[Outcome, str | None]:
    """Name the outcome.  What the server said counts before what the connection did afterwards."""
    if exchange.status is not None and exchange.status != 200:
        body = secret.without(_clip(b"".join(exchange.pieces)), (endpoint.api_key,))
        wait_s = exchange.retry_after_s
        wait = None if wait_s is None else f"asks to wait {wait_s:g} s (Retry-After)"
        said = filter(None, [body, exchange.error, wait])
        return "http_error", f"HTTP {exchange.status}: {'; '.join(said) or 'no text'}"
    if answer.error is not None:
        return "stream_error", answer.error
    if exchange.failure is not None:
        return exchange.failure, exchange.error
    return _judge_content(exchange, answer, endpoint)


def _judge_content(exchange: Exchange, answer: Answer, endpoint: Endpoint) -> tuple[Outcome, str | None]:
    if answer.malformed is not None:
        return "malformed", answer.malformed
    if not answer.events and any(piece.strip() for piece in exchange.pieces):
        return "malformed", f"not an event stream: {exchange.error or _clip(b''.join(exchange.pieces))}"
    if not answer.arrivals_ns:
        return "empty", "the answer held no tokens"
    if answer.finish_reason is None or not answer.ended:
        missing = "finish reason" if answer.finish_reason is None else "[DONE]"
        return "no_end", f"the stream ended without its {missing}"
    return _judge_length(answer, exchange.planned.output_tokens, endpoint)


def _judge_length(answer: Answer, wanted: int, endpoint: Endpoint) -> tuple[Outcome, str | None]:
    got = answer.counted
    if got is None:
        return "malformed", NO_COUNT
    if got == wanted:
        return "ok", None
    if got > wanted:
        return "malformed", f"{got} tokens came, {wanted} were asked for"
    may_stop = endpoint.prompt == "text" or not endpoint.ignores_eos
    if may_stop and answer.finish_reason == "stop":
        return "ok", None
    return "short", f"{got} of {wanted} tokens, finish reason {answer.finish_reason!r}"


def _says_something(choice: _Choice) -> bool:
    delta = choice.delta
    if delta is None:
        return bool(choice.text)
    return bool(delta.content or delta.reasoning or delta.reasoning_content or delta.tool_calls)


def _speaks_of_error(data: bytes) -> bool:
    try:
        said = _trouble_decoder.decode(data)
    except UNREADABLE:
        return False  # an array, or whatever else is no chunk
    return bool(said.error) or said.object == "error"


def _clip(data: bytes) -> str:
    return " ".join(data.decode(errors="replace").split())[:ERROR_CHARS]
