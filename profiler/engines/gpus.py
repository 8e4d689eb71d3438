"""Which NVIDIA GPUs an engine started here would use, by UUID, without creating a CUDA context."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence

from profiler import nvml
from profiler.errors import InputError
from profiler.nvml.devices import Device, described, find, present

Gpus = tuple[tuple[str, int | None], ...]


def visible_gpus(env: Mapping[str, str] | None = None) -> Gpus:
    """(UUID, memory in bytes) of the GPUs a CUDA program sees, in its order; empty without NVIDIA driver.

    ``env`` adds to the environment of this process.  ``CUDA_VISIBLE_DEVICES`` may hold indices, UUIDs,
    UUID prefixes or MIG devices and, as in CUDA, ends at the first entry that names no GPU.  Indices are
    NVML's, which is CUDA's order under ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` and wherever all GPUs are alike.
    A MIG device appears as the board it is part of, with the memory that is its own.
    """
    boards, _ = _present()
    chosen = {**os.environ, **(env or {})}.get("CUDA_VISIBLE_DEVICES")
    names = [str(index) for index in range(len(boards))] if chosen is None else chosen.split(",")
    gpus: dict[str, int | None] = {}
    for name in names:
        gpu = find(boards, name.strip())
        if gpu is None:
            break
        gpus.setdefault(*gpu)
    return tuple(gpus.items())


def chosen_gpus(devices: Sequence[int | str], env: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """UUIDs of the GPUs to read: those that ``devices`` name, by index, UUID or the beginning of one, else
    those that a CUDA program sees.  Raises InputError for a name that stands for none."""
    if not devices:
        return tuple(uuid for uuid, _ in visible_gpus(env))
    boards, trouble = _present()
    found: dict[str, None] = {}
    for name in map(str, devices):
        gpu = find(boards, name.strip())
        if gpu is None:
            here = trouble or f"here are {described(boards)}"
            raise InputError(f"--devices {name}: no such GPU; {here}")
        found[gpu[0]] = None
    return tuple(found)


def _present() -> tuple[tuple[Device, ...], str | None]:
    """The boards NVML sees, and why there are none to see."""
    try:
        library = nvml.load()
    except ImportError as error:
        return (), str(error)
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        return (), f"NVML does not start ({error})"
    try:
        return present(library), None
    except library.NVMLError as error:
        return (), f"NVML does not list its GPUs ({error})"
    finally:
        with contextlib.suppress(library.NVMLError):
            library.nvmlShutdown()
