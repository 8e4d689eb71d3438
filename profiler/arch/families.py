"""The families of models that are known, by the ``model_type`` of their config.

Taken from the modules in transformers (5.x, ``modeling_<family>.py``), against which the tests count.
"""

from __future__ import annotations

from profiler.arch.attention import gated_alongside, gemma4, indexed, latent, mimo
from profiler.arch.family import (
    Family,
    after_dense,
    always,
    any_experts,
    between,
    every,
    interleaved,
    mimo_window,
    periodic,
    qwen_window,
    sparse_step,
)
from profiler.arch.feed import beside_dense, granite
from profiler.arch.keys import Config, has
from profiler.arch.recurrent import (
    gated_delta_net,
    kimi_delta,
    lightning,
    mamba,
    mamba2,
    short_convolution,
)

_DEEPSEEK = Family(attention=latent, bias="config", is_moe=after_dense)
_SPARSE = Family(attention=indexed, bias="config", is_moe=after_dense)
_GRANITE_MOE = Family(bias="config", feed=granite, linear=mamba2)

FAMILIES: dict[str, Family] = {
    # Llama and its kin
    "llama": Family(bias="config"),
    "mistral": Family(windowed=always),
    "ministral3": Family(windowed=always),
    "phi3": Family(windowed=always),
    "smollm3": Family(bias="config"),
    "granite": Family(bias="config"),
    "seed_oss": Family(bias="config_qkv"),
    "ernie4_5": Family(bias="config", bias_key="use_bias", mlp_bias_key="use_bias", tied=True),
    "arcee": Family(bias="config", gated=False),
    "nemotron": Family(bias="config", gated=False, norm_bias=True),
    "starcoder2": Family(
        bias="config",
        bias_key="use_bias",
        mlp_bias_key="use_bias",
        gated=False,
        norm_bias=True,
        tied=True,
        windowed=always,
    ),
    "qwen2": Family(bias="qkv", windowed=qwen_window),
    "qwen2_5_vl": Family(bias="qkv", windowed=qwen_window),
    "qwen3": Family(bias="config", qk_norm="head", windowed=qwen_window),
    "qwen3_vl": Family(bias="config", qk_norm="head"),
    "qwen3_5": Family(bias="config", qk_norm="head", query_gate=True, linear=gated_delta_net),
    "hunyuan_v1_dense": Family(bias="config", qk_norm="head"),
    "olmo2": Family(bias="config", qk_norm="width"),
    "olmo3": Family(bias="config", qk_norm="width", windowed=every(4)),
    "exaone4": Family(qk_norm="head", windowed=every(4)),
    "cohere2": Family(bias="config", norms_per_layer=1, tied=True, windowed=every(4)),
    "glm": Family(bias="config_qkv"),
    "glm4": Family(bias="config_qkv", norms_per_layer=4),
    "gemma": Family(bias="config", tied=True),
    "gemma2": Family(bias="config", norms_per_layer=4, tied=True, windowed=every(2)),
    "gemma3": Family(bias="config", qk_norm="head", norms_per_layer=4, tied=True, windowed=every(6)),
    "lfm2": Family(qk_norm="head", tied=True, linear=short_convolution),
    "bamba": Family(bias="config", linear=mamba2),
    # experts
    "mixtral": Family(is_moe=always, windowed=always),
    "qwen2_moe": Family(bias="qkv", shared_gate=True, is_moe=sparse_step, windowed=qwen_window),
    "qwen3_moe": Family(bias="config", qk_norm="head", is_moe=sparse_step, windowed=qwen_window),
    "qwen3_vl_moe": Family(bias="config", qk_norm="head", is_moe=sparse_step),
    "qwen3_next": Family(
        bias="config",
        qk_norm="head",
        query_gate=True,
        shared_gate=True,
        is_moe=sparse_step,
        linear=gated_delta_net,
    ),
    "qwen3_5_moe": Family(
        bias="config",
        qk_norm="head",
        query_gate=True,
        shared_gate=True,
        is_moe=always,
        linear=gated_delta_net,
    ),
    "olmoe": Family(bias="config", qk_norm="width", is_moe=always),
    "flex_olmo": Family(bias="config", qk_norm="width", is_moe=always),
    "phimoe": Family(bias="config", norm_bias=True, is_moe=always, windowed=always),
    "granitemoe": _GRANITE_MOE,
    "granitemoeshared": _GRANITE_MOE,
    "granitemoehybrid": _GRANITE_MOE,
    "glm4_moe": Family(bias="config_qkv", qk_norm="config_head", is_moe=after_dense),
    "glm4_moe_lite": _DEEPSEEK,
    "glm_moe_dsa": _SPARSE,
    "gpt_oss": Family(
        bias="all", sinks=True, router_bias=True, expert_bias=True, is_moe=always, windowed=every(2)
    ),
    "llama4": Family(bias="config", shared_experts=1, is_moe=interleaved, windowed=every(4)),
    "deepseek": Family(bias="config", is_moe=after_dense),
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "deepseek_v32": _SPARSE,
    "kimi_k2": _DEEPSEEK,
    "kimi_linear": Family(attention=latent, bias="config", is_moe=after_dense, linear=kimi_delta),
    "dots1": Family(bias="config", qk_norm="head", is_moe=after_dense, windowed=qwen_window),
    "solar_open": Family(bias="config", is_moe=after_dense),
    "hy_v3": Family(bias="config", qk_norm="head", is_moe=after_dense),
    "exaone_moe": Family(qk_norm="head", is_moe=after_dense, windowed=every(4)),
    "ernie4_5_moe": Family(
        bias="config",
        bias_key="use_bias",
        mlp_bias_key="use_bias",
        router_bias=True,
        tied=True,
        is_moe=between,
    ),
    "hunyuan_v1_moe": Family(bias="config", qk_norm="head", shared_experts=1, is_moe=always),
    "minimax": Family(is_moe=always, linear=lightning),
    "minimax_m2": Family(qk_norm="width", is_moe=always),
    "mimo_v2_flash": Family(bias="config_qkv", is_moe=after_dense, windowed=mimo_window, attention=mimo),
    "afmoe": Family(
        bias="config",
        qk_norm="head",
        norms_per_layer=4,
        router_bias=True,
        is_moe=after_dense,
        windowed=every(4, "global_attn_every_n_layers"),
        attention=gated_alongside,
    ),
    "cohere2_moe": Family(bias="config", norms_per_layer=1, tied=True, is_moe=after_dense, windowed=every(4)),
    "gemma4": Family(
        bias="config",
        qk_norm="head",
        norms_per_layer=4,
        tied=True,
        windowed=every(6),
        attention=gemma4,
        feed=beside_dense,
    ),
    "lfm2_moe": Family(qk_norm="head", tied=True, is_moe=after_dense, linear=short_convolution),
    "jamba": Family(is_moe=periodic, linear=mamba),
    "nemotron_h": Family(bias="config", gated=False, norms_per_layer=1, alone=True, linear=mamba2),
}


def usual(c: Config) -> Family:
    """What an architecture that is not known most likely has, judged by its config's keys.  Feed-forward
    blocks with an activation that seldom comes with a gate are counted without one: rather less than more."""
    activation = str(c.get("hidden_act") or c.get("hidden_activation") or "silu")
    return Family(
        bias="config",
        gated=activation in ("silu", "swish", "swiglu", "geglu", "gelu_pytorch_tanh"),
        tied=False,
        is_moe=any_experts,
        attention=latent if has(c, "kv_lora_rank") else None,
        linear=gated_delta_net if has(c, "linear_num_value_heads") else None,
    )
