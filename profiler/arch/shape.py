"""What a model's layers ask of a machine: the numbers that work and bytes of any step follow from."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

CACHE_BYTES = 2  # per cached number: a bf16 cache


class Mixer(Struct, frozen=True, kw_only=True):
    """The part of a layer in which tokens look at each other, or a recurrent one in its place.

    ``params``: all its weights; of these ``vector_params`` are biases, norms and sinks, which are read but
    no matrix product.  ``inner``: numbers a token passes between the projections (queries, keys, values and
    what attention gives back).
    ``cache_bytes``: per token and layer at 2-byte numbers; 0 where there is only ``state_bytes``, a sequence.
    ``decode_flops``: of one new token against one cached token, both products; ``prefill_flops``: of one
    token of a prompt against one earlier one, which differs for latent attention (decoding absorbs the
    rebuilding of keys and values into the projections; a prompt rebuilds those cached before it at
    ``rebuild_flops`` a token).  ``state_flops``: a token's, of a recurrent block; ``chunk_flops``: the same
    in a prompt, which is worked off in chunks.  A block with ``window_tokens`` sees and keeps that many of
    the last tokens; one with ``selected_tokens`` keeps all, but sees only as many as an indexer picks: of
    every token it reads ``index_bytes`` (a part of ``cache_bytes``) at ``index_flops`` a pair.
    """

    kind: Literal["full", "window", "latent", "linear"]
    params: int
    heads: int
    kv_heads: int
    vector_params: int = 0
    inner: int = 0
    cache_bytes: int = 0
    state_bytes: int = 0
    decode_flops: int = 0
    prefill_flops: int = 0
    rebuild_flops: int = 0
    state_flops: int = 0
    chunk_flops: int = 0
    window_tokens: int | None = None
    selected_tokens: int | None = None
    index_bytes: int = 0
    index_flops: int = 0

    @property
    def seen_tokens(self) -> int | None:
        """Attention looks at no more tokens than these, None at all of them."""
        return self.window_tokens or self.selected_tokens


class Feed(Struct, frozen=True, kw_only=True):
    """The feed-forward part of a layer: what every token uses (dense, shared, router), and ``experts`` of
    ``expert_params`` each, of which a token uses ``per_token``.

    ``vector_params`` (of the dense part, or of the router beside experts) and ``expert_vector_params`` (of
    each expert) are the biases among them.  A block is ``matrices`` (gate, up and down; or
    two, without a gate) of hidden size × ``dense_width``, ``shared_width`` or ``expert_width``.
    """

    dense_params: int = 0
    shared_params: int = 0
    router_params: int = 0
    experts: int = 0
    per_token: int = 0
    expert_params: int = 0
    vector_params: int = 0
    expert_vector_params: int = 0
    matrices: int = 3
    dense_width: int = 0
    shared_width: int = 0
    expert_width: int = 0

    @property
    def routed_params(self) -> int:
        return self.experts * self.expert_params

    @property
    def params(self) -> int:
        return self.dense_params + self.shared_params + self.router_params + self.routed_params


class LayerKind(Struct, frozen=True, kw_only=True):
    """``count`` layers that are alike."""

    count: int
    mixer: Mixer
    feed: Feed
    norm_params: int

    @property
    def params(self) -> int:
        """Of one of them."""
        return self.mixer.params + self.feed.params + self.norm_params


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

    @property
    def embedding_params(self) -> int:
        """In memory: input table and head, once where they are tied."""
        return self.head_params + (0 if self.tied else self.input_embedding_params)

    @property
    def routed_params(self) -> int:
        return sum(kind.count * kind.feed.routed_params for kind in self.layers)

    @property
    def shared_params(self) -> int:
        return sum(kind.count * kind.feed.shared_params for kind in self.layers)

    @property
    def total_params(self) -> int:
        inside = sum(kind.count * kind.params for kind in self.layers)
        return self.embedding_params + self.final_norm_params + inside

    @property
    def active_params(self) -> int:
        """What one token's pass uses, input embedding and head counted whole.  Makers' "A3B" is this, or one
        of the two below."""
        chosen = sum(kind.count * kind.feed.per_token * kind.feed.expert_params for kind in self.layers)
        return self.total_params - self.routed_params + chosen

    @property
    def active_params_no_input_embedding(self) -> int:
        """Without the table of which a token reads one row: what a step of one token streams."""
        return self.active_params - (0 if self.tied else self.input_embedding_params)

    @property
    def active_params_no_embedding(self) -> int:
        """Without the head either."""
        return self.active_params - self.embedding_params
