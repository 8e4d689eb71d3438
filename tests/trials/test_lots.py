"""What a trial holds and in which order."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.claims.nouns import Grid, Models
from profiler.trials import lots
from tests.trials import fake

PAIRS = lots.pairs(
    fake.claim(
        cells=(
            Grid(batch=(1, 8), input_tokens=(10, 20), output_tokens=(5,)),
            Grid(batch=(4,), input_tokens=(10,), output_tokens=(5,)),
        )
    )
)


@pytest.mark.parametrize(
    ("starts", "looks", "at"),
    [(8, 3, (3, 6, 8)), (3, 3, (3,)), (4, 3, (3, 4)), (5, 1, (5,)), (12, 2, (6, 12)), (6, 9, (3, 4, 5, 6))],
)
def test_looks_are_spread_evenly_and_never_before_a_verdict_could_come_of_it(starts, looks, at):
    assert lots.looks_at(starts, looks) == at


def test_a_leg_is_a_side_at_a_pair_of_lengths_and_has_all_its_batches():
    claim = fake.claim(
        cells=(
            Grid(batch=(8, 1), input_tokens=(10, 20), output_tokens=(5,)),
            Grid(batch=(4,), input_tokens=(10,), output_tokens=(5,)),
        )
    )
    legs = [leg for pair in lots.pairs(claim) for leg in pair]
    assert [(leg.side, leg.input_tokens) for leg in legs] == [
        ("subject", 10),
        ("baseline", 10),
        ("subject", 20),
        ("baseline", 20),
    ]
    assert [lots.batches(claim, leg) for leg in legs] == [(1, 4, 8), (1, 4, 8), (1, 8), (1, 8)]


def test_a_side_may_say_how_long_its_own_answers_are():
    claim = fake.claim(
        subject=Models(output_tokens=900),
        baseline=Models(output_tokens=100),
        cells=(Grid(batch=(2,), input_tokens=(10,)),),
    )
    (subject, baseline) = lots.pairs(claim)[0]
    assert (subject.output_tokens, baseline.output_tokens) == (900, 100)
    assert lots.batches(claim, subject) == lots.batches(claim, baseline) == (2,)


def test_a_claim_without_cells_has_one_leg_a_side():
    claim = msgspec.structs.replace(fake.claim(), cells=())
    assert len(lots.pairs(claim)) == 1
    assert lots.batches(claim, lots.pairs(claim)[0][0]) == (1,)


@given(st.integers(0, 2**32), st.integers(0, 40))
def test_a_block_is_drawn_by_its_seed_and_number_alone_and_holds_every_leg_once(seed, number):
    block = lots.block(PAIRS, seed, number)
    assert block == lots.block(PAIRS, seed, number)
    assert sorted(block.order, key=str) == sorted((leg for pair in PAIRS for leg in pair), key=str)
    for first, second in zip(block.order[::2], block.order[1::2], strict=True):
        assert {first.side, second.side} == {"subject", "baseline"}
        assert first.input_tokens == second.input_tokens


@given(st.integers(0, 2**32), st.integers(0, 20))
def test_every_second_block_is_the_reverse_of_the_one_before(seed, pair):
    one, other = (lots.block(PAIRS, seed, 2 * pair + n) for n in (0, 1))
    assert other.order == tuple(reversed(one.order))


def test_over_many_blocks_each_side_is_first_by_lot():
    firsts = [lots.block(PAIRS[:1], seed, 0).order[0].side for seed in range(400)]
    assert 150 < firsts.count("subject") < 250
