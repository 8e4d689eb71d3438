"""The two ceilings of each device of this machine, measured: memory bandwidth and matrix rate.

The measuring itself is done by a process of its own (:mod:`profiler.ceilings.child`), the only one that needs
torch.  A ceiling is the best round: whatever disturbs a round makes it slower, nothing makes it faster.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from msgspec import Struct

from profiler import nvml
from profiler.errors import InputError, MeasurementError

BANDWIDTHS = ("sum", "dot", "copy", "scale")
COMMAND = (sys.executable, "-m", "profiler.ceilings.child")
TIMEOUT_S = 300.0
BUSY_FRAC = 0.05  # of the cores, or of a board's time, used by others: below it is what any system does


class Rate(Struct, frozen=True, kw_only=True):
    """One rate of one device, round by round: bytes/s of the BANDWIDTHS, else operations/s of a product of
    matrices of that type.  ``name`` and ``uuid`` are a GPU's.  Without a round ``missing`` says why."""

    device: str
    what: str
    size: str
    per_s: list[float]
    name: str = ""
    uuid: str = ""
    missing: str = ""

    @property
    def best_per_s(self) -> float:
        return max(self.per_s)

    @property
    def spread_frac(self) -> float:
        """How far the middle round is below the best."""
        return 1 - median(self.per_s) / self.best_per_s


class Measured(Struct, frozen=True, kw_only=True):
    """All rates, and who else used the machine meanwhile, in words; empty: nobody to speak of."""

    rates: tuple[Rate, ...]
    others: tuple[str, ...] = ()

    def of_gpus(self) -> dict[str, list[Rate]]:
        """By the GPU's name: boards of one name are one kind."""
        found: dict[str, list[Rate]] = {}
        for rate in self.rates:
            if rate.device == "cuda" and rate.per_s:
                found.setdefault(rate.name, []).append(rate)
        return found

    def of_cpu(self) -> list[Rate]:
        return [rate for rate in self.rates if rate.device == "cpu" and rate.per_s]


def best(rates: Iterable[Rate], *kinds: str) -> Rate | None:
    """The fastest of these kinds; None where none of them was measured."""
    return max((r for r in rates if r.what in kinds), key=lambda rate: rate.best_per_s, default=None)


def measure(cores: int) -> Measured:
    """Some 10 s for the CPU and as much a GPU.  Raises InputError without torch, MeasurementError where the
    measuring process fails."""
    if find_spec("torch") is None:
        raise InputError("measuring the ceilings needs torch: pip install 'moe-profiler[transformers]'")
    busy = tuple(_busy_boards())
    before = _cpu_s()
    done = _child(cores)
    rates = tuple(msgspec.json.decode(line, type=Rate) for line in done.splitlines())
    return Measured(rates=rates, others=(*busy, *_busy_cpu(before, _cpu_s(), cores)))


def _child(cores: int) -> bytes:
    command = [*COMMAND, str(cores)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"the ceilings were not measured within {TIMEOUT_S:.0f} s") from None
    if done.returncode:
        *_, last = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit {done.returncode}"]
        raise MeasurementError(f"the ceilings could not be measured: {last}")
    return done.stdout


# ------------------------------------------------------------------------------------- who else


class _Cpu(Struct, frozen=True):
    """Seconds since the machine started: of all cores, busy (or withheld by a hypervisor); of what this
    process started and has ended; of this process itself."""

    all_s: float
    busy_s: float
    ours_s: float


def _cpu_s(stat: Path = Path("/proc/stat")) -> _Cpu | None:
    """None where the system does not count (``/proc/stat``, in clock ticks)."""
    try:
        ticks = [int(word) for word in re.findall(r"\d+", stat.read_text().splitlines()[0])[:8]]
    except (OSError, IndexError):
        return None
    second = os.sysconf("SC_CLK_TCK")
    idle = ticks[3] + ticks[4]
    own = os.times()
    ours_s = own.user + own.system + own.children_user + own.children_system
    return _Cpu(sum(ticks) / second, (sum(ticks) - idle) / second, ours_s)


def _busy_cpu(before: _Cpu | None, after: _Cpu | None, cores: int) -> Iterator[str]:
    if before is None or after is None or not (os.cpu_count() or 0):
        return
    span_s = (after.all_s - before.all_s) / (os.cpu_count() or 1)
    others_s = (after.busy_s - before.busy_s) - (after.ours_s - before.ours_s)
    if span_s > 0 and others_s / span_s > BUSY_FRAC * cores:
        yield f"other programs used {others_s / span_s:.1f} of {os.cpu_count()} cores"


def _busy_boards() -> Iterator[str]:
    """What NVML says before anything of ours is on the boards; nothing where it says nothing."""
    with contextlib.suppress(Exception):  # a missing library, driver or right: it is only a warning less
        library = nvml.load()
        library.nvmlInit()
        try:
            for index in range(library.nvmlDeviceGetCount()):
                yield from _busy_board(library, library.nvmlDeviceGetHandleByIndex(index), index)
        finally:
            library.nvmlShutdown()


def _busy_board(library: Any, handle: Any, index: int) -> Iterator[str]:
    used = library.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    held = len(library.nvmlDeviceGetComputeRunningProcesses_v3(handle))
    if used > BUSY_FRAC or held:
        yield f"GPU {index} was {used:.0%} busy and held {held} process(es) of others"
