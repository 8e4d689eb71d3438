"""Reaching a cluster, and what its nodes say; what cannot be reached is said at once, in one line."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest
from msgspec.structs import replace

from profiler import __version__, host
from profiler.cluster import connect, nodes
from profiler.errors import InputError
from tests.cluster.raylets import raylets


@pytest.fixture(scope="module")
def cluster():
    with raylets(cpus=2) as found:
        found.add(cpus=3, gpus=2, kind="H100")
        with connect.connected(found.address):
            yield found


def refused(address: str) -> str:
    began_s = time.monotonic()
    with pytest.raises(InputError) as caught, connect.connected(address):
        pass
    assert time.monotonic() - began_s < 7
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "no Ray cluster answers there (Connection refused)"),
        ("nowhere.invalid:6379", "no Ray cluster answers there"),
        ("127.0.0.1:99999999", "expected auto, local or HOST:PORT"),
        ("127.0.0.1:99999", "no Ray cluster answers there"),
        ("127.0.0.1", "expected auto, local or HOST:PORT"),
        ("here", "expected auto, local or HOST:PORT"),
        ("ray://10.0.0.1:10001", "give the cluster's own address"),
    ],
)
def test_what_cannot_be_reached_is_refused(address, words):
    assert words in refused(address)


def test_no_cluster_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray._private.services.canonicalize_bootstrap_address", lambda _: None)
    assert "no Ray cluster runs on this machine; start one with `ray start --head`" in refused("auto")


@pytest.mark.parametrize("answer", [b"HTTP/1.0 400 Bad Request\r\n\r\n", b"", None])
def test_another_server_is_no_cluster(answer, monkeypatch):
    """Ray would wait two minutes for it, and then end the process.  None: it never answers."""
    monkeypatch.setattr(connect, "ANSWER_S", 0.5)
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            taken, _ = server.accept()
            with taken:
                taken.recv(100)
                if answer is None:
                    time.sleep(1)
                else:
                    taken.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        said = refused(f"127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert "no Ray cluster" in said


def test_the_package_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'moe-profiler\[ray\]'"):
        connect.load()


def test_the_package_is_broken(monkeypatch, tmp_path):
    """As where amdsmi is installed on a machine without AMD's library."""
    (tmp_path / "ray.py").write_text("raise KeyError('libamd_smi.so')")
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError) as caught:
        connect.load()
    assert str(caught.value).startswith("ray cannot be imported (KeyError: 'libamd_smi.so'); `pip uninstall")
    assert "\n" not in str(caught.value)


def test_a_cluster_of_our_own_leaves_no_token_and_says_nothing(tmp_path):
    """In a process of its own, whose home is empty."""
    code = "from profiler.cluster import connect\nwith connect.connected('local'): print('up')"
    env = {name: each for name, each in os.environ.items() if not name.startswith("RAY_")}
    env |= {"HOME": str(tmp_path), "PYTHONPATH": os.getcwd()}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert (said.stdout, said.stderr) == ("up\n", "")
    assert not list(tmp_path.iterdir())


def test_nodes_without_a_cpu_are_not_asked(monkeypatch):
    head = {"NodeID": "a", "Alive": True, "Resources": {"object_store_memory": 1.0}}
    monkeypatch.setattr(nodes, "alive", lambda: {"a": head})
    with pytest.raises(InputError, match="no node of the Ray cluster has a CPU to give"):
        nodes.collect()


def test_the_environment_names_the_cluster(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert "--ray 127.0.0.1:1" in refused("auto")


def test_a_process_that_is_connected_stays_so(cluster):
    import ray

    with connect.connected("127.0.0.1:1") as address:
        assert address == cluster.address
    assert ray.is_initialized()


def test_each_node_says_what_it_is(cluster):
    one, other = sorted(nodes.collect(), key=lambda each: each.gpus)
    assert (one.cpus, one.gpus, one.accelerator) == (2, 0, None)
    assert (other.cpus, other.gpus, other.accelerator) == (3, 2, "H100")
    assert one.host == other.host
    here = replace(host.collect(), niceness=one.host.niceness)  # it is Ray's where we are not root
    assert one.host == here
    assert one.name != other.name


def test_a_node_that_cannot_say_is_named(cluster):
    node = nodes.collect()[0]
    with pytest.raises(InputError) as caught:
        nodes.ask_each([node.id], shutil.rmtree, "/no/where")
    assert str(caught.value) == f"node {node.name}: [Errno 2] No such file or directory: '/no/where'"


def test_another_profiler_on_a_node_is_named(monkeypatch, cluster):
    monkeypatch.setattr(nodes, "__version__", "9.9")
    with pytest.raises(InputError, match=rf"has profiler {__version__}, this is 9.9: install the same"):
        nodes.collect()


def test_the_profiler_is_missing_on_a_node():
    error = ModuleNotFoundError("No module named 'profiler.cluster'")
    assert nodes.trouble(error).endswith(f"not installed there: pip install moe-profiler=={__version__}")
