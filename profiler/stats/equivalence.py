"""What it takes to say "equal" and "about so many times": the burden of proof turned round.

Not to find a difference is never to have shown that there is none.  Two one-sided tests (Schuirmann, Journal
of Pharmacokinetics and Biopharmaceutics 15, 1987) show that a ratio lies inside limits; at 5 % that is the
same as its two-sided 90 % interval inside them.
"""

from __future__ import annotations

from typing import NamedTuple

from profiler.stats.estimates import CONFIDENCE
from profiler.stats.ratios import LogRatio


class Tost(NamedTuple):
    """``p`` is the larger of ``p_low`` (that the truth is the low limit or less) and ``p_high`` (that it is
    the high limit or more); ``interval`` is inside the limits where ``p`` ≤ alpha, and only there."""

    p_low: float
    p_high: float
    interval: tuple[float | None, float | None]

    @property
    def p(self) -> float:
        return max(self.p_low, self.p_high)


def limits(margin_frac: float, factor: float = 1.0) -> tuple[float, float]:
    """What counts as ``factor`` within a practical margin: alike on logarithms in both directions."""
    return factor / (1 + margin_frac), factor * (1 + margin_frac)


def tost(found: LogRatio, low: float, high: float, alpha: float = 1 - CONFIDENCE) -> Tost:
    """Evidence that the ratio lies inside ``low`` … ``high``, each side tested at ``alpha``."""
    return Tost(found.p_beyond(low), found.inverse.p_beyond(1 / high), found.interval(1 - 2 * alpha))


def p_outside(found: LogRatio, low: float, high: float) -> float:
    """How often data at least as far out, to either side, would come from a true ratio inside the limits
    (two-sided, at most 1): at or below 5 % the 95 % interval lies wholly outside."""
    return min(1.0, 2 * min(found.p_beyond(high), found.inverse.p_beyond(1 / low)))
