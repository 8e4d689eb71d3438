"""Every target again: over all inputs that are kept, and over those Hypothesis makes of the seeds."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutate import mutate
from tests.fuzz.nouns import Target, kept
from tests.fuzz.targets import TARGETS

EXAMPLES = 60
ROUNDS = 3


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_kept_of_campaigns_breaks_nothing(name):
    for path in kept(name):
        try:
            TARGETS[name].run(path.read_bytes())
        except Exception as error:
            error.add_note(f"input: {path}")
            raise


@st.composite
def inputs(draw: st.DrawFn, target: Target) -> bytes:
    """A seed changed a few times with regard to its syntax, or cut and filled by Hypothesis."""
    data = draw(st.sampled_from([*target.seeds(), b""]))
    luck = draw(st.randoms(use_true_random=False))

    def raw(body: bytes, most: int) -> bytes:
        start, end = sorted((luck.randint(0, len(body)), luck.randint(0, len(body))))
        return (body[:start] + draw(st.binary(max_size=12)) + body[end:])[:most]

    for _ in range(draw(st.integers(1, ROUNDS))):
        data = mutate(target, data, target.most_bytes, luck, raw)
    return data


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_leaves_a_parser_but_by_a_result_or_an_expected_error(name):
    target = TARGETS[name]

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )
    @given(inputs(target))
    def tried(data: bytes) -> None:
        target.run(data)

    tried()


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_inputs_like_those_of_users(name):
    """At least one is taken without a word, else nothing behind the first check is ever reached."""
    target = TARGETS[name]
    assert any(0 < len(seed) <= target.most_bytes for seed in target.seeds())
    one = next(iter(target.seeds()))
    changed = {
        mutate(target, one, target.most_bytes, random.Random(n), lambda data, _: data) for n in range(40)
    }
    assert target.form == "bytes" or len(changed) > 10
