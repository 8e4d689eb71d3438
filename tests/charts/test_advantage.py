"""The chart of a MoE's advantage says what its rows say, and no more."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from profiler.charts import advantage, drawing, scales
from profiler.charts.kinds import Asked
from profiler.charts.nouns import Absent, Chart
from profiler.charts.ratios import Curve, Spot
from profiler.claims.nouns import Cell
from profiler.schema import Estimate
from tests.charts import pairs
from tests.charts.test_ratios import u

SPEED = advantage.MEASURES[0]


def spot(batch, value, width=1.05, **changes):
    ratio = Estimate(value, value / width, value * width, 4, "starts")
    return replace(Spot(batch=batch, ratio=ratio, moe=value, rival=1.0, starts=4), **changes)


def curve(*spots, rival="dense", **changes):
    base = Curve(
        moe="acme/moe",
        rival=rival,
        metric="output_tokens_per_s",
        machine="a machine",
        engine="an engine",
        at=Cell(input_tokens=8, output_tokens=32),
        spots=spots,
        crossovers=(),
        runs=(),
    )
    return replace(base, **changes)


def chart(*curves):
    return advantage._chart([], SPEED, curves, "advantage-speed")


def rows(found, part):
    return [row for row in found.rows if row["part"] == part]


def test_a_chart_of_real_runs_has_every_batch_and_crossover(tmp_path):
    found = advantage.of_runs(u(tmp_path), Asked())
    speed, energy = found
    assert isinstance(speed, Chart)
    assert [row["batch"] for row in rows(speed, "measured")] == [1, 2, 4, 8]
    assert len(rows(speed, "crossover")) == 2
    assert "crossover at 1.33 [" in speed.summary
    assert "a U: on both sides" in speed.summary
    assert "n = 3 engine starts a side" in " ".join(speed.notes)
    assert isinstance(energy, Absent)
    assert energy.reason.startswith("no energy was measured")


def test_runs_without_a_moe_or_a_rival_say_which_is_missing(tmp_path):
    moe, dense = (pairs.run(tmp_path, name, {1: 1.0}, starts=1) for name in ("moe", "thin"))
    for run, missing in ((moe, "a dense model"), (dense, "a MoE")):
        (absent, _) = advantage.of_runs([run], Asked())
        assert absent.reason == f"none of these runs is of {missing} whose config is known"
    other = pairs.run(tmp_path, "thin", {2: 1.0}, starts=1, run_id="elsewhere")
    assert advantage.of_runs([moe, other], Asked())[0].reason.startswith(
        "no MoE and dense model were measured at"
    )


def test_a_u_takes_intervals_apart_on_both_sides():
    assert advantage._is_u([spot(1, 2.0), spot(8, 1.0), spot(64, 1.5)])
    assert not advantage._is_u([spot(1, 2.0), spot(8, 1.0), spot(64, 1.05)])  # within the intervals
    assert not advantage._is_u([spot(1, 2.0), spot(8, 1.5), spot(64, 1.0)])  # falls only
    assert not advantage._is_u([spot(1, 2.0), spot(8, 1.0)])
    doubted = replace(spot(64, 1.5), doubts=("why",))
    assert not advantage._is_u([spot(1, 2.0), spot(8, 1.0), doubted])


def test_what_may_not_be_compared_is_hollow_has_no_band_and_says_why():
    doubted = replace(spot(2, 1.5), doubts=("acme/moe: p99 4.1 ms", "answers of 5 tokens against 9"))
    found = chart(curve(spot(1, 2.0), doubted, spot(4, 1.2)))
    assert [row["part"] for row in found.rows] == ["measured", "doubtful", "measured"]
    assert rows(found, "measured")[0]["stretch"] != rows(found, "measured")[1]["stretch"]
    assert rows(found, "doubtful")[0]["leader"] == "undecided"
    assert "hollow, in doubt (over dense at 2): p99 4.1 ms" in found.notes
    assert "(in doubt)" not in found.summary  # neither an end nor the lowest
    assert json.dumps(found.spec).count('"style": "band"') == 1


def test_reasons_that_differ_in_numbers_are_told_once_and_not_all():
    every = [
        replace(spot(2**n, 1.5), doubts=(f"answers of {n} tokens", *map(str.upper, "abcdef")))
        for n in range(3)
    ]
    notes = [line for line in chart(curve(*every)).notes if line.startswith("hollow")]
    assert notes[0] == "hollow, in doubt: answers of 0 tokens"
    assert len(notes) == advantage.MOST_DOUBTS
    assert any("3 more reasons" in line for line in chart(curve(*every)).notes)


def test_a_single_start_draws_no_band_and_says_so():
    lone = [replace(spot(n, 1.5), ratio=Estimate(1.5), starts=1) for n in (1, 2)]
    found = chart(curve(*lone))
    assert not rows(found, "measured")
    assert "hollow: one engine start a side, whose interval says nothing of the next one" in found.notes
    assert "95 %" not in found.summary
    assert "no intervals: n = 1 a side" in found.notes


def test_computed_is_told_apart_from_measured():
    plain, told = (
        chart(curve(spot(1, 2.0), spot(2, 1.5))),
        chart(curve(spot(1, 2.0, computed=3.0), spot(2, 1.5))),
    )
    assert not any("dashed" in line for line in plain.notes)
    assert any(line.startswith("dashed: computed") for line in told.notes)


def test_names_stand_at_their_curves_unless_they_would_meet():
    far = chart(curve(spot(1, 4.0), spot(2, 3.0)), curve(spot(1, 0.5), spot(2, 0.4), rival="thin"))
    near = chart(curve(spot(1, 4.0), spot(2, 3.0)), curve(spot(1, 0.5), spot(2, 2.99), rival="thin"))
    assert "over dense" in json.dumps(far.spec)
    assert '"legend": null' in json.dumps(far.spec)
    assert "over dense" not in json.dumps(near.spec)


def test_hostile_names_are_text_and_never_markup_or_code():
    name = "<script>alert(1)</script>\"'; datum.x {{1}} ${1}"
    found = chart(curve(spot(1, 2.0), spot(2, 1.5), rival=name, moe=name))
    text = drawing.svg(found)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    for layer in found.spec["layer"]:
        for step in layer.get("transform", []):
            assert not isinstance(step["filter"], str) or "script" not in step["filter"]


@pytest.mark.parametrize(
    ("values", "ticks"), [((0.4, 5.0), [0.5, 1, 2, 4]), ((0.9, 1.1), [0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15])]
)
def test_ratio_axes_are_marked_at_powers_of_two_or_finer(values, ticks):
    axis = scales.ratio(values)
    assert axis["axis"]["values"] == ticks
    low, high = axis["scale"]["domain"]
    assert low < min(values)
    assert high > max(values)


def test_a_wild_interval_does_not_squash_the_curve():
    low, high = scales.ratio([1.0, 2.0], [0.001, 4000.0])["scale"]["domain"]
    assert low > 0.4
    assert high < 5


def test_batches_are_marked_where_they_were_measured():
    assert scales.batches([1, 8, 96])["axis"]["values"] == [1, 8, 96]
    assert scales.batches(list(range(1, 20)))["axis"]["values"] == [1, 2, 4, 8, 16]
    low, high = scales.batches([8])["scale"]["domain"]
    assert low < 8 < high


def test_an_interval_beyond_the_frame_is_said():
    wild = replace(spot(2, 1.5), ratio=Estimate(1.5, 0.01, 90.0, 4, "starts"))
    line = "an interval that reaches the frame goes on beyond it: the data have its ends"
    assert line in chart(curve(spot(1, 2.0), wild)).notes
    assert line not in chart(curve(spot(1, 2.0), spot(2, 1.5))).notes
