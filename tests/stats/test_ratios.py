from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from profiler import stats
from profiler.schema import Estimate
from profiler.stats import ratios


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


SIDES = st.lists(st.floats(0.5, 2), min_size=2, max_size=6)


@given(SIDES, SIDES)
def test_welch_is_statsmodels_welch(new, base):
    spreads = [float(np.std(np.log(side))) for side in (new, base)]
    assume(max(spreads) > 1e-6)
    found = stats.log_ratio(new, base)
    theirs = CompareMeans(DescrStatsW(np.log(new)), DescrStatsW(np.log(base)))
    low, high = np.exp(theirs.tconfint_diff(usevar="unequal"))
    assert (found.interval()) == (pytest.approx(low, rel=1e-6), pytest.approx(high, rel=1e-6))
    p = theirs.ttest_ind(alternative="larger", usevar="unequal", value=math.log(1.03))[1]
    assert found.p_beyond(1.03) == pytest.approx(p, abs=1e-7)


def test_an_interval_of_another_confidence_is_inside_or_outside():
    found = stats.log_ratio([2.0, 2.1, 2.2], [1.0, 1.1, 0.9])
    narrow, usual, wide = (found.interval(each) for each in (0.9, 0.95, 0.99))
    assert wide[0] < usual[0] < narrow[0] < 2 < narrow[1] < usual[1] < wide[1]
    assert found.interval() == usual


@given(SIDES, st.floats(0.5, 2))
def test_interval_and_p_value_say_the_same(values, limit):
    """A one-sided p of 2.5 % is where the two-sided 95 % interval ends."""
    found = stats.log_ratio(values, [1.0, 1.05, 0.97])
    p, low = found.p_beyond(limit), found.interval()[0]
    assume(abs(p - 0.025) > 1e-9 and low is not None)
    assert (p < 0.025) == (low > limit)


def test_fieller_by_hand():
    # Fieller's equation: the ends are the θ at which (x̄ − θȳ)² = t²(v_x + θ²v_y).
    new, base = [9.0, 10.0, 12.0], [4.0, 5.0, 5.5]
    found = ratios.fieller(new, base)
    x, y = np.mean(new), np.mean(base)
    v_x, v_y = (np.var(side, ddof=1) / 3 for side in (new, base))
    wide = (x / y) ** 2 * v_y
    t = stats.t_quantile((v_x + wide) ** 2 / (v_x**2 / 2 + wide**2 / 2))
    for end in (found.low, found.high):
        assert (x - end * y) ** 2 == pytest.approx(t**2 * (v_x + end**2 * v_y))
    assert found.low < found.value < found.high
    assert found.value == pytest.approx(x / y)


def test_fieller_is_unbounded_where_the_base_is_not_told_from_nothing():
    found = ratios.fieller([1.0, 1.1], [1.0, 0.1])
    assert (found.low, found.high) == (None, None)
    assert found.value > 0
    assert ratios.fieller([1.0], [1.0, 1.0]) is None
    assert ratios.fieller([1.0, 1.0], [0.0, 0.0]) is None
    assert ratios.fieller([3.0, 3.0], [2.0, 2.0]) == Estimate(1.5, 1.5, 1.5, 2, "repeats")


@given(st.integers(0, 10_000))
def test_fieller_and_the_logarithms_agree_where_the_spread_is_small(seed):
    rng = np.random.default_rng(seed)
    new, base = (list(at * np.exp(rng.normal(0, 0.01, 4))) for at in (1.5, 1.0))
    one, other = ratios.fieller(new, base), stats.ratio_of_means(new, base)
    width = other.high - other.low
    assert abs(one.low - other.low) + abs(one.high - other.high) < 0.1 * width


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_coverage_of_fieller(confidence):
    rng = np.random.default_rng(6)
    hits = 0
    for _ in range(2000):
        new, base = (list(at * rng.normal(1, 0.02, 5)) for at in (150, 100))
        found = ratios.fieller(new, base, confidence)
        hits += found.low <= 1.5 <= found.high
    assert abs(hits / 2000 - confidence) < 0.015
