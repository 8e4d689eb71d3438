"""The search against systems whose capacity is known, without a server."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import search
from profiler.levels import Level, Probe, levels
from profiler.schema import LoadPoint
from profiler.settings import Load, Measure, Search
from profiler.slo import Late
from tests import make

WINDOW_S = 10.0
SERVICE_S = 0.1


def scenario(find="capacity", mode="open", repeats=1, **changes):
    load = Load(mode=mode, requests_per_s=changes.pop("start", ()), concurrency=changes.pop("slots", (1,)))
    base = msgspec.structs.replace(
        make.SCENARIO,
        load=load,
        measure=Measure(window_s=WINDOW_S, repeats=repeats),
        slo={"ttft_p99_s": 0.5},
        search=Search(find=find, **changes),
    )
    return base if find == "capacity" else msgspec.structs.replace(base, slo={})


def made(point, late=0, completed_per_s=None, failed=0, e2e_s=SERVICE_S, bound_by=()):
    """A probe of so many late requests; for slots the rate is what Little's law gives."""
    rate = point.requests_per_s or point.concurrency / e2e_s
    n = max(10, round(rate * WINDOW_S))
    span_s = n / rate
    done = n if completed_per_s is None else round(completed_per_s * span_s)
    return Probe(
        point=point,
        requests=n,
        failed=failed,
        completed=done,
        e2e_sum_s=e2e_s * (n - failed),
        answered=n - failed,
        span_s=span_s,
        late={"ttft_p99_s": Late(round(late * n) if late <= 1 else late, n)},
        bound_by=bound_by,
    )


def walk(plan, system, history=()):
    """Hold what the search asks for, until it asks no more."""
    held = list(history)
    while (point := search.next_point(plan, held)) is not None:
        assert len(held) < 100, "endless"
        held.append(system(point))
    return held


def sharp(capacity):
    """Everything in time up to the capacity, which is also the service rate; half is late beyond."""

    def system(point):
        load = point.requests_per_s or point.concurrency
        over = load > capacity
        waiting = max(SERVICE_S, 1 / capacity) * (1 + 3 * over + load / capacity)
        return made(point, late=0.5 if over else 0, e2e_s=waiting)

    return system


def queue(capacity):
    """An overloaded open loop completes at the service rate, and says so."""

    def system(point):
        if point.requests_per_s > capacity:
            return made(point, late=0.9, completed_per_s=capacity, e2e_s=2.0)
        return made(point)

    return system


@settings(deadline=None)
@given(st.floats(0.02, 5000))
def test_a_sharp_capacity_is_bracketed_within_the_resolution_in_few_probes(capacity):
    plan = scenario(max_probes=24)
    held = walk(plan, sharp(capacity))
    found = search.outcome(plan, held)
    assert found.load <= capacity < found.above
    assert found.above <= found.load * 1.05 * 1.0011
    assert len(held) <= 8 + abs(math.log2(capacity)) / 1.5
    assert found.windows == len(held)
    assert found.requests == sum(each.requests for each in held)


@settings(deadline=None)
@given(st.floats(2, 5000))
def test_an_overload_that_shows_the_service_rate_saves_probes(capacity):
    plan = scenario()
    held = walk(plan, queue(capacity))
    found = search.outcome(plan, held)
    assert found.load <= capacity * 1.001
    assert found.load >= capacity / 1.06
    assert len(held) <= 12


def test_fewer_probes_than_without_that_knowledge():
    assert len(walk(scenario(), queue(37.3))) < len(walk(scenario(), sharp(37.3)))


@pytest.mark.parametrize("slots", [1, 2, 3, 7, 32, 250])
def test_a_closed_loop_is_searched_in_whole_slots(slots):
    plan = scenario(mode="closed")
    held = walk(plan, sharp(slots))
    found = search.outcome(plan, held)
    assert found.unit == "concurrency"
    assert found.load <= slots
    assert slots <= found.load * 1.05 or found.load == slots
    assert all(each.point.requests_per_s is None for each in held)


def noisy(capacity, steepness, seed):
    """1 % late at the capacity, less below and more above, drawn at random."""
    rng = random.Random(seed)

    def system(point):
        share = min(0.9, 0.01 * (point.requests_per_s / capacity) ** steepness)
        n = made(point).requests
        return made(point, late=sum(rng.random() < share for _ in range(n)) / n)

    return system


@settings(max_examples=60, deadline=None)
@given(st.floats(5, 500), st.integers(0, 10**6))
def test_noise_moves_the_answer_little_and_never_for_ever(capacity, seed):
    plan = scenario(max_probes=30)
    held = walk(plan, noisy(capacity, steepness=40, seed=seed))
    found = search.outcome(plan, held)
    assert found.load == pytest.approx(capacity, rel=0.2)  # 40-fold: at 0.87 of it 0.004 % are late
    assert max(level.windows for level in levels(plan, held)) <= 3


@settings(deadline=None)
@given(st.integers(0, 12), st.floats(3, 300))
def test_a_search_goes_on_where_it_stood(cut, capacity):
    plan = scenario(repeats=2)
    whole = walk(plan, sharp(capacity))
    assert walk(plan, sharp(capacity), whole[:cut]) == whole
    shuffled = whole[:cut]
    random.Random(cut).shuffle(shuffled)
    assert search.next_point(plan, shuffled) == search.next_point(plan, whole[:cut])


def test_the_load_found_is_held_for_all_repeats():
    plan = scenario(repeats=3)
    held = walk(plan, sharp(20.0))
    assert len(search.outcome(plan, held).level.probes) == 3


def test_the_first_probe_is_the_users_or_a_low_one():
    assert search.next_point(scenario(start=(7.0,)), []).requests_per_s == 7.0
    assert search.next_point(scenario(), []).requests_per_s == 1.0
    assert search.next_point(scenario(mode="closed", slots=(4,)), []).concurrency == 4


def test_a_load_too_high_to_begin_with_is_searched_downward():
    plan = scenario(start=(100.0,))
    found = search.outcome(plan, walk(plan, sharp(0.7)))
    assert found.load <= 0.7 <= found.above <= found.load * 1.06


def test_a_server_too_slow_even_alone_has_no_capacity():
    plan = scenario()
    held = walk(plan, lambda point: made(point, late=1.0, e2e_s=1.0))
    found = search.outcome(plan, held)
    assert (found.load, found.level) == (None, None)
    assert len(held) <= 4
    assert "no load tried keeps the limits" in found.notes[0]
    assert "TTFT p99" in found.notes[0]


def test_a_server_that_answers_nothing_ends_the_search():
    plan = scenario()
    held = walk(plan, lambda point: Probe(point=point, requests=10, failed=10))
    assert len(held) <= 3
    assert "failures" in search.outcome(plan, held).notes[0]


def test_a_limit_nobody_reaches_is_at_least_this():
    plan = scenario(max_probes=5)
    found = search.outcome(plan, walk(plan, made))
    assert found.above is None
    assert any("at least this" in note for note in found.notes)
    assert any("max_probes" in note for note in found.notes)


def test_a_client_that_is_the_limit_stops_the_climb():
    plan = scenario()
    held = walk(plan, lambda p: made(p, bound_by=("send lag",) if p.requests_per_s > 100 else ()))
    assert max(each.point.requests_per_s for each in held) < 1000
    found = search.outcome(plan, held)
    assert found.above is None
    assert any("client was the limit" in note for note in found.notes)


def test_a_window_spoilt_by_the_client_is_held_again_and_not_counted():
    point = LoadPoint(mode="open", requests_per_s=10.0)
    plan = scenario(start=(10.0,))
    spoilt = made(point, late=0.9, bound_by=("busy",))
    assert search.next_point(plan, [spoilt]) == point
    assert search.next_point(scenario("knee"), [spoilt]) == point
    (level,) = levels(plan, [spoilt, made(point)])
    assert (level.verdict, level.windows, level.bound_by) == ("met", 2, ())
    # Three times in a row it is no accident: believed, and said.
    (level,) = levels(plan, [spoilt] * 3)
    assert (level.verdict, level.bound_by) == ("missed", ("busy",))


def test_a_verdict_on_the_edge_is_probed_again_then_decided_by_the_estimate():
    # One late of 100 may be 1 % or 5 %: three windows cannot tell, the estimate (1 %) keeps the limit.
    plan = scenario(start=(10.0,), max_probes=3)
    edge = LoadPoint(mode="open", requests_per_s=10.0)
    held = walk(plan, lambda point: made(point, late=0.01))
    assert [each.point for each in held] == [edge] * 3
    found = search.outcome(plan, held)
    assert found.load == 10.0
    assert any("decided by the estimate" in note for note in found.notes)


def test_an_open_verdict_bounds_nothing():
    low, high = (LoadPoint(mode="open", requests_per_s=rate) for rate in (10.0, 20.0))
    found = search.outcome(scenario(max_probes=2), [made(low), made(high, late=0.012)])
    assert (found.load, found.above) == (10.0, None)


def test_a_lower_load_missed_after_a_higher_was_met_is_probed_again():
    plan = scenario()
    low, high = (LoadPoint(mode="open", requests_per_s=rate) for rate in (8.0, 10.0))
    held = [made(low, late=0.3), made(high)]
    assert search.next_point(plan, held) == low
    # It was a hiccup: with all windows pooled the lower load is still missed, and believed.
    held += [made(low), made(low)]
    assert search.next_point(plan, held) == high
    held += [made(high), made(high)]
    found = search.outcome(plan, held)
    assert any("not monotone" in note for note in found.notes)
    assert found.load is None
    assert search.next_point(plan, held).requests_per_s < 8


def test_failures_and_growing_queues_miss_a_load():
    point = LoadPoint(mode="open", requests_per_s=100.0)
    plan = scenario()

    def verdict(**changes):
        return Level(100.0, (made(point, **changes),), plan, 1).verdict

    assert verdict() == "met"
    assert verdict(failed=100) == "missed"
    assert verdict(completed_per_s=80.0) == "missed"
    assert verdict(completed_per_s=94.5) == "met"  # 10 ± 4 in flight at each end of 1,000 requests
    assert verdict(late=0.05) == "missed"
    assert verdict(late=0.012) == "undecided"


def test_a_load_still_filling_up_is_no_growing_queue():
    # 10 requests/s of 10 s after 5 s of warm-up: 50 more come than go, until 100 are in flight.
    point = LoadPoint(mode="open", requests_per_s=10.0)
    filling = Probe(point=point, requests=300, completed=250, e2e_sum_s=3000.0, answered=300, span_s=30.0)
    short = msgspec.structs.replace(scenario(), measure=Measure(warmup_s=5.0))
    assert Level(10.0, (filling,), short, 1).keeps_up
    warm = msgspec.structs.replace(scenario(), measure=Measure(warmup_s=10.0))
    assert not Level(10.0, (filling,), warm, 1).keeps_up


def test_a_limit_that_no_request_could_break_is_kept():
    point = LoadPoint(mode="open", requests_per_s=10.0)
    plan = msgspec.structs.replace(scenario(), slo={"ttft_p99_s": 0.5, "tpot_p99_s": 0.05})
    assert Level(10.0, (made(point),), plan, 1).verdict == "met"  # answers of one token


def test_the_knee_is_where_power_is_greatest():
    # Kleinrock: 1 / (1 − ρ) grows the time, so ρ (1 − ρ) is greatest at half the service rate.
    rate = 40.0

    def system(point):
        load = point.requests_per_s
        rho = min(load / rate, 0.98)
        return made(point, completed_per_s=min(load, rate), e2e_s=SERVICE_S / (1 - rho))

    plan = scenario("knee")
    held = walk(plan, system)
    found = search.outcome(plan, held)
    assert found.load == pytest.approx(20, rel=0.3)
    assert found.below < found.load < found.above
    assert len(held) <= 11


def test_few_requests_at_low_rates_end_no_climb_to_the_knee():
    rng = random.Random(1)

    def system(point):
        load = point.requests_per_s
        rho = min(load / 40.0, 0.98)
        n = max(4, round(2 * load))
        span_s = n / load * rng.uniform(0.8, 1.3)  # a Poisson stream brings them sooner or later
        done = min(n, round(40.0 * span_s)) - (n > 3)
        e2e_s = SERVICE_S / (1 - rho)
        return Probe(point=point, requests=n, completed=done, e2e_sum_s=e2e_s * n, answered=n, span_s=span_s)

    plan = scenario("knee")
    found = search.outcome(plan, walk(plan, system))
    assert found.load == pytest.approx(20, rel=0.45)


def test_the_knee_of_a_closed_loop_is_where_places_run_out():
    places = 8

    def system(point):
        busy = min(point.concurrency, places)
        return made(point, e2e_s=SERVICE_S * point.concurrency / busy)

    plan = scenario("knee", mode="closed", repeats=2)
    found = search.outcome(plan, walk(plan, system))
    assert found.load == places
    assert len(found.level.probes) == 2
