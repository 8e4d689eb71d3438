"""Are two models equally good?  Two one-sided tests against a margin, never "no difference was found".

Standard errors come from the published 95 % bounds (width / 3.92), and the two scores are taken as
independent.  Equivalence: the 90 % interval of the difference lies within ± margin, which is the pair of
one-sided tests at 5 % (Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987).  Not equivalent: the same test of
the other side, the interval lies wholly outside.  Else undecided.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal

from msgspec import Struct

from profiler.catalog.scores import Score, Unit
from profiler.scores.reading import Z95

# ± 20 Elo is a win rate of 47.1 to 52.9 %.
MARGINS: dict[Unit, float] = {"elo": 20.0, "percent": 2.0, "frac": 0.02}
ALPHA = 0.05
Verdict = Literal["equivalent", "not equivalent", "undecided"]


class Matched(Struct, frozen=True, kw_only=True):
    """Whether ``a`` and ``b`` are equally good on one benchmark, within ``margin``.

    ``difference`` is a − b in the benchmark's unit with its 95 % bounds; ``p`` is the larger p-value of the
    two one-sided tests of equivalence; ``p_win`` how often people would prefer a to b, of a rating.
    """

    benchmark: str
    a: Score
    b: Score
    margin: float
    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_win: float | None
    verdict: Verdict
    reason: str


def stderr(score: Score) -> float | None:
    """The standard error behind a published 95 % interval; None where there is none."""
    if score.low is None or score.high is None:
        return None
    return (score.high - score.low) / (2 * Z95)


def matched(a: Score, b: Score, margin: float | None = None) -> Matched:
    """The verdict on two scores of one benchmark; ``margin`` in its unit, by default 20 Elo or 2 percentage
    points.

    Raises ValueError for scores of different benchmarks or units, a margin that is not positive, and where
    no margin is given for a benchmark that has no usual one.
    """
    if (a.benchmark, a.unit) != (b.benchmark, b.unit):
        raise ValueError(f"{a.benchmark} ({a.unit}) and {b.benchmark} ({b.unit}) are two benchmarks")
    margin = MARGINS.get(a.unit) if margin is None else margin
    if margin is None or not 0 < margin < math.inf:
        raise ValueError(f"{a.benchmark}: a margin is a positive number of {a.unit}")
    apart = a.value - b.value
    error = _error(a, b)
    verdict, reason = _verdict(apart, error, margin, (a, b))
    return Matched(
        benchmark=a.benchmark,
        a=a,
        b=b,
        margin=margin,
        difference=apart,
        low=None if error is None else apart - Z95 * error,
        high=None if error is None else apart + Z95 * error,
        p=_p_equivalent(apart, error, margin),
        verdict=verdict,
        reason=reason,
        # 1/(1 + 10^(−Δ/400)), which does not overflow
        p_win=(1 + math.tanh(apart * math.log(10) / 800)) / 2 if a.unit == "elo" else None,
    )


def _error(a: Score, b: Score) -> float | None:
    """The standard error of the difference; one and the same score does not differ from itself."""
    if a == b:
        return 0.0
    errors = stderr(a), stderr(b)
    return None if errors[0] is None or errors[1] is None else math.hypot(errors[0], errors[1])


def _p_equivalent(apart: float, error: float | None, margin: float) -> float | None:
    if error is None or error == 0:
        return None
    return NormalDist().cdf((abs(apart) - margin) / error)


def _verdict(
    apart: float, error: float | None, margin: float, pair: tuple[Score, Score]
) -> tuple[Verdict, str]:
    if pair[0] == pair[1]:
        return "equivalent", "one and the same score"
    if error is None:
        names = ", ".join(score.model for score in pair if stderr(score) is None)
        return "undecided", f"no interval was published for {names}"
    half = NormalDist().inv_cdf(1 - ALPHA) * error
    low, high = apart - half, apart + half
    told = f"90 % interval {low:+.3g} to {high:+.3g}"
    if -margin < low and high < margin:
        return "equivalent", f"{told} lies within ±{margin:g}"
    if low > margin or high < -margin:
        return "not equivalent", f"{told} lies outside ±{margin:g}"
    return "undecided", f"{told} reaches across the edge of ±{margin:g}"
