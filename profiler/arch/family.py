"""What sets one ``model_type``'s layers apart from another's, and the rules by which layers differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from profiler.arch.keys import Config, flag, has, listed, whole
from profiler.arch.shape import Feed, Mixer

Rule = Callable[[Config, int], bool]


def never(_config: Config, _i: int) -> bool:
    return False


def always(_config: Config, _i: int) -> bool:
    return True


class Family(Struct, frozen=True, kw_only=True):
    """How the layers of one ``model_type`` are built.

    ``bias``: which attention projections carry one (``config``: all four, if the key ``bias_key`` is true;
    ``config_qkv``: the first three, if so).  ``mlp_bias_key`` says the same of dense feed-forward blocks.
    ``qk_norm``: over one head or over all heads' width (``config_…``: if ``use_qk_norm``).
    ``gated``: feed-forward blocks have a gate beside up and down.  ``alone``: a layer is either a mixer or a
    feed-forward block.  ``shared_experts``: how many there are where the config does not say.
    ``is_moe(config, i)``: does layer i route?  ``windowed(config, i)``: does layer i keep only a window?
    ``attention``, ``linear`` and ``feed`` count a block that is not the usual one.
    """

    bias: Literal["none", "qkv", "all", "config", "config_qkv"] = "none"
    bias_key: str = "attention_bias"
    mlp_bias_key: str = "mlp_bias"
    qk_norm: Literal["none", "head", "width", "config_head", "config_width"] = "none"
    query_gate: bool = False
    sinks: bool = False
    gated: bool = True
    norms_per_layer: int = 2
    norm_bias: bool = False
    alone: bool = False
    router_bias: bool = False
    expert_bias: bool = False
    shared_gate: bool = False
    shared_experts: int = 0
    tied: bool = False
    is_moe: Rule = never
    windowed: Rule = never
    attention: Callable[[Config, Family, int, int | None], Mixer] | None = None
    linear: Callable[[Config], Mixer] | None = None
    feed: Callable[[Config, Family, int], Feed] | None = None


def sparse_step(config: Config, i: int) -> bool:
    """Qwen's rule (``modeling_qwen2_moe.py``): each ``decoder_sparse_step``-th, bar ``mlp_only_layers``."""
    dense = i in (listed(config, "mlp_only_layers", int) or ())
    return not dense and (i + 1) % whole(config, "decoder_sparse_step", 1) == 0


def after_dense(config: Config, i: int) -> bool:
    """DeepSeek's rule: the first ``first_k_dense_replace`` layers are dense."""
    marks = config.get("moe_layer_freq")
    if isinstance(marks, list) and i < len(marks):
        return bool(marks[i])
    first = whole(config, "first_k_dense_replace", 0, least=0)
    return i >= first and i % whole(config, "moe_layer_freq", 1) == 0


def interleaved(config: Config, i: int) -> bool:
    """Llama 4's rule: ``moe_layers``, else every ``interleave_moe_layer_step``-th layer."""
    layers = listed(config, "moe_layers", int)
    return i in layers if layers else (i + 1) % whole(config, "interleave_moe_layer_step", 1) == 0


def between(config: Config, i: int) -> bool:
    """Ernie's rule: each ``moe_layer_interval``-th from ``moe_layer_start_index`` to ``…_end_index``."""
    last = config.get("moe_layer_end_index")
    end = whole(config, "num_hidden_layers") if last in (None, -1) else whole(config, "moe_layer_end_index")
    first = whole(config, "moe_layer_start_index", 1, least=0)
    return first <= i <= end and (i + 1) % whole(config, "moe_layer_interval", 1) == 0


def periodic(config: Config, i: int) -> bool:
    """Jamba's rule: each ``expert_layer_period``-th from ``expert_layer_offset`` on, if there are experts."""
    offset = whole(config, "expert_layer_offset", 1, least=0)
    several = whole(config, "num_experts", 1) > 1
    return several and i % whole(config, "expert_layer_period", 2) == offset


def any_experts(config: Config, i: int) -> bool:
    """The rules of most makers together, for an architecture that is not known."""
    return has(config, "num_experts") and after_dense(config, i) and sparse_step(config, i)


def mimo_window(_config: Config, i: int) -> bool:
    return i != 0 and (i + 1) % 6 != 0


def qwen_window(config: Config, i: int) -> bool:
    return flag(config, "use_sliding_window") and i >= whole(config, "max_window_layers", 0, least=0)


def every(period: int, key: str = "sliding_window_pattern") -> Rule:
    """All but every ``period``-th layer keep a window (Gemma 2: 2, Gemma 3: 6, gpt-oss: 2, Llama 4: 4)."""
    return lambda config, i: (i + 1) % whole(config, key, period) != 0
