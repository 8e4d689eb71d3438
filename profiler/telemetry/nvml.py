"""What NVML says of each GPU: energy counter, power, clocks, temperature, utilisation, memory, tenants.

==============================  ===============================================================
every 0.1 s                     power_w (field 186: instantaneous board power), power_ts_us (the
                                driver's own time for it, µs since 1970)
every 0.5 s                     sm_clock_mhz, memory_clock_mhz, temperature_c,
                                utilisation_gpu_pct, utilisation_memory_pct, memory_used_bytes,
                                memory_reserved_bytes, memory_free_bytes, clocks_event_reasons
                                (bit mask: 0x4 software power cap, 0x8 hardware slowdown, 0x20
                                software thermal, 0x40 hardware thermal, 0x80 power brake; nvml.h)
every 1 s                       foreign_processes, foreign_bytes, unexplained_bytes (``nvml_tenants``)
once                            power_limit_w, power_limit_default_w, ecc_enabled, pcie_generation,
                                pcie_width, mig_enabled, persistence_mode, architecture
                                (nvmlDeviceArchitecture_t)
when it changes                 energy_mj and what goes with it (``nvml_energy``)
when it happens                 lost = 1: the GPU has fallen off the bus
==============================  ===============================================================

A reading the board does not offer is absent, never 0.  One that fails stops no other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from profiler import nvml as libraries
from profiler.nvml.devices import described, find, present
from profiler.samples import Sample
from profiler.schema import ProbeStatus
from profiler.telemetry.nvml_board import Board
from profiler.telemetry.nvml_energy import EnergyTicks
from profiler.telemetry.nvml_readings import FIXED, POWER_INSTANT, SLOW, TOTAL_ENERGY, Reading, fields, power
from profiler.telemetry.nvml_tenants import Family, Tenants

SLOW_EVERY, TENANTS_EVERY = 5, 10


class NvmlProbe:
    """Reads GPUs by UUID (None: all that NVML sees), MIG devices as the board they are part of.

    ``ticks`` reads their energy counters, at a pace of its own.  ``library`` stands in for what
    ``profiler.nvml.load`` gives, ``clock`` for ``time``.
    """

    def __init__(
        self,
        gpus: tuple[str, ...] | None = None,
        library: Any = None,
        clock: Any = time,
        family: Family | None = None,
    ) -> None:
        self._clock = clock
        self._nvml = library
        self._boards: list[Board] = []
        self._tick = 0
        self._status = self._open(gpus)
        family = family or Family()
        self._tenants: list[Reading] = [Tenants(family).read for _ in self._boards]
        with_counter = [board for board in self._boards if "energy" not in board.untold]
        self.ticks = EnergyTicks(self._nvml, with_counter, clock)

    def status(self) -> ProbeStatus:
        """Whether GPUs can be read, which of their readings are missing, or what would mend it."""
        return self._status

    def sample(self) -> Iterator[Sample]:
        """One tick: the power of all GPUs first.  Raises NVMLError at the end if a reading failed that is
        there otherwise; all that succeeded has been yielded by then."""
        failed: Exception | None = None
        for board, label, reading in self._due():
            t_ns = self._clock.perf_counter_ns()
            try:
                yield from board.read(self._nvml, label, reading, t_ns)
            except self._nvml.NVMLError as error:
                failed = error
                yield from board.note(self._nvml, error, t_ns)
        self._tick += 1
        if failed is not None:
            raise failed

    def _due(self) -> Iterator[tuple[Board, str, Reading]]:
        yield from ((board, "power", power) for board in self._boards)
        for board, tenants in zip(self._boards, self._tenants, strict=True):
            due = FIXED if self._tick == 0 else {}
            due = due | (SLOW if self._tick % SLOW_EVERY == 0 else {})
            due = due | ({"processes": tenants} if self._tick % TENANTS_EVERY == 0 else {})
            yield from ((board, label, reading) for label, reading in due.items())

    def _open(self, gpus: tuple[str, ...] | None) -> ProbeStatus:
        if gpus == ():
            return _unusable("the engine uses no GPU")
        try:
            self._nvml = self._nvml or libraries.load()
        except ImportError as error:
            return _unusable(str(error))
        try:
            self._nvml.nvmlInit()
            driver = self._nvml.nvmlSystemGetDriverVersion()
            visible = present(self._nvml)
        except self._nvml.NVMLError as error:
            return _unusable(f"NVML does not start ({error}): {_mend(self._nvml, error)}")
        wanted = [board.uuid for board in visible] if gpus is None else gpus
        found = [gpu and gpu[0] for gpu in (find(visible, name) for name in wanted)]
        for name, uuid in zip(wanted, found, strict=True):
            if uuid is None:
                return _unusable(f"GPU {name}: not seen by NVML; visible: {described(visible)}")
        if not found:
            return _unusable(f"driver {driver} sees no GPU: check nvidia-smi and the container's device list")
        lacking: list[str] = []
        for uuid in dict.fromkeys(uuid for uuid in found if uuid):
            board = Board(uuid, self._nvml.nvmlDeviceGetHandleByUUID(uuid))
            lacking += [f"{uuid} {what}" for what in self._lacks(board)]
            self._boards.append(board)
        shared = [
            f"{board.uuid} is in MIG mode: its power is the whole board's"
            for board in visible
            if board.slices and board.uuid in found
        ]
        kind = "simulated GPU" if getattr(self._nvml, "simulated", False) else "GPU"
        count = f"{len(self._boards)} {kind}{'s' if len(self._boards) > 1 else ''}, driver {driver}"
        usable = any({"energy", "power"} - board.untold for board in self._boards)
        return ProbeStatus(probe="nvml", usable=usable, detail="; ".join([count, *lacking, *shared]))

    def _lacks(self, board: Board) -> Iterator[str]:
        """Which of energy and power a board does not tell; the others are found out as they are read."""
        try:
            found = fields(self._nvml, board.handle, TOTAL_ENERGY, POWER_INSTANT)
        except self._nvml.NVMLError as error:
            board.untold |= {"energy", "power"}
            yield f"cannot be read ({error})"
            return
        for label, name, (value, _) in zip(("energy", "power"), ("energy_mj", "power_w"), found, strict=True):
            if value is None:
                board.untold.add(label)
                yield f"has no {name}"


def _mend(nvml: Any, error: Any) -> str:
    """What to do about a library that does not start."""
    advice: dict[int, str] = {
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "the driver was updated while the old one is still loaded; "
        "restart the machine, or reload the nvidia kernel modules",
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: "load the nvidia kernel module (nvidia-smi must work)",
        nvml.NVML_ERROR_NO_PERMISSION: "/dev/nvidia* may not be opened; give this user or container the GPU",
    }
    return advice.get(error.value, "needs an NVIDIA GPU, its driver and libnvidia-ml")


def _unusable(detail: str) -> ProbeStatus:
    return ProbeStatus(probe="nvml", usable=False, detail=detail)
