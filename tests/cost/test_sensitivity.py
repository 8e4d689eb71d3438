from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler import consumption, cost
from profiler.cost import sensitivity, terms
from profiler.cost.at_slo import COST
from tests.cost.choices import asked, figures, rate
from tests.cost.load import Price

POWERED = {consumption.GROSS: 5.0, consumption.IDLE: 100.0}
OWNED = ["owned.node_price=300000", "owned.node_w=10200"]


def of(found=None, words=(), **on):
    return {row["input"]: row for row in sensitivity.of(found or figures(), None, terms.read(words, **on))}


def test_only_what_matters_on_the_basis_is_listed():
    assert set(of()) == {"utilisation", "tokens/s out"}
    assert set(of(figures(start_s=120.0, price=None), price="2", basis="spot")) == {
        *("utilisation", "tokens/s out", "preemptions/h"),
    }
    owned = of(figures(**POWERED), OWNED, basis="owned")
    assert set(owned) >= {"utilisation", "tokens/s out", "PUE", "tariff, USD/kWh"}
    assert set(owned) >= {"life, years", "interest", "residual value"}
    assert "preemptions/h" not in owned
    powered = of(figures(**POWERED), basis="electricity")
    assert set(powered) >= {"PUE", "tariff, USD/kWh", "utilisation"}
    assert "tokens/s out" not in powered
    assert not set(powered) & {"life, years", "interest", "residual value", "preemptions/h"}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("utilisation", lambda on, x: replace(on, utilization=x)),
        ("PUE", lambda on, x: replace(on, pue=x)),
        ("tariff, USD/kWh", lambda on, x: replace(on, tariff_usd_per_kwh=x)),
        ("life, years", lambda on, x: replace(on, owned=replace(on.owned, life_years=x))),
        ("interest", lambda on, x: replace(on, owned=replace(on.owned, interest_frac=x))),
        ("residual value", lambda on, x: replace(on, owned=replace(on.owned, residual_frac=x))),
    ],
)
def test_each_end_is_the_cost_on_those_terms(name, change):
    found, on = figures(**POWERED), terms.read(OWNED, basis="owned", utilization="0.5", pue="1.3")
    row = next(row for row in sensitivity.of(found, None, on) if row["input"] == name)

    def usd(changed):
        return cost.columns(found, None, changed).estimates[COST].value

    assert row["usd_at_low"] == pytest.approx(usd(change(on, row["low"])))
    assert row["usd_at_high"] == pytest.approx(usd(change(on, row["high"])))
    assert row[COST] == pytest.approx(usd(on))
    assert row["swing_frac"] == pytest.approx(abs(row["usd_at_high"] - row["usd_at_low"]) / usd(on))
    assert usd(change(on, row["base"])) == pytest.approx(usd(on))


def test_offers_and_the_measured_rate_bring_their_own_ends():
    price = Price(usd_per_hour=3.6, per="gpu", source="s", low_usd_per_hour=1.8, high_usd_per_hour=7.2)
    found = of(figures(price=price, output_tokens_per_s=rate(100.0, 0.1)))
    row = found["price, USD/h"]
    assert (row["low"], row["base"], row["high"]) == pytest.approx((1.8, 3.6, 7.2))
    assert (row["usd_at_low"], row[COST], row["usd_at_high"]) == pytest.approx((5.0, 10.0, 20.0))
    assert row["swing_frac"] == pytest.approx(1.5)
    measured = found["tokens/s out"]
    assert (measured["low"], measured["high"]) == pytest.approx((90, 110))
    assert (measured["usd_at_low"], measured["usd_at_high"]) == pytest.approx((10 / 0.9, 10 / 1.1))
    assert list(found) == ["utilisation", "price, USD/h", "tokens/s out"]  # the widest swing first


def test_a_bill_for_power_rests_on_measured_energy():
    row = of(figures(**{consumption.GROSS: rate(5.0, 0.1)}), basis="electricity")["J/token"]
    assert (row["low"], row["base"], row["high"]) == pytest.approx((4.5, 5.0, 5.5))
    assert row["usd_at_low"] == pytest.approx(0.9 * row[COST])
    assert row["usd_at_high"] == pytest.approx(1.1 * row[COST])


def test_a_rate_without_an_interval_is_left_out():
    assert set(of(figures(output_tokens_per_s=100.0))) == {"utilisation"}


def test_a_load_profile_gives_way_to_a_utilisation():
    on = replace(terms.read(), utilization=0.5, load_profile=(1.0, 0.5) * 12)
    changed = sensitivity.INPUTS[0].at(on, 0.2)
    assert (changed.utilization, changed.load_profile) == (0.2, ())


@settings(deadline=None)
@given(st.sampled_from(["rented", "owned", "electricity"]), st.floats(0.05, 1))
def test_sorted_by_swing_and_every_row_whole(basis, share):
    rows = sensitivity.of(figures(**POWERED), None, terms.read(OWNED, basis=basis, utilization=share))
    swings = [row["swing_frac"] for row in rows]
    assert swings == sorted(swings, reverse=True)
    assert all(row["reason"] for row in rows)
    assert all(row.keys() == set(sensitivity.COLUMNS) for row in rows)


def test_no_cost_no_row():
    assert of(figures(price=None, gpu="Unheard Of 9000")) == {}


def test_at_each_utilisation():
    (found,) = sensitivity.at_utilizations(asked(figures()))
    assert found == ("m", [(share, pytest.approx(10 / share)) for share in (0.2, 0.4, 0.7, 1.0)])
    none = sensitivity.at_utilizations(asked(figures(**{consumption.GROSS: 5.0}), basis="electricity"))
    assert none == []  # nothing is paid while it waits, as far as was measured


def test_rows_say_at_which_load():
    (row, *_) = sensitivity.rows(asked(figures(concurrency=8)))
    assert row["at"] == "chat at 8, the highest load measured"
