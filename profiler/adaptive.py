"""Is a load known well enough, or is another window needed, and how long a one?  Pure.

``precision`` is a function of the plan and of the windows held so far, so an interrupted run goes on where it
stood and anyone recomputes from the run folder what was reached.

A load is done when the interval of its figure is within ``target_ci_frac``, from the third window on and with
an interval that allows for the looking (``stats.looked``); or when another window is not expected to end
within ``max_seconds``.  The figure is the output tokens per second; of an open loop, where that is what was
asked for, the time per output token, or per request where answers are of one token.

A window costs its warm-up, its drain and, where each has an engine start of its own, that start.  Where these
are dear and most of the scatter is inside windows, a longer one costs less: how long is weighed with the
costs and the two levels of variance measured so far, as Kalibera & Jones do (``stats.components``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from profiler import stats
from profiler.schema import Estimate, LoadPoint
from profiler.settings import Measure
from profiler.stats import components, looked
from profiler.windows import OPEN_MODES, WindowView, latency_samples

if TYPE_CHECKING:
    from profiler.store import RunResult

SLICES = 20
ROUNDING_S = 1e-3
MOST_STRETCH = 4  # times window_s: a longer window than that is better held as two
MOST_WINDOWS = 10  # as far as warm-up leaves time for them, unless max_seconds says so
MOST_MORE = 200
SPOILT = 3  # windows without a figure after which none is expected

Why = Literal["reached", "out of time", "no figure"]


class Held(Struct, frozen=True, kw_only=True):
    """One window of a load.

    ``value``: its figure, None where it has none.  ``span_s``: of its steady window; ``took_s``: from its
    opening to its end.  ``within_frac``: what it would scatter by its inside alone (a standard deviation
    over ``value``), None where that cannot be told.
    """

    value: float | None
    took_s: float
    span_s: float = 0.0
    within_frac: float | None = None


class Precision(Struct, frozen=True, kw_only=True):
    """How well a load is known.

    ``half_frac``: half the interval over the figure, None as long as there is none.  ``done``: why no other
    window is held; None: one is, of ``stretch`` × ``window_s``.  ``to_go``: windows it will take, at a guess.
    """

    windows: int
    spent_s: float
    target_frac: float
    half_frac: float | None = None
    done: Why | None = None
    stretch: int = 1
    to_go: int = 0


def headline(point: LoadPoint, estimates: Mapping[str, Estimate | None]) -> str:
    """Which figure decides: the rate, or of an open loop, whose rate is asked for, the latency."""
    if point.mode not in OPEN_MODES:
        return "output_tokens_per_s"
    return "tpot_s_mean" if estimates.get("tpot_s_mean") else "e2e_s_mean"


def facts(run: RunResult, point: LoadPoint, estimates: Mapping[str, Estimate | None]) -> dict[str, Any]:
    """The columns of the table that say what was reached: half the interval of the headline over its value,
    what was asked (None: a number of windows), and the seconds that the load was held, warm-up and all."""
    manifest = run.manifest
    found = estimates.get(headline(point, estimates))
    asked = manifest.scenario.is_adaptive and manifest.imported is None
    took_s = [(each.closed_ns - each.opened_ns) / 1e9 for each in manifest.windows if each.point == point]
    return {
        "ci_frac": looked.half_frac(found) if found and found.over == "repeats" else None,
        "target_ci_frac": manifest.scenario.measure.target_ci_frac if asked else None,
        "measured_s": sum(took_s) if took_s else None,
    }


def held(run: RunResult) -> list[Held]:
    """What each window of a run says, in the order they were held."""
    return [_held(WindowView(window, run.requests)) for window in run.manifest.windows]


def _held(view: WindowView) -> Held:
    window = view.window
    took_s = (window.closed_ns - window.opened_ns) / 1e9
    if view.span_s is None or not view.outcome:
        return Held(value=None, took_s=took_s)
    if window.point.mode in OPEN_MODES:
        return Held(value=_latency_s(view), took_s=took_s, span_s=view.span_s)
    times, tokens = view.arrived_output
    total = float(tokens[view.within(times)].sum())
    return Held(
        value=total / view.span_s or None,
        took_s=took_s,
        span_s=view.span_s,
        within_frac=_within_frac(view) if window.point.mode == "closed" and total else None,
    )


def _latency_s(view: WindowView) -> float | None:
    """Per output token, else (answers of one token have no gaps) per request."""
    for name in ("tpot_s", "e2e_s"):
        sample = latency_samples(view, name)
        if len(sample):
            return float(sample.mean()) or None
    return None


def _within_frac(view: WindowView) -> float:
    """The error of the window's rate by its SLICES equal parts; what outlasts a part is not in it."""
    import numpy as np

    times, tokens = view.arrived_output
    parts, _ = np.histogram(times, np.linspace(view.start, view.end, SLICES + 1), weights=tokens)
    return float(parts.std(ddof=1) / parts.mean() / math.sqrt(SLICES))


def precision(measure: Measure, history: Sequence[Held], start_s: float = 0.0) -> Precision:
    """Whether a load whose windows were ``history`` needs another.

    ``start_s``: what each window costs beside itself, its share of an engine start.
    """
    values = [each.value for each in history if each.value]
    half = looked.half_frac(looked.widened(stats.over_repeats(values))) if values else None
    spent_s, target = sum(each.took_s for each in history), measure.target_ci_frac
    found = Precision(windows=len(history), spent_s=spent_s, target_frac=target, half_frac=half)
    if not history:
        return replace(found, to_go=looked.FEWEST)
    if half is not None and len(values) >= looked.FEWEST and half <= target:
        return replace(found, done="reached")
    if len(history) - len(values) >= SPOILT:
        return replace(found, done="no figure")
    overhead_s = sum(each.took_s - each.span_s for each in history) / len(history)
    plain_s = min((each.span_s for each in history if each.span_s), default=0.0)
    left_s = _limit_s(measure, history) - spent_s - overhead_s
    if left_s < plain_s - ROUNDING_S:
        return replace(found, done="out of time")
    more = max(looked.FEWEST - len(values), _more(values, target))
    stretch = min(_stretch(history, overhead_s + start_s, plain_s), more, _times(left_s, plain_s))
    return replace(found, stretch=stretch, to_go=min(more, _times(left_s + overhead_s, overhead_s + plain_s)))


def bounds_s(measure: Measure) -> tuple[float, float]:
    """Seconds that one load is held at least and, as a rule, at most: a closed loop of slow requests has
    longer windows, and three of them are held all the same."""
    least_s = looked.FEWEST * (measure.warmup_s + measure.window_s)
    return least_s, max(least_s, measure.max_seconds or MOST_WINDOWS * measure.window_s)


def _limit_s(measure: Measure, history: Sequence[Held]) -> float:
    """What may be spent on one load; unless it is said, three windows are held however long they take."""
    if measure.max_seconds is not None:
        return measure.max_seconds
    return max(MOST_WINDOWS * measure.window_s, looked.FEWEST * max(each.took_s for each in history))


def _times(whole_s: float, part_s: float) -> int:
    return max(1, int(whole_s / part_s)) if part_s else 1


def _more(values: Sequence[float], target_frac: float) -> int:
    """Further windows after which the interval should be narrow enough, if they scatter like those so far."""
    n = len(values)
    if n < looked.FEWEST or min(values) <= 0:
        return 1
    spread = _spread([math.log(each) for each in values])
    for more in range(1, MOST_MORE):
        half = stats.t_quantile(n + more - 1, looked.LEVEL) * spread / math.sqrt(n + more)
        if half <= math.log1p(target_frac):
            return more
    return MOST_MORE


def _spread(logs: Sequence[float]) -> float:
    middle = sum(logs) / len(logs)
    return math.sqrt(sum((each - middle) ** 2 for each in logs) / (len(logs) - 1))


def _stretch(history: Sequence[Held], overhead_s: float, plain_s: float) -> int:
    """How long the next window should be, in windows of ``plain_s``: what takes most off the interval for its
    cost, where a fresh window costs ``overhead_s`` beside its length."""
    known = [each for each in history if each.value and each.within_frac is not None]
    if len(known) < looked.FEWEST or plain_s <= 0:
        return 1
    lengths = [max(1, round(each.span_s / plain_s)) for each in known]
    inside = sum((each.within_frac or 0.0) ** 2 * n for each, n in zip(known, lengths, strict=True)) / len(
        known
    )
    between = max(0.0, _spread([math.log(each.value or 1.0) for each in known]) ** 2 - inside)

    def half(windows: Sequence[int]) -> float:
        t = stats.t_quantile(len(windows) - 1, looked.LEVEL)
        return t * math.sqrt(components.variance_of_mean(between, inside, windows))

    def gain_per_s(stretch: int) -> float:
        return (half(lengths) - half([*lengths, stretch])) / (overhead_s + stretch * plain_s)

    return max(range(1, MOST_STRETCH + 1), key=gain_per_s)
