"""What requests ask: lengths, mixes, groups, conversations."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.settings import Conversation, Length, Load, Pause, Share, Workload
from profiler.workload import WORDS, Plan, extent
from profiler.workload.draws import STEPS, Points


def plan(window=0, vocab=32_000, salt=0, **fields):
    return Plan(Workload(**{"input_tokens": 64, "output_tokens": 32} | fields), vocab, window, salt)


# ------------------------------------------------------------------------------------------ lengths


def test_exact_lengths():
    for index in range(50):
        request = plan().request(index)
        assert (request.index, request.input_tokens, request.output_tokens) == (index, 64, 32)
        assert len(plan().prompt(request)) == 64


def test_spread_lengths_are_uniform_on_their_range_and_uncorrelated():
    spread = plan(input_tokens=Length(mean=100, spread=0.5), output_tokens=Length(mean=40, spread=1.0))
    requests = [spread.request(i) for i in range(4000)]
    inputs = np.array([r.input_tokens for r in requests])
    outputs = np.array([r.output_tokens for r in requests])
    assert (inputs.min(), inputs.max()) == (50, 150)
    assert (outputs.min(), outputs.max()) == (1, 80)
    assert inputs.mean() == pytest.approx(100, rel=0.005)
    assert np.percentile(inputs, [25, 75]) == pytest.approx([75, 125], abs=1.5)
    assert abs(np.corrcoef(inputs, outputs)[0, 1]) < 0.02


def test_what_a_request_is_in_one_respect_says_nothing_of_another():
    points = Points(0, 0)
    drawn = np.array([[points.at(which, index) for index in range(4000)] for which in range(len(STEPS))])
    assert abs(np.corrcoef(drawn) - np.eye(len(STEPS))).max() < 0.015
    assert drawn.mean(axis=1) == pytest.approx([0.5] * len(STEPS), abs=0.002)


def test_any_short_run_of_requests_holds_the_same_lengths():
    """Stratified: the mean of 32 consecutive lengths scatters far less than independent draws would."""
    spread = plan(input_tokens=Length(mean=1000, spread=1.0))
    lengths = np.array([spread.request(i).input_tokens for i in range(32 * 100)])
    means = lengths.reshape(100, 32).mean(axis=1)
    independent = 2000 / np.sqrt(12) / np.sqrt(32)
    assert means.std() < independent / 3


# -------------------------------------------------------------------------------------------- mixes

MIX = (
    Share(name="chat", weight=6, input_tokens=10, output_tokens=Length(mean=100, spread=1.0)),
    Share(name="code", weight=3, input_tokens=20, output_tokens=2),
    Share(name="summary", weight=1, input_tokens=Length(mean=300, spread=0.5), output_tokens=3),
)


def mixed(window=0):
    return Plan(Workload(mix=MIX), 32_000, window)


def test_a_mix_has_the_shares_of_its_weights():
    requests = [mixed().request(i) for i in range(2000)]
    counts = Counter(r.share for r in requests)
    assert [counts[share] for share in range(3)] == pytest.approx([1200, 600, 200], abs=4)
    assert {r.input_tokens for r in requests if r.share == 0} == {10}
    assert {(r.input_tokens, r.output_tokens) for r in requests if r.share == 1} == {(20, 2)}
    chats = np.array([r.output_tokens for r in requests if r.share == 0])
    assert np.percentile(chats, [5, 50, 95]) == pytest.approx([10, 100, 190], abs=4)


@pytest.mark.parametrize("window", range(5))
def test_any_few_dozen_requests_hold_the_mix(window):
    shares = np.array([mixed(window).request(i).share for i in range(1000)])
    for share, expected in enumerate((24, 12, 4)):
        counts = np.convolve(shares == share, np.ones(40), "valid")
        assert abs(counts - expected).max() <= 2.5


# ---------------------------------------------------------------------------------------- prefixes


def test_shared_prefix_is_common_to_all_windows_of_a_seed_and_the_rest_is_fresh():
    first = plan(shared_prefix_tokens=16)
    second = plan(shared_prefix_tokens=16, window=3)
    a, b = first.prompt(first.request(0)), second.prompt(second.request(5))
    assert len(a) == len(b) == 64
    assert a[:16] == b[:16]
    assert a[16:20] != b[16:20]
    other = plan(shared_prefix_tokens=16, seed=9)
    assert other.prompt(other.request(0))[:16] != a[:16]
    salted = plan(shared_prefix_tokens=16, salt=9)
    assert salted.prompt(salted.request(0))[:16] != a[:16]
    whole = plan(shared_prefix_tokens=500)
    assert len(whole.prompt(whole.request(0))) == 64


def test_groups_share_a_prefix_each_and_come_equally_often():
    grouped = plan(shared_prefix_tokens=16, prefix_groups=8)
    heads = [tuple(grouped.prompt(grouped.request(i))[:16]) for i in range(400)]
    assert sorted(Counter(heads).values()) == pytest.approx([50] * 8, abs=2)
    assert len(set(heads[:24])) == 8
    texts = {tuple(grouped.text(grouped.request(i)).split()[:16]) for i in range(40)}
    assert len(texts) == 8


# ------------------------------------------------------------------------------------ conversations


def talkative(turns=3, think_s=0.0, **fields):
    return plan(conversation=Conversation(turns=turns, think_s=think_s), **fields)


def test_a_conversation_grows_by_what_was_answered():
    talks = talkative(input_tokens=Length(mean=20, spread=0.5), output_tokens=5)
    talk = talks.conversation(0)
    first = talk.open(3)
    assert (first.turn, first.input_tokens) == (0, talks.request(3).input_tokens)
    second = talk.go_on(7, [1, 2, 3])
    own = talks.prompt(talks.request(7))
    assert talks.prompt(second) == [*talks.prompt(first), 1, 2, 3, *own]
    third = talk.go_on(8, [])
    assert talks.prompt(third) == [*talks.prompt(second), *talks.prompt(talks.request(8))]
    assert [(r.turn, r.index) for r in (first, second, third)] == [(0, 3), (1, 7), (2, 8)]
    assert all(r.input_tokens == len(talks.prompt(r)) for r in (first, second, third))
    assert talk.go_on(9, [1]) is None


def test_only_the_first_turn_has_the_shared_prefix_and_it_stays_the_conversations():
    talks = talkative(shared_prefix_tokens=16, prefix_groups=8)
    for number in range(12):
        talk = talks.conversation(number)
        first = talks.prompt(talk.open(2 * number))
        second = talks.prompt(talk.go_on(2 * number + 1, [9, 9]))
        assert second[:66] == [*first, 9, 9]
        assert second[66:82] not in [talks.prompt(talks.request(i))[:16] for i in range(40)]
        assert len(second) == 130
        third = talks.prompt(talk.go_on(2 * number, []))
        assert third[:130] == second


def test_an_answer_in_the_wrong_form_is_replaced_by_as_many_tokens():
    """A server that takes ids but returns none: the history keeps its length."""
    talks = talkative()
    talk = talks.conversation(0)
    first = talk.open(0)
    second = talk.go_on(1, "some text")
    ids = talks.prompt(second)
    assert len(ids) == second.input_tokens == 64 + 32 + 64
    assert ids[:64] == talks.prompt(first)
    texts = talkative()
    talk = texts.conversation(0)
    talk.open(0)
    assert len(texts.text(talk.go_on(1, [5, 6, 7])).split()) == 64 + 3 + 64


def test_conversations_have_their_number_of_turns():
    talks = talkative(turns=Length(mean=4, spread=0.5))
    turns = [talks.conversation(number).turns for number in range(100)]
    assert Counter(turns).keys() == {2, 3, 4, 5, 6}
    assert np.mean(turns) == pytest.approx(4, abs=0.1)
    talk = talks.conversation(1)
    talk.open(0)
    went_on = 1
    while talk.go_on(went_on, [1]) is not None:
        went_on += 1
    assert went_on == turns[1]


def test_pauses_are_spread_around_their_mean():
    assert talkative(think_s=2.5).conversation(0).think_s() == 2.5
    talks = talkative(think_s=Pause(mean_s=4, spread=0.5))
    pauses = []
    for number in range(200):
        talk = talks.conversation(number)
        talk.open(number)
        pauses.append(talk.think_s())
    assert (min(pauses), max(pauses)) == pytest.approx((2, 6), abs=0.1)
    assert np.mean(pauses) == pytest.approx(4, abs=0.05)
    assert plan().think_s(Pause(mean_s=4), 3) == 4


# -------------------------------------------------------------------------------------- the extent

kinds = st.one_of(
    st.integers(1, 500),
    st.builds(Length, mean=st.integers(1, 500), spread=st.floats(0, 1)),
)


@settings(max_examples=60)
@given(kinds, kinds, st.integers(1, 5), st.sampled_from([None, Conversation(turns=3)]))
def test_no_request_is_beyond_the_extent(input_tokens, output_tokens, weight, conversation):
    shares = (
        Share(name="a", weight=weight, input_tokens=input_tokens, output_tokens=7),
        Share(name="b", weight=1, input_tokens=40, output_tokens=output_tokens),
    )
    work = Workload(mix=shares, conversation=conversation)
    size, made = extent(work, Load()), Plan(work, 1000, 0)
    requests = [made.request(i) for i in range(50)]
    if conversation:
        talk = made.conversation(0)
        requests += [talk.open(50), talk.go_on(51, [1] * requests[0].output_tokens)]
    assert min(r.input_tokens for r in requests) >= size.shortest_input
    assert max(r.input_tokens for r in requests) <= size.longest_input
    assert max(r.output_tokens for r in requests) <= size.longest_output
    assert max(r.input_tokens + r.output_tokens for r in requests) <= size.longest_total


def test_the_extent_by_hand():
    work = Workload(input_tokens=Length(mean=100, spread=0.5), output_tokens=10)
    size = extent(work, Load())
    assert (size.shortest_input, size.mean_input, size.longest_input) == (50, 100, 150)
    assert (size.mean_output, size.longest_output, size.longest_total) == (10, 10, 160)
    mix = extent(Workload(mix=MIX), Load())
    assert (mix.shortest_input, mix.mean_input, mix.longest_input) == (10, 42, 450)
    assert (mix.longest_output, mix.longest_total) == (200, 453)
    talk = Workload(input_tokens=100, output_tokens=10, conversation=Conversation(turns=3))
    size = extent(talk, Load())
    assert (size.shortest_input, size.mean_input, size.longest_input) == (100, 210, 320)
    assert size.longest_total == 330


def test_a_plan_is_the_same_whatever_was_asked_of_it_before():
    one, other = mixed(), mixed()
    backwards = [other.request(i) for i in reversed(range(20))][::-1]
    assert [one.request(i) for i in range(20)] == backwards
    assert list(map(one.prompt, backwards)) == list(map(partial(Plan.prompt, mixed()), backwards))
    assert one.request(3) != mixed(1).request(3)


def test_text_is_plain_words_about_as_many_as_tokens():
    text = plan().text(plan().request(3))
    assert len(text.split()) == 64
    assert set(text.split()) <= set(WORDS)
    assert text.isascii()
    assert text == plan().text(plan().request(3)) != plan().text(plan().request(4))
