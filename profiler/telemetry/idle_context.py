"""A process that holds a CUDA context on every GPU it sees and does nothing: ``python -m …idle_context``.

Prints ``ready``, or one line that says why there is no context; then waits until its stdin closes.  It
speaks to the driver itself (CUDA Driver API, libcuda), so that it needs no framework and starts at once.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
from typing import Any

from profiler.nvml.load import LOAD_VARIABLE, LoadWriter

READY = "ready"
CUDA_SUCCESS = 0


class _CudaError(Exception):
    """Why there is no context."""


def hold() -> str:
    """Retain the primary context of every visible device; ``ready`` or why not.  Simulated boards are held
    by telling them so."""
    if path := os.environ.get(LOAD_VARIABLE):
        atexit.register(LoadWriter(path).close)
        return READY
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no CUDA driver here (libcuda.so.1 is not found)"
    try:
        _retain(cuda)
    except _CudaError as error:
        return str(error)
    return READY


def _retain(cuda: Any) -> None:
    _check(cuda, cuda.cuInit(0), "cuInit")
    count = ctypes.c_int()
    _check(cuda, cuda.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    if not count.value:
        raise _CudaError("CUDA sees no GPU")
    for ordinal in range(count.value):
        device, context = ctypes.c_int(), ctypes.c_void_p()
        _check(cuda, cuda.cuDeviceGet(ctypes.byref(device), ordinal), "cuDeviceGet")
        _check(cuda, cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), "cuDevicePrimaryCtxRetain")


def _check(cuda: Any, code: int, call: str) -> None:
    if code != CUDA_SUCCESS:
        name = ctypes.c_char_p()
        cuda.cuGetErrorName(code, ctypes.byref(name))
        raise _CudaError(f"{call}: {(name.value or b'error').decode()} ({code})")


def main() -> None:
    sys.stdout.write(hold() + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
