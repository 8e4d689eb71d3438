"""Percentiles and whatever else has no formula: engine starts drawn anew, then circular blocks inside each.

For the mean of starts the t interval on logarithms is the better one (``estimates``, ``ratios``).  Fewer than
five starts are too few to draw from: three can be drawn in ten ways.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from profiler.schema import Estimate
from profiler.stats.estimates import finite_exp, t_quantile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Statistic = Callable[["Floats"], float]
FEWEST_STARTS = 5
DRAWS = 2000


def ratio(
    new: Sequence[Floats], base: Sequence[Floats], statistic: Statistic, draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """``statistic(new) / statistic(base)`` of positive statistics of all values of a side together, with a
    95 % interval for the next engine starts too.

    Of each side the values of each start, in the order they came.  Without an interval for fewer than
    FEWEST_STARTS on a side.  The drawn statistics' spread on logarithms, widened by √(R/(R−1)) for the R
    starts, with Student's quantile of Welch's degrees of freedom (Hesterberg, The American Statistician 69,
    2015: plain percentiles of few are narrow).
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    above, below = (statistic(np.concatenate(list(side))) for side in (new, base))
    errors = [_log_error(side, statistic, draws, rng) for side in (new, base)]
    n = min(len(new), len(base))
    if errors[0] is None or errors[1] is None or min(above, below) <= 0:
        return Estimate(above / below, n=n, over="repeats")
    parts = [each**2 for each in errors if each is not None]
    total = sum(parts)
    share = sum(part**2 / (len(side) - 1) for part, side in zip(parts, (new, base), strict=True))
    middle = math.log(above / below)
    half = t_quantile(total**2 / share if share else n - 1) * math.sqrt(total)
    return Estimate(above / below, finite_exp(middle - half), finite_exp(middle + half), n, "repeats")


def _log_error(starts: Sequence[Floats], statistic: Statistic, draws: int, rng: Any) -> float | None:
    """The standard error of the statistic's logarithm; None for too few starts, or where a draw is not
    positive."""
    import numpy as np

    n = len(starts)
    if n < FEWEST_STARTS:
        return None
    found = np.array([statistic(_drawn(starts, rng)) for _ in range(draws)])
    return float(np.log(found).std(ddof=1)) * math.sqrt(n / (n - 1)) if found.min() > 0 else None


def _drawn(starts: Sequence[Floats], rng: Any) -> Floats:
    """As many starts as there are, with replacement, and each redrawn in blocks."""
    import numpy as np

    chosen = rng.integers(0, len(starts), len(starts))
    return np.concatenate([circular(starts[place], rng) for place in chosen])


def circular(values: Floats, rng: Any) -> Floats:
    """As many values, in blocks of n^⅓ that begin anywhere and run round the end (Politis & Romano, 1992):
    what follows each other stays together."""
    import numpy as np

    n = len(values)
    length = max(1, round(n ** (1 / 3)))
    begins = rng.integers(0, n, math.ceil(n / length))
    places = (begins[:, None] + np.arange(length)[None, :]).ravel()[:n] % n
    drawn: Floats = values[places]
    return drawn
