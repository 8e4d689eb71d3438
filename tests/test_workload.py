import numpy as np
import pytest

from profiler.settings import Length, Workload
from profiler.workload import WORDS, Plan, ordinary_ids


def plan(window=0, vocab=32_000, salt=0, **fields):
    return Plan(Workload(**{"input_tokens": 64, "output_tokens": 32} | fields), vocab, window, salt)


def test_the_same_plan_twice_is_the_same_and_other_windows_seeds_and_salts_are_not():
    request = plan().request(7)
    prompt = plan().prompt(request)
    assert prompt == plan().prompt(request)
    for other in (plan(window=1), plan(seed=1), plan(salt=1)):
        assert not set(_runs(other.prompt(request))) & set(_runs(prompt))
    assert plan().prompt(plan().request(8)) != prompt


def _runs(ids, length=4):
    return [tuple(ids[i : i + length]) for i in range(len(ids) - length)]


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


def test_any_short_run_of_requests_holds_the_same_mix():
    """Stratified: the mean of 32 consecutive lengths scatters far less than independent draws would."""
    spread = plan(input_tokens=Length(mean=1000, spread=1.0))
    lengths = np.array([spread.request(i).input_tokens for i in range(32 * 100)])
    means = lengths.reshape(100, 32).mean(axis=1)
    independent = 2000 / np.sqrt(12) / np.sqrt(32)
    assert means.std() < independent / 3


@pytest.mark.parametrize("vocab", [2, 100, 1000, 32_000, 151_936])
def test_ids_stay_inside_the_vocabulary_and_off_its_special_ends(vocab):
    ids = np.concatenate([plan(vocab=vocab).prompt(plan().request(i)) for i in range(200)])
    low, end = ordinary_ids(vocab)
    assert 0 <= low <= ids.min()
    assert ids.max() < end <= vocab
    if vocab > 10_000:
        assert low == 256
        assert end == pytest.approx(0.97 * vocab, abs=1)


def test_shared_prefix_is_common_to_all_windows_of_a_seed_and_the_rest_is_fresh():
    first = plan(shared_prefix_tokens=16)
    second = plan(shared_prefix_tokens=16, window=3)
    a, b = first.prompt(first.request(0)), second.prompt(second.request(5))
    assert len(a) == len(b) == 64
    assert a[:16] == b[:16]
    assert not set(_runs(a[16:])) & set(_runs(b))
    other = plan(shared_prefix_tokens=16, seed=9)
    assert other.prompt(other.request(0))[:16] != a[:16]
    whole = plan(shared_prefix_tokens=500)
    assert len(whole.prompt(whole.request(0))) == 64


def test_text_is_plain_words_about_as_many_as_tokens():
    text = plan().text(plan().request(3))
    assert len(text.split()) == 64
    assert set(text.split()) <= set(WORDS)
    assert text.isascii()
    assert text == plan().text(plan().request(3)) != plan().text(plan().request(4))


def test_words_are_distinct():
    assert len(set(WORDS)) == len(WORDS)
