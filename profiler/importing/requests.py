"""Requests as other tools keep them → RequestRecords, and how their failures are called here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from profiler.schema import Outcome, RequestRecord

S = 1_000_000_000
MAX_ERROR = 200
MAX_SPAN_S = 365 * 86_400.0
MAX_TOKENS = 1 << 22
ROUNDING_S = 1e-5  # of seconds since 1970 added up
NOT_STREAMED = "its answers were not streamed: no times of tokens, its summary is taken"
# In this order; what tools write of a failure is an exception's text, or the HTTP reason phrase alone.
SIGNS: tuple[tuple[str, Outcome], ...] = (
    (r"first token.*time|TTFT.*timeout", "first_token_timeout"),
    (r"connect\w*timeout", "connect_timeout"),
    (r"timeout|timed out", "total_timeout"),
    (r"connect\w*error.*refused|cannot connect|ConnectError|connection refused", "connect_error"),
    (r"reset by peer|payload is not completed|ReadError|RemoteProtocolError|disconnected", "reset"),
    (r"JSONDecodeError|not valid JSON", "malformed"),
    (r"never received a valid chunk|no (valid )?(content|tokens)|InvalidInferenceResult", "empty"),
)
STATUS = re.compile(r"\b(?:error|status|code)\W{1,3}([45]\d\d)\b", re.IGNORECASE)


class DamagedError(ValueError):
    """What is told of a request cannot be."""


class Told(Struct, frozen=True, kw_only=True):
    """One request as a tool tells it; seconds on its own clock.

    ``tokens``: times at which output came, one piece each; ``due`` None: the tool knows no more than
    ``sent``.  ``ends``: when the first and the last token came, where nothing between them was kept: they are
    taken as evenly spread.
    """

    sent: float
    due: float | None = None
    tokens: Sequence[float] = ()
    ends: tuple[float, float] | None = None
    done: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    asked_input_tokens: int | None = None
    error: str | None = None
    status: int | None = None
    cancelled: bool = False


def records(told: Sequence[Told]) -> tuple[RequestRecord, ...]:
    """In the order in which they were due, times counted from the earliest.

    Raises DamagedError for times that run backwards or over a year, and numbers of tokens that nobody sends.
    """
    if not told:
        return ()
    zero = min(_due(each) for each in told)
    for number, each in enumerate(told, 1):
        if wrong := _wrong(each, zero):
            raise DamagedError(f"request {number}: {wrong}")
    ordered = sorted(told, key=lambda each: (_due(each), each.sent))
    return tuple(_record(index, each, zero) for index, each in enumerate(ordered))


def streamed(told: Sequence[Told]) -> bool:
    """Whether the times of tokens were kept, of those that were answered."""
    answered = [each for each in told if each.error is None and not each.cancelled]
    return not answered or any(each.tokens or each.ends for each in answered)


def _due(told: Told) -> float:
    """A tool that sends before its own schedule wants it (rounding) wanted it then."""
    return told.sent if told.due is None else min(told.due, told.sent)


def _wrong(told: Told, zero: float) -> str | None:
    """Why a request cannot have been; NaN fails every comparison."""
    times = (_due(told), told.sent, *told.tokens, *(told.ends or ()))
    ended = told.sent if told.done is None else told.done
    if not all(0 <= each - zero <= MAX_SPAN_S for each in (*times, ended)):
        return "its times are no times of one run"
    if any(later < earlier - ROUNDING_S for earlier, later in pairwise(times)):
        return "its times run backwards"
    counts = (told.input_tokens, told.output_tokens, told.asked_input_tokens)
    if not all(0 <= each <= MAX_TOKENS for each in counts if each is not None):
        return f"its tokens are not between 0 and {MAX_TOKENS:,}"
    return None


def _record(index: int, told: Told, zero: float) -> RequestRecord:
    def ns(seconds: float) -> int:
        return round((seconds - zero) * S)

    tokens = spread(*told.ends, told.output_tokens or 1) if told.ends else told.tokens
    arrivals = [ns(each) for each in tokens]
    output = len(arrivals) if told.output_tokens is None else told.output_tokens
    failed = told.error is not None or told.status is not None
    outcome, status = outcome_of(told.error, told.status) if failed else ("ok" if arrivals else "empty", None)
    done = told.done if told.done is not None else tokens[-1] if tokens else None
    return RequestRecord(
        window=0,
        index=index,
        due_ns=ns(_due(told)),
        sent_ns=ns(told.sent),
        first_ns=arrivals[0] if arrivals else None,
        last_ns=arrivals[-1] if arrivals else None,
        done_ns=None if done is None else ns(done),
        planned_input_tokens=_first(told.asked_input_tokens, told.input_tokens),
        planned_output_tokens=output,
        input_tokens=told.input_tokens,
        output_tokens=output,
        reported_input_tokens=None,
        reported_output_tokens=None,
        arrivals_ns=arrivals,
        arrival_tokens=[1] * len(arrivals),
        outcome="cancelled" if told.cancelled else outcome,
        error=_line(told.error),
        status=status,
    )


def _first(*values: int | None) -> int:
    return next((each for each in values if each is not None), 0)


def _line(error: str | None) -> str | None:
    """The last line of a traceback says what happened."""
    lines = [line.strip() for line in (error or "").splitlines() if line.strip()]
    return lines[-1][:MAX_ERROR].encode(errors="replace").decode() if lines else None


def outcome_of(error: str | None, status: int | None) -> tuple[Outcome, int | None]:
    """What we call a failure, and the HTTP status in it."""
    from http import HTTPStatus

    text = error or ""
    phrases = {each.phrase: each.value for each in HTTPStatus if each.value >= 400}
    found = STATUS.search(text)
    status = status or phrases.get(text.strip()) or (int(found[1]) if found and "reset" not in text else None)
    if status is not None:
        return "http_error", status
    for sign, outcome in SIGNS:
        if re.search(sign, text, re.IGNORECASE):
            return outcome, None
    return "failed", None


def spread(first: float, last: float, tokens: int) -> list[float]:
    """Times of tokens of which only the first's and the last's is known, evenly between."""
    if tokens < 2 or last <= first:
        return [first] * min(tokens, 1) or [first]
    step = (last - first) / (tokens - 1)
    return [*(first + step * number for number in range(tokens - 1)), last]


def alike(values: Sequence[int | None]) -> int | None:
    """The one value they all have, None where they differ."""
    same = bool(values) and all(a == b for a, b in pairwise(values))
    return values[0] if same else None
