"""Windows laid end to end: bins tile them, and what is put into bins is what was there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.charts.strip import AFTER, BEFORE, NEVER, STEADY, Bins, spans
from tests import make

S = make.S


@st.composite
def parts(draw):
    """The spans of a few windows with waits between them."""
    at, windows = 1.0, []
    for index in range(draw(st.integers(1, 4))):
        at += draw(st.floats(1.5, 100))
        length = draw(st.floats(0.5, 30))
        never = draw(st.booleans())
        changes = {"steady_start_ns": None, "steady_end_ns": None} if never else {}
        windows.append(make.window(index, at, at + length, **changes))
        at += length + 1
    return spans(windows)


def times(part_list, n=200):
    first, last = part_list[0].start_ns, part_list[-1].end_ns
    return np.sort(np.random.default_rng(0).integers(first - S, last + S, n))


@given(parts(), st.integers(1, 300))
def test_bins_tile_the_windows(laid, most):
    bins = Bins(laid, most)
    assert len(laid) <= len(bins) <= most + len(laid)
    assert {part.at_s for part in bins.spans} == {part.at_s for part in laid}
    assert bins.until_s[:-1] == pytest.approx(bins.at_s[1:])
    assert bins.until_s[-1] == pytest.approx(sum(part.length_s for part in laid))
    assert all(
        part.start_ns <= start < end <= part.end_ns
        for part, start, end in zip(bins.spans, bins.start_ns, bins.end_ns, strict=True)
    )


@given(parts(), st.integers(1, 60))
def test_gauges_are_the_samples_of_each_bin(laid, most):
    bins, at = Bins(laid, most), times(laid)
    values = np.sin(np.arange(len(at)))
    found = {each.bin: each for each in bins.gauge(at, values)}
    for place in range(len(bins)):
        inside = (at >= bins.start_ns[place]) & (at < bins.end_ns[place])
        assert (place in found) == inside.any()
        if inside.any():
            own = values[inside]
            seen = found[place]
            assert (seen.low, seen.high, seen.n) == (own.min(), own.max(), len(own))
            assert seen.mean == pytest.approx(own.mean())
            assert bins.at_s[place] <= seen.at_s <= bins.until_s[place]


@given(parts(), st.integers(1, 60))
def test_totals_lose_nothing_that_came_in_a_window(laid, most):
    bins, at = Bins(laid, most), times(laid)
    inside = [any(part.start_ns <= t < part.end_ns for part in laid) for t in at]
    assert bins.total(at, np.full(len(at), 2.0)).sum() == 2 * sum(inside)


def test_a_level_is_the_mean_over_time():
    bins = Bins(spans([make.window(0, 10, 14)]), 6)  # 9 to 15 s, a second each
    begun, ended = np.array([9.5, 10.0, 11.0]) * S, np.array([12.0, 10.5, 14.5]) * S
    level = bins.level(begun.astype(np.int64), ended.astype(np.int64))
    assert level == pytest.approx([0.5, 1.5, 2, 1, 1, 0.5])


def test_phases_are_told_apart():
    steady, never = make.window(0, 10, 14), make.window(1, 20, 24, steady_start_ns=None)
    assert [part.phase for part in spans([never, steady])] == [BEFORE, STEADY, AFTER, NEVER]
    assert [part.at_s for part in spans([steady, never])] == [0, 1, 5, 6]


def test_nothing_sampled_is_no_bin():
    bins = Bins(spans([make.window(0, 10, 14)]), 10)
    assert bins.gauge(np.array([], dtype=np.int64), np.array([])) == []
    assert bins.gauge(np.array([S]), np.array([1.0])) == []
