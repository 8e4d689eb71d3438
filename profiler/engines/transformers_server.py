"""The embedded engine's process: transformers' continuous batching behind an OpenAI-compatible address.

``python -m profiler.engines.transformers_server --config FILE`` loads one model, prints ``listening PORT``
and serves until it is told to stop.  Scheduling, batching and the paged cache are the library's own; each
token leaves as its own event the moment the library hands it over.

Two threads share the work: the library's generation thread, and the event loop's, which the library wakes
once a step (``call_soon_threadsafe``) with all that the step produced.  Neither polls; an idle engine sleeps.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from profiler.engines import routed
from profiler.engines.base import HERE
from profiler.engines.sse_server import App, HttpError, run
from profiler.engines.sse_stream import Stream
from profiler.engines.transformers import API_KEY_VARIABLE, ServerConfig

if TYPE_CHECKING:
    from profiler.engines.transformers_routing import Listener

MAX_IN_FLIGHT = 4096
# How long either thread may keep the interpreter while the other waits.  A forward pass lets go of it in
# every operation, so this only bounds the Python between them.
SWITCH_INTERVAL_S = 0.001


class Batcher(App):
    """Serves one model through a running ``ContinuousBatchingManager``."""

    def __init__(
        self,
        name: str,
        manager: Any,
        limits: Limits,
        pages: dict[str, Callable[[], Any]],
        listener: Listener | None = None,
    ) -> None:
        self.model = name
        self._manager = manager
        self._limits = limits
        self._pages = pages
        self._listener = listener
        self._names = map(str, itertools.count())
        self._in_flight = 0

    def page(self, path: str) -> Any | None:
        return self._pages[path]() if path in self._pages else None

    async def completions(self, request: dict[str, Any], stream: Stream) -> None:
        ids, max_tokens = self._limits.checked(request)
        if self._in_flight >= MAX_IN_FLIGHT:
            raise HttpError(503, f"{MAX_IN_FLIGHT} requests are waiting already")
        if request.get("routed_experts"):
            await self._with_experts(ids, max_tokens, stream)
            return
        relay = Relay(stream, len(ids), max_tokens, self._limits.decoder(request))
        eos = -1 if request.get("ignore_eos", False) else self._limits.eos
        await self._generate(ids, max_tokens, eos, relay)

    async def _generate(self, ids: list[int], max_tokens: int, eos: Any, relay: Relay) -> None:
        name = next(self._names)
        self._in_flight += 1
        try:
            self._manager.register_result_handler(name, relay)
            accepted = self._manager.add_request(
                ids, request_id=name, max_new_tokens=max_tokens, streaming=True, eos_token_id=eos
            )
            if accepted is None:
                raise HttpError(503, "the engine is stopping")
            await relay.done
        except asyncio.CancelledError:
            self._manager.cancel_request(name)
            raise
        finally:
            self._in_flight -= 1
            relay.done.cancel()
            self._manager.output_router.result_handlers.pop(name, None)

    async def _with_experts(self, ids: list[int], max_tokens: int, stream: Stream) -> None:
        """Answer in full length, with the experts of every position, while the batching stands still."""
        if self._listener is None:
            raise HttpError(501, "the routing of this model cannot be told")
        kept = Kept(stream, len(ids), max_tokens, None)
        await self._generate(ids, max_tokens, -1, kept)
        run = ids + kept.tokens[:-1]
        told = await asyncio.to_thread(self._listener.experts_of, run, self._manager.pause)
        stream.beside["routed_experts"] = routed.written(told)
        stream.tokens(kept.tokens, "", "length")
        stream.finish(prompt_tokens=len(ids), completion_tokens=len(kept.tokens))


class Relay:
    """Passes the library's partial outputs of one request on to its stream, as they come."""

    def __init__(
        self, stream: Stream, prompt_tokens: int, max_tokens: int, decode: Callable[[list[int]], str] | None
    ) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stream = stream
        self._prompt_tokens = prompt_tokens
        self._max_tokens = max_tokens
        self._decode = decode
        self._sent = 0

    def __call__(self, output: Any) -> None:
        """Called in the event loop's thread; must not raise: others follow in the same call."""
        if self.done.done():
            return
        try:
            self._pass_on(output)
        except Exception as error:  # it belongs to this request and is raised where that is awaited
            self.done.set_exception(error)

    def _pass_on(self, output: Any) -> None:
        if output.error is not None:
            raise HttpError(500, output.error)
        fresh = output.generated_tokens[self._sent :]
        self._sent += len(fresh)
        ended = output.is_finished()
        reason = ("length" if self._sent >= self._max_tokens else "stop") if ended else None
        self._stream.tokens(fresh, self._decode(fresh) if self._decode else "", reason)
        if ended:
            self._stream.finish(prompt_tokens=self._prompt_tokens, completion_tokens=self._sent)
            self.done.set_result(None)


class Kept(Relay):
    """Keeps the answer until more is known of it."""

    tokens: list[int]

    def _pass_on(self, output: Any) -> None:
        if output.error is not None:
            raise HttpError(500, output.error)
        if output.is_finished():
            self.tokens = list(output.generated_tokens)
            self.done.set_result(None)


class Limits:
    """What a request may ask of this model, and its tokenizer where the model has one."""

    def __init__(self, *, vocab_size: int, context_tokens: int, eos: Any, tokenizer: Any) -> None:
        self.eos = -1 if eos is None else eos
        self._vocab_size = vocab_size
        self._context_tokens = context_tokens
        self._tokenizer = tokenizer

    def checked(self, request: dict[str, Any]) -> tuple[list[int], int]:
        """The prompt's ids and the number of tokens to produce; raises HttpError 400."""
        if request.get("temperature") or request.get("n", 1) != 1:
            raise HttpError(400, "only greedy decoding of one answer is served: temperature 0, n 1")
        ids = self._ids(request)
        max_tokens = request.get("max_tokens") or request.get("max_completion_tokens") or 16
        if not isinstance(max_tokens, int) or max_tokens < 1:
            raise HttpError(400, "max_tokens must be a whole number of at least 1")
        if len(ids) + max_tokens > self._context_tokens:
            raise HttpError(
                400,
                f"{len(ids)} prompt tokens and {max_tokens} output tokens exceed the "
                f"{self._context_tokens} tokens that the model's context and the engine's cache allow",
            )
        return ids, max_tokens

    def decoder(self, request: dict[str, Any]) -> Callable[[list[int]], str] | None:
        """Text goes back to those who sent text; ids need none."""
        return self._tokenizer.decode if self._tokenizer and _is_text(request) else None

    def _ids(self, request: dict[str, Any]) -> list[int]:
        if _is_text(request):
            return self._encode(request)
        ids = request.get("prompt")
        if not isinstance(ids, list) or not ids or not all(type(i) is int for i in ids):
            raise HttpError(400, "prompt must be a non-empty list of token ids, or a text")
        if min(ids) < 0 or max(ids) >= self._vocab_size:
            raise HttpError(400, f"prompt holds token ids outside 0…{self._vocab_size - 1}")
        return ids

    def _encode(self, request: dict[str, Any]) -> list[int]:
        if self._tokenizer is None:
            raise HttpError(400, "this model has no tokenizer: send the prompt as token ids")
        if "messages" not in request:
            found = self._tokenizer(request["prompt"])["input_ids"]
        elif self._tokenizer.chat_template is None:
            raise HttpError(400, "this model has no chat template: use /v1/completions")
        else:
            found = self._tokenizer.apply_chat_template(
                request["messages"], add_generation_prompt=True, return_dict=True
            )["input_ids"]
        if not found:
            raise HttpError(400, "the prompt has no tokens")
        return [int(i) for i in found]


def _is_text(request: dict[str, Any]) -> bool:
    return "messages" in request or isinstance(request.get("prompt"), str)


def main(argv: list[str] | None = None) -> None:
    """Load, announce, serve; ends this process."""
    options = argparse.ArgumentParser()
    options.add_argument("--config", type=Path, required=True)
    options.add_argument("--host", default=HERE)
    options.add_argument("--port", type=int, default=0)
    chosen = options.parse_args(argv)
    config = msgspec.json.decode(chosen.config.read_bytes(), type=ServerConfig)
    app = build(config)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    run(app, host=chosen.host, port=chosen.port, api_key=os.environ.get(API_KEY_VARIABLE))
    sys.stderr.flush()
    os._exit(0)  # the generation thread holds nothing that must be saved, and would finish its requests first


def build(config: ServerConfig) -> Batcher:
    """The model loaded and its batching started."""
    from profiler.engines import transformers_model as engine
    from profiler.engines.transformers_routing import set_up

    engine.log("importing torch and transformers")
    engine.set_threads(config.args.threads)
    before_bytes = engine.own_bytes()
    model = engine.load(config)
    routing = set_up(model, config.routing, config.routing_asked)
    manager = engine.start_batching(model, config)
    text = model.config.get_text_config()
    context = min(
        config.max_model_len or text.max_position_embeddings,
        text.max_position_embeddings,
        engine.cache_tokens(manager),
    )
    threading.Thread(target=_end_with, args=(manager,), daemon=True).start()

    def account() -> dict[str, Any]:
        found = engine.memory(model, manager, before_bytes)
        return msgspec.structs.asdict(found) | {"device": model.device.type}

    def metrics() -> bytes:
        return b"# vLLM's name, a fraction\nvllm:kv_cache_usage_perc %f\n" % engine.cache_usage_frac(manager)

    limits = Limits(
        vocab_size=text.vocab_size,
        context_tokens=context,
        eos=getattr(text, "eos_token_id", None),
        tokenizer=_tokenizer(config),
    )
    pages: dict[str, Callable[[], Any]] = {
        "/memory": account,
        "/metrics": metrics,
        "/routing": lambda: routing.told,
    }
    return Batcher(config.name, manager, limits, pages, routing.listener)


def _end_with(manager: Any) -> None:
    """An engine whose generation thread has died must not look alive: end the process with it."""
    manager._generation_thread.join()
    print("the generation thread has ended; see above", file=sys.stderr, flush=True)  # noqa: T201 (the log)
    os._exit(1)


def _tokenizer(config: ServerConfig) -> Any:
    if config.weights == "random":
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            config.folder or config.name, trust_remote_code=config.args.trust_remote_code
        )
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    main()
