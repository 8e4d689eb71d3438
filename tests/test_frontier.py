"""Cost beside quality: chances on the frontier against closed forms, and the command on real run folders."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from profiler import frontier
from profiler.cli import app
from profiler.errors import InputError
from profiler.frontier import Candidate, chances
from profiler.schema import Estimate, Model
from profiler.scores import Z95, Score
from tests import make

PHI = NormalDist().cdf


def elo(value, sd=0.0):
    return Score(
        model="m",
        benchmark="arena elo",
        value=value,
        source="test",
        unit="elo",
        low=value - Z95 * sd if sd else None,
        high=value + Z95 * sd if sd else None,
    )


def usd(value, sd=0.0):
    """A cost with a standard deviation of its logarithm."""
    if not sd:
        return Estimate(value)
    return Estimate(value, value * math.exp(-Z95 * sd), value * math.exp(Z95 * sd), 5, "repeats")


# ------------------------------------------------------------------------------------------ chances


@pytest.mark.parametrize(("apart", "ratio"), [(0, 1), (10, 1.2), (-10, 1.2), (3, 0.9), (30, 3)])
def test_two_models_in_closed_form(apart, ratio):
    """B falls behind A where A is as good and as cheap: P = Φ((a − b)/σ) · Φ(ln(cost_b/cost_a)/τ)."""
    points = [(elo(1000 + apart, 6), usd(1.0, 0.1)), (elo(1000, 8), usd(ratio, 0.2))]
    found = chances(points)
    better = PHI(apart / math.hypot(6, 8))
    cheaper = PHI(math.log(ratio) / math.hypot(0.1, 0.2))
    for chance, behind in zip(found, ((1 - better) * (1 - cheaper), better * cheaper), strict=True):
        assert chance.p == pytest.approx(1 - behind, abs=4 * max(chance.error, 1e-4))
        assert chance.error == pytest.approx(math.sqrt(chance.p * (1 - chance.p) / frontier.DRAWS))


def test_without_intervals_the_frontier_is_a_hard_line():
    points = [(elo(1000), usd(1)), (elo(990), usd(2)), (elo(1100), usd(3)), (elo(1050), usd(4))]
    found = chances(points)
    assert [(each.p, each.now, each.behind) for each in found] == [
        (1, True, None),
        (0, False, 0),
        (1, True, None),
        (0, False, 2),
    ]


def test_equal_models_do_not_rule_each_other_out():
    assert [each.p for each in chances([(elo(1000), usd(1))] * 2)] == [1, 1]
    assert [each.now for each in chances([(elo(1000), usd(1)), (elo(1000), usd(2))])] == [True, False]


def test_a_model_served_in_two_ways_has_one_score():
    """Drawn twice it would seem to beat itself: the dearer way is never on the frontier."""
    score = elo(1000, 8)
    assert [each.p for each in chances([(score, usd(1)), (score, usd(2))])] == [1, 0]


def test_the_same_points_give_the_same_chances():
    points = [(elo(1000, 5), usd(1, 0.1)), (elo(1003, 5), usd(1.1, 0.1))]
    assert chances(points) == chances(points)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(900, 1100), st.floats(0.1, 10)), min_size=1, max_size=6, unique=True))
def test_someone_is_always_on_it_and_the_best_and_the_cheapest_are(points):
    found = chances([(elo(value), usd(cost)) for value, cost in points])
    best = max(range(len(points)), key=lambda at: (points[at][0], -points[at][1]))
    cheapest = min(range(len(points)), key=lambda at: (points[at][1], -points[at][0]))
    assert found[best].p == found[cheapest].p == 1
    assert all(each.p in (0, 1) and each.now == (each.p == 1) for each in found)


# --------------------------------------------------------------------------------------------- rows


def candidate(model, score, cost, scenario="chat"):
    return Candidate(scenario=scenario, model=model, basis="rented", usd=cost, score=score, at="at 8")


def test_models_without_score_or_price_are_listed_and_decide_nothing():
    found = [
        candidate("dear", elo(1010), usd(3)),
        candidate("cheap", elo(1000), usd(1)),
        candidate("free?", elo(2000), None),
        candidate("unknown", None, usd(0.1)),
    ]
    rows = frontier.rows(found, "arena elo")
    assert [row["model"] for row in rows] == ["cheap", "dear", "free?", "unknown"]
    assert [row["p_on_frontier"] for row in rows] == [1, 1, None, None]
    assert [row["notes"] for row in rows] == [None, None, None, "no arena elo score"]
    assert all(set(row) == set(frontier.COLUMNS) for row in rows)


def test_scenarios_are_not_mixed():
    found = [candidate("a", elo(1000), usd(1), "chat"), candidate("b", elo(900), usd(2), "code")]
    assert [row["p_on_frontier"] for row in frontier.rows(found, "arena elo")] == [1, 1]
    assert frontier.pairs(found, None) == []


def test_pairs_say_who_is_better_and_what_it_costs():
    found = [candidate("b", elo(1000, 1), usd(1, 0.03)), candidate("a", elo(1005, 1), usd(3, 0.04))]
    (row,) = frontier.pairs(found, None)
    assert set(row) == set(frontier.PAIR_COLUMNS)
    assert (row["model"], row["other"], row["verdict"], row["margin"]) == ("a", "b", "equivalent", 20)
    assert row["cost_ratio"] == pytest.approx(3)
    assert row["cost_ratio_high"] == pytest.approx(3 * math.exp(Z95 * 0.05))
    with pytest.raises(InputError, match="--margin"):
        frontier.pairs(found, 0)


# ---------------------------------------------------------------------------------------- the command


def priced_runs(folder, *models: str) -> list[Path]:
    """Sealed runs that serve 25 tokens/s; their machine costs what the test says."""
    found = []
    for model in models:
        name = model.replace("/", "-")
        writer = make.writer(
            Path(folder) / "runs",
            [make.steady(0, 10)],
            run_id=name,
            model=Model(name=model, weights="random"),
        )
        writer.seal()
        found.append(writer.folder)
    return found


def run(*words: str):
    return CliRunner().invoke(app, ["frontier", *words])


@pytest.fixture
def qwen(tmp_path):
    return [str(path) for path in priced_runs(tmp_path, "Qwen/Qwen3-32B", "Qwen/Qwen3-30B-A3B", "me/mine")]


def test_published_ratings_beside_measured_cost(qwen):
    done = run(*qwen, "--score", "lmarena_text_elo", "--price", "0.09", "--format", "json")
    tree = json.loads(done.output)
    rows = {row["model"]: row for row in tree["frontier"]["rows"]}
    # 0.09 USD an hour over 25 tokens/s: 1 USD per million; at the same cost the better rules out the other
    assert rows["Qwen/Qwen3-32B"]["usd_per_m_output_tokens"] == pytest.approx(1, rel=0.02)
    assert rows["Qwen/Qwen3-32B"]["score"] == 1339.8
    assert rows["Qwen/Qwen3-30B-A3B"]["ruled_out_by"] == "Qwen/Qwen3-32B"
    assert rows["me/mine"]["notes"] == "no lmarena_text_elo score"
    (pair,) = tree["pairs"]["rows"]
    assert (pair["verdict"], pair["difference"]) == ("undecided", pytest.approx(21.9))
    assert pair["cost_ratio"] == pytest.approx(1)


def test_style_control_is_another_answer(qwen):
    words = ("--score", "lmarena_text_elo_style_control", "--price", "1", "--format", "csv")
    rows = {row["model"]: row for row in csv.DictReader(io.StringIO(run(*qwen, *words).output))}
    assert rows["Qwen/Qwen3-32B"]["score"] == "1344.7"
    assert tuple(rows["me/mine"]) == frontier.COLUMNS


def test_ones_own_scores_stand_alone(qwen, tmp_path):
    own = tmp_path / "own.csv"
    own.write_text(
        "model,benchmark,score,n,date,source\n"
        "Qwen/Qwen3-32B,my task,0.81,400,2026-11-22,own\nme/mine,my task,0.80,400,2026-11-22,own\n"
    )
    words = ("--score", "my task", "--scores", str(own), "--price", "1")
    shown = run(*qwen, *words).output
    assert "0.810 [0.768, 0.847]" in shown
    assert "no my task score" in shown  # the catalog is not asked
    assert "undecided" in shown  # 1 point apart, ± 5.4
    assert "| Qwen3-32B |" in run(*qwen, *words, "--format", "md").output


def test_an_api_stands_beside_at_its_list_price(qwen):
    words = ("--score", "lmarena_text_elo", "--price", "0.09", "--api", "qwen3-32b", "--format", "json")
    rows = {row["model"]: row for row in json.loads(run(*qwen, *words).output)["frontier"]["rows"]}
    api = rows["qwen3-32b (API)"]
    assert (api["cost_basis"], api["score"]) == ("api", 1339.8)
    # ten prompt tokens for five of the answer: 2 · input + output
    from profiler.cost import listed, terms

    middle, _, _ = listed.prices("qwen3-32b", terms.read()).ranked(2, 1)
    assert api["usd_per_m_output_tokens"] == pytest.approx(2 * middle.input + middle.output, rel=0.05)


def test_an_api_needs_to_know_how_much_is_read():
    """Tables of other tools often do not say; 0 input tokens would make every API cheap."""
    from profiler.cost import terms
    from profiler.frontier import candidates

    assert candidates._mix([]) is None
    found = candidates._of_api("qwen3-32b", ("chat", None), terms.read(), "arena elo", [])
    assert found.usd is None
    assert "how many input tokens" in found.at


def test_of_many_pairs_the_unlike_are_counted():
    from profiler.report import frontier as report

    found = [candidate(f"x/m{n}", elo(1000 + 30 * (n // 2), 1), usd(1 + n)) for n in range(6)]
    rows, pairs = frontier.rows(found, "arena elo"), frontier.pairs(found, None)
    shown = report.sections(rows, pairs)[1]
    assert [(row["model"], row["other"]) for row in shown.rows] == [
        (f"x/m{n}", f"x/m{n + 1}") for n in (4, 2, 0)
    ]
    assert "12 more pairs are not equivalent" in shown.lines[-1]
    assert len(report.sections(rows, pairs, every=True)[1].rows) == 15


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--score", "elo"], "no scores of benchmark 'elo'"),
        (["--score", "MMLU", "--margin", "-2"], "--margin"),
        (["--score", "lmarena_text_elo", "--margin", "nan"], "--margin nan: expected a positive number"),
        (["--score", "MMLU", "--format", "xml"], "no such format"),
        (["--score", "lmarena_text_elo", "--api", "nobodys-model"], "--api nobodys-model"),
        (["--score", "MMLU", "--scores", "none.json"], "no such file of scores"),
        (["--score", "MMLU", "--slo-ttft-p99", "never"], "--slo-ttft-p99"),
        (["--score", "MMLU", "--verbose"], "no such option: --verbose"),
    ],
)
def test_words_that_do_not_fit(tmp_path, words, complaint):
    runs = priced_runs(tmp_path, "Qwen1.5-MoE-A2.7B", "Qwen1.5-7B")
    done = run(*map(str, runs), *words)
    assert isinstance(done.exception, InputError), done.output
    assert complaint in str(done.exception)


def test_a_promise_nobody_keeps_leaves_nobody_on_it(qwen):
    done = run(*qwen, "--score", "lmarena_text_elo", "--price", "1", "--slo-ttft-p99=1ms", "--format", "json")
    rows = json.loads(done.output)["frontier"]["rows"]
    assert done.exit_code == 3
    assert [row["p_on_frontier"] for row in rows] == [None] * 3
    assert "no measured load is shown to keep TTFT p99 ≤ 1 ms" in rows[0]["at"]
    kept = run(*qwen, "--score", "lmarena_text_elo", "--price", "1", "--slo-ttft-p99", "1s")
    assert "the highest load within TTFT p99 ≤ 1000 ms" in kept.output


def test_nothing_to_place_is_undecided(tmp_path):
    (mine,) = priced_runs(tmp_path, "me/mine")
    assert run(str(mine), "--score", "lmarena_text_elo").exit_code == 3
