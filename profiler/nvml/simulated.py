"""Simulated NVML: the part of pynvml that is used here, over simulated boards.

It stands in at the real boundary: structures, constants and error classes are pynvml's own, errors come as
the return codes and exceptions the real library gives, and nothing works before ``nvmlInit``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from profiler.nvml.board import MIB, Faults, SimulatedBoard
from profiler.nvml.load import Load
from profiler.schema import SIMULATED

T = TypeVar("T")

DRIVER = "580.65.06"
# The driver's time stamps are µs since 1970; simulated boards were switched on on 2025-01-01.
SWITCHED_ON_US = 1_735_689_600_000_000
RESERVED_BYTES = 600 * MIB
ENGINE_SHARE = 0.8  # of the memory, for every process that holds a context
FOREIGN_PID, OTHER_NAMESPACE = 4_190_000, 1_000_000
ENERGY, AVERAGE, INSTANT = 83, 185, 186


class VirtualClock:
    """Stands in for the ``time`` module: stands still until moved."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def perf_counter_ns(self) -> int:
        return round(self.now_s * 1e9)


@dataclass(frozen=True)
class Slice:
    """A MIG device of a board."""

    board: SimulatedBoard
    number: int

    @property
    def uuid(self) -> str:
        return f"MIG-{self.number}{self.board.uuid[5:]}"


class SimulatedNvml:
    """``init_error``: the code with which ``nvmlInit`` fails.  ``calls`` counts what was asked for.

    ``later``: what is wrong with all boards from this time on, where that has changed.
    """

    simulated = True

    def __init__(
        self,
        boards: Sequence[SimulatedBoard],
        clock: Any = time,
        load: Load | None = None,
        init_error: int | None = None,
        later: Callable[[float], Faults | None] = lambda _: None,
    ) -> None:
        import pynvml

        self.boards = list(boards)
        self.calls: Counter[str] = Counter()
        self._real = pynvml
        self._clock = clock
        self._load = load or Load(None)
        self._init_error = init_error
        self._later = later
        self._open = 0

    def __getattr__(self, name: str) -> Any:
        """Constants, structures and error classes are the real ones; functions that are not here are not."""
        if name.startswith(("nvmlDevice", "nvmlSystem", "_")):
            raise AttributeError(name)
        return getattr(self._real, name)

    def nvmlInit(self) -> None:  # noqa: N802 (the library's name)
        if self._init_error is not None:
            raise self._real.NVMLError(self._init_error)
        self._open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self._check_open()
        self._open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        self._check_open()
        return DRIVER

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._check_open()
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> SimulatedBoard:  # noqa: N802
        self._check_open()
        if not 0 <= index < len(self.boards):
            raise self._real.NVMLError(self._real.NVML_ERROR_INVALID_ARGUMENT)
        return self.boards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> SimulatedBoard:  # noqa: N802
        self._check_open()
        for board in self.boards:
            if board.uuid == uuid:
                return board
        raise self._real.NVMLError(self._real.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetUUID(self, handle: SimulatedBoard | Slice) -> str:  # noqa: N802
        self._check_open()
        return handle.uuid

    def nvmlDeviceGetName(self, handle: SimulatedBoard) -> str:  # noqa: N802
        self._check_open()
        return f"{handle.kind.name} {SIMULATED}"

    # ------------------------------------------------------------------------------ energy and power

    def nvmlDeviceGetFieldValues(self, handle: SimulatedBoard, fields: Sequence[Any]) -> Any:  # noqa: N802
        now_s = self._ask(handle, "fields")
        values = (self._real.c_nvmlFieldValue_t * len(fields))()
        for value, asked in zip(values, fields, strict=True):
            value.fieldId, value.scopeId = asked if isinstance(asked, tuple) else (asked, 0)
            self._fill(value, handle, now_s)
        return values

    def _fill(self, value: Any, board: SimulatedBoard, now_s: float) -> None:
        real, kind = self._real, board.kind
        name = {ENERGY: "energy", INSTANT: "power", AVERAGE: "average"}.get(value.fieldId, "")
        sensor = {"power": kind.instant, "average": kind.average}.get(name)
        if name in board.faults.missing or (name != "energy" and sensor is None):
            value.nvmlReturn = real.NVML_ERROR_NOT_SUPPORTED
            return
        if sensor is None:
            value.valueType = real.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
            value.value.ullVal, ticked_s = board.counter(now_s)
        else:
            watts, ticked_s = board.shown_w(sensor, now_s)
            value.valueType = real.NVML_VALUE_TYPE_UNSIGNED_INT
            value.value.uiVal = round(watts * 1000)
        value.timestamp = SWITCHED_ON_US + int(ticked_s * 1e6)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: SimulatedBoard) -> int:  # noqa: N802
        return self._told(handle, "energy", lambda now_s: handle.counter(now_s)[0])

    def nvmlDeviceGetPowerUsage(self, handle: SimulatedBoard) -> int:  # noqa: N802
        """mW; averaged over a second since Ampere except GA100 (nvml.h)."""
        sensor = handle.kind.average or handle.kind.instant
        return self._told(handle, "power", lambda now_s: round(handle.shown_w(sensor, now_s)[0] * 1000))

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: SimulatedBoard) -> int:  # noqa: N802
        return self._told(handle, "limit", lambda _: int(handle.kind.limit_w * 1000))

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle: SimulatedBoard) -> int:  # noqa: N802
        return self._told(handle, "limit", lambda _: int(handle.kind.limit_w * 1000))

    # ------------------------------------------------------------------------------ clocks, heat, use

    def nvmlDeviceGetClockInfo(self, handle: SimulatedBoard, kind: int) -> int:  # noqa: N802
        clocks = {self._real.NVML_CLOCK_SM: handle.sm_clock_mhz}
        fixed = handle.kind.memory_clock_mhz
        return self._told(handle, "clocks", lambda now_s: clocks[kind](now_s) if kind in clocks else fixed)

    def nvmlDeviceGetTemperature(self, handle: SimulatedBoard, sensor: int) -> int:  # noqa: N802
        del sensor
        return self._told(handle, "temperature", lambda now_s: round(handle.temperature_c(now_s)))

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: SimulatedBoard) -> int:  # noqa: N802
        return self._told(handle, "reasons", handle.reasons)

    def nvmlDeviceGetUtilizationRates(self, handle: SimulatedBoard) -> Any:  # noqa: N802
        if handle.faults.mig_slices:
            raise self._real.NVMLError(self._real.NVML_ERROR_NOT_SUPPORTED)
        busy = self._told(handle, "utilisation", handle.busy_frac)
        return self._real.c_nvmlUtilization_t(gpu=round(busy * 100), memory=round(busy * 60))

    # ------------------------------------------------------------------------------ memory, processes

    def nvmlDeviceGetMemoryInfo(  # noqa: N802
        self, handle: SimulatedBoard | Slice, version: int | None = None
    ) -> Any:
        board = handle.board if isinstance(handle, Slice) else handle
        now_s = self._ask(board, "memory")
        faults, total = board.faults, board.kind.memory_bytes
        if isinstance(handle, Slice):
            total //= faults.mig_slices
        used = faults.unexplained_bytes + sum(size for _, size in self._holders(board, now_s))
        sizes = {"total": total, "free": total - RESERVED_BYTES - used}
        if version == self._real.nvmlMemory_v2:  # in use is then what is allocated, without the reserve
            return self._real.c_nvmlMemory_v2_t(**sizes, used=used, reserved=RESERVED_BYTES)
        return self._real.c_nvmlMemory_t(**sizes, used=used + RESERVED_BYTES)

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: SimulatedBoard) -> list[Any]:  # noqa: N802
        now_s = self._ask_for_processes(handle)
        shift = OTHER_NAMESPACE if handle.faults.elsewhere else 0
        struct, friendly = self._real.c_nvmlProcessInfo_v3_t, self._real.nvmlStructToFriendlyObject
        return [
            friendly(struct(pid=pid + shift, usedGpuMemory=size))
            for pid, size in self._holders(handle, now_s)
        ]

    def nvmlDeviceGetGraphicsRunningProcesses_v3(self, handle: SimulatedBoard) -> list[Any]:  # noqa: N802
        self._ask_for_processes(handle)
        return []

    def nvmlDeviceGetMPSComputeRunningProcesses_v3(self, handle: SimulatedBoard) -> list[Any]:  # noqa: N802
        self._ask_for_processes(handle)
        return []

    def _ask_for_processes(self, board: SimulatedBoard) -> float:
        if board.faults.mig_slices:  # the whole board's list needs a privilege then
            raise self._real.NVMLError(self._real.NVML_ERROR_NO_PERMISSION)
        return self._ask(board, "processes")

    def _holders(self, board: SimulatedBoard, now_s: float) -> list[tuple[int, int]]:
        """Who holds memory, and how much: our engines share ``ENGINE_SHARE`` of it."""
        self._load.refresh()
        ours = self._load.pids(now_s)
        each = int(board.kind.memory_bytes * ENGINE_SHARE) // max(1, len(ours))
        others = [(FOREIGN_PID + n, board.faults.foreign_bytes) for n in range(board.faults.foreign)]
        return [(pid, each) for pid in ours] + others

    # ------------------------------------------------------------------------------ what is fixed

    def nvmlDeviceGetArchitecture(self, handle: SimulatedBoard) -> int:  # noqa: N802
        return self._told(handle, "architecture", lambda _: handle.kind.architecture)

    def nvmlDeviceGetEccMode(self, handle: SimulatedBoard) -> list[int]:  # noqa: N802
        if not handle.kind.has_ecc:
            raise self._real.NVMLError(self._real.NVML_ERROR_NOT_SUPPORTED)
        return self._told(handle, "ecc", lambda _: [1, 1])

    def nvmlDeviceGetMaxPcieLinkGeneration(self, handle: SimulatedBoard) -> int:  # noqa: N802
        return self._told(handle, "pcie", lambda _: handle.kind.pcie_generation)

    def nvmlDeviceGetCurrPcieLinkWidth(self, handle: SimulatedBoard) -> int:  # noqa: N802
        return self._told(handle, "pcie", lambda _: 16)

    def nvmlDeviceGetPersistenceMode(self, handle: SimulatedBoard) -> int:  # noqa: N802
        return self._told(handle, "persistence", lambda _: 1)

    def nvmlDeviceGetMigMode(self, handle: SimulatedBoard) -> list[int]:  # noqa: N802
        if not handle.kind.has_mig:
            raise self._real.NVMLError(self._real.NVML_ERROR_NOT_SUPPORTED)
        return self._told(handle, "mig", lambda _: [int(handle.faults.mig_slices > 0)] * 2)

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: SimulatedBoard) -> int:  # noqa: N802
        return 7 if handle.kind.has_mig else 0

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: SimulatedBoard, index: int) -> Slice:  # noqa: N802
        if index >= handle.faults.mig_slices:
            raise self._real.NVMLError(self._real.NVML_ERROR_NOT_FOUND)
        return Slice(handle, index)

    # ------------------------------------------------------------------------------ the library's manners

    def _check_open(self) -> None:
        if not self._open:
            raise self._real.NVMLError(self._real.NVML_ERROR_UNINITIALIZED)

    def _ask(self, board: SimulatedBoard, what: str) -> float:
        """The time, unless the board cannot tell ``what``."""
        self._check_open()
        self.calls[what] += 1
        now_s: float = self._clock.perf_counter_ns() / 1e9
        if (changed := self._later(now_s)) is not None:
            for each in self.boards:
                each.faults = changed
        if now_s >= board.faults.unloaded_s:
            raise self._real.NVMLError(self._real.NVML_ERROR_DRIVER_NOT_LOADED)
        if board.is_lost(now_s):
            raise self._real.NVMLError(self._real.NVML_ERROR_GPU_IS_LOST)
        if what in board.faults.missing:
            raise self._real.NVMLError(self._real.NVML_ERROR_NOT_SUPPORTED)
        if what in board.faults.denied:
            raise self._real.NVMLError(self._real.NVML_ERROR_NO_PERMISSION)
        self._load.refresh()
        return now_s

    def _told(self, board: SimulatedBoard, what: str, tell: Callable[[float], T]) -> T:
        return tell(self._ask(board, what))
