"""The memory account: from a real CPU start, and from GPU lines in the words of vLLM 0.6 to 0.33."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from profiler.engines.vllm_account import PARTS, cache_config, counted, memory_account, start_notes
from profiler.engines.vllm_inside import OPTIONS, options
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
        runtime_bytes=2 * (round(29.1 * GIB) - round(28.5 * GIB)) if version == "0.33" else None,
    )


def in_gib(memory: Memory) -> dict[str, float]:
    """What is known of an account, bytes in GiB with two decimals, tokens as they are."""
    known = {name: value for name, value in msgspec.structs.asdict(memory).items() if value is not None}
    return {n: v if n == "kv_tokens" else round(v / GIB, 2) for n, v in known.items()}


@pytest.mark.parametrize(
    ("version", "ranks", "expected"),
    [
        (
            "0.6.6",
            2,
            {
                "weights": 14.97,
                "kv": 124.5,
                "kv_tokens": 63744 * 16,
                "peak": 2.5,
                "graphs": 0.5,
                "runtime": 0.5,
            },
        ),
        # The pool is printed nowhere: tokens of the log times 1,024 bytes would be another rank's guess.
        ("0.8.5", 1, {"weights": 14.99, "kv_tokens": 158656, "graphs": 0.52}),
        (
            "0.10.2",
            1,
            {
                "weights": 14.08,
                "kv": 55.15,
                "kv_tokens": 451744,
                "peak": 1.97,
                "graphs": 0.67,
                "runtime": 0.07,
            },
        ),
        ("0.17", 2, {"weights": 25.32, "kv": 13.74, "kv_tokens": 75840, "graphs": 0.72}),
        (
            "0.27",
            1,
            {
                "weights": 0.88,
                "kv": 13.33,
                "kv_tokens": 436736,
                "peak": 0.26,
                "graphs": 0.24,
                "runtime": 0.16,
            },
        ),
    ],
)
def test_every_versions_words_are_understood(version, ranks, expected):
    log = fixture(f"start_gpu_{version}.log")
    memory = memory_account(log, {}, ranks=ranks, facts=None, device_total_bytes=None)
    names = {"peak": "activation_peak_bytes", "kv_tokens": "kv_tokens"}
    assert in_gib(memory) == {names.get(n, f"{n}_bytes"): value for n, value in expected.items()}


def test_the_parts_of_a_printed_account_make_up_what_the_instance_may_use():
    """0.10.2 says 71.27 GiB may be used, and names four parts; the graphs come on top."""
    memory = memory_account(fixture("start_gpu_0.10.2.log"), {}, ranks=1, facts=None, device_total_bytes=None)
    parts = memory.weights_bytes + memory.kv_bytes + memory.activation_peak_bytes + memory.runtime_bytes
    assert parts / GIB == pytest.approx(71.27, abs=0.01)


@pytest.mark.parametrize(
    "line",
    [
        "Graph capturing finished in 5 secs, took -0.19 GiB",
        "Actual usage is 8.28 GiB for weight, -3.58 GiB for non-torch memory",
        "Actual usage is -1.5 GiB for consumed memory (weights + non-torch), -0.5 GiB for peak activation",
    ],
)
def test_memory_below_nothing_is_unknown(line):
    assert memory_account(line, {}, ranks=1, facts=None, device_total_bytes=None) == Memory()


def test_a_cache_of_a_given_size_is_read_where_profiling_is_skipped():
    line = (
        "Initial free memory 78.66 GiB, reserved 20.5 GiB memory for KV Cache as specified by "
        "kv_cache_memory_bytes config and skipped memory profiling."
    )
    memory = memory_account(line, {}, ranks=2, facts=None, device_total_bytes=None)
    assert memory.kv_bytes == 41 * GIB


WORKER = {
    "pid": 7,
    "dense_bytes": 300,
    "routed_expert_bytes": 5000,
    "shared_expert_bytes": 100,
    "embedding_bytes": 600,
    "loaded_bytes": 6100,
    "kv_bytes": 2000,
    "allocated_peak_bytes": 8500,
    "torch_reserved_bytes": 9000,
    "runtime_bytes": 700,
}


def test_what_the_workers_count_replaces_what_the_log_says():
    logged = Memory(weights_bytes=6 * GIB, kv_bytes=2 * GIB, kv_tokens=77, graphs_bytes=50, runtime_bytes=1)
    assert counted(logged, [WORKER, WORKER], 2) == Memory(
        weights_bytes=12200,
        kv_bytes=4000,
        kv_tokens=77,
        activation_peak_bytes=800,
        graphs_bytes=50,
        dense_bytes=600,
        routed_expert_bytes=10000,
        shared_expert_bytes=200,
        embedding_bytes=1200,
        runtime_bytes=1400,
        torch_reserved_bytes=18000,
    )
    assert counted(logged, [], 2) is logged
    profiled = msgspec.structs.replace(logged, activation_peak_bytes=900)
    assert counted(profiled, [WORKER], 1).activation_peak_bytes == 900, "the engine's worst batch stands"


def test_one_replica_answers_for_all_of_them():
    assert counted(Memory(), [WORKER, WORKER], 8).weights_bytes == 8 * 6100


def test_a_cpu_worker_has_no_allocator_and_no_loaded_size():
    cpu = {name: value for name, value in WORKER.items() if name in (*PARTS, "pid", "kv_bytes")}
    found = counted(Memory(runtime_bytes=5), [cpu | {"loaded_bytes": None, "kv_resident_bytes": 1500}], 1)
    assert (found.weights_bytes, found.kv_bytes, found.kv_resident_bytes) == (6000, 2000, 1500)
    assert found.torch_reserved_bytes is found.activation_peak_bytes is None
    assert found.runtime_bytes == 5


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("others", [[], [WORKER]])
def test_a_part_that_one_worker_leaves_out_is_unknown_and_no_sum_is_made_without_it(name, others):
    logged = Memory(weights_bytes=6 * GIB, kv_bytes=2 * GIB)
    lacking = WORKER | {name: None, "loaded_bytes": None}
    found = counted(logged, [lacking, *others], 2)
    assert [getattr(found, part) for part in PARTS] == [None] * len(PARTS)
    assert (found.weights_bytes, found.kv_bytes) == (6 * GIB, 4000)
    assert counted(Memory(), [lacking], 1).weights_bytes is None
    assert counted(Memory(), [WORKER | {name: None}], 1).weights_bytes == 6100


def test_a_model_without_experts_has_none_of_their_bytes():
    dense = WORKER | {"routed_expert_bytes": 0, "shared_expert_bytes": 0}
    found = counted(Memory(), [dense], 1)
    assert (found.dense_bytes, found.routed_expert_bytes, found.shared_expert_bytes) == (300, 0, 0)


@pytest.mark.parametrize("lacking", ["loaded_bytes", "kv_bytes", "allocated_peak_bytes"])
def test_no_activation_peak_is_made_of_what_is_not_known(lacking):
    worker = {k: v for k, v in WORKER.items() if k != lacking and k not in PARTS}
    assert counted(Memory(), [worker], 1).activation_peak_bytes is None
    assert counted(Memory(weights_bytes=6100, kv_bytes=9000), [WORKER | {"kv_bytes": None}], 1) == counted(
        Memory(kv_bytes=9000), [WORKER | {"kv_bytes": 0, "allocated_peak_bytes": None}], 1
    )


def test_what_a_worker_leaves_out_stays_as_the_log_has_it():
    logged = Memory(kv_resident_bytes=3, torch_reserved_bytes=4, runtime_bytes=5)
    silent = dict.fromkeys(WORKER)
    assert counted(logged, [silent], 1) == logged


def test_workers_are_asked_only_where_the_version_can_and_the_user_has_not_taken_the_place():
    assert options("0.32.0", {}) == options("0.8.5.post1", {"dtype": "auto"}) == options("1.0", {}) == OPTIONS
    assert options("0.7.3", {}) == options(None, {}) == {}
    assert options("0.32.0", {"middleware": "mine.Page"}) == {}
    assert options("0.32.0", {"worker-extension-cls": "mine.Worker"}) == {}


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
    (note,) = start_notes("", {"gpu_memory_utilization": "0.92"}, MODEL)
    assert note == "gpu_memory_utilization 0.92 (vLLM's default is 0.92 since 0.20, before it 0.90)"


@pytest.mark.parametrize(
    ("version", "said"), [("0.33", "=1: the KV cache was sized with room"), ("0.27", "=0: ")]
)
def test_notes_say_whether_the_cache_was_sized_with_room_for_graphs(version, said):
    notes = start_notes(fixture(f"start_gpu_{version}.log"), {}, MODEL)
    assert any(note.startswith(f"VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS{said}") for note in notes)
    assert start_notes(fixture("start_gpu_0.17.log"), {}, MODEL) == ()


def test_a_peak_that_contradicts_its_own_estimate_is_unknown_not_zero():
    log = fixture("start_gpu_0.33.log").replace("3.5 GiB for peak activation", "0.5 GiB for peak activation")
    memory = memory_account(log, {}, ranks=1, facts=None, device_total_bytes=None)
    assert memory.activation_peak_bytes is None
