from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler.cost import basis, owned, terms
from profiler.cost.basis import Hourly
from profiler.prices import Missing
from profiler.schema import Estimate
from tests.cost.load import figures

# 8 × H100 for 300,000 USD: the rest of the example is what is taken where nothing is said.
NODE = ("owned.node_price=300000", "owned.node_w=10200", "pue=1.25", "tariff_usd_per_kwh=0.10")


def hourly(found=None, *words, **options):
    return basis.hourly(found or figures(), terms.read([*NODE, *words], basis="owned", **options))


def test_a_node_of_eight_h100():
    """300 k USD over 4 years, 25 % residual, 8 % interest, 10.2 kW, PUE 1.25, 0.10 USD/kWh, 5 % operation."""
    node = owned.node(figures(), terms.read(NODE))
    each = owned.parts(node)
    # By hand: CRF = .08/(1 − 1.08⁻⁴) = .301921, SFF = .08/(1.08⁴ − 1) = .221921;
    # (300,000 × .301921 − 75,000 × .221921)/70,080 = 1.05496; 1.275/8 = .159375; 15,000/70,080 = .214041.
    assert each.capital == pytest.approx(1.05496, abs=1e-5)
    assert (each.power, each.hosting) == (pytest.approx(0.159375), 0)
    assert each.opex == pytest.approx(0.214041, abs=1e-6)
    assert each.total == pytest.approx(1.43, abs=0.005)


@pytest.mark.parametrize(("share", "usd"), [(1.0, 1.43), (0.6, 2.38), (0.3, 4.76)])
def test_a_gpu_hour_of_that_node_at_a_utilisation(share, usd):
    found = hourly(utilization=share)
    assert found.effective_usd_per_hour == pytest.approx(usd, abs=0.005)
    whole = hourly(figures(gpus=8), utilization=share)
    assert whole.effective_usd_per_hour == pytest.approx(8 * usd, abs=0.04)


def test_every_input_is_printed_with_whose_word_it_is():
    lines = "\n".join(hourly(None, "owned.hosting_per_kw_month=150", utilization="40%").lines)
    for words in (
        "300,000 USD a node (--terms)",
        "CRF 0.3019",
        "residual 25% (default)",
        "SFF 0.2219",
        "4 years (default) at 8.0% (default)",
        "10,200 W a node (--terms)",
        "PUE 1.25 (--terms)",
        "0.1 USD/kWh (--terms)",
        "5.0% of the price a year (default)",
        "150 USD per kW and month (--terms)",
        "owned: 1.690 USD per GPU-hour",
        "utilisation 0.4 (--utilization): 40.0% of the paid time works",
    ):
        assert words in lines, words


def test_hosting_is_per_kw_and_month():
    more = hourly(None, "owned.hosting_per_kw_month=150").usd_per_hour - hourly().usd_per_hour
    assert more == pytest.approx(150 * 10.2 / 730 / 8)


@given(st.floats(0, 1), st.floats(0.1, 40))
def test_recovery_is_sinking_fund_and_interest(rate, years):
    """CRF = SFF + r; and what was paid off is worth what it cost: CRF · Σ (1+r)^−k = 1 over whole years."""
    assert owned.crf(rate, years) == pytest.approx(owned.sff(rate, years) + rate)
    whole = round(years) or 1
    assert sum(owned.crf(rate, whole) / (1 + rate) ** k for k in range(1, whole + 1)) == pytest.approx(1)


@given(st.floats(0.5, 20))
def test_without_interest_a_price_is_spread_evenly(years):
    assert owned.crf(0, years) == owned.sff(0, years) == 1 / years
    for next_to_none in (5e-324, 1e-12, 1e-9):
        assert owned.crf(next_to_none, years) == pytest.approx(1 / years, rel=1e-6)
    assert owned.sff(1.0, 5000) == 0  # and no number is too large on the way


@given(st.floats(1, 1e7), st.floats(0.01, 100), st.floats(0, 0.99), st.floats(0, 0.5), st.floats(0.5, 15))
def test_linear_in_the_price_of_the_node(price, times, residual, interest, years):
    own = replace(
        terms.read(NODE).owned, residual_frac=residual, interest_frac=interest, life_years=years, node_w=1e-9
    )
    asked = replace(terms.read(NODE), owned=replace(own, node_price=price))
    dearer = replace(asked, owned=replace(own, node_price=price * times))
    one, other = (owned.parts(owned.node(figures(), each)).total for each in (asked, dearer))
    assert other == pytest.approx(times * one)
    assert one >= price * (1 - residual) / years / 8760 / 8 * (1 - 1e-9)  # interest only adds


# -------------------------------------------------------------------------------------------- inputs


def test_measured_power_is_taken_and_named():
    found = figures(gpus=2, power_w_mean=1200.0, power_idle_w=150.0)
    asked = terms.read(["owned.node_price=300000", "pue=1.25"], basis="owned", utilization=0.5)
    node = owned.node(found, asked)
    assert (node.power.work_w, node.power.idle_w) == (4800, 600)
    assert node.power.words == "measured: gpu alone, 600 W each, 75 W idle"
    paid = basis.hourly(found, asked)
    each = owned.parts(node)
    # An hour of work is paid with an hour of waiting, in which only the power is another.
    assert paid.effective_usd_per_hour == pytest.approx(2 * (each.total + each.idle_total))
    assert each.power - each.idle_power == pytest.approx((600 - 75) * 1.25 * 0.1 / 1000)
    assert paid.effective_usd_per_hour < 2 * each.total / 0.5


def test_without_idle_power_waiting_costs_what_work_does():
    found = figures(power_w_mean=600.0)
    paid = basis.hourly(found, terms.read(["owned.node_price=300000"], basis="owned", utilization=0.25))
    assert paid.effective_usd_per_hour == pytest.approx(paid.usd_per_hour / 0.25)
    assert any("idle power is not known" in line for line in paid.lines)
    assert any("without the building (no PUE given)" in line for line in paid.lines)


def test_the_users_word_of_the_node_stands_over_the_boards():
    assert owned.node(figures(power_w_mean=600.0), terms.read(NODE)).power.work_w == 10200


def test_without_a_measurement_the_data_sheet_and_said_so():
    node = owned.node(figures(), terms.read(["owned.node_price=300000"]))
    assert node.power.work_w == 8 * 700
    assert node.power.words == "data sheet: TDP of the boards alone, 700 W each"


def test_the_runs_own_pue_where_none_is_given():
    found = figures(power_w_mean=600.0)
    found = replace(found, facts=found.facts | {"pue": 1.5})
    assert owned.node(found, terms.read(["owned.node_price=1"])).pue == 1.5
    assert owned.node(found, terms.read(["owned.node_price=1"], pue=1.1)).pue == 1.1
    paid = basis.hourly(found, terms.read(["owned.node_price=1"], basis="owned"))
    assert any("PUE 1.5 (the run's)" in line for line in paid.lines)


def test_the_catalogs_price_of_a_node_and_what_it_spans():
    found = basis.hourly(figures(), terms.read(["owned.node_w=10200"], basis="owned"))
    assert isinstance(found, Hourly)
    assert found.low_usd_per_hour < found.usd_per_hour < found.high_usd_per_hour
    assert "catalog: " in found.price.source
    assert "2023-05" in found.price.source
    node = owned.node(figures(), terms.read(["owned.node_w=10200"]))
    assert (node.bought.low_usd, node.bought.high_usd) == (268_800, 300_000)
    assert node.bought.usd == (268_800 + 300_000) / 2


def test_a_card_alone_is_no_node_and_says_so():
    node = owned.node(figures(gpu="NVIDIA A10"), terms.read(["owned.node_w=1000"]))
    assert node.bought.words.endswith("without a server")


@pytest.mark.parametrize(
    ("found", "words", "how"),
    [
        (figures(gpu="NVIDIA L4"), ("owned.node_w=300",), "--terms owned.node_price=USD"),
        (figures(gpu="NVIDIA H100 80GB HBM3 (simulated)"), (), "--terms owned.node_price=USD"),
        (figures(gpu=None, gpus=0), (), "--terms owned.node_price=USD"),
        (figures(gpu=None, gpus=0), ("owned.node_price=5000",), "--terms owned.node_w="),
        (figures(gpu="Unheard Of 9000"), ("owned.node_price=5000",), "--terms owned.node_w="),
        (figures(gpus=0), NODE, "number of GPUs"),
    ],
)
def test_what_is_missing_says_how_to_give_it(found, words, how):
    missing = basis.hourly(found, terms.read(words, basis="owned"))
    assert isinstance(missing, Missing)
    assert how in missing.reason


def test_a_machine_without_gpu_is_a_node_of_its_own():
    found = figures(gpu=None, gpus=0, power_w_mean=Estimate(100.0))
    paid = basis.hourly(found, terms.read(["owned.node_price=8760", "owned.interest_frac=0"], basis="owned"))
    # 8760 USD: 75 % of them over 4 years, 5 % a year for operation, 0.1 kW at 0.10 USD.
    assert paid.usd_per_hour == pytest.approx(0.75 / 4 + 0.05 + 0.01)
    assert paid.price.per == "machine"
