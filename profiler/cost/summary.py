"""The answer first: what each model's tokens and requests cost at the one load that counts, its highest
within the promise, or without a promise the highest that was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from profiler.cost import answers, at_slo, invoice
from profiler.cost.at_slo import Paid
from profiler.cost.invoice import ENDS, ends
from profiler.cost.kinds import Kinds
from profiler.cost.question import Question

RATE, REQUESTS, RATIO = "output_tokens_per_s", "usd_per_1000_requests", "ratio"
COLUMNS = (
    *(*invoice.KIND_COLUMNS, "at", "runs", "n", "over"),
    *(name + end for name in (RATE, REQUESTS, RATIO) for end in ENDS),
)
Row = dict[str, Any]


def rows(question: Question) -> list[Row]:
    """A row a model and promise; in USD, without a price in engine time."""
    chosen = at_slo.best_of_each(question)
    parts = question.kinds_of([each.choice.found for each in chosen])
    groups: dict[tuple[Any, ...], list[Paid]] = {}
    for each in chosen:
        groups.setdefault(at_slo.promise_of(each.choice), []).append(each)
    return [
        _row(each, found, groups[at_slo.promise_of(each.choice)], question)
        for each, found in zip(chosen, parts, strict=True)
    ]


def _row(paid: Paid, parts: Kinds, beside: Sequence[Paid], question: Question) -> Row:
    found, best = paid.choice.found, paid.choice.best
    hour, rate = question.price(found), found.estimates.get(RATE)
    *_, row = invoice.of_load(found, parts, hour, question)
    return (
        dict.fromkeys(COLUMNS)
        | row
        | ends(RATE, rate)
        | ends(REQUESTS, answers.per_request(found, hour), 1000.0)
        | ends(RATIO, at_slo.ratio(paid, beside[0]) if len(beside) > 1 else None)
        | {
            "at": at_slo.at(paid.choice),
            "runs": best.runs if best else None,
            "n": rate.n if rate else None,
            "over": rate.over if rate else None,
        }
    )


def without(question: Question) -> Iterator[str]:
    """The models of which no load keeps the promise, and what they missed by."""
    for each in question.choices:
        if each.closest is not None:
            yield f"{each.found.model}: {at_slo.none_kept(each)}"
