"""The nouns of prediction: what is deployed, how it is loaded, what comes out, what was measured."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from profiler.arch.shape import Shape
from profiler.arch.work import Number, Widths
from profiler.catalog import GpuSpec
from profiler.errors import InputError
from profiler.roofline import Split

METRICS = (
    "tpot_s",
    "itl_s_p50",
    "ttft_s",
    "output_tokens_per_s",
    "power_w_mean",
    "energy_j_per_output_token",
)


class Deployment(Struct, frozen=True, kw_only=True):
    """One replica of a model on ``max(tensor, expert)`` GPUs.

    ``expert`` up to ``tensor``: experts lie on the GPUs of the tensor group (vLLM's
    ``--enable-expert-parallel``); beyond it attention is data-parallel.  ``cv``: coefficient of variation of
    the experts' load, 0 for uniform routing, None where unknown: the range of trained routers then goes into
    the interval.  ``execution``: ``graph`` where the GPU replays a step by itself (CUDA graphs), ``eager``
    where Python launches each kernel.  ``step_tokens``: the most a step takes (vLLM's
    ``max_num_batched_tokens``).  Raises InputError for degrees that are not whole multiples of each other.
    """

    shape: Shape
    widths: Widths
    gpu: GpuSpec
    tensor: int = 1
    expert: int = 1
    cv: float | None = None
    execution: Literal["graph", "eager"] = "graph"
    step_tokens: int = 8192

    def __post_init__(self) -> None:
        if min(self.tensor, self.expert) < 1 or max(self.tensor, self.expert) % min(self.tensor, self.expert):
            raise InputError(
                f"tensor parallel {self.tensor} and expert parallel {self.expert}: one must divide the other"
            )
        if self.step_tokens < 1:
            raise InputError(f"a step of {self.step_tokens} tokens does nothing: expected at least 1")

    @property
    def split(self) -> Split:
        return Split(tensor=self.tensor, expert=self.expert, kv_heads=self.shape.kv_heads)

    @property
    def routes(self) -> bool:
        return any(kind.feed.experts for kind in self.shape.layers)


class Load(Struct, frozen=True, kw_only=True):
    """``concurrency`` sequences at once, each of ``input_tokens`` and ``output_tokens`` on average: numbers,
    or arrays that broadcast.

    ``output_cv``: coefficient of variation of the output lengths, which makes the sequences that are running
    longer than the mean one.  ``backlog``: further requests wait at the engine, so that no place in the batch
    is ever empty (an offline batch); else each comes when another's answer has reached its client.
    """

    concurrency: Number
    input_tokens: Number
    output_tokens: Number
    output_cv: float = 0.0
    backlog: bool = False


class Interval(Struct, frozen=True):
    """A figure and its 90 % interval; arrays of one shape."""

    value: Any
    low: Any
    high: Any


class Prediction(Struct, frozen=True, kw_only=True):
    """Power, energy and tokens are of all GPUs of the replica; None where the GPU's sheet has no power.

    ``bound_by``: what most of a decode step is spent on (bandwidth, compute, launch, communication).
    ``extrapolated``: outside what the coefficients were fitted to; ``reasons``: what the interval is wider
    for, in words, and at which loads; ``calibrated``: measured points of the user's went in.
    """

    tpot_s: Interval
    itl_s_p50: Interval
    ttft_s: Interval
    output_tokens_per_s: Interval
    bound_by: Any
    calibrated: bool
    extrapolated: Any
    reasons: dict[str, Any]
    power_w_mean: Interval | None = None
    energy_j_per_output_token: Interval | None = None


class Point(Struct, frozen=True, kw_only=True):
    """What was measured at one load; None is not measured.  At least one figure is."""

    what: Deployment
    load: Load
    tpot_s: float | None = None
    itl_s_p50: float | None = None
    ttft_s: float | None = None
    output_tokens_per_s: float | None = None
    power_w_mean: float | None = None
    energy_j_per_output_token: float | None = None
