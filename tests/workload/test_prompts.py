"""Prompts: exact, fresh, uniform, and cheap."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.loadgen.client import target_of
from profiler.loadgen.payload import build
from profiler.schema import Endpoint
from profiler.settings import Workload
from profiler.workload import WORDS, Plan, ordinary_ids
from profiler.workload.plan import PlannedRequest
from profiler.workload.prompts import BLOCK, OWN, POOL_TOKENS, joined, of_ids

WORK = Workload(input_tokens=64, output_tokens=32)


def head(plan, index, count=16):
    return tuple(plan.prompt(PlannedRequest(index, count, 1)))


def test_the_same_plan_twice_is_the_same_and_other_windows_seeds_and_salts_are_not():
    plan = Plan(WORK, 32_000, 0)
    prompt = plan.prompt(plan.request(7))
    assert prompt == Plan(WORK, 32_000, 0).prompt(plan.request(7))
    seeded = Plan(Workload(input_tokens=64, output_tokens=32, seed=1), 32_000, 0)
    for other in (Plan(WORK, 32_000, 1), seeded, Plan(WORK, 32_000, 0, salt=1)):
        assert not set(_runs(other.prompt(plan.request(7)))) & set(_runs(prompt))
    assert plan.prompt(plan.request(8)) != prompt


def _runs(ids, length=4):
    return [tuple(ids[i : i + length]) for i in range(len(ids) - length)]


@settings(max_examples=80, deadline=None)
@given(
    vocab=st.sampled_from([1, 2, 3, 100, 1000, 1024, 32_000, 151_936]),
    index=st.integers(0, 1 << 39),
    count=st.integers(1, 3000),
)
def test_exactly_as_many_ids_as_wanted_as_the_json_says(vocab, index, count):
    plan = _plans.setdefault(vocab, Plan(WORK, vocab, 0))
    planned = PlannedRequest(index, count, 1)
    endpoint = Endpoint(base_url="http://h/v1", model="m")
    body = build(endpoint, target_of(endpoint), plan, planned).partition(b"\r\n\r\n")[2]
    ids = plan.prompt(planned)
    assert json.loads(body)["prompt"] == ids
    assert len(ids) == count
    low, end = ordinary_ids(vocab)
    assert low <= min(ids)
    assert max(ids) < end
    assert len(plan.text(planned).split()) == count


_plans: dict[int, Plan] = {}


@pytest.mark.parametrize("vocab", [1000, 1024, 32_000, 151_936])
def test_no_two_prompts_of_a_run_begin_alike(vocab):
    """A prefix cache keeps blocks of 16 tokens and more; the guarantee is for the first 5 to 7."""
    heads = set()
    for window in range(4):
        plan = Plan(WORK, vocab, window)
        heads |= {head(plan, index, 7) for index in range(2000)}
        heads |= {
            tuple(json.loads(b"[" + joined(plan._of_ids.fresh(BLOCK, n, 7)) + b"]")) for n in range(200)
        }
    assert len(heads) == 4 * 2200


def test_beginnings_differ_by_far_numbers_too():
    plan = Plan(WORK, 151_936, 0)
    far = [0, 1, 1 << 20, 1 << 30, (1 << 40) - 1]
    assert len({head(plan, index, 5) for index in far}) == len(far)
    assert head(Plan(WORK, 151_936, 1 << 20), 0, 5) != head(plan, 0, 5)


@pytest.mark.parametrize("vocab", [2, 100, 1000, 32_000, 151_936])
def test_ids_are_uniform_over_the_ordinary_ones(vocab):
    plan = Plan(WORK, vocab, 0)
    low, end = ordinary_ids(vocab)
    if vocab > 10_000:
        assert (low, end) == (256, pytest.approx(0.97 * vocab, abs=1))
    prompts = np.array([plan.prompt(PlannedRequest(i, 40, 1)) for i in range(1000)])
    cells = min(10, end - low)
    for ids in (prompts[:, 0], prompts[:, 1], prompts[:, 2], prompts[:, 4], prompts[:, 30], prompts.ravel()):
        counts = np.histogram(ids, np.linspace(low, end, cells + 1))[0]
        expected = len(ids) / cells
        assert abs(counts - expected).max() < 6 * np.sqrt(expected)


def test_long_prompts_go_round_the_pool():
    prompts = of_ids(32_000, 0, 0, 0)
    ids = json.loads(b"[" + joined(prompts.fresh(OWN, 12, 3 * POOL_TOKENS)) + b"]")
    assert len(ids) == 3 * POOL_TOKENS
    assert ids[10:1000] == ids[10 + POOL_TOKENS : 1000 + POOL_TOKENS]


def test_neighbours_do_not_overlap():
    """Requests under way together read different stretches of the pool."""
    plan = Plan(WORK, 151_936, 0)
    runs = [set(_runs(plan.prompt(PlannedRequest(i, 512, 1))[8:])) for i in range(60)]
    for i, own in enumerate(runs):
        for other in runs[i + 1 :]:
            assert not own & other


def test_words_are_distinct():
    assert len(set(WORDS)) == len(WORDS)


@pytest.mark.timing
@pytest.mark.parametrize(("count", "most_s"), [(512, 15e-6), (32_768, 150e-6)])
@pytest.mark.parametrize("fields", [{}, {"prompt": "text"}, {"prompt": "text", "protocol": "chat"}])
def test_building_is_cheap(fields, count, most_s):
    plan = Plan(Workload(input_tokens=count, output_tokens=8), 128_000, 0)
    endpoint = Endpoint(base_url="http://h/v1", model="m", **fields)
    target = target_of(endpoint)
    build(endpoint, target, plan, plan.request(0))
    took = []
    for start in range(0, 1000, 100):
        began = time.perf_counter()
        for index in range(start, start + 100):
            build(endpoint, target, plan, plan.request(index))
        took.append((time.perf_counter() - began) / 100)
    assert min(took) < most_s
