"""What NVML says of each GPU: energy counter, power, clocks, temperature, utilisation, memory.

========================  =====================================================================
energy_mj                 field 83: energy since the driver was loaded, raw integer millijoules
energy_counter_ts_us      the driver's own time for that reading, µs since 1970
power_w                   field 186: instantaneous board power (never nvmlDeviceGetPowerUsage,
                          which is a 1 s average on most boards since Ampere)
sm_clock_mhz, memory_clock_mhz, temperature_c
utilisation_gpu_pct, utilisation_memory_pct
memory_used_bytes, memory_reserved_bytes, memory_free_bytes
clocks_event_reasons      bit mask: 0x4 software power cap, 0x8 hardware slowdown, 0x20 software
                          thermal, 0x40 hardware thermal, 0x80 power brake (nvml.h)
========================  =====================================================================

A reading the board does not offer is absent, never 0.  Energy and power are read at every tick, all
GPUs first; the others at every ``SLOW_EVERY``-th, since they need not be integrated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from profiler.samples import Sample
from profiler.schema import ProbeStatus

TOTAL_ENERGY, POWER_INSTANT, GPU_SCOPE = 83, 186, 0
SLOW_EVERY = 5
# nvmlValueType_t → the member of the nvmlValue_t union that holds the number (nvml.h)
UNION_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")

Reading = Callable[[Any, Any], Iterable[tuple[str, float]]]


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
    # Version 2 counts the driver's reserve apart; version 1 hides it.
    memory = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    yield "memory_used_bytes", memory.used
    yield "memory_reserved_bytes", memory.reserved
    yield "memory_free_bytes", memory.free


def _reasons(nvml: Any, handle: Any) -> Iterator[tuple[str, float]]:
    # The mask, not fields ≥ 251: those were renumbered between the 12.9 and 13.x headers.
    yield "clocks_event_reasons", nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)


SLOW_READINGS: dict[str, Reading] = {
    "clocks": _clocks,
    "temperature": _temperature,
    "utilisation": _utilisation,
    "memory": _memory,
    "clock event reasons": _reasons,
}


class NvmlProbe:
    """Reads GPUs by UUID (None: all that NVML sees).  ``library`` stands in for pynvml in tests."""

    def __init__(self, gpus: tuple[str, ...] | None = None, library: Any = None) -> None:
        self._handles: dict[str, Any] = {}
        self._slow: dict[str, dict[str, Reading]] = {}
        self._tick = 0
        self._nvml = library
        self._status = self._open(gpus)

    def status(self) -> ProbeStatus:
        """Whether GPUs can be read, which of their readings are missing, or what would mend it."""
        return self._status

    def sample(self) -> Iterator[Sample]:
        """One tick: the counters of all GPUs first, so that they lie within milliseconds."""
        for uuid, handle in self._handles.items():
            yield from self._counters(uuid, handle)
        if self._tick % SLOW_EVERY == 0:
            for uuid, handle in self._handles.items():
                yield from self._slow_readings(uuid, handle)
        self._tick += 1

    def _open(self, gpus: tuple[str, ...] | None) -> ProbeStatus:
        if gpus == ():
            return _unusable("the engine uses no GPU")
        if self._nvml is None:
            try:
                import pynvml
            except ImportError:
                return _unusable("the package nvidia-ml-py is missing: pip install nvidia-ml-py")
            self._nvml = pynvml
        try:
            self._nvml.nvmlInit()
            driver = self._nvml.nvmlSystemGetDriverVersion()
            visible = self._visible()
        except self._nvml.NVMLError as error:
            return _unusable(
                f"NVML does not start ({error}): needs an NVIDIA GPU, its driver and libnvidia-ml"
            )
        unknown = [uuid for uuid in gpus or () if uuid not in visible]
        if unknown:
            why = (
                "a MIG slice has no energy counter of its own"
                if unknown[0].startswith("MIG-")
                else "not seen by NVML"
            )
            return _unusable(f"GPU {unknown[0]}: {why}; visible: {', '.join(visible) or 'none'}")
        self._handles = {uuid: visible[uuid] for uuid in gpus or visible}
        self._slow = {uuid: dict(SLOW_READINGS) for uuid in self._handles}
        return self._describe(driver)

    def _visible(self) -> dict[str, Any]:
        handles = [self._nvml.nvmlDeviceGetHandleByIndex(i) for i in range(self._nvml.nvmlDeviceGetCount())]
        return {self._nvml.nvmlDeviceGetUUID(handle): handle for handle in handles}

    def _describe(self, driver: str) -> ProbeStatus:
        if not self._handles:
            return _unusable(f"driver {driver} sees no GPU: check nvidia-smi and the container's device list")
        found = {
            uuid: {s.name for s in self._counters(uuid, handle)} for uuid, handle in self._handles.items()
        }
        lacks = [
            f"{uuid} has no {name}"
            for uuid, names in found.items()
            for name in ("energy_mj", "power_w")
            if name not in names
        ]
        shared = [
            f"{uuid} is in MIG mode: its power is the whole board's"
            for uuid, handle in self._handles.items()
            if self._mig(handle)
        ]
        count = f"{len(self._handles)} GPU{'s' if len(self._handles) > 1 else ''}, driver {driver}"
        detail = "; ".join([count, *lacks, *shared])
        return ProbeStatus(
            probe="nvml",
            usable=any("energy_mj" in n or "power_w" in n for n in found.values()),
            detail=detail,
        )

    def _mig(self, handle: Any) -> bool:
        try:
            return bool(self._nvml.nvmlDeviceGetMigMode(handle)[0] == self._nvml.NVML_DEVICE_MIG_ENABLE)
        except self._nvml.NVMLError:
            return False

    def _counters(self, uuid: str, handle: Any) -> Iterator[Sample]:
        asked = [(TOTAL_ENERGY, GPU_SCOPE), (POWER_INSTANT, GPU_SCOPE)]
        before = time.perf_counter_ns()
        try:
            energy, power = self._nvml.nvmlDeviceGetFieldValues(handle, asked)
        except self._nvml.NVMLError:
            return
        t_ns = (before + time.perf_counter_ns()) // 2
        source = f"gpu:{uuid}"
        if (millijoules := self._number(energy)) is not None:
            yield Sample(t_ns, source, "energy_mj", millijoules)
            if energy.timestamp > 0:
                yield Sample(t_ns, source, "energy_counter_ts_us", energy.timestamp)
        # A powered board never draws 0 W; drivers polled too fast are known to answer 0.
        if milliwatts := self._number(power):
            yield Sample(t_ns, source, "power_w", milliwatts / 1000)

    def _number(self, field: Any) -> float | None:
        if field.nvmlReturn != self._nvml.NVML_SUCCESS or not 0 <= field.valueType < len(UNION_MEMBERS):
            return None
        number: float = getattr(field.value, UNION_MEMBERS[field.valueType])
        return number

    def _slow_readings(self, uuid: str, handle: Any) -> Iterator[Sample]:
        for label, read in list(self._slow[uuid].items()):
            t_ns = time.perf_counter_ns()
            try:
                values = list(read(self._nvml, handle))
            except self._nvml.NVMLError as error:
                if error.value in (
                    self._nvml.NVML_ERROR_NOT_SUPPORTED,
                    self._nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
                ):
                    del self._slow[uuid][label]
                continue
            for name, value in values:
                yield Sample(t_ns, f"gpu:{uuid}", name, value)


def _unusable(detail: str) -> ProbeStatus:
    return ProbeStatus(probe="nvml", usable=False, detail=detail)
