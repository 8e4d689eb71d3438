"""Counters read as curves: ticks, heartbeats, wraps, resets, gaps; whatever order the rows come in."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import counters
from profiler.counters import Series, UnreadableError
from tests.rows import RANGE_UJ, S, gpu, rapl, table, ticks


def energy(samples: pa.Table, t0_ns: int, t1_ns: int, source: str = "gpu:a") -> float:
    read = counters.rapl if source.startswith("rapl:") else counters.nvml
    return counters.curve(read(samples, source), t0_ns, t1_ns).between_j(t0_ns, t1_ns)


# ------------------------------------------------------------------------------------- ticks


def test_a_tick_lies_in_the_middle_of_the_span_it_was_seen_in() -> None:
    counter = counters.nvml(table(*ticks([S, 2 * S, 3 * S], [10, 20, 30], within_s=0.02)), "gpu:a")
    assert counter.times_ns.tolist() == [0.99 * S, 1.99 * S, 2.99 * S]
    assert counter.within_ns.tolist() == [20_000_000] * 3
    assert not counter.assumed


def test_a_file_without_ticks_has_rows_up_to_one_assumed_period_old() -> None:
    rows = ("gpu:a", "energy_mj", [S, 2 * S, 2 * S + 40_000_000], [1000, 2000, 2040])
    counter = counters.nvml(table(rows), "gpu:a")
    assert counter.assumed
    assert counter.within_ns.tolist() == [100_000_000, 100_000_000, 40_000_000]
    assert counter.times_ns.tolist() == [0.95 * S, 1.95 * S, 2 * S + 20_000_000]


def test_energy_is_interpolated_between_the_ticks_around_an_edge() -> None:
    samples = table(*ticks([0, S, 2 * S, 3 * S], [0, 100, 300, 600]))
    assert energy(samples, S // 2, 2 * S + S // 4) == pytest.approx(50 + 200 + 75)


@given(period_ms=st.integers(20, 500), first=st.integers(1, 20), count=st.integers(1, 40))
def test_edges_on_ticks_need_no_interpolation(period_ms: int, first: int, count: int) -> None:
    times = np.arange(64) * period_ms * 1_000_000
    joules = np.cumsum(np.random.default_rng(count).uniform(1, 50, 64))
    found = energy(table(*ticks(times, joules)), int(times[first]), int(times[first + count]))
    assert found == pytest.approx(joules[first + count] - joules[first], rel=1e-9)


@pytest.mark.parametrize(
    ("t0_s", "t1_s", "reason"),
    [
        (-1, 20, "no sample before the window"),
        (5, 45, "no sample after the window"),
        (20, 20, "the window is empty"),
        (20, 10, "the window is empty"),
    ],
)
def test_a_window_that_is_not_bracketed_has_no_energy(t0_s: int, t1_s: int, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        energy(table(*gpu(400)), t0_s * S, t1_s * S)


@given(
    gaps_s=st.lists(st.floats(0.05, 4.0), min_size=4, max_size=40),
    watts=st.lists(st.floats(50, 700), min_size=40, max_size=40),
    edges=st.tuples(st.floats(-0.1, 1.1), st.floats(-0.1, 1.1)).map(sorted),
)
def test_any_gaps_any_power(gaps_s: list[float], watts: list[float], edges: list[float]) -> None:
    """Either the true energy, or none when the window has an unbracketed edge or too long a gap."""
    times = np.concatenate([[0], np.cumsum(np.round(np.array(gaps_s) * S))]).astype(np.int64)
    joules = np.concatenate([[0], np.cumsum(np.diff(times) / S * np.array(watts[: len(gaps_s)]))])
    t0, t1 = (int(edge * times[-1]) for edge in edges)
    samples = table(*ticks(times, joules))
    touched = [b - a for a, b in itertools.pairwise(times) if b > t0 and a < t1]
    if 0 <= t0 < t1 <= times[-1] and max(touched) <= 3 * S:
        truth = np.interp(t1, times, joules) - np.interp(t0, times, joules)
        assert energy(samples, t0, t1) == pytest.approx(truth, rel=1e-6, abs=1e-3)
    else:
        with pytest.raises(UnreadableError):
            energy(samples, t0, t1)


# ------------------------------------------------------------------------------------- what must not matter


def noisy(seed: int) -> tuple[Any, ...]:
    """A counter that is polled at odd times under changing power, with its power samples."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.08, 0.12, 400) * S).astype(np.int64)
    joules = np.cumsum(rng.uniform(10, 60, 400))
    power = ("gpu:a", "power_w", times + 1000, rng.uniform(100, 600, 400))
    return (*ticks(times, joules, within_s=0.02), power)


@given(seed=st.integers(0, 9), cuts=st.lists(st.integers(S, 30 * S), min_size=3, max_size=3, unique=True))
def test_energy_of_two_halves_is_that_of_the_whole(seed: int, cuts: list[int]) -> None:
    samples = table(*noisy(seed))
    a, b, c = sorted(cuts)
    assert energy(samples, a, b) + energy(samples, b, c) == pytest.approx(energy(samples, a, c), rel=1e-9)


@given(seed=st.integers(0, 9), order=st.randoms(use_true_random=False), twice=st.integers(0, 1199))
def test_rows_in_any_order_and_written_twice_are_the_same_counter(seed: int, order: Any, twice: int) -> None:
    samples = table(*noisy(seed))
    shuffled = list(range(len(samples)))
    order.shuffle(shuffled)
    again = samples.take([*shuffled, twice, twice // 2])
    assert energy(again, 5 * S, 15 * S) == energy(samples, 5 * S, 15 * S)


@given(seed=st.integers(0, 9), ages=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=30))
def test_heartbeats_change_nothing(seed: int, ages: list[float]) -> None:
    rows = noisy(seed)
    (_, _, times, mj), *_ = rows
    at = np.arange(len(ages)) * 10
    beats = times[at] + (np.array(ages) * (times[at + 1] - times[at] - 2)).astype(np.int64) + 1
    with_beats = table(*rows, ("gpu:a", "energy_mj", beats, mj[at]))
    assert energy(with_beats, 2 * S, 20 * S) == energy(table(*rows), 2 * S, 20 * S)


# ------------------------------------------------------------------------------------- set back


@given(
    at=st.integers(1, 398), back_j=st.floats(0.1, 1e5), t0_s=st.integers(0, 20), lasts_s=st.integers(1, 15)
)
def test_a_counter_that_steps_back_is_refused_where_it_matters(
    at: int, back_j: float, t0_s: int, lasts_s: int
) -> None:
    times, joules = np.arange(400) * S // 10, np.arange(400) * 40.0 + 2e5
    joules[at:] -= 40.0 + back_j
    t0, t1 = t0_s * S, (t0_s + lasts_s) * S
    samples = table(*ticks(times, joules))
    if t0 < times[at] and times[at - 1] < t1:
        with pytest.raises(UnreadableError, match="went backwards"):
            energy(samples, t0, t1)
    else:
        assert energy(samples, t0, t1) == pytest.approx(400 * lasts_s)


def test_a_heartbeat_that_shows_less_is_a_reset_too() -> None:
    lower = ("gpu:a", "energy_mj", [20 * S + S // 20], [1000])
    with pytest.raises(UnreadableError, match="went backwards"):
        energy(table(*gpu(400), lower), 5 * S, 35 * S)


def test_a_counter_that_does_not_move_is_no_zero() -> None:
    times = np.arange(40) * S
    with pytest.raises(UnreadableError, match="stood still"):
        energy(table(("gpu:a", "energy_mj", times, np.full(40, 5e6))), 5 * S, 35 * S)


# ------------------------------------------------------------------------------------- RAPL


@given(
    start_uj=st.floats(0, RANGE_UJ - 1),
    steps_j=st.lists(st.floats(1, 700), min_size=12, max_size=200),
)
def test_rapl_wraps_never_change_the_energy(start_uj: float, steps_j: list[float]) -> None:
    joules = np.concatenate([[0], np.cumsum(steps_j)])
    times = np.arange(len(joules)) * S + 500_000  # in the middle of the millisecond it is up to date in
    t0, t1 = S, int(times[-1]) - S // 3
    found = energy(table(*rapl(times, joules, start_uj=start_uj)), t0, t1, "rapl:package-0")
    at = times - 500_000
    assert found == pytest.approx(np.interp(t1, at, joules) - np.interp(t0, at, joules), rel=1e-6, abs=1e-3)


def test_a_rapl_counter_set_back_is_not_taken_for_a_wrap() -> None:
    joules = np.concatenate([np.arange(20) * 100.0 + 5000, np.arange(20) * 100.0])
    with pytest.raises(UnreadableError, match="set back"):
        energy(table(*rapl(np.arange(40) * S, joules)), 5 * S, 35 * S, "rapl:package-0")


# ------------------------------------------------------------------------------------- power


def test_the_integral_interpolates_both_edges() -> None:
    power = Series(np.array([0, S, 2 * S]), np.array([100.0, 200.0, 100.0]))
    assert counters.integral_j(power, S // 2, 3 * S // 2) == pytest.approx(175)
    with pytest.raises(UnreadableError, match="no sample after"):
        counters.integral_j(power, 0, 3 * S)
