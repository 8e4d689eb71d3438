"""Before any load: is the endpoint there, does it take the key, does it serve the model, how does it talk?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from profiler import secret
from profiler.errors import InputError, nearest
from profiler.loadgen.client import Connection, Target, target_of
from profiler.loadgen.decode import NO_COUNT, Answer, judge, read
from profiler.loadgen.exchange import Exchange
from profiler.loadgen.failing import OVERLOADED
from profiler.loadgen.payload import ASSUMED_VOCAB, build
from profiler.schema import Endpoint
from profiler.settings import Timeouts, Workload
from profiler.workload import Plan, PlannedRequest

PROBE_INPUT_TOKENS = 8
PROBE_OUTPUT_TOKENS = 2
BODY_CHARS = 200
AGAIN_AFTER_S = 1.0


class _Listed(Struct):
    id: str


class _Models(Struct):
    data: list[_Listed]


async def probe(endpoint: Endpoint, timeout_s: float = 30.0) -> Endpoint:
    """The endpoint as it turns out to be: ``prompt``, ``returns_ids`` and ``ignores_eos`` are found out.

    An empty model name stands for the only model served.  Asks for the list of models, then for two
    tokens, falling back from token ids to text and from the protocol's extensions to plain OpenAI.  Each
    call takes at most ``timeout_s``.  InputError, one line with advice: not reachable, key refused, model
    not served (with the nearest that is), no such server, tokens that cannot be counted.
    """
    try:
        return await _probe(endpoint, timeout_s)
    except InputError as error:  # it may hold what the server said, which may hold the key it was sent
        raise InputError(secret.without(str(error), (endpoint.api_key,))) from None


async def _probe(endpoint: Endpoint, timeout_s: float) -> Endpoint:
    target = target_of(endpoint)
    models = await _exchange(target, _get(endpoint, target, _models_path(target)), timeout_s)
    _refuse_bad_answer(endpoint, models)
    endpoint = msgspec.structs.replace(endpoint, model=_served_model(endpoint, models))
    refusal = ""
    for variant in _variants(endpoint):
        exchange, answer = await _ask(variant, target, timeout_s)
        if _passes(exchange):
            await asyncio.sleep(AGAIN_AFTER_S)
            exchange, answer = await _ask(variant, target, timeout_s)
        outcome, error = judge(exchange, answer, variant)
        if outcome in ("ok", "short") and _takes_prompt(variant, answer):
            return msgspec.structs.replace(variant, returns_ids=answer.has_ids)
        if exchange.status is None or exchange.status in (401, 403):
            _refuse_bad_answer(endpoint, exchange)
        # Another way to ask would take as long; one that hears less would not hear what is wrong.
        if outcome == "total_timeout" or (outcome == "malformed" and answer.has_ids):
            raise InputError(_why_not(endpoint, f"{outcome}: {error}"))
        refusal = NO_COUNT if error == NO_COUNT else refusal or f"{outcome}: {error}"
    raise InputError(_why_not(endpoint, refusal))


def _passes(exchange: Exchange) -> bool:
    """Whether what went wrong may be over in a moment and says nothing of how the server talks: to fall back
    to a way that measures less would last for the whole run."""
    return exchange.failure == "reset" or exchange.status in OVERLOADED


def _why_not(endpoint: Endpoint, refusal: str) -> str:
    """One line for a server that is there but cannot be measured."""
    if refusal == NO_COUNT:
        return (
            f"{endpoint.base_url} neither returns token ids nor usage: its tokens cannot be counted; "
            "enable stream_options.include_usage on the server or its gateway"
        )
    other = "chat" if endpoint.protocol == "completions" else "completions"
    return (
        f"{endpoint.base_url} lists {endpoint.model!r} but did not stream two tokens of it "
        f"({refusal}); try the {other} protocol, or look at the server's log"
    )


def _variants(endpoint: Endpoint) -> Iterator[Endpoint]:
    """Ways to talk, the most exact first."""
    ids = endpoint.protocol == "completions" and endpoint.prompt == "ids"
    for extensions in (True, False):
        for prompt in ("ids", "text") if ids else ("text",):
            yield msgspec.structs.replace(
                endpoint, prompt=prompt, returns_ids=extensions, ignores_eos=extensions
            )


def _takes_prompt(variant: Endpoint, answer: Answer) -> bool:
    """A server that reads ids as something else gives itself away by its count of them."""
    counted = answer.usage.prompt_tokens if answer.usage else None
    return variant.prompt == "text" or counted in (None, PROBE_INPUT_TOKENS)


async def _ask(variant: Endpoint, target: Target, timeout_s: float) -> tuple[Exchange, Answer]:
    workload = Workload(input_tokens=PROBE_INPUT_TOKENS, output_tokens=PROBE_OUTPUT_TOKENS)
    plan = Plan(workload, variant.vocab_size or ASSUMED_VOCAB, 0)
    exchange = await _exchange(target, build(variant, target, plan, plan.request(0)), timeout_s)
    return exchange, read(exchange)


def _refuse_bad_answer(endpoint: Endpoint, exchange: Exchange) -> None:
    """InputError unless the exchange ended with status 200."""
    url = endpoint.base_url
    if exchange.status is None:
        raise InputError(
            f"{url} is not reachable ({exchange.error}); is the address right, does the server run?"
        )
    if exchange.status in (401, 403):
        key = "the API key was refused" if endpoint.api_key else "an API key is needed"
        raise InputError(f"{url}: {key} (HTTP {exchange.status}); name the variable that holds the right one")
    if exchange.status in OVERLOADED:
        raise InputError(
            f"{url} does not serve now: GET /models gave HTTP {exchange.status}; it is busy, or not up yet, "
            "or what stands before it has no server: try again"
        )
    if exchange.status != 200:
        hint = "" if url.rstrip("/").endswith("/v1") else "; such addresses usually end in /v1"
        raise InputError(
            f"{url} is no OpenAI-compatible server: GET /models gave HTTP {exchange.status}{hint}"
        )


def _served_model(endpoint: Endpoint, exchange: Exchange) -> str:
    body = b"".join(exchange.pieces)
    try:
        served = [model.id for model in msgspec.json.decode(body, type=_Models).data]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = " ".join(body.decode(errors="replace").split())[:BODY_CHARS]
        raise InputError(
            f"{endpoint.base_url} is no OpenAI-compatible server: GET /models gave {text!r}"
        ) from None
    if not endpoint.model and len(served) == 1:
        return served[0]
    if not endpoint.model:
        raise InputError(
            f"{endpoint.base_url} serves several models, choose with --model: {', '.join(served)}"
        )
    if endpoint.model not in served:
        raise InputError(
            f"{endpoint.base_url} does not serve {endpoint.model!r}{nearest(endpoint.model, served)}"
        )
    return endpoint.model


def _models_path(target: Target) -> str:
    return target.path.removesuffix("/chat/completions").removesuffix("/completions") + "/models"


def _get(endpoint: Endpoint, target: Target, path: str) -> bytes:
    key = f"authorization: Bearer {endpoint.api_key}\r\n" if endpoint.api_key else ""
    return f"GET {path} HTTP/1.1\r\nhost: {target.host_header}\r\naccept: */*\r\n{key}\r\n".encode()


async def _exchange(target: Target, payload: bytes, timeout_s: float) -> Exchange:
    """One request on a connection of its own."""
    exchange = Exchange(PlannedRequest(0, PROBE_INPUT_TOKENS, PROBE_OUTPUT_TOKENS), 0)
    connection = Connection(target, Timeouts(connect_s=timeout_s))
    trouble = await connection.open()
    if trouble is not None:
        exchange.failure, exchange.error = trouble
        return exchange
    ended = connection.send(exchange, payload)
    try:
        await asyncio.wait_for(asyncio.shield(ended), timeout_s)
    except TimeoutError:
        connection.fail("total_timeout", f"no complete answer in {timeout_s:g} s")
    connection.close()
    return exchange
