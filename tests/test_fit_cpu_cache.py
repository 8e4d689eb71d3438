"""The KV cache that vLLM is told to take without a GPU: as large as the load, as far as memory goes."""

from __future__ import annotations

import pytest

from profiler import fit
from tests.test_fit import CHAT, GIB, ONE, check, h100, note, published, refused


@pytest.fixture(autouse=True)
def no_variable(monkeypatch):
    monkeypatch.delenv(fit.CPU_CACHE_VARIABLE, raising=False)


def space(*args, **settings) -> str | None:
    return check(*args, **settings).env.get("VLLM_CPU_KVCACHE_SPACE")


def test_vllm_on_a_cpu_gets_a_cache_for_the_whole_load():
    """28 672 bytes a token × 128 requests × 1152 tokens are 3.94 GiB; twice that in float32."""
    small = published("Qwen/Qwen2.5-1.5B")
    assert small.facts.kv_bytes_per_token == 28672
    assert space(small, kind="vllm") == "4"
    assert space(small, kind="vllm", dtype="float32") == "8"
    assert space(small, kind="vllm", load=ONE) == "1"
    assert note(small, (), 22 * GIB, kind="vllm") is None
    assert check(small, kind="vllm", env={"A": "b"}).env == {"A": "b", "VLLM_CPU_KVCACHE_SPACE": "4"}


def test_the_cache_is_bounded_by_memory_and_the_note_says_so():
    """7 · 0.9 less 2.9 of weights, 1 of overhead, 1 kept back: 1.4 GiB; at least 1, and one request."""
    small = published("Qwen/Qwen2.5-1.5B")
    assert space(small, (), 7 * GIB, kind="vllm") == "1"
    said = note(small, (), 7 * GIB, kind="vllm")
    assert said == "1.0 GiB for KV cache, 128 requests can fill 2.6 GiB: the engine will queue some"
    assert space(small, (), 8 * GIB, kind="vllm") == "2"
    assert space(small, (), 8 * GIB, kind="vllm", tensor_parallel=2) == "1"
    long = published("Qwen/Qwen2.5-3B")
    need_gib = 32768 * long.facts.kv_bytes_per_token / GIB
    assert 1 < need_gib < 2
    assert space(long, (), 9 * GIB, kind="vllm", max_model_len=32768) == "2"


def test_what_the_user_says_of_the_cache_stays(monkeypatch):
    small = published("Qwen/Qwen2.5-1.5B")
    own = {"VLLM_CPU_KVCACHE_SPACE": "2"}
    assert check(small, kind="vllm", env=own).env == own
    assert "2.0 GiB for KV cache" in (note(small, (), 22 * GIB, kind="vllm", env=own) or "")
    for name in ("kv_cache_memory_bytes", "kv-cache-memory-bytes", "gpu_memory_utilization"):
        assert space(small, kind="vllm", args={name: 0.5}) is None
    assert space(small, kind="transformers") is None
    assert space(small, h100(1), kind="vllm") is None
    for wrong in ("much", "1.5", "0"):
        said = refused(small, kind="vllm", env={"VLLM_CPU_KVCACHE_SPACE": wrong})
        assert f"VLLM_CPU_KVCACHE_SPACE is '{wrong}'; give a whole number of GiB" in said
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3")
    assert space(small, kind="vllm") is None


def test_the_cache_vllm_takes_counts_among_what_stays_up():
    small = published("Qwen/Qwen2.5-1.5B")
    decided = check(small, kind="vllm")
    least = fit.least_bytes(small, decided, CHAT.workload, CHAT.load)
    assert least == 2 * small.facts.total_params + GIB + 4 * GIB
