"""A simulated NVML library: boards with a known power curve, read through pynvml's own names.

Stands in at the library boundary; the structures, error classes and constants are the real ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml


@dataclass
class Board:
    """``energy_j(t)`` is the true energy at time t (s); the counter shows it as of its last update."""

    uuid: str
    energy_j: Callable[[float], float]
    power_w: Callable[[float], float]
    period_s: float = 0.1
    name: str = "Simulated H200"
    unsupported: set[str] = field(default_factory=set)
    lost: bool = False


class Clock:
    """Stands in for the ``time`` module: stands still until moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def perf_counter_ns(self) -> int:
        return round(self.now_s * 1e9)


class SimulatedNvml:
    """The part of pynvml that the product uses."""

    def __init__(self, boards: list[Board], clock: Any = time) -> None:
        self.boards = boards
        self._clock = clock
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:  # constants and error classes
        if name.startswith("nvmlDevice"):
            raise AttributeError(name)
        return getattr(pynvml, name)

    def nvmlInit(self) -> None:
        self.calls.append("init")

    def nvmlShutdown(self) -> None:
        self.calls.append("shutdown")

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.65.06"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Board:
        return self.boards[index]

    def nvmlDeviceGetUUID(self, board: Board) -> str:
        return board.uuid

    def nvmlDeviceGetName(self, board: Board) -> str:
        return board.name

    def nvmlDeviceGetFieldValues(self, board: Board, asked: list[tuple[int, int]]) -> Any:
        if board.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        now_s = self._clock.perf_counter_ns() / 1e9
        values = (pynvml.c_nvmlFieldValue_t * len(asked))()
        for value, (identity, scope) in zip(values, asked, strict=True):
            value.fieldId, value.scopeId = identity, scope
            name = {83: "energy", 186: "power"}[identity]
            if name in board.unsupported:
                value.nvmlReturn = pynvml.NVML_ERROR_NOT_SUPPORTED
                continue
            if name == "energy":
                ticked_s = int(now_s / board.period_s + 1e-6) * board.period_s
                value.valueType, value.value.ullVal = (
                    pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG,
                    int(board.energy_j(ticked_s) * 1000),
                )
                value.timestamp = int(ticked_s * 1e6)
            else:
                value.valueType, value.value.uiVal = (
                    pynvml.NVML_VALUE_TYPE_UNSIGNED_INT,
                    int(board.power_w(now_s) * 1000),
                )
        return values

    def nvmlDeviceGetClockInfo(self, board: Board, kind: int) -> int:
        return self._or_unsupported(board, "clocks", {1: 1980, 2: 3201}[kind])

    def nvmlDeviceGetTemperature(self, board: Board, sensor: int) -> int:
        return self._or_unsupported(board, "temperature", 61)

    def nvmlDeviceGetUtilizationRates(self, board: Board) -> Any:
        return self._or_unsupported(board, "utilisation", SimpleNamespace(gpu=97, memory=45))

    def nvmlDeviceGetMemoryInfo(self, board: Board, version: int | None = None) -> Any:
        sizes = SimpleNamespace(total=141 << 30, used=120 << 30, reserved=1 << 30, free=21 << 30)
        return self._or_unsupported(board, "memory", sizes)

    def nvmlDeviceGetCurrentClocksEventReasons(self, board: Board) -> int:
        return self._or_unsupported(board, "reasons", 0x4)

    def nvmlDeviceGetEnforcedPowerLimit(self, board: Board) -> int:
        return self._or_unsupported(board, "limit", 700_000)

    def nvmlDeviceGetMigMode(self, board: Board) -> list[int]:
        if "mig" not in board.unsupported:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [1, 1]

    def _or_unsupported(self, board: Board, what: str, value: Any) -> Any:
        self.calls.append(what)
        if what in board.unsupported:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return value


def constant(uuid: str, watts: float, **rest: Any) -> Board:
    """A board that draws ``watts`` always."""
    return Board(uuid, lambda t: watts * t, lambda t: watts, **rest)


def modulated(uuid: str, mean_w: float, depth: float, hz: float) -> Board:
    """Square-wave power: mean·(1 ± depth), ``hz`` times a second; its energy in closed form."""

    def power_w(t: float) -> float:
        return mean_w * (1 + (depth if (t * hz) % 1 < 0.5 else -depth))

    def energy_j(t: float) -> float:
        phase = (t * hz) % 1
        return mean_w * (t + depth * min(phase, 1 - phase) / hz)

    return Board(uuid, energy_j, power_w)
