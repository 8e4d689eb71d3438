"""The ceiling of a step: limits known in closed form, and published figures."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import arch, catalog, experts, roofline
from profiler.arch import work
from profiler.errors import InputError
from profiler.roofline import Split

BF16 = work.Widths(routed=2, other=2, embedding=2)
BARE = work.Widths(routed=2, other=2, embedding=2, activation=0)
MOE = "Qwen/Qwen3-30B-A3B"


def shape(name: str) -> arch.Shape:
    entry = catalog.find(name)
    assert entry
    return arch.shape(entry.config)


def spec(name: str) -> catalog.GpuSpec:
    return next(each for each in catalog.gpus() if each.gpu == name)


ALONE = Split()
H100, H20 = spec("H100 SXM5 80GB"), spec("H20 96GB")


def skewed(feed, tokens):
    return experts.distinct_skewed(feed.experts, feed.per_token, tokens, 1.12)


def decode(name: str, batch, gpu=H100, split=ALONE) -> roofline.Ceiling:
    step = work.Batch(decode_sequences=np.asarray(batch, float), decode_context=1024)
    return roofline.ceiling(shape(name), BF16, step, gpu, split, skewed)


# Ratio of ideal times dense / Qwen3-30B-A3B at 1,024 tokens of context and a skew of 1.12, worked out
# independently of this code; ours counts activations too, which shows at the largest batches only.
PUBLISHED = [
    (H100, "Qwen/Qwen3-32B", {1: 10.4, 8: 2.96, 32: 1.74, 128: 1.55, 512: 2.26, 4096: 3.95}),
    (H100, "Qwen/Qwen3-14B", {1: 4.57, 8: 1.31, 16: 0.97, 64: 0.74, 512: 1.22, 4096: 2.14}),
    (H100, "Qwen/Qwen3-8B", {1: 2.48, 8: 0.73, 32: 0.48, 64: 0.48, 1024: 1.24}),
    (H20, "Qwen/Qwen3-32B", {64: 2.38, 128: 3.67, 1024: 7.5}),
]


@pytest.mark.parametrize(("gpu", "dense", "ratios"), PUBLISHED)
def test_the_advantage_of_a_moe_is_u_shaped(gpu, dense, ratios):
    batches = list(ratios)
    found = decode(dense, batches, gpu).seconds / decode(MOE, batches, gpu).seconds
    assert found == pytest.approx(list(ratios.values()), rel=0.05)


def test_a_single_sequence_is_bound_by_bytes_over_bandwidth():
    model = shape("Qwen/Qwen3-8B")
    step = work.Batch(decode_sequences=1, decode_context=0)
    found = roofline.ceiling(model, BARE, step, H100)
    read = work.weight_bytes(model, BARE) - 2 * model.input_embedding_params
    assert found.seconds == pytest.approx(read / 3.35e12, rel=1e-3)
    assert found.bound_by == "bandwidth"


def test_a_huge_prompt_batch_is_bound_by_flops_over_rate():
    model = shape("Qwen/Qwen3-8B")
    step = work.Batch(prefill_sequences=64, prefill_tokens=1024)
    found = roofline.ceiling(model, BARE, step, H100)
    flops = sum(op.flops for op in work.step(model, BARE, step))
    assert found.seconds == pytest.approx(flops / 989e12, rel=0.01)
    assert found.bound_by == "compute"


@given(st.integers(1, 4000), st.integers(1, 4000))
def test_more_sequences_never_take_less_time(one, other):
    few, many = sorted((one, other))
    assert decode(MOE, few).seconds <= decode(MOE, many).seconds


@pytest.mark.parametrize("name", [MOE, "Qwen/Qwen3-32B"])
def test_two_gpus_read_half_each_and_tell_each_other(name):
    alone, split = decode(name, 4), decode(name, 4, split=Split(tensor=2, kv_heads=4))
    assert split.bandwidth_s == pytest.approx(alone.bandwidth_s / 2, rel=0.01)
    assert alone.communication_s == 0 < split.communication_s


def test_a_ring_over_two_sends_each_sum_once():
    model = shape("Qwen/Qwen3-32B")
    sent = roofline.link_bytes(model, BF16, 10, Split(tensor=2))
    assert sent == 2 * 64 * 10 * 5120 * 2  # sums a layer · layers · tokens · hidden · bytes


def test_a_cache_is_cut_no_finer_than_its_heads():
    op = work.Op(name="attention", layers=1, splits="kv", flops=80, cache_bytes=80)
    assert roofline.share(op, Split(tensor=8, kv_heads=4)) == (0, 20, 10)


def test_experts_beyond_the_tensor_group_share_the_batch():
    op = work.Op(name="dense", layers=1, splits="tensor", flops=80, weight_bytes=80, activation_bytes=80)
    assert roofline.share(op, Split(tensor=2, expert=8)) == (40 + 10, 0, 10)


def test_what_all_gpus_do_is_not_divided():
    op = work.Op(name="norms", layers=1, splits="none", weight_bytes=80)
    assert roofline.share(op, Split(tensor=4))[0] == 80


def test_without_fp8_units_products_are_in_bf16():
    assert roofline.flops_per_s(spec("A100 SXM4 80GB"), "fp8") == 312e12
    assert roofline.flops_per_s(H100, "fp8") == 1979e12


def test_without_nvlink_gpus_talk_over_pci_express():
    assert roofline.link_bytes_per_s(spec("L40S 48GB")) == 32e9
    assert roofline.link_bytes_per_s(H100) == 450e9


def test_a_sheet_without_bandwidth_is_refused_in_one_line():
    bare = msgspec.structs.replace(H100, mem_bw_gbs=None)
    with pytest.raises(InputError, match=r"H100 SXM5 80GB's memory bandwidth: add mem_bw_gbs") as caught:
        decode(MOE, 1, bare)
    assert "\n" not in str(caught.value)
