"""Below the cost table: what the way tokens find their experts costs, where one run has several ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from profiler import skew
from profiler.charts.words import NA
from profiler.report.table import load_text
from profiler.schema import Estimate
from profiler.store import RunResult


def lines(runs: Sequence[RunResult]) -> Iterator[str]:
    for cost in skew.costs(runs):
        load = load_text(
            {"concurrency": cost.point.concurrency, "load_requests_per_s": cost.point.requests_per_s}
        )
        own = "model" in (cost.routing, cost.reference) and cost.is_random
        yield (
            f"{cost.model} at {load}, routing {cost.routing} over {cost.reference}: "
            f"output tokens/s {_times(cost.output_tokens_per_s)}, "
            f"J/token {_times(cost.energy_j_per_output_token)}"
            + ("; the model's router is one of random weights" if own else "")
        )


def _times(ratio: Estimate | None) -> str:
    """A ratio with its interval and what that is over; the data may bound neither."""
    if ratio is None:
        return NA
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:.3f}× (one pair of windows)" if ratio.n == 1 else f"{ratio.value:.3f}×"
    return f"{ratio.value:.3f}× ({ratio.low:.3f}–{ratio.high:.3f}, {ratio.n} pairs of windows)"
