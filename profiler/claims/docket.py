"""Claims × runs at hand → rulings: what is on trial, in every setting that was measured."""

from __future__ import annotations

from collections.abc import Sequence

from profiler import replicas
from profiler.claims import evidence, judge
from profiler.claims.nouns import Claim, Ruling
from profiler.store import RunResult


def docket(claims: Sequence[Claim], runs: Sequence[RunResult], processes: int = 1) -> list[Ruling]:
    """Every claim judged in each of its settings, in the order given; one that nothing bears on once.

    With more ``processes`` than one the figures of many runs are made at once beforehand (``index.runs``);
    what was made is kept with the run.  Raises InputError.
    """
    if processes > 1:
        sealed = [run for run in runs if run.manifest.status == "complete"]
        bearing = [run for run in sealed if any(evidence.may_bear(claim, run) for claim in claims)]
        replicas.figures_of_starts(bearing, processes)
    return [judge.ruling(case) for claim in claims for case in evidence.cases(claim, runs)]
