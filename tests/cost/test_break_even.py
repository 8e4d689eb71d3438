from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler import catalog, consumption
from profiler.catalog import ApiOffer
from profiler.cost import basis, break_even, question, terms
from profiler.cost.break_even import Month
from profiler.errors import InputError
from tests.cost import load
from tests.cost.choices import asked, figures

R1 = ApiOffer(
    model="deepseek-r1",
    provider="DeepSeek",
    kind="list",
    per_m_input=0.55,
    per_m_output=2.19,
    per_m_cached_input=0.14,
    date="2025-02-27",
    source="api-docs.deepseek.com",
)


def offer(provider, per_m_input, per_m_output):
    return replace(
        R1, provider=provider, per_m_input=per_m_input, per_m_output=per_m_output, per_m_cached_input=None
    )


@pytest.fixture
def sold(monkeypatch):
    """What the catalog has: two providers of ``m``, one of R1."""
    held = {"m": (offer("dear", 2.0, 20.0), offer("cheap", 1.0, 10.0)), "deepseek-r1": (R1,)}
    monkeypatch.setattr(catalog, "api_offers", lambda model, rates, sheet=None: held.get(model, ()))
    return held


# ------------------------------------------------------------------------------- published examples


def test_the_day_that_deepseek_disclosed():
    """608 · 10⁹ input tokens, 56.3 % of them cached, and 168 · 10⁹ output tokens on 226.75 nodes of 16 USD an
    hour: 87,072 USD of cost, 562,027 USD of theoretical revenue at R1's prices, a margin of 545 %
    (deepseek-ai/open-infra-index, day 6)."""
    nodes, day_s = 226.75, 86400
    traffic = 608e9 / day_s, 168e9 / day_s
    revenue = 24 * break_even.usd_per_hour(R1, *traffic, cached_frac=0.563)
    assert revenue == pytest.approx(562_027, rel=2e-4)
    cost = nodes * 16 * 24
    assert cost == pytest.approx(87_072)
    assert (562_027 - cost) / cost == pytest.approx(5.45, abs=0.01)
    # A node was paid all day; it would have broken even with this share of the traffic.
    node = figures(gpus=8, input_tokens_per_s=traffic[0] / nodes, output_tokens_per_s=traffic[1] / nodes)
    hour = basis.hourly(node, terms.read(price="2"))
    api = break_even.usd_per_hour(R1, traffic[0] / nodes, traffic[1] / nodes, 0.563)
    assert break_even.share_at(hour, api) == pytest.approx(87_072 / 562_027, rel=2e-4)


def test_break_even_by_hand():
    """16 USD an hour against 3600 · (73,700 · (0.563 · 0.14 + 0.437 · 0.55) + 14,800 · 2.19) / 10⁶ = 201.37.
    (A node of that day did one or the other.)"""
    node = figures(gpus=8, input_tokens_per_s=73_700.0, output_tokens_per_s=14_800.0)
    api = break_even.usd_per_hour(R1, 73_700, 14_800, 0.563)
    assert api == pytest.approx(201.37, abs=0.01)
    assert break_even.share_at(basis.hourly(node, terms.read(price="2")), api) == pytest.approx(
        0.07946, abs=1e-5
    )


# ---------------------------------------------------------------------------------- the volume


def test_without_spare_replicas_the_volume_is_the_hours_over_the_blended_price():
    # 2 USD/h · 730 h / 1 USD per 10⁶ tokens = 1.46 · 10⁹ tokens, of the 5 · 10⁹ that a replica carries
    month = Month(usd=2 * 730, tokens=5e9, usd_per_token=1e-6)
    assert month.first() == (pytest.approx(1.46e9), 1)
    assert month.settled() == month.first()


def test_the_next_machine_may_lose_it_again():
    """A replica for 3000 USD carries what a provider takes 5000 for: beyond 5 · 10⁹ tokens a second is paid,
    6000 USD, and pays from 6 · 10⁹."""
    month = Month(usd=3000, tokens=5e9, usd_per_token=1e-6)
    assert month.first() == (pytest.approx(3e9), 1)
    assert month.settled() == (pytest.approx(6e9), 2)


@settings(deadline=None)
@given(st.floats(0.001, 3), st.integers(0, 4), st.floats(0.1, 10))
def test_crossings_are_those_of_a_scan(share, redundant, usd):
    """Step by step: the first that is no dearer where it ends, the last that is dearer where it begins."""
    month = Month(usd=usd, tokens=100.0, usd_per_token=usd / share / 100, redundant=redundant)
    first, settled = month.first(), month.settled()
    if share >= 1:
        assert settled is None
    if share > 1 or (share == 1 and redundant):
        assert first is None
    if share > 0.98:
        return  # hundreds of replicas: too long a scan

    def dearer(working, tokens):
        return (working + redundant) * usd > tokens * month.usd_per_token * (1 + 1e-9)

    steps = range(1, 400)
    assert first.replicas == redundant + next(n for n in steps if not dearer(n, n * 100))
    assert settled.replicas == redundant + max(n for n in steps if dearer(n, (n - 1) * 100))
    for each in (first, settled):
        assert each.tokens_per_month * month.usd_per_token == pytest.approx(each.replicas * usd)
        assert month.replicas(each.tokens_per_month * (1 - 1e-9)) == each.replicas


def test_a_replica_that_waits_for_nothing_pays_from_the_first_token():
    assert Month(usd=0.0, tokens=1.0, usd_per_token=1.0).first() == (0.0, 1)


def test_tokens_that_cost_more_to_make_than_to_buy_never_pay():
    month = Month(usd=1.0, tokens=10.0, usd_per_token=-0.1)
    assert (month.first(), month.settled()) == (None, None)


@settings(deadline=None)
@given(st.floats(0.01, 50), st.floats(0.01, 1), st.floats(0.05, 100))
def test_at_the_break_even_share_an_hour_of_work_costs_what_the_api_takes(usd, idle, api):
    hour = replace(
        basis.hourly(figures(), terms.read(price="1")), usd_per_hour=usd, idle_usd_per_hour=usd * idle
    )
    share = break_even.share_at(hour, api)
    if share is None:
        assert usd - usd * idle >= api  # work alone is dearer
    else:
        assert replace(hour, paid_share=share).effective_usd_per_hour == pytest.approx(api)


# ------------------------------------------------------------------------------------ of runs


def test_rows_of_each_provider_cheapest_first(sold):
    rows = break_even.rows(asked(figures(), price="3.6"))
    assert [(row["provider"], row["place"]) for row in rows] == [("cheap", "cheapest"), ("dear", "dearest")]
    cheap = rows[0]
    # 200 input and 100 output tokens/s: 3600 · (200 · 1 + 100 · 10) / 10⁶ = 4.32 USD an hour
    assert cheap["api_usd_per_hour"] == pytest.approx(4.32)
    assert cheap["break_even_utilization"] == pytest.approx(3.6 / 4.32)
    assert cheap["api_usd_per_m_blended"] == pytest.approx(4.0)
    assert cheap["tokens_per_month_first"] == pytest.approx(3.6 * 730 / 4.0 * 1e6)
    assert cheap["cost_over_api"] == pytest.approx(3.6 / 4.32)
    assert rows[1]["break_even_utilization"] == pytest.approx(3.6 / 8.64)


def test_utilisation_fills_replicas_but_does_not_move_the_break_even(sold):
    whole, part = (break_even.rows(asked(figures(), price="3.6", utilization=u))[0] for u in ("1", "0.9"))
    assert part["break_even_utilization"] == whole["break_even_utilization"]
    assert part["cost_over_api"] == pytest.approx(whole["cost_over_api"] / 0.9)
    assert part["tokens_per_month_settled"] > whole["tokens_per_month_settled"]
    # At less than the break-even utilisation no volume pays.
    lazy = break_even.rows(asked(figures(), price="3.6", utilization="0.5"))[0]
    assert lazy["tokens_per_month_first"] is None


def test_spare_replicas_are_paid_for(sold):
    row = break_even.rows(asked(figures(), price="1", words=["redundant_replicas=1"]))[0]
    assert row["replicas_first"] == 2
    assert row["tokens_per_month_first"] == pytest.approx(2 * 730 / 4.0 * 1e6)


def test_the_interval_is_of_both_rates_together(sold):
    both = figures(input_tokens_per_s=load.Estimate(200.0, 180.0, 220.0, 3, "repeats"))
    row = break_even.rows(asked(both, price="3.6"))[0]
    assert row["break_even_utilization_low"] == pytest.approx(3.6 / 4.32 / 1.1)
    assert row["break_even_utilization_high"] == pytest.approx(3.6 / 4.32 / 0.9)
    assert break_even.rows(asked(figures(), price="3.6"))[0]["break_even_utilization_low"] is None


def test_what_work_costs_beyond_waiting_is_paid_by_the_token(sold):
    """Power alone: 500 W at work, 100 W while it waits, at 0.10 USD/kWh."""
    found = figures(**{consumption.GROSS: 5.0, consumption.IDLE: 100.0})
    row = break_even.rows(asked(found, basis="electricity"))[0]
    volume = row["tokens_per_month_first"]
    hours_of_work = volume / (3600 * 300)
    self_hosted = 0.010 * (730 - hours_of_work) + 0.050 * hours_of_work
    assert self_hosted == pytest.approx(volume * row["api_usd_per_m_blended"] * 1e-6)
    assert row["break_even_utilization"] == pytest.approx(hours_of_work / 730)


def test_offers_of_the_hour_are_a_span_of_their_own(sold):
    price = load.Price(usd_per_hour=3.6, per="gpu", source="s", low_usd_per_hour=1.8, high_usd_per_hour=7.2)
    row = break_even.rows(asked(figures(price=price)))[0]
    assert row["break_even_utilization_cheapest"] == pytest.approx(1.8 / 4.32)
    assert row["break_even_utilization_dearest"] == pytest.approx(7.2 / 4.32)


def test_cached_input_is_at_its_price_where_the_cache_was_met(sold):
    met = figures(prefix_cache_hit_frac=0.5)
    row = break_even.rows(asked(met, price="1", api="deepseek-r1"))[0]
    assert row["cached_frac"] == 0.5
    assert row["api_usd_per_hour"] == pytest.approx(3600e-6 * (200 * (0.07 + 0.275) + 100 * 2.19))
    plain = break_even.rows(asked(met, price="1"))[0]  # its providers have no such price
    assert (plain["cached_frac"], plain["api_usd_per_hour"]) == (0.0, pytest.approx(4.32))


def test_what_has_no_row_says_why(sold):
    assert "no API in the price list" in next(break_even.missing(asked(figures(model="mine"), price="1")))
    assert "--price" in next(break_even.missing(asked(figures(gpu=None, gpus=0, price=None))))
    assert "lengths of prompts" in next(break_even.missing(asked(figures(input_tokens_per_s=None))))
    assert not list(break_even.missing(asked(figures())))


def test_an_unknown_api_model_is_an_error_with_the_nearest_name():
    """Whatever is shown, and also where a list price is the basis."""
    for name in ("rented", "api"):
        with pytest.raises(InputError, match=r"--api deepsek-r1: no provider .*did you mean 'deepseek-r1'"):
            question.asked([], terms.read(basis=name), slo={}, api="deepsek-r1", measured=[])
