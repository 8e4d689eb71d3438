"""A simulated powercap tree: packages, DRAM where there is any, and zones that must not be counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

RANGE_UJ = 65_712_999_613
STEP_S = 0.01


def zone(root: Path, folder: str, name: str, energy_uj: int = 1_000_000) -> Path:
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    return path


@contextmanager
def drawing(zones: Mapping[Path, float], offset_uj: int = 0) -> Iterator[None]:
    """Let the counters run, each at its power in W, from ``offset_uj`` on; they wrap as real ones do."""
    stopped = threading.Event()
    start_s = time.perf_counter()

    def run() -> None:
        while not stopped.wait(STEP_S):
            for folder, watts in zones.items():
                spent_uj = round(watts * (time.perf_counter() - start_s) * 1e6)
                (folder / "new").write_text(f"{(offset_uj + spent_uj) % RANGE_UJ}\n")
                (folder / "new").rename(folder / "energy_uj")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
