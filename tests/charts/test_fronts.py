"""Cost and energy against latency: who is on the front, what is set against what, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import figures
from profiler.charts import drawing, fronts
from profiler.charts.fronts import BEHIND, FRONT, NEAR, UNJUDGED, Axes
from profiler.charts.kinds import Asked
from profiler.charts.nouns import Absent, Chart
from profiler.comparison import lines, money
from profiler.cost import terms
from profiler.schema import Estimate
from tests.charts import pairs
from tests.money_script import Page

AXES = Axes("ttft_s_p99", "usd_per_m_output_tokens")
USD = AXES.y


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    page = Page()
    yield page
    page.close()


@pytest.fixture(scope="module")
def trio(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return [
        pairs.run(out, "moe", {1: 1.0, 4: 0.9}),
        pairs.run(out, "dense", {1: 0.5, 4: 0.4}),
    ]


def asked(**options):
    return Asked(terms=terms.read(**options))


def charts(runs, **options):
    return {each.id: each for each in fronts.of_runs(runs, asked(**options))}


def row(x, y, half=0.0, doubt=None):
    found = {"doubt": doubt}
    for name, value in zip(AXES, (x, y), strict=True):
        ends = (None, None) if half is None or value is None else (value - half, value + half)
        found |= dict(zip((name, f"{name}_low", f"{name}_high"), (value, *ends), strict=True))
    return found


# ---------------------------------------------------------------------------------------------- places


def test_no_other_is_as_cheap_and_as_quick_on_the_front():
    rows = [row(1, 9), row(5, 5), row(9, 1), row(6, 6), row(9, 9)]
    assert fronts.places(rows, AXES) == [FRONT, FRONT, FRONT, BEHIND, BEHIND]


def test_what_intervals_do_not_tell_apart_is_not_behind():
    assert fronts.places([row(5, 5, half=0.8), row(6, 6, half=0.8)], AXES) == [FRONT, NEAR]
    assert fronts.places([row(5, 5, half=0.4), row(6, 6, half=0.4)], AXES) == [FRONT, BEHIND]
    assert fronts.places([row(5, 5, half=None), row(6, 6, half=None)], AXES) == [FRONT, BEHIND]


def test_equal_points_are_both_on_the_front():
    assert fronts.places([row(5, 5), row(5, 5)], AXES) == [FRONT, FRONT]


def test_a_doubtful_point_neither_rules_out_nor_stands_on_the_front():
    rows = [row(1, 1, doubt="client-bound"), row(5, 5), row(None, 2)]
    assert fronts.places(rows, AXES) == [UNJUDGED, FRONT, None]


numbers = st.sampled_from([1.0, 1.4, 1.8, 2.2, 3.0, None])
held = st.lists(
    st.builds(row, numbers, numbers, st.sampled_from([None, 0.0, 0.5]), st.sampled_from([None, None, "why"])),
    max_size=8,
)


@given(held)
def test_the_page_places_points_alike(page, rows):
    found = fronts.places(rows, AXES)
    assert page("places", rows, *AXES) == found
    judged = [
        each for each in rows if not each["doubt"] and each[AXES.x] is not None and each[USD] is not None
    ]
    assert (FRONT in found) == bool(judged)


# ---------------------------------------------------------------------------------------------- charts


def test_cost_against_both_latencies_and_by_load(trio):
    found = charts(trio, price="3.6")
    assert list(found) == ["front-cost-pace", "front-cost-ttft", "cost-by-load", "front-energy-pace"]
    chart = found["front-cost-ttft"]
    assert [(each["model"], each["load"], each["place"]) for each in chart.rows] == [
        ("moe", "1", FRONT),
        ("moe", "4", FRONT),
        ("dense", "1", BEHIND),
        ("dense", "4", BEHIND),
    ]
    assert "moe at 1: " in chart.summary
    assert "4 load points of moe and dense in 2 runs" in chart.summary
    assert any("3.60 USD per machine-hour" in note for note in chart.notes)
    assert any("over 3 repeats" in note for note in chart.notes)
    assert found["front-energy-pace"].reason == "no energy was measured"


def test_a_latency_without_interval_is_said_to_be_taken_as_exact(trio, monkeypatch):
    bounded = fronts.bills.row
    monkeypatch.setattr(fronts.bills, "row", lambda *held: bounded(*held) | {"ttft_s_p99_low": None})
    chart = charts(trio, price="3.6")["front-cost-ttft"]
    assert "time to first token, p99 of 4 points has no interval and is taken as exact" in chart.notes


def test_figures_are_the_tables(trio):
    (chart, *_) = charts(trio, price="3.6").values()
    on = terms.read(price="3.6")
    table = {money.key(line.found): line.row() for line in lines.of(figures.of_runs(trio), on)}
    for each in chart.rows:
        for column in chart.columns:
            if column.name.startswith(("usd", "tpot")):
                assert each[column.name] == table[each["key"]][column.name]


def test_without_a_price_it_is_the_engines_time(trio):
    found = charts(trio)
    chart = found["front-cost-pace"]
    assert not any(column.is_money for column in chart.columns)
    usd = charts(trio, price="1")["front-cost-pace"]
    for hours, paid in zip(chart.rows, usd.rows, strict=True):
        assert hours["engine_hours_per_m_output_tokens"] == pytest.approx(paid[USD])
    assert any("--price" in note for note in chart.notes)


def test_other_requests_are_another_chart(trio, tmp_path):
    longer = pairs.run(tmp_path, "moe", {1: 1.0}, prompt=99, run_id="longer")
    found = charts([*trio, longer], price="1")
    assert len(found["front-cost-pace-1"].rows) == 4
    assert len(found["front-cost-pace-2"].rows) == 1
    assert found["cost-by-load-2"].reason.startswith("one load was measured")


def test_what_a_client_held_back_is_hollow(trio, monkeypatch):
    monkeypatch.setattr(
        fronts.bills.loads, "doubts", lambda run, _: ["client-bound"] if "moe" in run.folder.name else []
    )
    chart = charts(trio, price="1")["front-cost-ttft"]
    assert [each["place"] for each in chart.rows] == [UNJUDGED, UNJUDGED, FRONT, FRONT]
    assert any(note.startswith("hollow") and "client-bound (2 points)" in note for note in chart.notes)


def test_nothing_measured_is_said():
    (absent,) = fronts.of_runs([], asked())
    assert isinstance(absent, Absent)


@pytest.mark.parametrize("entered", [{"price": 7.0}, {"price": 0.4, "utilization": 0.25}, {}])
def test_the_page_computes_the_rows_again_as_python_does(page, trio, entered):
    found = lines.of(figures.of_runs(trio), terms.read(price="1"))
    values = page("recompute", money.of_lines(found, terms.read(price="1")), entered)
    wanted = charts(trio, **{"price": "1"} | {name: str(value) for name, value in entered.items()})
    for name, chart in charts(trio, price="1").items():
        if isinstance(chart, Chart):
            again = page("recomputeRows", chart, values)
            for before, after in zip(wanted[name].rows, again, strict=True):
                assert before.keys() == after.keys()
                for column, value in before.items():
                    same = (
                        math.isclose(value, after[column], rel_tol=1e-9)
                        if isinstance(value, float)
                        else value == after[column]
                    )
                    assert same, (name, column)


def test_a_latency_is_read_where_most_points_have_it(trio):
    held = lines.of(figures.of_runs(trio), terms.read())
    assert fronts.statistic(held, fronts.LATENCIES[0]) == "tpot_s_p99"
    for line in held[:2]:
        line.found.estimates.pop("tpot_s_p99")
        line.found.estimates.pop("itl_s_p99", None)
    assert fronts.statistic(held, fronts.LATENCIES[0]) == "tpot_s_p50"
    assert fronts.statistic([], fronts.LATENCIES[0]) is None


def test_joules_are_set_against_those_of_one_boundary(trio, monkeypatch):
    def measured(run):
        found = list(figures.of_run(run))
        for each in found:
            each.facts["energy_boundary"] = "gpu" if "moe" in run.folder.name else "cpu package"
            each.estimates["energy_j_per_output_token"] = Estimate(1.0 / each.point.concurrency)
        return found

    monkeypatch.setattr(fronts.bills.loads, "measured", measured)
    found = charts(trio)
    chart = found["front-energy-pace"]
    assert {each["model"] for each in chart.rows} == {"moe"}
    assert any("2 of cpu package" in note for note in chart.notes)
    assert (
        drawing.csv(chart).splitlines()[0].startswith("model,place,machine,load,energy_j_per_output_token,")
    )
