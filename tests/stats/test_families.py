from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from profiler import stats
from profiler.stats import families, sequential

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_holm_is_the_textbook_one():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.5, 0.9]) == [1.0, 1.0]
    assert stats.holm([]) == []


@pytest.mark.parametrize("seed", range(6))
def test_holm_is_that_of_statsmodels(seed):
    rng = np.random.default_rng(seed)
    p_values = (rng.random(rng.integers(1, 12)) ** 3).tolist()
    assert stats.holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


@given(P_VALUES)
def test_step_by_step_is_the_same_as_adjusted(p_values):
    rejected = families.rejected(p_values, lambda left: 0.05 / left)
    adjusted = stats.holm(p_values)
    assert rejected == [p <= 0.05 or p == pytest.approx(0.05, rel=1e-12) for p in adjusted]


@given(st.lists(st.floats(1e-7, 1), min_size=1, max_size=8), st.sampled_from([(0.5,), (0.4, 1.0)]))
def test_at_a_look_a_family_pays_for_looks_and_cells(p_values, looks):
    """None is rejected that the same look without the earlier ones, or as the only cell, would not reject."""
    rejected = families.rejected(p_values, lambda left: sequential.nominal(looks, 0.025 / left)[-1])
    alone = sequential.nominal(looks, 0.025)[-1]
    assert all(p <= alone for p, found in zip(p_values, rejected, strict=True) if found)
    assert (min(p_values) <= sequential.nominal(looks, 0.025 / len(p_values))[-1]) == any(rejected)
    if max(p_values) <= alone and looks == (0.5,):
        worst = sorted(p_values)
        steps = [sequential.nominal(looks, 0.025 / (len(worst) - at))[-1] for at in range(len(worst))]
        assert sum(rejected) == next((at for at, p in enumerate(worst) if p > steps[at]), len(worst))


def test_a_family_of_true_nulls_errs_as_rarely_as_one():
    rng = np.random.default_rng(1)
    errs = sum(any(families.rejected(list(each), lambda m: 0.05 / m)) for each in rng.random((4000, 7)))
    assert 0.03 < errs / 4000 < 0.06
