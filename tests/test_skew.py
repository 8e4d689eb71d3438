"""What a routing costs, on runs whose every window is known."""

from __future__ import annotations

import math

import msgspec
import pytest

from profiler import records, skew, stats, store
from profiler.report import skew as report
from profiler.schema import EngineFacts, Estimate, LoadPoint, Model
from tests import make

EIGHT = LoadPoint(mode="closed", concurrency=8)
RATE = skew.RATE


def arm(tmp_path, name, routing, rates, weights="local", point=EIGHT, group="g"):
    """A window a repeat whose output arrives at so many tokens a second."""
    engine = EngineFacts(kind="transformers", version="5", device="cpu", routing=routing)
    model = Model(name="moe", weights=weights, facts=make.FACTS)
    run = make.writer(tmp_path, [], run_id=name, engine=engine, model=model, group=group)
    for repeat, rate in enumerate(rates):
        seconds = 250 / rate  # 50 requests of five tokens
        held = [
            make.request(repeat, n, 100.0 * (repeat + 1) + n * seconds / 50, done_ns=None) for n in range(50)
        ]
        window = make.window(repeat, 100.0 * (repeat + 1), 100.0 * (repeat + 1) + seconds, point=point)
        records.write_records(run.records_path(repeat), _inside(held, window))
        run.add(window)
    run.close()
    return store.load(run.folder)


def _inside(requests, window):
    """All tokens of a request when it is due, so that none is lost at the window's end."""
    found = []
    for each in requests:
        at = each.due_ns
        changes = {"first_ns": at, "last_ns": at, "done_ns": at, "arrivals_ns": [at], "arrival_tokens": [5]}
        found.append(msgspec.structs.replace(each, **changes))
    assert found[-1].due_ns < window.steady_end_ns
    return found


def test_windows_of_one_repeat_are_pairs_and_what_drifts_meets_both(tmp_path):
    """Rates fall to a third over the run; the ratio is always near 1.25."""
    drift, wobble = [100.0, 60.0, 33.0], [1.25, 1.26, 1.24]
    uniform = arm(tmp_path, "u", "uniform", drift)
    own = arm(tmp_path, "m", "model", [r * w for r, w in zip(drift, wobble, strict=True)])
    (found,) = skew.costs([own, uniform])
    assert (found.routing, found.reference, found.point) == ("model", "uniform", EIGHT)
    wanted = stats.over_repeats(wobble)
    got = found.output_tokens_per_s
    assert got.n == 3
    assert (got.value, got.low, got.high) == pytest.approx((wanted.value, wanted.low, wanted.high), rel=1e-6)
    assert found.energy_j_per_output_token is None
    (line,) = report.lines([own, uniform])
    assert line == (
        f"moe at 8, routing model over uniform: output tokens/s {wanted.value:.3f}× "
        f"({wanted.low:.3f}–{wanted.high:.3f}, 3 pairs of windows), J/token n/a"
    )


def test_energy_is_paired_like_rates(tmp_path, monkeypatch):
    from profiler import metrics

    whole = metrics.points

    def with_energy(run):
        return [
            measured(each, run.manifest.engine.routing, run.manifest.windows[0].repeat) for each in whole(run)
        ]

    def measured(point, routing, repeat):
        from dataclasses import replace

        joules = Estimate((2.0 if routing == "uniform" else 1.5) * (1 + repeat))
        return replace(point, estimates=point.estimates | {skew.GROSS: joules})

    monkeypatch.setattr(metrics, "points", with_energy)
    arms = [arm(tmp_path, "u", "uniform", [50, 50]), arm(tmp_path, "s", "skew=1", [50, 50])]
    (found,) = skew.costs(arms)
    assert found.energy_j_per_output_token.value == pytest.approx(0.75)
    assert found.energy_j_per_output_token.low == pytest.approx(0.75)


def test_several_routings_are_each_against_uniform_and_only_within_one_run(tmp_path):
    runs = [
        arm(tmp_path, "a", "model", [50], weights="random"),
        arm(tmp_path, "b", "skew=1", [45]),
        arm(tmp_path, "c", "uniform", [40]),
        arm(tmp_path, "d", "skew=1", [10], group="another"),
    ]
    found = skew.costs(runs)
    assert [(each.routing, each.reference) for each in found] == [("model", "uniform"), ("skew=1", "uniform")]
    assert [each.output_tokens_per_s.value for each in found] == pytest.approx([1.25, 1.125])
    said = list(report.lines(runs))
    assert "1.250× (one pair of windows)" in said[0]
    assert said[0].endswith("the model's router is one of random weights")
    assert "random weights" not in said[1]


def test_without_uniform_the_first_is_the_reference(tmp_path):
    runs = [arm(tmp_path, "a", "skew=1", [50]), arm(tmp_path, "b", "skew=2", [60])]
    (found,) = skew.costs(runs)
    assert (found.reference, found.output_tokens_per_s.value) == ("skew=1", pytest.approx(1.2))


def test_loads_and_repeats_that_only_one_has_are_left_out(tmp_path):
    other = LoadPoint(mode="closed", concurrency=1)
    assert (
        skew.costs([arm(tmp_path, "a", "model", [50], point=other), arm(tmp_path, "b", "uniform", [50])])
        == []
    )
    (found,) = skew.costs([arm(tmp_path, "c", "model", [50, 60]), arm(tmp_path, "d", "uniform", [50])])
    assert found.output_tokens_per_s.n == 1
    assert math.isclose(found.output_tokens_per_s.value, 1.0)
    assert found.output_tokens_per_s.low is None


def test_dense_models_and_single_runs_have_none(tmp_path):
    assert skew.costs([arm(tmp_path, "a", None, [50]), arm(tmp_path, "b", None, [60])]) == []
    assert list(report.lines([arm(tmp_path, "c", "model", [50])])) == []
