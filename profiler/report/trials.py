"""What is said of a trial: what it will take, how it goes, how it ended."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from profiler.charts.words import one_line
from profiler.claims.judge import Level
from profiler.claims.law import TWO_SIDED
from profiler.claims.ledger import Block, Decision, Dropped, Look, Trial
from profiler.report.ahead import duration

OUTCOMES: dict[Decision, str] = {
    "go on": "going on",
    "decided": "every cell has its verdict",
    "futile": "no cell that is open would be decided by the end",
    "not comparable": "the sides cannot be compared",
    "budget": "the budget is spent; the same command, with a larger --budget or without, goes on",
    "plan ended": "all planned starts are held",
}


def announced(trial: Trial) -> Iterator[str]:
    """What a trial is of and what it will take, before anything is started."""
    claim, takes = trial.claim, trial.takes
    cells = len(claim.grid())
    yield (
        f"trial {trial.id}: {trial.subject} / {trial.baseline}, {trial.engine}, {claim.metric} in "
        f"{cells} cell{'s' * (cells != 1)}, seed {trial.seed}"
    )
    yield f"it takes {costs(takes.starts, takes.seconds, takes.usd)} to its end ({'; '.join(takes.grounds)})"
    yield from _limits(trial)
    yield f"looks after {_listed(trial.looks_at)} starts a side, at {_confidences(trial)}"
    if takes.power is not None and takes.beyond is not None:
        yield _power(trial, takes.power, takes.beyond)
    if trial.before:
        yield f"tried here before, with an outcome of its own each: {', '.join(trial.before)}"


def resumed(trial: Trial, left_s: float) -> Iterator[str]:
    """Of a trial that was begun before these words were said."""
    if trial.status == "ended":
        yield f"trial {trial.id} has ended; another of the same claim needs a seed of its own: --seed N"
        return
    yield (
        f"going on with trial {trial.id}: {trial.starts} of {trial.most} starts a side are held, about "
        f"{duration(left_s)} to its end"
    )
    yield from _limits(trial)


def in_order(blocks: Sequence[Block]) -> Iterator[str]:
    """The order that was drawn, block by block."""
    for number, block in enumerate(blocks, start=1):
        yield f"block {number}: {', '.join(leg_words(block, place) for place in range(len(block.order)))}"


def leg_words(block: Block, place: int) -> str:
    """``subject``, with its lengths where a block has several."""
    leg = block.order[place]
    lengths = {(each.input_tokens, each.output_tokens) for each in block.order}
    if len(lengths) == 1:
        return leg.side
    return f"{leg.side} {leg.input_tokens or 'any'} + {leg.output_tokens or 'any'}"


def costs(starts: int, seconds: float, usd: float | None) -> str:
    """``12 starts, about 1 h 40 min, 4.20 USD``."""
    money = "" if usd is None else f", {usd:.2f} USD"
    return f"{starts} start{'s' * (starts != 1)}, about {duration(seconds)}{money}"


def looked(trial: Trial, look: Look) -> str:
    return (
        f"look {len(trial.looks)}, {look.starts} of {trial.most} starts a side: {look.verdict}; "
        f"{OUTCOMES[look.decision]}"
    )


def dropped(gone: Dropped) -> str:
    why, _, _log = gone.why.partition("\n")
    run = f" ({gone.run})" if gone.run else ""
    return f"block {gone.block + 1}: the {gone.leg.side} does not count{run}: {one_line(why)}"


def pace(trial: Trial, left_s: float) -> str:
    """After a block: what is known of the rest now."""
    spent = costs(len(trial.runs()), trial.spent_s, _usd(trial, trial.spent_s))
    return f"held so far: {spent}; about {duration(left_s)} to its end"


def ended(trial: Trial) -> str:
    spent = costs(len(trial.runs()), trial.spent_s, _usd(trial, trial.spent_s))
    announced = duration(trial.takes.seconds)
    dropped = f", {len(trial.dropped)} dropped" if trial.dropped else ""
    reason = trial.reason or (OUTCOMES["budget"] if trial.status == "open" else None)
    why = f": {reason}" if reason else ""
    return f"trial {trial.id}{why}: {spent} ({announced} announced){dropped}"


def _usd(trial: Trial, seconds: float) -> float | None:
    return None if trial.usd_per_hour is None else seconds * trial.usd_per_hour / 3600


def _limits(trial: Trial) -> Iterator[str]:
    budget = trial.budget
    told = [duration(budget.seconds)] if budget.seconds is not None else []
    told += [f"{budget.usd:.2f} USD"] if budget.usd is not None else []
    which = "budget" if budget.given else "without --budget it ends at twice that"
    spent = f", of which {duration(trial.spent_s)} are spent" if trial.spent_s else ""
    if told:
        yield f"{which}: {' and '.join(told)}{spent}; no block is begun that it does not pay for"


def _listed(numbers: Sequence[object]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}" if first else last


def _confidences(trial: Trial) -> str:
    fractions = [n / trial.most for n in trial.looks_at]
    sure = [Level(tuple(fractions[: place + 1])).confidence() for place in range(len(fractions))]
    told = _listed([f"{math.floor(each * 1e4) / 100:g}" for each in sure])
    return f"{told} % confidence{', which is 95 % over all' if len(sure) > 1 else ''}"


def _power(trial: Trial, power: float, beyond: float) -> str:
    share, spread = f"{min(99, math.floor(power * 100))} %", f"{trial.claim.plan.spread_frac * 100:g} %"
    what = f"a cell {beyond * 100:g} % beyond its bar is decided"
    if trial.claim.relation in TWO_SIDED:
        what = "where it is true, a cell is found to be so"
    return f"{what} in at least {share} of trials, if starts scatter by {spread}"
