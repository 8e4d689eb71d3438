"""A load point with known figures."""

from __future__ import annotations

from typing import Any

from profiler.figures import Figures
from profiler.schema import Estimate, LoadPoint, Price

GPU_HOUR = Price(usd_per_hour=3.6, per="gpu", source="test")
H100 = "NVIDIA H100 80GB HBM3"


def figures(
    gpu: str | None = H100,
    gpus: int = 1,
    price: Price | None = GPU_HOUR,
    start_s: float | None = None,
    **more: Any,
) -> Figures:
    """100 output and 200 input tokens/s, two requests/s, alone in the engine; ``more`` are further
    estimates, or None to take one away."""
    numbers = {
        "output_tokens_per_s": Estimate(100.0, 90.0, 110.0, 3, "repeats"),
        "input_tokens_per_s": 200.0,
        "requests_per_s": 2.0,
        "ttft_s_mean": 0.2,
        "input_tokens_mean": 100.0,
        "output_tokens_mean": 50.0,
    } | more
    estimates = {
        name: each if isinstance(each, Estimate) else Estimate(each)
        for name, each in numbers.items()
        if each is not None
    }
    facts = {"model": "m", "gpu": gpu, "gpus": gpus, "pue": None, "energy_boundary": "gpu"}
    point = LoadPoint(mode="closed", concurrency=1)
    return Figures(
        run="run", alike="alike", point=point, estimates=estimates, facts=facts, price=price, start_s=start_s
    )
