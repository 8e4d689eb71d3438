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

from profiler.procfs import PROC, pss_bytes
from profiler.samples import Sample
from profiler.schema import ProbeStatus
from profiler.telemetry.tree import Tree

PSS_DUTY_FRAC = 0.005


class ProcessProbe:
    """Reads the tree rooted at ``pid``; once that has ended there is nothing more to read."""

    def __init__(self, name: str, pid: int) -> None:
        self._source = f"process:{name}"
        self._tree = Tree(pid)
        self._pss_ns = time.perf_counter_ns() if _has_pss() else None

    def status(self) -> ProbeStatus:
        """Usable while the root process could be found."""
        lacks = self._tree.lacks
        return ProbeStatus(
            probe="process", usable=lacks is None, detail=usual_status().detail if lacks is None else lacks
        )

    def sample(self) -> Iterator[Sample]:
        """One reading of the whole tree; members that end meanwhile drop out of the memory sum."""
        t_ns = time.perf_counter_ns()
        sizes = self._tree.read()
        if not sizes:
            return
        yield Sample(t_ns, self._source, "rss_bytes", sum(sizes))
        yield Sample(t_ns, self._source, "processes", len(sizes))
        yield Sample(t_ns, self._source, "cpu_s", round(sum(self._tree.spent_s.values()), 3))
        if self._pss_ns is not None and t_ns >= self._pss_ns:
            yield from self._pss(t_ns)

    def _pss(self, t_ns: int) -> Iterator[Sample]:
        sizes = [size for pid in self._tree.pids if (size := pss_bytes(pid)) is not None]
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
