"""What speed, power and energy a model will have on GPUs that are not at hand, and how sure that is.

``predict`` gives figures with 90 % intervals, ``figures`` without, ``tpot_s`` only the time between tokens
(for maps), ``ratio`` that of two deployments, ``at_rate`` the concurrency that an arrival rate settles at;
``calibrate`` moves the coefficients towards measured points.  Formulas and accuracy: docs/prediction.md.
"""

from __future__ import annotations

from typing import Any

from profiler.predict.calibrate import calibrate, hull, points_of
from profiler.predict.demand import touched
from profiler.predict.nouns import METRICS, Deployment, Interval, Load, Point, Prediction
from profiler.predict.pace import Coefficients
from profiler.predict.posterior import Calibration, fitted, unfitted
from profiler.predict.steady import Mix, Steady, between_s, mix, steady
from profiler.predict.uncertain import (
    NORMAL_90,
    UNMEASURED_ROUTING,
    distance,
    intervals,
    skew,
    slopes,
    unexplained,
)

__all__ = [
    "METRICS",
    "UNMEASURED_ROUTING",
    "Calibration",
    "Deployment",
    "Interval",
    "Load",
    "Point",
    "Prediction",
    "at_rate",
    "calibrate",
    "distinct_experts",
    "figures",
    "fitted",
    "hull",
    "points_of",
    "predict",
    "ratio",
    "tpot_s",
    "unfitted",
]

BOUNDS = ("bandwidth", "compute", "launch", "communication")
COARSE = 7  # cells a side of a map at which the width of its intervals is worked out; between, it is smooth
MOST_CONCURRENCY = 1 << 16


def predict(what: Deployment, load: Load, calibration: Calibration | None = None) -> Prediction:
    """Figures with intervals at every load; None stands for the shipped fit.

    Raises InputError where the GPU's sheet lacks bandwidth or rate, or a load is below 1.
    """
    import numpy as np

    given = fitted() if calibration is None else calibration
    found, outside, reasons = intervals(what, load, given)
    plain = figures(what, load, given).plain
    spent = [getattr(plain, f"{name}_s") for name in BOUNDS]
    most = np.argmax(np.broadcast_arrays(*spent), axis=0)
    return Prediction(
        **found,
        bound_by=np.asarray(BOUNDS)[most],
        calibrated=what.shape in given.shapes,
        extrapolated=outside,
        reasons=reasons,
    )


def distinct_experts(what: Deployment, tokens: Any, calibration: Calibration | None = None) -> Any:
    """That a layer reads in a step of ``tokens``, at the unevenness which the prediction goes by; None in a
    dense model."""
    feed = next((kind.feed for kind in what.shape.layers if kind.feed.experts), None)
    return None if feed is None else touched(feed, tokens, skew(what, _coefficients(what, calibration)))


def tpot_s(what: Deployment, load: Load, calibration: Calibration | None = None) -> Any:
    """Seconds between tokens, no interval."""
    c = _coefficients(what, calibration)
    return between_s(mix(what, load, skew(what, c)), c)


def ratio(one: Deployment, other: Deployment, load: Load, calibration: Calibration | None = None) -> Interval:
    """Time between tokens of ``other`` over that of ``one``: above 1 where ``one`` is the faster.

    What both have in common cancels, so this is narrower than a ratio of two intervals.
    """
    import numpy as np

    given = fitted() if calibration is None else calibration
    value = tpot_s(other, load, given) / tpot_s(one, load, given)
    coarse, fine = _thinned(load, np.shape(value))
    half = fine(given.scores.get("tpot_s", NORMAL_90) * np.sqrt(_variance(one, other, coarse, given)))
    return Interval(value, value * np.exp(-half), value * np.exp(half))


def at_rate(what: Deployment, requests_per_s: Any, load: Load, calibration: Calibration | None = None) -> Any:
    """Sequences at once that arrivals of ``requests_per_s`` settle at (Little's law), nan where the replica
    cannot keep up.  ``load.concurrency`` is not looked at."""
    import numpy as np

    wanted, prompt, answer = np.broadcast_arrays(
        *(np.asarray(each, float) for each in (requests_per_s, load.input_tokens, load.output_tokens))
    )

    def served(concurrency: Any) -> Any:
        trial = Load(
            concurrency=concurrency, input_tokens=prompt, output_tokens=answer, output_cv=load.output_cv
        )
        return figures(what, trial, calibration).output_tokens_per_s / answer

    low, high = np.zeros(wanted.shape), np.full(wanted.shape, np.log(float(MOST_CONCURRENCY)))
    for _ in range(24):
        middle = (low + high) / 2
        enough = served(np.exp(middle)) >= wanted
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(served(np.exp(high)) >= wanted * 0.999, np.exp(high), np.nan)


def figures(what: Deployment, load: Load, calibration: Calibration | None = None) -> Steady:
    """All figures without intervals."""
    c = _coefficients(what, calibration)
    return steady(mix(what, load, skew(what, c)), c)


def _coefficients(what: Deployment, calibration: Calibration | None) -> Coefficients:
    return (fitted() if calibration is None else calibration).coefficients(what.shape)


def _variance(one: Deployment, other: Deployment, load: Load, given: Calibration) -> Any:
    """Of the logarithm of the ratio of two times between tokens."""
    import numpy as np

    def only(steps: Mix, c: Coefficients) -> dict[str, Any]:
        return {"tpot_s": between_s(steps, c)}

    sides = [slopes(each, load, given.coefficients(each.shape), only)[1]["tpot_s"] for each in (one, other)]
    spreads = [given.spread(each) for each in (one, other)]
    shared = sides[1][:-2] - sides[0][:-2]
    # Coefficients are the same for both; the wider of two GPUs' spreads where they differ.
    common = max(spreads, key=lambda each: float(np.trace(each)))[:-2, :-2]
    variance = np.einsum("i...,ij,j...->...", shared, common, shared)
    for each, spread in zip((one, other), spreads, strict=True):
        variance = variance + spread[-2, -2] + unexplained("tpot_s") + distance(each, load, given)[0]
    return variance


def _thinned(load: Load, shape: tuple[int, ...]) -> tuple[Load, Any]:
    """A coarser map of the same loads, and what brings a figure on it back to all cells."""
    import numpy as np

    if len(shape) != 2 or max(shape) <= COARSE:
        return load, lambda figure: figure
    kept = [np.unique(np.linspace(0, n - 1, min(n, COARSE)).round().astype(int)) for n in shape]
    fields = {
        name: np.broadcast_to(getattr(load, name), shape)[np.ix_(*kept)]
        for name in ("concurrency", "input_tokens", "output_tokens")
    }

    def fine(figure: Any) -> Any:
        rows = np.array(
            [
                np.interp(np.arange(shape[1]), kept[1], row)
                for row in np.broadcast_to(figure, (len(kept[0]), len(kept[1])))
            ]
        )
        return np.array([np.interp(np.arange(shape[0]), kept[0], column) for column in rows.T]).T

    return Load(**fields, output_cv=load.output_cv, backlog=load.backlog), fine
