"""What the cost of a token depends on: each input from end to end of its range, the others as stated.

Every figure is the cost columns' own (``cost.columns``) on changed terms.  What does not move the cost on the
basis in question is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from msgspec.structs import replace

from profiler import consumption
from profiler.cost import at_slo, columns
from profiler.cost.question import Question
from profiler.cost.terms import Terms
from profiler.figures import Figures
from profiler.schema import Estimate

STILL = 1e-9
COLUMNS = (
    *("scenario", "at", "model", "cost_basis", "input", "low", "base", "high"),
    *("usd_at_low", "usd_per_m_output_tokens", "usd_at_high", "swing_frac", "reason", "run"),
)
Row = dict[str, Any]


class Input(NamedTuple):
    """A field of the terms and how far it reasonably goes; ``table``: of which table, or of none."""

    name: str
    field: str
    low: float
    high: float
    reason: str
    table: str | None = None

    def at(self, terms: Terms, value: float) -> Terms:
        if self.table is not None:
            return replace(terms, **{self.table: replace(getattr(terms, self.table), **{self.field: value})})
        more: dict[str, Any] = {"load_profile": ()} if self.field == "utilization" else {}
        return replace(terms, **{self.field: value}, **more)

    def base(self, terms: Terms) -> float | None:
        value: float | None = getattr(getattr(terms, self.table) if self.table else terms, self.field)
        return value


INPUTS = (
    Input("utilisation", "utilization", 0.2, 1.0, "from a service of office hours to one that never waits"),
    Input("PUE", "pue", 1.05, 1.6, "best hyperscale buildings; Uptime Institute's survey of 2025 has 1.54"),
    Input("tariff, USD/kWh", "tariff_usd_per_kwh", 0.05, 0.30, "industry beside hydropower; Western Europe"),
    Input("life, years", "life_years", 3, 6, "depreciation schedules of cloud companies", "owned"),
    Input("interest", "interest_frac", 0.04, 0.12, "bonds of large companies; loans against GPUs", "owned"),
    Input(
        "residual value", "residual_frac", 0.0, 0.35, "worthless at the end; a third of the price", "owned"
    ),
    Input("preemptions/h", "preemptions_per_hour", 0.001, 0.5, "one in six weeks; one in two hours", "spot"),
)
UTILIZATIONS = (0.2, 0.4, 0.7, 1.0)
PRICE = "price, USD/h"


def rows(question: Question) -> list[Row]:
    """The inputs that matter of each model at its load, the widest swing first."""
    found = []
    for each in at_slo.best_of_each(question):
        held = each.choice.found
        own = of(held, question.prefill_s[held.run], question.terms)
        found += [row | {"at": at_slo.at(each.choice)} for row in own]
    return found


def at_utilizations(question: Question) -> list[tuple[str, list[tuple[float, float]]]]:
    """Each model's cost at each of UTILIZATIONS; none on a basis that utilisation does not change."""
    found = []
    for each in at_slo.best_of_each(question):
        held = each.choice.found
        costs = []
        for share in UTILIZATIONS:
            on = INPUTS[0].at(question.terms, share)
            usd = columns(held, question.prefill_s[held.run], on).estimates.get(at_slo.COST)
            costs += [(share, usd.value)] if usd else []
        if len({usd for _, usd in costs}) > 1:
            found.append((held.model, costs))
    return found


def of(found: Figures, prefill_s: Estimate | None, terms: Terms) -> list[Row]:
    """Of one load on one set of terms; empty where it has no cost on them."""
    costs = columns(found, prefill_s, terms)
    usd = costs.estimates.get(at_slo.COST)
    if usd is None:
        return []

    def cost(changed: Terms) -> float | None:
        estimate = columns(found, prefill_s, changed).estimates.get(at_slo.COST)
        return estimate.value if estimate else None

    every = [*_offers(usd, costs.facts), *_measured(usd, found, terms), *_of_terms(found, terms, cost)]
    moved = [each for each in every if _moves(each, usd.value)]
    for each in moved:
        ends = each["usd_at_low"], each["usd_at_high"]
        each |= {
            "scenario": found.facts["scenario"],
            "model": found.model,
            "cost_basis": terms.basis,
            "usd_per_m_output_tokens": usd.value,
            "swing_frac": abs(ends[1] - ends[0]) / usd.value,
            "run": found.facts["run"],
        }
    moved.sort(key=lambda row: -row["swing_frac"])
    return [dict.fromkeys(COLUMNS) | row for row in moved]


def _moves(row: Row, usd: float) -> bool:
    ends = row["usd_at_low"], row["usd_at_high"]
    return None not in ends and max(abs(end - usd) for end in ends) > STILL * usd


def _of_terms(found: Figures, terms: Terms, cost: Callable[[Terms], float | None]) -> Iterator[Row]:
    for each in INPUTS:
        base = each.base(terms)
        yield {
            "input": each.name,
            "low": each.low,
            "base": found.facts.get("pue") if base is None else base,
            "high": each.high,
            "usd_at_low": cost(each.at(terms, each.low)),
            "usd_at_high": cost(each.at(terms, each.high)),
            "reason": each.reason,
        }


def _offers(usd: Estimate, facts: dict[str, Any]) -> Iterator[Row]:
    """From the cheapest to the dearest of them."""
    cheapest, dearest = (facts.get(f"{at_slo.COST}_{end}") for end in ("cheapest", "dearest"))
    price = facts.get("price_usd_per_hour")
    if cheapest is not None and dearest is not None and price is not None:
        yield {
            "input": PRICE,
            "low": price * cheapest / usd.value,
            "base": price,
            "high": price * dearest / usd.value,
            "usd_at_low": cheapest,
            "usd_at_high": dearest,
            "reason": "the cheapest and the dearest offer known",
        }


def _measured(usd: Estimate, found: Figures, terms: Terms) -> Iterator[Row]:
    """What was measured and the cost rests on: of a bill for power a token's energy, else the rate."""
    powered = terms.basis == "electricity"
    names = (consumption.HOST, consumption.GROSS) if powered else ("output_tokens_per_s",)
    seen = next((found.estimates[name] for name in names if name in found.estimates), None)
    if seen is not None:
        at_ends = (usd.low, usd.high) if powered else (usd.high, usd.low)
        yield {
            "input": "J/token" if powered else "tokens/s out",
            "low": seen.low,
            "base": seen.value,
            "high": seen.high,
            "usd_at_low": at_ends[0],
            "usd_at_high": at_ends[1],
            "reason": f"95 % interval over {seen.n} {seen.over or 'figures'}",
        }
