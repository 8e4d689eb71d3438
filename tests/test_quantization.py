"""Bytes of a weight by what a checkpoint's quantization_config says."""

from __future__ import annotations

import msgspec
import pytest

from profiler import arch, catalog, quantization, weight_sizes
from profiler.arch import work
from profiler.errors import InputError
from profiler.schema import Model

MOE = "Qwen/Qwen3-30B-A3B"
GROUP = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}
CHANNEL = {"num_bits": 8, "type": "float", "strategy": "channel"}
NVFP4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
BLOCK = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]}


def compressed(weights: dict, **more: object) -> dict:
    group = {"weights": weights, "targets": ["Linear"], **more}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}


@pytest.mark.parametrize(
    ("found", "each", "eight_bit"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 1 + 4 / 128**2, True),
        ({"quant_method": "fp8"}, 1, True),
        ({"quant_method": "fbgemm_fp8"}, 1, True),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 0.5 + 2.5 / 128, False),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 1, False),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, 0.5 + 2.5 / 64, False),
        ({"quant_method": "awq"}, 0.5 + 2.5 / 128, False),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 1, False),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 0.5 + 4 / 64, False),
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True},
            0.5 + 1 / 64 + 4 / 16384,
            False,
        ),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 4.5 / 8, True),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, 1, True),
        (compressed(GROUP), 0.5 + 2 / 128, False),
        (compressed({**GROUP, "symmetric": False}), 0.5 + 2.5 / 128, False),
        (compressed(CHANNEL, input_activations={"num_bits": 8}), 1, True),
        (compressed(CHANNEL), 1, False),
        (compressed(NVFP4), 4.5 / 8, False),
        (compressed(BLOCK, input_activations={"num_bits": 8}), 1 + 4 / 128**2, True),
        ({"quant_method": "something new", "bits": 3, "group_size": 128}, 3 / 8 + (2 + 3 / 8) / 128, False),
        ({"quant_method": "something new"}, 1, False),
    ],
)
def test_bytes_of_a_weight_with_its_scales(found, each, eight_bit):
    held = quantization.read(found, 48)
    assert held.attention == held.routed == held.other == pytest.approx(each)
    assert held.eight_bit == eight_bit


def test_mxfp4_is_of_the_experts():
    held = quantization.read({"quant_method": "mxfp4"}, 24)
    assert (held.attention, held.routed, held.other) == (2.0, 4.25 / 8, 2.0)


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("modules_to_not_convert", ["lm_head", "self_attn"]),
        ("ignore", ["re:.*self_attn.*", "lm_head", "re:.*mlp.gate$"]),
        ("ignored_layers", [f"model.layers.{i}.self_attn" for i in range(48)]),
        ("ignore", ["model.layers.*.self_attn"]),
        ("ignore", ["model.layers.24.self_attn*"]),
    ],
)
def test_what_a_format_leaves_alone_keeps_two_bytes(key, names):
    for found in ({"quant_method": "fp8"}, compressed(CHANNEL)):
        held = quantization.read({**found, key: names}, 48)
        assert (held.attention, held.routed, held.other) == (2.0, 1.0, 1.0)


def test_a_dot_ends_a_name():
    """``mlp.gate`` is the router, ``model.layers.2`` not the twenty-fourth layer."""
    held = quantization.read({"quant_method": "fp8", "ignore": ["mlp.gate", "model.layers.2"]}, 48)
    assert held.attention == held.routed == held.other == 1.0


def test_groups_of_modules_have_their_own_bytes():
    groups = {
        "experts": {"weights": GROUP, "targets": ["re:.*experts.*"]},
        "rest": {"weights": CHANNEL, "targets": ["re:.*self_attn.*"]},
    }
    held = quantization.read({"quant_method": "compressed-tensors", "config_groups": groups}, 48)
    assert (held.routed, held.attention, held.other) == (0.5 + 2 / 128, 1.0, 2.0)


def test_the_cache_may_be_narrow_too():
    found = {**compressed(CHANNEL), "kv_cache_scheme": {"num_bits": 8, "type": "float"}}
    assert weight_sizes.widths(model(found), "bfloat16").cache == 1.0
    assert weight_sizes.widths(model(compressed(CHANNEL)), "bfloat16").cache == 2.0


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"quant_method": "gptq", "bits": "four"}, "bits is 'four', expected a whole number"),
        ({"quant_method": "fp8", "weight_block_size": 128}, "weight_block_size is 128, expected a list"),
        ({"quant_method": "fp8", "ignore": "lm_head"}, "ignore is 'lm_head', expected a list of strings"),
        ({"quant_method": "fp8", "ignore": ["re:("]}, "expected a regular expression"),
        ({"quant_method": "compressed-tensors", "config_groups": [1]}, "expected an object of objects"),
    ],
)
def test_a_broken_config_names_its_key(found, words):
    with pytest.raises(InputError, match=r"quantization_config\..*" + words):
        quantization.read(found, 48)


def model(found: dict | None, weights: str = "local") -> Model:
    config = catalog.models()[MOE].config
    facts = arch.model_facts(config, "x")
    return Model(name="mine", weights=weights, config={**config, "quantization_config": found}, facts=facts)


def test_random_weights_are_drawn_in_plain_numbers():
    held = weight_sizes.widths(model({"quant_method": "fp8"}, "random"), "float32")
    assert (held.routed, held.other, held.embedding, held.cache) == (4.0, 4.0, 4.0, 4.0)
    assert held.compute == "fp32"


def test_parts_and_total_come_from_one_account():
    """30.5 GB of parameters in FP8, the table, head, router and norms in two bytes."""
    quantised = model({"quant_method": "fp8", "weight_block_size": [128, 128]})
    parts = weight_sizes.weight_sizes(quantised, quantised.facts, "bfloat16")
    held = weight_sizes.widths(quantised, "bfloat16")
    assert parts.total == work.weight_bytes(arch.shape(quantised.config), held)
    kept = quantised.facts.embedding_params + 48 * (2048 * 128 + 2 * 2048) + 2048
    wanted = (quantised.facts.total_params - kept) * (1 + 4 / 16384) + 2 * kept
    assert parts.total == pytest.approx(wanted, rel=1e-9)
    assert held.compute == "fp8"
    plain = msgspec.structs.replace(quantised, config=catalog.models()[MOE].config)
    assert weight_sizes.weight_bytes_each(plain, "bfloat16") == 2.0


@pytest.mark.parametrize(
    ("found", "block"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 128),
        ({"quant_method": "gptq", "bits": 4, "group_size": 64}, 64),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, 1),
        ({"quant_method": "fp8"}, 1),
    ],
)
def test_blocks_that_no_cut_may_part(found, block):
    assert weight_sizes.block(model(found)) == block
    assert weight_sizes.block(model(found, "random")) == 1
