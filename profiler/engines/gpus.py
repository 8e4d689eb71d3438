"""Which NVIDIA GPUs an engine started here would use, by UUID, without creating a CUDA context."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping


def visible_gpus(env: Mapping[str, str] | None = None) -> tuple[tuple[str, int | None], ...]:
    """(UUID, memory in bytes) of the GPUs a CUDA program sees, in its order; empty without NVIDIA driver.

    ``env`` adds to the environment of this process.  ``CUDA_VISIBLE_DEVICES`` may hold indices, UUIDs
    or UUID prefixes and, as in CUDA, ends at the first entry that names no GPU.  Indices are NVML's,
    which is CUDA's order under ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` and wherever all GPUs are alike.
    """
    present = _present()
    chosen = {**os.environ, **(env or {})}.get("CUDA_VISIBLE_DEVICES")
    return present if chosen is None else _chosen(present, chosen)


def _chosen(present: tuple[tuple[str, int | None], ...], names: str) -> tuple[tuple[str, int | None], ...]:
    found: list[tuple[str, int | None]] = []
    for name in (part.strip() for part in names.split(",")):
        if name.isdigit():
            match = present[int(name) : int(name) + 1]
        else:
            match = tuple(gpu for gpu in present if name and gpu[0].startswith(name))[:1]
        if not match:
            break
        found += match
    return tuple(found)


def _present() -> tuple[tuple[str, int | None], ...]:
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(_describe(index) for index in range(pynvml.nvmlDeviceGetCount()))
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _describe(index: int) -> tuple[str, int | None]:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    uuid = pynvml.nvmlDeviceGetUUID(handle)
    memory_bytes: int | None = None
    with contextlib.suppress(pynvml.NVMLError):
        memory_bytes = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    return (uuid.decode() if isinstance(uuid, bytes) else str(uuid)), memory_bytes
