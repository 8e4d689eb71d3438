"""Scores by model and benchmark: the newest of several, and never another benchmark's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from profiler.catalog.scores import Score
from profiler.errors import InputError, nearest
from profiler.scores.naming import same_model, without_format


def benchmark_named(name: str, scores: Iterable[Score]) -> str:
    """The benchmark as the table calls it: ``gsm8k`` for ``gsm8k/exact_match`` where that is the only one.

    Raises InputError where there is none or several of the name: the column must be told.
    """
    known = list(dict.fromkeys(score.benchmark for score in scores))
    exact = [each for each in known if each.lower() == name.lower()]
    if exact:
        return exact[0]
    within = [each for each in known if each.lower().startswith(f"{name.lower()}/")]
    if len(within) == 1:
        return within[0]
    if within:
        raise InputError(f"benchmark {name!r} has several scores; name one: {', '.join(within)}")
    raise InputError(f"no scores of benchmark {name!r}{nearest(name, known)}; see profile list quality")


def of_model(model: str, benchmark: str, scores: Sequence[Score]) -> tuple[Score | None, str | None]:
    """The newest score of ``model`` and, where it is of the same weights in another number format, a note."""
    for name, note in ((model, None), (without_format(model), "the score is of the weights as released")):
        found = [s for s in scores if s.benchmark == benchmark and name and same_model(s.model, name)]
        if found:
            return max(found, key=lambda score: (score.date or "", score.low is not None)), note
    return None, None
