"""What ``profile cost`` says of the load within a promise, APIs, flips and sensitivities, in words."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from profiler import catalog, consumption
from profiler.catalog import ApiOffer
from profiler.report import decisions, sections
from profiler.report.decisions import VIEWS
from tests.cost.choices import TTFT, asked, choice, figures, rate
from tests.cost.load import Price

OFFER = ApiOffer(
    model="m",
    provider="P",
    kind="list",
    per_m_input=1.0,
    per_m_output=10.0,
    per_m_cached_input=None,
    date="2026-01-31",
    source="a page",
)


@pytest.fixture(autouse=True)
def _sold(monkeypatch):
    dear = replace(OFFER, provider="Q", per_m_output=90.0)
    held = {"m": (OFFER, dear), "dense": (OFFER,)}
    monkeypatch.setattr(catalog, "api_offers", lambda model, rates, sheet: held.get(model, ()))


def text(name, question):
    return sections.markdown(sections.answer({name: VIEWS[name]}, question))


def two(a=100.0, b=50.0, **more):
    return [
        choice([figures("moe", kind="moe", output_tokens_per_s=rate(a), **more)]),
        choice([figures("dense", output_tokens_per_s=rate(b), **more)]),
    ]


def test_every_view_has_columns_that_its_rows_have():
    question = asked(*two(), choice([figures("m")], 1, (TTFT,)), price="3.6")
    for name, view in VIEWS.items():
        rows = view.find(question)
        assert rows, name
        assert all(set(row) == set(view.columns) for row in rows), name
        assert {each.column for each in view.shown} | set(view.groups) <= set(view.columns), name


def test_no_promise_says_how_to_give_one():
    said = text("at-slo", asked(figures()))
    assert "no latency promise" in said
    assert "--slo-ttft-p99 500ms" in said
    assert "|" not in said


def test_the_promise_and_what_is_relative_to_what():
    held = [
        choice([figures(name, output_tokens_per_s=rate(x))], 1, (TTFT,))
        for name, x in (("a", 100), ("b", 50))
    ]
    said = text("at-slo", asked(*held, utilization="0.4"))
    assert "promise: TTFT p99 ≤ 500 ms" in said
    assert "2.00 (1.94–2.06)" in said
    assert "rented, 40 % of the paid time works" in said


def test_a_model_that_keeps_no_promise_has_no_cost():
    broken = choice([figures("a", 8)], best=1, limits=(TTFT,))
    said = text("at-slo", asked(broken))
    assert "no measured load keeps the promise; nearest is 8: TTFT p99" in said
    assert "| a |" in said
    assert "10.0" not in said


def test_providers_and_what_is_not_counted():
    said = text("break-even", asked(figures(), price="3.6"))
    assert "m: over 2 providers even at 10.9% to 83.3%, median 47.1%" in said
    assert "API price of 2026-01-31" in said
    assert "a page" in said
    assert "not counted: staff" in said
    assert "never" not in said
    assert "another model" not in said


def test_never_by_how_much():
    said = text("break-even", asked(figures(), price="8.64"))
    assert "m never breaks even with P: at full use it still costs 2.00 × as much" in said
    assert "| 2: never |" in said


def test_another_model_is_named():
    said = text("break-even", asked(figures("mine"), price="1", api="dense"))
    assert "mine is set against another model, m: quality is not matched" in said


def test_who_is_not_sold_anywhere():
    assert "mine: no API in the price list sells it; set it against one with --api MODEL" in text(
        "break-even", asked(figures("mine"), price="1")
    )


def test_power_alone_pays_at_any_volume():
    said = text("break-even", asked(figures(**{consumption.GROSS: 5.0}), basis="electricity"))
    assert "| at any |" in said
    assert "waiting costs nothing on this basis" in said


def test_flips_in_words():
    said = text("flips", asked(*two(), price="3.6"))
    assert "| moe | dense | 1 | 0.500 (0.486–0.514) | A |" in said
    assert "2.00 (1.94–2.06)" in said  # the price ratio
    assert "A 50.0%" in said
    assert "fewer than two loads in common" in said
    assert "electricity tariff n/a" in said


def test_a_tariff_that_turns_nothing():
    powered = {consumption.GROSS: 5.0}
    said = text("flips", asked(*two(**powered), basis="electricity"))
    assert "| never: " in said


def test_unlike_machines_are_named():
    held = [choice([figures("moe", kind="moe", gpus=2)]), choice([figures("dense")])]
    said = text("flips", asked(*held))
    assert "not on equal machines: moe on 2 × NVIDIA H100" in said
    assert "not on equal machines" not in text("flips", asked(*two()))


def test_one_model_alone():
    assert "nothing to set it against" in text("flips", asked(figures()))


@pytest.mark.parametrize(
    ("b", "words"),
    [
        (50.0, "moe is the cheaper at every load from 1 to 8"),
        (99.9, "do not cross from 1 to 8, which decides nothing"),
    ],
)
def test_no_crossing_in_words(b, words):
    held = [
        choice([figures(name, at, kind, output_tokens_per_s=rate(x)) for at in (1, 8)])
        for name, kind, x in (("moe", "moe", 100.0), ("dense", "dense", b))
    ]
    assert words in text("flips", asked(*held, price="1"))


def test_sensitivity_in_words():
    price = Price(usd_per_hour=3.6, per="gpu", source="s", low_usd_per_hour=1.8, high_usd_per_hour=7.2)
    said = text("sensitivity", asked(figures(price=price)))
    assert "| m | price, USD/h | 1.80 | 3.60 | 7.20 | 5.00 | 10.0 | 20.0 | 150% |" in said
    assert "50.0 at 20%, 25.0 at 40%, 14.3 at 70%, 10.0 at 100%" in said
    assert "the price is one number" not in said
    assert "the price is one number" in text("sensitivity", asked(figures()))


def test_without_a_price_it_says_how_to_give_one():
    said = text("sensitivity", asked(figures(price=None, gpu="Unheard Of 9000")))
    assert "--price" in said


@pytest.mark.parametrize(
    ("count", "words"), [(0.5, "0.500"), (1460.0, "1.46 k"), (1.46e9, "1.46 B"), (2e13, "20.0 T")]
)
def test_volumes(count, words):
    assert decisions.tokens(count) == words
