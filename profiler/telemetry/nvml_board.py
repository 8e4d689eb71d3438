"""A board that is read: its handle, and what it turned out not to tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from profiler.samples import Sample
from profiler.telemetry.nvml_readings import Reading


@dataclass
class Board:
    """``untold``: readings that it does not offer or that we may not have, which are not asked for again."""

    uuid: str
    handle: Any
    untold: set[str] = field(default_factory=set)
    is_lost: bool = False

    @property
    def source(self) -> str:
        return f"gpu:{self.uuid}"

    def read(self, nvml: Any, label: str, reading: Reading, t_ns: int) -> Iterator[Sample]:
        """The samples of one reading; none where it is not to be had.  Raises NVMLError for any other
        failure, which may pass."""
        if label in self.untold:
            return
        try:
            values = list(reading(nvml, self.handle))
        except AttributeError as error:
            if error.obj is not nvml:
                raise
            self.untold.add(label)  # an older nvidia-ml-py
            return
        except nvml.NVMLError as error:
            if error.value not in _for_good(nvml):
                raise
            self.untold.add(label)
            return
        for name, value in values:
            yield Sample(t_ns, self.source, name, value)

    def note(self, nvml: Any, error: Any, t_ns: int) -> Iterator[Sample]:
        """``lost`` = 1, once, if that is what the error means."""
        if error.value == nvml.NVML_ERROR_GPU_IS_LOST and not self.is_lost:
            self.is_lost = True
            yield Sample(t_ns, self.source, "lost", 1)


def _for_good(nvml: Any) -> tuple[int, ...]:
    return nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND, nvml.NVML_ERROR_NO_PERMISSION
