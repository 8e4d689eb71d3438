"""Who else uses a board: processes that are not ours, and memory that no process of the list accounts for.

NVML numbers processes as the host does.  In a container those are not the numbers we know, so a process of
the list is somebody else's only where that can be told: once processes of ours were seen in it, or when it
was there before we started any.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

REMEMBER_S = 10.0


class Family:
    """Which process numbers are ours: whatever our parent started, and the trees that are watched.

    ``starts_engine``: the engine is started by our parent, after the first look at the boards.
    """

    def __init__(self, starts_engine: bool = True, parent: int | None = None) -> None:
        self.starts_engine = starts_engine
        self._parent = os.getppid() if parent is None else parent
        self._watched: dict[str, int] = {}
        self._told: dict[int, bool] = {}
        self._forget_s = 0.0

    @property
    def roots(self) -> frozenset[int]:
        """Whose descendants are ours, and they themselves."""
        return frozenset((self._parent, *self._watched.values()))

    @property
    def is_watching(self) -> bool:
        return bool(self._watched)

    def watch(self, name: str, pid: int) -> None:
        self._watched[name] = pid
        self._told.clear()

    def unwatch(self, name: str) -> None:
        self._watched.pop(name, None)
        self._told.clear()

    def has(self, pid: int) -> bool:
        """Whether the process, or one it descends from, is ours; remembered for ``REMEMBER_S``."""
        now_s = time.monotonic()
        if now_s >= self._forget_s:
            self._told.clear()
            self._forget_s = now_s + REMEMBER_S
        if pid not in self._told:
            self._told[pid] = self._descends(pid)
        return self._told[pid]

    def _descends(self, pid: int) -> bool:
        import psutil

        roots = self.roots
        try:
            return pid in roots or any(each.pid in roots for each in psutil.Process(pid).parents())
        except psutil.Error:
            return False


class Tenants:
    """Reads the process lists of one board."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._seen_ours = False
        self._strangers: set[int] | None = None if family.starts_engine else set()

    def read(self, nvml: Any, handle: Any) -> Iterator[tuple[str, float]]:
        """``foreign_processes`` and ``foreign_bytes`` where they can be told, ``unexplained_bytes``."""
        held = _processes(nvml, handle)
        foreign = self._foreign(set(held))
        if foreign is not None:
            yield "foreign_processes", len(foreign)
            if (foreign_bytes := _sum(held, foreign)) is not None:
                yield "foreign_bytes", foreign_bytes
        # A container may hide the list; then all memory is unexplained, and nothing follows from it.
        if held or (self._family.starts_engine and not self._family.is_watching):
            yield from _unexplained(nvml, handle, _sum(held, set(held)))

    def _foreign(self, listed: set[int]) -> set[int] | None:
        """The processes that are certainly not ours; None where there may be others or none."""
        ours = {pid for pid in listed if self._family.has(pid)}
        self._seen_ours |= bool(ours)
        if self._strangers is None:
            self._strangers = listed - ours
        if self._seen_ours:
            return listed - ours
        known = listed & self._strangers
        return known if known or (not listed and not self._family.is_watching) else None


def _unexplained(nvml: Any, handle: Any, listed_bytes: int | None) -> Iterator[tuple[str, float]]:
    memory = _told(nvml, lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2))
    if listed_bytes is not None and memory is not None:
        # What drivers call "used" holds the reserve or not; what is neither free nor reserve is clear.
        yield "unexplained_bytes", memory.total - memory.free - memory.reserved - listed_bytes


def _processes(nvml: Any, handle: Any) -> dict[int, int | None]:
    """Memory by process number, over all lists; one that both computes and draws counts once."""
    held: dict[int, int | None] = {}
    lists = [nvml.nvmlDeviceGetComputeRunningProcesses_v3(handle)]
    for also in ("nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlDeviceGetMPSComputeRunningProcesses_v3"):
        lists.append(_told(nvml, partial(getattr(nvml, also), handle)) or [])
    for process in (each for found in lists for each in found):
        held.setdefault(process.pid, process.usedGpuMemory)
    return held


def _told(nvml: Any, ask: Callable[[], Any]) -> Any | None:
    """None where the board, or the driver, does not offer it."""
    try:
        return ask()
    except nvml.NVMLError as error:
        if error.value == nvml.NVML_ERROR_GPU_IS_LOST:
            raise
        return None


def _sum(held: dict[int, int | None], pids: set[int]) -> int | None:
    """None where the driver does not say it of one of them."""
    sizes = [held[pid] for pid in pids]
    return None if None in sizes else sum(size for size in sizes if size is not None)
