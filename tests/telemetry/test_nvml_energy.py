"""The energy counter's steps: where they were, how well that is known, and their period."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.nvml.board import Sensor, SimulatedBoard
from profiler.nvml.curves import Constant, Given, Square, Stretch
from profiler.nvml.simulated import VirtualClock
from profiler.samples import Sample, series, sources
from profiler.telemetry.nvml_energy import (
    FASTEST_S,
    HEARTBEAT_S,
    MIN_STEPS,
    OBSERVE_EVERY_S,
    OBSERVE_S,
    SLOWEST_S,
    WATCH_S,
    WATCHES,
    EnergyTicks,
    Steps,
)
from profiler.telemetry.nvml_readings import POWER_INSTANT, TOTAL_ENERGY

from .virtual import KINDS, as_table, board, drive, probe_of, taken


def named(samples: list[Sample], name: str) -> list[Sample]:
    return [s for s in samples if s.name == name]


def run(each: SimulatedBoard, seconds: float, lateness_s: float = 0.001, seed: int = 7) -> list[Sample]:
    clock = VirtualClock()
    probe, _ = probe_of(each, clock=clock)
    return drive(probe, clock, seconds, lateness_s, seed)


@pytest.mark.parametrize(
    ("kind", "period_s", "poll_s"),
    [
        ("v100", 0.02, FASTEST_S),
        ("a100", 0.1, SLOWEST_S),
        ("h100", 0.1, SLOWEST_S),
        ("b200", 0.1, SLOWEST_S),
        ("geforce", 0.5, SLOWEST_S),
    ],
)
def test_the_period_is_found_and_polled_at_a_fifth_of_it(kind: str, period_s: float, poll_s: float) -> None:
    clock = VirtualClock()
    probe, _ = probe_of(board(kind, Square(200, 0.3, 7.3)), clock=clock)
    assert probe.ticks.period_s == OBSERVE_EVERY_S
    samples = drive(probe, clock, 5)
    (found,) = named(samples, "energy_period_s")
    assert found.value == pytest.approx(period_s, rel=0.01)
    assert found.t_ns / 1e9 == pytest.approx(1000 + OBSERVE_S, abs=0.01)
    assert probe.ticks.period_s == poll_s
    (power,) = named(samples, "power_period_s")
    assert power.value == pytest.approx(KINDS[kind].instant.period_s, rel=0.01)


@pytest.mark.parametrize("kind", ["v100", "h100", "geforce"])
def test_a_board_idle_at_the_start_shows_how_often_its_power_is_renewed_once_loaded(kind: str) -> None:
    clock = VirtualClock()
    probe, library = probe_of(
        board(kind, Stretch(Square(300, 0.3, 7.3), Constant(70), 1006, 1020)), clock=clock
    )
    asked: list[float] = []
    library.nvmlDeviceGetFieldValues = recording(library.nvmlDeviceGetFieldValues, asked, clock)
    samples = [*drive(probe, clock, 6)]
    assert not named(samples, "power_period_s")
    idle = len(asked)
    samples = drive(probe, clock, 14)
    (found,) = named(samples, "power_period_s")
    assert found.value == pytest.approx(KINDS[kind].instant.period_s, rel=0.05)
    assert 1006 < found.t_ns / 1e9 < 1008.5
    watched = asked[idle:]
    assert watched[-1] - watched[0] <= WATCH_S + 0.05
    assert 1000 < asked[idle - 1] <= 1000 + OBSERVE_S + 0.05


def recording(ask: Callable[..., Any], asked: list[float], clock: VirtualClock) -> Callable[..., Any]:
    """``ask``, and in ``asked`` when power was asked for together with the counter."""

    def asking(handle: Any, wanted: list[tuple[int, int]]) -> Any:
        if {number for number, _ in wanted} == {TOTAL_ENERGY, POWER_INSTANT}:
            asked.append(clock.now_s)
        return ask(handle, wanted)

    return asking


def test_power_that_never_tells_its_period_is_not_watched_for_ever() -> None:
    clock = VirtualClock()
    slow = replace(KINDS["h100"], instant=Sensor(0.1, 0.9))
    probe, library = probe_of(SimulatedBoard(slow, Square(300, 0.3, 0.7), phase_s=0.4), clock=clock)
    asked: list[float] = []
    library.nvmlDeviceGetFieldValues = recording(library.nvmlDeviceGetFieldValues, asked, clock)
    samples = drive(probe, clock, 60)
    assert not named(samples, "power_period_s")
    after_start = [t_s for t_s in asked if t_s > 1000.5 + OBSERVE_S]
    assert WATCHES / 2 < len(after_start) * SLOWEST_S <= WATCHES * (WATCH_S + 0.05)
    assert not [t_s for t_s in asked if t_s > 1040]


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["v100", "h100", "geforce"]),
    hz=st.floats(0.3, 31),
    number=st.integers(0, 50),
    lateness_s=st.floats(0, 0.02),
    seed=st.integers(0, 100),
)
def test_every_step_lies_where_its_row_says(
    kind: str, hz: float, number: int, lateness_s: float, seed: int
) -> None:
    """However late the polls: in (t − seen_within, t] the counter stepped, to the value of the row."""
    each = board(kind, Square(300, 0.5, hz), number)
    samples = run(each, 6, lateness_s, seed)
    period_s, phase_s = each.kind.counter_period_s, (each.phase_s or 0) % each.kind.counter_period_s
    within = {s.t_ns: s.value for s in named(samples, "energy_seen_within_s")}
    value_at = {s.t_ns: s.value for s in named(samples, "energy_mj")}
    assert len(within) >= 5 / max(period_s, 0.05)
    for t_ns, seen_within_s in within.items():
        stepped_s = math.floor((t_ns / 1e9 - phase_s) / period_s + 1e-6) * period_s + phase_s
        assert t_ns / 1e9 - seen_within_s <= stepped_s + 1e-7 <= t_ns / 1e9 + 2e-7
        assert value_at[t_ns] == pytest.approx(each.energy_j(stepped_s) * 1000, abs=1)
    assert set(within) < set(value_at)  # the first row, at least, is a sign of life


class SlowClock(VirtualClock):
    """Every look at it takes 1 ms, as does a call of the library."""

    def perf_counter_ns(self) -> int:
        self.now_s += 0.001
        return super().perf_counter_ns()


def test_a_step_during_a_call_lies_where_its_row_says() -> None:
    clock = SlowClock()
    each = board("v100", Square(300, 0.5, 3))
    probe, _ = probe_of(each, clock=clock)
    samples = drive(probe, clock, 8, lateness_s=0.003)
    within = named(samples, "energy_seen_within_s")
    value_at = {s.t_ns: s.value for s in named(samples, "energy_mj")}
    assert len(within) > 300
    for row in within:
        first_s, last_s = row.t_ns / 1e9 - row.value, row.t_ns / 1e9
        phase_s = (each.phase_s or 0) % 0.02
        steps_s = [k * 0.02 + phase_s for k in range(int(first_s / 0.02) - 1, int(last_s / 0.02) + 1)]
        inside = [step_s for step_s in steps_s if first_s - 1e-6 <= step_s <= last_s + 1e-6]
        assert value_at[row.t_ns] in [int(each.energy_j(step_s) * 1000) for step_s in inside]


def test_a_counter_that_stands_still_gives_signs_of_life_but_no_steps() -> None:
    clock = VirtualClock()
    probe, _ = probe_of(board(curve=Given(lambda t: 0.0, lambda t: 5.0)), clock=clock)
    samples = drive(probe, clock, 6.5)
    assert probe.ticks.period_s == SLOWEST_S
    assert not named(samples, "energy_seen_within_s")
    assert not named(samples, "energy_period_s")
    times_s = [s.t_ns / 1e9 for s in named(samples, "energy_mj")]
    assert len(times_s) == 7
    assert all(0 <= b - a - HEARTBEAT_S <= 0.03 for a, b in pairwise(times_s))


def test_slow_counters_have_signs_of_life_between_steps() -> None:
    slow = SimulatedBoard(replace(KINDS["h100"], counter_period_s=2.5), Constant(300), phase_s=0.4)
    samples = run(slow, 7)
    assert len(named(samples, "energy_seen_within_s")) == 3
    assert len(named(samples, "energy_mj")) >= 3 + 5
    assert not named(samples, "energy_period_s")


def test_a_counter_that_begins_anew_shows_its_step_down() -> None:
    samples = run(board(reset_s=1004.0), 8)
    values = [s.value for s in named(samples, "energy_mj")]
    falls = [(a, b) for a, b in pairwise(values) if b < a]
    assert len(falls) == 1
    assert falls[0][1] <= 400 * 0.11 * 1000


def test_a_negative_step_of_known_size_shows() -> None:
    samples = run(board(step_s=1004.0, step_j=500.0), 8)
    values = [s.value for s in named(samples, "energy_mj")]
    (fall,) = [b - a for a, b in pairwise(values) if b < a]
    assert fall == pytest.approx((-500 + 40) * 1000, abs=1)


def test_a_counter_fed_by_the_sensor_shows_what_the_sensor_saw() -> None:
    """At 10 Hz a sensor that looks at 25 of every 100 ms sees always the same part of the wave."""
    fed, free = board(curve=Square(400, 0.5, 10), sensor_fed=True), board(curve=Square(400, 0.5, 10))
    seen = [
        (rows[-1].value - rows[0].value) / (rows[-1].t_ns - rows[0].t_ns) * 1e6
        for rows in (named(run(each, 10), "energy_mj")[20:] for each in (fed, free))
    ]
    assert abs(seen[0] - 400) > 50
    assert seen[1] == pytest.approx(400, rel=0.02)


def test_millijoules_keep_every_digit(tmp_path: Path) -> None:
    start_j = 9_000_000_000_000.0  # in mJ just below 2^53: beyond three centuries at 700 W
    samples = run(board(curve=Given(lambda t: 1.23, lambda t: start_j + 1.23 * (t - 1000))), 2)
    told = [s.value for s in named(samples, "energy_mj")]
    table = as_table(samples, tmp_path / "samples")
    _, counted = series(table, sources(table, "gpu")[0], "energy_mj")
    assert [int(value) for value in counted] == told
    assert 100 < told[1] - told[0] < 150
    assert all(isinstance(value, int) for value in told)


def test_without_a_counter_nothing_is_polled_and_the_pace_is_slow() -> None:
    clock = VirtualClock()
    probe, library = probe_of(board(missing=frozenset({"energy"})), clock=clock)
    asked = library.calls["fields"]
    assert taken(probe.ticks.sample()) == []
    assert library.calls["fields"] == asked
    assert probe.ticks.period_s >= 1
    assert probe.ticks.last_step_ns() is None


def test_counters_of_all_boards_are_read_close_together() -> None:
    clock = VirtualClock()
    probe, _ = probe_of(*(board(number=n) for n in range(8)), clock=clock)
    first = named(taken(probe.ticks.sample()), "energy_mj")
    assert len(first) == 8
    assert {s.t_ns for s in first} == {round(clock.now_s * 1e9)}


def test_a_lost_board_ends_the_polling_of_that_board_only() -> None:
    clock = VirtualClock()
    lost, good = board(number=0, lost_s=1002.0), board(number=1)
    probe, _ = probe_of(lost, good, clock=clock)
    errors = stepped = 0
    while clock.now_s < 1006:
        clock.now_s += probe.ticks.period_s
        samples = taken(probe.ticks.sample())
        errors += sum(s.source == "error" for s in samples)
        stepped += sum(s.source == f"gpu:{good.uuid}" and s.name == "energy_seen_within_s" for s in samples)
    assert errors == 1
    assert stepped == 60


def test_last_step_is_that_of_the_slowest() -> None:
    clock = VirtualClock()
    probe, _ = probe_of(board("v100", number=0), board("geforce", number=1), clock=clock)
    ticks: EnergyTicks = probe.ticks
    assert ticks.last_step_ns() is None
    drive(probe, clock, 2)
    slow = board("geforce", number=1).counter(clock.now_s)[1]
    assert ticks.last_step_ns() == pytest.approx(slow * 1e9, abs=0.006e9)


@settings(max_examples=200, deadline=None)
@given(
    period_ns=st.integers(15_000_000, 600_000_000),
    skipped=st.lists(st.integers(0, 2), min_size=6, max_size=60),
    poll_ns=st.integers(1_000_000, 3_000_000),
    phase_ns=st.integers(0, 10**9),
)
def test_the_period_is_found_though_updates_go_unseen(
    period_ns: int, skipped: list[int], poll_ns: int, phase_ns: int
) -> None:
    """An update that brings the same value cannot be seen; a step is seen at the next poll."""
    skipped = [0, *skipped, 0]
    steps, value, t_ns = Steps(), 0.0, phase_ns
    steps.see(value, 0)
    for skip in skipped:
        t_ns += period_ns * (1 + skip)
        value += 1
        steps.see(value, -(-t_ns // poll_ns) * poll_ns)
    found_s = steps.period_s()
    assert found_s is not None
    assert found_s * 1e9 == pytest.approx(period_ns, abs=2 * poll_ns)


def test_too_few_steps_tell_no_period() -> None:
    steps = Steps()
    for number in range(MIN_STEPS):
        steps.see(number, number * 10**8)
        assert steps.period_s() is None
    steps.see(MIN_STEPS, MIN_STEPS * 10**8)
    assert steps.period_s() == pytest.approx(0.1)
