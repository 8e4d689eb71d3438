"""A real Ray cluster of several nodes on this machine, all of whose processes can be found and counted."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

MARK = "PROFILER_TEST_RAYLETS"
# Whatever a driver in this process made of it for a cluster of its own.
AS_RAY_COMES = {"RAY_worker_niceness": "15"}
STORE_BYTES = 80 << 20
# A node that is killed is missed after some 3 s, not 15.
SOON = {"health_check_period_ms": 500, "health_check_failure_threshold": 5, "health_check_timeout_ms": 2500}


class Raylets:
    """``nodes`` are Ray's handles; ``temporary`` is where their processes put temporary files."""

    def __init__(self, cluster, mark: str, temporary: Path) -> None:
        self.cluster = cluster
        self.address = cluster.address
        self.temporary = temporary
        self._mark = mark

    def add(self, **resources):
        """A node; ``cpus``, ``gpus``, ``kind`` of its GPUs, ``env`` of its processes."""
        cluster, env = self.cluster, resources.get("env", {})
        kind = resources.get("kind")
        return cluster.add_node(
            num_cpus=resources.get("cpus", 1),
            num_gpus=resources.get("gpus", 0),
            resources={f"accelerator_type:{kind}": 1} if kind else {},
            object_store_memory=STORE_BYTES,
            env_vars=env | self.env,
        )

    @property
    def env(self) -> dict[str, str]:
        return _environment(self._mark, self.temporary)

    def kill(self, node) -> None:
        self.cluster.remove_node(node, allow_graceful=False)

    def processes(self, *words: str) -> list[psutil.Process]:
        """Those of the nodes, or started by them, whose command line has one of the words."""
        found = []
        for process in psutil.process_iter():
            try:
                command = " ".join(process.cmdline())
                is_one = any(word in command for word in words)
                if is_one and process.environ().get(MARK) == self._mark:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def measuring(self) -> list[psutil.Process]:
        """Seats, load generators, samplers and engines."""
        return self.processes("ray::Holder", "profiler.loadgen", "profiler.telemetry", "profiler/engines",
                              "profiler.engines")  # fmt: skip

    def scratch(self) -> list[Path]:
        return sorted((self.temporary / "profile-sweeps").glob("*/*"))


@contextmanager
def raylets(cpus: int = 1) -> Iterator[Raylets]:
    """A cluster with a head of so many CPUs."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory(prefix="raylets-") as folder:
        mark = os.urandom(6).hex()
        head = {
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
            "_system_config": SOON,
            "env_vars": _environment(mark, Path(folder)),
        }
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            yield (found := Raylets(cluster, mark, Path(folder)))
        finally:
            cluster.shutdown()
        assert until(lambda: not found.processes(""), 20), [each.cmdline() for each in found.processes("")]


def _environment(mark: str, temporary: Path) -> dict[str, str]:
    paths = [str(Path(__file__).parent / "workers"), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, paths))
    return AS_RAY_COMES | {MARK: mark, "TMPDIR": str(temporary), "PYTHONPATH": path}


def until(is_so: Callable[[], bool], patience_s: float) -> bool:
    """Whether it became so in time."""
    end_s = time.monotonic() + patience_s
    while not is_so():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.1)
    return True
