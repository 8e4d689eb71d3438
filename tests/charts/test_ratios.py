"""Ratios of a MoE and its rivals: their truth is known, and what may not be compared says so."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from msgspec.structs import replace

from profiler import store
from profiler.charts import ratios
from profiler.errors import InputError
from profiler.schema import EngineFacts, Imported, ImportedPoint, LoadPoint
from profiler.store import RunResult
from tests import make
from tests.charts import pairs

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
RATE = "output_tokens_per_s"


def curves(runs, metric=RATE, baseline=None):
    return ratios.curves(runs, metric, ratios.pairs(runs, baseline))


def u(tmp_path, **changes):
    """Over ``thin`` a MoE leads at 1, trails at 2 and 4, and leads again at 8."""
    return [
        pairs.run(tmp_path, "moe", {1: 4.0, 2: 2.0, 4: 2.5, 8: 5.0}, **changes),
        pairs.run(tmp_path, "thin", dict.fromkeys((1, 2, 4, 8), 3.0), **changes),
    ]


def test_ratios_and_crossovers_are_the_known_ones(tmp_path):
    (curve,) = curves(u(tmp_path))
    assert [spot.batch for spot in curve.spots] == [1, 2, 4, 8]
    assert [spot.ratio.value for spot in curve.spots] == pytest.approx([4 / 3, 2 / 3, 2.5 / 3, 5 / 3])
    assert [spot.leader for spot in curve.spots] == ["moe", "rival", "rival", "moe"]
    first = 2 ** (math.log(4 / 3) / (math.log(4 / 3) - math.log(2 / 3)))
    last = 4 * 2 ** (math.log(3 / 2.5) / (math.log(3 / 2.5) + math.log(5 / 3)))
    assert [each.value for each in curve.crossovers] == pytest.approx([first, last])
    assert all(each.low < each.value < each.high for each in curve.crossovers)
    assert {spot.starts for spot in curve.spots} == {3}


def test_intervals_are_welchs_on_logarithms_at_95_percent(tmp_path):
    from scipy import stats

    (curve,) = curves(u(tmp_path))
    logs = [math.log(each) for each in pairs.SCATTER[:3]]
    found = stats.ttest_ind(
        [each + math.log(4) for each in logs], [each + math.log(3) for each in logs], equal_var=False
    )
    low, high = found.confidence_interval(0.95)
    ratio = curve.spots[0].ratio
    assert [math.log(ratio.low), math.log(ratio.high)] == pytest.approx([low, high], rel=1e-6)


def test_one_start_gives_a_point_without_an_interval(tmp_path):
    (curve,) = curves(u(tmp_path, starts=1))
    assert all(spot.ratio.low is None and spot.ratio.high is None for spot in curve.spots)
    assert {spot.leader for spot in curve.spots} == {"undecided"}
    assert curve.crossovers == ()


def test_two_starts_cross_nothing(tmp_path):
    """They may be alike by chance (docs/statistics.md)."""
    (curve,) = curves(u(tmp_path, starts=2))
    assert curve.crossovers == ()
    assert all(spot.ratio.low is not None for spot in curve.spots)
    assert all("two may be alike by chance" in " ".join(spot.doubts) for spot in curve.spots)
    assert {spot.leader for spot in curve.spots} == {"undecided"}


def test_starts_that_are_all_the_same_say_nothing_of_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "SCATTER", (1.0, 1.0, 1.0))
    (curve,) = curves(u(tmp_path))
    assert all("the very same figure" in " ".join(spot.doubts) for spot in curve.spots)


def test_a_metric_of_which_less_is_better_is_turned_over(tmp_path):
    (curve,) = curves(u(tmp_path), metric="tpot_s_mean")
    spot = curve.spots[0]
    assert spot.ratio.value == pytest.approx(4 / 3)
    assert spot.ratio.low < spot.ratio.value < spot.ratio.high
    assert spot.leader == "moe"
    assert spot.moe < spot.rival


def test_unlike_machines_are_doubted_and_nobody_leads(tmp_path):
    moe, _ = u(tmp_path)
    other = pairs.run(
        tmp_path,
        "thin2",
        dict.fromkeys((1, 2, 4, 8), 3.0),
        host=replace(make.HOST, packages={"torch": "1.0"}),
    )
    (curve,) = curves([moe, other])
    assert all("torch 2.13.0 ≠ 1.0" in " ".join(spot.doubts) for spot in curve.spots)
    assert {spot.leader for spot in curve.spots} == {"undecided"}
    assert curve.crossovers == ()


def test_prompts_of_other_lengths_make_a_curve_of_their_own(tmp_path):
    runs = [
        pairs.run(tmp_path, model, {1: speed, 4: 1.0}, prompt=prompt)
        for prompt in (10, 40)
        for model, speed in (("moe", 2.0 + prompt / 10), ("thin", 1.0))
    ]
    found = {curve.at.input_tokens: curve for curve in curves(runs)}
    assert found.keys() == {10, 40}
    assert found[10].spots[0].ratio.value == pytest.approx(3)
    assert found[40].spots[0].ratio.value == pytest.approx(6)
    assert found[10].place != found[40].place


def test_what_a_simulated_engine_gave_stands_by_itself(tmp_path):
    moe, thin = u(tmp_path)
    simulated = EngineFacts(kind="simulated", version="0", device="none", routing="model")
    fast = pairs.run(tmp_path, "moe", {1: 100.0, 2: 100.0}, engine=simulated, run_id="sim-moe")
    assert len(curves([moe, thin, fast])) == 1
    slow = pairs.run(tmp_path, "thin", {1: 10.0, 2: 10.0}, engine=simulated, run_id="sim-thin")
    found = curves([moe, thin, fast, slow])
    assert [len(each.spots) for each in found] == [4, 2]
    assert found[1].spots[0].ratio.value == pytest.approx(10)


def test_pairs_go_by_kind_and_baseline(tmp_path):
    runs = [pairs.run(tmp_path, name, {1: 1.0}, starts=1) for name in ("acme/moe-a", "thin", "org/thick")]
    assert ratios.pairs(runs) == (("acme/moe-a",), ("thin", "org/thick"))
    assert ratios.pairs(runs, "thick") == (("acme/moe-a",), ("org/thick",))
    with pytest.raises(InputError, match="--baseline thix: no run is of this model"):
        ratios.pairs(runs, "thix")


def test_ceilings_become_the_computed_ratio(tmp_path, monkeypatch):
    runs = u(tmp_path)
    limits = zip(runs, (600.0, 200.0), strict=True)
    most = {(str(run.folder), batch): limit for run, limit in limits for batch in (1, 2)}
    monkeypatch.setattr(ratios, "_ceilings", lambda _: ratios.Ceilings(most, {}))
    (curve,) = curves(runs)
    assert [spot.computed for spot in curve.spots] == [3.0, 3.0, None, None]
    (slower,) = curves(runs, metric="tpot_s_mean")
    assert {spot.computed for spot in slower.spots} == {None}


def test_where_no_ceilings_are_known_the_reason_is_kept(monkeypatch):
    """The reference runs were made on a CPU that no catalog lists."""
    monkeypatch.delenv("PROFILER_GPUS", raising=False)
    runs = store.find([REFERENCE])
    for curve in curves(runs):
        assert curve.why_not.startswith("the ceilings of AMD EPYC are not known; profile doctor --measure")
        assert {spot.computed for spot in curve.spots} == {None}


def test_imported_loads_have_a_batch_too():
    point = ImportedPoint(point=LoadPoint(mode="closed", concurrency=96), figures={})
    told = make.manifest("x")
    manifest = replace(told, imported=Imported(tool="t", file="f", sha256="0", points=(point,)))
    assert ratios._batches([RunResult(None, manifest)]) == [96]


def test_a_crossover_belongs_to_the_requests_it_was_seen_with(tmp_path):
    speeds = {("moe", 10): {1: 2.0, 4: 0.5}, ("moe", 40): {1: 2.0, 4: 1.5}}
    speeds |= {("thin", prompt): {1: 1.0, 4: 1.0} for prompt in (10, 40)}
    runs = [pairs.run(tmp_path, model, held, prompt=prompt) for (model, prompt), held in speeds.items()]
    found = {curve.at.input_tokens: len(curve.crossovers) for curve in curves(runs)}
    assert found == {10: 1, 40: 0}


def test_a_moe_may_be_the_baseline_of_others_and_not_of_itself(tmp_path):
    runs = [pairs.run(tmp_path, name, {1: 1.0}, starts=1) for name in ("moe-a", "moe-b", "thin")]
    assert ratios.pairs(runs, "moe-a") == (("moe-b",), ("moe-a",))
