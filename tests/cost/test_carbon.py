"""Energy at the meter, what it costs and what it emits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler import catalog, cost
from profiler.cost import carbon, electricity, terms
from profiler.errors import InputError
from profiler.schema import Estimate
from tests.cost.load import figures

GROSS, HOST = "energy_j_per_output_token", "energy_host_j_per_output_token"
EMITTED, POWER = "gco2e_per_m_output_tokens", "electricity_usd_per_m_output_tokens"


def columns(found, *words, **options):
    return cost.columns(found, None, terms.read(words, **options))


def test_grams_by_hand():
    # 0.36 J/token are 0.1 kWh per million; × 1.25 × 400 g are 50 g; × 1.25 × 0.10 USD are 0.0125 USD.
    found = columns(figures(**{GROSS: Estimate(0.36, 0.18, 0.72, 3, "repeats")}), grid="400", pue="1.25")
    emitted, paid = found.estimates[EMITTED], found.estimates[POWER]
    assert (emitted.low, emitted.value, emitted.high) == tuple(map(pytest.approx, (25, 50, 100)))
    assert (emitted.n, emitted.over) == (3, "repeats")
    assert paid.value == pytest.approx(0.0125)
    assert found.facts["electricity_boundary"] == "gpu × PUE 1.25"


def test_only_measured_energy_emits_and_only_in_a_grid():
    without = columns(figures(), grid="400")
    assert EMITTED not in without.estimates
    assert without.notes == (f"gCO2e n/a: {electricity.NOT_MEASURED}",)
    found = columns(figures(**{GROSS: 0.36}))
    assert EMITTED not in found.estimates
    assert POWER in found.estimates
    assert found.facts["electricity_boundary"] == "gpu"
    assert columns(figures(), grid="400").facts["electricity_boundary"] is None


def test_the_widest_boundary_that_was_measured():
    both = figures(**{GROSS: 0.36, HOST: 0.72})
    found = columns(both, grid="400")
    assert found.estimates[EMITTED].value == pytest.approx(80)
    assert found.facts["electricity_boundary"] == "host"
    own = replace(both, facts=both.facts | {"pue": 1.5})
    assert columns(own, grid="400").estimates[EMITTED].value == pytest.approx(120)
    assert columns(own, grid="400").facts["electricity_boundary"] == "host × PUE 1.5"
    assert columns(own, grid="400", pue="1").facts["electricity_boundary"] == "host × PUE 1"


@given(st.floats(0.01, 100), st.floats(1, 900), st.floats(0.05, 1))
def test_a_token_carries_the_time_that_stands_idle(j_per_token, idle_w, share):
    found = figures(**{GROSS: j_per_token, "power_idle_w": idle_w})
    whole, thin = (
        columns(found, grid="400", utilization=each).estimates[EMITTED].value for each in (1.0, share)
    )
    # In an hour: 3600·u·100 tokens, and 3600·(1 − u) seconds of idle power.
    joules = j_per_token + (1 - share) * idle_w / (share * 100)
    assert thin / whole == pytest.approx(joules / j_per_token)


def test_idle_time_that_was_not_measured_is_said_to_be_missing():
    found = columns(figures(**{GROSS: 0.36}), grid="400", utilization=0.5)
    assert found.estimates[EMITTED].value == pytest.approx(40)
    assert "energy of the idle time is left out: idle power was not measured" in found.notes
    assert found.facts["electricity_boundary"] == "gpu, idle time left out"
    told = columns(figures(**{GROSS: 0.36}), utilization=0.5, pue="1.2").facts["electricity_boundary"]
    assert told == "gpu × PUE 1.2, idle time left out"
    said = columns(figures(**{GROSS: 0.36}), grid="400").notes
    assert said == ("400 gCO2e/kWh, given; energy of: gpu", electricity.NO_PUE)
    assert not columns(figures(**{GROSS: 0.36}), utilization=0.5).notes  # nobody asked for either


@given(st.floats(1e-3, 1e3), st.floats(1, 2), st.floats(0, 1500))
def test_units_go_there_and_back(j_per_token, pue, g_per_kwh):
    found = columns(figures(**{GROSS: j_per_token}), grid=repr(g_per_kwh), pue=repr(pue))
    grams = found.estimates[EMITTED].value / 1e6
    assert grams == pytest.approx(j_per_token * pue / 3.6e6 * g_per_kwh)
    kwh = found.estimates[POWER].value / 0.10 / 1e6
    assert kwh * 3.6e6 == pytest.approx(j_per_token * pue)


def test_the_electricity_basis_is_the_electricity_column():
    found = figures(**{GROSS: Estimate(0.36, 0.30, 0.40, 3, "repeats"), "power_idle_w": 10.0})
    paid = columns(found, basis="electricity", utilization=0.5)
    assert paid.estimates["usd_per_m_output_tokens"] == paid.estimates[POWER]
    per_request = paid.estimates["usd_per_request"].value
    assert per_request == pytest.approx(paid.estimates[POWER].value * 50 / 1e6)


def test_a_grid_by_name():
    first = catalog.grids()[0]
    found = carbon.intensity(terms.read(grid=first.name))
    assert found.g_per_kwh == first.g_co2e_per_kwh
    assert first.name in found.words
    assert first.source in found.words
    assert carbon.intensity(terms.read(grid="55.5")) == (55.5, "55.5 gCO2e/kWh, given")
    assert carbon.intensity(terms.read()) is None
    with pytest.raises(InputError, match="Narnia"):
        terms.read(grid="Narnia")


def test_energy_of_nothing():
    assert electricity.energy(figures(**{GROSS: 0.36, "output_tokens_per_s": None}), terms.read()).reason


def test_what_waits_is_as_uncertain_as_the_rate_it_is_laid_on():
    """100 W of waiting over 90 to 110 tokens/s add 1/u − 1 = 3 times 1.11 to 0.909 J to each token."""
    found = figures(power_idle_w=100.0, **{GROSS: Estimate(2.0, 1.9, 2.1, 3, "repeats")})
    used = electricity.energy(found, terms.read(utilization=0.25)).j_per_output_token
    assert used.value == pytest.approx(2 + 3 * 1.0)
    assert used.low == pytest.approx(1.9 + 3 * 100 / 110)
    assert used.high == pytest.approx(2.1 + 3 * 100 / 90)
