"""One model on so many GPUs of a kind: does it fit, and what is left for the cache?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from profiler import arch, fit
from profiler.arch import work
from profiler.catalog import GpuSpec
from profiler.plan.question import MOST_GPUS, Candidate, Question
from profiler.weight_sizes import block

if TYPE_CHECKING:
    from profiler.predict import Deployment

# What our count of the weights, and the allowance for runtime and activations, may be off by.
WEIGHTS_OFF_FRAC = 0.02
OVERHEAD_OFF_FRAC = 0.5


class Placement(Struct, frozen=True, kw_only=True):
    """``tensor`` GPUs share each replica of attention, ``expert`` all experts (the engine's own words:
    tensor_parallel and enable_expert_parallel); without expert parallelism both are ``gpus``."""

    question: Question
    candidate: Candidate
    gpu: GpuSpec
    gpus: int
    tensor: int
    expert: int

    @property
    def copies(self) -> int:
        """Of attention and cache."""
        return self.gpus // self.tensor

    @property
    def weights_bytes(self) -> float:
        """On all GPUs together; replicas have each their own of all but the experts."""
        parts = work.weight_parts(self.candidate.shape, self.candidate.widths)
        everyones = sum(parts.values()) - parts["routed"] + self.candidate.vision_bytes
        return parts["routed"] + everyones * self.copies

    @property
    def overhead_bytes(self) -> int:
        return self.gpus * fit.GPU_OVERHEAD_BYTES

    @property
    def usable_bytes(self) -> float:
        frac = self.question.args.get("gpu_memory_utilization", fit.USABLE_FRAC)
        return float(self.gpu.memory_bytes * frac)

    def cache_bytes(self, weights_off: float = 0.0, overhead_off: float = 0.0) -> float:
        """Room for the cache on all GPUs; below 0 where not even the weights fit."""
        held = self.weights_bytes * (1 + weights_off) + self.overhead_bytes * (1 + overhead_off)
        heads = self.candidate.shape.kv_heads
        each = fit.cache_room(held / self.copies, self.tensor, self.usable_bytes, heads, 1.0)
        return each * self.copies

    def request_bytes(self, tokens: int) -> float:
        return float(work.kv_bytes(self.candidate.shape, self.candidate.widths, tokens, 1))

    @property
    def fits(self) -> bool:
        """The weights and one request of the longest kind."""
        longest = max(self.question.lengths.longest_total, self.question.scenario.engine.max_model_len or 0)
        return self.cache_bytes() >= self.copies * self.request_bytes(longest)

    @property
    def sequences(self) -> int:
        """Requests of the scenario's mean length that run at once; the engine queues the others."""
        room = self.cache_bytes() / self.request_bytes(self.question.tokens_each)
        return max(0, min(int(room), self._allowed))

    @property
    def _allowed(self) -> int:
        given = self.question.args.get("max_num_seqs")
        return given * self.copies if given else 1 << 20

    @property
    def kv_tokens(self) -> int:
        """Tokens that fit in the cache, in requests of the scenario's mean length."""
        tokens = self.question.tokens_each
        return max(0, int(self.cache_bytes() / self.request_bytes(tokens) * tokens))

    @property
    def idle_expert_bytes(self) -> float:
        """Weights of experts that a given token does not use."""
        feed = self.candidate.feed
        if feed is None:
            return 0.0
        routed = work.weight_parts(self.candidate.shape, self.candidate.widths)["routed"]
        return routed * (1 - feed.per_token / feed.experts)

    @property
    def residency_frac(self) -> float:
        """Share of the usable memory that holds experts a given token does not use."""
        return self.idle_expert_bytes / (self.usable_bytes * self.gpus)

    def deployment(self) -> Deployment:
        from profiler import predict

        held, args = self.candidate.widths, self.question.args
        if held.compute == "fp8" and self.gpu.fp8_tflops is None:
            held = msgspec.structs.replace(held, compute="bf16")  # 8-bit weights, products in 16
        return predict.Deployment(
            shape=self.candidate.shape,
            widths=held,
            gpu=self.gpu,
            tensor=self.tensor,
            expert=self.expert,
            cv=self.question.cv if self.candidate.feed else None,
            execution="eager" if args.get("enforce_eager") else "graph",
            step_tokens=self.question.step_tokens,
        )


def place(question: Question, candidate: Candidate, gpu: GpuSpec, gpus: int) -> Placement:
    """As the scenario's engine settings say; raises InputError where the model cannot be split like that."""
    copies, spread = _spread(question, candidate)
    shape, tensor = candidate.shape, gpus // copies
    obstacle = f"{copies} replicas of attention" if gpus % copies else None
    obstacle = obstacle or arch.tensor_obstacle(shape, tensor, block=block(candidate.model))
    obstacle = obstacle or (arch.expert_obstacle(shape, gpus) if spread else None)
    if obstacle:
        raise arch.refusal(f"--gpus {gpus}", candidate.name, obstacle, _counts(question, candidate))
    return Placement(
        question=question,
        candidate=candidate,
        gpu=gpu,
        gpus=gpus,
        tensor=tensor,
        expert=gpus if spread else 1,
    )


def _spread(question: Question, candidate: Candidate) -> tuple[int, bool]:
    """Replicas of attention, and whether the experts are shared out over all GPUs; a dense model is split."""
    if candidate.feed is None:
        return 1, False
    args = question.args
    return int(args.get("data_parallel_size", 1)), bool(args.get("enable_expert_parallel"))


def _counts(question: Question, candidate: Candidate) -> list[int]:
    """Numbers of GPUs that the model can be on."""
    copies, spread = _spread(question, candidate)
    counts = [size * copies for size in candidate.sizes.tensor if size * copies <= MOST_GPUS]
    return [count for count in counts if not spread or count in candidate.sizes.expert]


def places(question: Question, candidate: Candidate, gpu: GpuSpec, most: int = MOST_GPUS) -> list[Placement]:
    """On 1, 2, 4 … GPUs, as far as the model can be split, it fitting or not; on one CPU."""
    most = 1 if gpu.kind == "cpu" else most
    counts = [count for count in _counts(question, candidate) if count <= most and count & (count - 1) == 0]
    return [place(question, candidate, gpu, count) for count in counts]


def smallest(question: Question, candidate: Candidate, gpu: GpuSpec, requests: int = 1) -> Placement | None:
    """On as few GPUs as hold the weights and so many requests at once, the longest among them; None where
    64 do not."""
    found = (each for each in places(question, candidate, gpu) if each.fits and each.sequences >= requests)
    return next(found, None)


def together(question: Question, candidates: Sequence[Candidate], gpu: GpuSpec) -> tuple[Placement, ...]:
    """All of them on equal, and as few, GPUs; empty where 64 do not hold one of them."""
    fitting = [{each.gpus: each for each in places(question, one, gpu) if each.fits} for one in candidates]
    count = min(set.intersection(*(set(each) for each in fitting)), default=None)
    return () if count is None else tuple(each[count] for each in fitting)
