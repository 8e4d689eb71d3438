"""What a model's layers ask of a machine: the numbers that work and bytes of any step follow from."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Mixer(Struct, frozen=True, kw_only=True):
    """The part of a layer in which tokens look at each other, or a recurrent one in its place.

    ``params``: all its weights (projections, biases, norms of queries and keys, sinks).
    ``cache_bytes``: per token and layer at 2-byte numbers; 0 where there is only ``state_bytes``, a sequence.
    ``decode_flops``: of one new token against one cached token, both products; ``prefill_flops``: of one
    token of a prompt against one earlier one, which differs for latent attention (decoding absorbs the
    rebuilding of keys and values into the projections).  ``state_flops``: a token's, of a recurrent block.
    A block with ``window_tokens`` sees and keeps that many of the last tokens.
    """

    kind: Literal["full", "window", "latent", "linear"]
    params: int
    heads: int
    kv_heads: int
    cache_bytes: int = 0
    state_bytes: int = 0
    decode_flops: int = 0
    prefill_flops: int = 0
    state_flops: int = 0
    window_tokens: int | None = None


class Feed(Struct, frozen=True, kw_only=True):
    """The feed-forward part of a layer: what every token uses (dense, shared, router), and ``experts`` of
    ``expert_params`` each, of which a token uses ``per_token``."""

    dense_params: int = 0
    shared_params: int = 0
    router_params: int = 0
    experts: int = 0
    per_token: int = 0
    expert_params: int = 0


class LayerKind(Struct, frozen=True, kw_only=True):
    """``count`` layers that are alike."""

    count: int
    mixer: Mixer
    feed: Feed
    norm_params: int


class Shape(Struct, frozen=True, kw_only=True):
    """A language model, layer kind by layer kind.

    ``input_embedding_params`` is a table of which a step reads a row a token; ``head_params`` a matrix that
    is read whole.  Where they are ``tied`` there is one of them in memory.  ``missing``: what could not be
    counted, in words; figures made from such a shape are lower bounds and say so.
    """

    layers: tuple[LayerKind, ...]
    hidden: int
    vocab: int
    input_embedding_params: int
    head_params: int
    tied: bool
    final_norm_params: int
    heads: int
    kv_heads: int
    max_context_tokens: int | None
    missing: tuple[str, ...] = ()
