"""What an input token takes of the engine's time, where prefill was held alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from profiler import stats
from profiler.schema import Estimate, LoadPoint


class Held(Protocol):
    """A load point and what was measured at it."""

    @property
    def point(self) -> LoadPoint: ...

    @property
    def estimates(self) -> Mapping[str, Estimate | None]: ...


def s_per_token(points: Iterable[Held]) -> Estimate | None:
    """Engine seconds one prompt token takes, from points where prefill stands alone; None without one.

    That is a prefill-only run (answers of one token), or else the mean TTFT at concurrency 1, where nothing
    else shares the engine.  Cutting at TTFT under load would mix the phases.
    """
    found = list(points)
    alone = [p for p in found if answers_of_one(p) and p.estimates.get("input_tokens_per_s")]
    if alone:
        fastest = max(alone, key=_input_rate)
        rate = fastest.estimates["input_tokens_per_s"]
        return stats.inverted(rate, 1.0) if rate and rate.value > 0 else None
    for held in found:
        ttft, prompt = held.estimates.get("ttft_s_mean"), held.estimates.get("input_tokens_mean")
        if held.point.mode == "closed" and held.point.concurrency == 1 and ttft and prompt:
            return stats.scaled(ttft, 1 / prompt.value)
    return None


def answers_of_one(held: Held) -> bool:
    """Whether every answer was a single token, so that nothing was decoded."""
    answer = held.estimates.get("output_tokens_mean")
    return answer is not None and answer.value == 1


def _input_rate(held: Held) -> float:
    estimate = held.estimates["input_tokens_per_s"]
    return estimate.value if estimate else float("nan")
