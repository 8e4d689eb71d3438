"""A second opinion on ratios of percentiles: the hierarchical bootstrap of the raw samples.

The verdict rests on the percentile of each engine start, as on any other figure.  How far a percentile of all
their requests may be off has no formula: starts are drawn anew, and circular blocks inside each
(``stats.bootstrap``).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from profiler.claims.cells import Found, Point
from profiler.metrics import QUANTILES
from profiler.stats import bootstrap
from profiler.windows import LATENCIES, WindowView, latency_samples

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# A second at most, however many gaps between tokens or starts there are: values and starts drawn in all; but
# never fewer draws than tell the ends of an interval to a tenth of its width.
MOST_VALUES, MOST_STARTS, FEWEST_DRAWS = 20_000_000, 20_000, 200


def notes(metric: str, found: Found) -> Iterator[str]:
    """Of a percentile with enough starts on both sides; nothing of any other metric."""
    latency, _, share = metric.rpartition("_")
    sides = (found.subject, found.baseline)
    if latency not in LATENCIES or share not in QUANTILES or min(map(len, sides)) < bootstrap.FEWEST_STARTS:
        return
    ours, theirs = ([_samples(point, latency) for point in side] for side in sides)
    quantile = partial(_quantile, q=QUANTILES[share])
    if not all(map(len, (*ours, *theirs))) or not all(quantile(each) > 0 for each in (*ours, *theirs)):
        return
    most = MOST_VALUES // sum(map(len, (*ours, *theirs))), MOST_STARTS // (len(ours) + len(theirs))
    draws = max(FEWEST_DRAWS, min(bootstrap.DRAWS, *most))
    ratio = bootstrap.ratio(ours, theirs, quantile, draws)
    if ratio.low is not None and ratio.high is not None:
        yield (
            f"hierarchical bootstrap over starts and blocks: ratio {ratio.value:.3g} "
            f"[{ratio.low:.3g}, {ratio.high:.3g}] at 95 %"
        )


def _samples(point: Point, latency: str) -> Floats:
    """Of one start at one load, in the order its windows were held."""
    import numpy as np

    run, asked = point.start.run, point.line.found.point
    views = [WindowView(each, run.requests) for each in run.manifest.windows if each.point == asked]
    held = [latency_samples(view, latency) for view in views if view.span_s is not None]
    return np.concatenate(held) if held else np.array([])


def _quantile(values: Floats, q: float) -> float:
    import numpy as np

    return float(np.quantile(values, q))
