"""Steps counted from tokens, against a continuous-batching engine whose every step is known."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import steps, store
from profiler.schema import RequestRecord
from profiler.windows import WindowView
from tests import make

S = make.S


@dataclass
class Truth:
    """What the simulated engine did between the ends of its window."""

    steps: int = 0
    tokens: int = 0
    before: int = 0
    mixed_steps: int = 0
    alone_steps: int = 0
    prompts: int = 0
    prompt_tokens: int = 0
    records: list[RequestRecord] = field(default_factory=list)


def engine(slots: int, seed: int, end_s: float = 60.0, start_s: float = 10.0) -> Truth:
    """``slots`` clients send their next request at once; a step gives every running sequence a token and
    takes in at most one prompt.  Tokens of a step arrive up to 0.3 ms apart."""
    dice, truth, now = random.Random(seed), Truth(), 1.0
    running: list[dict] = []
    waiting = [{"due": now, "prompt": dice.randint(5, 50), "want": dice.randint(1, 40)} for _ in range(slots)]
    while now < end_s + 5:
        now += dice.uniform(0.02, 0.05)
        inside = start_s < now <= end_s
        taken = waiting.pop(0) if waiting else None
        if inside and running:
            truth.steps += 1
            truth.tokens += len(running)
            truth.before += sum(each["prompt"] + len(each["at"]) for each in running)
        if inside and taken:
            truth.mixed_steps += bool(running)
            truth.alone_steps += not running
            truth.prompts += 1
            truth.prompt_tokens += taken["prompt"]
        running += [taken | {"at": []}] if taken else []
        for each in running:
            each["at"].append(round((now + dice.uniform(0, 0.0003)) * S))
        for each in [each for each in running if len(each["at"]) == each["want"]]:
            running.remove(each)
            truth.records.append(record(each, len(truth.records)))
            fresh = {"due": now + 0.001, "prompt": dice.randint(5, 50), "want": dice.randint(1, 40)}
            waiting.append(fresh)
    return truth


def record(done: dict, index: int) -> RequestRecord:
    at, due = done["at"], round(done["due"] * S)
    return make.request(
        0,
        index,
        done["due"],
        due_ns=due,
        first_ns=at[0],
        last_ns=at[-1],
        done_ns=at[-1] + 1000,
        input_tokens=done["prompt"],
        output_tokens=len(at),
        arrivals_ns=at,
        arrival_tokens=[1] * len(at),
    )


def views(out, records, start_s=10.0, end_s=60.0, run_id="run"):
    window = make.window(0, start_s, end_s)
    make.writer(out, [(window, records)], run_id=run_id).seal()
    run = store.load(out / run_id)
    return [WindowView(each, run.requests) for each in run.manifest.windows]


@settings(max_examples=15, deadline=None)
@given(slots=st.integers(1, 24), seed=st.integers(0, 10_000))
def test_steps_are_those_of_the_engine(tmp_path_factory, slots, seed):
    truth = engine(slots, seed)
    found = steps.count(views(tmp_path_factory.mktemp("steps"), truth.records))
    # Of a step that arrives across an end of the window only a part is inside.
    assert found.decode_tokens == pytest.approx(truth.tokens, rel=0.003)
    assert found.steps == pytest.approx(truth.steps, rel=0.003)
    assert found.context == pytest.approx(truth.before / truth.tokens, rel=0.003)
    assert found.mixed.steps == pytest.approx(truth.mixed_steps, abs=1)
    assert found.alone.steps == pytest.approx(truth.alone_steps, abs=1)
    prompts = found.mixed.sequences + found.alone.sequences
    assert prompts == pytest.approx(truth.prompts, abs=1)
    assert found.output_tokens == found.decode_tokens + prompts


def test_a_slot_alone(tmp_path):
    _, records = make.steady(0, 10.0)
    found = steps.count(views(tmp_path, records, end_s=20.0))
    assert (found.decode_tokens, found.steps, found.batch) == (200, 200, 1)
    assert found.context == pytest.approx(12.5)  # 11, 12, 13, 14 tokens are before the four
    assert found.alone == steps.Prompts(steps=50, sequences=50, tokens=10)
    assert found.mixed == steps.Prompts()


def test_prompts_that_come_out_together_shared_a_step(tmp_path):
    """Answers of one token: nothing decodes, so steps show in the first tokens only."""
    answers = [
        make.request(0, 4 * n + slot, 10 + n, arrivals_ns=[at := round((10.5 + n) * S) + slot * 1000],
                     arrival_tokens=[1], first_ns=at, last_ns=at, output_tokens=1)
        for n in range(5)
        for slot in range(4)
    ]  # fmt: skip
    found = steps.count(views(tmp_path, answers, end_s=20.0))
    assert (found.decode_tokens, found.steps, found.batch) == (0, 0, 0)
    assert (found.alone.steps, found.alone.sequences) == (5, 20)


def test_what_a_prefix_cache_had_is_no_work(tmp_path):
    _, records = make.steady(0, 10.0)
    said = [make.request(0, n, 10.0 + n * 0.2, cached_tokens=4) for n in range(50)]
    own = steps.count(views(tmp_path, said, end_s=20.0), cached_frac=0.9)
    assert (own.alone.tokens, own.alone.context) == (6, 4)
    by_engine = steps.count(views(tmp_path, records, end_s=20.0, run_id="b"), cached_frac=0.9)
    assert (by_engine.alone.tokens, by_engine.alone.context) == (pytest.approx(1), pytest.approx(9))


def test_several_tokens_in_a_piece_are_several_steps(tmp_path):
    records = [
        make.request(0, n, 10 + n * 0.2, arrival_tokens=[2, 1, 3, 2, 1], output_tokens=9) for n in range(50)
    ]
    found = steps.count(views(tmp_path, records, end_s=20.0))
    assert (found.decode_tokens, found.steps) == (400, 400)
    assert found.context == pytest.approx(10 + sum(range(1, 9)) / 8, rel=0.01)


def test_nothing_is_told_of_prompts_of_unknown_length_or_of_no_tokens(tmp_path):
    unknown = [make.request(0, n, 10 + n * 0.2, input_tokens=None) for n in range(50)]
    assert steps.count(views(tmp_path, unknown, end_s=20.0)) is None
    _, records = make.steady(0, 10.0)
    assert steps.count(views(tmp_path, records, start_s=30.0, end_s=40.0, run_id="b")) is None


def test_tokens_of_a_step_that_arrive_apart_are_one_step(tmp_path):
    """Eight in lockstep, a token 0.1 ms after the other: those that end a moment earlier were in the step."""
    records = []
    for n in range(50):
        for slot in range(8):
            at = [round((10.1 + n * 0.2 + token * 0.02) * S) + slot * S // 10_000 for token in range(5)]
            changes = {"arrivals_ns": at, "first_ns": at[0], "last_ns": at[-1]}
            records.append(make.request(0, 8 * n + slot, 10 + n * 0.2, **changes))
    found = steps.count(views(tmp_path, records, end_s=20.0))
    assert found.steps == pytest.approx(200)
    assert found.batch == pytest.approx(8)
    assert (found.alone.steps, found.alone.sequences) == (50, 400)
