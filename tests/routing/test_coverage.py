"""Distinct experts from recorded tokens: against enumeration and known truth; how often intervals hold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import experts
from profiler.routing.coverage import DECODE_TOKENS, Decode, Prefill, misses, symmetric_means
from profiler.routing.nouns import Coverage
from profiler.routing.recording import Recording
from tests.routing.recorded import drawn


def recording(chosen: np.ndarray, count: int, prompt: int = 0) -> Recording:
    """Of [requests, tokens, layers, k]; the first ``prompt`` tokens of each are its prompt."""
    requests, tokens, layers, per_token = chosen.shape
    return Recording(
        request=np.repeat(np.arange(requests), tokens),
        is_output=np.tile(np.arange(tokens) >= prompt, requests),
        chosen=chosen.reshape(-1, layers, per_token).astype(np.uint16),
        layers=tuple(range(layers)),
        experts=count,
    )


def collected(part: type, recorded: Recording) -> Decode | Prefill:
    steps = part(recorded)
    for place in range(len(recorded.layers)):
        steps.add(recorded.of_layer(place))
    return steps


def decode(chosen: np.ndarray, count: int) -> dict[int, Coverage]:
    steps = collected(Decode, recording(chosen, count))
    return {each.tokens: each for each in steps.coverages(steps.fitted_cv())}


def every_step(chosen: np.ndarray, tokens: int) -> float:
    """Mean distinct experts over all ways to take a token each of so many requests; one layer."""
    requests, held = chosen.shape[:2]
    found = [
        len(set(chosen[list(who), list(which), 0].ravel()))
        for who in itertools.combinations(range(requests), tokens)
        for which in itertools.product(range(held), repeat=tokens)
    ]
    return float(np.mean(found))


# ------------------------------------------------------------------------------------------- decode


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 6), st.integers(1, 3), st.integers(1, 3))
def test_decode_steps_are_the_mean_over_every_step_there_is(seed, requests, held, per_token):
    random = np.random.default_rng(seed)
    chosen = random.random((requests, held, 1, 7)).argsort(axis=-1)[..., :per_token]
    found = decode(chosen, 7)
    for tokens in (1, 2, 4):
        assert found[tokens].measured.value == pytest.approx(every_step(chosen, tokens), rel=1e-9)
        assert found[tokens].repeats is False


def test_steps_beyond_the_requests_take_different_tokens_of_each():
    """Two requests of two tokens, all four to experts of their own: a step of all four touches all four."""
    chosen = np.arange(4).reshape(2, 2, 1, 1)
    found = decode(chosen, 8)
    assert list(found) == [1, 2, 4]
    assert found[2].measured.value == pytest.approx(2)
    assert found[4].measured.value == pytest.approx(4)
    assert found[4].repeats is True
    assert found[4].measured.low is None, "tokens of one request resemble each other: no interval"


def test_uneven_steps_beyond_the_requests():
    """Three tokens of two requests: of one of them both."""
    fewer, more = (
        misses(np.eye(4, dtype=int).reshape(2, 2, 4).sum(axis=1), np.array([2, 2]), n) for n in (1, 2)
    )
    assert 4 - symmetric_means(fewer, more, 1)[1].sum() == pytest.approx(3)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 7), st.integers(0, 10**6))
def test_symmetric_means_are_means_over_subsets(requests, seed):
    out, taken = np.random.default_rng(seed).random((2, requests, 3))
    means = symmetric_means(out, taken, requests)
    for most in range(requests + 1):
        products = [
            np.where(np.isin(np.arange(requests), who)[:, None], taken, out).prod(axis=0)
            for who in itertools.combinations(range(requests), most)
        ]
        assert means[most] == pytest.approx(np.mean(products, axis=0), rel=1e-9)


@pytest.mark.parametrize("cv", [0.0, 0.6, 1.12])
def test_independent_tokens_touch_what_the_closed_forms_say(cv):
    """Two layers of known marginals, for which the truth is the sum over experts."""
    shares = [experts.marginals(64, 6, cv, layer) for layer in range(2)]
    found = decode(drawn(80, 24, shares, seed=3), 64)
    assert list(found) == list(DECODE_TOKENS)
    for tokens in (2, 8, 32):
        truth = np.mean([experts.distinct_of(each, float(tokens)) for each in shares])
        each = found[tokens]
        assert each.measured.value == pytest.approx(truth, rel=0.01)
        assert each.by_marginals == pytest.approx(truth, rel=0.02)
        assert each.uniform == experts.distinct_uniform(64, 6, tokens)
        assert each.skewed == pytest.approx(truth, rel=0.03)
        assert each.measured.n == 80
        assert each.lowest <= each.measured.value <= each.highest
    assert found[64].repeats is False
    assert found[128].repeats is True


def test_the_fitted_skew_is_the_drawn_one():
    steps = collected(Decode, recording(drawn(100, 31, [experts.marginals(128, 8, 1.0)]), 128))
    assert steps.fitted_cv() == pytest.approx(1.0, abs=0.06)
    (excess,) = steps.excesses
    assert excess == pytest.approx(1.0, abs=0.06)


def domains(requests: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Requests of four domains with experts of their own, and the shares of all of them together."""
    random = np.random.default_rng(seed)
    shares = [
        0.3 * experts.marginals(32, 4, 0.8, 9) + 0.7 * experts.marginals(32, 4, 0.8, d) for d in range(4)
    ]
    whose = random.integers(4, size=requests)
    chosen = [experts.choices(shares[d], 12, int(random.integers(1 << 30))) for d in whose]
    return np.array(chosen)[:, :, None, :], np.mean(shares, axis=0)


def test_intervals_hold_though_tokens_of_a_request_are_alike():
    """By known truth, 95 % intervals over correlated requests; and the mean has no bias."""
    hits, errors = [], []
    for seed in range(120):
        chosen, shares = domains(40, seed)
        found = decode(chosen, 32)
        for tokens in (4, 8, 16):
            truth = float(experts.distinct_of(shares, float(tokens)))
            measured = found[tokens].measured
            hits.append(measured.low <= truth <= measured.high)
            errors.append(measured.value - truth)
    assert 0.90 <= np.mean(hits) <= 0.99
    assert abs(np.mean(errors)) < 0.05


def test_one_request_has_no_interval():
    found = decode(np.arange(8).reshape(1, 4, 1, 2), 8)
    assert found[1].measured.value == 2
    assert found[1].measured.low is None


def test_steps_are_as_large_as_the_shortest_answer_allows():
    recorded = Recording(
        request=np.array([0, 1, 1, 1]),
        is_output=np.ones(4, bool),
        chosen=np.arange(4, dtype=np.uint16).reshape(4, 1, 1),
        layers=(0,),
        experts=4,
    )
    assert [each.tokens for each in collected(Decode, recorded).coverages(None)] == [1, 2]


def test_the_skew_is_fitted_to_steps_of_different_requests():
    """Each of eight requests repeats itself, which is no skew of the experts among requests."""
    chosen = np.repeat(np.arange(8).reshape(8, 1, 1, 1), 8, axis=1)
    steps = collected(Decode, recording(chosen, 8))
    assert steps.sizes == (1, 2, 4, 8, 16, 32, 64)
    assert steps.fitted_cv() == 0


def test_nothing_generated_is_no_decode():
    steps = collected(Decode, recording(np.zeros((3, 4, 1, 1), int), 4, prompt=4))
    assert steps.coverages(steps.fitted_cv()) == ()
    assert steps.fitted_cv() is None


# ------------------------------------------------------------------------------------------ prefill


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_prefill_counts_the_first_tokens_of_each_prompt(seed, requests):
    random = np.random.default_rng(seed)
    chosen = random.random((requests, 20, 2, 9)).argsort(axis=-1)[..., :2]
    steps = collected(Prefill, recording(chosen, 9, prompt=15))
    found = {each.tokens: each for each in steps.coverages(0.5)}
    assert list(found) == [1, 4], "a prompt has 15 tokens, the others were generated"
    for tokens, each in found.items():
        truth = [
            len(set(chosen[who, :tokens, layer].ravel())) for layer in range(2) for who in range(requests)
        ]
        assert each.measured.value == pytest.approx(np.mean(truth))
        assert each.measured.n == requests


def test_short_prompts_count_as_far_as_they_go():
    chosen = np.arange(20).reshape(20, 1, 1)
    recorded = Recording(
        request=np.repeat([0, 1], [16, 4]),
        is_output=np.zeros(20, bool),
        chosen=chosen.astype(np.uint16),
        layers=(0,),
        experts=20,
    )
    steps = collected(Prefill, recorded)
    found = {each.tokens: (each.measured.value, each.measured.n) for each in steps.coverages(None)}
    assert found == {1: (1, 2), 4: (4, 2), 16: (16, 1)}


def test_tokens_of_one_prompt_that_are_alike_touch_less_than_independent_ones():
    """What a step of one prompt shows and the experts' shares do not."""
    shares = [experts.marginals(32, 4, 1.2, domain) for domain in range(30)]
    chosen = np.array([experts.choices(each, 16, n) for n, each in enumerate(shares)])[:, :, None, :]
    steps = collected(Prefill, recording(chosen, 32, prompt=16))
    last = steps.coverages(None)[-1]
    assert last.tokens == 16
    assert last.measured.value < 0.85 * last.by_marginals
