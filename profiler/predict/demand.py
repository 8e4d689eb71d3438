"""What one GPU of a replica has to do in one step: everything that does not depend on how fast it is."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from profiler.arch import work
from profiler.arch.shape import CACHE_BYTES, Feed, LayerKind, Mixer, Shape
from profiler.arch.work import Number
from profiler.experts import distinct_skewed, distinct_uniform, largest_cv
from profiler.predict.nouns import Deployment
from profiler.roofline import link_bytes, share

# Kernels a layer launches beside its norms, counted in vLLM's compiled models: projections in and out, rotary
# embedding, cache write, attention and its merge, one sum; gate-and-up, activation, down.
MIXER_KERNELS = {"full": 7, "window": 7, "latent": 10, "linear": 10}
DENSE_KERNELS = 3
QUERY_KEY_NORMS = 2
ROUTED_KERNELS = 8  # router, top-k, two of sorting, two grouped products, activation, sum
# Rows a grouped kernel works on at once: vLLM's default (fused_moe.get_default_config) is 16 for as many
# tokens as a GPU has experts, else 64.  An expert's last block is filled up.
SMALL_BLOCK, LARGE_BLOCK = 16, 64
# Kernels that unpack 4-bit weights take the smallest of 8, 16, 32, 48, 64 rows that an expert's mean share
# fills to at most .9 (vLLM, fused_marlin_moe); here without the steps.
PACKED_BLOCK, PACKED_FULL = 8, 0.9
KNOTS = 128
# Load of the fullest of n ranks over the mean at a skew of 1.12: measured on Qwen3-235B, experts placed in
# order (docs/routing.md).
IMBALANCE = {1: 1.0, 2: 1.07, 4: 1.20, 8: 1.43, 16: 1.81}


class Part(Struct, frozen=True):
    """Some of a step's work: bytes of weights and activations, bytes of cache, FLOPs."""

    streamed_bytes: Number
    cache_bytes: Number
    flops: Number
    routed: bool = False


class Demand(Struct, frozen=True, kw_only=True):
    """``logits`` are sampled from; ``sums`` are exchanges between GPUs, of ``sent_bytes`` together."""

    parts: tuple[Part, ...]
    kernels: int
    sequences: Number
    logits: Number
    sums: int
    sent_bytes: Number

    @property
    def moved_bytes(self) -> Any:
        return sum(part.streamed_bytes + part.cache_bytes for part in self.parts)

    @property
    def flops(self) -> Any:
        return sum(part.flops for part in self.parts)


def demand(what: Deployment, batch: work.Batch, cv: float) -> Demand:
    """Of one step of ``batch`` (of all GPUs of the replica) at an expert load of variation ``cv``."""
    split, shape = what.split, what.shape
    ops = work.step(shape, what.widths, batch, lambda feed, tokens: touched(feed, tokens, cv))
    parts = tuple(
        _routed(op, what, batch, cv) if op.splits == "expert" else Part(*share(op, split)) for op in ops
    )
    layers = sum(kind.count for kind in shape.layers)
    return Demand(
        parts=parts,
        kernels=sum(kind.count * _kernels(kind, shape) for kind in shape.layers),
        sequences=batch.sampled / split.replicas,
        logits=batch.sampled / split.replicas * shape.vocab,
        sums=2 * layers if split.gpus > 1 else 0,
        sent_bytes=link_bytes(shape, what.widths, batch.tokens, split),
    )


def touched(feed: Feed, tokens: Number, cv: float) -> Number:
    """Distinct experts at a skew of ``cv``, or at the largest that so few experts can have."""
    import numpy as np

    skew = min(cv, 0.98 * largest_cv(feed.experts, feed.per_token))
    if skew <= 0:
        return distinct_uniform(feed.experts, feed.per_token, tokens)
    if np.size(tokens) <= KNOTS:
        return distinct_skewed(feed.experts, feed.per_token, tokens, skew)
    # Smooth in the logarithm of the tokens: between this many knots it is off by less than 1e-4.
    logs = np.log1p(tokens)
    knots = np.linspace(logs.min(), logs.max(), KNOTS)
    return np.interp(logs, knots, distinct_skewed(feed.experts, feed.per_token, np.expm1(knots), skew))


def _routed(op: work.Op, what: Deployment, batch: work.Batch, cv: float) -> Part:
    """Experts of the fullest rank, with the rows that fill up their blocks."""
    import numpy as np

    ranks = what.expert
    feed = next(kind.feed for kind in what.shape.layers if kind.feed.experts)
    held, tokens = feed.experts / ranks, batch.tokens
    uneven = 1 + (imbalance(ranks) - 1) * min(cv, 1.12) / 1.12
    distinct = np.maximum(np.asarray(op.distinct, float), 1e-9)
    fullest = np.minimum(distinct / ranks * uneven, held)
    rows = np.maximum(feed.per_token * tokens / ranks * uneven, 1e-9)
    if what.widths.routed < 1:
        block = np.clip(rows / held / PACKED_FULL, PACKED_BLOCK, LARGE_BLOCK)
    else:
        block = np.where(tokens <= held, SMALL_BLOCK, LARGE_BLOCK)
    filled = np.maximum(fullest * block, rows + fullest * (block - 1) / 2) / rows
    widths = what.tensor / min(what.expert, what.tensor)  # what of a tensor group is left to cut each expert
    weights = op.weight_bytes * fullest / distinct / widths
    share = uneven / ranks / widths
    return Part(
        weights + op.activation_bytes * share,
        0.0,
        op.flops * share * np.where(tokens > 0, filled, 1.0),
        routed=True,
    )


def imbalance(ranks: int) -> float:
    """Load of the fullest of ``ranks`` over the mean; beyond 16 as at 16."""
    return IMBALANCE[max(known for known in IMBALANCE if known <= max(ranks, 1))]


def _kernels(kind: LayerKind, shape: Shape) -> int:
    feed = kind.feed
    count = MIXER_KERNELS[kind.mixer.kind] + round(kind.norm_params / shape.hidden)
    count += QUERY_KEY_NORMS * _norms_queries(kind.mixer)
    count += DENSE_KERNELS * ((feed.dense_params > 0) + (feed.shared_params > 0))
    return count + (ROUTED_KERNELS if feed.experts else 0)


def _norms_queries(mixer: Mixer) -> bool:
    """Queries and keys are normed by head or over all heads: told by how many weights that takes."""
    if mixer.kind not in ("full", "window"):
        return False
    width = mixer.cache_bytes // (2 * mixer.kv_heads * CACHE_BYTES)
    return mixer.vector_params in (2 * width, (mixer.heads + mixer.kv_heads) * width)
