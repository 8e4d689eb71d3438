"""The NVML probe against simulated boards of known truth, and against the real import."""

from __future__ import annotations

import ctypes.util

import pynvml
import pytest

from profiler.nvml.curves import Constant, Stretch
from profiler.nvml.simulated import SimulatedNvml, VirtualClock
from profiler.telemetry.nvml import SLOW_EVERY, TENANTS_EVERY, NvmlProbe

from .virtual import board, drive, probe_of, taken

ONCE = {
    "power_limit_w": 700,
    "power_limit_default_w": 700,
    "ecc_enabled": 1,
    "pcie_generation": 5,
    "pcie_width": 16,
    "mig_enabled": 0,
    "persistence_mode": 1,
    "architecture": 9,
}
SLOW = {
    "sm_clock_mhz": 1980,
    "memory_clock_mhz": 2619,
    "temperature_c": 34,
    "utilisation_gpu_pct": 53,
    "utilisation_memory_pct": 32,
    "memory_used_bytes": 0,
    "memory_reserved_bytes": 600 << 20,
    "memory_free_bytes": (80 << 30) - (600 << 20),
    "clocks_event_reasons": 0,
}
TENANTS = {"foreign_processes": 0, "foreign_bytes": 0, "unexplained_bytes": 0}


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def test_all_readings_with_their_units(clock: VirtualClock) -> None:
    probe, _ = probe_of(board(curve=400.5), clock=clock)
    assert probe.status().usable
    assert probe.status().detail == "1 simulated GPU, driver 580.65.06"
    found = {s.name: s.value for s in probe.sample()}
    assert 1_735_690_599_900_000 < found.pop("power_ts_us") <= 1_735_690_600_000_000
    assert found == {"power_w": 400.5} | ONCE | SLOW | TENANTS


def test_power_of_all_comes_first_and_at_every_tick_the_rest_more_rarely(clock: VirtualClock) -> None:
    a, b = board(number=0), board(number=1)
    probe, _ = probe_of(a, b, clock=clock)
    ticks = [[(s.source, s.name) for s in probe.sample()] for _ in range(TENANTS_EVERY + 1)]
    power = [(f"gpu:{each.uuid}", name) for each in (a, b) for name in ("power_w", "power_ts_us")]
    assert all(tick[:4] == power for tick in ticks)
    names = [{name for _, name in tick[4:]} for tick in ticks]
    assert names[0] == {*ONCE, *SLOW, *TENANTS}
    assert names[SLOW_EVERY] == {*SLOW}
    assert names[TENANTS_EVERY] == {*SLOW, *TENANTS}
    assert sum(map(len, names)) == len(ONCE) + 3 * len(SLOW) + 2 * len(TENANTS)


@pytest.mark.parametrize(
    ("missing", "names"),
    [
        ("power", {"power_w", "power_ts_us"}),
        ("utilisation", {"utilisation_gpu_pct", "utilisation_memory_pct"}),
        (
            "memory",
            {"memory_used_bytes", "memory_reserved_bytes", "memory_free_bytes", "unexplained_bytes"},
        ),
        ("reasons", {"clocks_event_reasons"}),
        ("temperature", {"temperature_c"}),
        ("processes", {*TENANTS}),
        ("limit", {"power_limit_w", "power_limit_default_w"}),
        ("architecture", {"architecture"}),
    ],
)
def test_what_a_board_lacks_is_absent_never_zero(clock: VirtualClock, missing: str, names: set[str]) -> None:
    whole, _ = probe_of(board(), clock=clock)
    lacking, library = probe_of(board(missing=frozenset({missing})), clock=clock)
    assert {s.name for s in whole.sample()} - {s.name for s in taken(lacking.sample())} == names
    assert lacking.status().usable
    asked = library.calls[missing]
    for _ in range(3 * SLOW_EVERY):
        assert "error" not in {s.source for s in taken(lacking.sample())}
    if missing != "memory":  # the only one that two readings ask for
        assert library.calls[missing] == asked  # an unsupported reading is not asked for again


@pytest.mark.parametrize(
    ("missing", "usable", "says"),
    [
        ({"energy"}, True, "has no energy_mj"),
        ({"power"}, True, "has no power_w"),
        ({"energy", "power"}, False, "has no energy_mj"),
    ],
)
def test_the_status_says_what_is_missing(
    clock: VirtualClock, missing: set[str], usable: bool, says: str
) -> None:
    lacking = board(missing=frozenset(missing))
    probe, _ = probe_of(lacking, clock=clock)
    assert probe.status().usable == usable
    assert f"{lacking.uuid} {says}" in probe.status().detail


def test_zero_milliwatts_is_not_a_reading(clock: VirtualClock) -> None:
    probe, _ = probe_of(board(curve=0.0), clock=clock)
    assert not {"power_w", "power_ts_us"} & {s.name for s in probe.sample()}


def test_gpus_are_chosen_by_uuid_its_beginning_or_index(clock: VirtualClock) -> None:
    a, b = board(number=0), board(number=1)
    for name in (b.uuid, b.uuid[:12], "1"):
        probe = NvmlProbe((name,), SimulatedNvml([a, b], clock), clock)
        assert {s.source for s in probe.sample()} == {f"gpu:{b.uuid}"}
    both = NvmlProbe(None, SimulatedNvml([a, b], clock), clock)
    assert {s.source for s in both.sample()} == {f"gpu:{a.uuid}", f"gpu:{b.uuid}"}
    assert both.status().detail == "2 simulated GPUs, driver 580.65.06"


def test_gpus_that_cannot_be_read_make_the_probe_unusable(clock: VirtualClock) -> None:
    a = board()
    for gpus, says in [((), "no GPU"), (("GPU-x",), f"GPU GPU-x: not seen by NVML; visible: 0 {a.uuid}")]:
        probe = NvmlProbe(gpus, SimulatedNvml([a], clock), clock)
        assert not probe.status().usable
        assert says in probe.status().detail
        assert [*probe.sample(), *probe.ticks.sample()] == []


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
            "restart the machine, or reload the nvidia kernel modules",
        ),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "load the nvidia kernel module"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "/dev/nvidia* may not be opened"),
        (pynvml.NVML_ERROR_UNKNOWN, "needs an NVIDIA GPU, its driver and libnvidia-ml"),
    ],
)
def test_a_library_that_does_not_start_says_how_to_mend_it(clock: VirtualClock, code: int, says: str) -> None:
    probe = NvmlProbe(None, SimulatedNvml([board()], clock, init_error=code), clock)
    assert not probe.status().usable
    assert says in probe.status().detail


def test_a_mig_device_is_read_as_its_board_and_that_is_said(clock: VirtualClock) -> None:
    split = board(mig_slices=2)
    library = SimulatedNvml([split], clock)
    library.nvmlInit()
    device = library.nvmlDeviceGetUUID(library.nvmlDeviceGetMigDeviceHandleByIndex(split, 1))
    probe = NvmlProbe((device, split.uuid), library, clock)
    assert probe.status().usable
    assert f"{split.uuid} is in MIG mode: its power is the whole board's" in probe.status().detail
    found = {s.name: s.value for s in probe.sample()}
    assert found["mig_enabled"] == 1
    assert found["power_w"] == 400
    assert not {"utilisation_gpu_pct", "foreign_processes"} & set(found)


def test_a_lost_gpu_is_said_once_counted_always_and_stops_no_other(clock: VirtualClock) -> None:
    good, lost = board(number=0), board(number=1, lost_s=1002.0)
    probe, _ = probe_of(lost, good, clock=clock)
    samples = drive(probe, clock, 5)
    rows = [s for s in samples if s.source == f"gpu:{lost.uuid}"]
    assert [s.value for s in rows if s.name == "lost"] == [1]
    assert max(s.t_ns for s in rows) <= 2.2e9 + 1000e9
    errors = [s for s in samples if s.source == "error"]
    assert {s.name for s in errors} == {"GPU is lost"}
    assert 29 <= len(errors) <= 32  # every 0.1 s for 3 s: the ticker counts them
    others = [s for s in samples if s.source == f"gpu:{good.uuid}" and s.name == "power_w"]
    assert len(others) == 50


def test_a_board_that_is_lost_at_the_start_leaves_the_others_usable(clock: VirtualClock) -> None:
    good, lost = board(number=0), board(number=1, lost_s=0.0)
    probe, _ = probe_of(good, lost, clock=clock)
    assert probe.status().usable
    assert f"{lost.uuid} cannot be read (GPU is lost)" in probe.status().detail


def test_a_reading_that_fails_once_is_tried_again(clock: VirtualClock) -> None:
    probe, library = probe_of(board(), clock=clock)
    tells, library.nvmlDeviceGetTemperature = library.nvmlDeviceGetTemperature, _fails  # type: ignore[method-assign]
    first = taken(probe.sample())
    library.nvmlDeviceGetTemperature = tells  # type: ignore[method-assign]
    assert [s.name for s in first if s.source == "error"] == ["Unknown Error"]
    assert {s.name for s in first} >= {"power_w", "sm_clock_mhz", "clocks_event_reasons"}
    later = [s.name for _ in range(SLOW_EVERY) for s in probe.sample()]
    assert "temperature_c" in later


def _fails(*_: object) -> int:
    raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)


def test_a_binding_without_a_function_lacks_a_reading_and_a_slip_of_ours_is_not_hidden(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe, _ = probe_of(board(), clock=clock)
    monkeypatch.delattr(SimulatedNvml, "nvmlDeviceGetTemperature")
    assert "temperature_c" not in {s.name for s in probe.sample()}
    monkeypatch.setattr(SimulatedNvml, "nvmlDeviceGetUtilizationRates", lambda *_: object())
    for _ in range(SLOW_EVERY - 1):
        list(probe.sample())
    with pytest.raises(AttributeError, match="gpu"):
        list(probe.sample())


def test_heat_throttles_and_is_seen(clock: VirtualClock) -> None:
    hot = board(curve=Stretch(Constant(690), Constant(70), 1010, 1e9), hot=True)
    probe, _ = probe_of(hot, clock=clock)
    samples = drive(probe, clock, 120)
    seen = {
        name: [s.value for s in samples if s.name == name]
        for name in ("temperature_c", "sm_clock_mhz", "clocks_event_reasons")
    }
    assert seen["temperature_c"][0] < 40
    assert seen["temperature_c"] == sorted(seen["temperature_c"])
    assert seen["temperature_c"][-1] > 90
    assert (seen["sm_clock_mhz"][0], max(seen["sm_clock_mhz"])) == (345, 1980)
    assert 990 <= seen["sm_clock_mhz"][-1] < 1500
    assert seen["clocks_event_reasons"][0] == 0x1
    assert seen["clocks_event_reasons"][-1] == 0x20 | 0x4


@pytest.mark.skipif(ctypes.util.find_library("nvidia-ml") is not None, reason="this machine has NVML")
def test_without_the_driver_the_real_library_is_reported_not_raised() -> None:
    with pytest.raises(pynvml.NVMLError_LibraryNotFound):
        pynvml.nvmlInit()
    probe = NvmlProbe()
    assert not probe.status().usable
    assert "NVML does not start (NVML Shared Library Not Found)" in probe.status().detail
    assert [*probe.sample(), *probe.ticks.sample()] == []
