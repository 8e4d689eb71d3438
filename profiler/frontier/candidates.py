"""Who stands on the map of cost and quality: sealed runs at their own best load, and APIs at list price."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from profiler import scores
from profiler.cost import at_slo, listed
from profiler.cost.at_slo import Paid
from profiler.cost.question import Question
from profiler.cost.terms import Terms
from profiler.errors import InputError
from profiler.prices import Missing
from profiler.schema import Estimate
from profiler.scores import Score


class Candidate(Struct, frozen=True, kw_only=True):
    """A model under one scenario.  ``usd`` is USD per 10⁶ output tokens, the prompts' share inside; None
    without a price, or where no load keeps the promise.  ``at`` says where the cost was taken."""

    scenario: str
    model: str
    basis: str
    usd: Estimate | None
    score: Score | None
    at: str
    run: str | None = None
    notes: tuple[str, ...] = ()


def of_question(
    question: Question, benchmark: str, known: Sequence[Score], apis: Sequence[str]
) -> list[Candidate]:
    """Every model of the runs, and every API under each of their scenarios.

    Raises InputError for an API that nobody lists.
    """
    paid = at_slo.best_of_each(question)
    found = [_of_run(each, question.terms, benchmark, known) for each in paid]
    found += _slow(question, found, benchmark, known)
    scenarios = list(dict.fromkeys(each.scenario for each in found))
    for scenario in scenarios:
        mix = _mix([each for each in paid if each.choice.found.facts["scenario"] == scenario])
        found += [_of_api(name, (scenario, mix), question.terms, benchmark, known) for name in apis]
    return found


def _of_run(paid: Paid, terms: Terms, benchmark: str, known: Sequence[Score]) -> Candidate:
    measured = paid.choice.found
    score, note = scores.of_model(measured.model, benchmark, known)
    return Candidate(
        scenario=measured.facts["scenario"],
        model=measured.model,
        basis=paid.costs.facts.get("cost_basis") or terms.basis,
        usd=paid.usd_per_m,
        score=score,
        at=at_slo.at(paid.choice) + _price(paid.costs.facts),
        run=measured.run,
        notes=(
            *((note,) if note and score else ()),
            *(() if paid.usd_per_m else paid.costs.notes or ("no price",)),
        ),
    )


def _price(facts: Mapping[str, Any]) -> str:
    usd, basis = facts.get("price_usd_per_hour"), facts.get("price_basis")
    return "" if usd is None else f", {usd:.4g} USD {basis}"


def _slow(
    question: Question, kept: Sequence[Candidate], benchmark: str, known: Sequence[Score]
) -> Iterator[Candidate]:
    """Models of which no measured load keeps the promise: they have no cost to be placed at."""
    there = {(each.scenario, each.model) for each in kept}
    for choice in question.choices:
        scenario, model = choice.found.facts["scenario"], choice.found.model
        if (scenario, model) not in there:
            there.add((scenario, model))
            why = "; ".join(choice.closest.reasons) if choice.closest else ""
            yield Candidate(
                scenario=scenario,
                model=model,
                basis=question.terms.basis,
                usd=None,
                score=scores.of_model(model, benchmark, known)[0],
                at=f"no measured load is shown to keep {at_slo.slo_text(choice)}{': ' if why else ''}{why}",
                run=choice.found.run,
            )


def _mix(paid: Sequence[Paid]) -> float | None:
    """Input tokens for each output token, the mean over the runs of a scenario; None where none tells."""
    ratios = list(_ratios(paid))
    return sum(ratios) / len(ratios) if ratios else None


def _ratios(paid: Sequence[Paid]) -> Iterator[float]:
    for each in paid:
        rates = each.choice.found.estimates
        read, written = rates.get("input_tokens_per_s"), rates.get("output_tokens_per_s")
        if read and written and written.value > 0:
            yield read.value / written.value


def _of_api(
    name: str, load: tuple[str, float | None], terms: Terms, benchmark: str, known: Sequence[Score]
) -> Candidate:
    scenario, mix = load
    offers = listed.prices(name, terms)
    if isinstance(offers, Missing):
        raise InputError(f"--api {name}: {offers.reason}")
    score, note = scores.of_model(name, benchmark, known)
    middle, low, high = offers.ranked(mix or 0.0, 1.0)
    at = f"list price of {middle.provider}, {middle.date}"
    if mix is None:
        at = "no run of this scenario says how many input tokens it read, which an API charges for"
    elif len(offers.offers) > 1:
        at += f" (of {len(offers.offers)}: {low.of(mix, 1):.3g} to {high.of(mix, 1):.3g})"
    return Candidate(
        scenario=scenario,
        model=f"{name} (API)",
        basis="api",
        usd=None if mix is None else Estimate(middle.of(mix, 1.0)),
        score=score,
        at=at if mix is None else f"{at}, at {mix:.3g} input tokens an output token",
        notes=(note,) if note and score else (),
    )
