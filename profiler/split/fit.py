"""Fits whose intervals stand neighbours that depend on each other.  Arrays in, values out.

Slices of one window are not independent: a batch that is large now is large a second later.  So intervals
come from leaving out one *block* of neighbours at a time: the delete-one-group jackknife, Var θ =
(G − 1)/G · Σ (θ₋g − θ̄)² with t quantiles of G − 1 degrees of freedom (Efron & Stein, Ann. Statist. 9, 1981;
with groups of one it is HC3 to within a factor 1 − 1/n, MacKinnon & White, J. Econometrics 29, 1985).  It
bounds what *these* windows say; another start of the engine is another matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from profiler import stats
from profiler.schema import Estimate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Flags = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# Beyond these the columns say nearly the same thing and a coefficient is whatever the noise makes it.
MAX_VIF = 10.0  # Marquardt, Technometrics 12, 1970
MAX_CONDITION = 30.0  # of unit-length columns; Belsley, Kuh & Welsch, Regression Diagnostics, 1980
MIN_SLICES = 30
SLICES_PER_BLOCK = 5
MIN_BLOCKS = 6


class Spread(NamedTuple):
    """Estimates from ``n`` rows with their standard errors and the degrees of freedom these rest on."""

    values: Floats
    errors: Floats
    df: float
    n: int

    def estimate(self, place: int, over: str) -> Estimate:
        """Value and 95 % interval of what cannot be negative."""
        value, error = float(self.values[place]), float(self.errors[place])
        if self.df < 1 or not math.isfinite(error):
            return Estimate(value, n=self.n, over=over)
        half = stats.t_quantile(self.df) * error
        return Estimate(value, max(0.0, value - half), value + half, self.n, over)


class Fit(NamedTuple):
    """Non-negative least squares: what the coefficients come to, and how well they tell the response.

    ``residual_frac``: root mean square of the residuals over the mean response.
    """

    spread: Spread
    residual_frac: float


def jackknife(estimate: Callable[[Flags], Floats], groups: Ints) -> Spread:
    """``estimate`` of the rows a mask keeps, and its spread as one of the ``groups`` is left out in turn."""
    import numpy as np

    whole = estimate(np.ones(len(groups), dtype=bool))
    names = np.unique(groups)
    if len(names) < 2:
        return Spread(whole, np.full(len(whole), np.nan), 0, len(groups))
    without = np.array([estimate(groups != name) for name in names])
    count = len(names)
    variance = (count - 1) / count * ((without - without.mean(axis=0)) ** 2).sum(axis=0)
    return Spread(whole, np.sqrt(variance), count - 1, len(groups))


def blocks(windows: Ints, residuals: Floats) -> Ints:
    """A number for each slice: runs of neighbours, none across two ``windows``.

    The more a residual tells of the next one, the longer: (1 + r)/(1 − r) slices say as much as one
    independent one (r: their correlation, as of an AR(1) process).
    """
    import numpy as np

    same = windows[1:] == windows[:-1]
    alike = float((residuals[1:] * residuals[:-1])[same].sum() / max((residuals**2).sum(), 1e-300))
    stretch = (1 + alike) / (1 - alike) if 0 < alike < 1 else 1.0
    size = min(SLICES_PER_BLOCK * stretch, max(len(windows) / MIN_BLOCKS, SLICES_PER_BLOCK))
    found = np.empty(len(windows), dtype=np.int64)
    used = 0
    for window in np.unique(windows):
        held = int((windows == window).sum())
        count = max(1, round(held / size))
        found[windows == window] = used + np.arange(held) * count // held
        used += count
    return found


def collinearity(columns: Floats, *, constant: bool) -> tuple[float, float]:
    """The largest variance inflation factor and the condition number of unit-length columns.

    With a ``constant`` (the last column is one) the others are taken about their means, as is usual.
    """
    import numpy as np

    if not (np.linalg.norm(columns, axis=0) > 0).all():
        return math.inf, math.inf
    scaled = columns / np.linalg.norm(columns, axis=0)
    singular = np.linalg.svd(scaled, compute_uv=False)
    condition = float(singular[0] / singular[-1]) if singular[-1] > 0 else math.inf
    bare = columns[:, :-1] - columns[:, :-1].mean(axis=0) if constant else columns
    length = np.linalg.norm(bare, axis=0)
    if not (length > 1e-12 * np.linalg.norm(columns, axis=0)[: len(length)]).all():
        return math.inf, condition
    bare = bare / length
    try:
        return float(np.diag(np.linalg.inv(bare.T @ bare)).max()), condition
    except np.linalg.LinAlgError:
        return math.inf, condition


def undecided(vif: float, condition: float) -> str | None:
    """Why columns that are so alike cannot tell their coefficients apart; None where they can."""
    if vif <= MAX_VIF and condition <= MAX_CONDITION:
        return None
    return (
        f"the mix does not vary enough (variance inflation {vif:.3g}, {MAX_VIF:.0f} is the most; "
        f"condition number {condition:.3g}, {MAX_CONDITION:.0f} is the most)"
    )


def fit(response: Floats, columns: Floats, windows: Ints, combine: Floats) -> Fit:
    """Coefficients ≥ 0 that bring ``columns`` nearest to ``response``, as the rows of ``combine`` mix them.

    ``windows`` says of each row which window it is a slice of.
    """
    import numpy as np

    scale = np.linalg.norm(columns, axis=0)
    scale[scale == 0] = 1

    def solve(kept: Flags) -> Floats:
        from scipy.optimize import nnls

        found: Floats = nnls(columns[kept] / scale, response[kept])[0] / scale
        return found

    left = response - columns @ solve(np.ones(len(response), dtype=bool))
    spread = jackknife(lambda kept: combine @ solve(kept), blocks(windows, left))
    return Fit(spread, float(np.sqrt((left**2).mean()) / response.mean()))


def ratio(a: Estimate, b: Estimate) -> Estimate | None:
    """a / b of two independent estimates, relative errors added in squares; None unless both are > 0."""
    if a.value <= 0 or b.value <= 0:
        return None
    value = a.value / b.value
    halves = [_relative_half(each) for each in (a, b)]
    if None in halves:
        return Estimate(value)
    half = math.hypot(*(each for each in halves if each is not None))
    return Estimate(value, value * math.exp(-half), value * math.exp(half)) if half < 700 else Estimate(value)


def _relative_half(estimate: Estimate) -> float | None:
    """Half of an interval over its value; of one cut off at 0 the upper half."""
    if estimate.low is None or estimate.high is None:
        return None
    return max(estimate.high - estimate.value, estimate.value - estimate.low) / estimate.value
