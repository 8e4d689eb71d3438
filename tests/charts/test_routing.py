"""Routing, drawn: the recorded tokens themselves, beside closed forms."""

from __future__ import annotations

import pytest

from profiler import experts, routing
from profiler.charts import routing as family
from profiler.charts import routing_loads
from profiler.charts.nouns import Absent
from tests import make
from tests.charts.valid import checked
from tests.routing import recorded

COUNT, K, REQUESTS, TOKENS = 16, 4, 40, 12
LAYERS = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One even layer and two skewed ones."""
    shares = [experts.marginals(COUNT, K, cv, seed=n) for n, cv in enumerate((0.0, 0.8, 1.2))]
    chosen = recorded.drawn(REQUESTS, TOKENS, shares)
    return recorded.run(
        tmp_path_factory.mktemp("run"), chosen, COUNT, prompt=4, windows=[make.steady(0, 10.0)]
    )


@pytest.fixture(scope="module")
def charts(run):
    return [checked(each) for each in family.of_run(run)]


def series(chart, name):
    return [row for row in chart.rows if row["series"] == name]


def test_measured_coverage_is_the_reports_with_its_interval(run, charts):
    steps = routing.report(run).decode
    rows = series(charts[0], family.DECODE)
    assert [row["tokens"] for row in rows] == [step.tokens for step in steps]
    for row, step in zip(rows, steps, strict=True):
        assert (row["experts"], row["low"], row["high"]) == (
            step.measured.value,
            step.measured.low,
            step.measured.high,
        )
        assert row["n"] == REQUESTS
    assert any(row["repeats"] and row["low"] is None for row in rows)
    assert f"{REQUESTS} requests" in charts[0].summary


def test_closed_forms_are_curves_of_the_formula(run, charts):
    uniform = series(charts[0], family.UNIFORM)
    (fitted,) = {row["series"] for row in charts[0].rows if "fitted" in row["series"]}
    cv = routing.report(run).fitted_cv
    assert len(uniform) > 20
    for row in uniform:
        assert row["experts"] == pytest.approx(COUNT * (1 - (1 - K / COUNT) ** row["tokens"]))
    for row in series(charts[0], fitted):
        assert row["experts"] == pytest.approx(experts.distinct_skewed(COUNT, K, row["tokens"], cv))


def test_a_skew_that_is_none_is_not_drawn_twice(run, monkeypatch):
    monkeypatch.setattr(family, "LEAST_CV", routing.report(run).fitted_cv * 1.01)
    chart = checked(family.of_run(run)[0])
    assert not any("fitted" in row["series"] for row in chart.rows)
    assert any("is the uniform curve" in note for note in chart.notes)


def test_the_heat_map_holds_every_recorded_token(charts):
    rows = charts[1].rows
    assert len(rows) == LAYERS * COUNT
    for layer in range(1, LAYERS + 1):
        cells = [row for row in rows if row["layer"] == layer]
        assert sum(row["tokens"] for row in cells) == REQUESTS * TOKENS * K
        assert sum(row["over_mean"] for row in cells) == pytest.approx(COUNT)
        assert [row["tokens"] for row in cells] == sorted((row["tokens"] for row in cells), reverse=True)
        assert {row["expert"] for row in cells} == set(range(COUNT))
    assert "1 of 3 layers cannot be told from even loads" in charts[1].summary


def test_many_cells_are_drawn_together(run, monkeypatch):
    monkeypatch.setattr(routing_loads, "MOST_CELLS", LAYERS * COUNT // 4)
    chart = checked(routing_loads.heat(run, routing.report(run)))
    assert len(chart.rows) == LAYERS * COUNT // 4
    assert sum(row["over_mean"] for row in chart.rows) * 4 == pytest.approx(LAYERS * COUNT)
    assert {row["expert"] for row in chart.rows} == {None}
    assert "4 experts" in chart.notes[0]


def test_unevenness_stands_beside_chance(run, charts):
    loads = routing.report(run).loads
    assert [(row["cv"], row["cv_noise"], row["cv_excess"]) for row in charts[2].rows] == [
        (load.cv, load.cv_noise, load.cv_excess) for load in loads
    ]
    assert charts[2].rows[0]["cv_excess"] is None


def test_a_decode_step_is_judged_by_distinct_experts_and_a_prefill_by_tokens(run, charts):
    known = {(each.ranks, each.tokens): each for each in routing.report(run).ranks}
    assert len(charts[3].rows) == len(known)
    for row in charts[3].rows:
        if row["of"] == "tokens":
            assert row["median"] == known[row["ranks"], None].load_median
        else:
            tokens = int(row["series"].split()[1])
            assert (row["median"], row["p90"]) == (
                known[row["ranks"], tokens].distinct_median,
                known[row["ranks"], tokens].distinct_p90,
            )


def test_made_up_routing_says_so(tmp_path):
    chosen = recorded.drawn(REQUESTS, TOKENS, [experts.marginals(COUNT, K, 0.0)])
    found = recorded.run(tmp_path, chosen, COUNT, prompt=4, routing="uniform")
    assert any("says nothing about the trained model" in note for note in family.of_run(found)[0].notes)


def test_a_moe_without_a_recording_says_why(tmp_path):
    writer = make.writer(tmp_path, [make.steady(0, 10.0)], routing_missing="the engine\nhas no such hook")
    writer.seal()
    (found,) = family.of_run(make.store.load(writer.folder))
    assert isinstance(found, Absent)
    assert found.reason == "the engine has no such hook"


def test_of_a_dense_model_nothing_is_expected(tmp_path):
    dense = make.msgspec.structs.replace(make.FACTS, kind="dense", routed_expert_params=0)
    writer = make.writer(
        tmp_path, [make.steady(0, 10.0)], model=make.Model(name="m", weights="random", facts=dense)
    )
    writer.seal()
    assert family.of_run(make.store.load(writer.folder)) == ()
