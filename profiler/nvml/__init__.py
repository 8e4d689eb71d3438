"""NVML as the rest of the package sees it: the real library or simulated boards, and which GPU is meant.

``load`` gives the library.  ``PROFILER_SIMULATED_NVML`` puts simulated boards in its place for a process and
all it starts (:mod:`profiler.nvml.wanted` says how they are described), so that whatever is built on energy
can be tried, and tested against a known truth, on a machine without a GPU.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from profiler.nvml.load import LOAD_VARIABLE

__all__ = ["BOARDS_VARIABLE", "LOAD_VARIABLE", "load", "shared_load"]

BOARDS_VARIABLE = "PROFILER_SIMULATED_NVML"


def load() -> Any:
    """pynvml, or the simulated boards that the environment asks for: one and the same in all of a process.

    Raises ImportError, with the mend, where the package is missing; InputError for a description of
    simulated boards that cannot be read.
    """
    if description := os.environ.get(BOARDS_VARIABLE):
        return _simulated(description, os.environ.get(LOAD_VARIABLE))
    try:
        import pynvml
    except ImportError:
        raise ImportError("the package nvidia-ml-py is missing: pip install nvidia-ml-py") from None
    return pynvml


@cache
def _simulated(description: str, load_path: str | None) -> Any:
    from profiler.nvml.wanted import library

    return library(description, load_path)


@contextlib.contextmanager
def shared_load() -> Iterator[None]:
    """Give simulated engines and simulated boards that are started inside a file in common, through which
    the boards learn how busy they are.  Does nothing without simulated boards, or where there is a file."""
    if not os.environ.get(BOARDS_VARIABLE) or LOAD_VARIABLE in os.environ:
        yield
        return
    with _nameless() as path:
        os.environ[LOAD_VARIABLE] = path
        try:
            yield
        finally:
            del os.environ[LOAD_VARIABLE]


@contextlib.contextmanager
def _nameless() -> Iterator[str]:
    """The path of an empty file that is gone with this process, however that ends, where the system can."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("profiler-nvml-load")
        try:
            yield f"/proc/{os.getpid()}/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    import tempfile

    with tempfile.TemporaryDirectory(prefix="profiler-nvml-") as folder:
        yield str(Path(folder) / "load.tsv")
