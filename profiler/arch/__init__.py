"""What a model's config implies: parameters, active parameters, cache bytes.  Closed form, no torch.

A decoder is an embedding, a stack of layers, a final norm and a head.  Each layer is an attention block
(or a recurrent one) and a feed-forward block (dense, or a router over experts).  ``layers`` returns the
account of every layer; ``model_facts`` adds them up.

Counts are those of the modules in transformers (5.x, ``modeling_<family>.py``), which the tests build on
the meta device and compare exactly.  Buffers (DeepSeek's ``e_score_correction_bias``), extra prediction
layers (MTP) and vision towers are not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

from profiler.errors import InputError, nearest
from profiler.schema import ModelFacts

Config = dict[str, Any]
CACHE_BYTES = 2  # per cached number: a bf16 cache


class UnsupportedArchitectureError(InputError):
    """No closed form for this architecture: its facts are unknown, though an engine may well run it."""


class Attention(Struct, frozen=True):
    """One attention (or recurrent) block: its weights, and what it caches.

    ``cache`` says of what ``cache_bytes`` is counted: every token, the tokens of a window, or a sequence.
    """

    weights: int
    cache_bytes: int
    cache: Literal["full", "window", "state"] = "full"


class FeedForward(Struct, frozen=True):
    """One feed-forward block: weights every token uses (dense, shared experts, router), the routed
    experts' weights, how much of those one token uses, and how much of the first the shared experts are."""

    always: int
    routed: int = 0
    routed_active: int = 0
    shared: int = 0


class Layer(Struct, frozen=True):
    attention: Attention
    feed_forward: FeedForward
    norms: int


def _never(_config: Config, _i: int) -> bool:
    return False


def _always(_config: Config, _i: int) -> bool:
    return True


class Family(Struct, frozen=True, kw_only=True):
    """How the layers of one ``model_type`` are built.

    ``bias``: which attention projections carry one (``config``: all four, if ``attention_bias``;
    ``config_qkv``: the first three, if so).  ``qk_norm``: over one head or over all heads' width.
    ``is_moe(config, i)``: does layer i route?  ``windowed(config, i)``: does layer i keep only a window?
    """

    bias: Literal["none", "qkv", "all", "config", "config_qkv"] = "none"
    qk_norm: Literal["none", "head", "width", "config_head"] = "none"
    query_gate: bool = False
    sinks: bool = False
    mla: bool = False
    norms_per_layer: int = 2
    norm_bias: bool = False
    expert_bias: bool = False
    shared_gate: bool = False
    tied: bool = False
    is_moe: Callable[[Config, int], bool] = _never
    windowed: Callable[[Config, int], bool] = _never


# ------------------------------------------------------------------------------------- the families


def _sparse_step(config: Config, i: int) -> bool:
    """Qwen's rule (``modeling_qwen2_moe.py``): each ``decoder_sparse_step``-th, bar ``mlp_only_layers``."""
    listed = i in (_list(config, "mlp_only_layers", int) or ())
    return not listed and (i + 1) % _int_or(config, "decoder_sparse_step", 1) == 0


def _after_dense(config: Config, i: int) -> bool:
    """DeepSeek's rule: the first ``first_k_dense_replace`` layers are dense."""
    first = _int_or(config, "first_k_dense_replace", 0, least=0)
    return i >= first and i % _int_or(config, "moe_layer_freq", 1) == 0


def _interleaved(config: Config, i: int) -> bool:
    """Llama 4's rule: ``moe_layers``, else every ``interleave_moe_layer_step``-th layer."""
    listed = _list(config, "moe_layers", int)
    return i in listed if listed else (i + 1) % _int_or(config, "interleave_moe_layer_step", 1) == 0


def _qwen_window(config: Config, i: int) -> bool:
    return _flag(config, "use_sliding_window") and i >= _int_or(config, "max_window_layers", 0, least=0)


def _every(period: int) -> Callable[[Config, int], bool]:
    """All but every ``period``-th layer keep a window (Gemma 2: 2, Gemma 3: 6, gpt-oss: 2, Llama 4: 4)."""
    return lambda config, i: (i + 1) % _int_or(config, "sliding_window_pattern", period) != 0


_QWEN3_NEXT = Family(bias="config", qk_norm="head", query_gate=True, shared_gate=True, is_moe=_sparse_step)
_DEEPSEEK = Family(mla=True, bias="config", is_moe=_after_dense)

FAMILIES: dict[str, Family] = {
    "llama": Family(bias="config"),
    "mistral": Family(windowed=_always),
    "phi3": Family(windowed=_always),
    "qwen2": Family(bias="qkv", windowed=_qwen_window),
    "qwen2_5_vl": Family(bias="qkv", windowed=_qwen_window),
    "qwen3": Family(bias="config", qk_norm="head", windowed=_qwen_window),
    "gemma2": Family(bias="config", norms_per_layer=4, tied=True, windowed=_every(2)),
    "gemma3": Family(bias="config", qk_norm="head", norms_per_layer=4, tied=True, windowed=_every(6)),
    "olmo2": Family(bias="config", qk_norm="width"),
    "mixtral": Family(is_moe=_always, windowed=_always),
    "qwen2_moe": Family(bias="qkv", shared_gate=True, is_moe=_sparse_step, windowed=_qwen_window),
    "qwen3_moe": Family(bias="config", qk_norm="head", is_moe=_sparse_step, windowed=_qwen_window),
    "qwen3_vl_moe": Family(bias="config", qk_norm="head", is_moe=_sparse_step),
    "qwen3_next": _QWEN3_NEXT,
    "qwen3_5": Family(bias="config", qk_norm="head", query_gate=True),
    "qwen3_5_moe": Family(bias="config", qk_norm="head", query_gate=True, shared_gate=True, is_moe=_always),
    "olmoe": Family(bias="config", qk_norm="width", is_moe=_always),
    "phimoe": Family(bias="config", norm_bias=True, is_moe=_always, windowed=_always),
    "granitemoe": Family(bias="config", is_moe=_always),
    "glm4_moe": Family(bias="config_qkv", qk_norm="config_head", is_moe=_after_dense),
    "gpt_oss": Family(bias="all", sinks=True, expert_bias=True, is_moe=_always, windowed=_every(2)),
    "llama4": Family(bias="config", is_moe=_interleaved, windowed=_every(4)),
    "deepseek": Family(bias="config", is_moe=_after_dense),
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "kimi_k2": _DEEPSEEK,
}

# ------------------------------------------------------------------------------------------- public


def model_facts(config: Config, source: str) -> ModelFacts:
    """The facts of the language model that ``config`` (a Hugging Face config) describes.

    Raises UnsupportedArchitectureError, naming the architecture, and InputError, naming the key that is
    missing or of the wrong kind, and what it should be.
    """
    text, family = text_config(config), _family(config)
    stack = layers(config)
    hidden, vocab = _int(text, "hidden_size"), _int(text, "vocab_size")
    tied = _flag(text, "tie_word_embeddings", family.tied)
    embedding = vocab * hidden * (1 if tied else 2) + (vocab if _flag(text, "lm_head_bias") else 0)
    final_norm = hidden * (2 if family.norm_bias else 1)
    routed = sum(layer.feed_forward.routed for layer in stack)
    always = sum(layer.attention.weights + layer.feed_forward.always + layer.norms for layer in stack)
    total = embedding + final_norm + always + routed
    active = total - routed + sum(layer.feed_forward.routed_active for layer in stack)
    cached = {
        kind: sum(a.attention.cache_bytes for a in stack if a.attention.cache == kind) for kind in _KINDS
    }
    return ModelFacts(
        architecture=_architecture(config),
        kind="moe" if routed else "dense",
        total_params=total,
        active_params=active,
        routed_expert_params=routed,
        kv_bytes_per_token=cached["full"],
        kv_windowed_bytes_per_token=cached["window"],
        attention_window_tokens=_window(text) if cached["window"] else None,
        kv_state_bytes_per_sequence=cached["state"],
        vocab_size=vocab,
        layers=len(stack),
        experts=_experts(text) if routed else None,
        experts_per_token=_int(text, "num_experts_per_tok") if routed else None,
        max_context_tokens=_optional(text, "max_position_embeddings"),
        attention_heads=_int(text, "num_attention_heads"),
        kv_heads=1 if family.mla else _kv_heads(text),
        shared_expert_params=sum(layer.feed_forward.shared for layer in stack),
        embedding_params=embedding,
        source=source,
    )


def layers(config: Config) -> tuple[Layer, ...]:
    """The account of every decoder layer, first to last."""
    text, family = text_config(config), _family(config)
    norms = family.norms_per_layer * _int(text, "hidden_size") * (2 if family.norm_bias else 1)
    return tuple(
        Layer(_attention(text, family, i), _feed_forward(text, family, i), norms)
        for i in range(_int_or(text, "num_hidden_layers", None, most=_MOST_LAYERS))
    )


def text_config(config: Config) -> Config:
    """The language model's part of a config; top-level keys (``tie_word_embeddings``) fill its gaps."""
    nested = config.get("text_config")
    if nested is not None and not isinstance(nested, dict):
        raise _wrong(config, "text_config", "an object")
    return {**config, **nested} if nested else config


_KINDS: tuple[Literal["full", "window", "state"], ...] = ("full", "window", "state")
_LAYER_TYPES = ("full_attention", "sliding_attention", "chunked_attention", "linear_attention")
_MOST_LAYERS = 10_000  # a typing error beyond this would be counted for minutes

# ------------------------------------------------------------------------------------------- blocks


def _attention(c: Config, family: Family, i: int) -> Attention:
    kind = _cache_kind(c, family, i)
    if kind == "state":
        return _gated_delta_net(c)
    if family.mla:
        return _latent_attention(c)
    hidden, heads = _int(c, "hidden_size"), _int(c, "num_attention_heads")
    kv, width = _kv_heads(c), _head_dim(c)
    query = heads * width * (2 if family.query_gate else 1)
    weights = hidden * (query + 2 * kv * width + heads * width)
    wanted = _flag(c, "attention_bias")
    if family.bias in ("qkv", "all") or (family.bias.startswith("config") and wanted):
        weights += query + 2 * kv * width
    if family.bias == "all" or (family.bias == "config" and wanted):
        weights += hidden
    weights += _query_key_norm(c, family, heads, kv, width) + (heads if family.sinks else 0)
    return Attention(weights, 2 * kv * width * CACHE_BYTES, kind)


def _query_key_norm(c: Config, family: Family, heads: int, kv: int, width: int) -> int:
    if family.qk_norm == "width":
        return (heads + kv) * width
    head = family.qk_norm == "head" or (family.qk_norm == "config_head" and _flag(c, "use_qk_norm"))
    return 2 * width if head else 0


def _latent_attention(c: Config) -> Attention:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434 §2.1): keys and values are rebuilt from a
    latent of ``kv_lora_rank`` numbers, which with the shared rotary key is all that is cached."""
    hidden, heads = _int(c, "hidden_size"), _int(c, "num_attention_heads")
    nope, rope, value = _int(c, "qk_nope_head_dim"), _int(c, "qk_rope_head_dim"), _int(c, "v_head_dim")
    latent, low_rank = _int(c, "kv_lora_rank"), _optional(c, "q_lora_rank")
    query = heads * (nope + rope)
    weights = low_rank * (hidden + 1 + query) if low_rank else hidden * query
    weights += hidden * (latent + rope) + latent + latent * heads * (nope + value) + heads * value * hidden
    if _flag(c, "attention_bias"):
        weights += (low_rank or 0) + latent + rope + hidden
    return Attention(weights, (latent + rope) * CACHE_BYTES)


def _gated_delta_net(c: Config) -> Attention:
    """Gated DeltaNet (``modeling_qwen3_next.py``): a fp32 state of value heads × key width × value width, and
    the last ``kernel − 1`` inputs of the short convolution, whatever the length of the sequence."""
    hidden, heads = _int(c, "hidden_size"), _int(c, "linear_num_value_heads")
    key, value = _int(c, "linear_key_head_dim"), _int(c, "linear_value_head_dim")
    kernel = _int(c, "linear_conv_kernel_dim")
    keys, values = _int(c, "linear_num_key_heads") * key, heads * value
    mixed = 2 * keys + values
    weights = hidden * (mixed + values + 2 * heads) + mixed * kernel + 2 * heads + value + values * hidden
    return Attention(weights, heads * key * value * 4 + mixed * (kernel - 1) * CACHE_BYTES, "state")


def _feed_forward(c: Config, family: Family, i: int) -> FeedForward:
    """SwiGLU: gate, up and down, 3 · hidden · width.  A MoE layer has N of them, of which a token uses k."""
    hidden = _int(c, "hidden_size")
    if not family.is_moe(c, i):
        width = _optional(c, "intermediate_size_mlp") or _int(c, "intermediate_size")
        return FeedForward(3 * hidden * width + (2 * width + hidden if _flag(c, "mlp_bias") else 0))
    experts = _experts(c)
    top_k = _int_or(c, "num_experts_per_tok", None, most=experts)
    width = _optional(c, "moe_intermediate_size") or _int(c, "intermediate_size")
    expert = 3 * hidden * width + (2 * width + hidden if family.expert_bias else 0)
    router = hidden * experts + (experts if family.expert_bias else 0)
    shared = 3 * hidden * _shared_width(c, width) + (hidden if family.shared_gate else 0)
    return FeedForward(router + shared, experts * expert, top_k * expert, shared)


def _shared_width(c: Config, width: int) -> int:
    """Width of the experts that every token uses: one of its own size, or some of the routed ones' size."""
    if c.get("model_type") in ("llama4", "llama4_text"):
        return width
    own = _int_or(c, "shared_expert_intermediate_size", 0, least=0)
    return own or _int_or(c, "n_shared_experts", 0, least=0) * width


def _cache_kind(c: Config, family: Family, i: int) -> Literal["full", "window", "state"]:
    types, interval = _list(c, "layer_types", str), _optional(c, "full_attention_interval")
    if types and i < len(types):
        kind = types[i]
    elif interval and "linear_num_value_heads" in c:
        kind = "full_attention" if (i + 1) % interval == 0 else "linear_attention"
    else:
        kind = "sliding_attention" if family.windowed(c, i) else "full_attention"
    if kind not in _LAYER_TYPES:
        raise UnsupportedArchitectureError(f"layer type {_short(kind)} has no closed form here")
    if kind == "linear_attention":
        return "state"
    window = _window(c)
    reaches = window is None or window >= (_optional(c, "max_position_embeddings") or window + 1)
    return "full" if kind == "full_attention" or reaches else "window"


# ------------------------------------------------------------------------------------- reading keys


def _family(config: Config) -> Family:
    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise _wrong(config, "model_type", "a string")
    family = FAMILIES.get(kind) or FAMILIES.get(kind.removesuffix("_text"))
    if family is None:
        raise UnsupportedArchitectureError(
            f"architecture {_architecture(config)} (model_type {_short(kind)}) has no closed form here"
            f"{nearest(kind, FAMILIES)}"
        )
    return family


def _architecture(config: Config) -> str:
    return str((_list(config, "architectures", str) or [config["model_type"]])[0])


def _wrong(c: Config, key: str, expected: str) -> InputError:
    value = c.get(key)
    found = "missing" if value is None else _short(value)
    return InputError(
        f"config of a {_short(c.get('model_type'))} model: {key} is {found}, expected {expected}"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _int_or(c: Config, key: str, default: int | None, least: int = 1, most: int = 1 << 62) -> int:
    """A whole number within bounds; ``default`` where the key is missing or null, unless that is None."""
    value = default if c.get(key) is None else c[key]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        bounds = f"from {least} up" if most == 1 << 62 else f"from {least} to {most}"
        raise _wrong(c, key, f"a whole number {bounds}")
    return value


def _int(c: Config, key: str) -> int:
    return _int_or(c, key, None)


def _optional(c: Config, key: str) -> int | None:
    return None if c.get(key) is None else _int(c, key)


def _flag(c: Config, key: str, default: bool = False) -> bool:
    value = c.get(key)
    if value is not None and not isinstance(value, bool):
        raise _wrong(c, key, "true or false")
    return default if value is None else value


def _list(c: Config, key: str, of: type) -> list[Any] | None:
    value = c.get(key)
    whole = isinstance(value, list) and all(type(each) is of for each in value)
    if value is not None and not whole:
        raise _wrong(c, key, f"a list of {'strings' if of is str else 'whole numbers'}")
    return value


def _kv_heads(c: Config) -> int:
    heads = _int(c, "num_attention_heads")
    kv_heads = _int_or(c, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise _wrong(c, "num_key_value_heads", f"a divisor of num_attention_heads ({heads})")
    return kv_heads


def _head_dim(c: Config) -> int:
    width = _optional(c, "head_dim") or _int(c, "hidden_size") // _int(c, "num_attention_heads")
    if width < 1:
        raise _wrong(c, "num_attention_heads", "at most hidden_size")
    return width


def _experts(c: Config) -> int:
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    return _int(c, next((name for name in names if c.get(name) is not None), names[0]))


def _window(c: Config) -> int | None:
    return _optional(c, "sliding_window") or _optional(c, "attention_chunk_size")
