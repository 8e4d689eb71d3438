"""How far off a prediction may be: what the coefficients leave open, what they cannot explain, and how far
the case lies from those they were fitted to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from profiler.predict.fitting import NUDGE, matters
from profiler.predict.nouns import METRICS, Deployment, Interval, Load
from profiler.predict.pace import Coefficients, narrower
from profiler.predict.posterior import FACTORS, NAMES, Calibration, Hull, noise
from profiler.predict.steady import Mix, mix, steady

SKEW = "expert_load_cv"
NORMAL_90 = 1.645  # two-sided 90 % of a normal deviate: where no row was there to check a metric
# sd of the logarithm: the rule was 15 % from a decode step measured on an H20 (InferSim, README).
NARROWER = 0.1
ONE_MACHINE = 8  # GPUs, beyond which most links are a network's
UNMEASURED_ROUTING = (
    "how evenly the experts are loaded was not measured: a range of trained routers is assumed"
)


def skew(what: Deployment, c: Coefficients) -> float:
    """CV of the experts' load: as given, else a trained router's."""
    return 0.0 if not what.routes else c.expert_load_cv if what.cv is None else what.cv


def slopes(
    what: Deployment, load: Load, c: Coefficients, figures: Callable[[Mix, Coefficients], dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """``figures`` at ``c``, and of each the derivative of its logarithm by that of every coefficient (NAMES,
    then FACTORS)."""
    import numpy as np

    here, names = mix(what, load, skew(what, c)), (*NAMES, *FACTORS)
    moved = [name for name in names if name != SKEW and matters(name, what)]
    stacked = figures(here, _nudged(c, moved, np.ndim(here.active)))
    known = {metric: values[0] for metric, values in stacked.items()}
    found = {metric: np.zeros((len(names), *np.shape(value))) for metric, value in known.items()}
    places = [names.index(name) for name in moved]
    for metric, values in stacked.items():
        found[metric][places] = np.log(values[1:] / values[:1]) / NUDGE
    if matters(SKEW, what):  # which changes what the steps have to do, not only how long that takes
        away = replaced(c, SKEW, getattr(c, SKEW) * math.exp(NUDGE))
        for metric, value in figures(mix(what, load, skew(what, away)), away).items():
            found[metric][names.index(SKEW)] = np.log(value / known[metric]) / NUDGE
    return known, found


def _nudged(c: Coefficients, moved: list[str], dimensions: int) -> Coefficients:
    """All at once, along a first axis: ``c`` itself, then with one of ``moved`` after the other nudged."""
    import numpy as np

    values: dict[str, Any] = {}
    for field in c.__struct_fields__:
        column = np.full(len(moved) + 1, getattr(c, field))
        if field in moved:
            column[1 + moved.index(field)] *= math.exp(NUDGE)
        values[field] = column.reshape(-1, *[1] * dimensions)
    return Coefficients(**values)


def every(steps: Mix, c: Coefficients) -> dict[str, Any]:
    """All figures there are."""
    found = steady(steps, c)
    values = {name: getattr(found, name) for name in METRICS}
    return {name: value for name, value in values.items() if value is not None}


def replaced(c: Coefficients, name: str, value: float) -> Coefficients:
    """``c`` with one other value."""
    values = {field: getattr(c, field) for field in c.__struct_fields__}
    return Coefficients(**(values | {name: value}))


def intervals(
    what: Deployment, load: Load, calibration: Calibration
) -> tuple[dict[str, Interval], Any, dict[str, Any]]:
    """90 % intervals by metric, where it extrapolates and why: a reason → at which loads it holds."""
    import numpy as np

    figures, derivatives = slopes(what, load, calibration.coefficients(what.shape), every)
    beyond, outside, reasons = distance(what, load, calibration)
    spread = calibration.spread(what)
    found = {}
    for metric, slope in derivatives.items():
        variance = np.einsum("i...,ij,j...->...", slope, spread, slope) + unexplained(metric) + beyond
        value = figures[metric]
        half = calibration.scores.get(metric, NORMAL_90) * np.sqrt(variance)
        found[metric] = Interval(value, value * np.exp(-half), value * np.exp(half))
    shape = np.shape(figures["tpot_s"])
    where = {words: np.broadcast_to(each, shape) for words, each in reasons.items()}
    return found | _within_tdp(what, found), np.broadcast_to(outside, shape), where


def _within_tdp(what: Deployment, found: dict[str, Interval]) -> dict[str, Interval]:
    """Power and energy with upper ends that the boards' own limit on power allows; ``value`` stays in."""
    import numpy as np

    power = found.get("power_w_mean")
    if power is None or not what.gpu.tdp_w:
        return {}
    energy, slowest = found["energy_j_per_output_token"], found["output_tokens_per_s"].low
    most_w = np.maximum(power.value, what.gpu.tdp_w * what.split.gpus)
    most_j = np.maximum(energy.value, most_w / slowest)
    return {
        "power_w_mean": Interval(power.value, power.low, np.minimum(power.high, most_w)),
        "energy_j_per_output_token": Interval(energy.value, energy.low, np.minimum(energy.high, most_j)),
    }


def unexplained(metric: str) -> float:
    """Variance of one row's logarithm about its model's own coefficients."""
    known = noise()
    if metric == "power_w_mean":
        return known.power**2
    if metric == "energy_j_per_output_token":
        return known.power**2 + known.time**2
    return known.time**2 + (known.ttft**2 if metric == "ttft_s" else 0.0)


def distance(what: Deployment, load: Load, calibration: Calibration) -> tuple[Any, Any, dict[str, Any]]:
    """Variance to add, where anything is outside what was fitted, and in what: words → at which loads."""
    import numpy as np

    hull, known = calibration.hull, noise()
    reasons: dict[str, Any] = {f"not counted: {each}": True for each in what.shape.missing}
    if what.routes and what.cv is None:
        reasons[UNMEASURED_ROUTING] = True
    if what.split.gpus > ONE_MACHINE and "NVL72" not in what.gpu.gpu:
        reasons[f"{what.split.gpus} GPUs span machines, with links taken to be as fast as inside one"] = True
    if hull is None:
        return 0.0, True, reasons | {"no measurement at all went in: priors only": True}
    params_b = what.shape.total_params / 1e9
    context = np.asarray(load.input_tokens) + np.asarray(load.output_tokens) / 2
    ranges = (
        ("sequences at once", np.asarray(load.concurrency, float), hull.batch, known.batch),
        ("tokens of context", context, hull.context_tokens, known.context),
        ("billion parameters", np.asarray(params_b), hull.params_b, known.size),
        ("GPUs", np.asarray(float(what.split.gpus)), (1.0, float(hull.most_gpus)), known.gpus),
    )
    variance, outside = _unlike(what, hull, reasons)
    for name, values, (low, high), each in ranges:
        doublings = np.log2(np.maximum(low / values, 1.0) * np.maximum(values / high, 1.0))
        variance = variance + (each * doublings) ** 2
        far = doublings > 0.01
        outside = outside | far
        if np.any(far):
            reasons[f"outside the {low:,.0f} to {high:,.0f} {name} that were fitted"] = far
    return variance, outside, reasons


def _unlike(what: Deployment, hull: Hull, reasons: dict[str, Any]) -> tuple[float, bool]:
    """What differs in kind rather than in number; ``reasons`` is added to."""
    variance, outside = 0.0, False
    if what.gpu.gpu not in hull.gpus:
        reasons[f"no {what.gpu.gpu} was among those fitted ({', '.join(hull.gpus)})"] = True
        outside = True
    kinds: tuple[tuple[str, str, tuple[str, ...], float], ...] = (
        ("arithmetic", what.widths.compute, hull.compute, noise().precision),
        ("execution", what.execution, hull.execution, noise().execution),
    )
    for name, value, seen, sd in kinds:
        if value not in seen:
            reasons[f"no {value} {name} was among those fitted"] = True
            variance, outside = variance + sd**2, True
    if what.routes and narrower(what) > 1:
        reasons["products of experts on tensor cores narrower than an H100's follow a rule, no fit"] = True
        variance, outside = variance + NARROWER**2, True
    if what.gpu.kind == "cpu":
        reasons["a CPU is predicted with coefficients of GPUs"] = True
    return variance, outside
