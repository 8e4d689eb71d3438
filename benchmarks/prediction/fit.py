"""Fits the coefficients to the published rows, and how far models left out were missed.

    python -m benchmarks.prediction.fit            # writes profiler/predict/fitted.json

Every model is left out once (models of one shape together), the rest fitted, and the model predicted; what
was missed, in the standard deviations of the prediction, gives the shipped intervals (split-conformal).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from benchmarks.prediction import rows
from profiler.arch.shape import Shape
from profiler.predict import fitting
from profiler.predict.calibrate import hull
from profiler.predict.nouns import Point
from profiler.predict.posterior import FOLDER, NAMES, Calibration, unfitted
from profiler.predict.uncertain import intervals

COMMAND = "python -m benchmarks.prediction.fit"
CHECKED = ("itl_s_p50", "output_tokens_per_s", "power_w_mean", "energy_j_per_output_token")
SCORED = {"tpot_s": "output_tokens_per_s", "ttft_s": "output_tokens_per_s"}  # by the rows of another metric


class Miss(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of a row, predicted without its model: logarithm of predicted over measured, and the
    standard deviation it was predicted with."""

    row: rows.Row
    metric: str
    log_ratio: float
    sd: float


def points(**assumed: float) -> list[tuple[rows.Row, Point]]:
    """The ML.ENERGY rows; ``assumed``: other lengths than the shipped assumption."""
    return [(row, rows.point(row, **assumed)) for row in rows.rows("ml-energy")]


def fitted_to(chosen: Sequence[Point], start: Calibration | None = None) -> Calibration:
    """A fit from the priors, without any model's own factors: they are what a new model may differ by."""
    mean, spread, _ = fitting.fit(fitting.rows(chosen), start or unfitted())
    size = len(NAMES)
    return Calibration(
        log_mean=tuple(float(each) for each in mean[:size]),
        covariance=tuple(tuple(float(each) for each in row[:size]) for row in spread[:size]),
        hull=hull(chosen),
        scores={},
        made_by=COMMAND,
    )


def left_out(known: Sequence[tuple[rows.Row, Point]], but: Sequence[Shape] = ()) -> dict[Shape, list[Miss]]:
    """What is missed of each shape by a fit to the others, ``but`` some."""
    shapes = dict.fromkeys(point.what.shape for _, point in known)
    found = {}
    for shape in shapes:
        if shape in but:
            continue
        rest = [point for _, point in known if point.what.shape not in (shape, *but)]
        own = [pair for pair in known if pair[1].what.shape == shape]
        found[shape] = misses(own, fitted_to(rest))
    return found


def misses(own: Sequence[tuple[rows.Row, Point]], calibration: Calibration) -> list[Miss]:
    plain = msgspec.structs.replace(calibration, scores=dict.fromkeys(CHECKED, 1.0))
    found = []
    for row, point in own:
        ranges, _, _ = intervals(point.what, point.load, plain)
        for metric in CHECKED:
            seen = measured(row, metric)
            if metric in ranges and seen is not None:
                value, high = float(ranges[metric].value), float(ranges[metric].high)
                found.append(
                    Miss(
                        row=row,
                        metric=metric,
                        log_ratio=float(np.log(value / seen)),
                        sd=float(np.log(high / value)),
                    )
                )
    return found


def measured(row: rows.Row, metric: str) -> float | None:
    if metric == "energy_j_per_output_token":
        return row.power_w_mean / row.output_tokens_per_s if row.power_w_mean else None
    return getattr(row, metric)  # type: ignore[no-any-return]


def scores(missed: dict[Shape, list[Miss]], share: float = 0.90) -> dict[str, float]:
    """By metric, the ⌈(n + 1) · share⌉-th smallest |missed| / sd of n rows, each predicted without its model
    (split-conformal; Angelopoulos & Bates, arXiv 2107.07511)."""
    found = {}
    for metric in CHECKED:
        every = sorted(
            abs(each.log_ratio) / each.sd
            for group in missed.values()
            for each in group
            if each.metric == metric
        )
        found[metric] = every[min(int(np.ceil(share * (len(every) + 1))), len(every)) - 1]
    return {**found, **{name: found[other] for name, other in SCORED.items()}}


def shipped() -> Calibration:
    """What ``fitted.json`` holds."""
    known = points()
    whole = fitted_to([point for _, point in known])
    return msgspec.structs.replace(whole, scores=scores(left_out(known)))


def rounded(calibration: Calibration) -> Any:
    """As plain numbers of seven digits."""
    return _rounded(msgspec.to_builtins(calibration))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    text = msgspec.json.format(msgspec.json.encode(rounded(shipped())), indent=1)
    (FOLDER / "fitted.json").write_bytes(text + b"\n")
