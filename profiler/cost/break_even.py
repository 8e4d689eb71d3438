"""Serving a model oneself against buying its tokens: the utilisation and the monthly volume where they cross.

At the load chosen an engine (a replica) serves ``r_in`` input and ``r_out`` output tokens a second.  A
provider would take, for an hour of that,

    api_usd_per_hour = 3600 · (r_in · p_in + r_out · p_out) / 10⁶

so that self-hosting is cheaper once the engine works more than ``u* = usd_per_hour / api_usd_per_hour`` of
the hours paid for.  Where the provider has a price for cached input and the run met its cache, that share
of the input is at that price.

Replicas come whole.  ``n`` of them carry ``n · capacity`` tokens a month, and ``n + redundant`` are paid for;
a step of that staircase is crossed by the provider's straight line where ``(n + redundant) · usd_per_month =
volume · price``, if it is crossed at all before the next step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from profiler import catalog
from profiler.catalog import ApiOffer
from profiler.cost import at_slo, basis
from profiler.cost.invoice import ends
from profiler.cost.question import Question
from profiler.cost.terms import Terms
from profiler.figures import Figures
from profiler.prices import Missing
from profiler.schema import Estimate

HOURS_PER_MONTH = 730
PER_M = 1e-6
NOT_COUNTED = (
    "not counted: staff and on-call, network egress, storage, discounts and rate limits of the provider, and "
    "whether the two models answer equally well"
)
ESTIMATES = ("break_even_utilization", "api_usd_per_hour")
COLUMNS = (
    *(
        "scenario",
        "at",
        "model",
        "api_model",
        "same_model",
        "provider",
        "place",
        "usd_per_hour",
        "cost_basis",
    ),
    *("input_tokens_per_s", "output_tokens_per_s", "cached_frac"),
    *("api_usd_per_m_input", "api_usd_per_m_output", "api_usd_per_m_cached_input", "api_usd_per_m_blended"),
    *(name + end for name in ESTIMATES for end in ("", "_low", "_high")),
    *("break_even_utilization_cheapest", "break_even_utilization_dearest"),
    *("utilization", "cost_over_api", "redundant_replicas", "tokens_per_month_first", "replicas_first"),
    *("tokens_per_month_settled", "replicas_settled", "date", "source", "notes", "run"),
)
Row = dict[str, Any]


class Crossing(NamedTuple):
    """A monthly volume (input and output tokens together) from which self-hosting is the cheaper, and the
    replicas that carry it, those that stand by included."""

    tokens_per_month: float
    replicas: int


class Month(NamedTuple):
    """A replica a month: what it costs standing there and the tokens it carries; what a provider takes for a
    token, less what its work costs beyond standing there; and how many replicas stand by."""

    usd: float
    tokens: float
    usd_per_token: float
    redundant: int = 0

    @property
    def utilization(self) -> float:
        """Share of a replica's capacity at which it pays for itself alone; infinite: at none."""
        return self.usd / (self.tokens * self.usd_per_token) if self.usd_per_token > 0 else math.inf

    def replicas(self, tokens: float) -> int:
        """Whole machines for a monthly volume."""
        return max(1, math.ceil(tokens / self.tokens)) + self.redundant

    def first(self) -> Crossing | None:
        """The smallest volume that self-hosting serves no dearer; None: never."""
        share = self.utilization
        if share > 1 or (share == 1 and self.redundant):
            return None
        working = max(1, math.ceil(self.redundant * share / (1 - share) - 1e-9)) if share < 1 else 1
        return self._crossed(working)

    def settled(self) -> Crossing | None:
        """The volume from which on no step of the staircase is above the provider's line; None: never."""
        share = self.utilization
        if share >= 1:
            return None
        # The last step that begins above the line: (n − 1)·capacity·price < (n + redundant)·usd.
        above = max(1, math.ceil((1 + share * self.redundant) / (1 - share) - 1e-9) - 1)
        return self._crossed(above)

    def _crossed(self, working: int) -> Crossing:
        paid = working + self.redundant
        return Crossing(paid * self.usd / self.usd_per_token, paid)


def share_at(hour: basis.Hourly, usd_per_hour_of_work: float) -> float | None:
    """The share of paid time at work at which an hour of work comes to so much: what
    ``Hourly.effective_usd_per_hour`` says, solved for the share; above 1 where even full use does not reach
    it.  None: no use does, work alone is dearer."""
    left = usd_per_hour_of_work - hour.usd_per_hour + hour.idle_usd_per_hour
    return hour.idle_usd_per_hour / left if left > 0 else None


def usd_per_hour(offer: ApiOffer, input_per_s: float, output_per_s: float, cached_frac: float = 0.0) -> float:
    """What a provider takes for an hour of this traffic (tokens per second)."""
    cached = offer.usd_per_m_cached_input
    hit = cached_frac if cached is not None else 0.0
    of_input = (1 - hit) * offer.usd_per_m_input + hit * (cached or 0.0)
    return 3600 * PER_M * (input_per_s * of_input + output_per_s * offer.usd_per_m_output)


def offers(model: str, terms: Terms, named: str | None) -> Sequence[ApiOffer]:
    """Providers of the run's model, or of the one ``named``."""
    return catalog.api_offers(named or model, terms.rates, sheet=terms.api_prices)


def rows(question: Question) -> list[Row]:
    """A row a model and provider, cheapest first; ``missing`` says why a model has none."""
    return [
        row
        for each in at_slo.best_of_each(question)
        for row in _of_model(each.choice.found, at_slo.at(each.choice), question)
    ]


def missing(question: Question) -> Iterator[str]:
    """Why a model has no row."""
    for each in at_slo.best_of_each(question):
        found = each.choice.found
        hour = basis.hourly(found, question.terms)
        if question.terms.basis == "api":
            yield "what serving it oneself costs is asked on another basis: --basis rented, owned, …"
        elif isinstance(hour, Missing):
            yield f"{found.model}: {hour.reason}"
        elif not offers(found.model, question.terms, question.api):
            yield f"{found.model}: no API in the price list sells it; set it against one with --api MODEL"
        elif "input_tokens_per_s" not in found.estimates:
            yield f"{found.model}: lengths of prompts are unknown, and providers charge for them"


def _of_model(found: Figures, where: str, question: Question) -> Iterator[Row]:
    terms = question.terms
    hour = basis.hourly(found, terms)
    taken = found.estimates.get("input_tokens_per_s")
    given = found.estimates.get("output_tokens_per_s")
    if isinstance(hour, Missing) or taken is None or given is None:
        return
    hit = found.estimates.get("prefix_cache_hit_frac")
    cached_frac = hit.value if hit else 0.0
    sold = sorted(
        offers(found.model, terms, question.api),
        key=lambda each: usd_per_hour(each, taken.value, given.value, cached_frac),
    )
    for place, offer in enumerate(sold):
        api = _api_estimate(offer, taken, given, cached_frac)
        yield _row(found, hour, offer, api, question) | {
            "at": where,
            "place": _place(place, len(sold)),
            "cached_frac": cached_frac if offer.usd_per_m_cached_input is not None else 0.0,
        }


def _api_estimate(offer: ApiOffer, taken: Estimate, given: Estimate, cached_frac: float) -> Estimate:
    """Both kinds of tokens go up and down together: they are of the same requests."""
    low, high = (
        None if a is None or b is None else usd_per_hour(offer, a, b, cached_frac)
        for a, b in ((taken.low, given.low), (taken.high, given.high))
    )
    return Estimate(
        usd_per_hour(offer, taken.value, given.value, cached_frac), low, high, given.n, given.over
    )


def _place(place: int, of: int) -> str | None:
    names = {0: "cheapest", of - 1: "dearest"} | ({of // 2: "median"} if of > 2 and of % 2 else {})
    return names.get(place) if of > 1 else None


def _row(found: Figures, hour: basis.Hourly, offer: ApiOffer, api: Estimate, question: Question) -> Row:
    terms = question.terms
    taken, given = (found.estimates[f"{kind}_tokens_per_s"].value for kind in ("input", "output"))
    month = _month(hour, api.value, 3600 * (taken + given), terms)
    first, settled = month.first(), month.settled()
    offered = [
        None if end is None else share_at(hour.at(end), api.value)
        for end in (hour.low_usd_per_hour, hour.high_usd_per_hour)
    ]
    return dict.fromkeys(COLUMNS) | {
        "scenario": found.facts["scenario"],
        "model": found.model,
        "api_model": offer.model,
        "same_model": offer in offers(found.model, terms, None),
        "provider": offer.provider,
        "usd_per_hour": hour.usd_per_hour,
        "cost_basis": hour.basis,
        "input_tokens_per_s": taken,
        "output_tokens_per_s": given,
        "api_usd_per_m_input": offer.usd_per_m_input,
        "api_usd_per_m_output": offer.usd_per_m_output,
        "api_usd_per_m_cached_input": offer.usd_per_m_cached_input,
        "api_usd_per_m_blended": api.value / 3600 / (taken + given) / PER_M,
        **ends("break_even_utilization", _utilization(hour, api)),
        **ends("api_usd_per_hour", api),
        "break_even_utilization_cheapest": offered[0],
        "break_even_utilization_dearest": offered[1],
        "utilization": terms.paid_share,
        "cost_over_api": hour.effective_usd_per_hour / api.value,
        "redundant_replicas": terms.redundant_replicas,
        "tokens_per_month_first": first.tokens_per_month if first else None,
        "replicas_first": first.replicas if first else None,
        "tokens_per_month_settled": settled.tokens_per_month if settled else None,
        "replicas_settled": settled.replicas if settled else None,
        "date": offer.date,
        "source": offer.source,
        "run": found.facts["run"],
    }


def _month(hour: basis.Hourly, api_usd_per_hour: float, tokens_per_hour: float, terms: Terms) -> Month:
    work = hour.usd_per_hour - hour.idle_usd_per_hour
    return Month(
        usd=hour.idle_usd_per_hour * HOURS_PER_MONTH,
        tokens=tokens_per_hour * HOURS_PER_MONTH * terms.utilization,
        usd_per_token=(api_usd_per_hour - work) / tokens_per_hour,
        redundant=terms.redundant_replicas,
    )


def _utilization(hour: basis.Hourly, api: Estimate) -> Estimate | None:
    """The more is served an hour, the less of the hours it takes."""
    value, low, high = (
        None if end is None else share_at(hour, end) for end in (api.value, api.high, api.low)
    )
    return None if value is None else Estimate(value, low, high, api.n, api.over)
