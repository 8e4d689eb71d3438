"""The memory account: from a real CPU start, and from GPU lines in the words of vLLM 0.11 and 0.33."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.engines.vllm_account import cache_config, memory_account, start_notes
from profiler.schema import Memory, Model, ModelFacts

FIXTURES = Path(__file__).parent / "fixtures"
GIB = 1 << 30
FACTS = ModelFacts(
    architecture="Qwen3MoeForCausalLM",
    kind="moe",
    total_params=1,
    active_params=1,
    routed_expert_params=0,
    kv_bytes_per_token=1024,
    vocab_size=512,
    layers=2,
    source="test",
)
MODEL = Model(name="tiny", weights="hub", facts=FACTS)


def fixture(name: str) -> str:
    return (FIXTURES / name).read_text(encoding="utf-8")


def real_config() -> dict[str, str]:
    return cache_config(fixture("cache_config.prom"))


def test_account_of_a_real_cpu_start():
    log = fixture("start_cpu.log")
    memory = memory_account(log, real_config(), ranks=1, facts=FACTS, device_total_bytes=None)
    assert memory.kv_bytes == GIB
    assert memory.kv_tokens == 1048576 == GIB // FACTS.kv_bytes_per_token
    assert memory.device_total_bytes == pytest.approx(8.21 * GIB)
    assert memory.weights_bytes is memory.activation_peak_bytes is memory.graphs_bytes is None


def test_log_alone_is_enough_on_a_cpu():
    log = fixture("start_cpu.log")
    memory = memory_account(log, {}, ranks=1, facts=None, device_total_bytes=None)
    assert (memory.kv_bytes, memory.kv_tokens) == (GIB, 1048576)


@pytest.mark.parametrize("version", ["0.11", "0.33"])
def test_gpu_account_is_summed_over_workers(version):
    memory = memory_account(
        fixture(f"start_gpu_{version}.log"), {}, ranks=2, facts=FACTS, device_total_bytes=158 * GIB
    )
    assert memory == Memory(
        weights_bytes=57 * GIB,
        kv_bytes=round(80.5 * GIB),
        kv_tokens=1234567,
        activation_peak_bytes=round(4.5 * GIB),
        graphs_bytes=3 * GIB,
        device_total_bytes=158 * GIB,
    )


def test_metrics_win_over_log_for_tokens():
    memory = memory_account(
        fixture("start_gpu_0.33.log"),
        {"kv_cache_size_tokens": "7"},
        ranks=1,
        facts=None,
        device_total_bytes=None,
    )
    assert memory.kv_tokens == 7


def test_blocks_and_facts_are_the_last_resort_and_only_for_a_16_bit_cache():
    config = {"num_gpu_blocks": "10", "block_size": "16", "cache_dtype": "auto"}
    memory = memory_account("", config, ranks=2, replicas=2, facts=FACTS, device_total_bytes=None)
    assert (memory.kv_tokens, memory.kv_bytes) == (320, 320 * 1024)
    eight_bit = memory_account(
        "", config | {"cache_dtype": "fp8"}, ranks=1, facts=FACTS, device_total_bytes=None
    )
    assert eight_bit.kv_bytes is None


def test_what_nobody_says_is_none_not_zero():
    assert memory_account("", {}, ranks=4, facts=None, device_total_bytes=None) == Memory()
    assert (
        memory_account("", {"kv_cache_size_tokens": "None"}, ranks=1, facts=FACTS, device_total_bytes=None)
        == Memory()
    )


def test_labels_of_cache_config_are_read():
    config = real_config()
    assert config["block_size"] == "128"
    assert config["num_gpu_blocks"] == "8192"
    assert config["enable_prefix_caching"] == "True"
    assert cache_config('# nothing\nvllm:other{a="b"} 1.0\n') == {}


def test_notes_say_what_moves_the_figures():
    log = fixture("start_cpu.log")
    notes = start_notes(log, real_config(), Model(name="tiny", weights="random", facts=FACTS))
    assert "prefix caching on" in notes
    assert any("CPU cores 0" in note for note in notes)
    assert any(note.startswith("dummy weights") for note in notes)
    assert start_notes("", {}, MODEL) == ()
    tuned = start_notes("WARNING Using default MoE config. Performance might be sub-optimal!", {}, MODEL)
    assert len(tuned) == 1
    assert "no tuned MoE" in tuned[0]
    assert start_notes("", {"gpu_memory_utilization": "0.92"}, MODEL) == ("gpu_memory_utilization 0.92",)


def test_a_peak_that_contradicts_its_own_estimate_is_unknown_not_zero():
    log = fixture("start_gpu_0.33.log").replace("3.5 GiB for peak activation", "0.5 GiB for peak activation")
    memory = memory_account(log, {}, ranks=1, facts=None, device_total_bytes=None)
    assert memory.activation_peak_bytes is None
