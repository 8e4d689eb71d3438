"""Families beyond the catalog's, configured as their makers do, counted against transformers' modules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import arch
from profiler.errors import InputError
from tests.arch.test_facts import count, implied

BASE = {
    "hidden_size": 64,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "intermediate_size": 96,
    "vocab_size": 100,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
    "pad_token_id": None,
}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
ROUTED = {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
LATENT = {"kv_lora_rank": 16, "q_lora_rank": 20, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4}
LATENT |= {"v_head_dim": 12, "num_key_value_heads": 4, "head_dim": None}
INDEXED = {"index_topk": 8, "index_n_heads": 2, "index_head_dim": 16}
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
WINDOWS = {"sliding_window": 16, "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 2}
GROUPS = {"n_group": 1, "topk_group": 1}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 2, "mamba_d_state": 12}
MAMBA |= {"mamba_d_conv": 4, "mamba_expand": 2, "mamba_chunk_size": 32}
NEMOTRON = {"mamba_num_heads": 8, "mamba_head_dim": 16, "n_groups": 2, "ssm_state_size": 12, "conv_kernel": 4}
NEMOTRON |= {"chunk_size": 32, "n_shared_experts": 1, "moe_shared_expert_intermediate_size": 56}
GEMMA4 = {"global_head_dim": 32, "hidden_size_per_layer_input": 0, "num_global_key_value_heads": 1}
GEMMA4 |= {"layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 2, "sliding_window": 16}
KIMI = {"full_attn_layers": [4, 8], "kda_layers": [1, 2, 3, 5, 6, 7], "head_dim": 24, "num_heads": 4}
KIMI |= {"short_conv_kernel_size": 4}
HALF = ["linear_attention", "full_attention"] * 4

CASES = [
    ("ministral3", {}),
    ("smollm3", {"tie_word_embeddings": True, "mlp_bias": True}),
    ("granite", {"attention_bias": True}),
    ("seed_oss", {"attention_bias": True, "attention_out_bias": False}),
    ("seed_oss", {"attention_bias": True, "attention_out_bias": True}),
    ("ernie4_5", {"tie_word_embeddings": True}),
    ("ernie4_5", {"use_bias": True}),
    ("arcee", {"mlp_bias": True}),
    ("nemotron", {"attention_bias": True}),
    ("starcoder2", {"use_bias": True, "head_dim": 16}),
    ("hunyuan_v1_dense", ROPE),
    ("olmo3", WINDOWS),
    ("exaone4", WINDOWS | {"head_dim": 16}),
    ("cohere2", WINDOWS | {"tie_word_embeddings": True}),
    ("glm", {"attention_bias": True}),
    ("glm4", {"attention_bias": True}),
    ("gemma", {"tie_word_embeddings": True}),
    ("gemma4_text", GEMMA4 | {"tie_word_embeddings": True}),
    ("gemma4_text", GEMMA4 | {"num_kv_shared_layers": 4, "use_double_wide_mlp": True}),
    (
        "gemma4_text",
        GEMMA4 | EXPERTS | {"enable_moe_block": True, "top_k_experts": 2, "attention_k_eq_v": True},
    ),
    (
        "lfm2",
        {
            "layer_types": ["conv", "full_attention"] * 4,
            "conv_L_cache": 3,
            "block_multiple_of": 32,
            "block_auto_adjust_ff_dim": True,
            "block_ffn_dim_multiplier": 1.5,
        },
    ),
    ("lfm2", {"full_attn_idxs": [2, 5], "conv_L_cache": 3, "block_auto_adjust_ff_dim": False}),
    ("bamba", MAMBA | {"attn_layer_indices": [3, 6]}),
    ("flex_olmo", EXPERTS | {"moe_intermediate_size": None}),
    ("granitemoeshared", {"num_local_experts": 8, "num_experts_per_tok": 2, "shared_intermediate_size": 48}),
    (
        "granitemoehybrid",
        MAMBA
        | {"num_local_experts": 8, "num_experts_per_tok": 2, "shared_intermediate_size": 48}
        | {"layer_types": ["mamba", "attention"] * 4},
    ),
    (
        "granitemoehybrid",
        MAMBA
        | {"num_local_experts": 0, "num_experts_per_tok": 0, "shared_intermediate_size": 48}
        | {"layer_types": ["mamba"] * 7 + ["attention"]},
    ),
    ("glm4_moe_lite", LATENT | ROUTED | GROUPS | {"n_shared_experts": 1, "first_k_dense_replace": 1}),
    ("glm_moe_dsa", LATENT | ROUTED | GROUPS | INDEXED | {"n_shared_experts": 1, "first_k_dense_replace": 3}),
    (
        "deepseek_v32",
        LATENT | ROUTED | GROUPS | INDEXED | {"n_shared_experts": 1, "first_k_dense_replace": 3},
    ),
    (
        "kimi_linear",
        LATENT
        | {"q_lora_rank": None, "linear_attn_config": KIMI, "num_shared_experts": 1}
        | {
            "num_experts": 8,
            "num_experts_per_token": 2,
            "moe_intermediate_size": 40,
            "first_k_dense_replace": 1,
        },
    ),
    ("dots1", ROUTED | GROUPS | {"n_shared_experts": 2, "first_k_dense_replace": 1}),
    ("solar_open", ROUTED | GROUPS | {"n_shared_experts": 1}),
    ("hy_v3", EXPERTS | {"num_shared_experts": 1, "mlp_layer_types": ["dense"] + ["sparse"] * 7}),
    ("exaone_moe", WINDOWS | EXPERTS | GROUPS | {"num_shared_experts": 1, "first_k_dense_replace": 1}),
    (
        "ernie4_5_moe",
        {"moe_num_experts": 8, "moe_k": 2, "moe_intermediate_size": 40, "moe_num_shared_experts": 2}
        | {"moe_layer_start_index": 1, "moe_layer_end_index": 6, "moe_layer_interval": 1},
    ),
    (
        "ernie4_5_moe",
        {"moe_num_experts": 8, "moe_k": 2, "moe_intermediate_size": 40, "moe_num_shared_experts": 0}
        | {"moe_layer_start_index": 2, "moe_layer_interval": 2, "tie_word_embeddings": True},
    ),
    ("hunyuan_v1_moe", ROPE | {"num_experts": 8, "moe_topk": 2}),
    ("minimax", {"num_local_experts": 8, "num_experts_per_tok": 2, "layer_types": HALF, "block_size": 16}),
    ("minimax_m2", {"num_local_experts": 8, "num_experts_per_tok": 2}),
    (
        "mimo_v2_flash",
        ROUTED
        | GROUPS
        | {"v_head_dim": 16, "sliding_window": 16, "mlp_layer_types": ["dense"] + ["sparse"] * 7},
    ),
    (
        "afmoe",
        EXPERTS
        | {"num_dense_layers": 2, "num_shared_experts": 1, "sliding_window": 16}
        | {"global_attn_every_n_layers": 4},
    ),
    (
        "cohere2_moe",
        {"num_experts": 8, "num_experts_per_tok": 2, "num_shared_experts": 2, "tie_word_embeddings": True}
        | {"first_k_dense_replace": 1, "sliding_window": 16},
    ),
    (
        "lfm2_moe",
        EXPERTS
        | {"num_dense_layers": 2, "conv_L_cache": 3, "conv_bias": True}
        | {"layer_types": ["conv", "full_attention"] * 4},
    ),
    (
        "jamba",
        {"num_experts": 8, "num_experts_per_tok": 2, "expert_layer_period": 2, "expert_layer_offset": 1}
        | {"attn_layer_period": 4, "attn_layer_offset": 2, "mamba_d_state": 6, "mamba_d_conv": 4}
        | {"mamba_expand": 2, "mamba_dt_rank": "auto", "head_dim": None},
    ),
    ("nemotron_h", NEMOTRON | ROUTED | {"hybrid_override_pattern": "MEM*E-ME"}),
    ("nemotron_h", NEMOTRON | ROUTED | {"hybrid_override_pattern": "MEM*E-ME", "moe_latent_size": 32}),
]


@pytest.mark.parametrize(("kind", "keys"), CASES, ids=lambda each: each if isinstance(each, str) else "")
def test_parameters_agree_exactly_with_transformers(kind, keys):
    config = {key: value for key, value in (BASE | {"model_type": kind} | keys).items() if value is not None}
    facts = arch.model_facts(config, "made up")
    assert facts.missing == ()
    assert implied(facts) == count(config | {"pad_token_id": None})


JUNK = st.sampled_from([None, "x", -1, 0, 1.5, [], [1], ["x"], {}, {"a": 1}, True, 7, 10**30, [{}], "MM*"])
MARKS = ("attn_type_list", "hybrid_layer_pattern", "moe_layer_freq", "mlp_layer_types", "linear_attn_config")


@given(case=st.sampled_from(CASES), junk=JUNK, unknown=st.booleans(), data=st.data())
def test_whatever_a_config_says_it_is_counted_or_refused_in_one_line(case, junk, unknown, data):
    config = BASE | {"model_type": "brand_new" if unknown else case[0]} | case[1]
    key = data.draw(st.sampled_from([*config, *MARKS]))
    said = ""
    try:
        facts = arch.model_facts(config | {key: junk}, "x")
        assert 0 < facts.active_params <= facts.total_params
    except InputError as error:
        said = str(error)
    assert "\n" not in said
