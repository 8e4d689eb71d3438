"""The work of one step of a model: operations and bytes, op by op, for any batch.

A step is one pass over the weights with the tokens of some prompts and one new token of each running
sequence.  Numbers may be plain or numpy arrays that broadcast: a whole map of batches and contexts is one
call.  Not counted as operations: softmax, norms, activation functions, rotary embedding, sampling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

from profiler.arch.shape import CACHE_BYTES, Feed, LayerKind, Mixer, Shape
from profiler.experts import distinct_uniform

Number = Any  # int, float, or a numpy array of them
Distinct = Callable[[Feed, Number], Number]
Splits = Literal["tensor", "expert", "kv", "none"]


class Widths(Struct, frozen=True, kw_only=True):
    """Bytes of a number.

    ``routed``: of a routed expert's weight; ``other``: of one in the other matrices, ``attention`` in those
    of attention where they differ; ``embedding``: of what formats leave alone, the embeddings, the head,
    routers and norms.  ``cache``: of a cached number; ``activation``: of one that passes between operations.
    ``compute``: the arithmetic the matrix products are done in.
    """

    routed: float
    other: float
    embedding: float
    attention: float | None = None
    cache: float = 2
    activation: float = 2
    compute: Literal["bf16", "fp8", "fp32"] = "bf16"


class Batch(Struct, frozen=True, kw_only=True):
    """What a step works on: ``prefill_sequences`` prompts of ``prefill_tokens`` tokens each, behind
    ``prefill_context`` cached ones, and ``decode_sequences`` with one new token each, behind
    ``decode_context`` tokens on average."""

    prefill_sequences: Number = 0
    prefill_tokens: Number = 0
    prefill_context: Number = 0
    decode_sequences: Number = 0
    decode_context: Number = 0

    @property
    def prompt(self) -> Number:
        """Tokens of all its prompts."""
        return self.prefill_sequences * self.prefill_tokens

    @property
    def tokens(self) -> Number:
        return self.prompt + self.decode_sequences

    @property
    def sampled(self) -> Number:
        """Tokens that come out: one a sequence."""
        return self.prefill_sequences + self.decode_sequences


class Op(Struct, frozen=True, kw_only=True):
    """One operation's work in a step, over all ``layers`` that have it.

    ``weight_bytes`` and ``cache_bytes`` (read and written) and ``activation_bytes`` move between memory and
    chip.  ``splits``: how several GPUs share it: ``tensor`` evenly, ``expert`` by experts (or evenly), ``kv``
    evenly but for the cache, which divides no finer than the heads it has, ``none`` each does it whole.
    ``distinct``: experts touched a layer.
    """

    name: str
    layers: int
    splits: Splits
    flops: Number = 0
    weight_bytes: Number = 0
    cache_bytes: Number = 0
    activation_bytes: Number = 0
    distinct: Number | None = None


def uniform(feed: Feed, tokens: Number) -> Number:
    """Experts of one layer that ``tokens`` touch where each is as likely as any other."""
    return distinct_uniform(feed.experts, feed.per_token, tokens)


def step(shape: Shape, widths: Widths, batch: Batch, distinct: Distinct = uniform) -> tuple[Op, ...]:
    """The operations of one step, in the order of a layer, each summed over all layers."""
    sums: dict[str, Op] = {}
    for kind in shape.layers:
        for op in _layer(kind, shape.hidden, widths, batch, distinct):
            sums[op.name] = _add(sums[op.name], op) if op.name in sums else op
    sums["norms"] = _add(sums["norms"], _norms(0, shape.final_norm_params, widths, batch))
    return (*sums.values(), *_ends(shape, widths, batch))


def kv_bytes(shape: Shape, widths: Widths, tokens: Number, sequences: Number) -> Number:
    """Cache that ``sequences`` of together ``tokens`` tokens hold; a window is kept of each, and a state."""
    total: Number = 0
    for kind in shape.layers:
        window = kind.mixer.window_tokens
        kept = tokens if window is None else least(tokens, window * sequences)
        each = kind.mixer.cache_bytes * widths.cache / CACHE_BYTES
        total = total + kind.count * (each * kept + kind.mixer.state_bytes * sequences)
    return total


def weight_bytes(shape: Shape, widths: Widths) -> float:
    """All weights in memory."""
    return sum(weight_parts(shape, widths).values())


def weight_parts(shape: Shape, widths: Widths) -> dict[str, float]:
    """Bytes of the weights in memory by what they are for: dense, routed, shared, embedding."""
    dense = shape.final_norm_params * widths.embedding
    for kind in shape.layers:
        feed = kind.feed
        kept = (kind.norm_params + feed.router_params) * widths.embedding
        dense += kind.count * (_attention_bytes(kind.mixer, widths) + feed.dense_params * widths.other + kept)
    return {
        "dense": dense,
        "routed": shape.routed_params * widths.routed,
        "shared": shape.shared_params * widths.other,
        "embedding": shape.embedding_params * widths.embedding,
    }


def least(one: Number, other: Number) -> Number:
    """The smaller, of numbers and of arrays alike."""
    return (one + other - abs(one - other)) / 2


# -------------------------------------------------------------------------------------------- layers


def _layer(kind: LayerKind, hidden: int, widths: Widths, batch: Batch, distinct: Distinct) -> list[Op]:
    norms = _norms(kind.count, kind.count * kind.norm_params, widths, batch)
    return [*_mixing(kind, hidden, widths, batch), *_feeding(kind, hidden, widths, batch, distinct), norms]


def _norms(layers: int, params: int, widths: Widths, batch: Batch) -> Op:
    """A norm comes with the residual sum before it: two vectors read, two written."""
    return Op(
        name="norms",
        layers=layers,
        splits="none",
        weight_bytes=params * widths.embedding,
        activation_bytes=4 * params * batch.tokens * widths.activation,
    )


def _mixing(kind: LayerKind, hidden: int, widths: Widths, batch: Batch) -> list[Op]:
    mixer, n = kind.mixer, kind.count
    if not mixer.params:
        return []
    projections = Op(
        name="attention projections",
        layers=n,
        splits="tensor",
        flops=n * 2 * (mixer.params - mixer.vector_params) * batch.tokens,
        weight_bytes=n * _attention_bytes(mixer, widths),
        activation_bytes=n * (2 * hidden + mixer.inner) * batch.tokens * widths.activation,
    )
    return [
        projections,
        _recurrence(mixer, n, widths, batch)
        if mixer.kind == "linear"
        else _attention(mixer, n, widths, batch),
    ]


def _attention(mixer: Mixer, n: int, widths: Widths, batch: Batch) -> Op:
    """Each new token against those before it and itself; the cache is read once a sequence and step."""
    seen = mixer.seen_tokens
    decoded = batch.decode_sequences * _within(batch.decode_context + 1, seen)
    flops = mixer.decode_flops * decoded + mixer.prefill_flops * _pairs(batch, seen)
    flops = flops + mixer.rebuild_flops * batch.prefill_sequences * batch.prefill_context
    read = (mixer.cache_bytes - mixer.index_bytes) * _cached(batch, seen)
    if mixer.index_flops:
        every = batch.decode_sequences * (batch.decode_context + 1) + _pairs(batch, None)
        flops = flops + mixer.index_flops * every
        read = read + mixer.index_bytes * _cached(batch, None)
    return Op(
        name="attention",
        layers=n,
        splits="kv",
        flops=n * flops,
        cache_bytes=n * (widths.cache / CACHE_BYTES) * (read + mixer.cache_bytes * batch.tokens),
        activation_bytes=n * mixer.inner * batch.tokens * widths.activation,
    )


def _cached(batch: Batch, seen: int | None) -> Number:
    """Tokens whose cache is read."""
    decoding = batch.decode_sequences * _within(batch.decode_context, seen)
    return decoding + batch.prefill_sequences * _within(batch.prefill_context, seen)


def _pairs(batch: Batch, window: int | None) -> Number:
    """Pairs of a prompt's token and one it sees (earlier ones and itself), over all prompts of the batch:
    the i-th sees context + i, or the window."""
    tokens, context = batch.prefill_tokens, batch.prefill_context
    if window is None:
        return batch.prefill_sequences * (tokens * context + tokens * (tokens + 1) / 2)
    growing = least(tokens, window - least(context, window))
    before = growing * context + growing * (growing + 1) / 2
    return batch.prefill_sequences * (before + (tokens - growing) * window)


def _within(tokens: Number, window: int | None) -> Number:
    return tokens if window is None else least(tokens, window)


def _recurrence(mixer: Mixer, n: int, widths: Widths, batch: Batch) -> Op:
    """The state is read and written once a sequence and step, however many tokens are behind it."""
    flops = mixer.state_flops * batch.decode_sequences + mixer.chunk_flops * batch.prompt
    return Op(
        name="recurrence",
        layers=n,
        splits="tensor",
        flops=n * flops,
        cache_bytes=n * 2 * mixer.state_bytes * batch.sampled,
        activation_bytes=n * mixer.inner * batch.tokens * widths.activation,
    )


def _feeding(kind: LayerKind, hidden: int, widths: Widths, batch: Batch, distinct: Distinct) -> list[Op]:
    feed, n = kind.feed, kind.count

    def op(name: str, params: int, vectors: int, inner: int, splits: Splits = "tensor") -> Op:
        width = widths.embedding if splits == "none" else widths.other
        return Op(
            name=name,
            layers=n,
            splits=splits,
            flops=n * 2 * (params - vectors) * batch.tokens,
            weight_bytes=n * params * width,
            activation_bytes=n * (2 * hidden + inner) * batch.tokens * widths.activation,
        )

    ops = []
    if feed.dense_params:
        vectors = 0 if feed.experts else feed.vector_params
        ops.append(op("dense feed-forward", feed.dense_params, vectors, feed.matrices * feed.dense_width))
    if feed.shared_params:
        ops.append(op("shared experts", feed.shared_params, 0, feed.matrices * feed.shared_width))
    if feed.experts:
        ops.append(op("router", feed.router_params, feed.vector_params, feed.experts - hidden, "none"))
        ops.append(_routed(feed, n, hidden, widths, batch.tokens, distinct))
    return ops


def _routed(feed: Feed, n: int, hidden: int, widths: Widths, tokens: Number, distinct: Distinct) -> Op:
    """A token pays the products of its own experts; the step reads the weights of all that are chosen."""
    touched, chosen = distinct(feed, tokens), feed.per_token * tokens
    return Op(
        name="routed experts",
        layers=n,
        splits="expert",
        flops=n * 2 * (feed.expert_params - feed.expert_vector_params) * chosen,
        weight_bytes=n * touched * feed.expert_params * widths.routed,
        activation_bytes=n * (2 * hidden + feed.matrices * feed.expert_width) * chosen * widths.activation,
        distinct=touched,
    )


def _ends(shape: Shape, widths: Widths, batch: Batch) -> list[Op]:
    """Before and after the layers: a row of the table a token, the whole head for those sampled."""
    row = shape.hidden * widths.activation
    return [
        Op(
            name="embedding",
            layers=1,
            splits="tensor",
            weight_bytes=batch.tokens * shape.hidden * widths.embedding,
            activation_bytes=batch.tokens * row,
        ),
        Op(
            name="head",
            layers=1,
            splits="tensor",
            flops=2 * shape.hidden * shape.vocab * batch.sampled,
            weight_bytes=shape.head_params * widths.embedding,
            activation_bytes=batch.sampled * (row + shape.vocab * widths.activation),
        ),
    ]


def _attention_bytes(mixer: Mixer, widths: Widths) -> float:
    return mixer.params * (widths.other if widths.attention is None else widths.attention)


def _add(one: Op, other: Op) -> Op:
    layers = one.layers + other.layers
    distinct = None
    if one.distinct is not None and other.distinct is not None:
        distinct = (one.distinct * one.layers + other.distinct * other.layers) / layers
    return Op(
        name=one.name,
        layers=layers,
        splits=one.splits,
        flops=one.flops + other.flops,
        weight_bytes=one.weight_bytes + other.weight_bytes,
        cache_bytes=one.cache_bytes + other.cache_bytes,
        activation_bytes=one.activation_bytes + other.activation_bytes,
        distinct=distinct,
    )
