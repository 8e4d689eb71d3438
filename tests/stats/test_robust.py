from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.stats import robust


@pytest.mark.parametrize("n", [4, 6, 10, 20])
def test_chance_flags_one_in_a_hundred(n):
    rng = np.random.default_rng(1)
    sides = np.exp(rng.normal(0, 0.05, (4000, n)))
    assert sum(robust.outlier(list(side)) is not None for side in sides) / 4000 <= 0.014


@pytest.mark.parametrize("n", [6, 7, 8, 9, 10, 14, 20, 40])
def test_chance_parts_one_in_a_hundred(n):
    rng = np.random.default_rng(2)
    sides = np.exp(rng.normal(0, 0.05, (4000, n)))
    assert sum(robust.humps(list(side)) is not None for side in sides) / 4000 <= 0.014


def test_one_start_unlike_the_others():
    assert robust.outlier([100, 101, 99, 130, 100]) == 3
    assert robust.outlier([100, 101, 99, 70, 100]) == 3
    assert robust.outlier([100, 101, 130]) is None  # three cannot tell
    assert robust.outlier([100, 100.001, 100, 100.5, 100]) is None  # half a percent is nothing


def test_two_humps():
    assert robust.humps([100, 101, 130, 131, 129, 100.5]) == (3, 3)
    assert robust.humps([100, 101, 130, 131, 129]) is None
    assert robust.humps([100, 101, 100, 100.5, 100.2, 130]) is None  # one is an outlier
    assert robust.humps([100.0, 100.0, 100.0, 110.0, 110.0, 110.0]) == (3, 3)
    assert robust.humps([100.0] * 6) is None


def test_no_scatter():
    assert robust.no_scatter([3.0, 3.0])
    assert not robust.no_scatter([3.0])
    assert not robust.no_scatter([3.0, 3.0001])


@given(st.lists(st.floats(-1, 100), max_size=12))
def test_remarks_never_fail(values):
    assert all(isinstance(each, str) for each in robust.remarks(values))


def test_remarks_in_words():
    assert list(robust.remarks([5.0, 5.0])) == [
        "all 2 starts gave the very same figure, so their scatter is not known"
    ]
    assert list(robust.remarks([100, 101, 99, 130, 100])) == ["start 4 of 5 is unlike the others (+30.0%)"]
    assert list(robust.remarks([100, 101, 130, 131, 129, 100.5])) == [
        "the starts fall in two groups, 3 low and 3 high, with none between"
    ]
    assert list(robust.remarks([100, 101, 99, 102])) == []
