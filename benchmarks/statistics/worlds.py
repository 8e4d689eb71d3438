"""Worlds of known truth: engine starts that scatter as we say, and a ratio that is what we say.

A start's figure is the mean of its windows, which follow each other (AR(1)); starts scatter around the
truth of their side, and a world may do worse than that: drift, jump between two modes, have an outlier.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class World:
    """``start_sd``: standard deviation of the logarithm of a start (``baseline_sd``: of the baseline's, if it
    is another); ``windows`` of ``window_sd``, each correlated with the one before by ``phi``.

    ``drift``: how far the machine's logarithm has moved by the last start of the trial, ``walk``: standard
    deviation of its random step from start to start, ``blocks`` whether the sides take turns (else the
    subject's starts all come first).  ``modes``: every start is displaced by one of these.  ``outlier``: one
    start of every trial, on either side, is displaced by this.  ``heavy``: degrees of freedom of Student's t
    in place of a normal scatter of starts.  ``digits``: figures are rounded to so many significant ones.
    """

    start_sd: float = 0.02
    baseline_sd: float | None = None
    windows: int = 20
    window_sd: float = 0.05
    phi: float = 0.7
    drift: float = 0.0
    walk: float = 0.0
    blocks: bool = True
    modes: tuple[float, ...] = ()
    outlier: float = 0.0
    heavy: int | None = None
    digits: int | None = None

    @property
    def sd(self) -> float:
        """Of the logarithm of a start's figure, windows included (an AR(1) mean; Priestley 1981, 5.3.4)."""
        n, phi = self.windows, self.phi
        inflation = (1 + phi) / (1 - phi) - 2 * phi * (1 - phi**n) / (n * (1 - phi) ** 2)
        return math.hypot(self.start_sd, self.window_sd * math.sqrt(inflation / n))


def draw(
    world: World, rng: np.random.Generator, trials: int, starts: int, ratio: float
) -> tuple[Values, Values]:
    """Figures of subject and baseline, (trials, starts) each; the true subject / baseline is ``ratio``."""
    sides = [_side(world, rng, (trials, starts), sd) for sd in (world.start_sd, world.baseline_sd)]
    _shift(world, rng, *sides)
    subject, baseline = np.exp(sides[0] + math.log(ratio)), np.exp(sides[1])
    if world.digits is None:
        return subject, baseline
    scale = 10 ** rng.uniform(0, 1, (trials, 1))  # how much rounding does depends on the first digit
    return _rounded(subject * scale, world.digits), _rounded(baseline * scale, world.digits)


def _side(world: World, rng: np.random.Generator, shape: tuple[int, int], sd: float | None) -> Values:
    sd = world.start_sd if sd is None else sd
    if world.heavy is None:
        logs = rng.normal(0, sd, shape)
    else:  # scaled to the same standard deviation
        logs = rng.standard_t(world.heavy, shape) * sd * math.sqrt((world.heavy - 2) / world.heavy)
    if world.modes:
        logs += np.asarray(world.modes)[rng.integers(len(world.modes), size=shape)]
    return logs + np.log(windows(world, rng, shape).mean(axis=-1))


def windows(world: World, rng: np.random.Generator, shape: tuple[int, ...]) -> Values:
    """(…, windows): figures around 1, in which the chance of one window is still there in the next."""
    from scipy.signal import lfilter

    if world.window_sd == 0:
        return np.ones((*shape, world.windows))
    noise = rng.normal(0, world.window_sd, (*shape, world.windows))
    noise[..., 1:] *= math.sqrt(1 - world.phi**2)
    return 1 + lfilter([1.0], [1.0, -world.phi], noise, axis=-1)


def _shift(world: World, rng: np.random.Generator, subject: Values, baseline: Values) -> None:
    """What the machine and chance add, in place."""
    trials, starts = subject.shape
    block = np.arange(starts)
    first = rng.integers(2, size=(trials, starts))
    first[:, 1::2] = 1 - first[:, : 2 * (starts // 2) : 2]  # every second block is the reverse (trials/lots)
    turns = (2 * block + first, 2 * block + 1 - first)
    one_by_one = tuple(np.broadcast_to(each, (trials, starts)) for each in (block, starts + block))
    state = world.drift * np.arange(2 * starts) / (2 * starts - 1)
    state = state + np.cumsum(rng.normal(0, world.walk, (trials, 2 * starts)), axis=1)
    for logs, when in zip((subject, baseline), turns if world.blocks else one_by_one, strict=True):
        np.add(logs, np.take_along_axis(state, when, axis=1), out=logs)
    if world.outlier:
        hit = rng.integers(2 * starts, size=trials)
        both = np.concatenate([subject, baseline], axis=1)
        both[np.arange(trials), hit] += world.outlier
        subject[:], baseline[:] = both[:, :starts], both[:, starts:]


def _rounded(values: Values, digits: int) -> Values:
    step = 10.0 ** (np.floor(np.log10(values)) + 1 - digits)
    return np.round(values / step) * step
