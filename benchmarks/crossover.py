"""How long a map takes: 40 × 40 cells of batch and prompt length, 4 models, 5 GPUs.

    python -m benchmarks.crossover

Each of the 20 maps is the time per output token of one model on one GPU, the value alone: the ratio of any
two of them is a crossover map.  Then those ratios with intervals, each MoE against each dense rival.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from profiler import predict
from profiler.plan.question import Request, resolve

MODELS = ("Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-235B-A22B", "Qwen/Qwen3-14B", "Qwen/Qwen3-32B")
GPUS = ("H100", "H20", "A100", "L40S", "4090")
SIDE = 40


def deployments() -> dict[tuple[str, str], predict.Deployment]:
    """Whether they fit does not matter here: the physics is the same."""
    asked = resolve(Request(models=MODELS, gpus=GPUS))
    return {
        (one.short, gpu.gpu): predict.Deployment(shape=one.shape, widths=one.widths, gpu=gpu)
        for one in asked.candidates
        for gpu in asked.gpus
    }


def grid() -> predict.Load:
    batches = np.geomspace(1, 4096, SIDE)[None, :]
    prompts = np.geomspace(128, 32768, SIDE)[:, None]
    return predict.Load(concurrency=batches, input_tokens=prompts, output_tokens=256.0)


def seconds() -> tuple[float, float, int]:
    """For the 20 maps of times; for the ratios with intervals, and how many of those."""
    found, load = deployments(), grid()
    predict.fitted()
    began = time.perf_counter()
    maps = {name: predict.tpot_s(what, load) for name, what in found.items()}
    alone = time.perf_counter() - began
    assert all(each.shape == (SIDE, SIDE) and np.isfinite(each).all() for each in maps.values())
    pairs = [
        (found[moe, gpu], found[dense, gpu])
        for gpu in {gpu for _, gpu in found}
        for moe in ("Qwen3-30B-A3B", "Qwen3-235B-A22B")
        for dense in ("Qwen3-14B", "Qwen3-32B")
    ]
    began = time.perf_counter()
    for moe, dense in pairs:
        predict.ratio(moe, dense, load)
    return alone, time.perf_counter() - began, len(pairs)


def main() -> None:
    alone, ratios, pairs = seconds()
    assert "torch" not in sys.modules
    what = f"{len(MODELS)} models × {len(GPUS)} GPUs × {SIDE} × {SIDE} cells"
    print(f"{what}: {alone:.2f} s")
    print(f"{pairs} ratio maps of them with 90 % intervals: {ratios:.2f} s")


if __name__ == "__main__":
    main()
