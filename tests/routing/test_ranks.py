"""Expert parallel ranks: placement, imbalance by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from profiler import experts
from profiler.routing import ranks
from profiler.routing.recording import Recording
from tests.routing.recorded import drawn


def recording(chosen: np.ndarray, count: int, prompt: int) -> Recording:
    requests, tokens, layers, per_token = chosen.shape
    return Recording(
        request=np.repeat(np.arange(requests), tokens),
        is_output=np.tile(np.arange(tokens) >= prompt, requests),
        chosen=chosen.reshape(-1, layers, per_token).astype(np.uint16),
        layers=tuple(range(layers)),
        experts=count,
    )


def figures(recorded: Recording) -> dict[tuple[int, int | None], ranks.Ranks]:
    steps = ranks.RankSteps(recorded)
    for place in range(len(recorded.layers)):
        steps.add(recorded.of_layer(place))
    return {(each.ranks, each.tokens): each for each in steps.figures()}


@pytest.mark.parametrize(("count", "parts"), [(8, [0, 2, 4, 6]), (10, [0, 3, 6, 8]), (4, [0, 1, 2, 3])])
def test_experts_are_placed_in_order_and_as_evenly_as_can_be(count, parts):
    assert ranks.starts_of(count, 4) == parts


def test_the_busiest_rank_by_load_and_by_distinct_experts():
    """Two steps on two ranks of two experts each."""
    loads = np.array([[4, 0, 2, 2], [1, 1, 0, 0]])
    load, distinct = ranks.imbalance(loads, 2)
    assert load == (4 / 4 + 2 / 1) / 2
    assert distinct == (2 / 1.5 + 2 / 1) / 2


def test_decode_steps_hold_generated_tokens_of_different_requests():
    request = np.repeat(np.arange(10), 6)
    generated = np.flatnonzero(np.tile(np.arange(6) >= 4, 10))
    steps = ranks.decode_steps(request, generated, 8)
    owners = request[steps.token].reshape(steps.made, 8)
    assert set(steps.token) == set(generated), "every generated token is in some step"
    assert all(len(set(row)) == 8 for row in owners.tolist())
    assert steps.step.tolist() == np.repeat(np.arange(steps.made), 8).tolist()


def test_even_routing_on_ranks_is_uneven_by_chance_only():
    """Against steps drawn afresh."""
    shares = experts.marginals(32, 4, 0.0)
    found = figures(recording(drawn(40, 20, [shares], seed=1), 32, prompt=12))
    assert sorted({key[0] for key in found}) == [2, 4, 8, 16]
    fresh = experts.choices(shares, 8 * 4000, 9).reshape(4000, 8, 4)
    seen = np.zeros((4000, 32), int)
    np.add.at(seen, (np.arange(4000)[:, None, None], fresh), 1)
    load, distinct = ranks.imbalance(seen, 4)
    assert found[4, 8].load_median == pytest.approx(load, rel=0.06)
    assert found[4, 8].distinct_median == pytest.approx(distinct, rel=0.05)
    assert found[4, 32].load_median < found[4, 8].load_median, "chance evens out"
    assert (4, 64) not in found, "there are 40 requests"


def test_a_busy_rank_shows_in_prefill_by_its_load_and_in_decode_by_its_experts():
    """Rank 0 of two has expert 0, which every token uses, and seven that hardly any does."""
    random = np.random.default_rng(0)
    chosen = np.stack([np.zeros((30, 40), int), random.integers(8, 16, (30, 40))], axis=-1)[:, :, None, :]
    found = figures(recording(chosen, 16, prompt=32))
    assert found[2, None].load_median == pytest.approx(1)
    assert found[2, None].distinct_median > 1.5
    assert found[16, None].load_median == pytest.approx(8)


def test_median_and_ninetieth_percentile_are_over_layers():
    even, busy = np.zeros((20, 4, 1, 1), int), np.zeros((20, 4, 1, 1), int)
    even[:, :, 0, 0] = np.arange(4)  # each prompt goes once to every expert
    found = figures(recording(np.concatenate([even] * 9 + [busy], axis=2), 4, prompt=4))
    assert found[4, None].load_median == 1
    assert found[4, None].load_p90 == pytest.approx(1 + 0.1 * 3)


def test_no_more_ranks_than_experts():
    found = figures(recording(np.zeros((10, 2, 1, 1), int), 4, prompt=1))
    assert {key[0] for key in found} == {2, 4}
