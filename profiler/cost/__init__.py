"""Figures × Terms → what tokens cost, emit and take of electricity: the columns of one load point.

``usd_per_m_output_tokens``        the whole bill over the output tokens; prompt work is inside.
``usd_per_m_input_tokens``         the price of the engine time that prompt tokens take, from a point where
                                   prefill was measured apart (:mod:`profiler.prefill`).
``usd_per_m_output_tokens_apart``  what remains of the bill on the output tokens: the two kinds times their
                                   counts are the bill.
``usd_per_m_blended_tokens``       the two in the shares of ``Terms.blend``, 3 : 1 unless asked otherwise.
``usd_per_request``                the whole bill over the requests.

Charging the whole bill to each kind and adding them counts it twice.  Where prefill was never measured
apart, the three kinds are absent.  Intervals (``_low``, ``_high``) are the measurement's at the stated price;
what the offers span is ``usd_per_m_output_tokens_cheapest`` to ``…_dearest``.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from profiler import stats
from profiler.cost import basis, bought, carbon, electricity, kinds, listed
from profiler.cost.basis import Hourly
from profiler.cost.electricity import Energy
from profiler.cost.listed import ListPrices
from profiler.cost.terms import Terms
from profiler.figures import Figures
from profiler.prices import Missing
from profiler.schema import Estimate

METERED = ("electricity_usd_per_m_output_tokens", "gco2e_per_m_output_tokens")
ESTIMATES = (
    "usd_per_m_output_tokens",
    "usd_per_m_input_tokens",
    "usd_per_m_blended_tokens",
    "usd_per_m_output_tokens_apart",
    "usd_per_request",
    *METERED,
)
FACTS = (
    "cost_basis",
    "utilization_frac",
    "price_usd_per_hour",
    "price_basis",
    "price_date",
    "usd_per_m_output_tokens_cheapest",
    "usd_per_m_output_tokens_dearest",
    "electricity_boundary",
)
NO_RATE = "no output tokens were measured at this load"
TERMS = Terms()


class Costs(Struct, frozen=True):
    """The cost columns of one load point.  ``estimates``: what is not known is absent; ``facts`` has every
    name of FACTS; ``notes`` say why a figure is missing and how to give it, or what it leaves out."""

    estimates: dict[str, Estimate]
    facts: dict[str, Any]
    notes: tuple[str, ...]


def columns(found: Figures, prefill_s: Estimate | None, terms: Terms = TERMS) -> Costs:
    """What the tokens of one load point cost on these terms; ``prefill_s``: engine seconds an input token
    takes (``figures.prefill_s``).  Raises InputError for a sheet or a name that is wrong."""
    facts: dict[str, Any] = dict.fromkeys(FACTS)
    facts["cost_basis"] = terms.basis
    facts["utilization_frac"] = None if terms.basis == "api" else terms.paid_share
    paid = _listed(found, terms) if terms.basis == "api" else _paid(found, prefill_s, terms)
    used = electricity.energy(found, terms)
    metered = _at_the_meter(used, terms)
    return Costs(
        paid.estimates | metered.estimates, facts | metered.facts | paid.facts, paid.notes + metered.notes
    )


def _at_the_meter(used: Energy | Missing, terms: Terms) -> Costs:
    """What is known of measured energy alone, whatever the basis; said where it was asked for."""
    grid = carbon.intensity(terms)
    if isinstance(used, Missing):
        return Costs({}, {}, () if grid is None else (f"gCO2e n/a: {used.reason}",))
    found = {"electricity_usd_per_m_output_tokens": electricity.usd_per_m_output_tokens(used, terms)}
    facts = {"electricity_boundary": used.boundary}
    if grid is None:
        return Costs(found, facts, used.notes if terms.basis == "electricity" else ())
    found["gco2e_per_m_output_tokens"] = carbon.g_per_m_output_tokens(used, grid.g_per_kwh)
    return Costs(found, facts, (f"{grid.words}; energy of: {used.boundary}", *used.notes))


# ------------------------------------------------------------------------------------- by the hour


def _paid(found: Figures, prefill_s: Estimate | None, terms: Terms) -> Costs:
    """Of an engine that is paid by the hour."""
    paid = basis.hourly(found, terms)
    if isinstance(paid, Missing):
        return Costs({}, {}, (f"cost n/a: {paid.reason}",))
    facts: dict[str, Any] = {
        "price_usd_per_hour": paid.price.usd_per_hour,
        "price_basis": basis.words(paid.price),
        "price_date": paid.price.date,
    }
    rate = found.estimates.get("output_tokens_per_s")
    if rate is None or rate.value <= 0:
        return Costs({}, facts, (f"cost n/a: {NO_RATE}",))
    usd_per_m_s = paid.effective_usd_per_s * 1e6
    bill = stats.inverted(rate, usd_per_m_s)
    used = electricity.energy(found, terms) if terms.basis == "electricity" else None
    if isinstance(used, Energy):
        bill = electricity.usd_per_m_output_tokens(used, terms)
    apart, notes = _kinds(found, prefill_s, usd_per_m_s, terms)
    return Costs(
        {"usd_per_m_output_tokens": bill} | apart | _per_request(found, paid),
        facts | _span(paid, bill.value),
        (*basis.warnings(paid.price), *notes),
    )


def _span(paid: Hourly, usd_per_m: float) -> dict[str, Any]:
    """The same at the cheapest and at the dearest offer; a single one spans nothing."""
    ends = (paid.low_usd_per_hour, paid.high_usd_per_hour)
    low, high = (
        None
        if end is None or ends[0] == ends[1]
        else usd_per_m * paid.at(end).effective_usd_per_s / paid.effective_usd_per_s
        for end in ends
    )
    return {"usd_per_m_output_tokens_cheapest": low, "usd_per_m_output_tokens_dearest": high}


def _per_request(found: Figures, paid: Hourly) -> dict[str, Estimate]:
    rate = found.estimates.get("requests_per_s")
    if rate is None or rate.value <= 0:
        return {}
    return {"usd_per_request": stats.inverted(rate, paid.effective_usd_per_s)}


def _kinds(
    found: Figures, prefill_s: Estimate | None, usd_per_m_s: float, terms: Terms
) -> tuple[dict[str, Estimate], tuple[str, ...]]:
    """Input, output and blended price; absent when prefill is unknown or would exceed the whole bill."""
    if prefill_s is None:
        return {}, ()
    parts = kinds.of_point(found, kinds.Source(prefill_s, "", is_mean=True))
    prompt = parts.of(kinds.INPUT)
    engine_s = {
        "usd_per_m_input_tokens": prompt and prompt.engine_s,
        "usd_per_m_output_tokens_apart": kinds.of_tokens(parts, {kinds.OUTPUT: 1.0}),
        "usd_per_m_blended_tokens": kinds.blended(parts, terms.blend),
    }
    is_cached = sum(terms.blend[2:]) > 0
    return (
        {name: stats.scaled(each, usd_per_m_s) for name, each in engine_s.items() if each},
        ("blended price n/a: what a cached input token takes is not in these columns",) * is_cached,
    )


# ------------------------------------------------------------------------------------ by the token


def _listed(found: Figures, terms: Terms) -> Costs:
    """What an API would ask for the tokens of this load: the bill by the same columns, no interval.  The list
    prices themselves need no measurement."""
    known = listed.prices(found.model, terms)
    if isinstance(known, Missing):
        return Costs({}, {}, (f"cost n/a: {known.reason}",))
    outputs, inputs = (found.estimates.get(f"{kind}_tokens_per_s") for kind in ("output", "input"))
    if outputs is None or inputs is None or outputs.value <= 0:
        values, facts = _list_prices(known, terms.blend[0], terms.blend[1], terms)
        return Costs(values, facts, ("the whole bill n/a: input and output tokens a second are not known",))
    ranked = known.ranked(inputs.value, outputs.value)
    values, facts = _list_prices(known, inputs.value, outputs.value, terms)
    middle, low, high = (bought.per_m_output(found, offer) for offer in ranked)
    of_request = bought.per_request(found, ranked[0])
    whole = {"usd_per_m_output_tokens": middle and Estimate(middle), "usd_per_request": of_request}
    if len(known.offers) > 1:
        facts |= {"usd_per_m_output_tokens_cheapest": low, "usd_per_m_output_tokens_dearest": high}
    return Costs(values | {name: each for name, each in whole.items() if each}, facts, ())


def _list_prices(
    known: ListPrices, inputs: float, outputs: float, terms: Terms
) -> tuple[dict[str, Estimate], dict[str, Any]]:
    """Of the provider that is the middle one for so many tokens."""
    middle = known.ranked(inputs, outputs)[0]
    return {
        "usd_per_m_input_tokens": Estimate(middle.input),
        "usd_per_m_output_tokens_apart": Estimate(middle.output),
        "usd_per_m_blended_tokens": Estimate(bought.blended(middle, terms.blend)),
    }, {"price_basis": listed.lines(known, inputs, outputs)[0], "price_date": middle.date}
