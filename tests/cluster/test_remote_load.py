"""A load that several machines send, on real raylets; the clock of one of them is five seconds ahead."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest

from profiler.cluster import remote_load
from profiler.engines.base import EVERYWHERE
from profiler.engines.simulated import command, law, parse
from profiler.errors import InputError, LoadError
from profiler.loadgen.worker import LoadWorker
from profiler.records import read_records
from profiler.schema import Endpoint
from profiler.settings import Load
from tests.cluster.raylets import AS_RAY_COMES, SOON
from tests.loadgen.conftest import job  # noqa: F401
from tests.loadgen.test_worker import ignore

pytestmark = pytest.mark.timing
pytest.importorskip("ray")

AHEAD_S = 5
ARGS = {"ttft_s": 0.1, "itl_s": 0.02}
OTHER_TIME = ("unshare", "--time", "--monotonic", str(AHEAD_S), "--fork")


def may_have_other_time() -> bool:
    try:
        return subprocess.run([*OTHER_TIME, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def end(process):
    for each in [*psutil.Process(process.pid).children(recursive=True), process]:
        each.kill()
    process.wait()


@pytest.fixture(scope="module")
def join_machine():
    """A cluster of this machine; ``join_machine()`` adds one whose clock is ahead, and gives its process."""
    from ray.cluster_utils import Cluster

    if not may_have_other_time():
        pytest.skip("no namespace with a clock of its own is to be had here")
    small = {"num_cpus": 1, "object_store_memory": 80 << 20}
    head = {**small, "include_dashboard": False, "_system_config": SOON}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    before, os.environ["RAY_ADDRESS"] = os.environ.get("RAY_ADDRESS"), cluster.address
    started = []

    def join():
        ray = [str(Path(sys.executable).with_name("ray")), "start", "--address", cluster.address, "--block"]
        more = ["--num-cpus", "2", "--object-store-memory", str(80 << 20)]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        env = os.environ | AS_RAY_COMES
        started.append(subprocess.Popen([*OTHER_TIME, *ray, *more], env=env, **quiet))
        for _ in range(150):
            time.sleep(0.2)
            try:
                remote_load.check(2)
            except InputError:
                continue
            return started[-1]
        raise AssertionError("the second machine did not come")

    yield join
    for process in started:
        if process.poll() is None:
            end(process)
    cluster.shutdown()
    os.environ.pop("RAY_ADDRESS")
    if before is not None:
        os.environ["RAY_ADDRESS"] = before


@pytest.fixture(scope="module")
def machine(join_machine):
    return join_machine()


@pytest.fixture(scope="module")
def endpoint():
    server = subprocess.Popen(command(ARGS, host=EVERYWHERE), stdout=subprocess.PIPE, text=True)
    port = int(server.stdout.readline().split()[1])
    yield Endpoint(base_url=f"http://127.0.0.1:{port}/v1", model="simulated", vocab_size=32_000)
    server.kill()
    server.wait()
    server.stdout.close()


@pytest.fixture(scope="module")
def pair(machine):
    with LoadWorker() as worker:
        remote_load.join(worker, 2)
        yield worker
    assert worker.others is None


TWO = {"machines": 2}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root")


def run(worker, plan):
    window = worker.run(plan, ignore, ignore)
    assert window.trouble is None
    assert [path.name for path in Path(plan.records_path).parent.iterdir()] == [Path(plan.records_path).name]
    records = read_records(plan.records_path)
    indices = [record.index for record in records]
    assert len(set(indices)) == len(indices)
    assert {index % 2 for index in indices} == {0, 1}
    assert window.audit.processes == 2
    (clock,) = window.audit.clocks
    assert abs(clock.ahead_s - AHEAD_S) <= clock.bound_s < 0.2
    now_ns = time.perf_counter_ns()
    times = [
        t for r in records for t in (r.due_ns, r.sent_ns, r.first_ns, r.last_ns, r.done_ns, *r.arrivals_ns)
    ]
    assert all(now_ns - 60 * 10**9 < t < now_ns for t in times if t is not None)
    return window, records


def test_a_closed_loop_of_two_machines(pair, endpoint, job):  # noqa: F811
    truth = law(parse(ARGS), concurrency=6, input_tokens=8, output_tokens=8)
    plan = job(endpoint, concurrency=6, load=TWO, warmup_s=0.4, window_s=4 * truth.e2e_s)
    window, records = run(pair, plan)
    start, end_ns = window.steady_start_ns, window.steady_end_ns
    assert end_ns - start == round(4 * truth.e2e_s * 1e9)
    own = [r for r in records if start <= r.due_ns < end_ns]
    assert {r.outcome for r in own} == {"ok"}
    arrived = sum(start <= t < end_ns for r in records for t in r.arrivals_ns)
    assert arrived / ((end_ns - start) / 1e9) == pytest.approx(truth.output_tokens_per_s, rel=0.15)
    for shard in (0, 1):
        ttft_s = [(r.first_ns - r.due_ns) / 1e9 for r in own if r.index % 2 == shard]
        assert min(ttft_s) >= ARGS["ttft_s"] - 0.001  # of one clock each


@needs_root
def test_a_load_process_elsewhere_stands_behind_nobody(machine, pair):
    there = psutil.Process(machine.pid).children(recursive=True)
    far = {each.nice() for each in there if "profiler.loadgen" in " ".join(each.cmdline())}
    assert far == {os.getpriority(os.PRIO_PROCESS, 0)}


def test_the_arrivals_of_an_open_loop_interleave_as_planned(pair, endpoint, job):  # noqa: F811
    load = TWO | {"arrivals": "constant"}
    plan = job(endpoint, mode="open", rate=50.0, n_out=2, load=load, window_s=1.0)
    window, records = run(pair, plan)
    own = sorted((r for r in records if r.due_ns >= window.steady_start_ns), key=lambda r: r.index)
    own = [r for r in own if r.due_ns < window.steady_end_ns]
    assert len(own) == 50
    assert Counter(r.outcome for r in own) == {"ok": 50}
    np.testing.assert_allclose(np.diff([r.due_ns for r in own]) / 1e9, 0.02, atol=1e-6)


def test_a_lost_machine_ends_the_window_and_its_own_part_is_all_that_is_lost(machine, pair, endpoint, job):  # noqa: F811
    plan = job(endpoint, concurrency=4, load=TWO, window_s=30.0, max_window_s=60.0)
    began_s = time.monotonic()
    lost = []

    def check():
        if time.monotonic() - began_s > 1.5 and not lost:
            lost.append(True)
            end(machine)

    with pytest.raises(LoadError, match="which sends a part of the load, is lost"):
        pair.run(plan, ignore, check)
    assert time.monotonic() - began_s < 28
    assert "is lost" in pair.cut_short.trouble
    assert {r.index % 2 for r in read_records(plan.records_path)} == {0}
    assert pair.others is None


def test_without_a_cluster_it_is_said_before_anything_starts(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(
        InputError, match=r"load.machines = 2 takes a Ray cluster: .*\n?.*leave load.machines at 1"
    ):
        remote_load.check(2)


def test_shards_are_dealt_to_machines_in_turn(job):  # noqa: F811
    from profiler.loadgen.worker import most_processes

    plan = job(
        Endpoint(base_url="http://h/v1", model="m"), concurrency=5, load={"machines": 2, "processes": 4}
    )
    assert most_processes(plan) == 3
    assert Load().machines == 1
