"""How many times the tokens one language takes for what another says."""

from __future__ import annotations

import math
from collections.abc import Sequence

from profiler import stats
from profiler.schema import Estimate

ALIGNED_MIN = 10


def premium(tokens: Sequence[int], baseline: Sequence[int], parallel: bool) -> Estimate | None:
    """Σ tokens / Σ baseline tokens; with a 95 % interval where the two are ``parallel`` line by line.

    The interval is of the logarithm of the ratio, by linearisation (delta method) over lines: line i moves it
    by t_i/T − b_i/B, so its standard error is sqrt(n/(n−1) · Σ (t_i/T − b_i/B)²), and a t quantile of n − 1.
    It says how far other lines of this kind of text would move the ratio, nothing of other kinds of text.
    None where either has no tokens; without bounds below ``ALIGNED_MIN`` lines.
    """
    own, base, n = sum(tokens), sum(baseline), len(tokens)
    if not own or not base:
        return None
    if not parallel or n < ALIGNED_MIN:
        return Estimate(own / base, n=n, over="lines")
    moves = (t / own - b / base for t, b in zip(tokens, baseline, strict=True))
    half = stats.t_quantile(n - 1) * math.sqrt(n / (n - 1) * sum(move * move for move in moves))
    middle = math.log(own / base)
    return Estimate(own / base, math.exp(middle - half), math.exp(middle + half), n, "lines")
