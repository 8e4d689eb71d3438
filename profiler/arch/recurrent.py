"""Recurrent blocks in attention's place: a state of fixed size a sequence, however long it is.

Of each: the weights, the state and the last ``kernel − 1`` inputs of its short convolution, and the products
with the state, a token at a time (decoding) and a chunk at a time (a prompt): there the tokens of a chunk
are multiplied with each other too.
"""

from __future__ import annotations

from profiler.arch.keys import Config, flag, whole
from profiler.arch.shape import CACHE_BYTES, Mixer

CHUNK_TOKENS = 64  # of the chunked gated delta rule, in flash-linear-attention and transformers
FP32_BYTES = 4


def _delta_flops(heads: int, key: int, value: int) -> tuple[int, int]:
    """The delta rule asks the state, corrects it and reads it: three products of its size; a chunk adds five
    of chunk × chunk (keys with keys, queries with keys, three times their values)."""
    state = heads * key * value
    return 6 * state, 6 * state + 2 * heads * CHUNK_TOKENS * (3 * key + 2 * value)


def gated_delta_net(c: Config) -> Mixer:
    """Gated DeltaNet (``modeling_qwen3_next.py``): a fp32 state of value heads × key width × value width."""
    hidden, heads = whole(c, "hidden_size"), whole(c, "linear_num_value_heads")
    key, value = whole(c, "linear_key_head_dim"), whole(c, "linear_value_head_dim")
    kernel = whole(c, "linear_conv_kernel_dim")
    keys, values = whole(c, "linear_num_key_heads") * key, heads * value
    mixed = 2 * keys + values
    matrices = hidden * (mixed + values + 2 * heads) + mixed * kernel + values * hidden
    vectors = 2 * heads + value
    decode, chunk = _delta_flops(heads, key, value)
    return Mixer(
        kind="linear",
        params=matrices + vectors,
        vector_params=vectors,
        heads=heads,
        kv_heads=whole(c, "linear_num_key_heads"),
        inner=2 * mixed + 2 * values + 2 * heads,
        state_bytes=heads * key * value * FP32_BYTES + mixed * (kernel - 1) * CACHE_BYTES,
        state_flops=decode,
        chunk_flops=chunk,
    )


def kimi_delta(c: Config) -> Mixer:
    """Kimi Delta Attention (arXiv 2510.26692; ``modeling_kimi_linear.py``): the delta rule with a decay for
    every channel; decay and output gate come through a bottleneck of one head's width."""
    nested = c.get("linear_attn_config") or {}
    hidden, heads = whole(c, "hidden_size"), whole(c, "linear_num_heads", nested.get("num_heads"))
    width = whole(c, "linear_head_dim", nested.get("head_dim"))
    kernel = whole(c, "linear_conv_kernel_dim", nested.get("short_conv_kernel_size"))
    wide = heads * width
    matrices = hidden * (4 * wide + heads + 2 * width) + 3 * wide * kernel + 2 * width * wide
    vectors = wide + heads + width
    decode, chunk = _delta_flops(heads, width, width)
    return Mixer(
        kind="linear",
        params=matrices + vectors,
        vector_params=vectors,
        heads=heads,
        kv_heads=heads,
        inner=9 * wide + 2 * width + heads,
        state_bytes=heads * width**2 * FP32_BYTES + 3 * wide * (kernel - 1) * CACHE_BYTES,
        state_flops=decode,
        chunk_flops=chunk,
    )


def mamba2(c: Config) -> Mixer:
    """Mamba-2 (arXiv 2405.21060; ``modeling_granitemoehybrid.py``, ``modeling_nemotron_h.py``): the state is
    heads × head width × state size, kept in fp32 only where ``mamba_ssm_cache_dtype`` says so."""
    hidden, heads, width = whole(c, "hidden_size"), whole(c, "mamba_n_heads"), _mamba_width(c)
    groups, size, kernel = whole(c, "mamba_n_groups"), whole(c, "mamba_d_state"), whole(c, "mamba_d_conv")
    chunk, wide = whole(c, "mamba_chunk_size", 256), heads * width
    mixed = wide + 2 * groups * size
    matrices = hidden * (wide + mixed + heads) + mixed * kernel + wide * hidden
    vectors = 3 * heads + wide + (mixed if _first_flag(c, "mamba_conv_bias", "use_conv_bias") else 0)
    if flag(c, "mamba_proj_bias") or flag(c, "use_bias"):
        vectors += wide + mixed + heads + hidden
    state = heads * width * size
    number = FP32_BYTES if c.get("mamba_ssm_cache_dtype") == "float32" else CACHE_BYTES
    return Mixer(
        kind="linear",
        params=matrices + vectors,
        vector_params=vectors,
        heads=heads,
        kv_heads=heads if groups == 1 else groups,  # a single group is repeated on every GPU
        inner=2 * (wide + mixed) + heads,
        state_bytes=state * number + mixed * (kernel - 1) * CACHE_BYTES,
        state_flops=4 * state,
        chunk_flops=4 * state + 2 * chunk * (groups * size + wide),
    )


def mamba(c: Config) -> Mixer:
    """Mamba (arXiv 2312.00752; ``modeling_jamba.py``, with norms of its own): a scan, token by token."""
    hidden, size, kernel = whole(c, "hidden_size"), whole(c, "mamba_d_state"), whole(c, "mamba_d_conv")
    wide = whole(c, "mamba_expand", 2) * hidden
    rank = -(-hidden // 16) if c.get("mamba_dt_rank") in (None, "auto") else whole(c, "mamba_dt_rank")
    matrices = hidden * 2 * wide + wide * kernel + wide * (rank + 2 * size) + rank * wide + wide * hidden
    vectors = wide * size + 2 * wide + rank + 2 * size + (wide if flag(c, "mamba_conv_bias", True) else 0)
    if flag(c, "mamba_proj_bias"):
        vectors += 2 * wide + hidden
    return Mixer(
        kind="linear",
        params=matrices + vectors,
        vector_params=vectors,
        heads=wide,
        kv_heads=wide,
        inner=4 * wide + 2 * rank + 2 * size,
        state_bytes=(wide * size + wide * (kernel - 1)) * CACHE_BYTES,
        state_flops=4 * wide * size,
        chunk_flops=4 * wide * size,
    )


def lightning(c: Config) -> Mixer:
    """Lightning attention (arXiv 2501.08313; ``modeling_minimax.py``): a fp32 state of heads × width²."""
    hidden, heads = whole(c, "hidden_size"), whole(c, "num_attention_heads")
    width, block = whole(c, "head_dim", hidden // heads), whole(c, "block_size", 256)
    wide = heads * width
    return Mixer(
        kind="linear",
        params=5 * hidden * wide + wide,
        vector_params=wide,
        heads=heads,
        kv_heads=heads,
        inner=5 * wide,
        state_bytes=wide * width * FP32_BYTES,
        state_flops=4 * wide * width,
        chunk_flops=4 * wide * (width + block),
    )


def short_convolution(c: Config) -> Mixer:
    """LFM2's gated convolution over the last few tokens (``modeling_lfm2.py``)."""
    hidden, kernel = whole(c, "hidden_size"), whole(c, "conv_L_cache")
    vectors = 5 * hidden if flag(c, "conv_bias") else 0
    return Mixer(
        kind="linear",
        params=hidden * (4 * hidden + kernel) + vectors,
        vector_params=vectors,
        heads=hidden,
        kv_heads=hidden,
        inner=5 * hidden,
        state_bytes=hidden * (kernel - 1) * CACHE_BYTES,
    )


def _mamba_width(c: Config) -> int:
    if c.get("mamba_d_head") == "auto":
        return whole(c, "mamba_expand", 2) * whole(c, "hidden_size") // whole(c, "mamba_n_heads")
    return whole(c, "mamba_d_head")


def _first_flag(c: Config, *names: str) -> bool:
    return flag(c, next((name for name in names if c.get(name) is not None), names[0]), True)
