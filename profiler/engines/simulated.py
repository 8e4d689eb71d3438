"""A server with a known latency law: the ground truth the profiler is tested with, and a user's set-up too.

For a request of ``n`` input and ``m`` output tokens, admitted while ``r`` requests run (itself included),
with independent jitters u, u_i uniform on [1 − jitter_frac, 1 + jitter_frac]::

    admission    at once while r ≤ max_running, else first come, first served
    first chunk  = admission + (ttft_s + prefill_s_per_token · n) · u
    chunk i + 1  = chunk i + itl_s · (1 + batch_slope · (r − 1)) · u_i
    chunks       = ⌈m / tokens_per_chunk⌉, the last one with the finish reason

Every chunk is due at an absolute instant computed from the last *due* instant, so that lateness of this
process never adds up.  The jitters are drawn from (seed, number of the request).

``law`` gives what a closed loop of constant lengths must measure.

Faults: ``{"kind": K, "every": n, "after_frac": f}`` strikes every n-th request after a fraction f of its
chunks (default one half; 0 is before the first): ``reset`` (TCP reset), ``hang`` (falls silent),
``http_500`` and ``http_429`` (at once), ``error_event`` (as vLLM reports an engine failure inside a
stream), ``empty`` (200 without tokens), ``malformed`` (an event that is no JSON), ``no_done`` (all tokens,
no end mark), ``exit`` (the process dies).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import os
import random
import sys
from collections import deque
from time import perf_counter_ns
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from profiler.alarm import Alarm
from profiler.engines.sse_server import App, HttpError, Stream, run
from profiler.errors import InputError, nearest

Span = Annotated[float, Meta(ge=0)]
FaultKind = Literal[
    "reset", "hang", "http_500", "http_429", "error_event", "empty", "malformed", "no_done", "exit"
]
REFUSALS = {"http_500": 500, "http_429": 429}
EXIT_CODE = 70
API_KEY_VARIABLE = "PROFILER_API_KEY"


class Fault(Struct, frozen=True, forbid_unknown_fields=True):
    """Every ``every``-th request fails in this way, after this fraction of its chunks."""

    kind: FaultKind
    every: Annotated[int, Meta(ge=1)] = 1
    after_frac: Annotated[float, Meta(ge=0, le=1)] = 0.5


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The law's constants; see the module's formulas."""

    ttft_s: Span = 0.1
    prefill_s_per_token: Span = 0.0
    itl_s: Span = 0.02
    jitter_frac: Annotated[float, Meta(ge=0, le=1)] = 0.0
    batch_slope: Span = 0.0
    max_running: Annotated[int, Meta(ge=1)] = 1024
    tokens_per_chunk: Annotated[int, Meta(ge=1)] = 1
    seed: Annotated[int, Meta(ge=0)] = 0
    faults: list[Fault] = field(default_factory=list)


class Law(Struct, frozen=True):
    """Expected means of a closed loop: time to first token, gap between chunks, and two rates."""

    ttft_s: float
    chunk_gap_s: float
    e2e_s: float
    requests_per_s: float
    output_tokens_per_s: float


def law(settings: Settings, *, concurrency: int, input_tokens: int, output_tokens: int) -> Law:
    """What ``concurrency`` slots asking for constant lengths must see, the network taking no time.

    With r = min(concurrency, max_running) running: service = first chunk + (chunks − 1) gaps, rate =
    r / service, and by Little's law a request is in the house for concurrency / rate, the rest of it
    waiting for admission.
    """
    running = min(concurrency, settings.max_running)
    chunks = math.ceil(output_tokens / settings.tokens_per_chunk)
    gap_s = settings.itl_s * (1 + settings.batch_slope * (running - 1))
    decode_s = gap_s * (chunks - 1)
    first_s = settings.ttft_s + settings.prefill_s_per_token * input_tokens
    rate = running / (first_s + decode_s)
    e2e_s = concurrency / rate
    return Law(e2e_s - decode_s, gap_s, e2e_s, rate, rate * output_tokens)


def parse(args: dict[str, Any]) -> Settings:
    """Settings from ``engine.args``; InputError names the key and what it wants."""
    known = Settings.__struct_fields__
    for key in args:
        if key not in known:
            raise InputError(
                f"engine.args.{key}: the simulated engine has no such setting{nearest(key, known)}"
            )
    try:
        return msgspec.convert(args, Settings)
    except msgspec.ValidationError as error:
        raise InputError(f"engine.args of the simulated engine: {error}") from None


def command(args: dict[str, Any], *, model: str = "simulated", port: int = 0) -> list[str]:
    """The command line of a simulated engine; it prints ``listening PORT`` once it serves.

    The API key, if any, is taken from the environment variable ``PROFILER_API_KEY``.
    """
    settings = msgspec.json.encode(parse(args)).decode()
    module = [sys.executable, "-m", "profiler.engines.simulated"]
    return [*module, "--port", str(port), "--model", model, "--settings", settings]


class Simulated(App):
    """Serves the law."""

    def __init__(self, settings: Settings, model: str) -> None:
        self.model = model
        self._settings = settings
        self._alarm = Alarm()
        self._numbers = itertools.count(1)
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def completions(self, request: dict[str, Any], stream: Stream) -> None:
        number = next(self._numbers)
        fault = next((fault for fault in self._settings.faults if number % fault.every == 0), None)
        if fault is not None and fault.kind in REFUSALS:
            raise HttpError(REFUSALS[fault.kind], "simulated refusal")
        admitted_ns = await self._admit(stream.arrived_ns)
        try:
            await self._speak(_Task(request, number, fault), stream, admitted_ns)
        finally:
            self._leave()

    async def _speak(self, task: _Task, stream: Stream, admitted_ns: int) -> None:
        """Send the chunks, each at its instant, until the fault strikes."""
        settings = self._settings
        per_chunk = settings.tokens_per_chunk
        chunks = math.ceil(task.output_tokens / per_chunk)
        strike_at = task.strike_at(chunks)
        law_rng = random.Random(f"{settings.seed}/{task.number}")  # noqa: S311 (reproducible on purpose)
        low, high = 1 - settings.jitter_frac, 1 + settings.jitter_frac
        first_s = settings.ttft_s + settings.prefill_s_per_token * task.input_tokens
        due_ns = admitted_ns + first_s * law_rng.uniform(low, high) * 1e9
        for chunk in range(chunks):
            await self._alarm.until(int(due_ns))
            if chunk == strike_at and await self._strike(task, stream):
                return
            start, end = chunk * per_chunk, min((chunk + 1) * per_chunk, task.output_tokens)
            stream.tokens(
                range(start, end), " tok" * (end - start), "length" if chunk == chunks - 1 else None
            )
            step_s = settings.itl_s * (1 + settings.batch_slope * (self._running - 1))
            due_ns += step_s * law_rng.uniform(low, high) * 1e9
        self._end(task, stream)

    async def _strike(self, task: _Task, stream: Stream) -> bool:
        """Make the fault happen; whether the answer is over with it."""
        assert task.fault is not None
        kind = task.fault.kind
        if kind == "exit":
            os._exit(EXIT_CODE)
        elif kind == "hang":
            await asyncio.Event().wait()
        elif kind == "reset":
            stream.abort()
        elif kind == "error_event":
            stream.error(500, "simulated engine failure")
        elif kind == "empty":
            stream.finish("stop", prompt_tokens=task.input_tokens, completion_tokens=0)
        elif kind == "malformed":
            stream.event(b'{"choices": [{"text": "cut')
        return stream.ended

    def _end(self, task: _Task, stream: Stream) -> None:
        if task.fault is not None and task.fault.kind == "no_done":
            stream.close()
        stream.finish(prompt_tokens=task.input_tokens, completion_tokens=task.output_tokens)

    async def _admit(self, arrived_ns: int) -> int:
        """Wait for a place among the running; the time it was had."""
        if self._running < self._settings.max_running:
            self._running += 1
            return arrived_ns
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise
        return perf_counter_ns()

    def _leave(self) -> None:
        """Hand the place on to the longest waiting, or free it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._running -= 1


class _Task:
    """What one request asks, and its fate."""

    def __init__(self, request: dict[str, Any], number: int, fault: Fault | None) -> None:
        self.number = number
        self.fault = fault
        self.input_tokens = _input_tokens(request)
        self.output_tokens = int(request.get("max_tokens") or 16)

    def strike_at(self, chunks: int) -> int | None:
        """The chunk in whose place the fault strikes."""
        if self.fault is None:
            return None
        return (
            0 if self.fault.kind == "empty" else min(chunks - 1, math.floor(chunks * self.fault.after_frac))
        )


def _input_tokens(request: dict[str, Any]) -> int:
    """Ids are counted; of texts the words."""
    if "messages" in request:
        return sum(len(str(message.get("content", "")).split()) for message in request["messages"])
    prompt = request.get("prompt", "")
    return len(prompt.split() if isinstance(prompt, str) else prompt)


def main(argv: list[str] | None = None) -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(
        prog="python -m profiler.engines.simulated", description="A simulated engine."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one; the choice is printed")
    parser.add_argument("--model", default="simulated", help="the name it serves")
    parser.add_argument("--settings", default="{}", help='JSON, such as {"ttft_s": 0.1, "itl_s": 0.02}')
    options = parser.parse_args(argv)
    settings = parse(msgspec.json.decode(options.settings, type=dict[str, Any]))
    key = os.environ.get(API_KEY_VARIABLE) or None
    run(Simulated(settings, options.model), host=options.host, port=options.port, api_key=key)


if __name__ == "__main__":
    main()
