"""What a claim says of a ratio, as a test: where the bar lies, and what evidence says about each side of it.

``A`` is subject / baseline turned so that the claim says A is large ("less": baseline / subject).  δ is the
practical margin.  *More* and *less* have one bar, τ = factor / (1 + δ), or 1 + δ without a factor.  *Equal*
and *about* have two, factor / (1 + δ) and factor · (1 + δ), and are supported by two one-sided tests between
them (Schuirmann, J. Pharmacokin. Biopharm. 15, 1987).  What sensors may be off, ``systematic_frac``, moves
every bar away from the evidence, which is to widen the interval after the statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from profiler import stats
from profiler.claims.nouns import Claim, Side
from profiler.stats import LogRatio, equivalence
from profiler.stats.estimates import log_mean

TWO_SIDED = ("equal", "about")
# One-sided level of a test, that of either end of a 95 % interval; of each of the two tests for "equal".
ALPHA = 0.025
ALPHA_EQUAL = 0.05
# Where nobody knows how often evidence was looked at before it was judged.  At 2.5 % a look after each of 3
# to 20 starts finds 10 % false support on the bar, at 1 % no more than 5 % (docs/statistics.md).
ALPHA_UNPLANNED = 0.01
# Fewest starts a side for a verdict on what is timed.  Two starts fall into the same one of two ways in which
# a machine may run so often that 5 % of support on the bar is false; three do not (docs/statistics.md).
FEWEST_STARTS = 3
# Welch's degrees of freedom are an estimate, and with three starts on one side and ten on the other it is
# often too high: 0.7 % of one-sided tests at 0.1 % then err.  No more than so many times those of the smaller
# side are taken; where the sides have as many starts that changes nothing.
MOST_DF = 1.5
# Figures that are the same in every start were rounded, by a counter or a clock: they are taken to scatter
# by so much all the same (standard deviation of the logarithm).
LEAST_SPREAD = 0.001
ROUNDING = 1e-12


class Bar(NamedTuple):
    """``low`` and ``high`` bound what supports a claim of A, ``high`` None where nothing is too much."""

    low: float
    high: float | None
    inverted: bool


class Said(NamedTuple):
    """What one cell says of A: its log ratio, and by how much that may be off beside its error."""

    found: LogRatio
    systematic_frac: float

    @property
    def is_exact(self) -> bool:
        return self.found.error == 0

    @property
    def is_point(self) -> bool:
        return self.is_exact and self.systematic_frac == 0

    @property
    def off(self) -> float:
        """What bars are moved by; whatever rounding says, a ratio without an error reaches a bar it is on."""
        return (1 + self.systematic_frac) * (1 - ROUNDING)

    def p_above(self, limit: float) -> float:
        """Of evidence as high as this where A is ``limit`` or less."""
        return self.found.p_beyond(limit * self.off)

    def p_below(self, limit: float) -> float:
        """Of evidence as low as this where A is ``limit`` or more."""
        return self.found.inverse.p_beyond(self.off / limit)

    def ends(self, confidence: float) -> tuple[float, float]:
        """The interval of A, 0 and infinity where it has no end."""
        low, high = interval(self.found, confidence)
        return low / (1 + self.systematic_frac), high * (1 + self.systematic_frac)


def bar(claim: Claim, margin_frac: float) -> Bar:
    """Where the claim's bar lies for A."""
    factor = claim.factor
    if claim.relation in TWO_SIDED:
        return Bar(*equivalence.limits(margin_frac, factor or 1.0), inverted=False)
    low = 1 + margin_frac if factor is None else factor / (1 + margin_frac)
    return Bar(low, None, inverted=claim.relation == "less")


def p_support(said: Said, limits: Bar) -> float:
    """One-sided, of evidence as strong as this where A is not beyond ``low``, or not inside both bars."""
    if limits.high is None:
        return said.p_above(limits.low)
    return equivalence.tost(said.found, limits.low * said.off, limits.high / said.off).p


def p_refute(said: Said, limits: Bar) -> float:
    """One-sided, of evidence as strong as this where A is what is claimed."""
    if limits.high is None:
        return said.p_below(limits.low)
    return equivalence.p_outside(said.found, limits.low / said.off, limits.high * said.off) / 2


def distance(said: Said, limits: Bar) -> tuple[float, bool]:
    """How far the log ratio lies beyond the nearest bar, on the side it is on, after what it may be off; and
    whether that is the inside of two bars."""
    mean, off = said.found.mean, math.log1p(said.systematic_frac)
    above = mean - math.log(limits.low)
    if limits.high is None:
        return abs(above) - off, False
    inside = min(above, math.log(limits.high) - mean)
    return abs(inside) - off, inside > 0


def log_ratio(subject: Side, baseline: Side) -> LogRatio | None:
    """Of figures that can be tested: exact ones, or of two or more starts; None for others."""
    above, below = _mean(subject), _mean(baseline)
    if above is None or below is None:
        return None
    total = above.part + below.part
    error = math.sqrt(total)
    if total == 0:
        return LogRatio(above.log - below.log, error, 1.0)
    return LogRatio(above.log - below.log, error, _df(above, below))


def _df(above: _Mean, below: _Mean) -> float:
    """Welch's, of sides with unlike numbers of starts no more than MOST_DF of the smaller one's."""
    scatter = [each for each in (above, below) if each.df]
    free = [each.df for each in scatter]
    welch = sum(each.part for each in scatter) ** 2 / sum(each.part**2 / each.df for each in scatter)
    return welch if min(free) == max(free) else min(welch, MOST_DF * min(free))


class _Mean(NamedTuple):
    """Of logarithms, with the variance of it (0 and without degrees of freedom where it is exact)."""

    log: float
    part: float
    df: int


def _mean(side: Side) -> _Mean | None:
    if side.exact is not None:
        return _Mean(math.log(side.exact), 0.0, 0) if is_positive([side.exact]) else None
    n = len(side.values)
    if n < 2 or not is_positive(side.values):
        return None
    middle, part = log_mean(side.values)
    return _Mean(middle, max(part, LEAST_SPREAD**2 / n), n - 1)


def is_positive(values: Sequence[float]) -> bool:
    """Whether each is a number with a logarithm."""
    return all(0 < value < math.inf for value in values)


def interval(found: LogRatio, confidence: float) -> tuple[float, float]:
    """The two-sided interval of the ratio, 0 and infinity where it is too wide to be a number."""
    half = stats.t_quantile(found.df, confidence) * found.error
    return _exp(found.mean - half), _exp(found.mean + half)


def _exp(x: float) -> float:
    return math.exp(x) if abs(x) < 700 else (0.0 if x < 0 else math.inf)
