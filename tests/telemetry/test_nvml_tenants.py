"""Processes of others on a board, where they can be told from ours, and memory nobody accounts for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from profiler.nvml.load import HOLD_S, Load
from profiler.nvml.simulated import SimulatedNvml, VirtualClock
from profiler.telemetry.nvml_tenants import Family, Tenants

from .virtual import board

GIB = 1 << 30


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def child() -> Iterator[int]:
    """A process that is not below the sampler's parent's other children: ours only when watched."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.communicate()


def stranger(starts_engine: bool = True) -> Family:
    """A family that does not take in what this test process starts."""
    return Family(starts_engine, parent=-1)


def reading(
    tmp_path: Path, clock: VirtualClock, holder: int | None = None, **faults: object
) -> tuple[SimulatedNvml, object]:
    load = Load(tmp_path / "load")
    library = SimulatedNvml([board(**faults)], clock, load)  # type: ignore[arg-type]
    library.nvmlInit()
    if holder is not None:
        hold(tmp_path, clock, holder)
    return library, library.boards[0]


def hold(tmp_path: Path, clock: VirtualClock, pid: int) -> None:
    with (tmp_path / "load").open("ab") as file:
        file.write(b"%d\t%d\t0.5\n" % (clock.perf_counter_ns(), pid))


def test_ours_are_not_foreign(tmp_path: Path, clock: VirtualClock, child: int) -> None:
    library, handle = reading(tmp_path, clock, child, foreign=2)
    family = stranger()
    family.watch("engine", child)
    assert dict(Tenants(family).read(library, handle)) == {
        "foreign_processes": 2,
        "foreign_bytes": 8 * GIB,
        "unexplained_bytes": 0,
    }


def test_what_our_parent_starts_is_ours_before_it_is_watched(
    tmp_path: Path, clock: VirtualClock, child: int
) -> None:
    library, handle = reading(tmp_path, clock, child)
    family = Family(parent=os.getpid())
    assert dict(Tenants(family).read(library, handle))["foreign_processes"] == 0
    assert family.has(child)
    assert not family.has(1 << 30)


def test_descendants_of_a_watched_process_are_ours(child: int) -> None:
    family = stranger()
    assert not family.has(child)
    family.watch("engine", os.getpid())
    assert family.has(child)


def test_without_anyone_there_is_nobody_foreign(tmp_path: Path, clock: VirtualClock) -> None:
    library, handle = reading(tmp_path, clock)
    found = dict(Tenants(stranger()).read(library, handle))
    assert found == {"foreign_processes": 0, "foreign_bytes": 0, "unexplained_bytes": 0}


def test_in_a_container_a_newcomer_may_be_ours(tmp_path: Path, clock: VirtualClock, child: int) -> None:
    """Its number is another namespace's: nobody can say whose it is."""
    library, handle = reading(tmp_path, clock, elsewhere=True)
    family = stranger()
    tenants = Tenants(family)
    assert dict(tenants.read(library, handle))["foreign_processes"] == 0
    hold(tmp_path, clock, child)
    assert dict(tenants.read(library, handle)) == {"unexplained_bytes": 0}
    family.watch("engine", child)
    assert dict(tenants.read(library, handle)) == {"unexplained_bytes": 0}


def test_in_a_container_those_that_were_there_before_us_are_foreign(
    tmp_path: Path, clock: VirtualClock, child: int
) -> None:
    library, handle = reading(tmp_path, clock, elsewhere=True, foreign=1)
    family = stranger()
    tenants = Tenants(family)
    assert dict(tenants.read(library, handle))["foreign_processes"] == 1
    family.watch("engine", child)
    hold(tmp_path, clock, child)
    found = dict(tenants.read(library, handle))
    assert (found["foreign_processes"], found["foreign_bytes"]) == (1, 4 * GIB)


def test_an_engine_that_was_up_before_us_is_not_called_foreign(
    tmp_path: Path, clock: VirtualClock, child: int
) -> None:
    library, handle = reading(tmp_path, clock, child)
    assert "foreign_processes" not in dict(Tenants(stranger(starts_engine=False)).read(library, handle))
    empty, handle = reading(tmp_path / "none", clock)
    assert dict(Tenants(stranger(starts_engine=False)).read(empty, handle)) == {
        "foreign_processes": 0,
        "foreign_bytes": 0,
    }


def test_a_hidden_list_says_nothing_of_memory(tmp_path: Path, clock: VirtualClock, child: int) -> None:
    library, handle = reading(tmp_path, clock, unexplained_bytes=30 * GIB)
    family = stranger()
    assert dict(Tenants(family).read(library, handle))["unexplained_bytes"] == 30 * GIB
    family.watch("engine", child)
    assert dict(Tenants(family).read(library, handle)) == {}


def test_memory_that_no_process_holds(tmp_path: Path, clock: VirtualClock, child: int) -> None:
    library, handle = reading(tmp_path, clock, child, unexplained_bytes=3 * GIB, foreign=1)
    family = stranger()
    family.watch("engine", child)
    assert dict(Tenants(family).read(library, handle))["unexplained_bytes"] == 3 * GIB


def test_either_way_of_counting_the_reserve_gives_the_same(
    tmp_path: Path, clock: VirtualClock, child: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, handle = reading(tmp_path, clock, child, unexplained_bytes=3 * GIB)
    real = library.nvmlDeviceGetMemoryInfo

    def reserve_in_used(handle: object, version: int) -> object:
        memory = real(handle, version)  # type: ignore[arg-type]
        memory.used += memory.reserved
        return memory

    monkeypatch.setattr(library, "nvmlDeviceGetMemoryInfo", reserve_in_used)
    assert dict(Tenants(stranger()).read(library, handle))["unexplained_bytes"] == 3 * GIB


def test_a_driver_that_hides_sizes(tmp_path: Path, clock: VirtualClock, child: int) -> None:
    library, handle = reading(tmp_path, clock, child, foreign=1)
    listed = library.nvmlDeviceGetComputeRunningProcesses_v3(library.boards[0])
    for process in listed:
        process.usedGpuMemory = None
    library.nvmlDeviceGetComputeRunningProcesses_v3 = lambda _: listed  # type: ignore[method-assign]
    family = stranger()
    family.watch("engine", child)
    assert dict(Tenants(family).read(library, handle)) == {"foreign_processes": 1}


def test_a_process_in_two_lists_counts_once(tmp_path: Path, clock: VirtualClock, child: int) -> None:
    library, handle = reading(tmp_path, clock, child, foreign=1)
    library.nvmlDeviceGetGraphicsRunningProcesses_v3 = library.nvmlDeviceGetComputeRunningProcesses_v3  # type: ignore[method-assign]
    family = stranger()
    family.watch("engine", child)
    found = dict(Tenants(family).read(library, handle))
    assert (found["foreign_processes"], found["unexplained_bytes"]) == (1, 0)


def test_lists_that_are_not_offered_are_passed_over_but_not_the_compute_list(
    tmp_path: Path, clock: VirtualClock
) -> None:
    library, handle = reading(tmp_path, clock, foreign=1)

    def refuse(_: object) -> list[object]:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    library.nvmlDeviceGetMPSComputeRunningProcesses_v3 = refuse  # type: ignore[method-assign]
    assert dict(Tenants(stranger()).read(library, handle))["foreign_processes"] == 1
    library.nvmlDeviceGetComputeRunningProcesses_v3 = refuse  # type: ignore[method-assign]
    with pytest.raises(pynvml.NVMLError_NotSupported):
        dict(Tenants(stranger()).read(library, handle))


def test_an_engine_that_was_killed_holds_nothing(tmp_path: Path, clock: VirtualClock, child: int) -> None:
    library, handle = reading(tmp_path, clock, child)
    assert dict(Tenants(stranger()).read(library, handle))["foreign_processes"] == 1
    clock.now_s += HOLD_S + 0.01
    assert dict(Tenants(stranger()).read(library, handle))["foreign_processes"] == 0
