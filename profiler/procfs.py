"""What Linux says of the memory of a process: /proc, the kernel's admin-guide/mm/pagemap."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import IO

PROC = Path("/proc")
PAGE_BYTES = 4096


def boot_id() -> str | None:
    """What tells one start of this machine from the next, whatever its calendar says; None where nothing."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def pss_bytes(pid: int | str) -> int | None:
    """Proportional set size of a process (``self``: this one); None when it has ended or may not be read."""
    try:
        text = (PROC / str(pid) / "smaps_rollup").read_text()
    except (OSError, ValueError):
        return None
    line = next((line for line in text.splitlines() if line.startswith("Pss:")), None)
    return int(line.split()[1]) * 1024 if line else None


def resident_bytes(spans: Iterable[tuple[int, int]]) -> int | None:
    """How much of this process's own (address, size) spans lies in memory: a page that was only allocated
    holds nothing until it is written to.  None where the system does not say."""
    try:
        with (PROC / "self" / "pagemap").open("rb", buffering=0) as pages:
            return sum(_resident(pages, address, size) for address, size in spans if size)
    except OSError:
        return None


def _resident(pages: IO[bytes], address: int, size: int) -> int:
    """Bits 63 and 62 of a page's 64-bit entry: present, swapped."""
    first, last = address // PAGE_BYTES, (address + size - 1) // PAGE_BYTES
    pages.seek(first * 8)
    entries = memoryview(pages.read((last - first + 1) * 8)).cast("Q")
    return min(size, sum(entry >> 62 != 0 for entry in entries) * PAGE_BYTES)
