"""Arrays in, Estimates out.  Knows nothing of models, engines or requests.

Which interval, and why (docs/statistics.md has the simulations): the mean over *repeats* or engine starts
carries a t interval on the logarithms of their values, which covers 94–97 % and cannot cross zero; pooling
the windows of one start covers 37–63 % where 95 % is promised.  Inside a single repeat batch means give a
*within-run* precision, which says nothing of the next run; ``Estimate.over`` keeps the two apart.

================  ====================================================================================
``estimates``     one sample → Estimate
``ratios``        ``new / base``: Welch's t on logarithms; Fieller's interval beside it
``equivalence``   "equal" and "about": two one-sided tests, and their opposite
``families``      several cells at once (Holm)
``looked``        intervals of windows that were counted while they came in
``sequential``    several looks at one trial (Lan–DeMets), conditional power
``planning``      how many starts it takes, and with what power
``components``    variance by level (window, run, start) and how best to spend the next minute
``bootstrap``     percentiles and whatever has no formula: starts, then circular blocks
``steady``        did a series settle, jump or drift
``robust``        one start unlike the others, two humps, no scatter at all
================  ====================================================================================
"""

from profiler.stats.estimates import (
    CONFIDENCE,
    MIN_BATCHES,
    fraction,
    inverted,
    of_batches,
    of_sample,
    over_repeats,
    p_more_hits,
    quantile,
    scaled,
    spread,
    t_quantile,
)
from profiler.stats.families import holm
from profiler.stats.planning import MOST_RUNS, runs_needed
from profiler.stats.ratios import LogRatio, log_ratio, log_ratio_alone, ratio_of, ratio_of_means

__all__ = [
    "CONFIDENCE",
    "MIN_BATCHES",
    "MOST_RUNS",
    "LogRatio",
    "fraction",
    "holm",
    "inverted",
    "log_ratio",
    "log_ratio_alone",
    "of_batches",
    "of_sample",
    "over_repeats",
    "p_more_hits",
    "quantile",
    "ratio_of",
    "ratio_of_means",
    "runs_needed",
    "scaled",
    "spread",
    "t_quantile",
]
