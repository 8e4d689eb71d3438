"""Reading a model's config: a value of the right kind under any of its names, or one clear line."""

from __future__ import annotations

from typing import Any

from profiler.errors import InputError

Config = dict[str, Any]

# What one thing is called by different makers; the first is the name used here.
NAMES = {
    "hidden_size": ("hidden_size", "d_model", "n_embd"),
    "num_hidden_layers": ("num_hidden_layers", "num_layers", "n_layers", "n_layer"),
    "num_attention_heads": ("num_attention_heads", "n_heads", "n_head"),
    "num_key_value_heads": ("num_key_value_heads", "n_head_kv", "num_kv_heads"),
    "head_dim": ("head_dim", "attention_head_dim", "kv_channels"),
    "intermediate_size": ("intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner"),
    "max_position_embeddings": ("max_position_embeddings", "max_seq_len", "n_positions", "seq_length"),
    "num_experts": ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    "num_experts_per_tok": (
        "num_experts_per_tok",
        "num_experts_per_token",
        "experts_per_token",
        "moe_topk",
        "moe_top_k",
        "moe_k",
        "top_k_experts",
    ),
    "moe_intermediate_size": ("moe_intermediate_size", "expert_ffn_hidden_size", "moe_ffn_hidden_size"),
    "first_k_dense_replace": ("first_k_dense_replace", "num_dense_layers"),
    "shared_expert_intermediate_size": (
        "shared_expert_intermediate_size",
        "moe_shared_expert_intermediate_size",
        "shared_intermediate_size",
    ),
    "mamba_n_heads": ("mamba_n_heads", "mamba_num_heads"),
    "mamba_d_head": ("mamba_d_head", "mamba_head_dim"),
    "mamba_n_groups": ("mamba_n_groups", "n_groups"),
    "mamba_d_state": ("mamba_d_state", "ssm_state_size"),
    "mamba_d_conv": ("mamba_d_conv", "conv_kernel"),
    "mamba_chunk_size": ("mamba_chunk_size", "chunk_size"),
    "n_shared_experts": (
        "n_shared_experts",
        "num_shared_experts",
        "moe_num_shared_experts",
        "num_shared_expert",
    ),
}
_NESTED = ("text_config", "llm_config", "language_config")
_MOST = 1 << 62


class UnsupportedArchitectureError(InputError):
    """Neither known nor a usual decoder: nothing can be counted, though an engine may well run it."""


def text_config(config: Config) -> Config:
    """The language model's part of a config; top-level keys (``tie_word_embeddings``) fill its gaps."""
    key = next((key for key in _NESTED if config.get(key) is not None), None)
    if key is None:
        return config
    if not isinstance(config[key], dict):
        raise wrong(config, key, "an object")
    return {**config, **config[key]}


def architecture(config: Config) -> str:
    return str((listed(config, "architectures", str) or [config["model_type"]])[0])


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def has(c: Config, key: str) -> bool:
    return c.get(_name(c, key)) is not None


def whole(c: Config, key: str, default: int | None = None, *, least: int = 1, most: int = _MOST) -> int:
    """A whole number within bounds; ``default`` where the key is missing or null, unless that is None.
    A list of equal numbers, one a layer, is that number."""
    name = _name(c, key)
    value = default if c.get(name) is None else c[name]
    if isinstance(value, list) and value and all(each == value[0] for each in value):
        value = value[0]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        bounds = f"from {least} up" if most == _MOST else f"from {least} to {most}"
        raise wrong(c, key, f"a whole number {bounds}")
    return value


def optional(c: Config, key: str) -> int | None:
    return whole(c, key) if has(c, key) else None


def flag(c: Config, key: str, default: bool = False) -> bool:
    value = c.get(key)
    if value is not None and not isinstance(value, bool):
        raise wrong(c, key, "true or false")
    return default if value is None else value


def listed(c: Config, key: str, of: type) -> list[Any] | None:
    value = c.get(key)
    right = isinstance(value, list) and all(type(each) is of for each in value)
    if value is not None and not right:
        raise wrong(c, key, f"a list of {'strings' if of is str else 'whole numbers'}")
    return value


def wrong(c: Config, key: str, expected: str) -> InputError:
    """What to raise about a key: what it is, what it should be and, where it is missing, its other names."""
    name = _name(c, key)
    value = c.get(name)
    found = "missing" if value is None else short(value)
    others = [each for each in NAMES.get(key, ()) if each != key]
    looked = f" (looked for under {', '.join([key, *others])})" if value is None and others else ""
    return InputError(
        f"config of a {short(c.get('model_type'))} model: {name} is {found}, expected {expected}{looked}"
    )


def _name(c: Config, key: str) -> str:
    """The name under which the config has the key; the key itself where it has none of them."""
    return next((name for name in NAMES.get(key, ()) if c.get(name) is not None), key)


def kv_heads(c: Config) -> int:
    heads = whole(c, "num_attention_heads")
    each = whole(c, "num_key_value_heads", heads)
    if heads % each:
        raise wrong(c, "num_key_value_heads", f"a divisor of num_attention_heads ({heads})")
    return each


def head_dim(c: Config) -> int:
    width = optional(c, "head_dim") or whole(c, "hidden_size") // whole(c, "num_attention_heads")
    if width < 1:
        raise wrong(c, "num_attention_heads", "at most hidden_size")
    return width


def window(c: Config) -> int | None:
    return optional(c, "sliding_window") or optional(c, "attention_chunk_size")
