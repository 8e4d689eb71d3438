"""The fastest a step could be on a GPU: every operation at the data sheet's full bandwidth or full rate.

Operations run one after the other; each takes the longer of reading its bytes and doing its products, and
what the GPUs of a group tell each other comes on top (Williams et al., CACM 52(4), 2009, operation by
operation).  No efficiency, no launch, no waiting: a ceiling, which measured steps are set against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from profiler.arch import work
from profiler.arch.shape import Feed, Shape
from profiler.catalog import GpuSpec
from profiler.errors import InputError

Numbers = Any  # int, float, or a numpy array of them
PCIE_GBS = 32.0  # PCI Express 4.0, 16 lanes, one way


class Split(Struct, frozen=True, kw_only=True):
    """Over how many GPUs the matrices (``tensor``) and the experts (``expert``) of one replica are spread.

    Experts beyond ``tensor`` GPUs mean that attention is data-parallel there: each GPU has its own share of
    the batch.  ``kv_heads``: the cache can be cut in no more parts than that.
    """

    tensor: int = 1
    expert: int = 1
    kv_heads: int = 1 << 30

    @property
    def gpus(self) -> int:
        return max(self.tensor, self.expert)

    @property
    def replicas(self) -> int:
        """Groups of ``tensor`` GPUs, each with a batch of its own."""
        return self.gpus // self.tensor


class OpTime(Struct, frozen=True, kw_only=True):
    """One kind of operation, over all layers of one step, on each GPU."""

    name: str
    bandwidth_s: Numbers
    compute_s: Numbers

    @property
    def seconds(self) -> Numbers:
        return _longest(self.bandwidth_s, self.compute_s)


class Ceiling(Struct, frozen=True, kw_only=True):
    """``bandwidth_s`` and ``compute_s`` are sums over all operations; ``seconds`` the sum of each one's
    longer, and ``communication_s``."""

    ops: tuple[OpTime, ...]
    bandwidth_s: Numbers
    compute_s: Numbers
    communication_s: Numbers
    seconds: Numbers

    @property
    def bound_by(self) -> Any:
        """What most of the step is spent on: a word, or an array of words."""
        import numpy as np

        reading = sum(_where_more(op.bandwidth_s, op.compute_s) for op in self.ops)
        working = self.seconds - self.communication_s - reading
        parts = np.broadcast_arrays(reading, working, self.communication_s)
        words = np.asarray(("bandwidth", "compute", "communication"))[np.argmax(parts, axis=0)]
        return str(words) if words.ndim == 0 else words


def ceiling(
    shape: Shape,
    widths: work.Widths,
    batch: work.Batch,
    spec: GpuSpec,
    split: Split = Split(),  # noqa: B008  frozen
    distinct: Callable[[Feed, Any], Any] = work.uniform,
) -> Ceiling:
    """The ceiling of one step of ``batch``.  Raises InputError where the GPU's sheet lacks a needed rate."""
    ops = work.step(shape, widths, batch, distinct)
    sent = link_bytes(shape, widths, batch.tokens, split)
    return ideal(ops, spec, split, widths.compute, sent)


def ideal(
    ops: Sequence[work.Op],
    spec: GpuSpec,
    split: Split = Split(),  # noqa: B008  frozen
    compute: str = "bf16",
    sent_bytes: Numbers = 0.0,
) -> Ceiling:
    """Seconds of each operation on one of the GPUs; ``sent_bytes`` go over its link, one way."""
    bandwidth, rate = bytes_per_s(spec), flops_per_s(spec, compute)
    times = []
    for op in ops:
        streamed, cached, flops = share(op, split)
        read_s = (streamed + cached) / bandwidth
        times.append(OpTime(name=op.name, bandwidth_s=read_s, compute_s=flops / rate))
    sending = sent_bytes / link_bytes_per_s(spec) if split.gpus > 1 else 0.0 * sent_bytes
    return Ceiling(
        ops=tuple(times),
        bandwidth_s=sum(each.bandwidth_s for each in times),
        compute_s=sum(each.compute_s for each in times),
        communication_s=sending,
        seconds=sum(each.seconds for each in times) + sending,
    )


def share(op: work.Op, split: Split) -> tuple[Numbers, Numbers, Numbers]:
    """One GPU's part of an operation on the whole batch: bytes of weights and activations, bytes of cache,
    FLOPs.  Experts are spread over all GPUs; the rest is cut in ``tensor`` parts, each group's on its own
    share of the batch; norms and routers are done whole by each."""
    if op.splits == "expert":
        each = split.gpus
        return (op.weight_bytes + op.activation_bytes) / each, op.cache_bytes / each, op.flops / each
    cut = 1 if op.splits == "none" else split.tensor
    held = min(split.tensor, split.kv_heads) if op.splits == "kv" else cut
    own = cut * split.replicas
    streamed = op.weight_bytes / cut + op.activation_bytes / own
    return streamed, op.cache_bytes / held / split.replicas, op.flops / own


def link_bytes(shape: Shape, widths: work.Widths, tokens: Numbers, split: Split) -> Numbers:
    """Bytes each GPU sends in a step of ``tokens`` on all GPUs together.

    Tensor parallel layers add up their parts twice a layer, after attention and after the feed-forward part:
    a ring sends 2·(n − 1)/n of the numbers (Thakur et al., IJHPCA 19(1), 2005).  Experts beyond the tensor
    group get each token's vector sent and send one back, to as many GPUs as it has experts on others.
    """
    vector = shape.hidden * widths.activation
    layers = sum(kind.count for kind in shape.layers)
    local = tokens / split.replicas
    sent = 2 * layers * 2 * (split.tensor - 1) / split.tensor * local * vector
    if split.replicas > 1:
        routed = sum(kind.count * min(kind.feed.per_token, split.gpus - 1) for kind in shape.layers)
        sent = sent + 2 * routed * local * vector / split.tensor
    return sent


def bytes_per_s(spec: GpuSpec) -> float:
    """Memory bandwidth of the data sheet."""
    return 1e9 * _known(spec, spec.mem_bw_gbs, "memory bandwidth", "mem_bw_gbs")


def flops_per_s(spec: GpuSpec, compute: str) -> float:
    """Dense matrix rate; a GPU without fp8 units multiplies 8-bit weights in bf16."""
    if compute == "fp32":
        return 1e12 * _known(spec, spec.dense_fp32_tflops, "fp32 rate", "dense_fp32_tflops")
    rate = spec.fp8_tflops if compute == "fp8" and spec.fp8_tflops else spec.dense_bf16_tflops
    return 1e12 * _known(spec, rate, "bf16 rate", "dense_bf16_tflops")


def link_bytes_per_s(spec: GpuSpec) -> float:
    """One way, between the GPUs of a host: half of NVLink's two-way figure, else PCI Express."""
    return 1e9 * (spec.nvlink_gbs / 2 if spec.nvlink_gbs else PCIE_GBS)


def _known(spec: GpuSpec, value: float | None, words: str, key: str) -> float:
    if not value:
        raise InputError(f"no source gives {spec.gpu}'s {words}: add {key} to your GPU sheet")
    return value


def _longest(one: Numbers, other: Numbers) -> Numbers:
    import numpy as np

    found = np.maximum(one, other)
    return float(found) if found.ndim == 0 else found


def _where_more(one: Numbers, other: Numbers) -> Numbers:
    """``one`` where it is the longer, else 0."""
    import numpy as np

    return np.where(np.asarray(one) >= other, one, 0.0)
