"""Due times: the asked law, the asked rate, the same every time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from profiler.schema import LoadPoint
from profiler.settings import Load, Measure, Stage
from profiler.workload import mean_rate, schedule

MEASURE = Measure(warmup_s=2.0, window_s=5.0, max_window_s=60.0, min_requests=10)


def planned(rate=None, *, seed=0, window=0, measure=MEASURE, **load):
    rates = () if rate is None else (rate,)
    load = Load(mode="open", requests_per_s=rates, **load)
    return schedule(load, LoadPoint(mode="open", requests_per_s=rate), measure, seed, window)


def first(made, count):
    blocks = itertools.chain.from_iterable(made.blocks())
    return np.array(list(itertools.islice(blocks, count)))


# ---------------------------------------------------------------------------------------- one rate


def test_constant_arrivals_are_exact_and_the_first_is_due_at_once():
    due = first(planned(3.0, arrivals="constant"), 20_000)
    assert due[0] == 0
    assert np.abs(due - np.arange(20_000) / 3).max() < 1e-9


@pytest.mark.parametrize(
    ("load", "law"),
    [
        ({"arrivals": "poisson"}, stats.expon()),
        ({"arrivals": "gamma", "burstiness": 0.25}, stats.gamma(0.25, scale=4)),
        ({"arrivals": "gamma", "burstiness": 1}, stats.expon()),
        ({"arrivals": "gamma", "burstiness": 9}, stats.gamma(9, scale=1 / 9)),
    ],
)
def test_gaps_follow_the_law(load, law):
    due = first(planned(200.0, **load), 20_000)
    gaps = np.diff(due, prepend=0)
    assert gaps.min() >= 0
    assert stats.kstest(gaps * 200, law.cdf).pvalue > 0.01
    assert abs(np.corrcoef(gaps[1:], gaps[:-1])[0, 1]) < 0.03
    spread = law.std() / np.sqrt(len(gaps))
    assert len(due) / due[-1] / 200 == pytest.approx(1, abs=4 * spread)
    shape = load.get("burstiness", 1.0)
    assert gaps.std() / gaps.mean() == pytest.approx(1 / np.sqrt(shape), rel=0.05)


@pytest.mark.parametrize("load", [{"arrivals": "poisson"}, {"arrivals": "gamma", "burstiness": 0.5}])
def test_the_same_seed_and_window_is_the_same_and_no_other_is(load):
    due = first(planned(50.0, **load), 9000)
    assert (due == first(planned(50.0, **load), 9000)).all()
    made = planned(50.0, **load)
    assert (first(made, 9000) == first(made, 9000)).all()
    for other in ({"seed": 1}, {"window": 1}):
        assert not set(due) & set(first(planned(50.0, **load, **other), 9000))


def test_another_rate_is_the_same_process_on_another_scale():
    """So that the points of a sweep differ by their rate and nothing else."""
    assert first(planned(10.0), 100) * 10 == pytest.approx(first(planned(1000.0), 100) * 1000)


def test_a_plain_open_loop_never_ends():
    made = planned(1000.0)
    assert not made.finite
    assert len(first(made, 50_000)) == 50_000


# ----------------------------------------------------------------------------------- its window


def due_inside(made):
    due = first(made, 20_000)
    return int(((due >= made.start_s) & (due < made.end_s)).sum())


@pytest.mark.parametrize("rate", [0.7, 1.3, 3.0, 40.0])
@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
def test_the_window_is_the_least_whole_multiple_that_holds_enough(rate, arrivals):
    made = planned(rate, arrivals=arrivals)
    assert made.start_s == 2.0
    windows = (made.end_s - made.start_s) / 5
    assert windows == round(windows) >= 1
    assert due_inside(made) >= 10
    made.end_s -= 5
    assert due_inside(made) < 10


def test_a_request_due_when_a_window_ends_belongs_to_the_next():
    """Due at 2, 3, …: six seconds make exactly the window [2, 8)."""
    measure = Measure(warmup_s=2.0, window_s=3.0, max_window_s=60.0, min_requests=6)
    assert planned(1.0, arrivals="constant", measure=measure).end_s == 8.0
    seven = Measure(warmup_s=2.0, window_s=3.0, max_window_s=60.0, min_requests=7)
    assert planned(1.0, arrivals="constant", measure=seven).end_s == 11.0


def test_a_window_never_outlasts_its_limit():
    assert planned(0.01).end_s == 62.0
    none = Measure(warmup_s=0, window_s=5, min_requests=0)
    made = planned(0.01, measure=none)
    assert (made.start_s, made.end_s) == (0, 5)
    many = Measure(warmup_s=0, window_s=5, max_window_s=20, min_requests=10**9)
    assert planned(100.0, measure=many).end_s == 20


# ------------------------------------------------------------------------------------------ stages

STAGES = (
    Stage(for_s=20, requests_per_s=50),
    Stage(for_s=40, requests_per_s=50, to_requests_per_s=250),
    Stage(for_s=20, requests_per_s=250, to_requests_per_s=10),
    Stage(for_s=10, requests_per_s=10),
)
EXPECTED = (1000, 6000, 2600, 100)


def cumulative(t):
    """Λ by hand for the first two stages."""
    return np.where(t < 20, 50 * t, 1000 + 50 * (t - 20) + 5 * (t - 20) ** 2 / 2)


def test_steps_and_ramps_have_their_counts_exactly():
    made = planned(stages=STAGES, arrivals="constant")
    assert (made.start_s, made.end_s, made.finite) == (0, 90, True)
    due = np.concatenate(list(made.blocks()))
    assert (np.diff(due) > 0).all()
    counts = np.histogram(due, [0, 20, 60, 80, 90])[0]
    assert counts == pytest.approx(EXPECTED, abs=1)
    early = due[due < 60]
    assert cumulative(early) == pytest.approx(np.arange(len(early)), abs=1e-6)


@pytest.mark.parametrize("load", [{}, {"arrivals": "gamma", "burstiness": 0.25}])
def test_a_ramp_keeps_the_law_of_its_gaps_on_its_own_scale(load):
    """Time-rescaling: Λ(due) is the process at unit rate."""
    due = np.concatenate(list(planned(stages=STAGES, **load).blocks()))
    assert due[-1] < 90
    early = due[due < 60]
    gaps = np.diff(cumulative(early), prepend=0)
    shape = load.get("burstiness", 1.0)
    assert stats.kstest(gaps, stats.gamma(shape, scale=1 / shape).cdf).pvalue > 0.01


def test_the_mean_rate_of_stages():
    assert mean_rate(Load(mode="open", stages=STAGES)) == pytest.approx(sum(EXPECTED) / 90)


def test_a_stage_may_hold_no_request_at_all():
    stages = (Stage(for_s=1, requests_per_s=0.001), Stage(for_s=1, requests_per_s=100))
    due = np.concatenate(list(planned(stages=stages, window=1).blocks()))
    assert 60 < len(due) < 140
    assert due[0] > 1
    quiet = list(planned(stages=stages[:1], window=1).blocks())
    assert sum(map(len, quiet)) == 0
