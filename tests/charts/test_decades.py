"""Logarithmic axes: a few round marks, all in view, with the values and a decent part of their intervals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.charts import decades

positive = st.floats(1e-6, 1e6)


@given(st.lists(positive, min_size=1), st.lists(st.none() | positive))
def test_all_values_are_in_view_and_marked(values, ends):
    found = decades.amounts(values, ends)
    low, high = found["scale"]["domain"]
    assert low < min(values) <= max(values) < high
    ticks = found["axis"]["values"]
    assert 2 <= len(ticks) <= 13
    assert all(low <= tick <= high for tick in ticks)


@given(st.lists(positive, min_size=1), st.lists(positive))
def test_an_interval_does_not_run_away_with_the_axis(values, ends):
    low, high = decades.times(values, ends)["scale"]["domain"]
    alone = decades.times(values)["scale"]["domain"]
    assert low >= alone[0] / 4
    assert high <= alone[1] * 4


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.02, 0.5], [0.02, 0.05, 0.1, 0.2, 0.5]), ([1, 1.6], [1, 1.2, 1.5]), ([1, 1e6], [1, 10, 100])],
)
def test_marks_are_round(values, expected):
    assert set(expected) <= set(decades.times(values)["axis"]["values"])
