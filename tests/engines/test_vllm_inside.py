"""The page that is put into vLLM's server, without vLLM: an ASGI application around it."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from profiler.engines import vllm_inside, weights
from profiler.engines.vllm_account import counted
from profiler.engines.vllm_inside import MemoryPage, RoutedAnswers, WorkerMemory
from profiler.engines.vllm_worker import WorkerRouting
from profiler.schema import Memory


class Client:
    """Stands for vLLM's engine client."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[Any]:
        assert method in dir(WorkerRouting)
        self.asked.append((method, *args))
        return ["experts", None] if method == "profiler_routed" else [{"pid": 1, "kv_bytes": 5}]


def ask(monkeypatch, path=vllm_inside.PATH, key=b"Bearer k", client=None, kind="http"):
    """Status and content of the page, or what the application behind it was given."""
    monkeypatch.setenv("VLLM_API_KEY", "k")
    sent: list[Any] = []
    passed: list[Any] = []

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        passed.append((scope, receive, send))

    async def send(event: Any) -> None:
        sent.append(event)

    app = SimpleNamespace(state=SimpleNamespace(engine_client=client or Client()))
    scope = {"type": kind, "path": path, "headers": [(b"authorization", key)] if key else [], "app": app}
    asyncio.run(MemoryPage(behind)(scope, "receive", send))
    if passed:
        assert passed == [(scope, "receive", send)]
        assert sent == []
        return None
    return sent[0]["status"], json.loads(sent[1]["body"])


def test_the_page_says_what_the_workers_say(monkeypatch):
    assert ask(monkeypatch) == (200, [{"pid": 1, "kv_bytes": 5}])


@pytest.mark.parametrize("path", vllm_inside.PAGES)
@pytest.mark.parametrize("key", [None, b"", b"Bearer x", b"k", b"Bearer "])
def test_the_page_wants_the_servers_key(monkeypatch, key, path):
    assert ask(monkeypatch, key=key, path=path)[0] == 401


@pytest.mark.parametrize(("path", "method"), vllm_inside.PAGES.items())
def test_a_page_asks_for_what_it_is_named_after(monkeypatch, path, method):
    client = Client()
    ask(monkeypatch, path=path, client=client)
    assert client.asked == [(method,)]


def answered(status, content, path="/v1/completions"):
    """What a client gets of an answer in two pieces, and what the workers were asked for it."""
    sent: list[Any] = []
    client = Client()
    body = json.dumps(content).encode()

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"x-some", b"thing"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body[:9], "more_body": True})
        await send({"type": "http.response.body", "body": body[9:]})

    async def send(event: Any) -> None:
        sent.append(event)

    app = SimpleNamespace(state=SimpleNamespace(engine_client=client))
    scope = {"type": "http", "path": path, "headers": [], "app": app}
    asyncio.run(RoutedAnswers(behind)(scope, "receive", send))
    whole = b"".join(event.get("body", b"") for event in sent)
    assert dict(sent[0]["headers"]) == {b"x-some": b"thing", b"content-length": str(len(whole)).encode()}
    assert len(sent[0]["headers"]) == 2
    return sent[0]["status"], json.loads(whole), client.asked


def test_answers_tell_the_experts_that_the_first_worker_kept():
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    given = {"id": "cmpl-1", "choices": [{"text": "x"}], "usage": usage}
    status, content, asked = answered(200, given)
    assert status == 200
    assert content == given | {"choices": [{"text": "x", "routed_experts": "experts"}]}
    assert asked == [("profiler_routed", "cmpl-1", 7)]


def test_refusals_and_other_answers_pass_as_they_are():
    assert answered(400, {"error": "no such"}) == (400, {"error": "no such"}, [])
    assert answered(200, {"data": "something"}, path="/v1/models") == (200, {"data": "something"}, [])


@pytest.mark.parametrize("kind", ["http", "websocket", "lifespan"])
def test_everything_else_passes_untouched(monkeypatch, kind):
    path = vllm_inside.PATH if kind == "lifespan" else "/v1/completions"
    assert ask(monkeypatch, path=path, kind=kind) is None


def test_a_version_with_another_inside_costs_the_page_only(monkeypatch):
    status, content = ask(monkeypatch, client=SimpleNamespace())
    assert status == 501
    assert "collective_rpc" in content["error"]


@pytest.mark.parametrize("cuda", [False, True])
def test_a_workers_account_is_what_the_memory_account_reads(monkeypatch, cuda):
    torch = pytest.importorskip("torch")
    board = {"allocated_peak_bytes": 9000, "torch_reserved_bytes": 9500, "runtime_bytes": 700}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(weights, "cuda_memory", lambda: board)
    model = torch.nn.Module()
    model.experts = torch.nn.Linear(10, 20, bias=False)
    model.norm = torch.nn.Linear(5, 5, bias=False)
    worker = WorkerMemory()
    pool = torch.ones(500, dtype=torch.float64)
    worker.model_runner = SimpleNamespace(kv_caches=[pool], get_model=lambda: model)
    if cuda:
        worker.model_runner.model_memory_usage = 1000
    found = counted(Memory(), [worker.profiler_memory()], 1)
    assert (found.routed_expert_bytes, found.dense_bytes, found.kv_bytes) == (800, 100, 4000)
    assert found.weights_bytes == (1000 if cuda else 900)
    assert found.kv_resident_bytes == (None if cuda else 4000)
    assert found.activation_peak_bytes == (4000 if cuda else None)
    assert (found.torch_reserved_bytes, found.runtime_bytes) == ((9500, 700) if cuda else (None, None))


def test_shared_storages_and_layers_of_several_tensors_count_once():
    torch = pytest.importorskip("torch")
    pool = torch.zeros(100, dtype=torch.int8)
    state = torch.zeros(30, dtype=torch.int8)
    caches = [pool[:50], pool[50:], [state, pool]]
    assert sum(vllm_inside._spans(vllm_inside._flat(caches)).values()) == 130
