from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.regression.mixed_linear_model import MixedLM

from profiler.stats import components as levels
from profiler.stats.components import Component, components


def nested(rng, starts, runs, windows, sds):
    """Starts of runs of windows, with numbers drawn from ranges (low, high)."""

    def pick(span):
        return int(rng.integers(span[0], span[1] + 1))

    found = []
    for _ in range(starts):
        start, held = rng.normal(0, sds[0]), []
        for _ in range(pick(runs)):
            run = start + rng.normal(0, sds[1])
            held.append([run + rng.normal(0, sds[2]) for _ in range(pick(windows))])
        found.append(held)
    return found


def test_two_levels_by_hand():
    # Mean squares: between 3·((1−2)² + (3−2)²)/1 = 6, within (4·0.25)/4 = 0.25; (6 − 0.25)/3.
    start, window = components([[0.5, 1.0, 1.5], [2.5, 3.0, 3.5]])
    assert window == Component(pytest.approx(0.25), 4, 6)
    assert start == Component(pytest.approx((6 - 0.25) / 3), 1, 2)


def test_balanced_it_is_what_a_mixed_model_finds():
    rng = np.random.default_rng(1)
    data = [[s + rng.normal(0, 0.05) for _ in range(6)] for s in rng.normal(0, 0.1, 8)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MixedLM(np.ravel(data), np.ones(48), np.repeat(np.arange(8), 6)).fit(reml=True)
    start, window = components(data)
    assert start.variance == pytest.approx(float(model.cov_re[0, 0]), rel=1e-3)
    assert window.variance == pytest.approx(float(model.scale), rel=1e-3)


@pytest.mark.parametrize(("runs", "windows"), [((2, 2), (3, 3)), ((1, 4), (2, 6))])
def test_it_is_right_on_average_also_when_unbalanced(runs, windows):
    """Without the cut at 0, which only an estimate below it meets: ten starts keep clear of it."""
    rng, sds = np.random.default_rng(2), (0.06, 0.03, 0.02)
    found = [components(nested(rng, 10, runs, windows, sds)) for _ in range(600)]
    for place, sd in enumerate(sds):
        mean = np.mean([each[place].variance for each in found])
        assert mean == pytest.approx(sd**2, rel=0.08)


@given(st.integers(0, 1000), st.integers(2, 6), st.integers(2, 5))
def test_from_means_and_spreads_it_is_the_same_where_starts_are_alike(seed, starts, windows):
    data = np.random.default_rng(seed).normal(0, 1, (starts, windows))
    means, spreads = data.mean(axis=1), data.std(axis=1, ddof=1)
    found = levels.of_means(list(means), list(spreads), [windows] * starts)
    for own, known in zip(found, components(data.tolist()), strict=True):
        assert own == (pytest.approx(known.variance, abs=1e-9), known.df, known.units)


def test_from_means_of_unlike_starts_it_is_right_on_average():
    rng, held = np.random.default_rng(4), [1, 2, 6, 3, 4, 5, 2, 6]
    found = []
    for _ in range(1500):
        data = [rng.normal(0, 0.06) + rng.normal(0, 0.03, n) for n in held]
        spreads = [each.std(ddof=1) if len(each) > 1 else None for each in data]
        found.append([each.variance for each in levels.of_means([d.mean() for d in data], spreads, held)])
    assert np.mean(found, axis=0) == pytest.approx([0.06**2, 0.03**2], rel=0.05)
    assert levels.of_means([1.0], [None], [1]) == [Component(None, 0, 1), Component(None, 0, 1)]


def test_what_cannot_be_told_is_none():
    assert components([[1.0], [2.0], [3.0]]) == [Component(1.0, 2, 3), Component(None, 0, 3)]
    assert components([[1.0, 2.0, 3.0]]) == [Component(None, 0, 1), Component(1.0, 2, 3)]
    assert components([[5.0]]) == [Component(None, 0, 1), Component(None, 0, 1)]


def test_less_between_starts_than_windows_explain_is_none_at_all():
    start, window = components([[1.0, 2.0], [2.0, 1.0]])
    assert start.variance == 0
    assert window.variance > 0


@pytest.mark.parametrize("bad", [[], [[]], [[1.0], []], [[1.0], [[1.0]]], [1.0, [2.0]]])
def test_branches_must_be_whole_and_alike(bad):
    with pytest.raises(ValueError, match="level"):
        components(bad)


def test_repetitions_are_those_of_kalibera_and_jones():
    # √(60/10 · 0.05²/0.02²) = 6.1
    assert levels.repetitions([0.02**2, 0.05**2], [60, 10]) == [7]
    assert levels.repetitions([1.0, 4.0, 1.0], [100, 25, 25]) == [4, 1]
    assert levels.repetitions([0.0, 1.0], [10, 1]) == [None]


@given(st.floats(1e-3, 1), st.floats(1e-3, 1), st.floats(1, 100), st.floats(1, 100))
def test_no_other_number_of_windows_is_much_better(start, window, start_cost, window_cost):
    [best] = levels.repetitions([start, window], [start_cost, window_cost])

    def price(n):
        """Variance of the mean per start × its cost: what a given accuracy takes."""
        return (start + window / n) * (start_cost + n * window_cost)

    # Rounded up from the exact optimum: one fewer or more may be a little better, nothing else is.
    assert price(best) <= 1.25 * min(price(n) for n in range(1, 2 * best + 5))


def test_the_next_minute():
    noisy_starts = {"start": 0.05**2, "window": 0.01**2}
    assert levels.next_best(**noisy_starts, held=[2], start_cost=60, window_cost=10) == "start"
    noisy_windows = {"start": 0.001**2, "window": 0.05**2}
    assert levels.next_best(**noisy_windows, held=[2, 2], start_cost=60, window_cost=10) == "window"
    # Where starts cost nothing and scatter, nothing speaks for a second window.
    assert levels.next_best(0.02**2, 0.02**2, [1], start_cost=0.001, window_cost=10) == "start"
    assert levels.next_best(0.0, 0.05**2, [3], start_cost=60, window_cost=10) == "window"


def test_variance_of_the_mean_is_what_is_seen():
    rng, held = np.random.default_rng(3), [1, 3, 6]
    means = [
        np.mean([rng.normal(0, 0.02) + rng.normal(0, 0.05, n).mean() for n in held]) for _ in range(6000)
    ]
    assert levels.variance_of_mean(0.02**2, 0.05**2, held) == pytest.approx(np.var(means), rel=0.08)
