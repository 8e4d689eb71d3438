"""What is predicted for a placement, and what limits, prices and a full cache make of it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import predict
from profiler.plan.answers import all_met, answer, at_rates, gpu_seconds, met, money, price
from profiler.plan.rows import COLUMNS, ESTIMATES, IDENTITY, row_at, rows_of
from profiler.slo import limits
from tests.plan.ask import DENSE_14B, DENSE_32B, MOE, placement


def test_what_runs_is_the_predictors_own():
    found = answer(placement(), [1, 8, 32], None)
    what = placement()
    plain = predict.predict(what.deployment(), what.question.load(np.array([1.0, 8.0, 32.0])), None)
    for name in ("tpot_s", "ttft_s", "output_tokens_per_s", "power_w_mean"):
        assert found.values[name].value == pytest.approx(getattr(plain, name).value)
        assert found.values[name].low == pytest.approx(getattr(plain, name).low)
    assert found.running.tolist() == [1, 8, 32]
    assert found.alone_ttft_s.value[0] == pytest.approx(plain.ttft_s.value[0])
    assert found.alone_ttft_s.high[0] == pytest.approx(plain.ttft_s.high[0])


def test_what_the_cache_does_not_hold_waits_by_littles_law():
    """N slots, B of which run: a request takes N/B times as long, all of it before its first token."""
    what = placement(DENSE_32B)
    held = what.sequences
    one, four = (answer(what, [held * times], None).values for times in (1, 4))
    assert four["e2e_s"].value[0] == pytest.approx(4 * one["e2e_s"].value[0])
    assert four["tpot_s"].value[0] == pytest.approx(one["tpot_s"].value[0])
    assert four["output_tokens_per_s"].value[0] == pytest.approx(one["output_tokens_per_s"].value[0])
    assert four["ttft_s"].value[0] > one["ttft_s"].value[0]


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([MOE, DENSE_14B]), st.lists(st.integers(1, 3000), min_size=1, max_size=4))
def test_a_value_lies_in_its_interval(model, loads):
    for name, (value, low, high) in answer(placement(model), loads, None).values.items():
        assert (low <= value).all(), name
        assert (value <= high).all(), name
        assert (low > 0).all(), name


# ------------------------------------------------------------------------------------------- limits


def verdict(low: float, value: float, high: float, limit: str) -> bool | None:
    found = answer(placement(), [8], None)
    each = found.values["tpot_s"]._replace(
        value=np.array([value]), low=np.array([low]), high=np.array([high])
    )
    found = msgspec.structs.replace(found, values=found.values | {"tpot_s": each})
    return met(found, limits({limit: 0.05})[0])[0]


@pytest.mark.parametrize(
    ("low", "value", "high", "limit", "expected"),
    [
        (0.03, 0.04, 0.049, "tpot_p50_s", True),
        (0.03, 0.04, 0.051, "tpot_p50_s", None),
        (0.051, 0.06, 0.07, "tpot_p50_s", False),
        (0.03, 0.035, 0.039, "tpot_p99_s", True),
        (0.03, 0.04, 0.049, "tpot_p99_s", None),  # the mean keeps it, the tail may not
        (0.051, 0.06, 0.07, "tpot_p99_s", False),
    ],
)
def test_a_limit_is_kept_missed_or_undecided_by_the_interval(low, value, high, limit, expected):
    assert verdict(low, value, high, limit) is expected


def test_the_slowest_gaps_are_never_promised():
    found = answer(placement(), [1], None)
    assert met(found, limits({"itl_p99_s": 3600.0})[0]) == [None]
    assert met(found, limits({"itl_p50_s": 3600.0})[0]) == [True]


def test_one_missed_limit_is_a_no_and_one_open_is_open():
    found = answer(placement(), [1, 64], None)
    missed, open_, kept = (
        limits({name: at})[0] for name, at in [("tpot_p50_s", 1e-4), ("itl_p99_s", 1.0), ("ttft_p50_s", 60.0)]
    )
    assert all_met(found, [kept, open_, missed]) == [False, False]
    assert all_met(found, [kept, open_]) == [None, None]
    assert all_met(found, [kept]) == [True, True]


def test_the_cheapest_load_keeps_the_limits():
    free = gpu_seconds(placement(), [1, 8, 64], None)
    assert free[1] == [1, 8, 64]
    assert free[0] == sorted(free[0], reverse=True), "a larger batch is cheaper a token"
    tight = gpu_seconds(placement(slo={"tpot_p50_s": "10ms"}), [1, 8, 64], None)
    assert tight[1] == [1]


# -------------------------------------------------------------------------------------------- money


def test_the_kinds_times_their_counts_are_the_bill():
    """As ``compare`` has it: 3 : 1 blended is made so that what the two kinds cost adds up to the bill."""
    found = answer(placement(), [8], None)
    lengths = found.placement.question.lengths
    paid = money(found, 3.6 / 3600)
    per_input = paid["usd_per_m_input_tokens"].value[0]
    per_output = 4 * paid["usd_per_m_blended_tokens"].value[0] - 3 * per_input
    bill = paid["usd_per_m_output_tokens"].value[0] * lengths.mean_output
    assert per_input * lengths.mean_input + per_output * lengths.mean_output == pytest.approx(bill)
    for each in paid.values():
        assert each.low[0] < each.value[0] < each.high[0]
    rate = found.values["output_tokens_per_s"].value[0]
    assert paid["usd_per_m_output_tokens"].value[0] == pytest.approx(1e6 * 3.6 / 3600 / rate)


def test_a_price_has_its_range_apart_from_the_prediction():
    row = row_at(placement().question, placement(), 8, None)
    assert row["price_low_usd_per_hour"] < row["price_usd_per_hour"] < row["price_high_usd_per_hour"]
    width = row["usd_per_m_output_tokens_high"] / row["usd_per_m_output_tokens"]
    assert width == pytest.approx(row["output_tokens_per_s"] / row["output_tokens_per_s_low"])


def test_no_price_is_no_cost():
    what = placement(gpu="H20")
    assert price(what.question, what.gpu) is None
    row = row_at(what.question, what, 8, None)
    assert [row[name] for name in ESTIMATES if name.startswith("usd")] == [None] * 3
    assert row["price_basis"] is None
    given = placement(gpu="H20", price="1.5")
    assert row_at(given.question, given, 8, None)["price_usd_per_hour"] == 1.5


# --------------------------------------------------------------------------------------------- rows


def test_a_row_a_load_with_every_column():
    found = rows_of(placement().question, placement(), None)
    assert [row["concurrency"] for row in found] == [1, 8, 32, 128]
    for row in found:
        assert tuple(row) == COLUMNS
        for name in ESTIMATES:
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"], name
        assert 0 not in (row["tpot_s"], row["power_w_mean"])
        assert row["bound_by"] in ("bandwidth", "compute", "launch", "communication")


def test_experts_are_counted_at_the_unevenness_that_the_times_go_by():
    trained, even = (
        [row["distinct_experts"] for row in rows_of(what.question, what, None)]
        for what in (placement(), placement(MOE, 1, "engine.routing=uniform"))
    )
    assert [round(each) for each in even] == [8, 52, 112, 128]
    assert trained[0] == pytest.approx(8)
    assert all(skewed < 0.95 * plain for skewed, plain in zip(trained[1:], even[1:], strict=True))
    assert rows_of(placement(DENSE_14B).question, placement(DENSE_14B), None)[0]["distinct_experts"] is None


def test_each_row_has_its_own_reasons():
    """A load alone on the GPU is outside the fitted batches; that says nothing of the others."""
    rows = rows_of(placement(gpu="H20").question, placement(gpu="H20"), None)
    assert ["sequences at once" in row["notes"] for row in rows] == [True, False, False, False]
    assert all("no H20 96GB was among those fitted" in row["notes"] for row in rows)
    inside = rows_of(placement().question, placement(), None)[1]
    assert not inside["extrapolated"]
    assert inside["notes"] == predict.UNMEASURED_ROUTING


def test_bytes_a_weight_are_those_of_the_format():
    def held(model, **asked):
        return rows_of(placement(model, **asked).question, placement(model, **asked), None)[0]

    assert held(DENSE_14B)["bytes_per_weight"] == pytest.approx(2)
    assert held(DENSE_14B, weights="fp8")["bytes_per_weight"] == pytest.approx(1.1, abs=0.05)
    assert held("openai/gpt-oss-120b")["bytes_per_weight"] == pytest.approx(0.56, abs=0.02)


def test_names_are_those_of_compare():
    from profiler import comparison

    measured = set(comparison.ESTIMATES) | {name.removesuffix("_mean") for name in comparison.ESTIMATES}
    assert set(ESTIMATES) <= measured
    assert set(IDENTITY) <= set(comparison.COLUMNS)


def test_memory_is_of_all_gpus():
    one, two = (rows_of(p.question, p, None)[0] for p in (placement(), placement(MOE, 2)))
    assert one["memory_weights_bytes"] == two["memory_weights_bytes"]
    assert two["memory_peak_bytes"] == 2 * one["memory_peak_bytes"]
    assert two["memory_kv_bytes"] > one["memory_kv_bytes"]


def test_what_does_not_fit_has_a_row_that_says_so():
    what = placement(DENSE_32B, gpu="4090")
    (row,) = rows_of(what.question, what, None)
    assert row["fits"] is False
    assert row["tpot_s"] is None
    assert row["memory_weights_bytes"] > row["memory_peak_bytes"]
    assert row["memory_kv_bytes"] == 0.0, "no room at all is known to be none"


def test_a_rate_is_exact_and_one_too_high_is_not_predicted():
    what = placement(MOE, 1, "load.requests_per_s=1,400", scenario="open")
    one, much = rows_of(what.question, what, None)
    assert (one["output_tokens_per_s"], one["output_tokens_per_s_high"]) == (256, 256)
    assert one["energy_j_per_output_token"] == pytest.approx(one["power_w_mean"] / 256)
    assert one["running_requests"] == pytest.approx(1.0 * (one["ttft_s"] + 255 * one["tpot_s"]), rel=0.2), (
        "Little"
    )
    assert much["tpot_s"] is None
    assert much["notes"] == "more than this placement can keep up with"


def test_rates_leave_times_alone():
    found = answer(placement(), [3.0], None)
    assert at_rates(found, [2.0]).values["ttft_s"] == found.values["ttft_s"]


def test_without_a_tdp_there_is_no_energy(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[[gpu]]\ngpu='X'\nsource='s'\nmem_gb=80\nmem_bw_gbs=3000\ndense_bf16_tflops=900\n")
    what = placement(gpu=str(path))
    row = row_at(what.question, what, 8, None)
    assert row["tpot_s"] is not None
    assert row["power_w_mean"] is row["energy_j_per_output_token"] is None
