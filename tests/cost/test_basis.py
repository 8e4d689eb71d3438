from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler.cost import basis, terms
from profiler.cost.terms import Spot, Terms
from profiler.errors import InputError
from profiler.prices import Missing
from profiler.schema import Price
from tests.cost.load import GPU_HOUR, figures


def hourly(found=None, *words, **options):
    return basis.hourly(found or figures(), terms.read(words, **options))


def test_what_the_run_was_made_with_else_the_catalog():
    own = hourly(figures(gpus=4))
    assert (own.usd_per_hour, own.effective_usd_per_hour) == (14.4, 14.4)
    listed = hourly(figures(gpus=4, price=None))
    assert listed.price.source.startswith("catalog: H100 SXM5 80GB")
    assert listed.low_usd_per_hour == 4 * listed.price.low_usd_per_hour < listed.usd_per_hour
    assert hourly(figures(gpus=4), price="2.5").usd_per_hour == 10


def test_utilisation_divides_and_is_said():
    found = hourly(utilization="40%")
    assert found.usd_per_hour == 3.6
    assert found.effective_usd_per_hour == pytest.approx(9.0)
    assert found.effective_usd_per_s == pytest.approx(9.0 / 3600)
    assert found.lines[-1] == "utilisation 0.4 (--utilization): 40.0% of the paid time works"
    assert hourly().lines[-1] == "at 100 % utilisation (default), which no service has"
    spare = hourly(None, "replicas=3", "redundant_replicas=1", utilization=0.8)
    assert spare.effective_usd_per_hour == pytest.approx(3.6 / 0.6)
    assert "3 of 4 replicas carry the load: 60.0%" in spare.lines[-1]
    day = hourly(None, f"load_profile={[1] * 12 + [3] * 12}")
    assert "mean over peak of the load profile" in day.lines[-1]


def test_the_price_line_says_whose_word_it_is():
    assert hourly().lines[0] == "rented: 3.6 USD per gpu-hour, test"
    assert "offers " in hourly(figures(price=None)).lines[0]


def test_a_spot_machine_is_restarted():
    # 0.5 USD/h, taken away once in ten hours, 360 s until it answers again: a hundredth more.
    found = hourly(figures(start_s=360.0), "spot.preemptions_per_hour=0.1", basis="spot", price="0.5")
    assert found.usd_per_hour == pytest.approx(0.505)
    assert found.lines[1] == (
        "spot: × (1 + 0.1 preemptions an hour (--terms) × 360 s a restart "
        "(the engine's start as measured; without finding a machine)) = 0.505 USD"
    )
    longer = hourly(figures(start_s=360.0), "spot.restart_s=3600", basis="spot", price="0.5")
    assert longer.usd_per_hour == pytest.approx(0.5 * 1.05)
    unknown = hourly(figures(), basis="spot", price="0.5")
    assert isinstance(unknown, Missing)
    assert "spot.restart_s" in unknown.reason


@given(st.floats(0.01, 100), st.floats(0, 10), st.floats(0.1, 1e5))
def test_spot_is_never_below_its_price(price, preemptions, restart_s):
    asked = Terms(
        basis="spot", price=str(price), spot=Spot(preemptions_per_hour=preemptions, restart_s=restart_s)
    )
    found = basis.hourly(figures(), asked)
    assert found.usd_per_hour >= price
    calm = replace(asked, spot=Spot(preemptions_per_hour=0, restart_s=restart_s))
    assert basis.hourly(figures(), calm).usd_per_hour == pytest.approx(price)


def test_a_basis_never_takes_the_price_of_another():
    """The run's own price is one on demand; the catalog's offers are taken by their terms."""
    spot, reserved = (hourly(figures(start_s=1.0), basis=each) for each in ("spot", "reserved"))
    assert spot.price.usd_per_hour != GPU_HOUR.usd_per_hour != reserved.price.usd_per_hour
    assert spot.price.kind != reserved.price.kind
    assert spot.price.source != reserved.price.source


def test_offers_scale_with_the_engine_and_the_restarts():
    offers = Price(usd_per_hour=2, per="gpu", source="s", low_usd_per_hour=1, high_usd_per_hour=4)
    found = hourly(figures(gpus=8, price=offers))
    assert (found.low_usd_per_hour, found.usd_per_hour, found.high_usd_per_hour) == (8, 16, 32)


@pytest.mark.parametrize("kind", ["rented", "spot", "reserved"])
@pytest.mark.parametrize("gpu", [None, "Unheard Of 9000", "NVIDIA H100 80GB HBM3 (simulated)"])
def test_no_price_says_how_to_give_one(gpu, kind):
    found = hourly(figures(gpu=gpu, price=None, start_s=1.0), basis=kind)
    assert isinstance(found, Missing)
    assert "--price" in found.reason
    given_ = hourly(figures(gpu=gpu, gpus=1, price=None, start_s=1.0), basis=kind, price="2.5")
    assert given_.usd_per_hour >= 2.5


def test_a_sheet_that_is_wrong_is_an_error(tmp_path):
    sheet = tmp_path / "prices.toml"
    sheet.write_text('[[price]]\ngpu="H100"\nusd_per_hour=2.5\nsource="s"\n')
    with pytest.raises(InputError, match=r"prices\.toml.*date"):
        hourly(price=sheet)


def test_the_runs_own_price_says_on_what_terms_it_is():
    year = Price(usd_per_hour=2, per="gpu", source="my contract", kind="reserved")
    assert basis.words(hourly(figures(price=year)).price) == "per gpu-hour, reserved, my contract"
    told = replace(year, source="1 reserved offer")
    assert basis.words(told) == "per gpu-hour, 1 reserved offer"


@pytest.mark.parametrize("kind", ["owned", "electricity"])
def test_a_price_that_has_no_part_is_told(kind):
    found = figures(energy_j_per_output_token=10.0)
    words = "the price 2 (--price) has no part in it"
    assert words in hourly(found, "owned.node_price=9", basis=kind, price="2").lines
    assert words not in hourly(found, "owned.node_price=9", basis=kind).lines


def test_an_api_has_no_hour():
    assert "by the token" in hourly(basis="api").reason


# --------------------------------------------------------------------------------------- electricity


def test_electricity_is_the_power_that_was_measured():
    # 10 J/token at 100 tokens/s is 1 kW; with a PUE of 1.2 at 0.25 USD/kWh, 0.30 USD an hour.
    found = figures(energy_j_per_output_token=10.0)
    paid = hourly(found, "tariff_usd_per_kwh=0.25", "pue=1.2", basis="electricity")
    assert paid.usd_per_hour == pytest.approx(0.30)
    assert paid.price.per == "machine"
    assert "1000 W measured (gpu × PUE 1.2) at 0.25 USD/kWh (--terms)" in paid.lines[0]


def test_electricity_while_it_waits_is_idle_power():
    found = figures(energy_j_per_output_token=10.0, power_idle_w=100.0)
    paid = hourly(found, basis="electricity", utilization=0.5)
    assert paid.effective_usd_per_hour == pytest.approx((1000 + 100) * 0.1 / 1000)
    unknown = hourly(figures(energy_j_per_output_token=10.0), basis="electricity", utilization=0.5)
    assert unknown.effective_usd_per_hour == pytest.approx(0.1)
    assert any("idle time is left out" in line for line in unknown.lines)


def test_no_energy_no_electricity():
    found = hourly(basis="electricity")
    assert isinstance(found, Missing)
    assert "no energy was measured" in found.reason


@pytest.mark.parametrize(
    "words", [{"price": "1e308"}, {"price": "1e-320"}, {"price": "1", "utilization": 1e-300}]
)
def test_an_hour_that_nobody_pays_is_an_error(words):
    """What is made of it would overflow, or be 0."""
    with pytest.raises(InputError, match="an hour of work comes to"):
        basis.hourly(figures(), terms.read(**words))
