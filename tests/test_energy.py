"""Energy, power and memory of windows, from samples whose truth is known."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import energy

S = 1_000_000_000
RANGE_UJ = 65_712_999_613.0


def table(*columns: tuple[str, str, Any, Any]) -> pa.Table:
    """Samples from (source, name, times in ns, values)."""
    rows = [
        (int(t), source, name, float(v))
        for source, name, ts, vs in columns
        for t, v in zip(ts, vs, strict=True)
    ]
    schema = [("t_ns", pa.int64()), ("source", pa.string()), ("name", pa.string()), ("value", pa.float64())]
    return pa.Table.from_arrays(
        [pa.array([row[i] for row in rows], type=kind) for i, (_, kind) in enumerate(schema)],
        names=[name for name, _ in schema],
    )


def gpu(watts: float, uuid: str = "a", seconds: int = 40, period_s: float = 0.1) -> tuple[Any, Any]:
    """Counter and power of a board that draws ``watts``, from t = 0."""
    times = np.arange(0, seconds, period_s) * S
    return (
        (f"gpu:{uuid}", "energy_mj", times, np.round(watts * times / S * 1000)),
        (f"gpu:{uuid}", "power_w", times, np.full(len(times), watts)),
    )


def rapl(times: Any, joules: Any, zone: str = "package-0", start_uj: float = 0.0) -> tuple[Any, Any]:
    """A counter that spends ``joules`` and wraps, in µJ."""
    counted = (start_uj + np.asarray(joules) * 1e6) % RANGE_UJ
    return (
        (f"rapl:{zone}", "energy_uj", times, counted),
        (f"rapl:{zone}", "max_energy_range_uj", times, [RANGE_UJ] * len(counted)),
    )


# ------------------------------------------------------------------------------------- GPUs


def test_two_gpus_are_summed_and_agree_with_their_power() -> None:
    samples = table(*gpu(400), *gpu(250, "b"))
    reading = energy.gpu_energy(samples, 5 * S + 12_345, 35 * S + 54_321)
    assert reading.boundary == "gpu"
    assert reading.duration_s == pytest.approx(30.000042)
    assert reading.energy_j == pytest.approx(650 * reading.duration_s, rel=1e-6)
    assert reading.power_w == pytest.approx(650, rel=1e-6)
    assert reading.integral_j == pytest.approx(650 * reading.duration_s, rel=1e-9)
    assert reading.disagreement_frac == pytest.approx(0, abs=1e-5)
    assert reading.devices == {
        "gpu:a": pytest.approx(400 * 30, rel=1e-4),
        "gpu:b": pytest.approx(250 * 30, rel=1e-4),
    }
    assert reading.reason is None


def test_counter_and_power_that_disagree_are_told() -> None:
    (counter, power) = gpu(400)
    reading = energy.gpu_energy(table(counter, (*power[:3], power[3] * 1.2)), 5 * S, 35 * S)
    assert reading.energy_j == pytest.approx(12_000)
    assert reading.integral_j == pytest.approx(14_400)
    assert reading.disagreement_frac == pytest.approx(0.2)


def test_edges_are_interpolated_between_the_samples_around_them() -> None:
    samples = table(("gpu:a", "energy_mj", [0, S, 2 * S, 3 * S], [0, 100_000, 300_000, 600_000]))
    reading = energy.gpu_energy(samples, S // 2, 2 * S + S // 4)
    assert reading.energy_j == pytest.approx(50 + 200 + 75)
    assert reading.integral_j is None
    assert reading.disagreement_frac is None


@pytest.mark.parametrize(
    ("t0_s", "t1_s", "reason"),
    [
        (-1, 20, "gpu:a: no sample before the window"),
        (5, 45, "gpu:a: no sample after the window"),
        (20, 20, "gpu:a: the window is empty"),
        (20, 10, "gpu:a: the window is empty"),
    ],
)
def test_a_window_that_is_not_bracketed_has_no_energy(t0_s: int, t1_s: int, reason: str) -> None:
    reading = energy.gpu_energy(table(*gpu(400)), t0_s * S, t1_s * S)
    assert (reading.energy_j, reading.power_w, reading.integral_j) == (None, None, None)
    assert reading.reason == reason


def test_a_missing_gpu_refuses_the_sum() -> None:
    reading = energy.gpu_energy(table(*gpu(400)), 5 * S, 35 * S, gpus=("a", "b"))
    assert reading.energy_j is None
    assert reading.reason == "gpu:b: no sample before the window"
    assert reading.devices == {"gpu:a": pytest.approx(12_000)}


def test_without_a_counter_the_integral_is_still_told() -> None:
    reading = energy.gpu_energy(table(gpu(400)[1]), 5 * S, 35 * S)
    assert reading.energy_j is None
    assert reading.integral_j == pytest.approx(12_000)
    assert reading.reason is not None


def test_a_counter_that_goes_backwards_is_a_reset() -> None:
    times, millijoules = gpu(400)[0][2:]
    millijoules = np.where(times > 20 * S, millijoules - millijoules[201], millijoules)
    samples = table(("gpu:a", "energy_mj", times, millijoules))
    assert "went backwards" in str(energy.gpu_energy(samples, 5 * S, 35 * S).reason)
    assert energy.gpu_energy(samples, 5 * S, 15 * S).energy_j == pytest.approx(4000)


def test_no_samples_at_all() -> None:
    reading = energy.over_window(table(), 0, 30 * S)
    assert reading.energy_j is None
    assert reading.reason == "no cpu package energy was sampled; the run's probes say why"


def test_over_window_takes_the_gpus_where_there_are_any() -> None:
    seconds = np.arange(40) * S
    both = table(*gpu(400), *rapl(seconds, np.arange(40) * 90.0))
    assert energy.over_window(both, 5 * S, 35 * S).boundary == "gpu"
    cpu = energy.over_window(table(*rapl(seconds, np.arange(40) * 90.0)), 5 * S, 35 * S)
    assert (cpu.boundary, cpu.power_w) == ("cpu package", pytest.approx(90))


@given(
    gaps_s=st.lists(st.floats(0.05, 4.0), min_size=4, max_size=40),
    watts=st.lists(st.floats(50, 700), min_size=40, max_size=40),
    edges=st.tuples(st.floats(-0.1, 1.1), st.floats(-0.1, 1.1)).map(sorted),
)
def test_any_gaps_any_power(gaps_s: list[float], watts: list[float], edges: list[float]) -> None:
    """Either the true energy, or none when the window has an unbracketed edge or too long a gap."""
    times = np.concatenate([[0], np.cumsum(np.round(np.array(gaps_s) * S))]).astype(np.int64)
    joules = np.concatenate([[0], np.cumsum(np.diff(times) / S * np.array(watts[: len(gaps_s)]))])
    t0, t1 = (int(edge * times[-1]) for edge in edges)
    reading = energy.gpu_energy(table(("gpu:a", "energy_mj", times, joules * 1000)), t0, t1)
    touched = [b - a for a, b in itertools.pairwise(times) if b > t0 and a < t1]
    tellable = 0 <= t0 < t1 <= times[-1] and max(touched) <= 3 * S
    assert (reading.energy_j is not None) == tellable, reading.reason
    if tellable:
        truth = np.interp(t1, times, joules) - np.interp(t0, times, joules)
        assert reading.energy_j == pytest.approx(truth, rel=1e-6, abs=1e-3)


@given(cuts=st.tuples(*[st.integers(0, 39 * S)] * 3).map(sorted))
def test_energy_of_two_halves_is_that_of_the_whole(cuts: list[int]) -> None:
    samples = table(*gpu(431.7))
    a, b, c = cuts
    parts = [energy.gpu_energy(samples, *window).energy_j for window in ((a, b), (b, c), (a, c))]
    if a < b < c:
        assert None not in parts
        assert parts[0] + parts[1] == pytest.approx(parts[2], rel=1e-9, abs=1e-6)


# ------------------------------------------------------------------------------------- CPU


@given(
    start_uj=st.floats(0, RANGE_UJ - 1),
    steps_j=st.lists(st.floats(0, 700), min_size=12, max_size=200),
)
def test_rapl_wraps_never_change_the_energy(start_uj: float, steps_j: list[float]) -> None:
    joules = np.concatenate([[0], np.cumsum(steps_j)])
    times = np.arange(len(joules)) * S
    reading = energy.cpu_energy(
        table(*rapl(times, joules, start_uj=start_uj)), S // 3, int(times[-1]) - S // 3
    )
    truth = np.interp(times[-1] - S // 3, times, joules) - np.interp(S // 3, times, joules)
    assert reading.energy_j == pytest.approx(truth, rel=1e-6, abs=1e-3)


def test_dram_is_added_and_the_boundary_says_so() -> None:
    times = np.arange(40) * S
    samples = table(
        *rapl(times, np.arange(40) * 200.0, "package-0"),
        *rapl(times, np.arange(40) * 180.0, "package-1", start_uj=RANGE_UJ - 3e9),
        *rapl(times, np.arange(40) * 30.0, "package-0/dram"),
    )
    reading = energy.cpu_energy(samples, 5 * S, 35 * S)
    assert reading.boundary == "cpu package + dram"
    assert reading.energy_j == pytest.approx(410 * 30)
    assert reading.power_w == pytest.approx(410)


def test_a_rapl_counter_set_back_is_not_taken_for_a_wrap() -> None:
    joules = np.concatenate([np.arange(20) * 100.0 + 5000, np.arange(20) * 100.0])
    reading = energy.cpu_energy(table(*rapl(np.arange(40) * S, joules)), 5 * S, 35 * S)
    assert reading.energy_j is None
    assert "set back" in str(reading.reason)


# ------------------------------------------------------------------------------------- per token


def test_joules_per_token_of_a_long_window() -> None:
    reading = energy.gpu_energy(table(*gpu(400)), 5 * S, 35 * S)
    assert energy.joules_per_token(reading, 6000) == (pytest.approx(2.0), None)


@pytest.mark.parametrize(
    ("t1_s", "tokens", "reason"),
    [
        (14.9, 100, "the window lasted 9.9 s; energy per token needs 10 s"),
        (35, 0, "no token arrived in the window"),
        (50, 100, "gpu:a: no sample after the window"),
    ],
)
def test_joules_per_token_are_refused_with_a_reason(t1_s: float, tokens: int, reason: str) -> None:
    reading = energy.gpu_energy(table(*gpu(400)), 5 * S, int(t1_s * S))
    assert energy.joules_per_token(reading, tokens) == (None, reason)


# ------------------------------------------------------------------------------------- memory, gauges


def test_peak_of_a_process_tree_without_the_pages_rss_counts_twice() -> None:
    times = np.arange(8) * S // 2
    rss = np.array([900, 900, 950, 1300, 950, 900, 900, 900]) * 1e6
    samples = table(
        ("process:m", "rss_bytes", times, rss), ("process:m", "pss_bytes", times[[0, 6]], [700e6, 700e6])
    )
    assert energy.peak_memory(samples, 0, 4 * S, "process:m") == 1_100_000_000
    assert energy.peak_memory(samples, 0, S, "process:m") == 750_000_000
    assert energy.peak_memory(samples, 9 * S, 10 * S, "process:m") is None
    assert energy.peak_memory(samples, 0, 4 * S) == 1_100_000_000


def test_peak_without_pss_is_that_of_rss() -> None:
    samples = table(("process:m", "rss_bytes", [0, S, 2 * S], [1e9, 2e9, 1e9]))
    assert energy.peak_memory(samples, 0, 2 * S, "process:m") == 2_000_000_000


def test_peak_of_all_gpus_is_summed_and_needs_every_one() -> None:
    a = ("gpu:a", "memory_used_bytes", [0, S], [10, 30])
    b = ("gpu:b", "memory_used_bytes", [0, S], [7, 5])
    process = ("process:m", "rss_bytes", [0, S], [1000, 1000])
    assert energy.peak_memory(table(a, b, process), 0, S) == 37
    assert energy.peak_memory(table(a, ("gpu:b", "power_w", [0, S], [7, 5])), 0, S) is None
    assert energy.peak_memory(table(), 0, S) is None
