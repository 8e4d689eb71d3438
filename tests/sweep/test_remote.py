"""Sweeps on a real cluster of several nodes: the same cells as on one machine, whatever dies on the way."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from profiler import store
from profiler.cluster.connect import connected
from profiler.errors import InputError
from profiler.progress import Quiet
from profiler.storage import open_home
from profiler.sweep import remote, remote_files, remote_left
from profiler.sweep.nouns import Attempt, Began, Ended, Said, UnderWay
from profiler.sweep.remote_files import Sender
from profiler.sweep.session import planned
from tests import s3
from tests.cluster.raylets import raylets, until
from tests.sweep import few

pytestmark = pytest.mark.usefixtures("undisturbed")

GONE_S = 30  # for everything that was started, once its driver is gone


@pytest.fixture(scope="module")
def store_server(tmp_path_factory):
    with s3.serving(str(tmp_path_factory.mktemp("cache"))) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(store_server):
    """Two nodes, one with a GPU, and a head with no CPU to give; all of them reach the object store."""
    with raylets(cpus=0) as found:
        found.add()
        found.add(gpus=1, kind="A100")
        with connected(found.address):
            yield found


@pytest.fixture
def tell():
    """Remembers what happened; ``then`` says what is to happen at the first start that begins ``where``."""

    class Tell:
        def __init__(self) -> None:
            self.began, self.ended, self.said = [], [], []
            self.then = lambda news: None
            self.where = lambda news: True

        def __call__(self, news, record) -> None:
            {Began: self.began, Ended: self.ended, Said: self.said}[type(news)].append(news)
            if isinstance(news, Began) and self.where(news):
                self.where = lambda _: False
                self.then(news)

        @property
        def outcomes(self) -> list[str]:
            return sorted(each.outcome for news in self.ended for each in news.attempts)

        @property
        def whys(self) -> str:
            return " ".join(each.why or "" for news in self.ended for each in news.attempts)

    return Tell()


def hold(cluster, file, out, tell, **changes):
    with (
        connected(cluster.address),
        planned(few.request(file, out, ray=cluster.address, **changes)) as session,
    ):
        return session.hold(Quiet(), tell)


def check_gone(cluster, patience_s: float = GONE_S) -> None:
    """Nothing that measures is left on any node, nor a folder of it."""
    assert until(lambda: not cluster.measuring(), patience_s), cluster.measuring()
    assert until(lambda: not cluster.scratch(), 5), cluster.scratch()


def driver(cluster, file, out) -> subprocess.Popen:
    words = [
        sys.executable,
        "-m",
        "profiler",
        "sweep",
        str(file),
        "--ray",
        cluster.address,
        "--out",
        str(out),
    ]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def test_the_same_cells_as_on_one_machine(cluster, tmp_path, tell):
    """Two pairs, side by side on two nodes; each stays on its own."""
    file = few.write(tmp_path, loads=(1, 2), starts=2, head="interleave = []")
    ending = hold(cluster, file, tmp_path / "out", tell)
    assert few.cells(tmp_path / "out") == few.whole(loads=(1, 2), starts=2)
    assert {each.outcome for each in ending.record.attempts} == {"held"}
    assert all(each.place and each.place.machine for each in ending.record.attempts)
    assert not ending.record.under_way
    keys = [[each.start.key for each in some] for some in (tell.began, tell.ended)]
    assert sorted(keys[0]) == sorted(keys[1])
    nodes_of: dict[str, set] = {}
    for each in tell.began:
        nodes_of.setdefault(each.start.model, set()).add(each.place.node)
    assert [len(each) for each in nodes_of.values()] == [1, 1]
    used = set.union(*nodes_of.values())
    assert len(used) == 2
    assert not [each for each in used if cluster.cluster.head_node.node_id[:6] in each]
    check_gone(cluster)


def test_two_machines_send_the_load_of_an_engine(cluster, tmp_path, tell):
    file = few.write(tmp_path, models=("sim:a",), loads=(4,), starts=1, head="clients = 2")
    hold(cluster, file, tmp_path / "out", tell)
    assert few.cells(tmp_path / "out") == few.whole(models=("sim:a",), loads=(4,), starts=1)
    (name,) = store.within(tmp_path / "out")
    (window,) = store.load(tmp_path / "out" / name).manifest.windows
    assert (window.audit.processes, len(window.audit.clocks)) == (2, 1)
    check_gone(cluster)


def test_more_machines_to_send_the_load_than_there_are(cluster, tmp_path, tell):
    with pytest.raises(InputError, match=r"clients = 9 \(load.machines\) takes as many nodes"):
        hold(cluster, few.write(tmp_path, head="clients = 9"), tmp_path / "out", tell)
    assert not tell.began


def test_a_worker_that_is_killed_costs_the_load_under_way(cluster, tmp_path, tell):
    """With an object store, of 80 MiB, that is full."""
    import numpy as np
    import ray

    def kill(_news) -> None:
        assert until(lambda: any(map(windows, cluster.scratch())), 30)
        for each in cluster.processes("ray::Holder"):
            each.kill()

    filling = [ray.put(np.ones(9 << 20, dtype=np.uint8)) for _ in range(8)]
    tell.then = kill
    of = {"models": ("sim:a",), "loads": (1, 2), "starts": 1}
    hold(cluster, few.write(tmp_path, **of, **{"measure.window_s": 1.5}), tmp_path / "out", tell)
    del filling
    assert few.cells(tmp_path / "out") == few.whole(**of)
    assert tell.outcomes == ["failed", "held", "held"]
    assert len(list((tmp_path / "out").glob("*sim-a*"))) == 2
    assert "died: its process was killed, or found no memory" in tell.whys
    check_gone(cluster)


def windows(folder) -> int:
    with contextlib.suppress(InputError):
        return len(store.load(folder).manifest.windows)
    return 0


def test_a_node_that_is_lost_costs_a_visit(cluster, tmp_path, tell):
    """An equal one takes over; what is for other GPUs stays on the node that has them."""
    doomed, spare = (cluster.add(gpus=1, kind="H100") for _ in range(2))

    def kill(news) -> None:
        node = next(each for each in (doomed, spare) if each.node_id[:6] in news.place.node)
        cluster.kill(node)

    tell.then, tell.where = kill, lambda news: news.start.gpu == "H100"
    file = few.write(tmp_path, loads=(1,), starts=1, head="")
    file.write_text(file.read_text().replace("[axes]", '[axes]\ngpu = ["H100", "A100"]'))
    hold(cluster, file, tmp_path / "out", tell)
    assert few.cells(tmp_path / "out") == few.whole(loads=(1,), starts=2)  # one on each kind
    assert tell.outcomes.count("lost") == 2  # what it held, and what was to follow there
    kinds = {each.name: each.accelerator for each in remote.nodes.collect()}
    began = {(each.start.gpu, each.place.node) for each in tell.began}
    assert len(began) == 3
    assert all(kinds.get(node, "H100") == gpu for gpu, node in began)
    assert until(lambda: not cluster.measuring(), GONE_S), cluster.measuring()
    shutil.rmtree(cluster.temporary / "profile-sweeps", ignore_errors=True)  # what the lost one still wrote


def test_a_driver_that_is_killed_leaves_nothing_running_and_loses_nothing(cluster, tmp_path):
    few_of = {"models": ("sim:a",), "loads": (1, 2), "starts": 2}
    file, out = few.write(tmp_path, **few_of), tmp_path / "out"
    for holds_at_least in (0, 1):
        killed = driver(cluster, file, out)
        with killed:
            assert until(lambda: _held(out) >= holds_at_least and cluster.processes("engines.simulated"), 60)  # noqa: B023
            killed.kill()
        assert until(lambda: not cluster.measuring(), GONE_S), cluster.measuring()
    with driver(cluster, file, out) as last:
        assert last.wait(120) == 0, last.stderr.read().decode()
    assert few.cells(out) == few.whole(**few_of)
    check_gone(cluster)


def _held(out) -> int:
    with contextlib.suppress(AssertionError):
        return sum(each.outcome == "held" for each in few.record(out).attempts)
    return 0


def test_what_was_sealed_when_the_driver_died_is_fetched_by_the_next(cluster, tmp_path, tell, monkeypatch):
    """The driver dies between the seal on the node and its return."""
    file, out = few.write(tmp_path, models=("sim:a",), loads=(1,), starts=1), tmp_path / "out"

    class Died(BaseException):
        pass

    def die(*_words) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(remote.Remote, "_fetch", die)
        patched.setattr(remote.Remote, "_collect", die)
        patched.setattr(remote.Remote, "close", lambda self: [each.close() for each in self._seats])
        with pytest.raises(Died):
            hold(cluster, file, out, tell)
    (left,) = cluster.scratch()
    assert (left / store.MANIFEST).exists()
    hold(cluster, file, out, tell)
    assert store.within(out) == [left.name]
    assert few.cells(out) == few.whole(models=("sim:a",), loads=(1,), starts=1)
    check_gone(cluster)


def test_ctrl_c_ends_everything_soon(cluster, tmp_path):
    file = few.write(tmp_path, loads=(1,), starts=1, **{"measure.window_s": 60, "measure.max_window_s": 60})
    with driver(cluster, file, tmp_path / "out") as stopped:
        assert until(lambda: cluster.processes("engines.simulated"), 60)
        os.kill(stopped.pid, signal.SIGINT)
        began_s = time.monotonic()
        assert stopped.wait(GONE_S) == 130
    check_gone(cluster, GONE_S - (time.monotonic() - began_s))


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
def test_what_is_measured_stands_behind_no_other_program(cluster, tmp_path, tell):
    kinds = ("engines.simulated", "profiler.loadgen", "profiler.telemetry")
    found = {}

    def look(_news) -> None:
        assert until(lambda: all(map(cluster.processes, kinds)), 30)
        found.update({kind: [each.nice() for each in cluster.processes(kind)] for kind in kinds})

    tell.then = look
    file = few.write(tmp_path, models=("sim:a",), loads=(1,), starts=1, **{"measure.window_s": 2})
    hold(cluster, file, tmp_path / "out", tell)
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert {nice for each in found.values() for nice in each} == {ours}
    assert {each.host.niceness for each in remote.nodes.collect()} == {ours}
    (name,) = store.within(tmp_path / "out")
    assert store.load(tmp_path / "out" / name).manifest.host.niceness == ours


def test_shared_storage_and_files_that_a_sweep_names(cluster, tmp_path, tell, monkeypatch):
    monkeypatch.setattr(Sender, "_is_there", lambda self, files: False)
    trace, out = tmp_path / "trace.csv", tmp_path / "out"
    rows = "".join(f"{at / 10},8,4\n" for at in range(9))
    trace.write_text(f"time_s,input_tokens,output_tokens\n{rows}")
    sets = {"load.mode": "replay", "load.trace": str(trace)}
    file = few.write(tmp_path, models=("sim:a",), loads=(1,), starts=1, **sets)
    file.write_text(file.read_text().replace('"load.concurrency" = [1]\n', ""))
    hold(cluster, file, f"file://{out}", tell)
    (name,) = store.within(out)
    run = store.load(out / name)
    assert len(run.requests) == 9
    assert run.manifest.scenario.load.trace != str(trace)
    check_gone(cluster)


def test_an_object_store_that_nodes_write_to(cluster, store_server, tmp_path, tell):
    home = open_home(where := store_server.bucket("of-nodes"))
    file = few.write(tmp_path, models=("sim:a",), loads=(1,), starts=1)
    ending = hold(cluster, file, where, tell)
    assert home.runs() == [
        run for each in ending.record.attempts if each.outcome == "held" for run in each.runs
    ]
    assert len(home.runs()) == 1
    assert not list(home.scratch.glob("*-*"))
    check_gone(cluster)


def test_what_a_node_left_goes_home_or_aside(tmp_path, monkeypatch):
    """Into a shared home: what counts; beside it what does not, with its log."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "node"))
    out, home = remote_files.scratch("s"), tmp_path / "home"
    (out / "broken").mkdir(parents=True)
    (out / "broken/engine.log").write_text("out of memory")
    noted = {"key": "k", "number": 0, "utc": "", "took_s": 1.0, "cells": ("c",)}
    attempts = [Attempt(outcome="failed", runs=("broken", "never-begun"), **noted)]
    remote_left.bring(out, "few", f"file://{home}", attempts)
    assert (home / "sweeps/few.aside/broken/engine.log").read_text() == "out of memory"
    assert not list(out.iterdir())


def test_the_next_start_waits_for_what_is_left_of_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    noted = UnderWay(key="k", portions=(), number=0, group="abcd", utc="")
    env = os.environ | {remote_left.GROUP_VARIABLE: noted.group}
    with subprocess.Popen(["sleep", "0.7"], env=env) as engine:
        threading.Timer(0.7, engine.wait).start()  # a dead one that nobody has heard of is not running
        assert remote_left.left_of("s", "few", [noted], "it died", None) == []
        assert engine.poll() is not None


def test_storage_that_a_node_does_not_see_is_refused(cluster, tmp_path, monkeypatch):
    node = next(iter(remote.nodes.alive()))
    home = open_home(f"file://{tmp_path}")
    remote._check_shared(home, [node])
    monkeypatch.setattr(type(home), "write", lambda *_: None)
    (tmp_path / "sweeps/.shared").unlink()
    with pytest.raises(InputError, match="does not see what this machine writes there"):
        remote._check_shared(home, [node])


def test_files_come_back_as_they_were(cluster, tmp_path):
    """Empty ones, those of many pieces, and folders of folders."""
    there = tmp_path / "run"
    (there / "a/b").mkdir(parents=True)
    (there / "a/b/many").write_bytes(os.urandom(3 * remote_files.PIECE_BYTES * remote_files.PIECES_AHEAD + 7))
    (there / "empty").touch()
    node = next(iter(remote.nodes.alive()))
    back = remote_files.fetch(remote_files.asking(node), str(there), tmp_path / "home")
    assert [path.read_bytes() for path in (back / "a/b/many", back / "empty")] == [
        path.read_bytes() for path in (there / "a/b/many", there / "empty")
    ]
    assert [each.name for each in (tmp_path / "home").iterdir() if each.name != "sweeps"] == ["run"]
