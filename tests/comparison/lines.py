"""Lines of a table with figures of known values, without any run behind them."""

from __future__ import annotations

from typing import Any

from profiler import cost
from profiler.comparison import lines
from profiler.comparison.columns import COLUMNS, ENDS
from profiler.comparison.lines import Line
from profiler.cost.terms import Terms
from profiler.figures import Figures
from profiler.schema import Estimate, LoadPoint, Price

_ENDS = {end for ends in ENDS.values() for end in ends}
OURS = {"runs", *cost.ESTIMATES, *cost.FACTS, *ENDS, *_ENDS}
FACTS = dict.fromkeys(name for name in COLUMNS if name not in OURS)
PRICE = Price(usd_per_hour=3.6, per="machine", source="test")


def figures(run: str, rate: float = 100.0, half: float | None = None, **facts: Any) -> Figures:
    """A run at ``rate`` output tokens/s ± ``half``, a closed loop of 8 unless ``concurrency`` is given."""
    alike, work = facts.pop("alike", facts.get("model", "m")), facts.pop("work", "w")
    estimates = facts.pop("estimates", {})
    low, high = (None, None) if half is None else (rate - half, rate + half)
    given = {
        "model": "m",
        "engine": "vllm",
        "scenario": "s",
        "load": "closed",
        "concurrency": 8,
        "gpus": 0,
        "requests_ok": 10,
        "requests_failed": 0,
        "repeats": 1,
        "status": "complete",
        "host": "h",
        "run": run,
    } | facts
    return Figures(
        run=run,
        alike=alike,
        work=work,
        point=LoadPoint(mode="closed", concurrency=given["concurrency"]),
        estimates={"output_tokens_per_s": Estimate(rate, low, high, 3, "repeats")} | estimates,
        facts=FACTS | given,
        price=PRICE,
    )


def of(*found: Figures, **terms: Any) -> list[Line]:
    return lines.of(found, Terms(**terms))
