"""What an API asks for a model's tokens: the catalog's list prices, as an interval over providers."""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct

from profiler import catalog
from profiler.cost.terms import Terms
from profiler.errors import InputError, nearest
from profiler.prices import Missing


class TokenPrice(Struct, frozen=True, kw_only=True):
    """USD per 10⁶ tokens of each kind, as one provider asks them; cached None: it does not say, and a cached
    token costs what any input does."""

    input: float
    output: float
    cached: float | None
    provider: str
    date: str

    def of(self, inputs: float, outputs: float) -> float:
        """What so many tokens cost, in 10⁻⁶ USD."""
        return self.input * inputs + self.output * outputs


class ListPrices(Struct, frozen=True):
    """All providers of a model."""

    offers: tuple[TokenPrice, ...]

    def ranked(self, inputs: float, outputs: float) -> tuple[TokenPrice, TokenPrice, TokenPrice]:
        """The middle provider (of two, the dearer), the cheapest and the dearest for so many tokens: each one
        is an offer that can be taken, no mixture of several."""
        some = sorted(self.offers, key=lambda offer: offer.of(inputs, outputs))
        return some[len(some) // 2], some[0], some[-1]


def prices(model: str, terms: Terms) -> ListPrices | Missing:
    """Of all providers that list the model, in the user's own sheet or else in the catalog."""
    return _prices(model, tuple(sorted(terms.rates.items())), terms.api_prices)


@lru_cache(maxsize=256)
def _prices(model: str, rates: tuple[tuple[str, float], ...], sheet: str | None) -> ListPrices | Missing:
    offers = tuple(
        TokenPrice(
            input=each.usd_per_m_input,
            output=each.usd_per_m_output,
            cached=each.usd_per_m_cached_input,
            provider=each.provider,
            date=each.date,
        )
        for each in catalog.api_offers(model, dict(rates), sheet=sheet)
    )
    if not offers:
        return Missing(
            f"the catalog has no API price for {model} (profile list api-prices);"
            " give a sheet of yours: --terms api_prices=FILE"
        )
    return ListPrices(offers)


def named(model: str, terms: Terms) -> None:
    """Raises InputError for a model that no price list has, the user's own or the catalog's."""
    if isinstance(prices(model, terms), Missing):
        known = {each.model for each in catalog.api_prices()}
        raise InputError(f"--api {model}: no provider in the price list sells it{nearest(model, known)}")


def lines(found: ListPrices, inputs: float, outputs: float) -> tuple[str, ...]:
    """Which offers were taken, and whose they are."""
    middle, low, high = found.ranked(inputs, outputs)
    span = f"; {low.provider} is the cheapest and {high.provider} the dearest of {len(found.offers)}"
    return (
        f"api: list price of {middle.provider}, {middle.date}: {middle.input:g} USD per 10⁶ input tokens, "
        f"{middle.output:g} per 10⁶ output tokens{span if len(found.offers) > 1 else ''}",
    )
