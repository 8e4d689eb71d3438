from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import stats
from profiler.schema import Estimate


def test_a_single_value_has_no_interval():
    assert stats.over_repeats([3.0]) == Estimate(3.0, None, None, 1, "repeats")


def test_t_quantile_is_the_textbook_one():
    assert stats.t_quantile(2) == pytest.approx(4.3027, abs=1e-4)


def test_interval_over_repeats_is_the_log_t_interval():
    found = stats.over_repeats([90.0, 100.0, 110.0])
    logs = np.log([90.0, 100.0, 110.0])
    half = 4.302653 * logs.std(ddof=1) / math.sqrt(3)
    assert found.low == pytest.approx(math.exp(logs.mean() - half), rel=1e-6)
    assert found.high == pytest.approx(math.exp(logs.mean() + half), rel=1e-6)
    assert found.n == 3


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=8))
def test_the_point_lies_inside_and_nothing_crosses_zero(values):
    found = stats.over_repeats(values)
    assert found.low is None or 0 <= found.low <= found.value * (1 + 1e-9)
    assert found.high is None or found.high >= found.value * (1 - 1e-9)


def test_coverage_over_repeats():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(2000):
        found = stats.over_repeats(list(100 * np.exp(rng.normal(0, 0.02, 5))))
        hits += found.low <= 100 <= found.high
    assert 0.935 <= hits / 2000 <= 0.965


@pytest.mark.parametrize(("n", "q"), [(60, 0.5), (500, 0.95), (1000, 0.99)])
def test_quantile_interval_covers_at_least_95_percent(n, q):
    rng = np.random.default_rng(2)
    truth, hits = -math.log(1 - q), 0
    for _ in range(1000):
        found = stats.quantile(rng.exponential(size=n), q)
        hits += (found.low is None or found.low <= truth) and (found.high is None or truth <= found.high)
    assert 0.94 <= hits / 1000 <= 0.995


def test_p99_of_few_values_has_no_upper_bound():
    found = stats.quantile(np.arange(50.0), 0.99)
    assert found.high is None
    assert found.low is not None


def test_scaling_and_inverting_carry_the_interval():
    x = Estimate(10.0, 8.0, 16.0, 3, "repeats")
    assert stats.scaled(x, 2) == Estimate(20.0, 16.0, 32.0, 3, "repeats")
    assert stats.inverted(x, 80) == Estimate(8.0, 5.0, 10.0, 3, "repeats")
    assert stats.inverted(Estimate(10.0, -1.0, 21.0), 1.0).high is None


def test_order_statistics_are_the_textbook_ones():
    # Median of 6: (x1, x6) covers 96.9 % (Hahn & Meeker); of 5 no pair reaches 95 %.
    found = stats.quantile(np.arange(6.0), 0.5)
    assert (found.low, found.high) == (0.0, 5.0)
    none = stats.quantile(np.arange(5.0), 0.5)
    assert (none.low, none.high) == (None, None)


def test_fisher_is_the_textbook_one():
    # The lady tasting tea: 4 of 4 by chance in 1 of 70, 3 or more in 17 of 70.
    assert stats.p_more_hits(4, 4, 0, 4) == pytest.approx(1 / 70)
    assert stats.p_more_hits(3, 4, 1, 4) == pytest.approx(17 / 70)
    assert stats.p_more_hits(0, 10, 3, 10) == pytest.approx(1)


@pytest.mark.parametrize("repeats", [2, 5])
def test_the_spread_of_repeats_is_what_made_the_interval(repeats):
    values = [100 + 3 * n**1.5 for n in range(repeats)]
    found = stats.over_repeats(values)
    assert stats.spread(found) == pytest.approx(np.log(values).std(ddof=1))
    assert stats.spread(found, 0.98) < stats.spread(found)
    assert stats.spread(stats.over_repeats(values[:1])) is None
    assert stats.spread(Estimate(1.0, 0.9, 1.1, 5, "requests")) is None
