"""Cost beside quality: a model a point, who is on the front, and who is equally good."""

from __future__ import annotations

import pytest

from profiler.charts import quality
from profiler.charts.kinds import Asked
from profiler.charts.nouns import Absent
from profiler.cost import terms
from profiler.errors import InputError
from tests.charts import pairs

# Published scores in lmarena_text_elo: 1383.7, 1339.8 and 1379.7 (± 5 to 10).
BETTER, WORSE, EQUAL = "Qwen/Qwen3-30B-A3B-Instruct-2507", "Qwen/Qwen3-32B", "qwen3-vl-235b"


def asked(score=None, price="2"):
    return Asked(terms=terms.read(price=price), score=score)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return [
        pairs.run(out, BETTER, {1: 1.0, 4: 1.0}),
        pairs.run(out, WORSE, {1: 0.5, 4: 0.5}),
        pairs.run(out, "nobody-knows", {1: 0.5}),
    ]


def test_a_better_and_cheaper_model_is_alone_on_the_front(two):
    (chart,) = quality.of_runs(two, asked("lmarena_text_elo"))
    rows = {row["model"]: row for row in chart.rows}
    assert (rows[BETTER]["place"], rows[WORSE]["place"]) == ("on the front", "behind it")
    assert rows[BETTER]["p_on_frontier"] > 0.99
    assert rows[WORSE]["ruled_out_by"] == "Qwen3-30B-A3B-Instruct-2507"
    assert rows[BETTER]["score"] == pytest.approx(1383.7)
    assert "at 4" in rows[BETTER]["at"]
    assert "2 models" in chart.summary
    assert any("nobody-knows" in note for note in chart.notes)


def test_models_that_are_equally_good_are_joined(two, monkeypatch):
    monkeypatch.setitem(quality.scores.MARGINS, "elo", 100.0)
    (chart,) = quality.of_runs(two, asked("lmarena_text_elo"))
    joined = [row for row in chart.rows if row["part"] == "equally good"]
    assert [(row["model"], row["other"]) for row in joined] == [(BETTER, WORSE)]
    assert "Equally good within ±100: Qwen3-30B-A3B-Instruct-2507 and Qwen3-32B" in chart.summary


def test_the_benchmark_that_most_models_have_is_taken(two):
    (chart,) = quality.of_runs(two, asked())
    assert "lmarena_text_elo" in chart.title


def test_models_without_a_score_or_a_cost_say_so(two):
    (absent,) = quality.of_runs(two[2:], asked())
    assert isinstance(absent, Absent)
    assert "no score is published of nobody-knows" in absent.reason
    (absent,) = quality.of_runs(two[:2], asked(price=None))
    assert isinstance(absent, Absent)
    assert "--price" in absent.reason


def test_an_unknown_benchmark_is_an_error(two):
    with pytest.raises(InputError, match="no scores of benchmark"):
        quality.of_runs(two, asked("chess"))


def test_names_that_would_meet_stand_in_a_legend():
    def points(*at):
        return [{"side": "left", quality.COST: x, "score": y} for x, y in at]

    assert quality._are_close(points((1.0, 1400), (1.1, 1401), (9.0, 1000)))
    assert not quality._are_close(points((1.0, 1400), (1.1, 1200), (9.0, 1000)))
