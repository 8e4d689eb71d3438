"""--baseline: ratios at the same load, and the interval they have."""

from __future__ import annotations

import pytest

from profiler import stats
from profiler.comparison import MEANING, Question, against, answer
from profiler.comparison.columns import AGAINST, COLUMNS, RATIOS
from profiler.cost.terms import Terms
from profiler.errors import InputError
from profiler.schema import Estimate
from tests.comparison.lines import figures


def asked(*found, baseline, **question):
    got = answer(list(found), Question(terms=Terms(), baseline=baseline, **question))
    return {line.found.run: line.row() for line in got.lines}, got.notes


def test_two_single_runs_have_the_interval_of_their_own_two():
    rows, notes = asked(figures("new", 150, half=15, model="n"), figures("old", 100, half=10), baseline="m")
    ratio = stats.ratio_of(Estimate(150, 135, 165), Estimate(100, 90, 110))
    assert rows["new"]["output_tokens_per_s_ratio"] == pytest.approx(1.5)
    assert rows["new"]["output_tokens_per_s_ratio_low"] == pytest.approx(ratio.low)
    assert rows["new"]["output_tokens_per_s_ratio_high"] == pytest.approx(ratio.high)
    assert (rows["new"]["baseline"], rows["new"]["ratio_interval"]) == ("m, 1 run", "the two intervals")
    assert notes == []


def test_the_cost_ratio_is_the_inverse():
    rows, _ = asked(figures("new", 150, model="n"), figures("old", 100), baseline="m")
    assert rows["new"]["usd_per_m_output_tokens_ratio"] == pytest.approx(100 / 150)


def test_repeated_runs_on_both_sides_have_welchs():
    found = [figures(f"n{r}", r, model="n") for r in (140, 150, 160)]
    found += [figures(f"o{r}", r) for r in (95, 105)]
    got = answer(found, Question(terms=Terms(), baseline="m", by=["model"])).lines
    row = next(line.row() for line in got if line.found.model == "n")
    ratio = stats.ratio_of_means([140, 150, 160], [95, 105])
    assert row["output_tokens_per_s_ratio"] == pytest.approx(ratio.value)
    assert row["output_tokens_per_s_ratio_low"] == pytest.approx(ratio.low)
    assert (row["baseline"], row["ratio_interval"]) == ("m, 2 runs", "runs")
    assert set(MEANING) == {"runs", "the two intervals"}


def test_a_baseline_of_several_runs_is_their_mean_for_single_lines():
    rows, _ = asked(figures("n", 150, model="n"), figures("a", 90), figures("b", 100), baseline="m")
    assert rows["n"]["output_tokens_per_s_ratio"] == pytest.approx(150 / (90 * 100) ** 0.5)
    assert rows["n"]["output_tokens_per_s_ratio_low"] is None, "its own interval is not known"
    assert rows["a"]["baseline"] == "m, 2 runs"


def test_the_baseline_over_itself_is_one_exactly():
    rows, _ = asked(figures("old", 100, half=50), baseline="old")
    assert rows["old"]["output_tokens_per_s_ratio"] == 1
    assert rows["old"]["output_tokens_per_s_ratio_low"] is None
    assert rows["old"]["power_w_mean_ratio"] is None


def test_only_the_same_load_and_the_same_requests_are_compared():
    rows, notes = asked(
        figures("base", 100),
        figures("a", 150, model="n", concurrency=1),
        figures("b", 150, model="o", work="longer"),
        baseline="m",
    )
    assert rows["a"]["output_tokens_per_s_ratio"] is rows["a"]["baseline"] is None
    assert rows["b"]["output_tokens_per_s_ratio"] is None
    assert notes == [
        "n has no ratio at loads at which m was not measured",
        "o has no ratio where m was asked for requests of other lengths",
    ]


def test_the_nearest_baseline_is_taken():
    """Over the other machine: the same model there.  Over the other model: on the same machine."""
    found = [
        figures(f"{model}-{gpu}", rate, model=model, gpu=gpu, alike=f"{model} {gpu}")
        for model, gpu, rate in (("m", "A", 100), ("m", "H", 300), ("n", "A", 50), ("n", "H", 200))
    ]
    rows, _ = asked(*found, baseline="gpu=A")
    assert [rows[run]["output_tokens_per_s_ratio"] for run in ("m-H", "n-H")] == [3, 4]
    rows, _ = asked(*found, baseline="m")
    assert [rows[run]["output_tokens_per_s_ratio"] for run in ("n-A", "n-H")] == [0.5, pytest.approx(2 / 3)]


def test_an_ambiguous_baseline_gives_no_ratio():
    rows, notes = asked(
        figures("n", 150, model="n"),
        figures("a", 90, alike="v1"),
        figures("b", 100, alike="v2"),
        baseline="m",
    )
    assert rows["n"]["output_tokens_per_s_ratio"] is None
    assert notes[0] == "n has no ratio where m is several unlike runs: name one of them, or use COLUMN=VALUE"


@pytest.mark.parametrize("by", [(), ("model",)])
def test_the_baseline_need_not_be_among_the_rows_shown(by):
    found = [figures("new", 150, model="n"), figures("old", 100), figures("older", 50, status="failed")]
    question = Question(baseline="m", where=["model=n"], by=by)
    (line,) = (got := answer(found[:2], question)).lines
    assert line.row()["output_tokens_per_s_ratio"] == 1.5
    assert got.notes == ["the baseline m is not among these rows"]
    # Where some of it is shown, that is the baseline.
    got = answer(found, Question(baseline="m", where=["status=complete"], by=by))
    assert [line.row()["output_tokens_per_s_ratio"] for line in got.lines] == [1.5, 1.0]
    assert got.notes == []


@pytest.mark.parametrize("baseline", ["results/run-b", "run-b", "run=results/run-b", "engine=sglang"])
def test_ways_to_name_it(baseline):
    rows, _ = asked(
        figures("results/run-a", 150, model="n"),
        figures("results/run-b", 100, engine="sglang"),
        figures("results/run-c", 300, alike="c"),
        baseline=baseline,
    )
    assert rows["results/run-a"]["output_tokens_per_s_ratio"] == 1.5


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        ("mm", "no such model, run or COLUMN=VALUE"),
        ("modl=m", "no column 'modl'"),
        ("gpu=Z", "no such model"),
    ],
)
def test_one_that_is_not_there_is_said(baseline, said):
    with pytest.raises(InputError, match=f"--baseline.*{said}"):
        asked(figures("a"), baseline=baseline)


def test_its_columns_follow_the_others():
    rows, _ = asked(figures("a"), figures("b", model="n", concurrency=1), baseline="m")
    columns = Question(terms=Terms(), baseline="m").columns
    assert columns == (*COLUMNS, *AGAINST)
    assert all(tuple(row) == columns for row in rows.values())
    assert Question(terms=Terms()).columns == COLUMNS
    assert set(RATIOS) <= set(COLUMNS)


def test_a_zero_has_no_ratio():
    zero = {"goodput_requests_per_s": Estimate(0.0)}
    rows, _ = asked(figures("a", estimates=zero), figures("b", model="n", estimates=zero), baseline="m")
    assert rows["b"]["goodput_requests_per_s_ratio"] is None


def test_many_lines_over_many_runs_take_little_time():
    """Each baseline is pooled once, not once a line."""
    found = [figures(str(n), 100 + n, model=f"m{n % 2}") for n in range(1000)]
    counted = []
    values = against.Base._values

    def count(self, name):
        counted.append(name)
        return values(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(against.Base, "_values", count)
        asked(*found, baseline="m0")
    assert len(counted) <= 2 * len(RATIOS)


def test_lines_can_be_sorted_by_a_ratio_where_there_is_one():
    found = [figures(name, rate, model=name) for name, rate in (("a", 100), ("b", 300), ("c", 200))]
    question = Question(terms=Terms(), baseline="a", sort="-output_tokens_per_s_ratio")
    assert [line.found.run for line in answer(found, question).lines] == ["b", "c", "a"]
    with pytest.raises(InputError, match="no column 'output_tokens_per_s_ratio'"):
        answer(found, Question(terms=Terms(), sort="output_tokens_per_s_ratio"))


@pytest.mark.parametrize("baseline", ["r", ""])
def test_the_beginning_of_runs_of_several_models_is_no_baseline(baseline):
    found = [figures("r1", 100, model="a"), figures("r2", 100, model="b")]
    with pytest.raises(InputError, match=r"runs of 2 models begin so \(a, b\)"):
        asked(*found, baseline=baseline)
