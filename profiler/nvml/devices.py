"""Which boards a name stands for: NVML index, UUID or the beginning of one, MIG device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple


class Device(NamedTuple):
    """A board as NVML lists it; ``slices``: UUID and memory of its MIG devices, empty unless in MIG mode."""

    uuid: str
    name: str = ""
    memory_bytes: int | None = None
    slices: tuple[tuple[str, int | None], ...] = ()


def present(library: Any) -> tuple[Device, ...]:
    """All boards, in NVML's order; the library must have been initialised.  Raises its NVMLError."""
    handles = [library.nvmlDeviceGetHandleByIndex(i) for i in range(library.nvmlDeviceGetCount())]
    return tuple(
        Device(
            library.nvmlDeviceGetUUID(handle),
            library.nvmlDeviceGetName(handle),
            _memory_bytes(library, handle),
            tuple(_slices(library, handle)),
        )
        for handle in handles
    )


def find(boards: Sequence[Device], name: str) -> tuple[str, int | None] | None:
    """UUID of the board that ``name`` stands for, and the memory to be had by that name; None: there is none.

    A MIG device stands for its board, whose energy is all that can be read; its memory is its own.  By its
    index a board in MIG mode gives a CUDA program its first slice.
    """
    if name.isdigit():
        for board in boards[int(name) : int(name) + 1]:
            return board.uuid, board.slices[0][1] if board.slices else board.memory_bytes
        return None
    for board in boards:
        if name and board.uuid.startswith(name):
            return board.uuid, board.memory_bytes
        # Before driver 470 a MIG device was named MIG-<UUID of its board>/<instance>/<instance>.
        if name.startswith(f"MIG-{board.uuid}/"):
            return board.uuid, board.slices[0][1] if board.slices else None
        for uuid, memory_bytes in board.slices:
            if name.startswith("MIG-") and uuid.startswith(name):
                return board.uuid, memory_bytes
    return None


def described(boards: Iterable[Device]) -> str:
    """What there is to choose from: ``0 GPU-… (NVIDIA H100 80GB HBM3)``."""
    return ", ".join(f"{index} {board.uuid} ({board.name})" for index, board in enumerate(boards)) or "none"


def _slices(library: Any, handle: Any) -> Iterator[tuple[str, int | None]]:
    try:
        if library.nvmlDeviceGetMigMode(handle)[0] != library.NVML_DEVICE_MIG_ENABLE:
            return
        most = library.nvmlDeviceGetMaxMigDeviceCount(handle)
    except library.NVMLError:  # no MIG here
        return
    for index in range(most):
        with contextlib.suppress(library.NVMLError):  # there are fewer than there could be
            device = library.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            yield library.nvmlDeviceGetUUID(device), _memory_bytes(library, device)


def _memory_bytes(library: Any, handle: Any) -> int | None:
    """None where the board does not say (memory shared with the CPU, no permission)."""
    try:
        return int(library.nvmlDeviceGetMemoryInfo(handle).total)
    except library.NVMLError:
        return None
