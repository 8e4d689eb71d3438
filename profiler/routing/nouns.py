"""What a recorded routing says, as values."""

from __future__ import annotations

from msgspec import Struct

from profiler.schema import Estimate


class Load(Struct, frozen=True, kw_only=True):
    """How unevenly the recorded tokens fell on the experts of one layer.

    ``cv``: standard deviation over mean of the experts' tokens.  ``cv_noise``: what of it is chance, by how
    the requests differ; ``cv_noise_tokens``: what it would be if tokens were independent,
    sqrt((1 − k/E)·E/(k·T)).  ``cv_excess``: sqrt(cv² − cv_noise²), None where the recording cannot be told
    from even loads.  ``entropy_frac``: of the loads, over that of even ones; ``effective_experts``: exp of
    it.  ``dead_frac``: share of the experts without a token.  ``same_frac``: share of the tokens that went
    to the most common set of k experts.
    """

    layer: int
    cv: float
    cv_noise: float | None
    cv_noise_tokens: float
    cv_excess: float | None
    max_over_mean: float
    gini: float
    entropy_frac: float
    effective_experts: float
    dead_frac: float
    same_frac: float


class Spread(Struct, frozen=True):
    """A figure over the layers: median, smallest, largest.  ``layers`` have it, None counts as none."""

    median: float
    low: float
    high: float
    layers: int


class Coverage(Struct, frozen=True, kw_only=True):
    """Distinct experts that a step of ``tokens`` touches, a layer, mean over layers.

    ``measured`` over requests; ``lowest`` and ``highest`` of the layers.  ``uniform``, ``skewed`` (at the
    fitted CV) and ``by_marginals`` (each expert's recorded share, tokens taken as independent) beside it.
    ``repeats``: there are fewer requests than tokens, so several tokens of one request are in a step.
    """

    tokens: int
    measured: Estimate
    lowest: float
    highest: float
    uniform: float
    skewed: float | None
    by_marginals: float
    repeats: bool = False


class Ranks(Struct, frozen=True, kw_only=True):
    """Experts placed in order on ``ranks`` GPUs: the busiest rank over the mean one, mean over steps, then
    median and 90th percentile over layers.  ``load``: of the tokens' choices, which bound a prefill;
    ``distinct``: of the experts touched, whose weights bound a decode step.
    ``tokens``: of a decode step; None for a prefill of one recorded prompt.
    """

    ranks: int
    tokens: int | None
    load_median: float
    load_p90: float
    distinct_median: float
    distinct_p90: float


class RoutingReport(Struct, frozen=True, kw_only=True):
    """A recording read: ``tokens`` of ``requests``, of which ``output_tokens`` were generated.

    ``fitted_cv``: the skew at which the closed form comes nearest to the measured decode coverage;
    ``output_cv_excess``: of the generated tokens' loads, median of the layers that show one.
    ``alike_frac``: mean share of a token's experts that a layer has in common with the first one.
    ``made_up``: why none of it is a trained model's routing; None where it is.
    """

    source: str
    routing: str
    requests: int
    tokens: int
    output_tokens: int
    experts: int
    experts_per_token: int
    loads: tuple[Load, ...]
    decode: tuple[Coverage, ...]
    prefill: tuple[Coverage, ...]
    ranks: tuple[Ranks, ...]
    fitted_cv: float | None
    output_cv_excess: float | None
    alike_frac: float | None
    made_up: str | None

    @property
    def used_frac(self) -> float:
        """Mean share of a layer's experts that got a token."""
        return 1 - sum(load.dead_frac for load in self.loads) / len(self.loads)

    def over_layers(self, name: str) -> Spread | None:
        """A field of ``Load`` over the layers, None where none has it."""
        from statistics import median

        values = [value for load in self.loads if (value := getattr(load, name)) is not None]
        return Spread(median(values), min(values), max(values), len(values)) if values else None

    def decode_coverage(self, tokens: float) -> Estimate | None:
        """Distinct experts, a layer, that a decode step of ``tokens`` touches, between the measured steps by
        their logarithm; None beyond them."""
        return between_steps(self.decode, tokens)

    def prefill_coverage(self, tokens: float) -> Estimate | None:
        """As ``decode_coverage``, of a step that holds nothing but one prompt of ``tokens``."""
        return between_steps(self.prefill, tokens)


def between_steps(steps: tuple[Coverage, ...], tokens: float) -> Estimate | None:
    """``measured`` at any number of tokens that lies between two steps, linear in its logarithm."""
    from math import log

    for below, above in zip(steps, (*steps[1:], *steps[-1:]), strict=True):
        if below.tokens == tokens:
            return below.measured
        if below.tokens < tokens <= above.tokens:
            weight = log(tokens / below.tokens) / log(above.tokens / below.tokens)
            return _mixed(below.measured, above.measured, weight)
    return None


def _mixed(below: Estimate, above: Estimate, weight: float) -> Estimate:
    def mix(one: float | None, other: float | None) -> float | None:
        return None if one is None or other is None else one * (1 - weight) + other * weight

    value = below.value * (1 - weight) + above.value * weight
    return Estimate(value, mix(below.low, above.low), mix(below.high, above.high), below.n, below.over)
