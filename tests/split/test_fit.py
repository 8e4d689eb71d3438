"""Fits: true coefficients lie inside the intervals as often as promised; what cannot be told is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.schema import Estimate
from profiler.split import fit

A, B, C, P0 = 0.02, 0.15, 4e-4, 120.0


def chain(rng: np.random.Generator, n: int, keep: float) -> np.ndarray:
    """An AR(1) process of unit variance."""
    found = rng.normal(size=n)
    for i in range(1, n):
        found[i] = keep * found[i - 1] + np.sqrt(1 - keep**2) * found[i]
    return found


def load(rng: np.random.Generator, windows: int, n: int, keep: float) -> tuple[np.ndarray, np.ndarray]:
    """Rates of input and decode tokens of an engine that is always at work on one or the other."""
    share = np.clip(0.5 + 0.22 * np.concatenate([chain(rng, n, keep) for _ in range(windows)]), 0, 1)
    return np.column_stack([share * 20_000, (1 - share) * 2600]), np.repeat(np.arange(windows), n)


def coverage(
    windows: int, n: int, keep: float, *, idles: bool, runs: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """Share of intervals that hold the truth, and mean relative error, of a, b (and the standing power):
    5 % noise that lasts, counts and times that are read 1 % off."""
    hits, errors = [], []
    truth = np.array([A, B, P0][: 2 + idles])
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        columns, held = load(rng, windows, n, keep)
        if idles:
            columns *= np.clip(0.6 + 0.25 * rng.normal(size=(len(held), 1)), 0.05, 1)
        noise = 1 + 0.05 * np.concatenate([chain(rng, n, keep) for _ in range(windows)])
        response = columns @ truth[:2] * noise + P0 * idles
        read = columns * (1 + 0.01 * rng.normal(size=columns.shape))
        if idles:
            read = np.column_stack([read, np.ones(len(read))])
        found = fit.fit(response, read, held, np.eye(len(truth))).spread
        each = [found.estimate(place, "slices") for place in range(len(truth))]
        hits.append([e.low <= t <= e.high for e, t in zip(each, truth, strict=True)])
        errors.append(found.values / truth - 1)
    return np.mean(hits, axis=0), np.mean(errors, axis=0)


@pytest.mark.parametrize("idles", [False, True])
@pytest.mark.parametrize(("windows", "n"), [(1, 45), (3, 30)])
@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_intervals_hold_the_truth(windows, n, keep, idles):
    hits, errors = coverage(windows, n, keep, idles=idles)
    assert (hits >= 0.9).all(), hits
    assert (np.abs(errors[:2]) < 0.01).all(), errors


def test_long_memory_makes_longer_blocks():
    rng = np.random.default_rng(0)
    windows = np.repeat([0, 1], 60)
    many = fit.blocks(windows, rng.normal(size=120))
    few = fit.blocks(windows, np.concatenate([chain(rng, 60, 0.9), chain(rng, 60, 0.9)]))
    assert len(np.unique(few)) < len(np.unique(many)) <= 24
    assert len(np.unique(few)) >= fit.MIN_BLOCKS


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(0, 9))
def test_blocks_are_runs_of_neighbours_within_a_window(lengths, seed):
    windows = np.repeat(np.arange(len(lengths)), lengths)
    found = fit.blocks(windows, np.random.default_rng(seed).normal(size=len(windows)))
    assert (np.diff(found) >= 0).all()
    assert (np.diff(found) <= 1).all()
    assert (np.diff(found)[np.diff(windows) > 0] == 1).all()


@given(st.floats(0.001, 10), st.floats(0.001, 10), st.integers(0, 99))
def test_without_noise_the_fit_is_exact_whatever_the_units(a, b, seed):
    columns, windows = load(np.random.default_rng(seed), 1, 40, 0.3)
    found = fit.fit(columns @ [a, b], columns, windows, np.eye(2))
    assert found.spread.values == pytest.approx([a, b], rel=1e-6)
    assert found.residual_frac < 1e-6
    scaled = fit.fit(columns @ [a, b], columns * [1e-6, 1e3], windows, np.eye(2))
    assert scaled.spread.values == pytest.approx([a * 1e6, b / 1e3], rel=1e-6)


def test_a_coefficient_below_nothing_is_nothing():
    columns, windows = load(np.random.default_rng(1), 1, 60, 0.0)
    found = fit.fit(columns @ [A, -0.02], columns, windows, np.eye(2)).spread
    assert found.values[1] == 0
    assert found.estimate(1, "slices").low == 0


def test_the_context_is_taken_at_its_mean():
    rng = np.random.default_rng(2)
    columns, windows = load(rng, 1, 60, 0.0)
    context = columns[:, 1] * rng.uniform(100, 2000, 60)
    three = np.column_stack([columns, context])
    mean = context.sum() / columns[:, 1].sum()
    combine = np.array([[1, 0, 0], [0, 1, mean], [0, 0, 1]])
    found = fit.fit(three @ [A, B, C], three, windows, combine).spread
    assert found.values == pytest.approx([A, B + C * mean, C], rel=1e-6)


# ------------------------------------------------------------------------------------- refusal


def test_a_mix_that_does_not_vary_is_refused():
    rng = np.random.default_rng(3)
    speed = rng.uniform(0.5, 1, 60)[:, None]
    same = speed * [20_000, 2600] * (1 + 0.02 * rng.normal(size=(60, 2)))
    why = fit.undecided(*fit.collinearity(same, constant=False))
    assert why is not None
    assert "does not vary enough" in why
    varied, _ = load(rng, 1, 60, 0.0)
    assert fit.undecided(*fit.collinearity(varied, constant=False)) is None


def test_an_engine_that_never_idles_does_not_tell_its_standing_power():
    columns, _ = load(np.random.default_rng(4), 1, 60, 0.0)
    constant = np.column_stack([columns, np.ones(60)])
    assert fit.undecided(*fit.collinearity(constant, constant=True)) is not None


@pytest.mark.parametrize("columns", [np.zeros((40, 2)), np.ones((40, 2)), np.eye(40, 2) * [1, 0]])
def test_columns_that_say_nothing_are_refused(columns):
    assert fit.undecided(*fit.collinearity(columns, constant=False)) is not None


# ------------------------------------------------------------------------------------- ratios


def test_a_ratio_has_both_errors():
    found = fit.ratio(Estimate(2.0, 1.94, 2.06), Estimate(1.0, 0.96, 1.04))
    assert found.value == 2
    assert np.log(found.high / 2) == pytest.approx(0.05)
    assert np.log(found.low / 2) == pytest.approx(-0.05)


def test_a_ratio_without_an_interval_or_to_nothing():
    assert fit.ratio(Estimate(2.0), Estimate(1.0, 0.9, 1.1)) == Estimate(2.0)
    assert fit.ratio(Estimate(0.0, 0.0, 1.0), Estimate(1.0)) is None
    assert fit.ratio(Estimate(1.0), Estimate(0.0)) is None


def test_one_group_has_no_interval():
    spread = fit.jackknife(lambda kept: np.array([float(kept.sum())]), np.zeros(5, dtype=int))
    assert spread.estimate(0, "repeats") == Estimate(5.0, n=5, over="repeats")


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(5).normal(10, 1, 12)
    spread = fit.jackknife(lambda kept: np.array([values[kept].mean()]), np.arange(12))
    assert spread.errors[0] == pytest.approx(values.std(ddof=1) / np.sqrt(12))
    assert spread.df == 11
