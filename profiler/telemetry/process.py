"""Memory and CPU time of a process and all its descendants.

``rss_bytes``: resident memory summed over the tree.  It counts a page once per process that maps it, so
the shared libraries and copy-on-write pages of forked workers are counted several times: an upper bound.
``pss_bytes``: proportional set size summed over the tree (``/proc/PID/smaps_rollup``): each shared page
is divided among its users, so the sum is true.  The kernel walks every page for it, 11 ms per GiB of
4 KiB pages, holding the engine's memory map; so it is read only as often as keeps it below
``PSS_DUTY_FRAC`` of one core.  ``rss_bytes`` is stamped with the same time, and a reader gets the tree's
true peak from RSS less the excess (RSS − PSS) last seen.
``cpu_s``: CPU seconds of every process ever seen in the tree, each counted from its own start; it only
grows, since members that end are not forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from profiler.procfs import PROC, pss_bytes
from profiler.samples import Sample
from profiler.schema import ProbeStatus

if TYPE_CHECKING:
    import psutil

TREE_REFRESH_S = 2.0  # finding descendants reads the parent of every process of the machine
PSS_DUTY_FRAC = 0.005


class ProcessProbe:
    """Reads the tree rooted at ``pid``; once that has ended there is nothing more to read."""

    def __init__(self, name: str, pid: int) -> None:
        import psutil

        self._source = f"process:{name}"
        self._root: psutil.Process | None = None
        self._tree: list[psutil.Process] = []
        self._cpu_s: dict[tuple[int, float], float] = {}
        self._refresh_ns = 0
        self._pss_ns = time.perf_counter_ns() if _has_pss() else None
        try:
            self._root = psutil.Process(pid)
        except psutil.Error as error:
            self._detail = f"process {pid} cannot be read ({error})"
        else:
            self._detail = usual_status().detail

    def status(self) -> ProbeStatus:
        """Usable while the root process could be found."""
        return ProbeStatus(probe="process", usable=self._root is not None, detail=self._detail)

    def sample(self) -> Iterator[Sample]:
        """One reading of the whole tree; members that end meanwhile drop out of the memory sum."""
        t_ns = time.perf_counter_ns()
        if t_ns >= self._refresh_ns:
            self._refresh()
            self._refresh_ns = t_ns + int(TREE_REFRESH_S * 1e9)
        sizes = [rss for process in self._tree if (rss := self._read(process)) is not None]
        if not sizes:
            return
        yield Sample(t_ns, self._source, "rss_bytes", sum(sizes))
        yield Sample(t_ns, self._source, "processes", len(sizes))
        yield Sample(t_ns, self._source, "cpu_s", round(sum(self._cpu_s.values()), 3))
        if self._pss_ns is not None and t_ns >= self._pss_ns:
            yield from self._pss(t_ns)

    def _refresh(self) -> None:
        import psutil

        if self._root is None:
            return
        try:
            self._tree = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            self._tree = [process for process in self._tree if process.is_running()]

    def _read(self, process: psutil.Process) -> int | None:
        import psutil

        try:
            with process.oneshot():
                spent = process.cpu_times()
                resident = int(process.memory_info().rss)
        except psutil.Error:
            return None
        self._cpu_s[process.pid, process.create_time()] = spent.user + spent.system
        return resident or None  # a zombie holds no memory

    def _pss(self, t_ns: int) -> Iterator[Sample]:
        sizes = [size for process in self._tree if (size := pss_bytes(process.pid)) is not None]
        spent_ns = time.perf_counter_ns() - t_ns
        self._pss_ns = t_ns + int(spent_ns / PSS_DUTY_FRAC)
        if sizes:
            yield Sample(t_ns, self._source, "pss_bytes", sum(sizes))


def usual_status() -> ProbeStatus:
    """Of a probe whose process is there; costs no import of psutil."""
    exact = "PSS" if _has_pss() else "RSS only: shared pages count once per process"
    return ProbeStatus(
        probe="process", usable=True, detail=f"memory ({exact}) and CPU time of the watched process trees"
    )


def _has_pss() -> bool:
    return (PROC / "self" / "smaps_rollup").exists()
