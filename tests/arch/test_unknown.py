"""Architectures that are not known: counted as far as their config goes, and what is left out is said."""

from __future__ import annotations

import json
import re

import pytest

from profiler import arch, catalog, fit, models, scenario
from profiler.errors import InputError
from tests.arch.test_facts import MODELS

CHAT = scenario.load("chat")
KNOWN = MODELS["Qwen/Qwen3-30B-A3B"].config


def unknown(config: dict, **changes: object) -> dict:
    return {**config, "model_type": "brand_new", "architectures": ["BrandNewForCausalLM"], **changes}


@pytest.mark.parametrize(
    "name",
    [
        "Qwen/Qwen3-30B-A3B",
        "meta-llama/Meta-Llama-3.1-8B",
        "deepseek-ai/DeepSeek-V3",
        "mistralai/Mixtral-8x7B-v0.1",
        "Qwen/Qwen3-32B",
        "allenai/OLMoE-1B-7B-0924",
    ],
)
def test_a_usual_decoder_under_an_unknown_name_is_counted_within_a_percent(name):
    known = arch.model_facts(MODELS[name].config, "x")
    facts = arch.model_facts(unknown(MODELS[name].config), "x")
    assert known.total_params * 0.99 < facts.total_params <= known.total_params
    assert facts.kv_bytes_per_token == known.kv_bytes_per_token
    assert (facts.experts, facts.experts_per_token) == (known.experts, known.experts_per_token)
    assert len(facts.missing) == 1
    assert "BrandNewForCausalLM (model_type 'brand_new') is not known" in facts.missing[0]


def test_other_makers_names_are_understood():
    """As inclusionAI's Ling writes them, which transformers does not know."""
    config = {
        "model_type": "bailing_moe",
        "hidden_size": 2048,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "intermediate_size": 5632,
        "moe_intermediate_size": 1408,
        "num_experts": 64,
        "num_shared_experts": 2,
        "num_experts_per_tok": 6,
        "first_k_dense_replace": 0,
        "hidden_act": "silu",
        "vocab_size": 126464,
        "tie_word_embeddings": False,
    }
    facts = arch.model_facts(config, "x")
    assert facts.total_params == pytest.approx(16.8e9, rel=0.01)  # Ling-lite: 16.8B, 2.75B of them active
    assert facts.active_params == pytest.approx(2.75e9, rel=0.02)


def test_a_wrapper_is_known_by_the_model_inside():
    config = {"model_type": "some_vision_wrapper", "text_config": KNOWN}
    facts = arch.model_facts(config, "x")
    assert facts.missing == ()
    assert facts.total_params == MODELS["Qwen/Qwen3-30B-A3B"].computed_text_params


def test_what_cannot_be_counted_at_all_names_the_key_and_its_names():
    gone = {key: value for key, value in unknown(KNOWN).items() if key != "hidden_size"}
    with pytest.raises(arch.UnsupportedArchitectureError, match="BrandNew") as caught:
        arch.shape(gone)
    assert "hidden_size is missing" in str(caught.value)
    assert "looked for under hidden_size, d_model, n_embd" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("num_experts_per_tok", "moe_topk"),
        ("num_experts", "n_routed_experts"),
        ("num_attention_heads", "n_head"),
    ],
)
def test_a_known_architecture_names_what_a_missing_key_was_looked_for_under(key, names):
    with pytest.raises(InputError, match=rf"{key} is missing, .*looked for under {key}, .*{names}"):
        arch.shape({name: value for name, value in KNOWN.items() if name != key})


def test_per_layer_lists_of_one_number_are_that_number():
    listed = KNOWN | {"num_experts_per_tok": [8] * 48}
    assert arch.shape(listed) == arch.shape(KNOWN)
    with pytest.raises(InputError, match=re.escape("num_experts_per_tok is [8, 4], expected a whole number")):
        arch.shape(KNOWN | {"num_experts_per_tok": [8, 4]})


def folder(tmp_path, config: dict):
    (tmp_path / "config.json").write_text(json.dumps(config))
    return str(tmp_path)


def test_a_local_model_of_an_unknown_architecture_can_be_run(tmp_path):
    found = models.resolve(folder(tmp_path, unknown(catalog.tiny_models()["tiny-moe"])))
    assert found.facts is not None
    assert found.facts.missing
    assert any(note.startswith("sizes are lower bounds, not counted: ") for note in found.notes)


def test_one_that_cannot_be_counted_has_no_facts_and_runs_too(tmp_path):
    found = models.resolve(folder(tmp_path, {"model_type": "brand_new"}))
    assert found.facts is None
    assert any("nor is it a usual decoder" in note for note in found.notes)


def test_a_lower_bound_that_does_not_fit_says_at_least(tmp_path):
    model = models.resolve(folder(tmp_path, unknown(MODELS["Qwen/Qwen2.5-72B"].config)))
    with pytest.raises(InputError, match=r"does not fit .*\nIt needs at least \d"):
        fit.check_fit(model, CHAT.engine, CHAT.workload, CHAT.load, (), 22 << 30)
