"""A process and all its descendants: what they hold now, and the CPU time of all that were ever seen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

REFRESH_S = 2.0  # finding descendants reads the parent of every process of the machine


class Tree:
    """Rooted at ``pid``; empty once that has ended.

    ``spent_s``: CPU seconds by process number and start, each counted from its own start; members that end
    are not forgotten.
    """

    def __init__(self, pid: int) -> None:
        import psutil

        self._root: psutil.Process | None = None
        self._members: list[psutil.Process] = []
        self._refresh_ns = 0
        self.spent_s: dict[tuple[int, float], float] = {}
        self.lacks: str | None = None
        try:
            self._root = psutil.Process(pid)
        except psutil.Error as error:
            self.lacks = f"process {pid} cannot be read ({error})"

    @property
    def pids(self) -> list[int]:
        return [each.pid for each in self._members]

    def read(self) -> list[int]:
        """Resident bytes of each member that holds any; ``spent_s`` is renewed."""
        if time.perf_counter_ns() >= self._refresh_ns:
            self.refresh()
        return [held for each in self._members if (held := self._read(each)) is not None]

    def refresh(self) -> None:
        """Find the members now; ``read`` does so every ``REFRESH_S``."""
        import psutil

        self._refresh_ns = time.perf_counter_ns() + int(REFRESH_S * 1e9)
        if self._root is None:
            return
        try:
            self._members = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            self._members = [each for each in self._members if each.is_running()]

    def _read(self, process: psutil.Process) -> int | None:
        import psutil

        try:
            with process.oneshot():
                spent = process.cpu_times()
                resident = int(process.memory_info().rss)
        except psutil.Error:
            return None
        self.spent_s[process.pid, process.create_time()] = spent.user + spent.system
        return resident or None  # a zombie holds no memory
