"""Simulated boards: the truth in closed form, and what sensors and counters make of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.nvml.board import SECOND, WARM_S, Faults, Sensor, SimulatedBoard
from profiler.nvml.curves import Constant, Curve, Given, Sine, Square, Stretch
from profiler.nvml.wanted import kinds

KINDS = kinds()
CURVES = st.one_of(
    st.builds(Constant, st.floats(1, 1000)),
    st.builds(Square, st.floats(1, 1000), st.floats(0, 1), st.floats(0.3, 30)),
    st.builds(Sine, st.floats(1, 1000), st.floats(0, 1), st.floats(0.3, 30)),
)


@given(
    st.one_of(CURVES, st.builds(Stretch, CURVES, CURVES, st.floats(1, 2), st.floats(2, 3))), st.floats(0, 2)
)
def test_energy_is_the_integral_of_power(curve: Curve, t0_s: float) -> None:
    steps, step_s = 20_000, 2.0 / 20_000
    summed = sum(curve.power_w(t0_s + (n + 0.5) * step_s) for n in range(steps)) * step_s
    assert curve.energy_j(t0_s + 2) - curve.energy_j(t0_s) == pytest.approx(summed, rel=0.01, abs=0.3)


@given(CURVES, st.floats(1000, 1100), st.sampled_from(sorted(KINDS)), st.integers(0, 20))
def test_the_counter_is_the_truth_as_of_its_last_update(
    curve: Curve, t_s: float, kind: str, number: int
) -> None:
    board = SimulatedBoard(KINDS[kind], curve, number)
    shown_mj, ticked_s = board.counter(t_s)
    assert -1e-6 <= t_s - ticked_s < board.kind.counter_period_s + 1e-6
    assert shown_mj == int(board.energy_j(ticked_s) * 1000)
    again = board.counter(ticked_s + board.kind.counter_period_s / 2)
    assert again == (shown_mj, ticked_s)
    later, _ = board.counter(ticked_s + 1.5 * board.kind.counter_period_s)
    assert later >= shown_mj


@given(st.floats(1000, 1010), st.sampled_from(sorted(KINDS)))
def test_sensors_show_the_mean_over_their_window(t_s: float, kind: str) -> None:
    board = SimulatedBoard(KINDS[kind], Square(400, 0.5, 3.3))
    for sensor in (board.kind.instant, SECOND):
        watts, ticked_s = board.shown_w(sensor, t_s)
        assert -1e-6 <= t_s - ticked_s < sensor.period_s + 1e-6
        joules = board.energy_j(ticked_s) - board.energy_j(ticked_s - sensor.window_s)
        assert watts == pytest.approx(joules / sensor.window_s)


def test_what_each_architecture_is_known_for() -> None:
    """arXiv 2312.02741 (sensors), nvrm_registry.h (counter of boards other than data-centre ones)."""
    periods_s = {name: kind.counter_period_s for name, kind in KINDS.items()}
    assert (periods_s.pop("v100"), periods_s.pop("geforce")) == (0.02, 0.5)
    assert set(periods_s.values()) == {0.1}
    assert {name for name, kind in KINDS.items() if kind.average is None} == {"v100", "t4", "a100"}
    quarter = {name for name, kind in KINDS.items() if kind.instant == Sensor(0.025, 0.1)}
    assert quarter == {"a100", "h100", "h200", "b200"}
    for kind in KINDS.values():
        assert kind.idle_w < kind.context_w < kind.loaded_w < kind.limit_w


def test_boards_do_not_tick_together_and_have_names_of_their_own() -> None:
    boards = [SimulatedBoard(KINDS["h100"], Constant(1), number) for number in range(8)]
    assert len({board.uuid for board in boards}) == 8
    assert len({round(board.counter(1000)[1], 3) for board in boards}) >= 7
    assert boards[3].uuid == SimulatedBoard(KINDS["h100"], Constant(9), 3).uuid


def test_gain_is_what_is_shown_over_the_truth() -> None:
    board = SimulatedBoard(KINDS["h100"], Constant(400), faults=Faults(gain=0.95))
    (a_mj, a_s), (b_mj, b_s) = board.counter(1000), board.counter(1010)
    assert (b_mj - a_mj) / 1000 / (b_s - a_s) == pytest.approx(380)
    assert board.shown_w(board.kind.instant, 1000)[0] == pytest.approx(380)
    assert board.power_w(1000) == 400


def test_it_warms_with_its_time_constant_and_cools_again() -> None:
    kind = KINDS["h100"]
    load = Stretch(Constant(kind.loaded_w), Constant(kind.idle_w), 1000, 1000 + 10 * WARM_S)
    board = SimulatedBoard(kind, load, born_s=999.0)
    cold_c = board.temperature_c(1000)
    after_one_c = board.temperature_c(1000 + WARM_S)
    warm_c = board.temperature_c(1000 + 10 * WARM_S)
    assert (after_one_c - cold_c) / (warm_c - cold_c) == pytest.approx(1 - math.exp(-1), abs=0.01)
    assert board.temperature_c(1000 + 20 * WARM_S) == pytest.approx(cold_c, abs=0.01)
    assert cold_c < 40
    assert 65 < warm_c < 70


def test_how_often_one_looks_does_not_matter_for_steady_power() -> None:
    often, rarely = (SimulatedBoard(KINDS["h100"], Constant(500), born_s=0.0) for _ in range(2))
    for n in range(1, 1000):
        often.temperature_c(n * 0.05)
    assert often.temperature_c(50) == pytest.approx(rarely.temperature_c(50))


def test_a_counter_fed_by_its_sensor_agrees_with_the_truth_only_where_nothing_repeats_at_its_pace() -> None:
    def shown_w(hz: float) -> float:
        board = SimulatedBoard(KINDS["h100"], Square(400, 0.5, hz), faults=Faults(sensor_fed=True))
        (a_mj, a_s), (b_mj, b_s) = board.counter(1000), board.counter(1060)
        return (b_mj - a_mj) / 1000 / (b_s - a_s)

    assert shown_w(7.3) == pytest.approx(400, rel=0.01)
    assert abs(shown_w(10.0) - 400) > 50


def test_between_two_updates_the_counter_stands_still_whatever_is_learnt_meanwhile() -> None:
    """A line of the load file may arrive after the update whose time it bears."""
    joules = [1000.0]
    board = SimulatedBoard(KINDS["h100"], Given(lambda t: 0.0, lambda t: joules[0]), phase_s=0.0)
    assert board.counter(1000.01) == (1_000_000, 1000.0)
    joules[0] = 1100.0
    assert board.counter(1000.09) == (1_000_000, 1000.0)
    assert board.counter(1000.11)[0] == 1_100_000
