"""Attention over a paged cache on a CPU, one sequence at a time (runs in the engine's process only).

The transformers library has no variable-length attention for CPUs: its ``sdpa`` path computes every query
against the keys of *all* sequences in the batch and masks the foreign ones away, so attention work grows with
the square of the batch and hides what the weights cost.  Here each sequence meets its own keys only, as the
flash kernels do on a GPU.  Decoding folds the query heads that share a key-value head into the rows of one
small product, so keys and values are read once per key-value head instead of once per query head.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from inspect import signature
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# The library asks implementations with "flash" in their name for no mask and gives them sequence bounds.
NAME = "flash_varlen_cpu"


def install(model: Any) -> None:
    """Make ``model`` use this attention.  Set on the built model: the library would look for a GPU kernel
    of that name when asked for it at construction."""
    from transformers import AttentionInterface, __version__

    # 5.18 takes for paged only what is called so; later ones want no such name.
    name = f"paged|{NAME}" if __version__.startswith("5.18.") else NAME
    AttentionInterface.register(name, varlen_attention)
    model.config._attn_implementation = name


def is_in(model: Any) -> bool:
    """Whether ``model`` uses it."""
    return str(model.config._attn_implementation).endswith(NAME)


def can_serve(config: Any) -> bool:
    """Whether a model with this text config uses plain causal attention in every layer."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    special = ("attn_logit_softcapping", "kv_lora_rank", "linear_num_value_heads")
    sinks = getattr(config, "model_type", "") == "gpt_oss"
    return (
        kinds == {"full_attention"} and not sinks and not any(getattr(config, key, None) for key in special)
    )


def varlen_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of a packed batch.

    ``query`` is [1, heads, tokens, width], ``key`` and ``value`` [1, kv_heads, tokens, width] with the
    new tokens only; the paged cache adds what came before.  Returns [1, tokens, heads, width].
    """
    key, value = _cached(kwargs.pop("cache"), key, value, module.layer_idx, kwargs)
    rows, keys = kwargs["cu_seq_lens_q"].diff().tolist(), kwargs["cu_seq_lens_k"].diff().tolist()
    heads, kv_heads, width = query.shape[1], key.shape[1], query.shape[3]
    grouped = query[0].view(kv_heads, heads // kv_heads, -1, width)
    out = query.new_empty(query.shape[2], kv_heads, heads // kv_heads, width)
    start = 0
    for own_keys, own_values, length in zip(key.split(keys, 2), value.split(keys, 2), rows, strict=True):
        part = grouped[:, :, start : start + length]
        answer = _decode if length == 1 else _prefill
        out[start : start + length] = answer(part, own_keys, own_values, scaling)
        start += length
    return out.view(1, -1, heads, width), None


@cache
def _takes_kwargs(kind: Hashable) -> bool:
    return "kwargs" in signature(kind.update).parameters  # type: ignore[attr-defined]


def _cached(
    pages: Any, key: torch.Tensor, value: torch.Tensor, layer: int, kwargs: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both with what came before, [1, kv_heads, tokens, width]."""
    if _takes_kwargs(pages.__class__):
        key, value = pages.update(key, value, layer_idx=layer, kwargs=kwargs)
        return key, value
    # transformers 5.18
    places = {name: kwargs[name] for name in ("read_index", "write_index")}
    key, value = pages.update(key, value, layer_idx=layer, **places)
    return key.transpose(0, 1)[None], value.transpose(0, 1)[None]


def _decode(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """One new token: [kv_heads, group, 1, width] → [1, kv_heads, group, width]."""
    from torch.nn.functional import scaled_dot_product_attention

    return scaled_dot_product_attention(query[None, :, :, 0], key, value, scale=scaling)


def _prefill(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """Several new tokens behind a possibly cached past: → [length, kv_heads, group, width]."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    kv_heads, group, length, width = query.shape
    past = key.shape[2] - length
    mask = torch.ones(length, key.shape[2], dtype=torch.bool).tril(past) if past else None
    flat = query.reshape(1, kv_heads * group, length, width)
    found = scaled_dot_product_attention(
        flat, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=True
    )
    return found[0].view(kv_heads, group, length, width).permute(2, 0, 1, 3)
