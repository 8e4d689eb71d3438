"""What to do after a look: pure, so that it can be simulated (benchmarks/statistics)."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.claims import law, metrics
from profiler.claims.law import Said
from profiler.claims.ledger import Decision
from profiler.claims.nouns import Claim, Finding, Ruling
from profiler.stats import sequential

# A cell is given up where it would still be decided in less than this share of trials like it.  Stopping for
# futility never makes a verdict, so it can err only towards "undecided".
FUTILE = 0.1
FEWEST_TO_GIVE_UP = 3  # starts a side, before which the spread is a guess
OPEN = "undecided"


def decide(ruling: Ruling, starts: int, looks_at: Sequence[int]) -> Decision:
    """Go on, or why not, after ``starts`` of ``looks_at[-1]`` planned starts a side.

    ``decided``: every cell has its verdict, or can have none; ``futile``: the others would keep theirs
    open to the end as far as anyone can tell.
    """
    undecided = [finding for finding in ruling.findings if finding.verdict == OPEN]
    if not undecided:
        if ruling.verdict in ("not comparable", "not testable here"):
            return "not comparable"
        return "decided" if ruling.findings else "futile"
    if starts >= looks_at[-1]:
        return "plan ended"
    if starts >= FEWEST_TO_GIVE_UP:
        chances = [chance(ruling.case.claim, each, starts, looks_at) for each in undecided]
        if all((found or 0.0) < FUTILE for found in chances):  # no figures so far: there will be none
            return "futile"
    return "go on"


def chance(claim: Claim, finding: Finding, starts: int, looks_at: Sequence[int]) -> float | None:
    """That the cell is decided by the end, either way, if the trend so far is the truth (conditional power);
    None where its figures allow no test.  At the level of one cell: of several it promises too much, so that
    none is given up too early.
    """
    found = law.log_ratio(finding.evidence.subject, finding.evidence.baseline)
    if found is None:
        return None
    bar = law.bar(claim, metrics.margin_frac(claim))
    said = Said(found.inverse if bar.inverted else found, finding.evidence.systematic_frac)
    fractions = tuple(n / looks_at[-1] for n in looks_at)

    def ends(p: float, alpha: float) -> float:
        level = sequential.nominal(fractions, alpha)[-1]
        return sequential.conditional_power(p, starts / looks_at[-1], level)

    if bar.high is None:
        return min(1.0, ends(said.p_above(bar.low), law.ALPHA) + ends(said.p_below(bar.low), law.ALPHA))
    above, below = said.p_above(bar.low), said.p_below(bar.high)
    inside = max(0.0, ends(above, law.ALPHA_EQUAL) + ends(below, law.ALPHA_EQUAL) - 1)
    outside = ends(said.p_below(bar.low), law.ALPHA) + ends(said.p_above(bar.high), law.ALPHA)
    return min(1.0, inside + outside)
