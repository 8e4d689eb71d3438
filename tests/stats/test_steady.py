from __future__ import annotations

import numpy as np
import pytest
import ruptures
from hypothesis import given
from hypothesis import strategies as st

from profiler.stats import steady


def likes(rng, n, phi, sd):
    """A series around 1 in which neighbours are alike by ``phi``."""
    series = np.empty(n)
    series[0] = rng.normal(0, sd)
    for i in range(1, n):
        series[i] = phi * series[i - 1] + rng.normal(0, sd * np.sqrt(1 - phi**2))
    return 1 + series


@pytest.mark.parametrize(("phi", "most"), [(0.0, 0.002), (0.4, 0.008), (0.7, 0.02)])
@pytest.mark.parametrize("n", [8, 20, 60])
def test_chance_alone_is_seldom_called_a_change(n, phi, most):
    """Where the scatter of a slice is as large as what matters."""
    rng = np.random.default_rng(1)
    found = sum(steady.change(likes(rng, n, phi, 0.05)) is not None for _ in range(1000))
    assert found / 1000 <= most


def test_small_scatter_is_never_called_a_change():
    rng = np.random.default_rng(2)
    assert not any(steady.change(likes(rng, 60, 0.7, 0.01)) for _ in range(300))


def shaped(shape, found_as, n=60, sims=100):
    """How often a shape is found in scatter of 1.5 %, and the findings."""
    rng = np.random.default_rng(3)
    found = [steady.change(likes(rng, n, 0.3, 0.015) + shape) for _ in range(sims)]
    right = [each for each in found if each and each.kind in found_as]
    return len(right) / sims, right


def test_a_jump_is_found_where_it_is():
    often, found = shaped((np.arange(60) >= 36) * 0.1, {"jump"})
    assert often > 0.9
    assert np.mean([each.change_frac for each in found]) == pytest.approx(0.1 / 1.04, rel=0.1)
    assert np.median([each.at_frac for each in found]) == pytest.approx(0.6, abs=0.04)


def test_a_drift_is_found():
    often, found = shaped(np.linspace(0, -0.1, 60), {"drift"})
    assert often > 0.9
    assert np.mean([each.change_frac for each in found]) == pytest.approx(-0.1 / 0.95, rel=0.1)
    assert found[0].at_frac is None


def test_a_slow_beginning_is_found():
    often, found = shaped(-0.5 * np.exp(-np.arange(60) / 3), {"unsettled", "jump"})
    assert often > 0.8
    assert all(each.change_frac < -0.05 for each in found if each.kind == "unsettled")


def test_a_change_too_small_to_matter_is_none():
    rng = np.random.default_rng(4)
    tiny = 1 + np.linspace(0, 0.03, 60) + rng.normal(0, 1e-4, 60)
    assert steady.slope(tiny)[1] < 1e-6
    assert steady.change(tiny) is None


def test_clocks_that_stand_still_but_once_changed():
    clocks = np.full(60, 1980.0)
    assert steady.change(clocks) is None
    clocks[40:] = 1500
    found = steady.change(clocks)
    assert (found.kind, round(found.at_frac * 60)) == ("jump", 40)
    assert found.change_frac == pytest.approx(-480 / 1820)


def test_one_pause_is_no_new_level():
    rates = np.full(60, 10.0)
    rates[30] = 0
    assert steady.change(rates) is None


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 4, [0.0] * 30, [-1.0] * 30])
def test_what_cannot_be_judged_is_no_change(values):
    assert steady.change(np.array(values)) is None


def test_mser_by_hand():
    # Batches of one: dropping the first leaves no scatter at all.
    assert steady.settled(np.array([5.0] + [1.0] * 11), batch=1) == 1
    assert steady.settled(np.ones(50)) == 0
    assert steady.settled(np.ones(49)) is None  # too few batches of five
    ramp = np.arange(100.0)
    assert steady.settled(ramp) is None


@given(st.lists(st.floats(1, 2), min_size=50, max_size=80))
def test_mser_is_the_smallest_of_its_statistic(values):
    series = np.array(values)
    means = series[: len(series) // 5 * 5].reshape(-1, 5).mean(axis=1)
    n = len(means)
    each = [((means[d:] - means[d:].mean()) ** 2).sum() / (n - d) ** 2 for d in range(n // 2 + 1)]
    found = steady.settled(series)
    least = n // 2 if found is None else found // 5
    assert each[least] == pytest.approx(min(each), rel=1e-6, abs=1e-12)


def test_jumps_are_those_of_pelt():
    rng = np.random.default_rng(5)
    series = np.concatenate([rng.normal(at, 1, 25) for at in (0, 6, 2)])
    scaled = (series / steady._long_run_sd(series)).reshape(-1, 1)
    pelt = ruptures.Pelt(model="l2", min_size=4, jump=1).fit(scaled)
    assert steady.jumps(series) == pelt.predict(pen=3 * np.log(75))[:-1]
    assert [round(at, -1) for at in steady.jumps(series)] == [20, 50] or steady.jumps(series) == [25, 50]


def test_slope_of_independent_values_is_least_squares():
    from scipy.stats import linregress

    rng = np.random.default_rng(6)
    p_values, theirs = [], []
    for _ in range(200):
        values = rng.normal(1, 0.1, 40)
        moved, p = steady.slope(values)
        fit = linregress(np.arange(40), values)
        assert moved == pytest.approx(fit.slope * 39)
        p_values.append(p)
        theirs.append(fit.pvalue)
    assert np.median(p_values) == pytest.approx(np.median(theirs), abs=0.1)


def test_a_straight_line_is_certain():
    moved, p = steady.slope(np.arange(10.0))
    assert moved == pytest.approx(9)
    assert p < 1e-6
    assert steady.slope(np.ones(10)) == (0.0, 1.0)


@given(st.lists(st.sampled_from([0.0, 1.0, 1.0, 1.0, 2.0, 1e6]) | st.floats(0, 1e6), max_size=70))
def test_any_series_is_judged_without_a_fuss(values):
    found = steady.change(np.array(values))
    if found is not None:
        assert abs(found.change_frac) >= steady.CHANGE_FRAC
        assert found.at_frac is None or 0 < found.at_frac < 1


@given(st.integers(0, 500), st.floats(0.001, 1000))
def test_units_do_not_matter(seed, factor):
    rng = np.random.default_rng(seed)
    series = likes(rng, 60, 0.3, 0.02) + (np.arange(60) >= 30) * rng.choice([0.0, 0.1])
    one, other = steady.change(series), steady.change(series * factor)
    assert (one and (one.kind, one.at_frac)) == (other and (other.kind, other.at_frac))
