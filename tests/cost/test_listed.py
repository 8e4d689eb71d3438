from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.cost import listed, terms
from profiler.cost.listed import ListPrices, TokenPrice
from profiler.prices import Missing


def offer(provider, usd_in, usd_out):
    return TokenPrice(input=usd_in, output=usd_out, cached=None, provider=provider, date="2026-01-01")


def test_the_middle_offer_depends_on_what_is_asked_for():
    found = ListPrices((offer("a", 1, 1), offer("b", 0.1, 9), offer("c", 0.5, 3)))
    assert [each.provider for each in found.ranked(1, 1)] == ["c", "a", "b"]
    assert [each.provider for each in found.ranked(100, 1)] == ["c", "b", "a"]
    two = ListPrices((offer("a", 1, 1), offer("b", 2, 2)))
    assert [each.provider for each in two.ranked(1, 1)] == ["b", "a", "b"]


@given(st.lists(st.tuples(st.floats(0.01, 99), st.floats(0.01, 99)), min_size=1), st.floats(0, 99))
def test_no_price_is_a_mixture(pairs, prompt):
    found = ListPrices(tuple(offer(str(n), *each) for n, each in enumerate(pairs)))
    middle, low, high = found.ranked(prompt, 1)
    assert low.of(prompt, 1) <= middle.of(prompt, 1) <= high.of(prompt, 1)
    assert {middle, low, high} <= set(found.offers)


def test_the_line_names_the_providers():
    found = ListPrices((offer("a", 1, 1), offer("b", 0.1, 9), offer("c", 0.5, 3)))
    assert listed.lines(found, 1, 1) == (
        "api: list price of c, 2026-01-01: 0.5 USD per 10⁶ input tokens, 3 per 10⁶ output tokens; "
        "a is the cheapest and b the dearest of 3",
    )


def test_the_catalogs_models():
    found = listed.prices("Qwen/Qwen3-30B-A3B", terms.read())
    assert len(found.offers) > 1
    assert all(each.input > 0 and each.output > 0 and each.date for each in found.offers)
    nobody = listed.prices("tiny-moe", terms.read())
    assert isinstance(nobody, Missing)
    assert "tiny-moe" in nobody.reason


@pytest.mark.parametrize("rate", [0.14, 0.28])
def test_another_currency_counts_at_the_users_rate(rate):
    dollars = {each.provider for each in listed.prices("Qwen/Qwen3-32B", terms.read()).offers}
    every = listed.prices("Qwen/Qwen3-32B", terms.read([f"rates.CNY={rate}"])).offers
    added = [each for each in every if each.provider not in dollars]
    assert added
    for each in added:
        assert each.input / rate == pytest.approx(
            next(
                other.input
                for other in listed.prices("Qwen/Qwen3-32B", terms.read(["rates.CNY=1"])).offers
                if other.provider == each.provider
            )
        )
