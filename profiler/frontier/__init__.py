"""Cost beside quality: who is on the frontier, how surely, and which models are equally good.

A frontier holds models of one scenario, one benchmark, one cost: USD per 10⁶ output tokens with the prompts'
share inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from profiler import scores, stats
from profiler.errors import InputError
from profiler.frontier.candidates import Candidate, of_question
from profiler.frontier.chance import DRAWS, Chance, chances
from profiler.schema import Estimate

__all__ = ["COLUMNS", "DRAWS", "PAIR_COLUMNS", "Candidate", "chances", "of_question", "pairs", "rows"]

Row = dict[str, Any]
COLUMNS = (
    *("scenario", "benchmark", "model", "cost_basis"),
    *("usd_per_m_output_tokens", "usd_per_m_output_tokens_low", "usd_per_m_output_tokens_high"),
    *("score", "score_low", "score_high", "score_unit", "score_date", "score_source"),
    *("p_on_frontier", "p_error", "on_frontier", "ruled_out_by", "at", "run", "notes"),
)
PAIR_COLUMNS = (
    *("scenario", "benchmark", "model", "other", "difference", "difference_low", "difference_high"),
    *("margin", "p_equivalent", "p_win", "verdict", "reason"),
    *("cost_ratio", "cost_ratio_low", "cost_ratio_high"),
)


def rows(found: Sequence[Candidate], benchmark: str) -> list[Row]:
    """A row a model and scenario, cheapest first, what has no cost or no score last: ``COLUMNS``."""
    held: list[Row] = []
    for group in _scenarios(found):
        placed = [(each, each.score, each.usd) for each in group]
        full = [(each, score, usd) for each, score, usd in placed if score and usd]
        odds = chances([(score, usd) for _, score, usd in full]) if full else []
        sure = sorted(zip(full, odds, strict=True), key=lambda pair: pair[0][2].value)
        held += [_row(each, benchmark, odd, [one.model for one, _, _ in full]) for (each, *_), odd in sure]
        held += [_row(each, benchmark, None, []) for each in group if not (each.score and each.usd)]
    return held


def _scenarios(found: Sequence[Candidate]) -> list[list[Candidate]]:
    names = dict.fromkeys(each.scenario for each in found)
    return [[each for each in found if each.scenario == name] for name in names]


def _row(found: Candidate, benchmark: str, chance: Chance | None, names: Sequence[str]) -> Row:
    score, usd = found.score, found.usd
    missing = () if score else (f"no {benchmark} score",)
    return {
        "scenario": found.scenario,
        "benchmark": benchmark,
        "model": found.model,
        "cost_basis": found.basis,
        **_ends("usd_per_m_output_tokens", usd),
        "score": score.value if score else None,
        "score_low": score.low if score else None,
        "score_high": score.high if score else None,
        "score_unit": score.unit if score else None,
        "score_date": score.date if score else None,
        "score_source": score.source if score else None,
        "p_on_frontier": chance.p if chance else None,
        "p_error": chance.error if chance else None,
        "on_frontier": chance.now if chance else None,
        "ruled_out_by": names[chance.behind] if chance and chance.behind is not None else None,
        "at": found.at,
        "run": found.run,
        "notes": " | ".join([*missing, *found.notes]) or None,
    }


def _ends(name: str, estimate: Estimate | None) -> Row:
    ends = (estimate.value, estimate.low, estimate.high) if estimate else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


def pairs(found: Sequence[Candidate], margin: float | None) -> list[Row]:
    """Every two models of a scenario that have a score: are they equally good within ``margin``, and what
    does the better one cost over the other: ``PAIR_COLUMNS``.

    Raises InputError for a margin that is none, or where the benchmark has no usual one and none is given.
    """
    if margin is not None and not 0 < margin < math.inf:
        raise InputError(f"--margin {margin:g}: expected a positive number in the benchmark's unit")
    held = []
    for group in _scenarios(found):
        scored = [(each.score, each) for each in group if each.score]
        for (score, one), (other_score, other) in combinations(
            sorted(scored, key=lambda pair: -pair[0].value), 2
        ):
            try:
                judged = scores.matched(score, other_score, margin)
            except ValueError as error:
                raise InputError(f"--margin: {error}") from None
            held.append(_pair(one, other, judged))
    return held


def _pair(one: Candidate, other: Candidate, judged: scores.Matched) -> Row:
    known = one.usd and other.usd
    return {
        "scenario": one.scenario,
        "benchmark": judged.benchmark,
        "model": one.model,
        "other": other.model,
        "difference": judged.difference,
        "difference_low": judged.low,
        "difference_high": judged.high,
        "margin": judged.margin,
        "p_equivalent": judged.p,
        "p_win": judged.p_win,
        "verdict": judged.verdict,
        "reason": judged.reason,
        **_ends(
            "cost_ratio", stats.ratio_of(one.usd, other.usd) if known and one.usd and other.usd else None
        ),
    }
