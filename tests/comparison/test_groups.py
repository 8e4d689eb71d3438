"""--by: repeated runs pooled."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler import stats
from profiler.comparison import Question, answer, groups
from profiler.cost.terms import Terms
from profiler.errors import InputError
from profiler.schema import Estimate
from tests.comparison.lines import figures, of


def pool(*found, by="model"):
    return groups.pool(of(*found), [by])


def test_runs_are_the_unit_of_replication():
    """Three runs at 90, 100, 110: the geometric mean and the t interval on logarithms of three values, by
    hand; what the repeats within each say does not enter."""
    (line,) = pool(*(figures(n, rate, half=1) for n, rate in (("a", 90), ("b", 100), ("c", 110))))
    found = line.estimate("output_tokens_per_s")
    logs = [math.log(rate) for rate in (90, 100, 110)]
    middle = sum(logs) / 3
    half = 4.302653 * math.sqrt(sum((x - middle) ** 2 for x in logs) / 2 / 3)
    assert found == stats.over_repeats([90, 100, 110]).__class__(
        pytest.approx(math.exp(middle)),
        pytest.approx(math.exp(middle - half)),
        pytest.approx(math.exp(middle + half)),
        3,
        "runs",
    )
    assert line.row()["runs"] == 3
    assert line.row()["requests_ok"] == 30


def test_cost_is_pooled_over_the_costs_of_the_runs():
    (line,) = pool(figures("a", 100), figures("b", 200))
    usd = [3.6 / 3600 / rate * 1e6 for rate in (100, 200)]
    assert line.row()["usd_per_m_output_tokens"] == pytest.approx(math.sqrt(usd[0] * usd[1]))
    assert line.row()["price_usd_per_hour"] == 3.6


def test_no_share_is_bounded_above_one():
    held = [figures(name, 100) for name in "ab"]
    met = [{"slo_met_frac": Estimate(share, n=100)} for share in (0.6, 0.9)]
    found = [replace(each, estimates=each.estimates | more) for each, more in zip(held, met, strict=True)]
    row = pool(*found)[0].row()
    assert row["slo_met_frac_low"] < 0.6
    assert row["slo_met_frac_high"] == 1


def test_a_single_run_keeps_its_own_interval():
    (line,) = pool(figures("a", 100, half=5))
    assert line.estimate("output_tokens_per_s") == Estimate(100, 95, 105, 3, "repeats")
    assert line.row()["runs"] == 1
    assert line.row()["run"] == "a"


def test_other_loads_scenarios_and_groups_stay_apart():
    found = [
        figures("a"),
        figures("b", concurrency=1),
        figures("c", scenario="t"),
        figures("d", model="n"),
        figures("e"),
    ]
    assert [line.folders for line in pool(*found)] == [["a", "e"], ["b"], ["c"], ["d"]]


@pytest.mark.parametrize("unlike", [{"alike": "other engine"}, {"work": "other lengths"}])
def test_unlike_runs_are_never_pooled_and_that_is_said(unlike):
    lines = pool(figures("a"), figures("b", **unlike), figures("c"))
    assert [line.folders for line in lines] == [["a", "c"], ["b"]]
    assert all("2 kinds of runs in this group are kept apart" in line.row()["notes"] for line in lines)
    assert lines[1].estimate("output_tokens_per_s").over == "repeats"


def test_a_figure_that_one_run_lacks_the_group_lacks_and_says_so():
    power = {"power_w_mean": Estimate(300.0)}
    (line,) = pool(figures("a", estimates=power), figures("b"))
    assert line.row()["power_w_mean"] is None
    assert "n/a in some of 2 runs, so of all: power_w_mean" in line.row()["notes"]


def test_what_runs_disagree_on_is_their_sum_worst_mean_or_nothing():
    (line,) = pool(
        figures(
            "a",
            status="complete",
            shared_gpu=None,
            send_lag_p99_s=0.1,
            temperature_c_mean=60.0,
            notes="x | y",
            first_wave_requests=None,
            client_bound=None,
            pue=1.2,
        ),
        figures(
            "b",
            status="failed",
            shared_gpu=False,
            send_lag_p99_s=0.3,
            temperature_c_mean=70.0,
            notes="y | z",
            first_wave_requests=4,
            client_bound="lag",
            pue=None,
            weights="hub",
        ),
    )
    row = line.row()
    assert row["status"] == "complete, failed"
    assert row["shared_gpu"] is None, "nobody can tell of one of them"
    assert row["send_lag_p99_s"] == 0.3
    assert row["temperature_c_mean"] == 65
    assert row["notes"] == "x | y | z"
    assert row["first_wave_requests"] == 4
    assert row["client_bound"] == "lag", "marked where any of them is"
    assert row["pue"] is row["weights"] is row["run"] is None


def test_sharing_in_one_run_marks_the_group():
    (line,) = pool(figures("a", shared_gpu=True), figures("b", shared_gpu=None))
    assert line.row()["shared_gpu"] is True


def test_an_unknown_column_is_said():
    with pytest.raises(InputError, match=r"--by: no column 'modl' \(did you mean 'model'"):
        pool(figures("a"), by="modl")


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=8), st.floats(0.01, 100))
def test_pooling_goes_with_the_unit(rates, factor):
    """The mean of figures in another unit is the mean in that unit."""
    (plain,), (scaled,) = (
        pool(*(figures(str(n), rate * times) for n, rate in enumerate(rates))) for times in (1.0, factor)
    )
    assert scaled.value("output_tokens_per_s") == pytest.approx(factor * plain.value("output_tokens_per_s"))
    assert min(rates) * 0.999 <= plain.value("output_tokens_per_s") <= max(rates) * 1.001


def test_conditions_come_before_groups():
    found = [figures("a", 100), figures("b", 300, status="failed")]
    (line,) = answer(found, Question(terms=Terms(), where=["status!=failed"], by=["model"])).lines
    assert line.value("output_tokens_per_s") == 100
