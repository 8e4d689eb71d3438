"""Attention blocks, each counted from the config: weights, cache, products.

A product of a token with a matrix of n weights is 2·n floating-point operations; norms, activations and
softmax are not counted, as in every published figure.
"""

from __future__ import annotations

import msgspec

from profiler.arch.family import Family
from profiler.arch.keys import Config, flag, head_dim, kv_heads, optional, whole
from profiler.arch.shape import CACHE_BYTES, Mixer


def grouped(c: Config, family: Family, _i: int, window: int | None) -> Mixer:
    """Grouped-query attention over all earlier tokens, or the last ``window``.  Values have the width of
    queries and keys unless the config gives them their own (MiMo)."""
    hidden, heads = whole(c, "hidden_size"), whole(c, "num_attention_heads")
    kv, width = kv_heads(c), head_dim(c)
    value = whole(c, "v_head_dim", width)
    query = heads * width * (2 if family.query_gate else 1)
    matrices = hidden * (query + kv * (width + value) + heads * value)
    vectors = _query_key_norm(c, family, heads, kv, width) + (heads if family.sinks else 0)
    wanted = flag(c, family.bias_key)
    if family.bias in ("qkv", "all") or (family.bias.startswith("config") and wanted):
        vectors += query + kv * (width + value)
    if family.bias == "all" or (family.bias == "config" and wanted) or flag(c, "attention_out_bias"):
        vectors += hidden
    return Mixer(
        kind="window" if window else "full",
        params=matrices + vectors,
        vector_params=vectors,
        heads=heads,
        kv_heads=kv,
        inner=query + kv * (width + value) + heads * value,
        cache_bytes=kv * (width + value) * CACHE_BYTES,
        decode_flops=2 * heads * (width + value),
        prefill_flops=2 * heads * (width + value),
        window_tokens=window,
    )


def _query_key_norm(c: Config, family: Family, heads: int, kv: int, width: int) -> int:
    asked = not family.qk_norm.startswith("config") or flag(c, "use_qk_norm")
    if family.qk_norm.endswith("width"):
        return (heads + kv) * width if asked else 0
    return 2 * width if family.qk_norm.endswith("head") and asked else 0


def gated_alongside(c: Config, family: Family, i: int, window: int | None) -> Mixer:
    """Attention whose output a matrix of its own gates (AFMoE); it has no bias where the others have one."""
    mixer = grouped(c, family, i, window)
    gate = mixer.heads * head_dim(c)
    return msgspec.structs.replace(
        mixer, params=mixer.params + whole(c, "hidden_size") * gate, inner=mixer.inner + gate
    )


def gemma4(c: Config, family: Family, i: int, window: int | None) -> Mixer:
    """Full layers have wider heads, fewer of them cached, and with ``attention_k_eq_v`` one projection for
    keys and values; the last ``num_kv_shared_layers`` use the cache of an earlier one."""
    hidden, one = whole(c, "hidden_size"), flag(c, "attention_k_eq_v") and window is None
    if window is None:
        few = optional(c, "num_global_key_value_heads") if one else None
        c = {**c, "head_dim": whole(c, "global_head_dim", 512)}
        c |= {"num_key_value_heads": few} if few else {}
    mixer, width = grouped(c, family, i, window), head_dim(c)
    matrix = hidden * mixer.kv_heads * width
    if i >= whole(c, "num_hidden_layers") - whole(c, "num_kv_shared_layers", 0, least=0):
        return msgspec.structs.replace(
            mixer,
            params=mixer.params - 2 * matrix - width,
            vector_params=mixer.vector_params - width,
            inner=mixer.inner - 2 * mixer.kv_heads * width,
            cache_bytes=0,
        )
    return msgspec.structs.replace(mixer, params=mixer.params - (matrix if one else 0))


def mimo(c: Config, family: Family, i: int, window: int | None) -> Mixer:
    """Layers with a window have sinks and, by the ``swa_`` keys, heads of their own number and width: twice
    the keys and values if nothing is said."""
    if window is None:
        return grouped(c, family, i, None)
    names = ("num_attention_heads", "num_key_value_heads", "head_dim", "v_head_dim")
    own = {name: c[f"swa_{name}"] for name in names if c.get(f"swa_{name}") is not None}
    own.setdefault("num_key_value_heads", 2 * kv_heads(c))
    return grouped({**c, **own}, msgspec.structs.replace(family, sinks=True), i, window)


def latent(c: Config, family: Family, _i: int, _window: int | None) -> Mixer:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434 §2.1): keys and values are rebuilt from a
    latent of ``kv_lora_rank`` numbers, which with the shared rotary key is all that is cached.

    Decoding multiplies the rebuilding matrices into query and output instead, at the same products a new
    token, and works on the latent itself: 2·heads·(2·latent + rope) a pair of tokens.
    """
    hidden, heads = whole(c, "hidden_size"), whole(c, "num_attention_heads")
    nope, rope, value = whole(c, "qk_nope_head_dim"), whole(c, "qk_rope_head_dim"), whole(c, "v_head_dim")
    rank, low_rank = whole(c, "kv_lora_rank"), optional(c, "q_lora_rank")
    query, rebuilt = heads * (nope + rope), rank * heads * (nope + value)
    matrices = low_rank * (hidden + query) if low_rank else hidden * query
    matrices += hidden * (rank + rope) + rebuilt + heads * value * hidden
    vectors = (low_rank or 0) + rank
    if flag(c, family.bias_key):
        vectors += (low_rank or 0) + rank + rope + hidden
    return Mixer(
        kind="latent",
        params=matrices + vectors,
        vector_params=vectors,
        heads=heads,
        kv_heads=1,
        inner=(low_rank or 0) + query + rank + rope + heads * (nope + rope + 2 * value),
        cache_bytes=(rank + rope) * CACHE_BYTES,
        decode_flops=2 * heads * (2 * rank + rope),
        prefill_flops=2 * heads * (nope + rope + value),
        rebuild_flops=2 * rebuilt,
    )


def indexed(c: Config, family: Family, i: int, window: int | None) -> Mixer:
    """Latent attention to the ``index_topk`` tokens that an indexer of its own few heads picks among all
    (DeepSeek-V3.2, arXiv 2512.02556 §2.1).  Every token picks its own, so prompts work on the latent too."""
    mixer = latent(c, family, i, window)
    heads, width = whole(c, "index_n_heads"), whole(c, "index_head_dim")
    matrices = whole(c, "q_lora_rank") * heads * width + whole(c, "hidden_size") * (width + heads)
    return msgspec.structs.replace(
        mixer,
        params=mixer.params + matrices + 2 * width,
        vector_params=mixer.vector_params + 2 * width,
        inner=mixer.inner + heads * width + width + heads,
        cache_bytes=mixer.cache_bytes + width * CACHE_BYTES,
        index_bytes=width * CACHE_BYTES,
        index_flops=2 * heads * width,
        prefill_flops=mixer.decode_flops,
        rebuild_flops=0,
        selected_tokens=whole(c, "index_topk"),
    )
