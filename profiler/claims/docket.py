"""Claims × runs at hand → rulings: what is on trial, in every setting that was measured."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.claims import evidence, judge
from profiler.claims.nouns import Claim, Ruling
from profiler.store import RunResult


def docket(claims: Sequence[Claim], runs: Sequence[RunResult]) -> list[Ruling]:
    """Every claim judged in each of its settings, in the order given; one that nothing bears on once.

    Raises InputError.
    """
    return [judge.ruling(case) for claim in claims for case in evidence.cases(claim, runs)]
