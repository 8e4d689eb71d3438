from __future__ import annotations

import numpy as np
import pytest
from arch.bootstrap import CircularBlockBootstrap

from profiler.stats import bootstrap


def p90(values):
    return float(np.quantile(values, 0.9))


def starts(rng, n, at=1.0, sd=0.03, windows=60):
    """Starts that scatter, each a series in which neighbours are alike."""
    found = []
    for _ in range(n):
        series = np.empty(windows)
        series[0] = rng.normal(0, 0.05)
        for i in range(1, windows):
            series[i] = 0.5 * series[i - 1] + rng.normal(0, 0.05 * np.sqrt(0.75))
        found.append(at * np.exp(rng.normal(0, sd) + series))
    return found


def test_too_few_starts_have_no_interval():
    rng = np.random.default_rng(1)
    found = bootstrap.ratio(starts(rng, 4), starts(rng, 9), p90, draws=50)
    assert (found.low, found.high, found.n) == (None, None, 4)


def test_the_same_seed_draws_the_same():
    rng = np.random.default_rng(2)
    new, base = starts(rng, 5), starts(rng, 5)
    assert bootstrap.ratio(new, base, p90, 100) == bootstrap.ratio(new, base, p90, 100)
    assert bootstrap.ratio(new, base, p90, 100) != bootstrap.ratio(new, base, p90, 100, seed=1)


def test_a_statistic_that_is_not_positive_has_no_interval():
    data, whole = [np.array([-1.0, 1.0, -2.0])] * 5, [np.array([1.0, 2.0])] * 5
    assert bootstrap.ratio(data, whole, lambda x: float(x.mean()), 50).low is None


def test_blocks_scatter_like_those_of_arch():
    rng = np.random.default_rng(3)
    [series] = starts(rng, 1, windows=125)
    ours = np.std([bootstrap.circular(series, rng).mean() for _ in range(4000)])
    theirs = CircularBlockBootstrap(5, series, seed=4)
    their = np.std(theirs.apply(lambda x: x.mean(), 4000))
    assert ours == pytest.approx(float(their), rel=0.08)


def test_a_redrawn_series_keeps_its_length_and_its_values():
    rng, series = np.random.default_rng(5), np.arange(10.0)
    for _ in range(50):
        drawn = bootstrap.circular(series, rng)
        assert len(drawn) == 10
        assert set(drawn) <= set(series)
        assert (np.diff(drawn.reshape(5, 2)) % 10 == 1).all()  # blocks of 10^⅓ ≈ 2, round the end


def test_coverage_of_a_ratio_of_percentiles():
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(100):
        found = bootstrap.ratio(starts(rng, 5, at=1.5), starts(rng, 6), p90, draws=50)
        hits += found.low <= 1.5 <= found.high
    assert 0.9 <= hits / 100 <= 0.995
