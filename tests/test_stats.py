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


def test_ratio_of_means_is_the_welch_interval():
    # By hand: means of logs 0 and ln 2; variances of the means 0.01²/2 and 0.02²/3; Welch's df.
    new = [2 * math.exp(x) for x in (-0.02, 0.0, 0.02)]
    base = [math.exp(x) for x in (-0.01, 0.01)]
    found = stats.ratio_of_means(new, base)
    a, b = 0.02**2 / 3, 0.0002 / 2
    df = (a + b) ** 2 / (a**2 / 2 + b**2 / 1)
    half = stats.t_quantile(df) * math.sqrt(a + b)
    assert found.value == pytest.approx(2)
    assert (found.low, found.high) == (
        pytest.approx(2 * math.exp(-half)),
        pytest.approx(2 * math.exp(half)),
    )
    assert found.n == 2


@pytest.mark.parametrize(("n", "m"), [(3, 3), (5, 3), (10, 10)])
def test_coverage_of_the_ratio_of_means(n, m):
    rng = np.random.default_rng(3)
    hits = whole = 0
    for _ in range(1000):
        new, base = (list(at * np.exp(rng.normal(0, 0.02, count))) for at, count in ((150, n), (100, m)))
        found = stats.ratio_of_means(new, base)
        hits += found.low <= 1.5 <= found.high
        found = stats.ratio_of(stats.over_repeats(new), stats.over_repeats(base))
        whole += found.low <= 1.5 <= found.high
    assert hits / 1000 >= 0.93
    assert whole >= hits  # intervals know less than the values they came from


def test_a_ratio_without_spread_has_no_interval():
    assert stats.ratio_of_means([3.0], [2.0, 2.0]) == Estimate(1.5, None, None, 1, "repeats")
    assert stats.ratio_of_means([3.0, 0.0], [1.0, 1.0]).low is None
    with pytest.raises(ValueError, match="base"):
        stats.ratio_of_means([1.0], [0.0])
    same = stats.ratio_of_means([2.0, 2.0], [1.0, 1.0])
    assert (same.low, same.high) == (pytest.approx(2), pytest.approx(2))


def test_ratio_of_two_intervals_adds_in_quadrature():
    a = Estimate(10.0, 10 / math.exp(0.3), 10 * math.exp(0.4), 3, "repeats")
    b = Estimate(5.0, 5 / math.exp(0.3), 5 * math.exp(0.4), 4, "repeats")
    found = stats.ratio_of(a, b)
    assert found.low == pytest.approx(2 / math.exp(0.5))
    assert found.high == pytest.approx(2 * math.exp(0.5))
    assert (found.n, found.over) == (3, "repeats")
    assert stats.ratio_of(a, Estimate(5.0, None, 6.0)).high is None
    assert stats.ratio_of(a, Estimate(5.0, None, 6.0)).low is not None
    assert stats.ratio_of(a, Estimate(5.0, -1.0, 6.0)).high is None


@given(st.floats(0.5, 2), st.floats(0.5, 2))
def test_p_beyond_falls_as_the_change_grows(change, other):
    base = [1.0, 1.02, 0.98]
    low, high = sorted((change, other))
    p = [stats.log_ratio([x * c for x in base], base).p_beyond(1.05) for c in (low, high)]
    assert p[0] >= p[1] - 1e-12


def test_one_value_against_several_takes_their_spread():
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(1000):
        base, new = list(np.exp(rng.normal(0, 0.02, 5))), [2 * math.exp(rng.normal(0, 0.02))]
        low, high = stats.log_ratio_alone(new, base).interval()
        hits += low <= 2 <= high
    assert 0.93 <= hits / 1000 <= 0.97
    there, back = stats.log_ratio_alone([2.0], [1.0, 1.1]), stats.log_ratio_alone([1.0, 1.1], [2.0])
    assert there == back.inverse
    assert stats.log_ratio_alone([1.0, 2.0], [1.0, 2.0]) is None
    assert stats.log_ratio_alone([1.0], [1.0]) is None


def test_holm_is_the_textbook_one():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.5, 0.9]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_fisher_is_the_textbook_one():
    # The lady tasting tea: 4 of 4 by chance in 1 of 70, 3 or more in 17 of 70.
    assert stats.p_more_hits(4, 4, 0, 4) == pytest.approx(1 / 70)
    assert stats.p_more_hits(3, 4, 1, 4) == pytest.approx(17 / 70)
    assert stats.p_more_hits(0, 10, 3, 10) == pytest.approx(1)


def test_runs_needed_keeps_its_word():
    # σ 2 %, Δ 3 %, one-sided 5 %, power 80 %: 6 by the normal formula, 7 with the t quantiles.
    n = stats.runs_needed(0.02, math.log(1.03))
    assert n == 7
    rng = np.random.default_rng(5)
    seen = sum(
        stats.log_ratio(
            list(1.03 * np.exp(rng.normal(0, 0.02, n))), list(np.exp(rng.normal(0, 0.02, n)))
        ).p_beyond(1)
        <= 0.05
        for _ in range(1000)
    )
    assert 0.77 <= seen / 1000 <= 0.88
