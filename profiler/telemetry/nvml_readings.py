"""What is asked of a board through NVML, reading by reading; a reading is a name, a value and no more.

The mask of clock event reasons is read, not fields 251 and above, which say the same of some reasons: those
were renumbered between the 12.9 and 13.x headers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

Reading = Callable[[Any, Any], Iterable[tuple[str, float]]]

TOTAL_ENERGY, POWER_INSTANT, GPU_SCOPE = 83, 186, 0
# nvmlValueType_t → the member of the nvmlValue_t union that holds the number (nvml.h)
UNION_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")


def fields(nvml: Any, handle: Any, *numbers: int) -> list[tuple[float | None, int]]:
    """Value and driver's time stamp in µs of each field; a value is None where its return code is an error.

    Raises NVMLError_GpuIsLost also when only a field says so.
    """
    found = []
    for field in nvml.nvmlDeviceGetFieldValues(handle, [(number, GPU_SCOPE) for number in numbers]):
        if field.nvmlReturn == nvml.NVML_ERROR_GPU_IS_LOST:
            raise nvml.NVMLError(field.nvmlReturn)
        known = field.nvmlReturn == nvml.NVML_SUCCESS and 0 <= field.valueType < len(UNION_MEMBERS)
        value = getattr(field.value, UNION_MEMBERS[field.valueType]) if known else None
        found.append((value, int(field.timestamp)))
    return found


def power(nvml: Any, handle: Any) -> Iterator[tuple[str, float]]:
    """Field 186, never nvmlDeviceGetPowerUsage: that is a 1 s average on most boards since Ampere."""
    ((milliwatts, stamp_us),) = fields(nvml, handle, POWER_INSTANT)
    if milliwatts:  # a powered board never draws 0 W; drivers asked too often are known to answer 0
        yield "power_w", milliwatts / 1000
        if stamp_us > 0:
            yield "power_ts_us", stamp_us


def _clocks(nvml: Any, handle: Any) -> Iterator[tuple[str, float]]:
    yield "sm_clock_mhz", nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)
    yield "memory_clock_mhz", nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)


def _temperature(nvml: Any, handle: Any) -> Iterator[tuple[str, float]]:
    yield "temperature_c", nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)


def _utilisation(nvml: Any, handle: Any) -> Iterator[tuple[str, float]]:
    rates = nvml.nvmlDeviceGetUtilizationRates(handle)
    yield "utilisation_gpu_pct", rates.gpu
    yield "utilisation_memory_pct", rates.memory


def _memory(nvml: Any, handle: Any) -> Iterator[tuple[str, float]]:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)  # version 1 hides the reserve
    yield "memory_used_bytes", memory.used
    yield "memory_reserved_bytes", memory.reserved
    yield "memory_free_bytes", memory.free


def _reasons(nvml: Any, handle: Any) -> Iterator[tuple[str, float]]:
    yield "clocks_event_reasons", nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)


def _pcie(nvml: Any, handle: Any) -> Iterator[tuple[str, float]]:
    # The generation is lowered while nothing happens, the width is not.
    yield "pcie_generation", nvml.nvmlDeviceGetMaxPcieLinkGeneration(handle)
    yield "pcie_width", nvml.nvmlDeviceGetCurrPcieLinkWidth(handle)


SLOW: dict[str, Reading] = {
    "clocks": _clocks,
    "temperature": _temperature,
    "utilisation": _utilisation,
    "memory": _memory,
    "clock event reasons": _reasons,
}
FIXED: dict[str, Reading] = {
    "power limit": lambda nvml, h: [("power_limit_w", nvml.nvmlDeviceGetEnforcedPowerLimit(h) / 1000)],
    "default power limit": lambda nvml, h: [
        ("power_limit_default_w", nvml.nvmlDeviceGetPowerManagementDefaultLimit(h) / 1000)
    ],
    "ECC": lambda nvml, h: [("ecc_enabled", nvml.nvmlDeviceGetEccMode(h)[0])],
    "PCIe link": _pcie,
    "MIG mode": lambda nvml, h: [("mig_enabled", nvml.nvmlDeviceGetMigMode(h)[0])],
    "persistence mode": lambda nvml, h: [("persistence_mode", nvml.nvmlDeviceGetPersistenceMode(h))],
    "architecture": lambda nvml, h: [("architecture", nvml.nvmlDeviceGetArchitecture(h))],
}
