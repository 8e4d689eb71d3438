"""What is known of the coefficients: means and covariances of their logarithms; where they were fitted."""

from __future__ import annotations

import math
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from profiler.arch.shape import Shape
from profiler.predict.nouns import Deployment
from profiler.predict.pace import Coefficients

FOLDER = Path(__file__).resolve().parent
FACTORS = ("model_factor", "board_factor")
NAMES = tuple(name for name in Coefficients.__struct_fields__ if name not in FACTORS)
POWER = ("idle_power_frac", "bandwidth_power_frac", "compute_power_frac")


class Prior(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of ``priors.toml``."""

    value: float
    spread: float
    gpus: float
    unit: str
    meaning: str
    source: str
    models: float = 0.0


class Noise(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Standard deviations of logarithms; see ``priors.toml``."""

    time: float
    model: float
    power: float
    board: float
    ttft: float
    batch: float
    context: float
    size: float
    gpus: float
    precision: float
    execution: float


class Hull(Struct, frozen=True, kw_only=True):
    """Where rows were: kinds of GPU, ranges of batch, context and 10⁹ parameters, most GPUs, arithmetics."""

    gpus: tuple[str, ...]
    batch: tuple[float, float]
    context_tokens: tuple[float, float]
    params_b: tuple[float, float]
    most_gpus: int
    compute: tuple[str, ...]
    execution: tuple[str, ...]


class Calibration(Struct, frozen=True, kw_only=True):
    """Coefficients as fitted.

    ``log_mean`` and ``covariance`` are of NAMES, then of both factors of each of ``shapes``, which rows of a
    user's own calibrated.  ``scores``: by metric, the 90 % quantile of what was missed by models left out,
    in standard deviations (split-conformal).  ``made_by``: the command or the points it is from.
    """

    log_mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    hull: Hull | None
    scores: dict[str, float]
    made_by: str
    shapes: tuple[Shape, ...] = ()
    points: int = 0

    def coefficients(self, shape: Shape) -> Coefficients:
        """The most likely values for a model of ``shape``."""
        values = dict(zip(NAMES, map(math.exp, self.log_mean), strict=False))
        factors = self.log_mean[self.column(shape) :][:2] if shape in self.shapes else (0.0, 0.0)
        return Coefficients(**values, **dict(zip(FACTORS, map(math.exp, factors), strict=True)))

    def column(self, shape: Shape) -> int:
        """Where the two factors of ``shape`` begin."""
        return len(NAMES) + 2 * self.shapes.index(shape)

    def spread(self, what: Deployment) -> Any:
        """Covariance of NAMES and the two factors for ``what``: wider for a kind of GPU not fitted."""
        import numpy as np

        chosen = list(range(len(NAMES)))
        found = np.zeros((len(NAMES) + 2, len(NAMES) + 2))
        if what.shape in self.shapes:
            chosen += [self.column(what.shape), self.column(what.shape) + 1]
        size = len(chosen)
        found[:size, :size] = np.asarray(self.covariance)[np.ix_(chosen, chosen)]
        places = np.arange(len(NAMES))
        if what.shape not in self.shapes:
            found[places, places] += [priors()[name].models ** 2 for name in NAMES]
            found[-2, -2], found[-1, -1] = noise().model ** 2, noise().board ** 2
        if self.hull is not None and what.gpu.gpu not in self.hull.gpus:
            found[places, places] += [priors()[name].gpus ** 2 for name in NAMES]
        return found


@cache
def priors() -> dict[str, Prior]:
    """The shipped priors by coefficient."""
    return msgspec.convert(_file()["coefficient"], dict[str, Prior])


@cache
def noise() -> Noise:
    """The shipped standard deviations."""
    return msgspec.convert(_file()["noise"], Noise)


@cache
def fitted() -> Calibration:
    """The shipped fit (``benchmarks/prediction/fit.py``)."""
    return msgspec.json.decode((FOLDER / "fitted.json").read_bytes(), type=Calibration)


def unfitted() -> Calibration:
    """The priors alone."""
    table = [priors()[name] for name in NAMES]
    size = range(len(table))
    return Calibration(
        log_mean=tuple(math.log(each.value) for each in table),
        covariance=tuple(tuple(table[i].spread ** 2 * (i == j) for j in size) for i in size),
        hull=None,
        scores={},
        made_by="priors.toml",
    )


def _file() -> dict[str, Any]:
    return tomllib.loads((FOLDER / "priors.toml").read_text(encoding="utf-8"))
