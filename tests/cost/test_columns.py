from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler import cost
from profiler.cost import owned, terms
from profiler.cost.terms import Terms
from profiler.schema import Estimate, Price
from tests.cost.load import GPU_HOUR, figures

OUT, IN = "usd_per_m_output_tokens", "usd_per_m_input_tokens"
APART, BLENDED = "usd_per_m_output_tokens_apart", "usd_per_m_blended_tokens"


def usd(found, name=OUT, prefill=None, **asked):
    return cost.columns(found, prefill, terms.read(**asked)).estimates[name].value


def test_the_whole_bill_over_output_tokens():
    # 2 GPUs at 3.60 USD/h are 0.002 USD/s; at 100 tokens/s that is 20 USD per million.
    found = cost.columns(figures(gpus=2), None).estimates[OUT]
    assert found.value == pytest.approx(20.0)
    assert (found.low, found.high) == (pytest.approx(20 / 1.1), pytest.approx(20 / 0.9))


def test_the_terms_of_today_are_the_default():
    found = cost.columns(figures(), None)
    assert set(found.facts) == set(cost.FACTS)
    assert (found.facts["cost_basis"], found.facts["utilization_frac"]) == ("rented", 1.0)
    assert (found.facts["price_usd_per_hour"], found.facts["price_basis"]) == (3.6, "per gpu-hour, test")
    assert set(found.estimates) == {OUT, "usd_per_request"}
    assert not found.notes


def test_a_machine_price_is_not_multiplied():
    machine = Price(usd_per_hour=3.6, per="machine", source="test")
    assert usd(figures(gpu=None, gpus=0, price=machine)) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (figures(gpu=None, gpus=0, price=None), "--price"),
        (figures(gpu="Unheard Of 9000", price=None), "--price"),
        (figures(gpus=0), "number of GPUs"),
        (figures(output_tokens_per_s=0.0), "no output tokens"),
        (figures(output_tokens_per_s=None), "no output tokens"),
    ],
)
def test_what_has_no_cost_says_why_and_how_to_give_it(found, why):
    paid = cost.columns(found, None)
    assert OUT not in paid.estimates
    assert any(note.startswith("cost n/a") and why in note for note in paid.notes)


def test_a_request_carries_its_share_of_the_bill():
    assert usd(figures(), "usd_per_request") == pytest.approx(0.001 / 2)


def test_what_the_offers_span_is_not_what_the_measurement_does():
    offers = Price(usd_per_hour=3.6, per="gpu", source="s", low_usd_per_hour=1.8, high_usd_per_hour=7.2)
    found = cost.columns(figures(price=offers), None)
    assert found.estimates[OUT].low == pytest.approx(10 / 1.1)
    assert found.facts["usd_per_m_output_tokens_cheapest"] == pytest.approx(5)
    assert found.facts["usd_per_m_output_tokens_dearest"] == pytest.approx(20)
    single = replace(offers, low_usd_per_hour=3.6, high_usd_per_hour=3.6)
    for price in (GPU_HOUR, single):
        facts = cost.columns(figures(price=price), None).facts
        assert facts["usd_per_m_output_tokens_cheapest"] is facts["usd_per_m_output_tokens_dearest"] is None
    assert cost.columns(figures(price=single), None).facts["price_basis"] == "per gpu-hour, s"


# ------------------------------------------------------------------------------- published examples


def test_the_day_that_deepseek_disclosed():
    """226.75 nodes of 8 GPUs at 2 USD an hour; 608 and 168 · 10⁹ tokens in and out on that day; 73.7k and
    14.8k tokens/s a node (deepseek-ai/open-infra-index, day 6)."""
    nodes, day_s = 226.75, 86400
    per_node = (608e9 / nodes / day_s, 168e9 / nodes / day_s)
    node = figures(gpu="NVIDIA H800", gpus=8, input_tokens_per_s=per_node[0], output_tokens_per_s=per_node[1])
    day = cost.columns(node, None, terms.read(price="2")).estimates[OUT].value * 168e9 / 1e6
    assert day == pytest.approx(226.75 * 8 * 2 * 24) == pytest.approx(87_072)
    at_work = replace(node, estimates=node.estimates | {"output_tokens_per_s": Estimate(14_800.0)})
    assert usd(at_work, price="2") == pytest.approx(0.3003, abs=5e-5)
    prefill = replace(node, estimates=node.estimates | {"output_tokens_per_s": Estimate(73_700.0)})
    assert usd(prefill, price="2") == pytest.approx(0.0603, abs=5e-5)
    # What the day's bill makes of a token is what a working node makes of it over how much of them worked.
    share = per_node[1] / 14_800
    assert usd(at_work, price="2", utilization=share) == pytest.approx(87_072 / 168e3)


# -------------------------------------------------------------------------------------------- laws

POSITIVE = st.floats(1e-3, 1e4)


@given(POSITIVE, POSITIVE, st.floats(0.01, 100))
def test_linear_in_price_inverse_in_throughput(price, rate, times):
    base = usd(figures(output_tokens_per_s=rate), price=price)
    assert usd(figures(output_tokens_per_s=rate), price=price * times) == pytest.approx(base * times)
    assert usd(figures(output_tokens_per_s=rate * times), price=price) == pytest.approx(base / times)


@given(
    st.floats(0.001, 1), st.integers(1, 9), st.integers(0, 9), st.sampled_from(["rented", "spot", "reserved"])
)
def test_inverse_in_utilisation_and_in_replicas_that_work(share, replicas, spare, basis):
    whole = Terms(basis=basis, price="2")
    thin = replace(whole, utilization=share, replicas=replicas, redundant_replicas=spare)
    found = figures(start_s=30.0)
    expected = share * replicas / (replicas + spare)
    for name in (OUT, "usd_per_request"):
        paid = [cost.columns(found, None, each).estimates[name].value for each in (whole, thin)]
        assert paid[1] * expected == pytest.approx(paid[0])
    assert cost.columns(found, None, thin).facts["utilization_frac"] == pytest.approx(expected)


@given(st.floats(1, 1e4), st.floats(1, 1e4), st.floats(0, 1), st.floats(0.05, 1))
def test_the_kinds_times_their_counts_are_the_bill(output, inputs, part, share):
    found = figures(output_tokens_per_s=output, input_tokens_per_s=inputs)
    paid = cost.columns(found, Estimate(part / inputs), Terms(utilization=share)).estimates
    if IN not in paid:
        return
    kinds = inputs * paid[IN].value + output * paid[APART].value
    assert kinds / 1e6 == pytest.approx(3.6 / 3600 / share)
    assert kinds == pytest.approx(output * paid[OUT].value)
    assert paid[BLENDED].value == pytest.approx(0.75 * paid[IN].value + 0.25 * paid[APART].value)


@pytest.mark.parametrize("basis", ["rented", "spot", "reserved", "owned", "electricity"])
def test_the_kinds_are_the_bill_on_every_basis(basis):
    found = figures(start_s=60.0, energy_j_per_output_token=0.5, power_w_mean=50.0, power_idle_w=9.0)
    paid = cost.columns(found, Estimate(0.002), terms.read(basis=basis, utilization=0.3)).estimates
    assert 200 * paid[IN].value + 100 * paid[APART].value == pytest.approx(100 * paid[OUT].value)
    assert 2 * paid["usd_per_request"].value == pytest.approx(paid[OUT].value * 100 / 1e6)


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_any_blend_lies_between_its_kinds(one, other):
    found = cost.columns(figures(), Estimate(0.002), terms.read(blend=f"{one}:{other}")).estimates
    ends = sorted((found[IN].value, found[APART].value))
    assert ends[0] - 1e-9 <= found[BLENDED].value <= ends[1] + 1e-9


def test_a_blend_with_cached_input_is_not_guessed():
    found = cost.columns(figures(), Estimate(0.002), terms.read(blend="2:1:1"))
    assert BLENDED not in found.estimates
    assert IN in found.estimates
    assert "cached input" in found.notes[0]


def test_prefill_that_would_exceed_the_bill_is_not_split():
    found = cost.columns(figures(), Estimate(1.0)).estimates
    assert set(found) == {OUT, "usd_per_request"}
    alone = cost.columns(figures(output_tokens_mean=1.0), Estimate(1 / 400)).estimates
    assert alone[IN].value == pytest.approx(1e6 * 0.001 / 200), "answers of one token are all prompt"
    assert APART not in alone
    assert APART not in cost.columns(figures(), Estimate(1 / 200)).estimates


# ------------------------------------------------------------------------------------ by the token


def test_what_an_api_asks_for_the_same_tokens():
    """Two prompt tokens an output token, at the list prices of all who offer the model."""
    found = cost.columns(
        replace(figures(price=None), facts=figures().facts | {"model": "Qwen/Qwen3-30B-A3B"}),
        None,
        terms.read(basis="api"),
    )
    paid = {name: each.value for name, each in found.estimates.items()}
    assert paid[OUT] == pytest.approx(2 * paid[IN] + paid[APART])
    assert paid["usd_per_request"] == pytest.approx((100 * paid[IN] + 50 * paid[APART]) / 1e6)
    assert paid[BLENDED] == pytest.approx((3 * paid[IN] + paid[APART]) / 4)
    facts = found.facts
    assert facts["cost_basis"] == "api"
    assert facts["price_basis"].startswith("api: list price of ")
    assert facts["utilization_frac"] is None
    assert facts["price_usd_per_hour"] is None
    low, high = (facts[f"{OUT}_{end}"] for end in ("cheapest", "dearest"))
    assert low <= paid[OUT] <= high
    assert low < high


def test_list_prices_need_no_measurement():
    model = {"model": "Qwen/Qwen3-30B-A3B", "gpu": None, "gpus": 0}
    unknown = replace(figures(input_tokens_per_s=None), facts=model)
    found = cost.columns(unknown, None, terms.read(basis="api"))
    assert set(found.estimates) == {IN, APART, BLENDED}
    assert found.notes == ("the whole bill n/a: input and output tokens a second are not known",)


def test_a_model_that_nobody_lists():
    found = cost.columns(figures(), None, terms.read(basis="api"))
    assert not found.estimates
    assert "cost n/a: the catalog has no API price for m (profile list api-prices)" in found.notes[0]


# ---------------------------------------------------------------------------------------- at scale


@pytest.mark.timing
def test_ten_thousand_points_take_no_second(tmp_path):
    sheet = tmp_path / "sheet.toml"
    sheet.write_text('[[price]]\ngpu="H100"\nusd_per_hour=2.5\ndate="2026-11-01"\nsource="s"\n')
    found = figures(energy_j_per_output_token=0.5, power_idle_w=70.0)
    asked = terms.read(price=str(sheet), utilization=0.5)
    begun = time.process_time()
    for _ in range(10_000):
        cost.columns(found, Estimate(0.002), asked)
    assert time.process_time() - begun < 1


def test_a_sheet_is_read_again_when_it_was_written(tmp_path):
    sheet = tmp_path / "sheet.toml"
    row = '[[price]]\ngpu="H100"\nusd_per_hour={}\ndate="2026-11-01"\nsource="s"\n'
    sheet.write_text(row.format("3.60"))
    assert usd(figures(), price=sheet) == pytest.approx(10)
    sheet.write_text(row.format("36.00"))
    assert usd(figures(), price=sheet) == pytest.approx(100)
    assert GPU_HOUR.usd_per_hour == 3.6


def test_what_speaks_against_a_price_is_a_note():
    """So that a table says it too, as the cost command does."""
    found = cost.columns(figures(price=None), None, terms.read(price="100"))
    assert any("100 USD per hour of one H100" in note for note in found.notes)
    old = Price(usd_per_hour=3.6, per="gpu", source="s", date="2020-01-01")
    assert any("months old" in note for note in cost.columns(figures(price=old), None).notes)


def test_the_span_of_an_owned_node_moves_its_capital_alone():
    """While it waits it draws less; another price of the node changes neither power."""
    found = figures(price=None, power_w_mean=700.0, power_idle_w=100.0)
    on = terms.read(basis="owned", utilization=0.25)
    facts = cost.columns(found, None, on).facts
    for end, of in (("cheapest", 0), ("dearest", 1)):
        node_usd = owned._listed(found.gpu, None)[1 + of] * 8
        alone = cost.columns(found, None, replace(on, owned=replace(on.owned, node_price=node_usd)))
        assert facts[f"{OUT}_{end}"] == pytest.approx(alone.estimates[OUT].value)
