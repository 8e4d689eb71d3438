"""Questions about load points with known figures, whose promise is kept, or not, as a test says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from profiler import levels
from profiler.cost import terms
from profiler.cost.promise import Choice, Standing
from profiler.cost.question import Question
from profiler.figures import Figures
from profiler.schema import Estimate, LoadPoint
from profiler.slo import Limit
from tests.cost import load

TTFT = Limit("ttft_p99_s", "ttft_s", 0.01, 0.5)


def figures(model: str = "m", concurrency: int = 1, kind: str = "dense", **more: Any) -> Figures:
    """The figures of ``load.figures`` as of a real run's row."""
    found = load.figures(**more)
    facts = {"model": model, "kind": kind, "engine": "vllm", "scenario": "chat", "load": "closed"}
    facts |= {"concurrency": concurrency, "load_requests_per_s": None, "host": "h", "run": f"runs/{model}"}
    point = LoadPoint(mode="closed", concurrency=concurrency)
    return replace(found, run=f"runs/{model}", alike=model, point=point, facts=found.facts | facts)


def rate(value: float, frac: float = 0.02) -> Estimate:
    return Estimate(value, value * (1 - frac), value * (1 + frac), 3, "repeats")


def choice(held: Sequence[Figures], best: float | None = None, limits: tuple[Limit, ...] = ()) -> Choice:
    """One configuration's loads; ``best`` is met and all above it missed (None: the highest, no promise)."""
    standings = tuple(
        Standing(
            found=each,
            load=levels.load_of(each.point),
            runs=1,
            verdict="met" if best is None or levels.load_of(each.point) <= best else "missed",
            reasons=() if best is None or levels.load_of(each.point) <= best else ("TTFT p99",),
            excess=1.0,
            good_requests_per_s=rate(1.0),
            good_output_tokens_per_s=rate(each.estimates["output_tokens_per_s"].value / 2),
        )
        for each in held
    )
    met = [each for each in standings if each.verdict == "met"]
    return Choice(limits, standings, met[-1] if met else None, None if met else standings[0], ())


def asked(
    *choices: Choice | Figures, words: Sequence[str] = (), api: str | None = None, **on: Any
) -> Question:
    """``on``: the terms' fields as ``terms.read`` takes them."""
    held = [each if isinstance(each, Choice) else choice([each]) for each in choices]
    points = [standing.found for each in held for standing in each.standings]
    question = Question(
        runs=(),
        figures=points,
        terms=terms.read(words, **on),
        prefill_s=dict.fromkeys((each.run for each in points), None),
        api=api,
    )
    vars(question)["choices"] = held
    return question
