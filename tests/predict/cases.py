"""Deployments that several tests predict."""

from __future__ import annotations

from typing import Any

from profiler import arch, catalog
from profiler.arch import work
from profiler.predict import Deployment, Load

BF16 = work.Widths(routed=2, other=2, embedding=2)
MOE, BIG, SMALL = "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-32B", "Qwen/Qwen3-8B"
H100, H20, A100 = "H100 SXM5 80GB", "H20 96GB", "A100 SXM4 80GB"


def deployed(model: str = SMALL, gpu: str = H100, **more: Any) -> Deployment:
    entry = catalog.find(model)
    assert entry
    spec = next(each for each in catalog.gpus() if each.gpu == gpu)
    return Deployment(shape=arch.shape(entry.config), widths=BF16, gpu=spec, **more)


def load(concurrency: Any, input_tokens: Any = 500, output_tokens: Any = 500, **more: Any) -> Load:
    return Load(concurrency=concurrency, input_tokens=input_tokens, output_tokens=output_tokens, **more)
