"""Where a claim holds, in words, and the batch at which the ratio crosses 1."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.claims import judge, region
from profiler.claims.nouns import Cell, Side
from profiler.schema import Estimate
from tests.claims.cases import case, evidence, starts

BATCHES = (1, 2, 4, 8, 16, 32, 64)


def ruling(ratios, batches=BATCHES, spread=0.005, lengths=(None,), **changes):
    cells = [
        evidence(starts(ratio, spread), starts(1.0, spread), cell=Cell(batch=batch, input_tokens=before))
        for before in lengths
        for batch, ratio in zip(batches, ratios, strict=True)
    ]
    return judge.ruling(case(*cells, **changes))


def test_the_region_in_words():
    found = ruling((2.0, 1.5, 1.2, 0.9, 0.8, 0.8, 1.3))
    (line,) = found.region
    assert line.startswith("holds in 4 of 7 cells; fails from batch 8 to 32; crossover at batch ")
    assert [round(each.value, 1) for _, each in found.crossovers] == [6.2, 44.0]


def test_a_claim_that_holds_everywhere_needs_no_more_words():
    assert ruling((2.0,) * 7).region == ("holds in 7 of 7 cells",)
    assert ruling((2.0,), batches=(1,)).region == ()


def test_each_verdict_is_placed():
    cells = [
        evidence(2.0, batch=1),
        evidence(starts(1.03, 0.05), batch=2),
        evidence(2.0, batch=4, doubts=("throttled",)),
        evidence(Side(), Side(), batch=8, missing=("no run",)),
        evidence(starts(1.02, 0.0005), starts(1.0, 0.0005), batch=16),
        evidence(0.9, batch=32),
        evidence(2.0, batch=64),
    ]
    (line,) = judge.ruling(case(*cells)).region
    assert line.startswith(
        "holds in 2 of 7 cells; undecided at batch 2 and at batch 8; not comparable at batch 4; "
        "only the direction holds at batch 16; fails at batch 32; crossover at batch"
    )


def test_a_row_for_each_length():
    found = ruling((2.0, 0.5), batches=(1, 4), lengths=(512, 8192))
    assert found.region[0] == "holds in 2 of 4 cells"
    assert found.region[1].startswith(
        "512 + any tokens: holds at batch 1; fails at batch 4; crossover at batch 2"
    )
    assert found.region[2].startswith("8,192 + any tokens: ")
    assert [cell.input_tokens for cell, _ in found.crossovers] == [512, 8192]
    assert all(cell.batch is None for cell, _ in found.crossovers)


def test_cells_of_one_batch_run_along_the_prompt():
    cells = [
        evidence(ratio, cell=Cell(batch=1, input_tokens=tokens))
        for tokens, ratio in ((1024, 0.8), (8192, 0.9), (32768, 2.0))
    ]
    found = judge.ruling(case(*cells))
    assert found.region == ("holds in 1 of 3 cells; fails from 1,024 to 8,192 input tokens",)
    assert found.crossovers == ()


def test_the_crossover_lies_where_the_logarithms_cross():
    found = ruling((2.0, 0.5), batches=(4, 16))
    ((_, crossed),) = found.crossovers
    assert crossed.value == pytest.approx(8.0)
    assert crossed.low < 8.0 < crossed.high
    assert math.log(crossed.high / 8) == pytest.approx(math.log(8 / crossed.low))


def test_scatter_around_one_is_no_crossover():
    assert ruling((1.01, 0.99, 1.01, 0.99), batches=(1, 2, 4, 8), spread=0.05).crossovers == ()
    assert ruling((1.5, 0.99, 1.01, 0.99), batches=(1, 2, 4, 8), spread=0.05).crossovers == ()


def test_unsure_cells_between_widen_the_crossover():
    sharp = ruling((1.5, 0.7), batches=(1, 64)).crossovers[0][1]
    unsure = ruling((1.5, 1.004, 0.996, 0.7), batches=(1, 4, 16, 64), spread=0.02).crossovers
    assert len(unsure) == 1
    assert unsure[0][1].low < 4 < unsure[0][1].value < 16 < unsure[0][1].high
    assert unsure[0][1].high - unsure[0][1].low > sharp.high - sharp.low


def test_doubted_cells_bound_no_crossover():
    cells = [evidence(2.0, batch=1), evidence(0.5, batch=4, doubts=("throttled",)), evidence(0.5, batch=16)]
    ((_, crossed),) = judge.ruling(case(*cells)).crossovers
    assert crossed.value == pytest.approx(4.0)
    assert judge.ruling(case(*cells[:2])).crossovers == ()


def test_exact_ratios_cross_at_a_point():
    cells = [
        evidence(Side(exact=value), Side(exact=1.0), cell=Cell(batch=batch))
        for batch, value in ((1, 0.5), (4, 2.0))
    ]
    ((_, crossed),) = judge.ruling(case(*cells)).crossovers
    assert (crossed.low, crossed.value, crossed.high) == pytest.approx((2.0, 2.0, 2.0))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(0.4, 2.5), min_size=2, max_size=7),
    st.floats(0.001, 0.1),
    st.floats(0.001, 0.1),
)
def test_a_crossover_lies_between_sure_cells_and_widens_with_doubt(ratios, spread, more):
    batches = BATCHES[: len(ratios)]
    narrow = ruling(ratios, batches, spread).crossovers
    wide = ruling(ratios, batches, spread + more).crossovers
    assert len(wide) <= len(narrow)
    for _, crossed in narrow:
        assert batches[0] <= crossed.low <= crossed.value <= crossed.high <= batches[-1]
    if len(wide) == len(narrow) == 1:
        assert wide[0][1].low <= narrow[0][1].low
        assert wide[0][1].high >= narrow[0][1].high


def test_the_interval_of_a_crossover_covers_the_truth():
    """Of a log ratio that is straight in the logarithm of the batch and crosses at 11."""
    rng = np.random.default_rng(21)
    batches = (2, 8, 16, 64)
    hits = held = 0
    for _ in range(150):
        cells = [
            evidence(
                (11 / batch) ** 0.3 * np.exp(rng.normal(0, 0.02, 4)),
                np.exp(rng.normal(0, 0.02, 4)),
                batch=batch,
            )
            for batch in batches
        ]
        found = judge.ruling(case(*cells)).crossovers
        held += len(found) == 1
        hits += len(found) == 1 and found[0][1].low <= 11 <= found[0][1].high
    assert held >= 148
    assert hits / held >= 0.95


def test_a_crossover_is_written_with_its_interval():
    assert region.crossing(Estimate(11.04, 9.02, 14.1)) == "11 [9.02, 14.1]"
    assert region.crossing(Estimate(1180.4, 900.1, 1400.0)) == "1,180 [900, 1,400]"
