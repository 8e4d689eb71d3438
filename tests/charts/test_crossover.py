"""Maps of batch × prompt: each cell by the interval of its ratio, and only what may be compared."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from profiler import plan
from profiler.charts import crossover
from profiler.charts.kinds import Asked
from profiler.charts.nouns import Absent
from profiler.plan.answers import Interval
from profiler.schema import EngineFacts
from tests.charts import pairs


def runs(tmp_path, **changes):
    """The MoE is twice as fast alone and as fast at 4 for short prompts, slower everywhere for long ones."""
    speeds = {("moe", 10): {1: 2.0, 4: 1.0}, ("moe", 40): {1: 0.8, 4: 0.5}}
    speeds |= {("thin", prompt): {1: 1.0, 4: 1.0} for prompt in (10, 40)}
    return [
        pairs.run(tmp_path, model, held, prompt=prompt, **changes) for (model, prompt), held in speeds.items()
    ]


def letters(chart):
    return {(row["batch"], row["prompt"]): row["letter"] for row in chart.rows}


def test_cells_are_judged_by_their_intervals(tmp_path):
    (chart,) = crossover.of_runs(runs(tmp_path), Asked())
    assert letters(chart) == {(1, 10): "M", (4, 10): "?", (1, 40): "d", (4, 40): "D"}
    assert (
        "Of 4 cells the MoE is ahead in 1 and the dense model in 2, 1 are undecided, by 95 %" in chart.summary
    )
    assert "40 tokens: dD." in chart.summary
    assert chart.notes[1].startswith("n = 3 engine starts a side")


def test_what_may_not_be_compared_leads_nowhere(tmp_path):
    held = runs(tmp_path)
    other = EngineFacts(kind="transformers", version="4", device="cpu", routing="model")
    thin = [
        pairs.run(tmp_path, "thick", {1: 1.0, 4: 1.0}, prompt=prompt, engine=other, run_id=f"other-{prompt}")
        for prompt in (10, 40)
    ]
    (chart,) = crossover.of_runs([*held[:2], *thin], Asked())
    assert set(letters(chart).values()) == {"·"}
    assert {row["band"] for row in chart.rows} == {crossover.UNDECIDED}
    assert all("engine version 5 ≠ 4" in row["weak"] for row in chart.rows)
    assert "Of 0 cells" in chart.summary


def test_one_prompt_length_is_no_map(tmp_path):
    (absent,) = crossover.of_runs(runs(tmp_path)[::2], Asked())
    assert isinstance(absent, Absent)
    assert "two prompt lengths" in absent.reason


@pytest.fixture(scope="module")
def predicted():
    request = plan.Request(models=["Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-14B"], gpus=["H100"])
    return plan.answer_all(request).maps[0]


def test_a_predicted_map_has_the_letters_that_a_plan_prints(predicted):
    from profiler.report import crossover as report

    chart = crossover.of_map(predicted)
    for row, context in enumerate(predicted.contexts):
        own = [each["letter"] for each in chart.rows if each["prompt"] == context]
        printed = [report.letter(predicted, row, column) for column in range(len(predicted.batches))]
        assert own == printed
    assert "predicted, not measured" in chart.notes[0]
    assert chart.title.endswith("by prediction")
    assert "by 90 % intervals" in chart.summary


def test_an_interval_that_touches_1_is_undecided(predicted):
    shape = predicted.ratio.value.shape
    flat = Interval(*(np.full(shape, each) for each in (1.2, 1.0, 1.4)))
    chart = crossover.of_map(replace(predicted, ratio=flat, held=np.full(shape, fill_value=True)))
    assert {row["letter"] for row in chart.rows} == {"?"}
