"""The split, drawn: the figures of ``split.rows`` per million tokens, and shares that fill what was spent."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from profiler import figures
from profiler import split as rows_of
from profiler.charts import split
from profiler.charts.nouns import Absent, Chart
from profiler.comparison import lines, money
from profiler.cost.terms import Terms
from tests.charts.valid import checked
from tests.money_script import Page
from tests.split import steps

LAW = steps.Engine()
PRICED = Terms(price="3.6")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return [
        steps.run(out, name, getattr(steps, name), LAW, slots=16) for name in ("prefill", "decode", "mixed")
    ]


@pytest.fixture(scope="module")
def charts(runs):
    found = split.of_runs(runs, PRICED)
    return {each.id.removeprefix("split-").removesuffix("-prefill"): each for each in found}


def figure(chart, way, kind):
    (row,) = [row for row in chart.rows if (row["way"], row["kind"]) == (way, split.KINDS[kind])]
    return row


def test_all_are_drawn(charts):
    assert list(charts) == ["engine-time", "shares-engine-time", "energy", "shares-energy", "cost"]
    for each in charts.values():
        checked(each)


@pytest.mark.parametrize(
    ("chart", "quantity", "factor"), [("engine-time", "engine time", 1e6), ("energy", "energy", 1e3)]
)
def test_figures_are_of_a_million_tokens_with_their_intervals(runs, charts, chart, quantity, factor):
    for told in rows_of.rows(runs):
        if told["quantity"] != quantity or told["way"] not in split.WAYS:
            continue
        for kind in split.KINDS:
            row = figure(charts[quantity.replace(" ", "-")], told["way"], kind)
            for name, end in (("value", ""), ("low", "_low"), ("high", "_high")):
                assert row[name] == pytest.approx(told[f"per_{kind}_token{end}"] * factor)


def test_cost_is_time_at_the_given_price(charts):
    """3.6 USD an hour are a thousandth of a USD a second."""
    for way in split.WAYS:
        for kind in split.KINDS:
            seconds = figure(charts["engine-time"], way, kind)
            usd = figure(charts["cost"], way, kind)
            for name in ("value", "low", "high"):
                assert usd[name] == pytest.approx(seconds[name] / 1e3)
    money = {column.name for column in charts["cost"].columns if column.is_money}
    assert money == {"value", "low", "high", "usd_per_m_output_tokens"}
    assert any("3.6 USD" in note for note in charts["cost"].notes)


@pytest.mark.parametrize("name", ["shares-engine-time", "shares-energy"])
def test_shares_add_up_and_stand_side_by_side(charts, name):
    for way in split.WAYS:
        parts = [row for row in charts[name].rows if row["way"] == way]
        assert sum(row["share"] for row in parts) == pytest.approx(1, abs=split.LEAST_SHARE)
        drawn = [row for row in parts if row["from_share"] is not None]
        assert drawn[0]["from_share"] == 0
        assert [row["from_share"] for row in drawn[1:]] == [row["to_share"] for row in drawn[:-1]]


def test_what_exceeds_the_whole_goes_beyond_it(charts):
    over = [row for row in charts["shares-engine-time"].rows if row["share"] < 0]
    for row in over:
        parts = [each for each in charts["shares-engine-time"].rows if each["way"] == row["way"]]
        assert row["from_share"] is None
        assert max(each["to_share"] for each in parts if each["to_share"]) == pytest.approx(1 - row["share"])


def test_both_ways_are_set_against_each_other_in_words(charts):
    assert "Regression over separate points: input at 16" in charts["engine-time"].summary
    assert "3 runs, 9 windows" in charts["engine-time"].summary


def test_a_figure_that_is_missing_says_why(runs):
    """Prefill alone was held by no run."""
    found = {each.title.split()[0]: each for each in split.of_runs(runs[2:]) if "Where" not in each.title}
    assert isinstance(found["Energy"], Chart)
    missing = [row for row in found["Energy"].rows if row["value"] is None]
    assert missing
    assert all("scenario prefill" in row["undecided"] for row in missing)
    assert any("separate points undecided" in note for note in found["Energy"].notes)
    assert isinstance(found["Cost"], Absent)
    assert "--price" in found["Cost"].reason


def test_nought_has_no_place_on_a_logarithmic_axis(runs, monkeypatch):
    """A regression may find that a kind takes nothing."""
    told = rows_of.rows(runs)
    for row in told:
        if row["way"] == split.REGRESSION:
            row["per_input_token"] = row["per_input_token_low"] = 0.0
    monkeypatch.setattr(split.split, "rows", lambda *_: told)
    chart, *_ = split.of_runs(runs, PRICED)
    assert figure(checked(chart), split.REGRESSION, "input")["value"] == 0
    assert "0, and so not drawn: input tokens at 16 by regression" in chart.notes


def test_runs_that_decode_nothing_are_no_split(runs):
    (found,) = split.of_runs(runs[:1])
    assert isinstance(found, Absent)
    assert "decodes" in found.reason


def test_engines_that_are_not_alike_are_not_mixed(runs, tmp_path):
    other = steps.run(tmp_path, "other", steps.mixed, LAW, slots=8, window_s=20, energy=False)
    model = replace(other.manifest.model, name="another")
    other = replace(other, manifest=replace(other.manifest, model=model))
    found = [each.id for each in split.of_runs([*runs, other], PRICED)]
    assert [each for each in found if each.endswith("-other")]
    assert len(found) == len(set(found))


@pytest.mark.parametrize("entered", [{}, {"price": 7.2}, {"price": 1.0, "utilization": 0.4}])
def test_a_page_computes_the_cost_again_as_python_does(runs, charts, entered):
    page = Page()
    table = lines.of([each for run in runs for each in figures.of_run(run)], PRICED)
    values = page("recompute", money.of_lines(table, PRICED), entered)
    again = page("recomputeRows", charts["cost"], values)
    page.close()
    terms = replace(PRICED, price=str(entered.get("price", 3.6)), utilization=entered.get("utilization", 1.0))
    (wanted,) = [each for each in split.of_runs(runs, terms) if "split-cost" in each.id]
    for row, expected in zip(again, wanted.rows, strict=True):
        for name in ("value", "low", "high", "usd_per_m_output_tokens"):
            assert row[name] == pytest.approx(expected[name], rel=1e-9)


def test_imported_runs_have_nothing_to_split():
    assert split.of_runs([]) == ()
