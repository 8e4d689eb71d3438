"""What a board was doing besides: held back, shared."""

from __future__ import annotations

import pytest

from profiler import conditions
from profiler.conditions import Tenants
from tests.rows import S, table

TIMES = [k * S // 2 for k in range(40)]


def masks(values: list[int], uuid: str = "a"):
    return (f"gpu:{uuid}", "clocks_event_reasons", TIMES[: len(values)], values)


def test_shares_of_a_window_by_reason_are_those_of_the_worst_board() -> None:
    samples = table(masks([0x4] * 10 + [0x44] * 5 + [0x20] * 5), masks([0x4] * 20, "b"))
    assert conditions.throttled(samples, 0, TIMES[19]) == {
        "software power cap": 1.0,
        "software thermal slowdown": 0.25,
        "hardware thermal slowdown": 0.25,
    }
    assert conditions.thermally_throttled_frac(samples, 0, TIMES[19]) == 0.5
    assert conditions.thermally_throttled_frac(samples, 0, TIMES[19], gpus=("b",)) == 0
    assert conditions.throttled(samples, 0, TIMES[9], gpus=("b",)) == {"software power cap": 1.0}


def test_a_board_without_reasons_is_not_one_that_was_never_held_back() -> None:
    assert conditions.throttled(table(masks([0] * 20)), 0, TIMES[19]) == {}
    for samples in (table(), table(masks([0x40] * 4))):
        assert conditions.throttled(samples, TIMES[10], TIMES[19]) is None
        assert conditions.thermally_throttled_frac(samples, TIMES[10], TIMES[19]) is None


def test_drift_is_that_of_the_board_that_changed_most() -> None:
    times = [k * S // 2 for k in range(41)]
    samples = table(
        ("gpu:a", "temperature_c", times, [60 + k % 2 for k in range(41)]),
        ("gpu:b", "temperature_c", times, [70 - k / 10 for k in range(41)]),
        ("gpu:idle", "temperature_c", times, [90 + k for k in range(41)]),
    )
    assert conditions.drift_c(samples, 0, 20 * S, ("a", "b")) == pytest.approx(-3.0)
    assert abs(conditions.drift_c(samples, 0, 20 * S, ("a",))) < conditions.STEADY_C
    assert conditions.drift_c(samples, 0, 9 * S, ("b",)) is None
    assert conditions.drift_c(samples, 0, 20 * S, ("none",)) is None


def test_work_of_boards_and_engine_in_a_window() -> None:
    samples = table(
        ("gpu:a", "utilisation_gpu_pct", [S, 2 * S, 9 * S], [10, 20, 99]),
        ("engine:m", "requests_running", [S, 2 * S, 9 * S], [0, 2, 9]),
    )
    assert conditions.busy_pct(samples, 0, 5 * S, ("a", "b")) == {"gpu:a": 15.0}
    assert conditions.requests_running(samples, 0, 5 * S) == 2
    assert conditions.requests_running(samples, 3 * S, 5 * S) is None


@pytest.mark.parametrize(
    ("rows", "tenants", "shared"),
    [
        ([], Tenants(None, None, None), False),
        ([("foreign_processes", 0), ("unexplained_bytes", 5e8)], Tenants(0, None, 500_000_000), False),
        ([("foreign_processes", 2), ("foreign_bytes", 1e9)], Tenants(2, 1_000_000_000, None), True),
        ([("unexplained_bytes", 6e8)], Tenants(None, None, 600_000_000), True),
    ],
)
def test_tenants_are_what_was_seen_of_them_in_the_window(rows, tenants: Tenants, shared: bool) -> None:
    samples = table(
        ("gpu:a", "power_w", [S], [100]), *(("gpu:a", name, [S, 9 * S], [value, 99]) for name, value in rows)
    )
    found = conditions.tenants(samples, 0, 5 * S)
    assert found == {"gpu:a": tenants}
    assert found["gpu:a"].shared == shared
