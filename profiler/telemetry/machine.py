"""CPU time of the machine and of ourselves: what is left is other people's, or the hypervisor's.

As source ``machine``, of the CPUs that we may run on (``sched_getaffinity``), by ``/proc/stat``:
``busy_s``: user, nice and system time (interrupts are nobody's); ``steal_s``: a CPU had work and the
hypervisor ran something else; ``cpus``: how many they are.  ``own_s``: CPU seconds of our own processes, the
tree of our parent and those that are watched.  All but ``cpus`` grow from any beginning.
Kernel documentation: Documentation/filesystems/proc.rst, "Miscellaneous kernel statistics in /proc/stat".
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from profiler.procfs import PROC
from profiler.samples import Sample
from profiler.telemetry.tree import Tree

USER, NICE, SYSTEM, STEAL = 0, 1, 2, 7  # columns of a CPU's line


class MachineProbe:
    """``roots``: process numbers whose trees are ours, as of the time it is called."""

    def __init__(self, roots: Callable[[], Collection[int]], proc: Path = PROC) -> None:
        self._roots = roots
        self._stat = proc / "stat"
        self._known: set[int] = set()
        self._trees: list[Tree] = []

    @property
    def is_usable(self) -> bool:
        """False where the system does not count, or counts nothing, as some sandboxes do."""
        try:
            return sum(each[USER] + each[SYSTEM] for each in self._cpus()) > 0
        except (OSError, ValueError, IndexError):
            return False

    def sample(self) -> Iterator[Sample]:
        t_ns = time.perf_counter_ns()
        cpus = self._cpus()
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        busy_s = sum(each[USER] + each[NICE] + each[SYSTEM] for each in cpus) * tick_s
        yield Sample(t_ns, "machine", "cpus", len(cpus))
        yield Sample(t_ns, "machine", "busy_s", round(busy_s, 2))
        if all(len(each) > STEAL for each in cpus):
            yield Sample(t_ns, "machine", "steal_s", round(sum(each[STEAL] for each in cpus) * tick_s, 2))
        yield Sample(t_ns, "machine", "own_s", round(self._own_s(), 3))

    def _cpus(self) -> list[list[int]]:
        """The counters of each CPU we may use, in ticks."""
        lines = [line.split() for line in self._stat.read_text().splitlines()]
        ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}  # not where there is no /proc
        return [[int(each) for each in words] for name, *words in lines if name in ours]

    def _own_s(self) -> float:
        """A process is counted once in however many of the trees it is, and after its root has left."""
        for pid in set(self._roots()) - self._known:
            self._know(pid)
        spent_s: dict[tuple[int, float], float] = {}
        for tree in self._trees:
            tree.read()
            spent_s |= tree.spent_s
        return sum(spent_s.values())

    def _know(self, pid: int) -> None:
        """A root that descends from another one is in its tree already."""
        self._known.add(pid)
        for tree in self._trees:
            tree.refresh()
        if not any(pid in tree.pids for tree in self._trees):
            self._trees.append(Tree(pid))
