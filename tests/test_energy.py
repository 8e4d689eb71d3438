"""Energy, power and memory of windows, from samples whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import budget, energy
from profiler.schema import Gpu
from tests.rows import RANGE_UJ, S, gpu, once, rapl, table, ticks

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


def off_by(frac: float, uuid: str = "a") -> tuple[Any, ...]:
    """A board whose power samples say ``frac`` more than its counter."""
    *counter, power = gpu(400, uuid)
    return (*counter, (*power[:3], power[3] * (1 + frac)))


@pytest.mark.parametrize(
    ("frac", "warned", "invalid"), [(0.019, 0, 0), (0.03, 1, 0), (0.06, 0, 1), (-0.2, 0, 1)]
)
def test_counter_and_power_that_disagree_are_told(frac: float, warned: bool, invalid: bool) -> None:
    reading = energy.gpu_energy(table(*off_by(frac)), 5 * S, 35 * S)
    assert reading.energy_j == pytest.approx(12_000)
    assert reading.integral_j == pytest.approx(12_000 * (1 + frac))
    assert reading.disagreement_frac == pytest.approx(abs(frac))
    assert len(reading.warnings) == warned
    assert (reading.invalid is not None) == invalid
    told = f"gpu:a: the energy counter says 12,000.0 J and the power samples {12_000 * (1 + frac):,.1f} J"
    for text in (*reading.warnings, *([reading.invalid] if reading.invalid else [])):
        assert text.startswith(told)


def test_one_board_that_disagrees_is_not_hidden_by_seven_that_do_not() -> None:
    boards = [row for uuid in "bcdefgh" for row in gpu(400, uuid)]
    reading = energy.gpu_energy(table(*off_by(0.1), *boards), 5 * S, 35 * S)
    assert reading.disagreement_frac == pytest.approx(0.1 / 8)
    assert str(reading.invalid).startswith("gpu:a: ")
    assert energy.joules_per_token(reading, 6000) == (None, reading.invalid)


def test_a_scatter_of_power_that_explains_the_disagreement_is_remarked_upon() -> None:
    *counter, (source, name, times, _) = gpu(400)
    wild = np.random.default_rng(5).uniform(100, 700, len(times))
    wild *= 400 * 1.03 / wild[50:151].mean()
    power = source, name, times, wild
    reading = energy.gpu_energy(table(*counter, power, *once(power_period_s=0.1)), 5 * S, 15 * S)
    assert reading.disagreement_frac is not None
    assert 0.02 < reading.disagreement_frac < 0.05
    assert (reading.warnings, reading.invalid) == ((), None)
    (remark,) = reading.remarks
    assert remark.startswith("gpu:a: the energy counter says 4,000.0 J and the power samples 4,1")
    assert "% apart), within what the sensor scatters (3 sigma: " in remark


def test_a_counter_that_cannot_be_checked_is_said_to_be_unchecked() -> None:
    reading = energy.gpu_energy(table(*gpu(400)[:2]), 5 * S, 35 * S)
    assert (reading.energy_j, reading.disagreement_frac) == (pytest.approx(12_000), None)
    assert [text for text in reading.warnings if "nothing to check the energy counter against" in text]


def test_more_than_the_power_limit_is_invalid() -> None:
    for limit_w, invalid in ((370, False), (360, True)):
        reading = energy.gpu_energy(table(*gpu(400), *once(power_limit_w=limit_w)), 5 * S, 35 * S)
        assert (reading.invalid == "gpu:a: a mean of 400 W is over its power limit of 360 W") == invalid
        assert reading.energy_j == pytest.approx(12_000)


def test_a_counter_that_stands_still_under_load_is_no_zero() -> None:
    still = ("gpu:a", "energy_mj", np.arange(40) * S, np.full(40, 5e6))
    reading = energy.gpu_energy(table(still, gpu(400)[2]), 5 * S, 35 * S)
    assert (reading.energy_j, reading.integral_j) == (None, pytest.approx(12_000))
    assert reading.reason == "gpu:a: the energy counter stood still"


def test_a_lost_gpu_has_no_energy_from_then_on() -> None:
    samples = table(*gpu(400), ("gpu:a", "lost", [20 * S], [1]))
    assert energy.gpu_energy(samples, 5 * S, 15 * S).energy_j == pytest.approx(4000)
    for t0_s in (15, 25):
        reading = energy.gpu_energy(samples, t0_s * S, 35 * S)
        assert (reading.energy_j, reading.power_w) == (None, None)
        assert reading.reason == "gpu:a: the GPU was lost (it no longer answers the driver)"


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
    assert (reading.statistical_j, reading.systematic_frac) == (None, None)
    assert reading.reason == reason


def test_a_missing_gpu_refuses_the_sum() -> None:
    reading = energy.gpu_energy(table(*gpu(400)), 5 * S, 35 * S, gpus=("a", "b"))
    assert reading.energy_j is None
    assert reading.reason == "gpu:b: its energy counter was not sampled near the window"
    assert reading.devices == {"gpu:a": pytest.approx(12_000)}


def test_without_a_counter_the_integral_is_still_told() -> None:
    reading = energy.gpu_energy(table(gpu(400)[2]), 5 * S, 35 * S)
    assert reading.energy_j is None
    assert reading.integral_j == pytest.approx(12_000)
    assert reading.reason is not None


# ------------------------------------------------------------------------------------- how far it may be off


def test_bounds_and_systematic_parts_of_boards_add_linearly_and_the_rest_in_quadrature() -> None:
    each = [
        ticks(np.arange(400) * S // 10, np.arange(400) * w / 10, 0.02, u) for w, u in ((300, "a"), (400, "b"))
    ]
    boards = [
        Gpu(uuid="a", name="NVIDIA GeForce RTX 4090", memory_bytes=None),
        Gpu(uuid="b", name="NVIDIA H100 80GB HBM3", memory_bytes=None),
    ]
    alone = [energy.gpu_energy(table(*rows), 5 * S, 35 * S, boards=boards) for rows in each]
    both = energy.gpu_energy(table(*each[0], *each[1]), 5 * S, 35 * S, boards=boards)
    assert [reading.systematic_frac for reading in alone] == [0.08, 0.05]
    assert both.systematic_frac == pytest.approx((0.08 * 300 + 0.05 * 400) / 700)
    first, second = (budget for reading in alone for budget in reading.budgets.values())
    assert both.statistical_j == pytest.approx(
        budget.Z95
        * np.hypot(
            first.interpolation_j + second.interpolation_j,
            np.hypot(
                np.hypot(first.timing_j, second.timing_j),
                np.hypot(first.resolution_j, second.resolution_j),
            ),
        )
    )
    assert first.interpolation_j > 0 < first.timing_j


def test_what_eight_boards_see_of_the_edges_of_one_load_does_not_average_out() -> None:
    """The load begins and ends amid a tick of every board: all that is interpolated there is off one way."""
    times = np.arange(400) * S // 10
    joules = np.cumsum(np.interp(np.arange(400), [49, 50, 51, 349, 350, 351], [11, 35.5, 60, 60, 35.5, 11]))
    boards = [[*ticks(times, joules, uuid=uuid), *once(uuid, architecture=8)] for uuid in "abcdefgh"]
    window = round(4.95 * S), round(34.95 * S)
    one = energy.gpu_energy(table(*boards[0]), *window)
    eight = energy.gpu_energy(table(*(row for board in boards for row in board)), *window)
    assert eight.statistical_j / eight.energy_j == pytest.approx(one.statistical_j / one.energy_j, rel=0.01)


def test_how_often_power_is_renewed_counts_and_is_said_where_it_was_not_seen() -> None:
    def reading(**seen: float) -> energy.EnergyReading:
        return energy.gpu_energy(table(*gpu(400, period_s=0.5), *once(**seen)), round(5.25 * S), 35 * S)

    said = "gpu:a: how often its power reading is renewed was not seen; it is taken to be every 100 ms"
    assert (reading().remarks, reading().warnings) == ((said,), ())
    # The samples are 500 ms apart: that, or more, goes unseen.
    assert reading(power_period_s=0.02).remarks == ()
    assert reading(power_period_s=0.02).statistical_j == reading().statistical_j


def test_old_files_assume_a_period_and_say_so() -> None:
    *_, power = gpu(400)
    counter = ("gpu:a", "energy_mj", power[2], 400 * power[2] / S * 1000)
    reading = energy.gpu_energy(table(counter, power), 5 * S, 35 * S)
    assert reading.energy_j == pytest.approx(12_000)
    assert [text for text in reading.warnings if "taken to move every 100 ms" in text]
    # 0.776·Δ at either edge together, and as much again at most for what is not seen between two ticks
    assert 0.776 * 0.1 * 400 < reading.statistical_j < 2 * 0.776 * 0.1 * 400


def test_what_is_added_to_every_window_falls_with_its_length() -> None:
    samples = table(*gpu(400, seconds=100))
    short, long = (energy.gpu_energy(samples, 5 * S, (5 + lasts) * S) for lasts in (10, 80))
    assert short.statistical_j == pytest.approx(long.statistical_j)


@given(
    times=st.lists(st.integers(0, 40 * S), min_size=1, max_size=60),
    values=st.lists(st.floats(0, 1e9), min_size=60, max_size=60),
    seen=st.lists(st.floats(0, 50), max_size=60),
    window=st.tuples(st.integers(0, 40 * S), st.integers(0, 40 * S)),
)
def test_whatever_was_read_there_is_no_energy_without_an_interval_and_none_of_zero(
    times: list[int], values: list[float], seen: list[float], window: tuple[int, int]
) -> None:
    samples = table(
        ("gpu:a", "energy_mj", sorted(times), sorted(values[: len(times)])),
        ("gpu:a", "energy_seen_within_s", times[: len(seen)], seen[: len(times)]),
        ("gpu:a", "power_w", times[::2], values[: len(times[::2])]),
        ("rapl:a", "energy_uj", times, values[: len(times)]),
        ("rapl:a", "max_energy_range_uj", times, [1e9] * len(times)),
    )
    for reading in (energy.gpu_energy(samples, *window), energy.cpu_energy(samples, *window)):
        if reading.energy_j is None:
            assert reading.reason
            assert reading.statistical_j is None
        else:
            assert reading.energy_j > 0
            assert 0 < reading.statistical_j < np.inf


# ------------------------------------------------------------------------------------- boundaries


def test_no_samples_at_all() -> None:
    for read, boundary in ((energy.gpu_energy, "gpu"), (energy.cpu_energy, "cpu package")):
        reading = read(table(), 0, 30 * S)
        assert (reading.energy_j, reading.boundary) == (None, boundary)
        assert reading.reason == f"no {boundary} energy was sampled; the run's probes say why"


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
    assert reading.systematic_frac is None
    assert 0 < reading.statistical_j < 0.01 * reading.energy_j


def test_the_host_is_boards_and_cpu_or_nothing() -> None:
    seconds = np.arange(40) * S
    cpu = rapl(seconds, np.arange(40) * 90.0)
    host = energy.host_energy(table(*gpu(400), *cpu), 5 * S, 35 * S)
    parts = [
        energy.gpu_energy(table(*gpu(400)), 5 * S, 35 * S),
        energy.cpu_energy(table(*cpu), 5 * S, 35 * S),
    ]
    assert (host.boundary, host.energy_j) == ("host", pytest.approx(490 * 30))
    assert host.power_w == pytest.approx(490)
    assert host.budgets == parts[0].budgets | parts[1].budgets
    assert host.statistical_j == budget.Z95 * budget.together(host.budgets.values()).sigma_j
    assert set(host.devices) == {"gpu:a", "rapl:package-0"}

    without = energy.host_energy(table(*gpu(400)), 5 * S, 35 * S)
    assert without.energy_j is None
    assert without.reason == "cpu package: no cpu package energy was sampled; the run's probes say why"
    half = energy.host_energy(table(*cpu), 5 * S, 35 * S, gpus=("a",))
    assert (half.energy_j, half.devices) == (None, {"rapl:package-0": pytest.approx(2700)})
    assert energy.host_energy(table(*cpu), 5 * S, 35 * S).energy_j == pytest.approx(2700)


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


def test_no_peak_is_made_of_a_part_of_the_window() -> None:
    """A sampler that died at its fourth second: what came after may have been the peak."""
    times, rss = np.arange(9) * S // 2, np.full(9, 1e9)
    samples = table(("process:m", "rss_bytes", times, rss))
    assert energy.peak_memory(samples, 0, 6 * S, "process:m") == 1_000_000_000
    assert energy.peak_memory(samples, 0, 8 * S, "process:m") is None
    assert energy.peak_memory(samples, 0, 8 * S) is None


@pytest.mark.parametrize(("gap_s", "peak"), [(5, 250 * 2**30), (10, None)])
def test_the_time_that_reading_pss_takes_is_no_gap(gap_s: int, peak: int | None) -> None:
    """Some 2.75 s for 250 GiB, twice that allowed for; what lasts longer had another cause."""
    size = 250.0 * 2**30
    times = np.array([0, 1, 2, 3, 3 + gap_s, 4 + gap_s, 5 + gap_s]) * S
    rss = ("process:m", "rss_bytes", times, np.full(7, size))
    pss = ("process:m", "pss_bytes", times[[3]], [size])
    for t0_s in (0, 3.5):
        assert energy.peak_memory(table(rss, pss), int(t0_s * S), times[-1], "process:m") == peak
    assert energy.peak_memory(table(rss), 0, times[-1], "process:m") is None


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
