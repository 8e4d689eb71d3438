"""What the watchers hear, put together: where a run stands, how well a load is known, how long it goes on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler import stats
from profiler.adaptive import Precision
from profiler.progress.readings import NOTHING
from profiler.progress.standing import Pace, Standing
from profiler.stats import looked
from tests import make
from tests.progress.telling import AHEAD, POINTS, SLOT, held, progress, sampled


@pytest.fixture
def now():
    found = Standing()
    found.begin(AHEAD)
    return found


def test_time_left_comes_from_finished_windows():
    pace = Pace()
    assert pace.left_s(3) is None
    pace.add(make.window(0, 10, 58))  # opened 1 s before, closed 1 s after: 50 s
    assert pace.left_s(3) == 150
    assert pace.left_s(3, progress(elapsed_s=20)) == 130
    assert pace.left_s(3, progress(elapsed_s=70)) == 100, "a window that is late takes nothing from the next"
    assert pace.left_s(None) is None, "a search does not know"


def test_before_the_first_window_is_held_time_left_is_as_it_is_expected():
    assert Pace().left_s(3, progress(elapsed_s=5, expected_s=20)) == 55
    assert Pace(starts=True).left_s(3, progress()) is None, "nobody knows how long engines take"


def test_time_left_of_what_starts_engines_again_and_again_has_the_starts_in_it(monkeypatch):
    now_s = 0
    monkeypatch.setattr(time, "perf_counter_ns", lambda: now_s * 10**9)
    pace = Pace(starts=True)
    now_s = 90
    pace.add(make.window(0, 10, 18))  # 10 s of 90
    assert pace.left_s(3) == 270
    now_s = 120
    assert pace.left_s(3) == 240, "the time of a start passes too"


def test_a_step_has_the_time_since_it_began(now):
    now.phase("m", "vllm · loading")
    began_ns = now.since_ns
    now.phase("m", "vllm · capturing")
    assert (now.since_ns, now.step) == (began_ns, "vllm · capturing")
    now.phase("m", "sealing")
    assert now.since_ns > began_ns


def test_inside_and_outside_of_windows(now):
    now.progress("tiny-moe", SLOT, progress())
    assert (now.load_number(), now.rate, now.held) == (2, 1234.4, 0)
    now.window("tiny-moe", SLOT, held(), 8, None)
    assert (now.slot, now.progress_now, now.rate, now.held, now.left) == (None, None, None, 1, 8)
    now.begin(replace(AHEAD, points=(), windows=None))
    now.progress("tiny-moe", SLOT, progress())
    assert now.load_number() is None, "a search chooses its loads"


def test_rates_are_means_of_a_second_and_begin_anew_with_a_window(now):
    for rate in (100, 200, 300, 400, 500, 600, 700, 800, 900):
        now.progress("m", SLOT, progress(chunks_per_s=rate))
    assert list(now.rates) == [250, 650]
    assert now.rate == 750
    now.progress("m", SLOT._replace(repeat=2), progress(chunks_per_s=None))
    assert (list(now.rates), now.rate) == ([], None)


@settings(deadline=None)  # the first time scipy is imported
@given(st.lists(st.integers(1, 10**9), min_size=2, max_size=5))
def test_of_a_number_of_windows_the_interval_is_that_of_their_rates(chunks):
    now = Standing()
    for n, count in enumerate(chunks):
        now.window("m", SLOT, held(n, count), 5, None)
    expected = looked.half_frac(stats.over_repeats([count / 10 for count in chunks]))
    found = now.known_of("m", SLOT.point)
    assert found.windows == len(chunks)
    assert found.target_frac is None
    assert found.half_frac == (None if expected is None else pytest.approx(expected))


def test_another_run_s_windows_say_nothing_of_this_one_s(now):
    """The runs of one engine start in a sweep: the same model and loads, other requests."""
    now.window("m", SLOT, held(0, 10), 0, None)
    now.begin(AHEAD)
    now.window("m", SLOT, held(0, 99), 0, None)
    assert now.known_of("m", SLOT.point) == (None, 1, None)


def test_a_window_without_a_steady_part_has_no_rate(now):
    for n in range(3):
        now.window("m", SLOT, held(n, steady_start_ns=None, steady_end_ns=None), 5, None)
    assert now.known_of("m", SLOT.point).half_frac is None


def test_where_windows_decide_how_many_there_are_their_rule_says_what_is_known(now):
    known = Precision(windows=3, spent_s=30, target_frac=0.02, half_frac=0.024)
    now.window("m", SLOT, held(), 2, known)
    assert now.known_of("m", SLOT.point) == (0.024, 3, 0.02)


def test_of_a_load_without_an_interval_the_last_that_has_one_stands_in(now):
    now.phase("m", "starting")
    assert now.last_known() is None
    for point, half in ((POINTS[0], 0.01), (POINTS[1], 0.02), (POINTS[2], None)):
        known = Precision(windows=3, spent_s=30, target_frac=0.02, half_frac=half)
        now.window("m", SLOT._replace(point=point), held(point=point), 2, known)
    assert now.last_known()[0] == POINTS[1]
    now.progress("m", SLOT._replace(point=POINTS[0]), progress())
    assert now.last_known()[0] == POINTS[0]
    now.phase("another", "starting")
    assert now.last_known() is None


def test_readings_are_of_the_model_that_is_held(now, tmp_path):
    now.up("m", sampled(tmp_path / "samples", time.perf_counter_ns()))
    assert now.readings() == NOTHING
    now.phase("m", "idle")
    assert now.readings().running == 8
    now.sealed([Path("x")])
    assert now.readings() == NOTHING
