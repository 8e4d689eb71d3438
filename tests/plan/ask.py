"""Questions of ``profile plan`` for tests."""

from __future__ import annotations

from typing import Any

from profiler.plan.placement import Placement, place
from profiler.plan.question import Question, Request, resolve

MOE, DENSE_32B, DENSE_14B = "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-32B", "Qwen/Qwen3-14B"


def question(*models: str, gpu: str = "H100", **asked: Any) -> Question:
    """Of the chat scenario unless ``asked`` says otherwise."""
    return resolve(Request(models=models or (MOE, DENSE_14B), gpus=[gpu], **asked))


def placement(model: str = MOE, gpus: int = 1, *overrides: str, gpu: str = "H100", **asked: Any) -> Placement:
    found = question(model, gpu=gpu, overrides=overrides, **asked)
    return place(found, found.candidates[0], found.gpus[0], gpus)
