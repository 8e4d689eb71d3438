"""What a request of the measured workload costs, what one of each kind of a mix does, and a solved task.

A request costs the whole bill over the requests (``usd_per_request`` of the cost table), one of a mix what
its tokens cost by their kinds.  Whatever a model writes before what it says aloud ("thinking") is output and
is paid like it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from profiler import prefill, scores, stats, trust
from profiler.cost import bought, kinds
from profiler.cost.basis import Hourly
from profiler.cost.invoice import NOTES, PAID, WHICH, Row, ends, notes, paid, which
from profiler.cost.kinds import Kinds
from profiler.cost.listed import TokenPrice
from profiler.cost.question import Question
from profiler.figures import Figures
from profiler.prices import Missing
from profiler.schema import Estimate, LoadPoint
from profiler.scores import Score
from profiler.store import RunResult
from profiler.windows import WindowView

ALL = "all requests"
LEAST_SHARE = 1e-9  # of tasks solved: nobody ran a billion
LENGTHS = ("input_tokens_mean", "output_tokens_mean")
REQUEST_COLUMNS = (
    *(*WHICH, "requests", "n", *LENGTHS),
    *(f"usd_per_request{end}" for end in ("", "_low", "_high")),
    *(f"usd_per_1000_requests{end}" for end in ("", "_low", "_high")),
    *(*PAID, *NOTES),
)
SOLVED_COLUMNS = (
    *(*WHICH, "benchmark", *LENGTHS),
    *(f"accuracy_frac{end}" for end in ("", "_low", "_high")),
    *(f"usd_per_request{end}" for end in ("", "_low", "_high")),
    *(f"usd_per_solved_task{end}" for end in ("", "_low", "_high")),
    *("score_date", "score_source", "solved_note", *PAID, *NOTES),
)


class Lengths(NamedTuple):
    """Mean tokens of the ``n`` measured requests of one kind of a mix."""

    name: str
    n: int
    input: float
    output: float


def per_request(found: Figures, hour: Hourly | TokenPrice | Missing) -> Estimate | None:
    """USD of a mean request of this load."""
    if isinstance(hour, Missing):
        return None
    if isinstance(hour, TokenPrice):
        return bought.per_request(found, hour)
    rate = found.estimates.get("requests_per_s")
    return stats.inverted(rate, hour.effective_usd_per_s) if rate is not None and rate.value > 0 else None


# ------------------------------------------------------------------------------------- requests


def request_rows(question: Question) -> list[Row]:
    """A row a load, and of a mix one for each of its kinds."""
    runs = {str(run.folder): run for run in question.runs}
    rows = []
    for found, parts, hour in question.priced:
        shared = which(found) | paid(hour, question.terms.basis) | notes(parts)
        rows += [shared | row for row in _requests(found, parts, hour, runs[found.run])]
    return rows


def _requests(
    found: Figures, parts: Kinds, hour: Hourly | TokenPrice | Missing, run: RunResult
) -> Iterator[Row]:
    means = {name: _value(found, name) for name in LENGTHS}
    yield {"requests": ALL, "n": found.facts.get("requests_ok")} | means | _both(per_request(found, hour))
    for kind in _mix(run, found.point):
        usd = None if isinstance(hour, Missing) else _of_kind(found, parts, hour, kind)
        lengths = dict(zip(LENGTHS, (kind.input, kind.output), strict=True))
        yield {"requests": kind.name, "n": kind.n} | lengths | _both(usd)


def _both(usd: Estimate | None) -> Row:
    return ends("usd_per_request", usd) | ends("usd_per_1000_requests", usd, 1000.0)


def _of_kind(found: Figures, parts: Kinds, hour: Hourly | TokenPrice, kind: Lengths) -> Estimate | None:
    """By what its tokens take; None where the kinds of tokens could not be told apart."""
    if isinstance(hour, TokenPrice):
        return bought.of_tokens(found, hour, kind.input, kind.output)
    hit = found.estimates.get("prefix_cache_hit_frac") if parts.of(kinds.CACHED) else None
    cached = kind.input * hit.value if hit else 0.0
    amounts = {kinds.INPUT: kind.input - cached, kinds.CACHED: cached, kinds.OUTPUT: kind.output}
    engine_s = kinds.of_tokens(parts, amounts)
    return engine_s and stats.scaled(engine_s, hour.effective_usd_per_s)


def _mix(run: RunResult, point: LoadPoint) -> Iterator[Lengths]:
    """The kinds of requests of a mix as they were measured at a load, in the scenario's order."""
    import numpy as np

    mix = run.manifest.scenario.workload.mix
    held = [window for window in run.manifest.windows if window.point == point] if mix else []
    views = [view for view in (WindowView(each, run.requests) for each in held) if view.span_s is not None]
    if not views or any(trust.prompts_unknown(view) for view in views):
        return
    columns = [
        np.concatenate([view[name][view.measured] for view in views])
        for name in ("share", "input_tokens", "output_tokens")
    ]
    for number, share in enumerate(mix):
        own = columns[0] == number
        if own.any():
            inputs, outputs = (float(each[own].mean()) for each in columns[1:])
            yield Lengths(share.name, int(own.sum()), inputs, outputs)


def _value(found: Figures, name: str) -> float | None:
    estimate = found.estimates.get(name)
    return estimate.value if estimate else None


# ------------------------------------------------------------------------------------- solved tasks


def solved_rows(question: Question) -> list[Row]:
    """USD per solved task: a request's over the share of tasks that the model solves; a row a load and a
    benchmark of the user's scores."""
    names = list(dict.fromkeys(score.benchmark for score in question.scores))
    rows: list[Row] = []
    for found, parts, hour in question.priced if names else ():
        if prefill.answers_of_one(found):
            continue  # no task is solved by one token
        usd = per_request(found, hour)
        shared = which(found) | {name: _value(found, name) for name in LENGTHS} | ends("usd_per_request", usd)
        shared |= paid(hour, question.terms.basis) | notes(parts)
        for name in names:
            score, note = scores.of_model(found.model, name, question.scores)
            if score is not None:
                rows.append(shared | {"benchmark": name} | _solved(usd, score, note))
    return rows


def unmatched(question: Question) -> list[str]:
    """Models of the runs without any of the user's scores."""
    models = dict.fromkeys(found.model for found in question.figures)
    return [
        model
        for model in models
        if not any(scores.same_model(each.model, model) for each in question.scores)
        and all(
            scores.of_model(model, each.benchmark, question.scores)[0] is None for each in question.scores
        )
    ]


def _solved(usd: Estimate | None, score: Score, note: str | None) -> Row:
    accuracy = _accuracy(score)
    known: dict[str, Any] = {"score_date": score.date, "score_source": score.source, "solved_note": note}
    if accuracy is None:
        known["solved_note"] = f"{score.benchmark} is no share of solved tasks but {score.unit}"
    elif accuracy.value < LEAST_SHARE:
        known["solved_note"] = "no task was solved"
    each = stats.ratio_of(usd, accuracy) if usd and accuracy and accuracy.value >= LEAST_SHARE else None
    return known | ends("accuracy_frac", accuracy) | ends("usd_per_solved_task", each)


def _accuracy(score: Score) -> Estimate | None:
    """The share of tasks that were solved, its interval cut to what a share can be."""
    if score.share is None:
        return None
    full = 100.0 if score.unit == "percent" else 1.0
    low, high = (None if end is None else min(1.0, max(0.0, end / full)) for end in (score.low, score.high))
    return Estimate(score.share, low, high, score.n or 1, "tasks")


def benchmarks(of: Sequence[Score]) -> str:
    return ", ".join(dict.fromkeys(score.benchmark for score in of))
