"""The rule by which ``profile run`` ends a load: the real one, over windows whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from profiler import adaptive, stats
from profiler.adaptive import Held
from profiler.settings import Measure
from profiler.stats import looked

WINDOW_S, OVERHEAD_S = 10.0, 5.0
TRUTH = 100.0  # of the figure of every load


class Load(NamedTuple):
    """How windows scatter: ``inside``: standard deviation of one of WINDOW_S by what happens in it, which a
    longer window averages out; ``between``: of one window to the next, which none does, and which is still
    there in the next one to a share ``phi``."""

    inside: float
    between: float
    phi: float = 0.0


class Stopped(NamedTuple):
    """``reached`` and ``covered``: shares of loads that came within the target, and whose interval holds the
    truth; ``plain``: whose 95 % t interval does; ``error``: 95 % of the true errors are smaller; ``windows``
    and ``seconds`` are means."""

    reached: float
    covered: float
    plain: float
    error: float
    windows: float
    seconds: float


def stopped(rng: np.random.Generator, trials: int, load: Load, measure: Measure) -> Stopped:
    found = np.array([_one(rng, load, measure) for _ in range(trials)])
    reached, covered, plain, errors, windows, seconds = found.T
    return Stopped(
        float(reached.mean()),
        float(covered.mean()),
        float(plain.mean()),
        float(np.quantile(errors, 0.95)),
        float(windows.mean()),
        float(seconds.mean()),
    )


def _one(rng: np.random.Generator, load: Load, measure: Measure) -> tuple[float, ...]:
    """One load: windows as ``adaptive.precision`` asks for them, as long as it does."""
    history: list[Held] = []
    slow = rng.normal(0, load.between)
    said = adaptive.precision(measure, history)
    while said.done is None:
        inside = load.inside / np.sqrt(said.stretch)
        value = TRUTH * np.exp(rng.normal(0, inside) + slow)
        slow = load.phi * slow + rng.normal(0, load.between) * np.sqrt(1 - load.phi**2)
        span_s = said.stretch * measure.window_s
        history.append(
            Held(value=float(value), took_s=span_s + OVERHEAD_S, span_s=span_s, within_frac=float(inside))
        )
        said = adaptive.precision(measure, history)
    return _judged(said, [each.value or 0.0 for each in history])


def _judged(said: adaptive.Precision, values: list[float]) -> tuple[float, ...]:
    plain = stats.over_repeats(values)
    shown = looked.widened(plain)
    covered, by_plain = (
        each.low is not None and each.high is not None and each.low <= TRUTH <= each.high
        for each in (shown, plain)
    )
    off = abs(shown.value / TRUTH - 1)
    return said.done == "reached", covered, by_plain, off, len(values), said.spent_s


LOADS = {
    "windows scatter by 1 %": Load(0.01, 0.0),
    "by 3 %": Load(0.03, 0.0),
    "by 5 %": Load(0.05, 0.0),
    "by 2 %, half of it between windows": Load(0.014, 0.014),
    "by 3 %, all of it between windows": Load(0.0, 0.03),
    "by 2 %, between windows, 0.3 of it still there in the next": Load(0.0, 0.02, phi=0.3),
}


def adaptive_runs(rng: np.random.Generator, trials: int) -> Iterator[str]:
    trials = max(100, trials // 4)
    yield "\n### `profile run` until the interval is narrow: the target is ± 2 %, at most 300 s a load\n"
    beside = f"each with {OVERHEAD_S:g} s of warm-up and drain"
    yield f"{trials:,} loads a row; windows of {WINDOW_S:g} s, {beside}.\n"
    columns = (
        "load", "windows", "seconds", "reached ± 2 %", "its interval covers", "a plain 95 % one would",
        "95 % of the errors below",
    )  # fmt: skip
    yield "| " + " | ".join(columns) + " |"
    yield "|" + "--:|" * len(columns)
    measure = Measure(window_s=WINDOW_S, warmup_s=OVERHEAD_S, target_ci_frac=0.02, max_seconds=300.0)
    for name, load in LOADS.items():
        found = stopped(rng, trials, load, measure)
        shares = " | ".join(
            f"{each:.1%}" for each in (found.reached, found.covered, found.plain, found.error)
        )
        yield f"| {name} | {found.windows:.1f} | {found.seconds:.0f} | {shares} |"
