"""The page that is put into vLLM's server, without vLLM: an ASGI application around it."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from profiler.engines import vllm_inside, weights
from profiler.engines.vllm_account import counted
from profiler.engines.vllm_inside import MemoryPage, WorkerMemory
from profiler.schema import Memory


class Client:
    """Stands for vLLM's engine client."""

    async def collective_rpc(self, method: str) -> list[dict[str, int]]:
        assert method in dir(WorkerMemory)
        return [{"pid": 1, "kv_bytes": 5}]


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


@pytest.mark.parametrize("key", [None, b"", b"Bearer x", b"k", b"Bearer "])
def test_the_page_wants_the_servers_key(monkeypatch, key):
    assert ask(monkeypatch, key=key)[0] == 401


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
