from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri, stdtr
from scipy.stats import multivariate_normal

from profiler.stats import sequential

LOOKS = st.lists(st.integers(1, 20), min_size=1, max_size=5, unique=True).map(
    lambda parts: [each / 20 for each in sorted(parts)]
)


def z_of(levels):
    return [-float(ndtri(level)) for level in levels]


@pytest.mark.parametrize(
    ("looks", "bounds"),
    # gsDesign(k, test.type = 1, alpha = 0.025, sfu = sfLDOF): Anderson, gsDesign manual, and
    # Jennison & Turnbull, Group Sequential Methods (2000), section 7.2.
    [
        ((0.5, 1), (2.9626, 1.9686)),
        ((1 / 3, 2 / 3, 1), (3.7103, 2.5114, 1.9930)),
        ((0.2, 0.4, 0.6, 0.8, 1), (4.8769, 3.3569, 2.6803, 2.2898, 2.0310)),
    ],
)
def test_bounds_are_the_published_ones(looks, bounds):
    assert z_of(sequential.nominal(looks, 0.025)) == pytest.approx(bounds, abs=2e-4)


def test_one_look_at_the_end_spends_it_all():
    assert sequential.nominal([1], 0.025) == [0.025]


@pytest.mark.parametrize("looks", [(0.3, 0.6, 1.0), (0.5, 0.9, 0.95), (0.25, 0.75)])
def test_crossing_by_the_multivariate_normal_is_what_was_spent(looks):
    bounds = z_of(sequential.nominal(looks, 0.05))
    covariance = [[(min(a, b) / max(a, b)) ** 0.5 for a in looks] for b in looks]
    inside = multivariate_normal.cdf(
        bounds, cov=covariance, abseps=1e-7, releps=1e-7, rng=np.random.default_rng(1)
    )
    assert 1 - inside == pytest.approx(sequential.spent(looks[-1], 0.05), abs=5e-6)


@given(LOOKS, st.floats(1e-4, 0.2))
def test_levels_are_within_what_there_is_to_spend(looks, alpha):
    levels = sequential.nominal(looks, alpha)
    assert levels[0] == pytest.approx(sequential.spent(looks[0], alpha))
    for share, level in zip(looks, levels, strict=True):
        assert 0 <= level <= sequential.spent(share, alpha) * (1 + 1e-6) + 1e-14


@given(LOOKS, st.floats(1e-4, 0.1), st.floats(1.05, 2))
def test_more_alpha_never_lowers_a_level(looks, alpha, times):
    """What Holm's procedure at a look rests on (Maurer & Bretz 2013)."""
    for less, more in zip(
        sequential.nominal(looks, alpha), sequential.nominal(looks, alpha * times), strict=True
    ):
        assert less <= more


def test_once_all_is_spent_nothing_is_left():
    assert sequential.nominal([0.5, 1.0, 1.5], 0.025)[2] == 0
    assert sequential.nominal([0.5, 1.2], 0.025) == sequential.nominal([0.5, 1.0], 0.025)


def test_a_look_with_nothing_new_has_nothing_to_spend():
    plain = sequential.nominal([0.5, 1.0], 0.025)
    assert sequential.nominal([0.0001, 0.5, 0.5001, 1.0], 0.025) == [0, plain[0], 0, plain[1]]


@pytest.mark.parametrize("looks", [[], [0.0, 1.0], [0.5, 0.5], [0.8, 0.4], [-0.1]])
def test_looks_must_rise(looks):
    with pytest.raises(ValueError, match="rise"):
        sequential.nominal(looks, 0.05)


def paths(starts, looks, sims, rng, shift=0.0):
    """One-sided Welch p values at each look of trials of logarithms scattering by 2 %."""
    new, base = (rng.normal(at, 0.02, (sims, max(starts))) for at in (shift, 0.0))
    for n in starts:
        parts = [side[:, :n].var(axis=1, ddof=1) / n for side in (new, base)]
        error2 = parts[0] + parts[1]
        df = error2**2 * (n - 1) / (parts[0] ** 2 + parts[1] ** 2)
        t = (new[:, :n].mean(axis=1) - base[:, :n].mean(axis=1)) / np.sqrt(error2)
        yield stdtr(df, -t)


@pytest.mark.parametrize("starts", [(3, 5, 8), (2, 4, 6), (4, 8)])
def test_looking_more_often_errs_no_more_often_even_with_few_starts(starts):
    rng, sims = np.random.default_rng(7), 40_000
    fractions = [n / starts[-1] for n in starts]
    levels = sequential.nominal(fractions, 0.025)
    crossed = np.zeros(sims, bool)
    peeked = np.zeros(sims, bool)
    for level, p in zip(levels, paths(starts, fractions, sims, rng), strict=True):
        crossed |= p <= level
        peeked |= p <= 0.025
    assert 0.018 < crossed.mean() < 0.0275
    assert peeked.mean() > 0.033


def test_conditional_power_is_how_often_it_ends_so():
    rng, sims, fraction, drift = np.random.default_rng(8), 200_000, 0.5, 2.5
    final = 0.02
    here = rng.normal(drift * fraction, np.sqrt(fraction), sims)
    there = here + rng.normal(drift * (1 - fraction), np.sqrt(1 - fraction), sims)
    p = 1 - float(1 - stdtr(1e9, -1.0 / np.sqrt(fraction)))
    near = np.abs(here - 1.0) < 0.02
    seen = (there[near] > -ndtri(final)).mean()
    assert sequential.conditional_power(p, fraction, final, drift) == pytest.approx(seen, abs=0.02)
    assert (
        sequential.conditional_power(0.9, 0.5, final) < 1e-3 < sequential.conditional_power(0.2, 0.5, final)
    )
    assert sequential.conditional_power(0.01, 1.0, final) == 1
    assert sequential.conditional_power(0.03, 1.0, final) == 0
    assert sequential.conditional_power(0.0, 0.5, 0.0) == 0
