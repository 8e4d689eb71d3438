"""Seconds of load until tokens/s are known to ± 2 %: our rule beside the fixed recipes of other tools.

``python benchmarks/adaptive.py [--trials 400]`` prints the Markdown tables of docs/benchmarks.md, in some
minutes on one core.  Nothing is served: the simulated engine's law (``profiler.engines.simulated``) is
computed in virtual time, so that thousands of measurements have one known truth.

The server gives each of r running requests a token every ``itl_s · (1 + batch_slope · (r − 1))`` seconds, the
first after ``ttft_s``.  Its pace scatters: from one engine start to the next, over minutes, and from second
to second.  Our windows are asked for by ``profiler.adaptive.precision`` itself.

*True*: a recipe is repeated in fresh engine starts until the mean over them is, in 95 % of cases, within 2 %
of the truth; the seconds of load in so many starts.  Where the recipe's own error (ramp and tail are counted
in) is too large, no repeating helps.  *Known*: the recipe is repeated in fresh engine starts until its own
interval, by our rule, is within ± 2 %, and how often that interval holds the truth.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from profiler import adaptive, scenario, stats
from profiler.adaptive import Held
from profiler.engines.simulated import Settings
from profiler.settings import Measure
from profiler.stats import looked

Floats = NDArray[np.float64]

LAW = Settings(ttft_s=0.1, itl_s=0.012, batch_slope=0.012)
LENGTHS = (128, 385)  # of answers: scenario chat's, 256 ± half, uniform
MEAN_LENGTH = (LENGTHS[0] + LENGTHS[1] - 1) / 2
LOADS = (1, 8, 32, 128)
STEP_S = 0.5
TARGET = 0.02
MOST_STARTS = 30


class Noise(NamedTuple):
    """Standard deviations of the logarithm of the pace: between engine starts, of a part that lasts about
    ``slow_for_s``, and of one that lasts a second."""

    name: str
    start: float
    slow: float
    quick: float
    slow_for_s: float = 60.0


QUIET = Noise("quiet machine", start=0.003, slow=0.003, quick=0.03)
USUAL = Noise("usual machine", start=0.01, slow=0.005, quick=0.05)


class Server:
    """One engine start.  Time goes on from one load to the next."""

    def __init__(self, rng: np.random.Generator, noise: Noise, for_s: float = 5000.0) -> None:
        steps = int(for_s / STEP_S)
        slow = _ar(rng, steps, noise.slow, np.exp(-STEP_S / noise.slow_for_s))
        quick = _ar(rng, steps, noise.quick, np.exp(-STEP_S))
        pace = np.exp(rng.normal(0, noise.start) + slow + quick)
        self.rng = rng
        self._at_s = np.arange(steps + 1) * STEP_S
        self._work = np.concatenate([[0.0], np.cumsum(pace * STEP_S)])

    def work(self, at_s: float) -> float:
        """Seconds of a server that never scatters, until ``at_s``."""
        return float(np.interp(at_s, self._at_s, self._work))

    def time(self, work: float) -> float:
        return float(np.interp(work, self._work, self._at_s))


def _ar(rng: np.random.Generator, steps: int, sd: float, keeps: float) -> Floats:
    from scipy.signal import lfilter

    drawn = rng.normal(0, sd * np.sqrt(1 - keeps**2), steps)
    drawn[0] = rng.normal(0, sd)
    found: Floats = lfilter([1.0], [1.0, -keeps], drawn)
    return found - sd**2 / 2  # the pace itself is 1 in the mean


class Lengths(NamedTuple):
    """What ``slots`` slots ask for one after the other, in seconds of work: when each request begins, when
    its tokens begin to come, when it has ended (slot × request)."""

    begins: Floats
    speaks: Floats
    ends: Floats


def gap_s(running: int) -> float:
    return LAW.itl_s * (1 + LAW.batch_slope * (running - 1))


def lengths(rng: np.random.Generator, slots: int, each: int, phased: bool) -> Lengths:
    """``phased``: the first answers are cut so that the slots are spread over all phases, as ours are."""
    tokens = rng.integers(*LENGTHS, size=(slots, each)).astype(float)
    if phased:
        tokens[:, 0] = np.maximum(1, tokens[:, 0] * (np.arange(slots) + 1) / slots)
    ends = np.cumsum(LAW.ttft_s + tokens * gap_s(slots), axis=1)
    begins = np.hstack([np.zeros((slots, 1)), ends[:, :-1]])
    return Lengths(begins, begins + LAW.ttft_s, ends)


def tokens_between(asked: Lengths, slots: int, start: float, end: float) -> float:
    inside = np.minimum(asked.ends, end) - np.maximum(asked.speaks, start)
    return float(inside.clip(min=0).sum()) / gap_s(slots)


# ---------------------------------------------------------------------------------------- the recipes


class Result(NamedTuple):
    rate: float
    seconds: float


def prompts(server: Server, slots: int, count: int, *, warm: int = 0, steady: bool = False) -> Result:
    """``count`` prompts, at most ``slots`` at a time, as fast as they are answered; the rate is all tokens
    over all the time, or (``steady``) those of the time in which all slots were busy.  ``warm`` prompts
    come before, and are waited for."""
    began_s = 0.0
    if warm:
        began_s = _drain(server, 0.0, lengths(server.rng, slots, _each(warm, slots), False), slots, warm)[0]
    asked = lengths(server.rng, slots, _each(count, slots), False)
    ended_s, full, kept = _drain(server, began_s, asked, slots, count)
    if not steady:
        tokens = float((kept.ends - kept.speaks).clip(min=0).sum()) / gap_s(slots)
        return Result(tokens / (ended_s - began_s), ended_s)
    until_s = server.time(server.work(began_s) + full)
    return Result(tokens_between(asked, slots, 0.0, full) / (until_s - began_s), ended_s)


def _each(count: int, slots: int) -> int:
    return 4 + 2 * count // slots


def _drain(
    server: Server, began_s: float, asked: Lengths, slots: int, count: int
) -> tuple[float, float, Lengths]:
    """When ``count`` requests have ended; how much work was done with all slots busy; those requests.

    The slots whose last request has ended leave the others faster: r of them need gap_s(r) a token."""
    order = np.sort(asked.ends, axis=None)
    full = float(order[count - slots - 1]) if count > slots else 0.0  # then the last request is sent
    sent = asked.begins <= full if count > slots else asked.begins <= 0
    if count < slots:
        sent[count:] = False
    kept = Lengths(asked.begins, asked.speaks, np.where(sent, asked.ends, asked.speaks))
    left = np.sort(asked.ends[sent][asked.ends[sent] > full])
    work, last = server.work(began_s) + full, full
    for number, end in enumerate(left):
        work += (end - last) * gap_s(len(left) - number) / gap_s(slots)
        last = end
    return server.time(work), full, kept


def seconds(server: Server, slots: int, for_s: float, *, grace: bool) -> Result:
    """Requests for ``for_s`` seconds.  ``grace``: what was sent is waited for, and counts, and so does the
    time; else what has ended by then counts, and the time until the last of it."""
    end = server.work(for_s)
    asked = lengths(server.rng, slots, 4 + int(2 * end / (LAW.ttft_s + LENGTHS[0] * gap_s(slots))), False)
    done = asked.ends <= end
    if grace:
        count = int(done.sum()) + slots
        ended_s, _, kept = _drain(server, 0.0, asked, slots, count)
        return Result(float((kept.ends - kept.speaks).clip(min=0).sum()) / gap_s(slots) / ended_s, ended_s)
    last_s = server.time(float(asked.ends[done].max()))
    return Result(float((asked.ends - asked.speaks)[done].sum()) / gap_s(slots) / last_s, for_s)


def window(server: Server, began_s: float, slots: int, measure: Measure) -> tuple[Held, float]:
    """One of our windows, and when it is over (``loadgen.closed``)."""
    one_s = LAW.ttft_s + MEAN_LENGTH * gap_s(1)
    ramp_s = min(one_s, measure.warmup_s) if slots > 1 else 0.0
    start_s = began_s + max(measure.warmup_s, ramp_s + (one_s / 16 if slots > 1 else 0.0))
    asked = lengths(server.rng, slots, 8 + int(measure.max_window_s / (LENGTHS[0] * gap_s(slots))), True)
    base, needed = server.work(began_s + ramp_s), max(measure.min_requests, slots)
    start = server.work(start_s) - base
    times = 1
    while True:
        end = server.work(start_s + times * measure.window_s) - base
        full = int(((asked.ends > start) & (asked.ends <= end)).sum()) >= needed
        if full or (times + 1) * measure.window_s > measure.max_window_s:
            break
        times += 1
    span_s = times * measure.window_s
    sent = (asked.begins > start) & (asked.begins <= end)
    over_s = max(start_s + span_s, server.time(base + float(asked.ends[sent].max(initial=end))))
    edges = np.linspace(start_s, start_s + span_s, adaptive.SLICES + 1)
    parts = np.diff([tokens_between(asked, slots, start, server.work(edge) - base) for edge in edges])
    within = float(parts.std(ddof=1) / parts.mean() / np.sqrt(len(parts)))
    held = Held(value=parts.sum() / span_s, took_s=over_s - began_s, span_s=span_s, within_frac=within)
    return held, over_s


def ours(server: Server, slots: int, measure: Measure) -> Result:
    """Windows of one engine start, as ``profiler.adaptive`` asks for them."""
    history: list[Held] = []
    at_s, said = 0.0, adaptive.precision(measure, ())
    while said.done is None:
        window_s = said.stretch * measure.window_s
        asked = replace(measure, window_s=window_s, max_window_s=max(window_s, measure.max_window_s))
        held, at_s = window(server, at_s, slots, asked)
        history.append(held)
        said = adaptive.precision(measure, history)
    return Result(stats.over_repeats([each.value or math.nan for each in history]).value, at_s)


def one_window(server: Server, slots: int, measure: Measure) -> Result:
    held, at_s = window(server, 0.0, slots, measure)
    return Result(held.value or math.nan, at_s)


CHAT = replace(scenario.load("chat").measure, max_seconds=900.0)
Recipe = Callable[[Server, int], Result]
OTHERS: dict[str, Recipe] = {
    "vllm bench serve, 1,000 prompts": partial(prompts, count=1000),
    "GuideLLM, 30 s": partial(seconds, for_s=30.0, grace=False),
    "AIPerf, 60 s": partial(seconds, for_s=60.0, grace=True),
    "InferenceX, 10 prompts a slot": lambda server, slots: prompts(server, slots, 10 * slots, warm=2 * slots),
    "ML.ENERGY, 1,024 prompts, saturated part": partial(prompts, count=1024, steady=True),
}


# ------------------------------------------------------------------------------------------ the tables


def exact(slots: int) -> float:
    """Tokens/s of a server that does not scatter."""
    return slots * MEAN_LENGTH / (LAW.ttft_s + MEAN_LENGTH * gap_s(slots))


def until_true(recipe: Recipe, slots: int, noise: Noise, trials: int) -> str:
    """The least number of engine starts whose mean is within TARGET of the truth in 95 % of cases."""
    rng = np.random.default_rng([7, slots])
    found = [recipe(Server(rng, noise), slots) for _ in range(trials)]
    rates = np.array([each.rate for each in found]) / exact(slots)
    run_s, bias = float(np.mean([each.seconds for each in found])), 100 * float(rates.mean() - 1)
    for starts in range(1, MOST_STARTS + 1):
        drawn = rng.choice(rates, (4000, starts)).mean(axis=1) if starts > 1 else rates
        if np.quantile(abs(drawn - 1), 0.95) <= TARGET:
            return f"**{starts * run_s:,.0f} s** ({starts} × {run_s:,.0f}; {bias:+.1f} %)"
    return f"never ({bias:+.1f} %)"


def until_known(recipe: Recipe, slots: int, noise: Noise, trials: int) -> str:
    """What it takes until the recipe, repeated in fresh engine starts, is within TARGET by our rule, and how
    often its interval then holds the truth."""
    asked, took_s, right = replace(CHAT, max_seconds=50_000.0), 0.0, 0
    rng = np.random.default_rng([11, slots])
    for _ in range(trials):
        history: list[Held] = []
        while (said := adaptive.precision(asked, history)).done is None:
            found = recipe(Server(rng, noise), slots)
            history.append(Held(value=found.rate, took_s=found.seconds, span_s=found.seconds))
        interval = looked.widened(stats.over_repeats([each.value or math.nan for each in history]))
        right += (interval.low or 0.0) <= exact(slots) <= (interval.high or math.inf)
        took_s += said.spent_s
    return f"**{took_s / trials:,.0f} s** ({right / trials:.0%})"


def table(title: str, cell: Callable[[Recipe, int], str], recipes: dict[str, Recipe]) -> Iterator[str]:
    yield f"\n{title}\n"
    yield "| recipe | " + " | ".join(f"{slots} at a time" for slots in LOADS) + " |"
    yield "|---|" + "--:|" * len(LOADS)
    for name, recipe in recipes.items():
        yield f"| {name} | " + " | ".join(cell(recipe, slots) for slots in LOADS) + " |"


def tables(trials: int, measure: Measure, others: dict[str, Recipe]) -> Iterator[str]:
    within = {"ours, ± 2 % within a start": partial(ours, measure=measure)}
    fresh = {"ours, a start a window": partial(one_window, measure=measure)}
    for noise in (QUIET, USUAL):
        scatter = f"starts {noise.start:.1%}, minutes {noise.slow:.1%}, seconds {noise.quick:.0%}"
        true = partial(until_true, noise=noise, trials=trials)
        known = partial(until_known, noise=noise, trials=trials)
        title = f"{noise.name} ({scatter})"
        yield from table(f"*Until it is true*, {title}", true, within | others)
        yield from table(f"*Until it is known*, {title}", known, fresh | others)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--trials", type=int, default=400)
    options.add_argument("--window-s", type=float, default=CHAT.window_s, help="of our windows")
    options.add_argument("--warmup-s", type=float, default=CHAT.warmup_s, help="of our windows")
    options.add_argument("--ours", action="store_true", help="without the other tools")
    given = options.parse_args()
    measure = replace(CHAT, window_s=given.window_s, warmup_s=given.warmup_s)
    for line in tables(given.trials, measure, {} if given.ours else OTHERS):
        print(line, flush=True)


if __name__ == "__main__":
    main()
