"""Measured points, published or of the user's own runs, into coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from profiler.errors import InputError
from profiler.predict import fitting
from profiler.predict.nouns import METRICS, Deployment, Load, Point
from profiler.predict.posterior import Calibration, Hull, fitted

if TYPE_CHECKING:
    from profiler.store import RunResult


def calibrate(points: Sequence[Point], start: Calibration | None = None) -> Calibration:
    """The shipped fit (or ``start``), moved towards ``points``: 3 to 6 of them pin down most of a GPU.

    The points are of one kind of GPU; models may differ, each gets a factor of its own.  Raises InputError
    for none, for points of several GPUs, and for a figure that is not above zero.
    """
    given = fitted() if start is None else start
    _check(points)
    mean, spread, shapes = fitting.fit(fitting.rows(points), given)
    return Calibration(
        log_mean=tuple(float(each) for each in mean),
        covariance=tuple(tuple(float(each) for each in row) for row in spread),
        hull=hull(points, given.hull if given.hull and points[0].what.gpu.gpu in given.hull.gpus else None),
        scores=given.scores,
        made_by=f"{given.made_by}; {len(points)} points on {points[0].what.gpu.gpu}",
        shapes=shapes,
        points=len(points),
    )


def hull(points: Sequence[Point], wider: Hull | None = None) -> Hull:
    """What ``points`` span, together with what ``wider`` did."""

    def span(values: list[float], known: tuple[float, float] | None) -> tuple[float, float]:
        every = [*values, *(known or ())]
        return min(every), max(every)

    def named(values: list[str], known: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*known, *values]))

    loads = [each.load for each in points]
    return Hull(
        gpus=named([each.what.gpu.gpu for each in points], wider.gpus if wider else ()),
        batch=span([each.concurrency for each in loads], wider.batch if wider else None),
        context_tokens=span(
            [each.input_tokens + each.output_tokens / 2 for each in loads],
            wider.context_tokens if wider else None,
        ),
        params_b=span(
            [each.what.shape.total_params / 1e9 for each in points], wider.params_b if wider else None
        ),
        most_gpus=max([each.what.split.gpus for each in points] + [wider.most_gpus if wider else 1]),
        compute=named([each.what.widths.compute for each in points], wider.compute if wider else ()),
        execution=named([each.what.execution for each in points], wider.execution if wider else ()),
    )


def points_of(run: RunResult, what: Deployment) -> tuple[Point, ...]:
    """The closed-loop and batch points of a sealed run of ``what``; open loops have no fixed concurrency."""
    from profiler import metrics

    found = []
    for each in metrics.points(run):
        values = {name: each.estimates.get(name) for name in ("input_tokens_mean", "output_tokens_mean")}
        prompt, answer = (value and value.value for value in values.values())
        if each.point.concurrency is None or not prompt or not answer:
            continue
        load = Load(
            concurrency=each.point.concurrency,
            input_tokens=max(1.0, prompt),
            output_tokens=max(1.0, answer),
            backlog=each.point.mode == "batch",
        )
        seen = {name: each.estimates.get(_COLUMNS.get(name, name)) for name in METRICS}
        measured = {
            name: value.value for name, value in seen.items() if value is not None and value.value > 0
        }
        if measured:
            found.append(Point(what=what, load=load, **measured))
    return tuple(found)


_COLUMNS = {"tpot_s": "tpot_s_mean", "itl_s_p50": "itl_s_p50", "ttft_s": "ttft_s_mean"}


def _check(points: Sequence[Point]) -> None:
    if not points:
        raise InputError("nothing to calibrate with: give at least one measured point")
    gpus = sorted({each.what.gpu.gpu for each in points})
    if len(gpus) > 1:
        raise InputError(f"points of several kinds of GPU ({', '.join(gpus)}): calibrate each on its own")
    for point in points:
        values = {name: getattr(point, name) for name in METRICS}
        wrong = [
            f"{name} = {value:g}" for name, value in values.items() if value is not None and not value > 0
        ]
        if wrong or all(value is None for value in values.values()):
            raise InputError(
                f"a point at concurrency {point.load.concurrency:g}: {', '.join(wrong) or 'no figure'}"
            )
