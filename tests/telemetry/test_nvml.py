"""The NVML probe against a simulated library of known truth, and against the real import."""

from __future__ import annotations

import ctypes.util
import random
from pathlib import Path

import pynvml
import pytest

from profiler import energy
from profiler.samples import Sample, encode, read_samples, series
from profiler.telemetry import nvml
from profiler.telemetry.nvml import SLOW_EVERY, NvmlProbe

from .fake_nvml import Board, Clock, SimulatedNvml, constant, modulated


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(nvml, "time", clock)
    return clock


def record(probe: NvmlProbe, clock: Clock, path: Path, seconds: float, jitter_s: float = 0.002) -> object:
    """Sample every 100 ms with a little lateness, through the sample file."""
    chance = random.Random(7)
    start_s = clock.now_s
    with path.open("wb") as file:
        for tick in range(int(seconds * 10)):
            clock.now_s = start_s + tick / 10 + chance.random() * jitter_s
            file.write(encode(probe.sample()))
    return read_samples(path)


def test_all_readings_with_their_units(clock: Clock) -> None:
    probe = NvmlProbe(None, SimulatedNvml([constant("GPU-a", 400.5)], clock))
    assert probe.status().usable
    assert probe.status().detail == "1 GPU, driver 580.65.06"
    found = {s.name: s.value for s in probe.sample()}
    assert found == {
        "energy_mj": int(400.5 * 1000 * 1000),
        "energy_counter_ts_us": 1_000_000_000,
        "power_w": 400.5,
        "sm_clock_mhz": 1980,
        "memory_clock_mhz": 3201,
        "temperature_c": 61,
        "utilisation_gpu_pct": 97,
        "utilisation_memory_pct": 45,
        "memory_used_bytes": 120 << 30,
        "memory_reserved_bytes": 1 << 30,
        "memory_free_bytes": 21 << 30,
        "clocks_event_reasons": 4,
    }


def test_counters_come_at_every_tick_and_before_the_slow_readings(clock: Clock) -> None:
    probe = NvmlProbe(None, SimulatedNvml([constant("GPU-a", 1), constant("GPU-b", 2)], clock))
    first = [(s.source, s.name) for s in probe.sample()]
    assert [source for source, name in first if name == "energy_mj"] == ["gpu:GPU-a", "gpu:GPU-b"]
    assert first.index(("gpu:GPU-b", "power_w")) < first.index(("gpu:GPU-a", "sm_clock_mhz"))
    for _ in range(SLOW_EVERY - 1):
        assert {s.name for s in probe.sample()} == {"energy_mj", "energy_counter_ts_us", "power_w"}
    assert "temperature_c" in {s.name for s in probe.sample()}


@pytest.mark.parametrize(
    ("missing", "names"),
    [
        ("energy", {"energy_mj", "energy_counter_ts_us"}),
        ("power", {"power_w"}),
        ("utilisation", {"utilisation_gpu_pct", "utilisation_memory_pct"}),
        ("memory", {"memory_used_bytes", "memory_reserved_bytes", "memory_free_bytes"}),
        ("reasons", {"clocks_event_reasons"}),
    ],
)
def test_what_a_board_lacks_is_absent_never_zero(clock: Clock, missing: str, names: set[str]) -> None:
    whole = NvmlProbe(None, SimulatedNvml([constant("GPU-a", 300)], clock))
    lacking = NvmlProbe(None, SimulatedNvml([constant("GPU-a", 300, unsupported={missing})], clock))
    assert {s.name for s in whole.sample()} - {s.name for s in lacking.sample()} == names
    assert lacking.status().usable
    if missing in ("energy", "power"):
        assert f"GPU-a has no {'energy_mj' if missing == 'energy' else 'power_w'}" in lacking.status().detail


def test_an_unsupported_reading_is_not_asked_for_again(clock: Clock) -> None:
    library = SimulatedNvml([constant("GPU-a", 300, unsupported={"utilisation"})], clock)
    probe = NvmlProbe(None, library)
    for _ in range(3 * SLOW_EVERY):
        list(probe.sample())
    assert library.calls.count("utilisation") == 1
    assert library.calls.count("temperature") == 3


def test_zero_milliwatts_is_not_a_reading(clock: Clock) -> None:
    probe = NvmlProbe(None, SimulatedNvml([Board("GPU-a", lambda t: t, lambda t: 0.0)], clock))
    assert "power_w" not in {s.name for s in probe.sample()}


def test_gpus_are_chosen_by_uuid(clock: Clock) -> None:
    library = SimulatedNvml([constant("GPU-a", 1), constant("GPU-b", 2)], clock)
    assert {s.source for s in NvmlProbe(("GPU-b",), library).sample()} == {"gpu:GPU-b"}
    assert {s.source for s in NvmlProbe(None, library).sample()} == {"gpu:GPU-a", "gpu:GPU-b"}


@pytest.mark.parametrize(
    ("gpus", "says"),
    [((), "no GPU"), (("GPU-x",), "GPU-x: not seen by NVML; visible: GPU-a"), (("MIG-1",), "MIG slice")],
)
def test_gpus_that_cannot_be_read_make_the_probe_unusable(
    clock: Clock, gpus: tuple[str, ...], says: str
) -> None:
    probe = NvmlProbe(gpus, SimulatedNvml([constant("GPU-a", 1)], clock))
    assert not probe.status().usable
    assert says in probe.status().detail
    assert list(probe.sample()) == []


def test_a_board_in_mig_mode_is_named(clock: Clock) -> None:
    probe = NvmlProbe(None, SimulatedNvml([constant("GPU-a", 1, unsupported={"mig"})], clock))
    assert probe.status().usable
    assert "GPU-a is in MIG mode" in probe.status().detail


def test_a_lost_gpu_leaves_a_gap_and_refuses_the_sum(clock: Clock, tmp_path: Path) -> None:
    lost = constant("GPU-b", 200)
    probe = NvmlProbe(None, SimulatedNvml([constant("GPU-a", 100), lost], clock))
    before = record(probe, clock, tmp_path / "a", 10)
    lost.lost = True
    after = record(probe, clock, tmp_path / "b", 20)
    import pyarrow as pa

    reading = energy.gpu_energy(pa.concat_tables([before, after]), int(1002e9), int(1022e9))
    assert reading.energy_j is None
    assert reading.reason == "gpu:GPU-b: no sample after the window"
    assert reading.devices["gpu:GPU-a"] == pytest.approx(2000, rel=0.01)


@pytest.mark.parametrize("hz", [0.7, 3.0, 11.0, 30.0])
def test_energy_of_a_modulated_load_within_the_expected_error(
    clock: Clock, tmp_path: Path, hz: float
) -> None:
    boards = [modulated("GPU-a", 600, 0.2, hz), constant("GPU-b", 90.0)]
    samples = record(NvmlProbe(None, SimulatedNvml(boards, clock)), clock, tmp_path / "s", 36)
    t0_s, t1_s = 1002.034, 1032.071
    truth = sum(board.energy_j(t1_s) - board.energy_j(t0_s) for board in boards)
    reading = energy.gpu_energy(samples, int(t0_s * 1e9), int(t1_s * 1e9))
    # An edge is off by at most one counter period of the highest power: 0.1 s × 810 W at each end.
    assert reading.energy_j == pytest.approx(truth, abs=2 * 0.1 * 810)
    assert reading.energy_j == pytest.approx(truth, rel=0.005)
    assert reading.power_w == pytest.approx(690, rel=0.01)
    assert set(reading.devices) == {"gpu:GPU-a", "gpu:GPU-b"}
    assert reading.disagreement_frac is not None
    if hz < 5:  # sampled at 10 Hz, a faster load aliases
        assert reading.disagreement_frac < 0.02


def test_millijoules_keep_every_digit(clock: Clock, tmp_path: Path) -> None:
    start = 9_007_199_254_740.0  # J: in mJ just below 2^53, beyond three centuries at 700 W
    board = Board("GPU-a", lambda t: start + round((t - 1000) * 10) * 0.001, lambda t: 1.0)
    samples = record(NvmlProbe(None, SimulatedNvml([board], clock)), clock, tmp_path / "s", 1)
    _, counted = series(samples, "gpu:GPU-a", "energy_mj")
    assert list(counted) == [int(board.energy_j(1000 + i / 10) * 1000) for i in range(10)]


def test_sampled_at_the_read_not_later(clock: Clock) -> None:
    probe = NvmlProbe(None, SimulatedNvml([constant("GPU-a", 5)], clock))
    seen: list[Sample] = []
    for sample in probe.sample():
        seen.append(sample)
        clock.now_s += 1.0  # a slow consumer
    assert {s.t_ns for s in seen if s.name in ("energy_mj", "power_w")} == {int(1000e9)}


@pytest.mark.skipif(ctypes.util.find_library("nvidia-ml") is not None, reason="this machine has NVML")
def test_without_the_driver_the_real_library_is_reported_not_raised() -> None:
    with pytest.raises(pynvml.NVMLError_LibraryNotFound):
        pynvml.nvmlInit()
    probe = NvmlProbe()
    assert not probe.status().usable
    assert "NVML does not start (NVML Shared Library Not Found)" in probe.status().detail
    assert list(probe.sample()) == []


@pytest.mark.gpu
@pytest.mark.skipif(ctypes.util.find_library("nvidia-ml") is None, reason="no NVML here")
def test_real_gpu_gives_power_and_energy() -> None:
    probe = NvmlProbe()
    assert probe.status().usable, probe.status().detail
    names = {s.name for s in probe.sample()}
    assert {"energy_mj", "power_w", "memory_used_bytes"} <= names
