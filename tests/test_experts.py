"""Distinct experts: closed forms against quadrature and simulation; drawn routings keep their word."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from profiler import experts
from profiler.errors import InputError

TRIALS = 400


@st.composite
def layers(draw: st.DrawFn, skewed: bool = True) -> tuple[int, int, float]:
    """Experts, experts a token, and a possible CV."""
    count = draw(st.integers(2, 160))
    per_token = draw(st.integers(1, min(16, count - 1)))
    share = draw(st.floats(0.02, 0.8)) if skewed else 0.0
    return count, per_token, share * experts.largest_cv(count, per_token)


def touched(chosen: np.ndarray, count: int) -> np.ndarray:
    """Distinct experts of each trial; ``chosen`` is [trials, tokens, k]."""
    seen = np.zeros((len(chosen), count), bool)
    np.put_along_axis(seen, chosen.reshape(len(chosen), -1), True, axis=1)
    return seen.sum(axis=1)


def assert_mean(values: np.ndarray, expected: float, count: int) -> None:
    """Within five standard errors, by a bound that holds for experts which exclude each other."""
    spread = math.sqrt(expected * (1 - expected / count) / len(values))
    assert abs(values.mean() - expected) < 5 * spread + 5 / len(values)


# -------------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize(
    ("tokens", "uniform"), [(1, 8), (8, 51.6), (16, 82.4), (32, 111.8), (64, 125.9), (128, 128.0)]
)
def test_known_numbers_of_uniform_experts(tokens, uniform):
    assert experts.distinct_uniform(128, 8, tokens) == pytest.approx(uniform, abs=0.05)


# Σ_e of the load heat-map of Qwen3-235B-A22B that MoE-CAP published (94 layers, median CV 1.12).
@pytest.mark.parametrize(
    ("tokens", "measured"),
    [(1, 8), (8, 42.1), (16, 61.6), (32, 81.0), (64, 96.8), (128, 108), (512, 121.8)],
)
def test_the_skewed_form_is_within_three_percent_of_a_trained_model(tokens, measured):
    assert experts.distinct_skewed(128, 8, tokens, 1.12) == pytest.approx(measured, rel=0.03)


@pytest.mark.parametrize(
    ("count", "per_token", "cv"), [(128, 8, 1.12), (64, 6, 0.5), (8, 2, 1.2), (512, 10, 2)]
)
@pytest.mark.parametrize("tokens", [1, 2, 7, 64, 300])
def test_the_skewed_form_is_the_integral_over_the_beta_distribution(count, per_token, cv, tokens):
    mean = per_token / count
    nu = (1 - mean) / (mean * cv**2) - 1
    law = stats.beta(mean * nu, (1 - mean) * nu)
    # By parts: the chance of being touched, against the distribution function, has no pole at 0.
    touched, _ = integrate.quad(lambda p: tokens * (1 - p) ** (tokens - 1) * law.sf(p), 0, 1, limit=500)
    assert experts.distinct_skewed(count, per_token, tokens, cv) == pytest.approx(count * touched, rel=1e-5)


@given(layers(), st.integers(1, 5000))
def test_skew_touches_fewer_and_never_less_than_one_token_does(layer, tokens):
    count, per_token, cv = layer
    uniform = experts.distinct_uniform(count, per_token, tokens)
    skewed = experts.distinct_skewed(count, per_token, tokens, cv)
    more = experts.distinct_skewed(count, per_token, tokens + 1, cv)
    assert per_token * (1 - 1e-9) <= skewed <= uniform * (1 + 1e-9)
    assert skewed <= more <= min(count, skewed + per_token) * (1 + 1e-9)
    assert uniform <= experts.distinct_with_replacement(count, per_token, tokens) + per_token


@given(layers(), st.floats(1, 1e6))
def test_one_token_touches_k_and_no_skew_is_uniform(layer, tokens):
    count, per_token, cv = layer
    assert experts.distinct_skewed(count, per_token, 1, cv) == pytest.approx(per_token, rel=1e-9)
    uniform = experts.distinct_uniform(count, per_token, tokens)
    for small in (0.0, 1e-300, 1e-9, 1e-6):
        assert experts.distinct_skewed(count, per_token, tokens, small) == pytest.approx(uniform, rel=1e-6)


def test_the_series_joins_the_exact_logarithm():
    """On both sides of where one takes over from the other, by exact products."""
    for x in (experts.STIRLING_FROM * 0.99, experts.STIRLING_FROM, 1e6):
        for count in (1, 3, 500):
            exact = math.fsum(math.log1p(i / x) for i in range(count))
            assert experts._log_rising(x, count) == pytest.approx(exact, rel=1e-9, abs=1e-11)


def test_of_an_array_an_array():
    tokens = np.array([[1, 8, 1], [16, 32, 8]])
    for form in (
        lambda b: experts.distinct_uniform(128, 8, b),
        lambda b: experts.distinct_with_replacement(128, 8, b),
        lambda b: experts.distinct_skewed(128, 8, b, 1.12),
        lambda b: experts.distinct_skewed(128, 8, b, 0.0),
    ):
        found = form(tokens)
        assert found.shape == tokens.shape
        assert found.ravel().tolist() == pytest.approx([form(int(b)) for b in tokens.ravel()])
        assert isinstance(form(8), float)


def test_distinct_of_marginals_is_the_sum_over_experts():
    shares = np.array([[1.0, 0.5, 0.5, 0.0], [0.5, 0.5, 0.5, 0.5]])
    assert experts.distinct_of(shares, [0, 1, 2]).tolist() == [[0, 2, 2.5], [0, 2, 3]]
    assert experts.distinct_of(shares, 2).tolist() == [2.5, 3]


@settings(max_examples=30, deadline=None)
@given(layers(), st.integers(2, 200))
def test_the_fit_finds_the_skew_again(layer, tokens):
    count, per_token, cv = layer
    steps = [1, 2, tokens, 4 * tokens]
    seen = [experts.distinct_skewed(count, per_token, b, cv) for b in steps]
    assert experts.fit_cv(count, per_token, steps, seen) == pytest.approx(cv, abs=1e-3)


def test_the_fit_of_what_shows_no_skew_is_zero():
    assert experts.fit_cv(128, 8, [8, 32], [51.7, 112]) == 0
    assert experts.fit_cv(8, 8, [4], [8]) == 0


def test_the_fit_needs_a_step_of_two_tokens():
    with pytest.raises(InputError, match="two tokens"):
        experts.fit_cv(128, 8, [1], [8])


@pytest.mark.parametrize("cv", [3.873, -0.1, math.nan, math.inf])
def test_an_impossible_skew_is_refused_with_the_largest(cv):
    for refuse in (
        lambda: experts.distinct_skewed(128, 8, 4, cv),
        lambda: experts.marginals(128, 8, cv),
    ):
        with pytest.raises(InputError, match=re.escape("below 3.873")):
            refuse()


@pytest.mark.parametrize(("count", "per_token"), [(4, 5), (4, 0)])
def test_more_experts_a_token_than_there_are_is_refused(count, per_token):
    for form in (experts.distinct_uniform, experts.distinct_with_replacement):
        with pytest.raises(InputError, match=f"{per_token} experts a token of {count}"):
            form(count, per_token, 2)


# --------------------------------------------------------------------------------- against simulation


@settings(max_examples=15, deadline=None)
@given(layers(skewed=False), st.integers(1, 40), st.integers(0, 99))
def test_uniform_forms_against_drawn_experts(layer, tokens, seed):
    count, per_token, _ = layer
    random = np.random.default_rng(seed)
    scores = random.random((TRIALS, tokens, count))
    apart = np.argpartition(scores, per_token - 1, axis=-1)[..., :per_token]
    assert_mean(touched(apart, count), experts.distinct_uniform(count, per_token, tokens), count)
    again = random.integers(count, size=(TRIALS, tokens, per_token))
    assert_mean(touched(again, count), experts.distinct_with_replacement(count, per_token, tokens), count)


@settings(max_examples=15, deadline=None)
@given(layers(), st.integers(1, 40), st.integers(0, 99))
def test_drawn_routings_touch_what_their_marginals_say(layer, tokens, seed):
    count, per_token, cv = layer
    shares = experts.marginals(count, per_token, cv, seed)
    chosen = experts.choices(shares, TRIALS * tokens, seed).reshape(TRIALS, tokens, per_token)
    assert_mean(touched(chosen, count), float(experts.distinct_of(shares, tokens)), count)


@settings(max_examples=15, deadline=None)
@given(layers(), st.integers(0, 99))
def test_drawn_experts_are_distinct_and_each_as_likely_as_asked(layer, seed):
    count, per_token, cv = layer
    shares = experts.marginals(count, per_token, cv, seed)
    tokens = 20_000
    chosen = experts.choices(shares, tokens, seed)
    assert chosen.shape == (tokens, per_token)
    assert (np.diff(np.sort(chosen, axis=1), axis=1) > 0).all()
    seen = np.bincount(chosen.ravel(), minlength=count) / tokens
    error = np.sqrt(shares * (1 - shares) / tokens)
    assert (abs(seen - shares) <= 5 * error + 5 / tokens).all()


# ----------------------------------------------------------------------------------- made to order


@settings(max_examples=60, deadline=None)
@given(layers(), st.integers(0, 99))
def test_marginals_have_the_sum_and_the_skew_that_was_asked(layer, seed):
    count, per_token, cv = layer
    shares = experts.marginals(count, per_token, cv, seed)
    assert shares.shape == (count,)
    assert 0 <= shares.min() <= shares.max() <= 1
    assert shares.sum() == pytest.approx(per_token, rel=1e-9)
    assert shares.std() / shares.mean() == pytest.approx(cv, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([(128, 8), (64, 6), (512, 10), (60, 4)]), st.floats(0.1, 0.5), st.integers(1, 256))
def test_marginals_are_shaped_as_the_closed_form_assumes(layer, share, tokens):
    cv = share * experts.largest_cv(*layer)
    drawn = float(experts.distinct_of(experts.marginals(*layer, cv), tokens))
    assert drawn == pytest.approx(experts.distinct_skewed(*layer, tokens, cv), rel=0.03)


@pytest.mark.parametrize("share", [0.99, 0.999999])
@pytest.mark.parametrize("layer", [(128, 8), (8, 2), (5, 4), (16, 1)])
def test_marginals_near_the_edge_of_what_is_possible(layer, share):
    cv = share * experts.largest_cv(*layer)
    shares = experts.marginals(*layer, cv)
    assert shares.std() / shares.mean() == pytest.approx(cv, rel=1e-6)
    assert experts.choices(shares, 500).shape == (500, layer[1])


def test_without_skew_all_experts_are_alike():
    assert set(experts.marginals(128, 8, 0.0).tolist()) == {1 / 16}
    assert experts.choices(np.ones(4), 3).shape == (3, 4)  # all of them, each token


@pytest.mark.parametrize("cv", [1e-300, 1e-12, 1e-6])
def test_hardly_any_skew(cv):
    shares = experts.marginals(128, 8, cv)
    assert shares.std() / shares.mean() == pytest.approx(cv, rel=1e-3, abs=1e-15)


def test_a_seed_says_which_expert_is_busy():
    one, same, other = (experts.marginals(128, 8, 1.0, seed) for seed in (1, 1, 2))
    assert (one == same).all()
    assert one.argmax() != other.argmax()
    assert sorted(one) == sorted(other)
    assert (experts.choices(one, 100, 1) == experts.choices(one, 100, 1)).all()
    assert (experts.choices(one, 100, 1) != experts.choices(one, 100, 2)).any()


def test_any_two_experts_meet_in_a_token():
    """Systematic sampling in one fixed order would never choose neighbours together."""
    chosen = experts.choices(np.full(16, 0.25), 40_000)
    member = np.zeros((len(chosen), 16), bool)
    np.put_along_axis(member, chosen, True, axis=1)
    together = (member.T.astype(int) @ member) / len(member)
    pairs = together[~np.eye(16, dtype=bool)]
    assert pairs.mean() == pytest.approx(4 * 3 / (16 * 15))
    assert pairs.min() > 0.75 * pairs.mean()
    assert pairs.max() < 1.25 * pairs.mean()


def test_marginals_that_are_none_are_refused():
    for wrong in ([0.5, 0.6], [-0.5, 1.5], [1.2, 0.8], [0.0, 0.0]):
        with pytest.raises(ValueError, match="add up"):
            experts.choices(np.array(wrong), 1)


@pytest.mark.timing
def test_a_million_choices_take_less_than_a_second():
    import time

    shares = experts.marginals(128, 8, 1.12)
    start = time.perf_counter()
    experts.choices(shares, 125_000)
    assert time.perf_counter() - start < 1


# ------------------------------------------------------------------------------------------- words


def test_routings_as_a_user_writes_them():
    assert experts.parse("model") == "model"
    assert experts.parse("uniform") == "uniform"
    assert experts.parse("skew=1.1") == 1.1
    assert experts.parse("skew=0") == 0


@pytest.mark.parametrize(
    "text", ["", "auto", "skew", "skew=", "skew=x", "skew=-1", "skew=nan", "skew=inf", "cv=1"]
)
def test_a_word_that_is_no_routing_is_refused(text):
    with pytest.raises(InputError, match=re.escape(f"routing {text!r}: model, uniform or skew=CV")):
        experts.parse(text)
