"""What is put into vLLM's own processes, by two documented options, to ask its workers for their memory.

``--worker-extension-cls`` gives each worker one more method, ``--middleware`` gives the API server one more
page, ``GET /profiler/memory``, which wants the server's API key and calls it.  Neither is on a token's
way.  vLLM's own remote calls would need VLLM_SERVER_DEV_MODE, which opens them to everyone on the machine.
An engine whose routing is ours, or is recorded, has more methods (``vllm_worker``) and pages that call them.
"""

from __future__ import annotations

import hmac
import json
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from http import HTTPStatus
from typing import Any

from profiler import procfs
from profiler.engines import weights

PATH = "/profiler/memory"
ROUTING_PATH = "/profiler/routing"
RECORD_PATH = "/profiler/record"
# What a page answers: the method of ``WorkerMemory``, or of ``vllm_worker.WorkerRouting``, that it calls.
PAGES = {
    PATH: "profiler_memory",
    ROUTING_PATH: "profiler_routing",
    RECORD_PATH: "profiler_record",
}
OPTIONS = {
    "worker-extension-cls": f"{__name__}.WorkerMemory",
    "middleware": f"{__name__}.MemoryPage",
}
FIRST_VERSION = (0, 8)
# How vLLM is told to let something else than the weights choose experts; after STRATEGY the routing is ours.
ROUTING_VARIABLE = "VLLM_MOE_ROUTING_SIMULATION_STRATEGY"
STRATEGY = "profiler:"
# A worker imports this before it loads the model: what the process held without one.
BEFORE_BYTES = procfs.pss_bytes("self")

Scope = MutableMapping[str, Any]
Handler = Callable[..., Awaitable[None]]


def options(version: str | None, given: Mapping[str, Any]) -> dict[str, str]:
    """The two options as far as this version knows them (0.8 and later) and the user has taken neither."""
    numbers = re.match(r"(\d+)\.(\d+)", version or "")
    known = numbers is not None and (int(numbers[1]), int(numbers[2])) >= FIRST_VERSION
    return OPTIONS if known and not OPTIONS.keys() & given.keys() else {}


class WorkerMemory:
    """Mixed into vLLM's worker class; its one method is called by name."""

    model_runner: Any

    def profiler_memory(self) -> dict[str, Any]:
        """This worker's account in bytes: weights by kind, cache, and what torch and the device say."""
        import torch

        runner = self.model_runner
        caches = _spans(_flat(runner.kv_caches))
        found = {
            "pid": os.getpid(),
            **weights.bytes_by_kind(runner.get_model()),
            "loaded_bytes": getattr(runner, "model_memory_usage", None),
            "kv_bytes": sum(caches.values()),
        }
        if torch.cuda.is_available():
            return found | weights.cuda_memory()
        resident = procfs.resident_bytes(caches.items())
        return found | {"before_bytes": BEFORE_BYTES, "kv_resident_bytes": resident}


def _flat(tensors: Iterable[Any]) -> Iterable[Any]:
    """A layer's cache is a tensor, or several."""
    for each in tensors:
        yield from _flat(each) if isinstance(each, list | tuple) else (each,)


def _spans(tensors: Iterable[Any]) -> dict[int, int]:
    """Address → size of the storages behind tensors; layers of a hybrid model share theirs."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return {each.data_ptr(): int(each.nbytes()) for each in storages}


class MemoryPage:
    """Pure ASGI middleware: answers ``PAGES`` with what the workers return, hands everything else on
    untouched."""

    def __init__(self, app: Handler) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] not in PAGES:
            await self._app(scope, receive, send)
            return
        status, content = await _page(scope)
        await _answer(send, status, [(b"content-type", b"application/json")], json.dumps(content).encode())


class RoutedAnswers(MemoryPage):
    """Adds to the answers of completions what the first worker kept of them: ``choices[0].routed_experts``,
    as ``--enable-return-routed-experts`` does where vLLM has it."""

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/v1/completions":
            await super().__call__(scope, receive, send)
            return
        events: list[Scope] = []

        async def keep(event: Scope) -> None:
            events.append(event)

        await self._app(scope, receive, keep)
        body = b"".join(event.get("body", b"") for event in events)
        if events[0]["status"] == HTTPStatus.OK:
            body = json.dumps(await _with_routing(scope, json.loads(body))).encode()
        kept = [header for header in events[0]["headers"] if header[0] != b"content-length"]
        await _answer(send, events[0]["status"], kept, body)


async def _with_routing(scope: Scope, answer: dict[str, Any]) -> dict[str, Any]:
    # The last token of an answer is sent to no experts.
    positions = answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"] - 1
    told = await _ask_workers(scope, "profiler_routed", answer["id"], positions)
    answer["choices"][0]["routed_experts"] = told[0]
    return answer


async def _page(scope: Scope) -> tuple[int, Any]:
    key = os.environ.get("VLLM_API_KEY")
    given = dict(scope["headers"]).get(b"authorization", b"")
    if not key or not hmac.compare_digest(given, f"Bearer {key}".encode()):
        return 401, {"error": "wrong API key"}
    try:
        return 200, await _ask_workers(scope, PAGES[scope["path"]])
    except Exception as error:  # another version's inside: the log still says most of it
        return 501, {"error": repr(error)}


async def _ask_workers(scope: Scope, method: str, *given: Any) -> list[Any]:
    """What each worker's method returns."""
    found: list[Any] = await scope["app"].state.engine_client.collective_rpc(method, args=given)
    return found


async def _answer(send: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
