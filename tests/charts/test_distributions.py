"""Distributions: curves through what was seen, the tables' figures on them, no tail that n cannot tell."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from profiler import figures, store
from profiler.charts import distributions, loads
from profiler.charts.distributions import FROM_SHARE
from profiler.charts.nouns import Absent
from profiler.schema import Imported, LoadPoint
from profiler.windows import WindowView, latency_samples
from tests import make
from tests.charts.valid import checked

S = make.S


def later(index, n, due_s, ttft_s, gap_s=0.02, tokens=5, together=1):
    """A request whose first token comes ``ttft_s`` after it is due, ``together`` tokens at a time."""
    due = round(due_s * S)
    arrivals = [due + round((ttft_s + gap_s * place) * S) for place in range(tokens)]
    return make.request(
        index,
        n,
        due_s,
        first_ns=arrivals[0],
        last_ns=arrivals[-1],
        done_ns=arrivals[-1],
        arrivals_ns=arrivals,
        arrival_tokens=[together] * tokens,
        output_tokens=tokens * together,
        reported_output_tokens=tokens * together,
    )


def run_of(tmp_path, held, **changes):
    return store.load(make.writer(tmp_path, held, **changes).folder)


def lognormal(index, start_s, n=400, load=1, **changes):
    ttft = np.random.default_rng(index).lognormal(-2, 0.5, n)
    records = [later(index, i, start_s + i * 0.02, value, **changes) for i, value in enumerate(ttft)]
    point = LoadPoint(mode="closed", concurrency=load)
    return make.window(index, start_s, start_s + n * 0.02, point=point), records


def curve(chart, load="1"):
    return [row for row in chart.rows if row["part"] == "curve" and row["load"] == load]


def test_a_curve_is_the_distribution_of_all_windows(tmp_path):
    run = run_of(tmp_path, [lognormal(0, 10), lognormal(1, 30), lognormal(2, 60, load=8)])
    charts = [checked(each) for each in distributions.of_run(run)]
    assert [each.id for each in charts] == ["ttft-run", "itl-run", "tpot-run", "e2e-run"]
    views = [WindowView(window, run.requests) for window in run.manifest.windows[:2]]
    for chart, name in zip(charts, ("ttft_s", "itl_s", "tpot_s", "e2e_s"), strict=True):
        sample = np.sort(np.concatenate([latency_samples(view, name) for view in views]))
        rows = curve(chart)
        assert {row["n"] for row in rows} == {len(sample)}
        assert rows[0]["share"] == FROM_SHARE
        assert rows[-1]["latency_s"] == pytest.approx(sample[-1])
        for row in rows:
            assert row["share"] == pytest.approx(norm.cdf(row["z"]), abs=1e-4)
            expected = np.quantile(sample, row["share"], method="hazen")
            assert row["latency_s"] == pytest.approx(expected, rel=1e-3)


def test_a_lognormal_is_a_straight_line(tmp_path):
    rows = curve(distributions.of_run(run_of(tmp_path, [lognormal(0, 10, n=2000)]))[0])
    inner = [row for row in rows if abs(row["z"]) < 2]
    slope = np.polyfit([row["z"] for row in inner], np.log([row["latency_s"] for row in inner]), 1)
    assert slope == pytest.approx([0.5, -2], abs=0.05)


@given(st.lists(st.floats(1e-4, 10), min_size=1, max_size=300))
def test_a_curve_rises_from_the_fast_to_the_slowest(values):
    rows = list(distributions._curve(np.sort(np.array(values))))
    shares, z, seen = (list(column) for column in zip(*rows, strict=True))
    assert shares == sorted(shares)
    assert z == sorted(z)
    assert all(b >= a * (1 - 1e-5) for a, b in pairwise(seen))
    assert seen[-1] == pytest.approx(max(values), rel=1e-5)
    assert shares[-1] <= 1 - 0.5 / len(values) + 1e-5  # so many tell no more


def test_points_are_the_figures_of_the_tables(tmp_path):
    run = run_of(tmp_path, [lognormal(0, 10), lognormal(1, 30), lognormal(2, 60, load=8)])
    for chart, name in zip(distributions.of_run(run), ("ttft_s", "itl_s", "tpot_s", "e2e_s"), strict=True):
        points = [row for row in chart.rows if row["part"] == "figure"]
        assert [row["statistic"] for row in points] == ["p50", "p90", "p99"] * 2
        assert [row["share"] for row in points] == [0.5, 0.9, 0.99] * 2
        for row in points:
            found = next(f for f in figures.of_run(run) if str(f.point.concurrency) == row["load"])
            estimate = found.estimates[f"{name}_{row['statistic']}"]
            ends = row["latency_s_low"], row["latency_s_high"]
            assert (row["latency_s"], *ends, row["n"]) == (
                estimate.value,
                estimate.low,
                estimate.high,
                estimate.n,
            )


def test_the_words_have_n_values_and_what_has_no_interval(tmp_path):
    ttft, itl, *_ = distributions.of_run(run_of(tmp_path, [lognormal(0, 10)]))
    assert "400 requests in 1 window" in ttft.summary
    assert "1,600 gaps in 1 window" in itl.summary
    assert ttft.notes[0].startswith("n: 400 requests a load")
    assert any(note.startswith("no bar: one window of gaps") for note in itl.notes)
    assert any("random weights" in note for note in itl.notes)


def test_tokens_that_came_together_are_gaps_of_zero_that_no_logarithm_shows(tmp_path):
    run = run_of(tmp_path, [lognormal(0, 10, together=4)])
    itl = checked(distributions.of_run(run)[1])
    assert "not drawn: gaps of 0, tokens that came together (78.9% at 1)" in itl.notes
    assert curve(itl)[0]["latency_s"] == 0


def test_nothing_but_zeros_can_still_be_drawn(tmp_path):
    run = run_of(tmp_path, [lognormal(0, 10, tokens=1, together=4)])
    found = {each.id.split("-")[0]: each for each in distributions.of_run(run)}
    assert isinstance(found["itl"], Absent)
    assert found["itl"].reason == "all tokens of an answer came at once"
    checked(found["ttft"])


def test_windows_that_never_became_steady_do_not_count(tmp_path):
    never = make.window(1, 30, 40, steady_start_ns=None, steady_end_ns=None, trouble="never")
    slow = [later(1, n, 30 + n / 10, ttft_s=9.0) for n in range(50)]
    ttft, *_ = distributions.of_run(run_of(tmp_path, [lognormal(0, 10), (never, slow)]))
    assert {row["n"] for row in curve(ttft)} == {400}
    assert "400 requests in 1 window)" in ttft.summary


def test_a_single_request_is_a_point(tmp_path):
    run = run_of(tmp_path, [(make.window(0, 10, 20), [make.request(0, 0, 11)])])
    rows = curve(checked(distributions.of_run(run)[0]))
    assert [(row["share"], row["latency_s"]) for row in rows] == [(0.5, 0.1)]


def test_answers_of_one_token_have_no_gaps(tmp_path):
    run = run_of(tmp_path, [lognormal(0, 10, tokens=1)])
    found = {each.id.split("-")[0]: each for each in distributions.of_run(run)}
    assert found["tpot"].reason == found["itl"].reason == "no answer was longer than one token"


def test_what_was_never_steady_or_never_told_is_said(tmp_path):
    never = make.window(0, 10, 20, steady_start_ns=None, steady_end_ns=None, trouble="never")
    run = run_of(tmp_path, [(never, [make.request(0, 0, 11)])])
    assert {each.reason for each in distributions.of_run(run)} == {"no window became steady"}
    told = Imported(tool="bench", file="f", sha256="0", gaps_known=False)
    ttft, itl, *_ = distributions.of_run(run_of(tmp_path, [lognormal(0, 10)], run_id="told", imported=told))
    assert itl.reason == "bench keeps no time between tokens of each request"
    assert any("measured by bench" in note for note in ttft.notes)


def test_the_same_run_is_the_same_picture(tmp_path):
    run = run_of(tmp_path, [lognormal(0, 10)])
    assert distributions.of_run(run) == distributions.of_run(store.load(run.folder))


def test_caveats_name_the_models_once(tmp_path):
    runs = [
        run_of(tmp_path, [make.steady(0, 10)], run_id=name, status="failed", reason="no\nluck")
        for name in "ab"
    ]
    lines = loads.caveats(runs)
    assert "m: the run is not whole (failed: no luck)" in lines
    assert len(lines) == 2
