"""Each part of an energy's uncertainty against what it is meant to be."""

from __future__ import annotations

import numpy as np
import pytest

from profiler import budget, counters
from profiler.counters import Series
from tests.rows import S, table, ticks

NO_POWER = Series(np.array([], np.int64), np.array([]))
TIMES = np.arange(400) * S // 10


def parts(joules: np.ndarray, window_s: tuple[float, float], within_s: float = 0.0, duty: float = 1.0):
    counter = counters.nvml(table(*ticks(TIMES, joules, within_s)), "gpu:a")
    window_ns = round(window_s[0] * S), round(window_s[1] * S)
    return budget.of_window(counter, counters.curve(counter, *window_ns), NO_POWER, window_ns, duty)


def test_late_polls_cost_power_times_span_over_root_twelve_at_each_edge() -> None:
    found = parts(60.0 * np.arange(400), (5.0 - 0.01, 35.0 - 0.01), within_s=0.02)
    assert found.timing_j == pytest.approx(600 * 0.02 / np.sqrt(12) * np.sqrt(2))


def test_a_late_tick_costs_the_highest_power_seen_near_it() -> None:
    watts = np.where(TIMES < 5 * S, 110.0, 600.0)
    found = parts(np.cumsum(np.append(0, watts[:-1] * 0.1)), (5.0 - 0.01, 35.0), within_s=0.02)
    assert found.timing_j == pytest.approx(600 * 0.02 / np.sqrt(12) * np.sqrt(2))


def test_edges_on_ticks_have_nothing_to_interpolate() -> None:
    on, between = (parts(60.0 * np.arange(400), (5.0 + off, 35.0 + off)) for off in (0.0, 0.05))
    assert on.interpolation_j == 0
    # ±20 % unseen, for half of 100 ms, at both edges, taken as a bound
    assert between.interpolation_j * budget.Z95 == pytest.approx(2 * 0.2 * 600 * 0.05)


def test_a_step_of_power_inside_a_tick_is_within_the_bound() -> None:
    watts = np.where(TIMES < 5 * S, 110.0, 600.0)
    found = parts(np.cumsum(np.append(0, watts[:-1] * 0.1)), (5.0, 35.0))
    assert found.interpolation_j == 0  # the step is on a tick
    midway = np.where(TIMES < 5 * S, 110.0, 600.0)
    midway[50] = 355.0  # …and here in the middle of one: the true energy at 5.05 s is 12.25 J off a line's
    found = parts(np.cumsum(np.append(0, midway[:-1] * 0.1)), (5.05, 35.0))
    assert found.interpolation_j * budget.Z95 == pytest.approx(12.25 + 0.2 * 600 * 0.05)


@pytest.mark.parametrize(
    ("renewed_s", "sampled_s", "unseen_s"),
    [(None, 0.1, 0.1), (0.02, 0.1, 0.1), (0.02, 0.05, 0.05), (0.25, 0.1, 0.25), (None, 0.3, 0.3)],
)
def test_what_lies_between_two_readings_of_power_is_unseen(
    renewed_s: float | None, sampled_s: float, unseen_s: float
) -> None:
    times = np.arange(100) * S
    counter = counters.nvml(table(*ticks(times, 600.0 * np.arange(100))), "gpu:a")
    at = np.arange(0, 100 * S, round(sampled_s * S))
    window_ns = 5 * S + S // 2, 35 * S
    curve, power = counters.curve(counter, *window_ns), Series(at, np.full(len(at), 600.0))
    found = budget.of_window(counter, curve, power, window_ns, 1.0, renewed_s)
    assert found.interpolation_j * budget.Z95 == pytest.approx(0.2 * 600 * unseen_s / 2)


def test_of_devices_measured_together_only_the_bounds_add_up() -> None:
    found = budget.together([budget.Budget(3.0, 1.0, 6.0, 5.0), budget.Budget(4.0, 2.0, 8.0, 12.0)])
    assert found == pytest.approx(budget.Budget(5.0, 3.0, 10.0, 13.0))


def test_resolution_is_that_of_the_counter() -> None:
    assert parts(60.0 * np.arange(400), (5.0, 35.0)).resolution_j == pytest.approx(1e-3 / np.sqrt(6))


def test_a_sensor_that_is_off_most_of_the_time_adds_the_scatter_of_its_readings() -> None:
    rng = np.random.default_rng(3)
    joules = np.cumsum(rng.normal(60, 6, 400))  # 60 W of scatter from tick to tick
    full, quarter = (parts(joules, (5.0, 35.0), duty=duty) for duty in (1.0, 0.25))
    assert full.duty_j == 0
    assert quarter.duty_j == pytest.approx(np.sqrt(0.75) * 6 * np.sqrt(300), rel=0.4)


def test_a_slow_change_of_power_is_not_taken_for_scatter() -> None:
    slow = np.linspace(500, 600, 300)
    assert budget.scatter_j(slow, 0.1) < 0.3 * slow.std() * 0.1 * np.sqrt(300)
    assert budget.scatter_j(
        np.random.default_rng(1).permutation(slow), 0.1
    ) > 0.6 * slow.std() * 0.1 * np.sqrt(300)


def test_the_jitter_of_polling_does_not_pass_for_scatter() -> None:
    rng = np.random.default_rng(3)
    late_ns = rng.integers(0, 20_000_000, 400)
    counter = counters.nvml(table(*ticks(TIMES + late_ns, 60.0 * np.arange(400), 0.02)), "gpu:a")
    window_ns = 5 * S, 35 * S
    found = budget.of_window(counter, counters.curve(counter, *window_ns), NO_POWER, window_ns, 0.25)
    assert found.duty_j < 1


@pytest.mark.parametrize(
    ("architecture", "board", "duty", "systematic"),
    [
        (9, "NVIDIA H100 80GB HBM3", 0.25, 0.05),
        (7, "NVIDIA A100-SXM4-80GB", 0.25, 0.05),
        (7, "NVIDIA A30", 0.25, 0.05),
        (7, "NVIDIA A40", 1.0, 0.05),
        (7, "NVIDIA A10G", 1.0, 0.05),
        (7, "NVIDIA GeForce RTX 3090", 1.0, 0.08),
        (7, "NVIDIA RTX A5000", 1.0, 0.08),
        (8, "NVIDIA L40S", 1.0, 0.05),
        (8, "NVIDIA RTX 6000 Ada Generation", 1.0, 0.08),
        (6, "Quadro RTX 6000", 1.0, 0.08),
        (5, "Tesla V100-SXM2-32GB", 0.5, 0.05),
        (10, "NVIDIA B200", 0.25, 0.05),
        (None, "", 0.25, 0.05),
    ],
)
def test_what_is_known_of_a_board(
    architecture: int | None, board: str, duty: float, systematic: float
) -> None:
    assert budget.sensor_duty(architecture, board) == duty
    assert budget.systematic_frac(board) == systematic
