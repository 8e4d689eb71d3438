"""A server with a known latency law: the ground truth the profiler is tested with, and a user's set-up too.

For a request of ``n`` input and ``m`` output tokens, admitted while ``r`` requests run (itself included),
with independent jitters u, u_i uniform on [1 − jitter_frac, 1 + jitter_frac]::

    admission    at once while r ≤ max_running, else first come, first served
    first chunk  = admission + (ttft_s + prefill_s_per_token · n) · u
    chunk i + 1  = chunk i + itl_s · (1 + batch_slope · (r − 1)) · u_i
    chunks       = ⌈m / tokens_per_chunk⌉, the last one with the finish reason

Every chunk is due at an absolute instant computed from the last *due* instant, so that lateness of this
process never adds up.  The jitters are drawn from (seed, number of the request).

With ``prefix_cache_block_tokens`` = k > 0 there is a prefix cache as vLLM's: of the whole blocks of k tokens
at the beginning of a prompt those seen before, in prompts and answers, count as cached and take no time
(at least one token of a prompt is always computed); ``usage`` and the metrics say how many.  Ids are
tokens, and so are the words of a text; an image is ``tokens_per_image`` of them.

``GET /metrics`` gives vLLM's names for the queue and the tokens so far.

Simulated GPU boards (:mod:`profiler.nvml`) are kept busy to the fraction
min(1, ``PREFILL_BUSY``·p + ``DECODE_BUSY``·d), with p requests admitted that wait for their first chunk and
d that had it; so below saturation a chunk takes a known energy.

``law`` gives what a closed loop of constant lengths must measure, without a cache.
:mod:`profiler.engines.faults` lists what can be made to go wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import os
import random
import sys
import time
from collections import deque
from collections.abc import Hashable, Iterator
from time import perf_counter_ns
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from profiler.alarm import Alarm
from profiler.engines.base import HERE
from profiler.engines.faults import Fate, Fault, ToldFaults, fault_of
from profiler.engines.sse_server import App, run
from profiler.engines.sse_stream import Stream
from profiler.errors import InputError, nearest
from profiler.nvml.load import LOAD_VARIABLE, LoadWriter

Span = Annotated[float, Meta(ge=0)]
API_KEY_VARIABLE = "PROFILER_API_KEY"
CACHE_BLOCKS = 1 << 18
WORD = " tok"
PREFILL_BUSY, DECODE_BUSY = 1 / 4, 1 / 32


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The law's constants (see the module's formulas), and what goes wrong.

    ``start_s``: how long it takes until it listens.  ``start_fault``: what goes wrong then: its process
    ends, or it listens and GET /health is refused, or never answered.  ``faults_file``: JSON, a list of
    faults as ``faults`` is, read anew whenever it changes; they come before ``faults``.  No file, no faults.
    """

    ttft_s: Span = 0.1
    prefill_s_per_token: Span = 0.0
    itl_s: Span = 0.02
    jitter_frac: Annotated[float, Meta(ge=0, le=1)] = 0.0
    batch_slope: Span = 0.0
    max_running: Annotated[int, Meta(ge=1)] = 1024
    tokens_per_chunk: Annotated[int, Meta(ge=1)] = 1
    seed: Annotated[int, Meta(ge=0)] = 0
    prefix_cache_block_tokens: Annotated[int, Meta(ge=0)] = 0
    tokens_per_image: Annotated[int, Meta(ge=0)] = 0
    start_s: Span = 0.0
    start_fault: Literal["exit", "unhealthy", "silent"] | None = None
    faults: list[Fault] = field(default_factory=list)
    faults_file: str | None = None


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


def command(args: dict[str, Any], *, model: str = "simulated", port: int = 0, host: str = HERE) -> list[str]:
    """The command line of a simulated engine; it prints ``listening PORT`` once it serves.

    The API key, if any, is taken from the environment variable ``PROFILER_API_KEY``.
    """
    settings = msgspec.json.encode(parse(args)).decode()
    module = [sys.executable, "-m", "profiler.engines.simulated"]
    return [*module, "--host", host, "--port", str(port), "--model", model, "--settings", settings]


class Simulated(App):
    """Serves the law."""

    def __init__(self, settings: Settings, model: str) -> None:
        self.model = model
        self._settings = settings
        self._alarm = Alarm()
        self._told = ToldFaults(settings.faults_file) if settings.faults_file else None
        self._numbers = itertools.count(1)
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        block_tokens = settings.prefix_cache_block_tokens
        self._cache = PrefixCache(block_tokens) if block_tokens else None
        self._prompt_tokens = 0
        self._sent_tokens = 0
        self.draw = Draw(os.environ.get(LOAD_VARIABLE))

    def health(self) -> int | None:
        return {"unhealthy": 500, "silent": None}.get(self._settings.start_fault or "", 200)

    def page(self, path: str) -> Any | None:
        return self._metrics() if path == "/metrics" else None

    async def completions(self, request: dict[str, Any], stream: Stream) -> None:
        number = next(self._numbers)
        prompt = _prompt(request, self._settings.tokens_per_image)
        wanted = int(request.get("max_tokens") or request.get("max_completion_tokens") or 16)
        fate = Fate(fault_of(self._faults(), number), len(prompt), wanted)
        fate.begin(stream)
        if stream.ended:
            return
        admitted_ns = await self._admit(stream.arrived_ns)
        task = _Task(number, prompt, self._cache)
        self.draw.change(prefilling=1)
        try:
            await self._speak(fate, task, stream, admitted_ns)
        finally:
            self.draw.change(prefilling=-(not task.has_spoken), decoding=-task.has_spoken)
            self._leave()

    def _faults(self) -> list[Fault]:
        told = self._told.now() if self._told is not None else []
        return [*told, *self._settings.faults]

    async def _speak(self, fate: Fate, task: _Task, stream: Stream, admitted_ns: int) -> None:
        """Send the chunks, each at its instant, until the fault strikes."""
        settings = self._settings
        per_chunk = settings.tokens_per_chunk
        chunks = math.ceil(fate.output_tokens / per_chunk)
        strike_at = fate.strike_at(chunks)
        law_rng = random.Random(f"{settings.seed}/{task.number}")  # noqa: S311 (reproducible on purpose)
        low, high = 1 - settings.jitter_frac, 1 + settings.jitter_frac
        computed = len(task.prompt) - (task.cached_tokens or 0)
        self._prompt_tokens += len(task.prompt)
        first_s = settings.ttft_s + settings.prefill_s_per_token * computed
        due_ns = admitted_ns + first_s * law_rng.uniform(low, high) * 1e9
        for chunk in range(chunks):
            await self._alarm.until(int(due_ns))
            if not task.has_spoken:
                task.has_spoken = True
                self.draw.change(prefilling=-1, decoding=1)
            ids = range(chunk * per_chunk, min((chunk + 1) * per_chunk, fate.output_tokens))
            said = ids, WORD * len(ids), fate.finish_reason if chunk == chunks - 1 else None
            if chunk != strike_at or await fate.strike(stream, stream.chunk(*said), settings.itl_s):
                stream.tokens(*said)
            if stream.ended:
                return
            self._sent_tokens += len(ids)
            step_s = settings.itl_s * (1 + settings.batch_slope * (self._running - 1))
            due_ns += step_s * law_rng.uniform(low, high) * 1e9
        if self._cache is not None:
            self._cache.add([*task.prompt, *task.said(fate.output_tokens)])
        fate.end(stream, task.cached_tokens)

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

    def _metrics(self) -> bytes:
        """Prometheus text exposition format 0.0.4, with the metrics of vLLM's that have a meaning here."""
        values = {
            "num_requests_running": ("gauge", self._running),
            "num_requests_waiting": ("gauge", sum(not turn.done() for turn in self._waiting)),
            "prompt_tokens_total": ("counter", self._prompt_tokens),
            "generation_tokens_total": ("counter", self._sent_tokens),
        }
        if self._cache is not None:
            values["prefix_cache_queries_total"] = ("counter", self._cache.asked_tokens)
            values["prefix_cache_hits_total"] = ("counter", self._cache.hit_tokens)
        lines = (
            f'# TYPE vllm:{name} {kind}\nvllm:{name}{{engine="0",model_name="{self.model}"}} {float(value)}\n'
            for name, (kind, value) in values.items()
        )
        return "".join(lines).encode()


class Draw:
    """What the engine takes of simulated boards, told through the file at ``path`` if there is one."""

    def __init__(self, path: str | None) -> None:
        self._writer = LoadWriter(path) if path else None
        self._prefilling = self._decoding = 0

    def change(self, prefilling: int = 0, decoding: int = 0) -> None:
        """So many requests more, or fewer."""
        self._prefilling += prefilling
        self._decoding += decoding
        if self._writer is not None:
            self._writer.tell(min(1.0, PREFILL_BUSY * self._prefilling + DECODE_BUSY * self._decoding))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class PrefixCache:
    """Which beginnings of prompts were seen, in whole blocks; the oldest blocks go first when it is full."""

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._blocks: dict[int, None] = {}
        self.asked_tokens = 0
        self.hit_tokens = 0

    def look_up(self, prompt: list[Hashable]) -> int:
        """How many tokens of the prompt are cached; from now on all its whole blocks are."""
        blocks = list(self._chain(prompt))
        known = next((i for i, block in enumerate(blocks) if block not in self._blocks), len(blocks))
        hit = min(known, max(0, len(prompt) - 1) // self._block_tokens) * self._block_tokens
        self.asked_tokens += len(prompt)
        self.hit_tokens += hit
        self.add(prompt)
        return hit

    def add(self, tokens: list[Hashable]) -> None:
        """These tokens were computed, one after another."""
        for block in self._chain(tokens):
            self._blocks.pop(block, None)
            self._blocks[block] = None
        while len(self._blocks) > CACHE_BLOCKS:
            del self._blocks[next(iter(self._blocks))]

    def _chain(self, tokens: list[Hashable]) -> Iterator[int]:
        """A number for each whole block that stands for it and all before it."""
        last = 0
        for end in range(self._block_tokens, len(tokens) + 1, self._block_tokens):
            last = hash((last, *tokens[end - self._block_tokens : end]))
            yield last


class _Task:
    """One request that was let in; ``cached_tokens`` is None without a prefix cache."""

    def __init__(self, number: int, prompt: list[Hashable], cache: PrefixCache | None) -> None:
        self.number = number
        self.prompt = prompt
        self.has_spoken = False
        self.cached_tokens = cache.look_up(prompt) if cache is not None else None

    def said(self, tokens: int) -> list[Hashable]:
        """The answer as it looks in a later prompt: ids, or the words of its text."""
        as_ids = not self.prompt or isinstance(self.prompt[0], int)
        return list(range(tokens)) if as_ids else [WORD.strip()] * tokens


def _prompt(request: dict[str, Any], tokens_per_image: int) -> list[Hashable]:
    """The prompt's tokens: ids, the words of texts, and so many for each image."""
    if "messages" not in request:
        prompt = request.get("prompt") or []
        return list(prompt.split() if isinstance(prompt, str) else prompt)
    tokens: list[Hashable] = []
    for message in request["messages"]:
        content = message.get("content") or ""
        for part in [{"text": content}] if isinstance(content, str) else content:
            tokens += str(part.get("text") or "").split()
            if "image_url" in part:
                picture = hash(str(part["image_url"]))
                tokens += [(picture, place) for place in range(tokens_per_image)]
    return tokens


def main(argv: list[str] | None = None) -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(
        prog="python -m profiler.engines.simulated", description="A simulated engine."
    )
    parser.add_argument("--host", default=HERE)
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one; the choice is printed")
    parser.add_argument("--model", default="simulated", help="the name it serves")
    parser.add_argument("--settings", default="{}", help='JSON, such as {"ttft_s": 0.1, "itl_s": 0.02}')
    options = parser.parse_args(argv)
    settings = parse(msgspec.json.decode(options.settings, type=dict[str, Any]))
    key = os.environ.get(API_KEY_VARIABLE) or None
    time.sleep(settings.start_s)
    if settings.start_fault == "exit":
        sys.exit("simulated failure to start")
    app = Simulated(settings, options.model)
    run(app, host=options.host, port=options.port, api_key=key)
    app.draw.close()


if __name__ == "__main__":
    main()
