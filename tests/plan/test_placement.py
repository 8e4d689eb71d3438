"""Fit: by hand, by the rule that a run goes by, and whatever the shape."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import catalog, fit
from profiler.errors import InputError
from profiler.plan.placement import place, places, smallest, together
from profiler.schema import Gpu
from tests.plan.ask import DENSE_14B, DENSE_32B, MOE, placement, question

GIB = 1 << 30


def test_room_for_the_cache_by_hand():
    """Qwen3-30B-A3B, bf16: 30.53 · 10⁹ parameters; 48 layers of 4 heads of 128 numbers, keys and values."""
    found = placement()
    assert found.weights_bytes == pytest.approx(30_532_122_624 * 2)
    assert found.request_bytes(1) == 48 * 4 * 128 * 2 * 2 == 98_304
    room = 0.9 * 80 * GIB - 2 * GIB - found.weights_bytes
    assert found.kv_tokens == pytest.approx(room / 98_304, abs=1)
    assert found.sequences == int(room / 98_304 / 768)


def test_idle_experts_by_hand():
    """120 of 128 experts are not a given token's."""
    found = placement()
    assert found.idle_expert_bytes == pytest.approx(48 * 128 * 3 * 2048 * 768 * 2 * 120 / 128)
    assert found.residency_frac == pytest.approx(found.idle_expert_bytes / (0.9 * 80 * GIB))
    assert placement(MOE, 2).residency_frac == pytest.approx(found.residency_frac / 2)
    assert placement(DENSE_14B).residency_frac == 0


def test_a_cache_splits_no_finer_than_its_heads():
    """4 heads: on 8 GPUs each is held twice, and only the weights' share leaves more room."""
    four, eight = placement(MOE, 4), placement(MOE, 8)
    assert eight.kv_tokens < 1.3 * four.kv_tokens
    assert placement(DENSE_32B, 8).kv_tokens > 2 * placement(DENSE_32B, 4).kv_tokens


def test_latent_attention_has_a_cache_on_every_gpu_until_it_is_replicated():
    model = "deepseek-ai/DeepSeek-V3"
    split = placement(model, 8, gpu="H200")
    copies = placement(
        model,
        8,
        "engine.args.enable_expert_parallel=true",
        "engine.args.data_parallel_size=8",
        gpu="H200",
    )
    assert (split.tensor, split.expert, split.copies) == (8, 1, 1)
    assert (copies.tensor, copies.expert, copies.copies) == (1, 8, 8)
    assert copies.weights_bytes > split.weights_bytes, "eight attentions instead of one"
    assert copies.kv_tokens > 5 * split.kv_tokens, "eight caches instead of eight copies of one"


def test_the_engines_own_words_count():
    assert placement(MOE, 2, "engine.args.enable_expert_parallel=true").expert == 2
    assert placement(DENSE_14B, 2, "engine.args.enable_expert_parallel=true").expert == 1
    assert placement(MOE, 1, "engine.args.max_num_seqs=7").sequences == 7
    assert placement(MOE, 1, "engine.args.gpu_memory_utilization=0.5").fits is False
    assert placement(MOE, 1, "engine.args.kv_cache_dtype=fp8").kv_tokens == pytest.approx(
        2 * placement().kv_tokens, abs=2
    )
    assert placement(MOE, 1, "engine.args.enforce_eager=true").deployment().execution == "eager"


def test_eight_bit_products_need_a_gpu_that_has_them():
    assert placement(MOE, weights="fp8").deployment().widths.compute == "fp8"
    held = placement(MOE, gpu="A100", weights="fp8").deployment().widths
    assert (held.routed, held.compute) == (1.0, "bf16")


def test_longer_than_the_cache_does_not_fit():
    assert placement(DENSE_32B).fits
    assert not placement(
        DENSE_32B, 1, "workload.input_tokens=39000", "engine.args.gpu_memory_utilization=0.85"
    ).fits


@pytest.mark.parametrize("gpus", [3, 5, 7])
def test_a_split_that_cannot_be_names_those_that_can(gpus):
    with pytest.raises(InputError, match=r"32 attention heads; possible: 1, 2, 4, 8, 16, 32$"):
        placement(MOE, gpus)


def test_as_few_as_hold_the_load():
    asked = question(DENSE_32B)
    candidate, gpu = asked.candidates[0], asked.gpus[0]
    assert smallest(asked, candidate, gpu).gpus == 1
    assert smallest(asked, candidate, gpu, 128).gpus == 2, "128 × 768 tokens of 256 KiB are 24 GiB"
    assert smallest(asked, candidate, catalog.find_gpus("T4")[0]).gpus == 8


def test_equal_numbers_for_all():
    asked = question(MOE, DENSE_14B, gpu="4090")
    assert {each.gpus for each in together(asked, asked.candidates, asked.gpus[0])} == {4}
    huge = question("moonshotai/Kimi-K2-Instruct", DENSE_14B, gpu="T4")
    assert together(huge, huge.candidates, huge.gpus[0]) == ()


PLAIN = [entry.id for entry in catalog.models().values() if not entry.computed_vision_params]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(PLAIN), st.sampled_from(["H100", "H200", "A100", "L40S", "B200"]), st.integers(1, 64))
def test_a_plan_and_a_run_go_by_one_rule(name, gpu, requests):
    """As many GPUs as ``profile run`` would take on a machine of 8."""
    overrides = [f"load.concurrency={requests}", "workload.input_tokens=256", "workload.output_tokens=128"]
    asked = question(name, gpu=gpu, overrides=overrides)
    candidate, spec = asked.candidates[0], asked.gpus[0]
    planned = smallest(asked, candidate, spec, requests)
    machine = (Gpu(uuid="x", name=spec.gpu, memory_bytes=spec.memory_bytes),) * 8
    scene = asked.scenario
    model = candidate.model
    try:
        run = fit.check_fit(model, scene.engine, scene.workload, scene.load, machine, 1 << 40).tensor_parallel
    except InputError:
        assert smallest(asked, candidate, spec) is None or smallest(asked, candidate, spec).gpus > 8
        return
    if planned is not None and planned.gpus <= 8:
        assert planned.gpus == run
    else:  # runs, queueing: the largest that holds the weights
        assert [each.gpus for each in places(asked, candidate, spec, 8) if each.fits][-1] == run


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(PLAIN), st.floats(8, 300))
def test_more_memory_never_holds_less(name, gigabytes):
    asked = question(name, overrides=["workload.input_tokens=128", "workload.output_tokens=64"])
    small = msgspec.structs.replace(asked.gpus[0], mem_gb=gigabytes)
    large = msgspec.structs.replace(asked.gpus[0], mem_gb=gigabytes * 1.5)
    one, two = (place(asked, asked.candidates[0], gpu, 1) for gpu in (small, large))
    assert one.kv_tokens <= two.kv_tokens
    assert one.fits <= two.fits
