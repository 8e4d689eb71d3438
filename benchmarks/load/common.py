"""What every load generator is measured with: a pinned server of known emissions, errors, memory, tables.

with Metronome(steady_law(9_400, 256), core=SERVER_CORE) as server, on_core(CLIENT_CORE):
    ...                            # start the client; it inherits the core
    truth = server.truth()
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from profiler.calibrate import on_cores, steady_law
from profiler.engines.metronome_law import Settings
from profiler.engines.truth import Metronome, Truth

__all__ = [
    "CLIENT_CORE",
    "SERVER_CORE",
    "Metronome",
    "PeakMemory",
    "Settings",
    "Truth",
    "errors",
    "on_core",
    "steady_law",
    "table",
]

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, CLIENT_CORE = CORES[0], CORES[-1]
MEMORY_EVERY_S = 0.1


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """Every process started inside inherits this one core."""
    with on_cores({core}):
        yield


def errors(ttft_s: Sequence[float], gaps_s: Sequence[float], truth: Truth) -> dict[str, float]:
    """What a client saw over what the server did, minus 1 (``_frac``), and the difference (``_s``).

    ``truth`` holds the requests the client's numbers are of: ``server.truth().arrived_in(start, end)``.
    """
    found: dict[str, float] = {}
    for name, seen, true in (("ttft", ttft_s, truth.ttft_s()), ("itl", gaps_s, truth.gaps_s())):
        for what, of in (("mean", np.mean), ("p50", np.median), ("p99", lambda x: np.percentile(x, 99))):
            if len(seen) and len(true):
                found[f"{name}_{what}_error_frac"] = float(of(seen) / of(true) - 1)
                found[f"{name}_{what}_error_s"] = float(of(seen) - of(true))
    late_s = truth.late_s()
    if len(late_s):
        found["server_late_p99_s"] = float(np.percentile(late_s, 99))
    return found


class PeakMemory:
    """Memory (PSS) of a process and its descendants, looked at ten times a second; ``bytes`` is the most they
    had at once, ``seen`` all that was seen: (``perf_counter_ns``, bytes).

    ``with PeakMemory(pid) as peak: …; peak.bytes``
    """

    def __init__(self, pid: int) -> None:
        self.seen: list[tuple[int, int]] = []
        self._root = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def bytes(self) -> int:
        return max((held for _, held in self.seen), default=0)

    def _look(self) -> None:
        while not self._over.wait(MEMORY_EVERY_S):
            with contextlib.suppress(psutil.Error):
                tree = [self._root, *self._root.children(recursive=True)]
                held = sum(each.memory_full_info().pss for each in tree)
                self.seen.append((time.perf_counter_ns(), held))


def table(title: str, rows: Sequence[dict[str, Any]]) -> str:
    """Rows of equal keys as an aligned table; a missing number is n/a."""
    if not rows:
        return f"{title}\n  (none)\n"
    names = list(rows[0])
    cells = [names, *[[_cell(row.get(name)) for name in names] for row in rows]]
    widths = [max(len(line[place]) for line in cells) for place in range(len(names))]
    lines = ["  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in cells]
    return "\n".join([title, *lines]) + "\n"


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "n/a"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
