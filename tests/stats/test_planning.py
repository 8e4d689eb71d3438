from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import stdtr, stdtrit
from statsmodels.stats.power import TTestIndPower

from profiler import stats
from profiler.stats import planning


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


@pytest.mark.parametrize(("n", "distance", "alpha"), [(20, 0.015, 0.025), (40, 0.01, 0.05)])
def test_with_many_starts_power_is_that_of_statsmodels(n, distance, alpha):
    """Theirs is of the pooled test; Welch's has next to as many degrees of freedom then."""
    theirs = TTestIndPower().power(distance / 0.02, n, alpha, alternative="larger")
    assert planning.power(n, 0.02, distance, alpha) == pytest.approx(theirs, abs=0.004)


def welch(n, spread, distance, sims=40_000):
    """Differences beyond the limit, their errors and degrees of freedom as they are seen."""
    rng = np.random.default_rng(1)
    new, base = (rng.normal(at, spread, (sims, n)) for at in (distance, 0.0))
    a, b = (side.var(axis=1, ddof=1) / n for side in (new, base))
    return new.mean(axis=1) - base.mean(axis=1), np.sqrt(a + b), (a + b) ** 2 * (n - 1) / (a**2 + b**2)


@pytest.mark.parametrize(
    ("n", "distance", "alpha"), [(2, 0.1, 0.025), (3, 0.06, 0.025), (4, 0.05, 0.01), (8, 0.03, 0.05)]
)
def test_power_is_what_is_seen_with_few_starts_too(n, distance, alpha):
    found, error, df = welch(n, 0.02, distance)
    seen = (stdtr(df, -found / error) <= alpha).mean()
    assert planning.power(n, 0.02, distance, alpha) == pytest.approx(seen, abs=0.008)


@given(st.floats(0.001, 0.1), st.floats(0.001, 0.5), st.sampled_from([0.01, 0.025, 0.05]))
def test_starts_are_the_fewest_that_do(spread, distance, alpha):
    n = planning.starts(spread, distance, alpha)
    if n < planning.MOST_RUNS:
        assert planning.power(n, spread, distance, alpha) >= 0.8
        assert n == 2 or planning.power(n - 1, spread, distance, alpha) < 0.8


def test_starts_at_the_ends():
    assert planning.starts(0.02, 0.0) == planning.starts(0.02, -1.0) == planning.MOST_RUNS
    assert planning.starts(0.0, 0.01) == 2
    assert planning.starts(0.3, 1e-4) == planning.MOST_RUNS
    assert planning.starts(1e-6, 1.0) == 2  # so far out that the formula underflows
    assert planning.power(1, 0.02, 1.0) == 0
    assert planning.power(5, 0.0, -1.0) == 0


@pytest.mark.parametrize("n", [3, 6, 10])
def test_power_of_equal_is_what_is_seen(n):
    found, error, df = welch(n, 0.02, 0.0)
    reach = np.abs(found) + stdtrit(df, 0.95) * error
    assert planning.power_equal(n, 0.02, 0.03) == pytest.approx((reach < math.log(1.03)).mean(), abs=0.008)


def test_starts_for_equal_are_the_fewest_that_do():
    n = planning.starts_equal(0.02, 0.03)
    assert planning.power_equal(n, 0.02, 0.03) >= 0.8 > planning.power_equal(n - 1, 0.02, 0.03)
    assert planning.starts_equal(0.0, 0.03) == 2
    assert planning.power_equal(1, 0.0, 0.03) == 0
