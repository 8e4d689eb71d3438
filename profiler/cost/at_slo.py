"""What a token costs at the latency promise: models on equal machines, and each on its own best.

A load is chosen by ``promise``; the whole bill is then laid on all output tokens, and on those of requests
that kept the promise.  A model without a load that keeps it has no cost here: its nearest load is named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from profiler import stats
from profiler.cost import Costs, columns
from profiler.cost.invoice import ends
from profiler.cost.promise import Choice
from profiler.cost.question import Question
from profiler.figures import Figures
from profiler.schema import Estimate

EQUAL, OWN = "equal GPUs", "own best"
COST = "usd_per_m_output_tokens"
ESTIMATES = (
    "output_tokens_per_s",
    "good_output_tokens_per_s",
    "good_requests_per_s",
    COST,
    "usd_per_m_good_output_tokens",
    "usd_per_1000_good_requests",
    "ratio",
)
COLUMNS = (
    *("view", "scenario", "slo", "gpu", "gpus", "model", "kind", "engine", "load", "concurrency"),
    *("load_requests_per_s", "verdict", "runs"),
    *(name + end for name in ESTIMATES for end in ("", "_low", "_high")),
    *("relative_to", "cost_basis", "utilization", "configurations", "notes", "run"),
)
Row = dict[str, Any]


class Paid(NamedTuple):
    """A configuration's load with what it costs."""

    choice: Choice
    costs: Costs

    @property
    def usd_per_m(self) -> Estimate | None:
        return self.costs.estimates.get(COST) if self.choice.best else None


def rows(question: Question) -> list[Row]:
    """A row a model, machine and promise, then one a model and promise; none where nothing is promised."""
    paid = [
        Paid(each, columns(each.found, question.prefill_s[each.found.run], question.terms))
        for each in question.choices
        if each.limits
    ]
    return [
        *_view(EQUAL, paid, lambda each: (*promise_of(each.choice), each.choice.machine)),
        *_view(OWN, paid, lambda each: promise_of(each.choice)),
    ]


def promise_of(choice: Choice) -> tuple[Any, ...]:
    """What models are compared under: the work, how it is offered, and within which limits."""
    found = choice.found
    return found.facts["scenario"], found.work, found.point.mode, choice.limits


def _view(name: str, paid: Sequence[Paid], key: Callable[[Paid], tuple[Any, ...]]) -> Iterator[Row]:
    groups: dict[tuple[Any, ...], dict[str, list[Paid]]] = {}
    for each in paid:
        groups.setdefault(key(each), {}).setdefault(each.choice.found.model, []).append(each)
    for models in groups.values():
        best = [(cheapest(held), len(held)) for held in models.values()]
        base = next((each for each, _ in best if each.usd_per_m), None)
        for each, configurations in best:
            yield _row(name, each, base, configurations)


def cheapest(held: Sequence[Paid]) -> Paid:
    """Of one model's configurations: one that keeps the promise before one that does not, then by cost, or,
    without prices, by how much it serves."""
    return min(held, key=_rank)


def _rank(paid: Paid) -> tuple[bool, bool, float]:
    rate = paid.choice.found.estimates.get("output_tokens_per_s")
    usd = paid.usd_per_m
    value = usd.value if usd else -(rate.value if rate else 0.0)
    return paid.choice.best is None, usd is None, value


def _row(view: str, paid: Paid, base: Paid | None, configurations: int) -> Row:
    choice, found = paid.choice, paid.choice.found
    standing = choice.best or choice.closest
    row: Row = {name: found.facts[name] for name in ("scenario", "gpu", "gpus", "model", "kind", "engine")}
    row |= {name: found.facts[name] for name in ("load", "concurrency", "load_requests_per_s", "run")}
    for name, estimate in _estimates(paid, base).items():
        row |= ends(name, estimate)
    return (
        dict.fromkeys(COLUMNS)
        | row
        | {
            "view": view,
            "slo": slo_text(choice),
            "verdict": standing.verdict if standing else None,
            "runs": standing.runs if standing else None,
            "relative_to": base.choice.found.model if base and paid.usd_per_m else None,
            "cost_basis": paid.costs.facts.get("cost_basis"),
            "utilization": paid.costs.facts.get("utilization_frac"),
            "configurations": configurations,
            "notes": "; ".join(_notes(paid)) or None,
        }
    )


def _estimates(paid: Paid, base: Paid | None) -> dict[str, Estimate | None]:
    best, usd = paid.choice.best, paid.usd_per_m
    rate = paid.choice.found.estimates.get("output_tokens_per_s") if best else None
    tokens, requests = (best.good_output_tokens_per_s, best.good_requests_per_s) if best else (None, None)
    paid_usd_per_s = usd.value * rate.value / 1e6 if usd and rate else None
    return {
        "output_tokens_per_s": rate,
        "good_output_tokens_per_s": tokens,
        "good_requests_per_s": requests,
        COST: usd,
        "usd_per_m_good_output_tokens": _over(paid_usd_per_s, tokens, 1e6),
        "usd_per_1000_good_requests": _over(paid_usd_per_s, requests, 1e3),
        "ratio": ratio(paid, base),
    }


def _over(usd_per_s: float | None, rate: Estimate | None, units: float) -> Estimate | None:
    if usd_per_s is None or rate is None or rate.value <= 0:
        return None
    return stats.inverted(rate, usd_per_s * units)


def ratio(paid: Paid, base: Paid | None) -> Estimate | None:
    """Cost over the first model's; exactly 1 for that one."""
    own, other = paid.usd_per_m, base.usd_per_m if base else None
    if own is None or other is None:
        return None
    return Estimate(1.0) if paid is base else stats.ratio_of(own, other)


def slo_text(choice: Choice) -> str:
    return ", ".join(f"{each.words} ≤ {each.limit_s * 1e3:.4g} ms" for each in choice.limits)


def _notes(paid: Paid) -> Iterator[str]:
    choice = paid.choice
    if choice.closest is not None:
        yield none_kept(choice)
    yield from choice.notes
    if choice.best and paid.usd_per_m is None:
        yield from paid.costs.notes


def none_kept(choice: Choice) -> str:
    """That no load keeps the promise, and which is the nearest."""
    if choice.closest is None:
        return "no load was measured"
    why = "; ".join(choice.closest.reasons) or choice.closest.verdict
    return f"no measured load keeps the promise; nearest is {choice.closest.words}: {why}"


def best_of_each(question: Question) -> list[Paid]:
    """Each model's own best configuration a scenario, at its promise where there is one, else at the highest
    load measured; models without a load that keeps the promise are left out."""
    groups: dict[tuple[Any, ...], list[Paid]] = {}
    for each in question.choices:
        if each.best:
            costs = columns(each.found, question.prefill_s[each.found.run], question.terms)
            paid = Paid(each, costs)
            groups.setdefault((*promise_of(each), each.found.model), []).append(paid)
    return [cheapest(held) for held in groups.values()]


def at(choice: Choice) -> str:
    """Where a figure was taken: ``trio at 32, the highest load within TTFT p99 ≤ 500 ms``."""
    found: Figures = choice.found
    load = (choice.best or choice.standings[-1]).words
    where = f"the highest load within {slo_text(choice)}" if choice.limits else "the highest load measured"
    return f"{found.facts['scenario']} at {load}, {where}"
