"""Coefficients from measured rows: the most likely ones under the priors (a ridge in their logarithms, so
that none can be negative), found by damped Gauss–Newton steps.

Times first, then power at those times.  Every model has a factor of its own, on time and on power, so that
rows of one model count as one model's and not as so many independent ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from profiler.arch.shape import Shape
from profiler.predict.nouns import Deployment, Load, Point
from profiler.predict.pace import Coefficients
from profiler.predict.posterior import FACTORS, NAMES, POWER, Calibration, noise
from profiler.predict.steady import Mix, Steady, mix, steady

TIMES = ("tpot_s", "itl_s_p50", "ttft_s", "output_tokens_per_s")
NUDGE = 1e-4
ROUNDS = 40
SETTLED = 1e-4


class Rows(Struct, frozen=True, kw_only=True):
    """The points of one deployment with loads that differ in their numbers only: one vectorised call.
    ``measured`` holds arrays by metric, nan where not measured; ``mixes`` those already worked out."""

    what: Deployment
    load: Load
    measured: dict[str, Any]
    mixes: dict[float, Mix]

    def mix(self, cv: float) -> Mix:
        """Worked out once for each skew; dense models have none."""
        skew = 0.0 if not self.what.routes else cv if self.what.cv is None else self.what.cv
        if skew not in self.mixes:
            self.mixes[skew] = mix(self.what, self.load, skew)
        return self.mixes[skew]


def rows(points: Sequence[Point]) -> tuple[Rows, ...]:
    """Points by deployment; an energy with a throughput is a power."""
    import numpy as np

    held: dict[tuple[Deployment, float, bool], list[Point]] = {}
    for point in points:
        held.setdefault((point.what, point.load.output_cv, point.load.backlog), []).append(point)
    found = []
    for (what, output_cv, backlog), group in held.items():

        def column(of: Callable[[Point], float | None], group: list[Point] = group) -> Any:
            return np.array([np.nan if of(each) is None else of(each) for each in group], float)

        load = Load(
            concurrency=column(lambda p: p.load.concurrency),
            input_tokens=column(lambda p: p.load.input_tokens),
            output_tokens=column(lambda p: p.load.output_tokens),
            output_cv=output_cv,
            backlog=backlog,
        )
        measured = {name: column(lambda p, name=name: getattr(p, name)) for name in TIMES}  # type: ignore[misc]
        measured["power_w_mean"] = column(_power_w)
        found.append(Rows(what=what, load=load, measured=measured, mixes={}))
    return tuple(found)


def fit(measured: Sequence[Rows], start: Calibration) -> tuple[Any, Any, tuple[Shape, ...]]:
    """Log means and covariance of NAMES and of each shape's factors, given ``start`` as the prior."""
    import numpy as np

    shapes = tuple(dict.fromkeys(each.what.shape for each in measured))
    size = len(NAMES) + 2 * len(shapes)
    mean, spread = np.zeros(size), np.zeros((size, size))
    mean[: len(NAMES)] = start.log_mean[: len(NAMES)]
    spread[: len(NAMES), : len(NAMES)] = start.spread(measured[0].what)[: len(NAMES), : len(NAMES)]
    for i, shape in enumerate(shapes):
        for j, own in enumerate((noise().model, noise().board)):
            at = len(NAMES) + 2 * i + j
            known = shape in start.shapes
            mean[at] = start.log_mean[start.column(shape) + j] if known else 0.0
            spread[at, at] = (
                start.covariance[start.column(shape) + j][start.column(shape) + j] if known else own**2
            )
    power = [NAMES.index(name) for name in POWER] + [len(NAMES) + 2 * i + 1 for i in range(len(shapes))]
    time = [i for i in range(size) if i not in power]
    for free, metrics, sd in ((time, TIMES, noise().time), (power, ("power_w_mean",), noise().power)):
        mean, spread = _stage(measured, shapes, (mean, spread), (free, metrics, sd))
    return mean, spread, shapes


def _stage(
    measured: Sequence[Rows],
    shapes: tuple[Shape, ...],
    known: tuple[Any, Any],
    wanted: tuple[list[int], tuple[str, ...], float],
) -> tuple[Any, Any]:
    """Fit the ``free`` coefficients to some metrics; the others stay."""
    import numpy as np

    (mean, spread), (free, metrics, sd) = known, wanted
    prior, weight = mean[free], np.linalg.inv(spread[np.ix_(free, free)])
    x = mean.copy()

    def cost(at: Any, missed: Any) -> float:
        off = at[free] - prior
        return float(missed @ missed + off @ weight @ off)

    missed = _missed(measured, shapes, x, metrics) / sd
    damping, here = 1e-3, cost(x, missed)
    slopes = _slopes(measured, shapes, x, metrics, free) / sd
    for _ in range(ROUNDS):
        normal = slopes.T @ slopes + weight
        downhill = slopes.T @ missed + weight @ (x[free] - prior)
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -downhill)
        there = x.copy()
        there[free] += step
        tried = _missed(measured, shapes, there, metrics) / sd
        if cost(there, tried) > here:
            damping *= 10
            if damping > 1e8:
                break
            continue
        x, missed, here, damping = there, tried, cost(there, tried), damping / 5
        slopes = _slopes(measured, shapes, x, metrics, free) / sd
        if np.abs(step).max() < SETTLED:
            break
    after = spread.copy()
    after[np.ix_(free, free)] = np.linalg.inv(slopes.T @ slopes + weight)
    return x, after


def _missed(measured: Sequence[Rows], shapes: tuple[Shape, ...], x: Any, metrics: tuple[str, ...]) -> Any:
    """Logarithm of predicted over measured, of every figure measured."""
    import numpy as np

    found = []
    for each in measured:
        predicted = figures(each, _coefficients(x, shapes, each.what.shape))
        found += [_log_ratio(predicted, each.measured, name) for name in metrics]
    return np.concatenate(found)


def _slopes(
    measured: Sequence[Rows], shapes: tuple[Shape, ...], x: Any, metrics: tuple[str, ...], free: list[int]
) -> Any:
    """Derivatives of :func:`_missed` by the ``free`` columns; what a deployment lacks, or another shape's
    factors, move nothing."""
    import numpy as np

    found = []
    for each in measured:
        at = len(NAMES) + 2 * shapes.index(each.what.shape)
        moving = {i for i, name in enumerate(NAMES) if matters(name, each.what)} | {at, at + 1}
        base = _missed([each], shapes, x, metrics)
        block = np.zeros((len(base), len(free)))
        for place, column in enumerate(free):
            if column in moving:
                moved = x.copy()
                moved[column] += NUDGE
                block[:, place] = (_missed([each], shapes, moved, metrics) - base) / NUDGE
        found.append(block)
    return np.concatenate(found)


def matters(name: str, what: Deployment) -> bool:
    """Whether a coefficient has any part in predicting ``what``."""
    if name == "expert_load_cv":
        return what.routes and what.cv is None
    if name.startswith("expert_"):
        return what.routes
    if name in ("reduce_s", "link_frac"):
        return what.split.gpus > 1
    return name != "eager_kernel_s" or what.execution == "eager"


def figures(each: Rows, c: Coefficients) -> Steady:
    return steady(each.mix(c.expert_load_cv), c)


def _coefficients(x: Any, shapes: tuple[Shape, ...], shape: Shape) -> Coefficients:
    import numpy as np

    at = len(NAMES) + 2 * shapes.index(shape)
    values = dict(zip((*NAMES, *FACTORS), np.exp([*x[: len(NAMES)], x[at], x[at + 1]]), strict=True))
    return Coefficients(**{name: float(value) for name, value in values.items()})


def _log_ratio(predicted: Steady, measured: dict[str, Any], name: str) -> Any:
    import numpy as np

    value, seen = getattr(predicted, name), measured[name]
    if value is None:
        return np.zeros(0)
    found = np.log(value / seen)
    return found[~np.isnan(found)]


def _power_w(point: Point) -> float | None:
    if point.power_w_mean is not None:
        return point.power_w_mean
    if point.energy_j_per_output_token is None or point.output_tokens_per_s is None:
        return None
    return point.energy_j_per_output_token * point.output_tokens_per_s
