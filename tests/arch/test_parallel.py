"""Which numbers of GPUs can share a model, and what is said of the others."""

from __future__ import annotations

import pytest

from profiler import arch
from tests.arch.test_facts import MODELS


def sizes(name: str, most: int = 16, block: int = 1) -> arch.Sizes:
    return arch.parallel_sizes(arch.shape(MODELS[name].config), most, block=block)


@pytest.mark.parametrize(
    ("name", "tensor", "expert"),
    [
        ("Qwen/Qwen3-30B-A3B", (1, 2, 4, 8, 16), (1, 2, 4, 8, 16)),
        ("Qwen/Qwen2.5-0.5B", (1, 2), (1,)),  # 14 heads, 2 of keys
        ("Qwen/Qwen2.5-7B", (1, 2, 4), (1,)),  # 28 heads of which 7 would divide, but 4 of keys do not
        ("Qwen/Qwen1.5-MoE-A2.7B", (1, 2, 4, 8, 16), (1, 2, 3, 4, 5, 6, 10, 12, 15)),
        ("deepseek-ai/DeepSeek-V3", (1, 2, 4, 8, 16), (1, 2, 4, 8, 16)),
        ("Qwen/Qwen3.5-27B", (1, 2, 4, 8), (1,)),  # 24 heads, 16 recurrent ones of keys; 17408 wide
    ],
)
def test_sizes_that_divide_heads_widths_and_experts(name, tensor, expert):
    found = sizes(name)
    assert found.tensor == tensor
    assert found.expert == expert


def test_blocks_of_a_quantised_format_are_not_parted():
    """Qwen3-235B-A22B in FP8: 1536 / 8 is 192, one and a half blocks of 128."""
    assert 8 in sizes("Qwen/Qwen3-235B-A22B").tensor
    assert sizes("Qwen/Qwen3-235B-A22B", block=128).tensor == (1, 2, 4)
    shape = arch.shape(MODELS["Qwen/Qwen3-235B-A22B"].config)
    assert "whole blocks of 128" in arch.tensor_obstacle(shape, 8, block=128)


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("Qwen/Qwen3-32B", 3, "64 attention heads"),
        ("Qwen/Qwen3.5-27B", 3, "16 recurrent key heads"),
        ("ibm-granite/granite-3.0-3b-a800m-instruct", 3, "feed-forward width of 512"),
    ],
)
def test_the_obstacle_is_named(name, size, words):
    obstacle = arch.tensor_obstacle(arch.shape(MODELS[name].config), size)
    assert obstacle.startswith(words)


def test_heads_of_keys_are_divided_or_repeated():
    """12 heads and 4 of keys: 3 or 6 GPUs would hold parts of one."""
    config = {"model_type": "llama", "hidden_size": 96, "num_hidden_layers": 2, "vocab_size": 64}
    config |= {"num_attention_heads": 12, "num_key_value_heads": 4, "intermediate_size": 96}
    shape = arch.shape(config)
    assert arch.parallel_sizes(shape, 12).tensor == (1, 2, 4, 12)
    assert arch.tensor_obstacle(shape, 3).startswith("4 key-value heads")


def test_experts_are_shared_out_whole():
    shape = arch.shape(MODELS["Qwen/Qwen3-30B-A3B"].config)
    assert arch.expert_obstacle(shape, 3) == "128 experts"
    assert arch.expert_obstacle(shape, 64) is None
    dense = arch.shape(MODELS["Qwen/Qwen3-32B"].config)
    assert arch.expert_obstacle(dense, 1) is None
    assert "has none" in arch.expert_obstacle(dense, 2)


def test_the_refusal_is_one_line_that_says_what_would_do():
    shape = arch.shape(MODELS["Qwen/Qwen3-32B"].config)
    found = arch.parallel_sizes(shape, 8)
    error = arch.refusal("--gpus 3", "Qwen3-32B", arch.tensor_obstacle(shape, 3), found.tensor)
    assert str(error) == "--gpus 3 does not divide Qwen3-32B's 64 attention heads; possible: 1, 2, 4, 8"
    assert found.reasons == ("64 attention heads", "feed-forward width of 25600")
