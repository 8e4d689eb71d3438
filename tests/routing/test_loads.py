"""Loads: definitions by hand, chance told from skew, collapse and layers that are copies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import experts
from profiler.routing import loads


def counts_of(chosen: np.ndarray, count: int) -> np.ndarray:
    """Of [requests, tokens, k]."""
    requests, tokens, per_token = chosen.shape
    return loads.by_request(
        np.repeat(np.arange(requests), tokens), chosen.reshape(-1, per_token).astype(np.int64), count
    )


def drawn(cv: float, seed: int = 0, requests: int = 100, tokens: int = 20) -> np.ndarray:
    return experts.choices(experts.marginals(64, 6, cv, seed), requests * tokens, seed).reshape(
        requests, tokens, 6
    )


def test_tokens_are_counted_by_request_and_expert():
    request, chosen = np.array([0, 0, 2]), np.array([[0, 1], [1, 3], [3, 2]])
    assert loads.by_request(request, chosen, 4).tolist() == [[1, 2, 0, 1], [0, 0, 0, 0], [0, 0, 1, 1]]


def test_the_figures_of_loads_counted_by_hand():
    """Four experts with 6, 2, 0 and 0 tokens."""
    found = loads.load(7, np.array([[3, 1, 0, 0], [3, 1, 0, 0]]), per_token=1, same_frac=0.75)
    assert found.layer == 7
    assert found.cv == pytest.approx(math.sqrt((16 + 0 + 4 + 4) / 4) / 2)
    assert found.max_over_mean == 3
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found.entropy_frac == pytest.approx(entropy / math.log(4))
    assert found.effective_experts == pytest.approx(math.exp(entropy))
    assert found.dead_frac == 0.5
    pairs = [abs(a - b) for a in (6, 2, 0, 0) for b in (6, 2, 0, 0)]
    assert found.gini == pytest.approx(sum(pairs) / (2 * 16 * 2))
    assert found.cv_noise_tokens == pytest.approx(math.sqrt(0.75 * 4 / 8))
    assert found.cv_noise == 0, "the requests do not differ"
    assert found.cv_excess == pytest.approx(found.cv)
    assert found.same_frac == 0.75


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=2, max_size=20).filter(any))
def test_gini_is_the_mean_difference(total):
    found = loads.load(0, np.array([total]), 1, 0.0)
    pairs = [abs(a - b) for a in total for b in total]
    assert found.gini == pytest.approx(sum(pairs) / (2 * len(total) ** 2 * np.mean(total)), abs=1e-9)


def test_even_loads_are_not_called_uneven_nor_their_skew_zero():
    """At 95 % some chance is let through, and no more."""
    found = [loads.load(0, counts_of(drawn(0.0, seed), 64), 6, 0.0) for seed in range(80)]
    assert all(each.cv > 0 for each in found)
    seen = sum(each.cv_excess is not None for each in found)
    assert seen <= 12
    assert all(each.cv_excess is None or each.cv_excess > 0 for each in found)


@pytest.mark.parametrize("cv", [0.15, 0.5, 1.12])
def test_chance_is_taken_out_of_a_skew(cv):
    found = [loads.load(0, counts_of(drawn(cv, seed), 64), 6, 0.0) for seed in range(20)]
    assert np.mean([each.cv_excess for each in found]) == pytest.approx(cv, rel=0.04)
    noise = math.sqrt((1 - 6 / 64) * 64 / (6 * 2000))
    assert found[0].cv_noise_tokens == pytest.approx(noise)
    # By the spread of the requests it is the same for independent tokens, as far as the skew is small.
    assert np.mean([each.cv_noise for each in found]) == pytest.approx(noise, rel=0.12)
    assert all(each.cv > each.cv_excess for each in found)


def test_tokens_that_repeat_within_a_request_are_not_taken_for_skew():
    """A request sends all its 20 tokens to the same experts, uniformly chosen: by tokens it looks uneven."""
    once = experts.choices(experts.marginals(64, 6, 0.0), 100).reshape(100, 1, 6)
    found = loads.load(0, counts_of(np.repeat(once, 20, axis=1), 64), 6, 0.0)
    assert found.cv > 3 * found.cv_noise_tokens
    assert found.cv_noise == pytest.approx(found.cv_noise_tokens * math.sqrt(20), rel=0.2)
    assert found.cv_excess is None


def test_requests_of_different_lengths_are_no_chance_of_their_own():
    """Three long and three short requests that use the experts alike."""
    assert loads.cv_noise(np.array([[20, 10]] * 3 + [[2, 1]] * 3)) == 0


def test_one_request_tells_nothing_of_chance():
    found = loads.load(0, np.array([[5, 1, 0]]), 1, 0.0)
    assert found.cv_noise is None
    assert found.cv_excess is None


def test_chance_by_hand_of_two_requests():
    """Off by 1 each from an even share: a variance of 2·2/(2 − 1) of loads whose mean is 2."""
    assert loads.cv_noise(np.array([[2, 0], [0, 2]])) == pytest.approx(1)


def test_empty_requests_are_none():
    two = np.array([[4, 1], [2, 3]])
    assert loads.cv_noise(np.vstack([two, [[0, 0]]])) == loads.cv_noise(two)


# ----------------------------------------------------------------------------------------- likeness


def test_a_router_that_has_collapsed():
    assert loads.same_set_frac(np.array([[1, 2], [2, 1], [1, 2], [0, 3]])) == 0.75
    assert loads.same_set_frac(np.array([[0, 3], [1, 2], [4, 5], [6, 7]])) == 0.25


def test_layers_that_choose_alike():
    one = np.array([[1, 2], [3, 4], [5, 6], [7, 8]])
    assert loads.alike_frac(one, one[:, ::-1]) == 1
    assert loads.alike_frac(one, one + 10) == 0
    assert loads.alike_frac(one, np.where(one % 2, one, 0)) == 0.5


def test_likeness_is_of_all_of_a_long_recording():
    one = np.zeros((50_000, 1), np.int64)
    other = (np.arange(50_000) < 25_000).astype(np.int64)[:, None]
    assert loads.alike_frac(one, other) == pytest.approx(0.5, abs=0.01)
