"""How good a model is: published scores, or the user's own, and which pairs of models match.

A benchmark is always named; scores of two are never mixed.
"""

from __future__ import annotations

from profiler.catalog.scores import Score, quality
from profiler.scores.matching import MARGINS, Matched, matched, stderr
from profiler.scores.naming import same_model
from profiler.scores.reading import Z95, read
from profiler.scores.table import benchmark_named, of_model

__all__ = [
    "MARGINS",
    "Z95",
    "Matched",
    "Score",
    "benchmark_named",
    "matched",
    "of_model",
    "quality",
    "read",
    "same_model",
    "stderr",
]
