"""A thousand cells of the simulated engine on one local Ray cluster of two raylets: does anything grow?

    .venv/bin/python benchmarks/sweep/thousand.py [cells]

Ten times on the way: processes, open files, threads and memory of the driver, of the actors that hold starts
(with the load generators below them; engines come and go) and of Ray itself, and the files in the nodes'
scratch folders.  Aim: but for the results, the last line is the second.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import psutil

from profiler import store
from profiler.cluster import connect
from profiler.progress import Quiet
from profiler.sweep import session
from profiler.sweep.nouns import Ended, News, Record

NODES, CPUS, STORE_BYTES = 2, 2, 80 << 20
LOADS, LENGTHS = 10, 2
LINES = 10
FILE = """
starts = 1
interleave = []
scenario = "smoke"

[axes]
model = {models}
"workload.input_tokens" = [16, 32]
"load.concurrency" = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]

[set]
engine = {{ kind = "simulated", args = {{ ttft_s = 0.05, itl_s = 0.01 }} }}
workload = {{ output_tokens = 4 }}
measure = {{ warmup_s = 0.1, window_s = 0.3, min_requests = 3 }}
"""


class Group(NamedTuple):
    """Some processes, summed."""

    processes: int
    files: int
    threads: int
    mb: float

    def __str__(self) -> str:
        return f"{self.processes:4d} {self.files:6d} {self.threads:5d} {self.mb:7.0f}"


def group(processes: list[psutil.Process]) -> Group:
    found = []
    for each in processes:
        try:
            with each.oneshot():
                found.append((each.num_fds(), each.num_threads(), each.memory_info().rss / 1e6))
        except psutil.Error:
            continue  # it ended meanwhile
    files, threads, mb = zip(*found, strict=True) if found else ((), (), ())
    return Group(len(found), sum(files), sum(threads), sum(mb))


def groups() -> tuple[Group, Group, Group]:
    """The driver; actors with what they started; Ray's own."""
    actors: list[psutil.Process] = []
    rays: list[psutil.Process] = []
    for each in psutil.Process().children(recursive=True):
        try:
            is_actor = any(up.cmdline()[:1] == ["ray::Holder"] for up in (each, *each.parents()))
        except psutil.Error:
            continue
        (actors if is_actor else rays).append(each)
    return group([psutil.Process()]), group(actors), group(rays)


class Watch:
    """Hears of every start and prints a line now and then."""

    def __init__(self, cells: int, scratch: Path) -> None:
        self.cells, self.scratch = cells, scratch
        self.done = 0
        self.began_s = time.monotonic()
        print(f"{'':>6} {'':>6}  {'driver':^25} {'actors':^25} {'Ray':^25} {'scratch':>7}")
        print(f"{'cells':>6} {'s':>6} " + f"{'proc  files  thr.      MB':>26}" * 3 + f"{'files':>8}")

    def __call__(self, news: News, record: Record) -> None:  # noqa: ARG002
        if not isinstance(news, Ended):
            return
        before = self.done
        self.done += sum(len(each.cells) for each in news.attempts if each.outcome == "held")
        if before * LINES // self.cells < self.done * LINES // self.cells:
            lines = " ".join(f" {each}" for each in groups())
            left = sum(len(files) for _, _, files in os.walk(self.scratch))
            print(f"{self.done:6d} {time.monotonic() - self.began_s:6.0f} {lines} {left:7d}", flush=True)


def main(cells: int) -> None:
    os.environ["RAY_TMPDIR"] = "/tmp"  # names of sockets are short
    connect.load()  # sets what Ray reads when it is imported
    from ray.cluster_utils import Cluster

    common = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": CPUS, **common})
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = folder
        for _ in range(NODES - 1):
            cluster.add_node(num_cpus=CPUS, object_store_memory=STORE_BYTES)
        models = [f"model-{number}" for number in range(max(1, cells // LOADS // LENGTHS))]
        file = Path(folder) / "thousand.toml"
        file.write_text(FILE.format(models=models))
        request = session.Request(file=file, ray=cluster.address, out=f"{folder}/out")
        with session.planned(request) as planned:
            watch = Watch(len(models) * LOADS * LENGTHS, Path(folder) / "profile-sweeps")
            attempts = planned.hold(Quiet(), watch).record.attempts
        # Disturbed ones that were held again are aside.
        runs = [store.load(each.parent).manifest for each in Path(folder, "out").rglob(store.MANIFEST)]
        windows = [window for run in runs for window in run.windows]
        load_s = sum(window.closed_ns - window.opened_ns for window in windows) / 1e9
        engines_s = sum(sum(run.starts_s) for run in runs if run.engine_from is None)
        seconds = time.monotonic() - watch.began_s
        rest_s = (NODES * seconds - load_s - engines_s) / len(windows)
        fates = ", ".join(f"{count} {name}" for name, count in Counter(a.outcome for a in attempts).items())
        print(f"{watch.done} cells, {NODES} nodes, {seconds:.0f} s; starts {fates}")
        print(f"a cell, on its node: load {load_s / len(windows):.2f} s, engine start "
              f"{engines_s / len(windows):.2f} s, the rest {rest_s:.2f} s")  # fmt: skip
    cluster.shutdown()
    print(f"processes left: {len(psutil.Process().children(recursive=True))}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
