from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from statsmodels.stats.weightstats import ttost_ind

from profiler import stats
from profiler.stats import equivalence

SIDES = st.lists(st.floats(0.9, 1.1), min_size=2, max_size=6)


def test_limits_are_alike_in_both_directions():
    assert equivalence.limits(0.25) == (0.8, 1.25)
    assert equivalence.limits(0.25, 10) == (8, 12.5)


@given(SIDES, SIDES)
def test_tost_is_that_of_statsmodels(new, base):
    assume(max(np.std(new), np.std(base)) > 1e-6)
    low, high = equivalence.limits(0.03)
    found = equivalence.tost(stats.log_ratio(new, base), low, high)
    p, (_, p_low, _), (_, p_high, _) = ttost_ind(
        np.log(new), np.log(base), math.log(low), math.log(high), usevar="unequal"
    )
    assert (found.p_low, found.p_high) == (pytest.approx(p_low, abs=1e-7), pytest.approx(p_high, abs=1e-7))
    assert found.p == pytest.approx(p, abs=1e-7)


@given(SIDES, SIDES)
def test_the_p_value_and_the_90_percent_interval_say_the_same(new, base):
    low, high = equivalence.limits(0.1)
    found = equivalence.tost(stats.log_ratio(new, base), low, high)
    assume(abs(found.p - 0.05) > 1e-9 and None not in found.interval)
    assert (found.p < 0.05) == (low < found.interval[0] and found.interval[1] < high)


@given(SIDES, SIDES, st.floats(0.8, 1.25))
def test_nothing_is_both_inside_and_outside(new, base, factor):
    found, (low, high) = stats.log_ratio(new, base), equivalence.limits(0.03, factor)
    outside = equivalence.p_outside(found, low, high)
    assert not (equivalence.tost(found, low, high).p <= 0.05 and outside <= 0.05)
    assume(abs(outside - 0.05) > 1e-9)
    ends = found.interval()
    assert (outside < 0.05) == (ends[0] is not None and (ends[0] > high or ends[1] < low))


@given(SIDES, SIDES)
def test_sides_may_be_swapped(new, base):
    there, back = stats.log_ratio(new, base), stats.log_ratio(base, new)
    low, high = equivalence.limits(0.03)
    one, other = equivalence.tost(there, low, high), equivalence.tost(back, low, high)
    assert one.p == pytest.approx(other.p, abs=1e-12)
    assert equivalence.p_outside(there, low, high) == pytest.approx(
        equivalence.p_outside(back, low, high), abs=1e-12
    )


def test_no_difference_found_is_not_equal():
    wide = stats.log_ratio([0.8, 1.2], [1.25, 0.8])
    assert equivalence.tost(wide, 0.97, 1.03).p > 0.3
    assert equivalence.p_outside(wide, 0.97, 1.03) == 1


def test_on_the_margin_it_is_called_equal_in_one_of_twenty():
    rng, (low, high) = np.random.default_rng(2), equivalence.limits(0.03)

    def wrong() -> bool:
        new, base = (list(at * np.exp(rng.normal(0, 0.01, 5))) for at in (high, 1.0))
        return equivalence.tost(stats.log_ratio(new, base), low, high).p <= 0.05

    assert 0.035 <= sum(wrong() for _ in range(2000)) / 2000 <= 0.065
