"""Maps: the physics they must show, and how cells, flips and stretches are read off."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import crossover as benchmark
from profiler.plan.answers import Interval
from profiler.plan.crossover import BATCHES, Map, drawn, others, pairs, stretches, undecided
from profiler.plan.rows import row_at
from profiler.report import crossover as report
from tests.plan.ask import DENSE_14B, DENSE_32B, MOE, placement, question


def made(values: list[float], spread: float = 1.1, held_up_to: int = 10**6) -> Map:
    """A map of one line with these ratios at the first batches."""
    ratio = np.array([values])
    batches = BATCHES[: len(values)]
    return Map(
        moe=placement(),
        dense=placement(DENSE_14B),
        metric="speed",
        batches=batches,
        contexts=(512,),
        ratio=Interval(ratio, ratio / spread, ratio * spread),
        held=np.array([batches]) <= held_up_to,
    )


def test_who_wins_is_decided_by_the_interval():
    found = made([2.0, 1.05, 1.0, 0.95, 0.5])
    assert [found.winner(0, column) for column in range(5)] == ["moe", *["undecided"] * 3, "dense"]


def test_flips_lie_where_the_logarithm_crosses():
    """2 at batch 1, ½ at batch 2: equal at √2."""
    first, second = stretches(made([2.0, 0.5]), 0)
    assert (first.winner, second.winner) == ("moe", "dense")
    three = stretches(made([4.0, 2.0, 1.2, 0.8, 0.5, 0.9, 1.5]), 0)
    assert [(each.winner, each.first, each.last) for each in three] == [
        ("moe", 1, 3),
        ("dense", 3, 6),
        ("moe", 6, 7),
    ]
    assert [round(each.most, 9) for each in three] == [4.0, 2.0, 1.5]


def test_a_lead_of_next_to_nothing_is_not_told():
    assert [each.winner for each in stretches(made([2.0, 0.8, 1.01, 0.8, 0.7]), 0)] == ["moe", "dense"]
    (whole,) = stretches(made([2.0, 1.5, 3.0]), 0)
    assert (whole.first, whole.last, whole.least, round(whole.most, 9)) == (1, 3, 1.5, 3.0)


def test_undecided_batches_come_as_runs():
    assert undecided(made([2.0, 1.05, 0.98, 0.5, 1.02, 2.0]), 0) == ((2, 3), (5, 5))
    assert undecided(made([2.0, 2.0]), 0) == ()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.2, 5.0), min_size=2, max_size=20))
def test_stretches_cover_the_line_in_order(values):
    found = stretches(made(values), 0)
    assert found[0].first == 1
    assert found[-1].last == BATCHES[len(values) - 1]
    for one, other in pairwise(found):
        assert one.last == other.first
        assert one.winner != other.winner
    assert all(each.least <= each.most for each in found)


def test_the_map_by_letters():
    found = made([2.0, 1.3, 1.0, 0.8, 0.5, 2.0, 0.5], held_up_to=5)
    _, line, axis = report.lines(found)
    assert line == "    512  Mm?dD+−"
    assert axis.strip().startswith("batch")
    assert report.held_up_to(found) == 5
    assert str(report.styled(line)) == line, "colour adds nothing that the letters do not say"
    assert [str(span.style) for span in report.styled(line).spans] == [
        "bold green",
        "green",
        "yellow",
        "magenta",
        "bold magenta",
        "dim",
    ]


def test_the_map_in_words():
    found = made([4.0, 2.0, 1.2, 0.8, 0.5, 0.9, 1.5])
    assert report.words(found, 0) == (
        "Qwen3-30B-A3B is faster below batch 3 (up to 4×) and above 6 (up to 1.5×); "
        "Qwen3-14B is faster from 3 to 6 (up to 2×)"
    )
    assert report.brief(made([2.0, 1.5, 1.05])) == "M at every batch (1.1× to 2×); undecided at 3"


def test_the_advantage_is_u_shaped_in_batch():
    """Large where few experts are read, least where all are, large again where products bind."""
    asked = question(MOE, DENSE_32B, DENSE_14B)
    for _, rival in pairs(asked):
        found = drawn(placement(), placement(rival.name), (512,), None)
        ratio = found.ratio.value[0]
        middle = int(ratio.argmin())
        assert 16 <= BATCHES[middle] <= 256
        assert ratio[0] > 1.3 * ratio[middle]
        assert ratio[-1] > 1.3 * ratio[middle]
    assert (drawn(placement(), placement(DENSE_32B), (512,), None).ratio.value > 1).all()


def test_compute_poor_parts_recover_early():
    """H20: 37 FLOPs a byte, H100: 295."""
    h100 = drawn(placement(), placement(DENSE_14B), (512,), None).ratio.value[0]
    h20 = drawn(placement(gpu="H20"), placement(DENSE_14B, gpu="H20"), (512,), None).ratio.value[0]
    last = [
        max((batch for batch, each in zip(BATCHES, ratio, strict=True) if each < 1), default=0)
        for ratio in (h20, h100)
    ]
    assert last[0] < last[1]


@pytest.mark.parametrize("metric", ["speed", "energy", "cost"])
def test_each_metric_has_a_map_and_the_others_a_line(metric):
    moe, dense = (placement(name, metric=metric) for name in (MOE, DENSE_32B))
    found = drawn(moe, dense, (256, 512), None)
    assert found.metric == metric
    assert found.ratio.value.shape == (2, len(BATCHES))
    assert (found.ratio.low < found.ratio.value).all()
    assert (found.ratio.value < found.ratio.high).all()
    assert {each.metric for each in others([found], None)} == {"speed", "energy", "cost"} - {metric}


def test_a_ratio_is_the_dense_figure_over_the_moes():
    """Energy and cost as the rows have them: above 1 the MoE takes less."""
    moe, dense = placement(), placement(DENSE_14B)
    lines = {each.metric: each for each in others([drawn(moe, dense, (512,), None)], None)}
    ours, theirs = (row_at(each.question, each, 8, None) for each in (moe, dense))
    for metric, column in [("energy", "energy_j_per_output_token"), ("cost", "usd_per_m_output_tokens")]:
        found = lines[metric].ratio.value[0, BATCHES.index(8)]
        assert found == pytest.approx(theirs[column] / ours[column])


def test_what_a_cache_does_not_hold_is_marked():
    found = drawn(placement(), placement(DENSE_32B), (512,), None)
    assert report.held_up_to(found) == max(b for b in BATCHES if b <= placement(DENSE_32B).sequences)


def test_every_moe_meets_every_dense_rival():
    assert [(one.short, other.short) for one, other in pairs(question(MOE, DENSE_14B, DENSE_32B))] == [
        ("Qwen3-30B-A3B", "Qwen3-14B"),
        ("Qwen3-30B-A3B", "Qwen3-32B"),
    ]
    assert pairs(question(DENSE_14B, DENSE_32B)) == []


@pytest.mark.timing
def test_forty_by_forty_cells_of_four_models_on_five_gpus_take_less_than_a_second():
    alone, ratios, count = benchmark.seconds()
    assert alone < 1.0
    assert count == 20
    assert ratios < 3.0
