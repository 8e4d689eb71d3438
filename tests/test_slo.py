"""Limits, verdicts and goodput from requests at exact times."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from profiler import metrics, slo, stats, store
from profiler.errors import InputError
from profiler.slo import Late
from profiler.windows import WindowView
from tests import make


def run_of(tmp_path, windows, **limits):
    plan = msgspec.structs.replace(make.SCENARIO, slo=limits)
    return store.load(make.writer(tmp_path, windows, scenario=plan).folder)


def views(run):
    return [WindowView(window, run.requests) for window in run.manifest.windows]


def late_by(records, places, by_s):
    """These records with all their tokens so much later."""
    shift = round(by_s * make.S)
    moved = list(records)
    for n in places:
        each = records[n]
        moved[n] = msgspec.structs.replace(
            each,
            first_ns=each.first_ns + shift,
            last_ns=each.last_ns + shift,
            done_ns=each.done_ns + shift,
            arrivals_ns=[t + shift for t in each.arrivals_ns],
        )
    return moved


def test_names():
    (limit,) = slo.limits({"ttft_p99_s": 0.5})
    assert (limit.metric, limit.allowed_frac, limit.words) == ("ttft_s", 0.01, "TTFT p99")
    assert slo.limits({"e2e_p999_s": 1})[0].allowed_frac == pytest.approx(0.001)
    assert slo.limits({"itl_p50_s": 1})[0].allowed_frac == 0.5


@pytest.mark.parametrize("name", ["ttfb_p99_s", "ttft_p99", "ttft_99_s", "ttft_mean_s", "ttft_p00_s", "x"])
def test_a_name_that_is_none_is_refused_with_one_that_is(name):
    with pytest.raises(InputError, match=r"_p\d\d_s"):
        slo.limits({name: 1.0})


@pytest.mark.parametrize(
    ("late", "n", "verdict"),
    [
        (0, 366, "undecided"),
        (0, 368, "met"),
        (0, 10, "undecided"),
        (30, 100, "missed"),
        (1, 100, "undecided"),
    ],
)
def test_a_verdict_needs_the_interval_on_one_side(late, n, verdict):
    # 0.99 ^ 368 is the first below 2.5 %.
    assert Late(late, n).verdict(0.01) == verdict


@given(st.integers(0, 60), st.integers(1, 60))
def test_the_interval_of_a_share_is_clopper_and_pearsons(hits, more):
    n = hits + more
    found = stats.fraction(hits, n)
    assert found.low <= hits / n <= found.high
    # At each end the tail beyond what was seen has 2.5 %.
    if hits:
        assert binom.sf(hits - 1, n, found.low) == pytest.approx(0.025, abs=1e-6)
    assert binom.cdf(hits, n, found.high) == pytest.approx(0.025, abs=1e-6)


def test_goodput_counts_requests_that_kept_every_limit(tmp_path):
    held, records = make.steady(0, 10.0)  # 50 requests in 10 s, TTFT 0.1, TPOT 0.02
    records = late_by(records, [3, 4, 5], 1.0)
    records[9] = msgspec.structs.replace(records[9], outcome="reset")
    run = run_of(tmp_path, [(held, records)], ttft_p99_s=0.5, tpot_p99_s=0.05)
    (point,) = metrics.points(run)
    assert point.estimates["goodput_requests_per_s"].value == pytest.approx(46 / 10)
    met = point.estimates["slo_met_frac"]
    assert met.value == pytest.approx(46 / 50)
    assert met.low < met.value < met.high
    assert [(each.limit.name, each.verdict) for each in point.judged] == [
        ("ttft_p99_s", "missed"),  # 4 of 50 late, the failed one among them: at least 2.2 % by the interval
        ("tpot_p99_s", "undecided"),
    ]
    assert point.judged[0].late == Late(4, 50)


def test_cancelled_requests_are_neither_kept_nor_late(tmp_path):
    held, records = make.steady(0, 10.0)
    records[5] = msgspec.structs.replace(records[5], outcome="cancelled")
    (view,) = views(run_of(tmp_path, [(held, records)]))
    wanted = slo.limits({"ttft_p99_s": 0.5})
    assert slo.kept(view, wanted) == (49, 49)
    assert slo.late(view, wanted[0]) == Late(0, 49)


def test_of_two_limits_on_one_metric_a_request_must_keep_the_wider(tmp_path):
    held, records = make.steady(0, 10.0)
    (view,) = views(run_of(tmp_path, [(held, late_by(records, [1], 0.2))]))
    assert slo.kept(view, slo.limits({"ttft_p50_s": 0.15, "ttft_p99_s": 0.5})) == (50, 50)
    assert slo.kept(view, slo.limits({"ttft_p50_s": 0.15})) == (49, 50)


def test_an_answer_of_one_token_has_no_tpot_to_be_late_in(tmp_path):
    held, records = make.steady(0, 10.0, requests=10)
    one = [
        msgspec.structs.replace(
            r, output_tokens=1, arrivals_ns=r.arrivals_ns[:1], arrival_tokens=[1], last_ns=r.first_ns
        )
        for r in records
    ]
    (view,) = views(run_of(tmp_path, [(held, one)]))
    (limit,) = slo.limits({"tpot_p99_s": 0.001})
    assert slo.kept(view, [limit]) == (10, 10)
    assert slo.late(view, limit).n == 0
    assert slo.late(view, limit).verdict(0.01) == "undecided"


def test_gaps_are_pooled_but_count_like_one_a_request(tmp_path):
    held, records = make.steady(0, 10.0)
    stuck = records[0].arrivals_ns
    records[0] = msgspec.structs.replace(records[0], arrivals_ns=[stuck[0], *(t + make.S for t in stuck[1:])])
    (view,) = views(run_of(tmp_path, [(held, records)]))
    (limit,) = slo.limits({"itl_p99_s": 0.05})
    found = slo.late(view, limit)
    assert (found.late, found.n) == (pytest.approx(50 / 200), 50)
    (judged,) = slo.judge([view], [limit])
    assert judged.seen.value == pytest.approx(0.02, rel=1e-6)
    # A request keeps an ITL limit by its mean gap, here that of its first and last token.
    assert slo.kept(view, [limit]) == (50, 50)


def test_a_failed_request_is_late_for_gaps_too(tmp_path):
    held, records = make.steady(0, 10.0)
    records[:10] = [msgspec.structs.replace(r, outcome="reset") for r in records[:10]]
    (view,) = views(run_of(tmp_path, [(held, records)]))
    (limit,) = slo.limits({"itl_p90_s": 1.0})
    assert slo.late(view, limit) == Late(10, 50)
    everything = [msgspec.structs.replace(r, outcome="reset") for r in records]
    (view,) = views(run_of(tmp_path / "all", [(held, everything)]))
    assert slo.late(view, limit) == Late(50, 50)


def test_without_limits_there_is_no_goodput(tmp_path):
    (point,) = metrics.points(run_of(tmp_path, [make.steady(0, 10.0)]))
    assert point.estimates["goodput_requests_per_s"] is None
    assert point.estimates["slo_met_frac"] is None
    assert point.judged == ()


@given(st.integers(1, 400), st.floats(0.01, 0.5), st.randoms(use_true_random=False))
def test_the_verdict_is_that_of_the_quantiles_interval(n, allowed, rng):
    """Whether the share beyond a limit, or the quantile against it, is asked: the verdict is one."""
    values = np.array([rng.random() for _ in range(n)])
    limit = rng.random()
    verdict = Late(int((values > limit).sum()), n).verdict(allowed)
    found = stats.quantile(values, 1 - allowed)
    if verdict == "missed":
        assert found.low is not None
        assert found.low > limit
    if verdict == "met":
        assert found.high is not None
        assert found.high <= limit
