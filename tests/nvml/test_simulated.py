"""The stand-in for pynvml: real structures, real errors, and what a description asks for."""

from __future__ import annotations

import time
from pathlib import Path

import pynvml
import pytest

from profiler import catalog
from profiler.errors import InputError
from profiler.nvml.curves import Constant, Following, Sine, Square
from profiler.nvml.simulated import SimulatedNvml, VirtualClock
from profiler.nvml.wanted import kinds, library


def opened(description: str) -> SimulatedNvml:
    found = library(description)
    found.nvmlInit()
    return found


def test_structures_constants_and_errors_are_the_real_ones() -> None:
    nvml = opened("h100?power_w=300")
    handle = nvml.nvmlDeviceGetHandleByIndex(0)
    values = nvml.nvmlDeviceGetFieldValues(handle, [(83, 0), 186, 185, 9999])
    assert isinstance(values, pynvml.c_nvmlFieldValue_t * 4)
    assert [value.nvmlReturn for value in values] == [0, 0, 0, pynvml.NVML_ERROR_NOT_SUPPORTED]
    assert values[1].value.uiVal == 300_000
    assert isinstance(nvml.nvmlDeviceGetUtilizationRates(handle), pynvml.c_nvmlUtilization_t)
    v1, v2 = (nvml.nvmlDeviceGetMemoryInfo(handle, version) for version in (None, pynvml.nvmlMemory_v2))
    assert isinstance(v2, pynvml.c_nvmlMemory_v2_t)
    assert v1.total == v1.used + v1.free == v2.used + v2.reserved + v2.free
    assert v1.used == v2.used + v2.reserved
    assert nvml.NVMLError is pynvml.NVMLError
    assert nvml.NVML_SUCCESS == 0
    for name in ("nvmlDeviceGetFanSpeed", "nvmlSystemGetNVMLVersion", "_anything"):
        assert not hasattr(nvml, name)


def test_nothing_works_before_init_or_after_shutdown() -> None:
    nvml = library("h100")
    board = nvml.boards[0]
    for call in (nvml.nvmlDeviceGetCount, nvml.nvmlSystemGetDriverVersion, nvml.nvmlShutdown):
        with pytest.raises(pynvml.NVMLError_Uninitialized):
            call()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        nvml.nvmlDeviceGetTemperature(board, 0)
    nvml.nvmlInit()
    nvml.nvmlInit()
    nvml.nvmlShutdown()
    assert nvml.nvmlDeviceGetCount() == 1
    nvml.nvmlShutdown()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        nvml.nvmlDeviceGetCount()


def test_handles() -> None:
    nvml = opened("a100:2")
    second = nvml.nvmlDeviceGetHandleByIndex(1)
    assert nvml.nvmlDeviceGetHandleByUUID(nvml.nvmlDeviceGetUUID(second)) is second
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        nvml.nvmlDeviceGetHandleByIndex(2)
    with pytest.raises(pynvml.NVMLError_NotFound):
        nvml.nvmlDeviceGetHandleByUUID("GPU-none")


@pytest.mark.parametrize("name", sorted(kinds()))
def test_every_kind_is_named_as_simulated_and_told_by_the_catalog(name: str) -> None:
    nvml = opened(name)
    told = nvml.nvmlDeviceGetName(nvml.boards[0])
    assert told.endswith(" (simulated)")
    spec = catalog.match_gpu(told.removesuffix(" (simulated)"))
    assert catalog.match_gpu(told) is None  # nobody's price or ceiling is taken for it
    if spec is not None:
        assert nvml.nvmlDeviceGetMemoryInfo(nvml.boards[0]).total == spec.memory_bytes
        assert nvml.nvmlDeviceGetEnforcedPowerLimit(nvml.boards[0]) == (spec.tdp_w or 0) * 1000
    assert (spec is None) == (name == "v100")


def test_power_usage_is_averaged_since_ampere_but_for_ga100() -> None:
    for name, is_average in (("h100", True), ("geforce", True), ("a100", False), ("v100", False)):
        board = library(name).boards[0]
        clock = VirtualClock(1000.0)
        board.curve, board.phase_s = Square(300, 1.0, 0.5), 0.0  # a second on, a second off
        nvml = SimulatedNvml([board], clock)
        nvml.nvmlInit()
        clock.now_s = 1000.5
        assert nvml.nvmlDeviceGetPowerUsage(board) == pytest.approx(300_000 if is_average else 600_000, abs=2)


def test_mig() -> None:
    nvml = opened("h100?mig=2")
    board = nvml.nvmlDeviceGetHandleByIndex(0)
    assert nvml.nvmlDeviceGetMigMode(board) == [1, 1]
    slices = [nvml.nvmlDeviceGetMigDeviceHandleByIndex(board, index) for index in range(2)]
    assert all(nvml.nvmlDeviceGetUUID(each).startswith("MIG-") for each in slices)
    assert nvml.nvmlDeviceGetMemoryInfo(slices[0]).total == 40 << 30
    with pytest.raises(pynvml.NVMLError_NotFound):
        nvml.nvmlDeviceGetMigDeviceHandleByIndex(board, 2)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        nvml.nvmlDeviceGetUtilizationRates(board)
    with pytest.raises(pynvml.NVMLError_NoPermission):
        nvml.nvmlDeviceGetComputeRunningProcesses_v3(board)
    whole, geforce = opened("h100"), opened("geforce")
    assert whole.nvmlDeviceGetMigMode(whole.boards[0]) == [0, 0]
    with pytest.raises(pynvml.NVMLError_NotSupported):
        geforce.nvmlDeviceGetMigMode(geforce.boards[0])


@pytest.mark.parametrize(
    ("description", "error"),
    [
        ("h100?driver=mismatch", pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH),
        ("h100?driver=absent", pynvml.NVML_ERROR_DRIVER_NOT_LOADED),
        ("h100?permission=denied", pynvml.NVML_ERROR_NO_PERMISSION),
    ],
)
def test_libraries_that_do_not_start(description: str, error: int) -> None:
    with pytest.raises(pynvml.NVMLError) as caught:
        library(description).nvmlInit()
    assert caught.value.value == error


def test_processes_may_be_hidden_from_us() -> None:
    nvml = opened("h100?permission=processes")
    with pytest.raises(pynvml.NVMLError_NoPermission):
        nvml.nvmlDeviceGetComputeRunningProcesses_v3(nvml.boards[0])
    assert nvml.nvmlDeviceGetTemperature(nvml.boards[0], 0) > 0


def test_descriptions() -> None:
    assert isinstance(library("h100").boards[0].curve, Following)
    assert library("h100?power_w=400").boards[0].curve == Constant(400)
    assert library("h100?wave=square&power_w=600&hz=3&depth=0.1").boards[0].curve == Square(600, 0.1, 3)
    assert library("v100?wave=sine").boards[0].curve == Sine(280, 0.2, 7)
    faults = (
        library("h100:2?no=energy,power&foreign=2&foreign_gib=1.5&unexplained_gib=1&gain=0.9&mig=3")
        .boards[1]
        .faults
    )
    assert faults.missing == {"energy", "power"}
    assert (faults.foreign, faults.foreign_bytes, faults.unexplained_bytes) == (2, 3 << 29, 1 << 30)
    assert (faults.gain, faults.mig_slices, faults.hot, faults.elsewhere) == (0.9, 3, False, False)
    lost = library("h100?lost_after_s=20&hot=1&container=1&counter=sensor").boards[0]
    assert lost.faults.lost_s == pytest.approx(lost.born_s + 20)
    assert (lost.faults.hot, lost.faults.elsewhere, lost.faults.sensor_fed) == (True, True, True)


@pytest.mark.parametrize(
    ("description", "why"),
    [
        ("h10", r"no such boards \(did you mean 'h100'\?\)"),
        ("", "no such boards"),
        ("h100:x", "'x' is no number of boards"),
        ("h100:-1", "'-1' is no number of boards"),
        ("h100?lost_after=3", r"lost_after: no such key \(did you mean 'lost_after_s'\?\)"),
        ("h100?lost_after_s=soon", "lost_after_s"),
        ("h100?gain=-1", "gain"),
        ("h100?driver=old", "driver"),
        ("h100?no=enrgy", r"no=enrgy: no such reading \(did you mean 'energy'\?\)"),
    ],
)
def test_what_cannot_be_read_is_an_input_error(description: str, why: str) -> None:
    with pytest.raises(InputError, match=rf"^PROFILER_SIMULATED_NVML={'.*'}{why}"):
        library(description)


def test_what_goes_wrong_later_begins_when_its_file_is_there(tmp_path: Path) -> None:
    """… and not before, whatever else was said of the boards."""
    later = tmp_path / "later"
    boards = library(f"h100?power_w=400&later={later}")
    boards.nvmlInit()
    board = boards.nvmlDeviceGetHandleByIndex(0)
    assert boards.nvmlDeviceGetCurrentClocksEventReasons(board) & 0x8 == 0
    later.write_text("held_back=8&unloaded_after_s=0.2")
    assert boards.nvmlDeviceGetCurrentClocksEventReasons(board) & 0x8
    time.sleep(0.25)
    with pytest.raises(boards.NVMLError) as caught:
        boards.nvmlDeviceGetTemperature(board, 0)
    assert caught.value.value == boards.NVML_ERROR_DRIVER_NOT_LOADED
