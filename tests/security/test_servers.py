"""Servers that are started here: on the loopback interface, and closed to whoever lacks the key.

vLLM's own server and the embedded engine are held to the same in ``tests/engines``, the view in
``tests/view``, where they are up.
"""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import psutil
import pytest

from profiler.engines import base, open_engine
from profiler.engines.metronome_law import Settings
from profiler.engines.truth import Metronome
from profiler.schema import Model
from profiler.settings import EngineSettings
from tests.security.sockets import beyond_this_machine, refused, status

SIM = Model(name="sim", weights="remote")
OPENAI = [("GET", "/v1/models"), ("POST", "/v1/completions"), ("POST", "/v1/chat/completions")]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    with open_engine(EngineSettings(kind="simulated"), SIM, tmp_path_factory.mktemp("sim"), print) as engine:
        yield engine


def test_the_simulated_engine_lets_nobody_in_without_its_key(simulated):
    port = urlsplit(simulated.endpoint.base_url).port
    refused(port, [*OPENAI, ("GET", "/memory"), ("GET", "/nothing")], simulated.endpoint.api_key)
    assert status(port, "GET", "/health", None) == 200


def test_the_simulated_engine_is_on_loopback_only(simulated):
    assert beyond_this_machine(simulated.endpoint.pid) == []


def test_its_key_is_random_and_on_no_command_line(simulated, tmp_path):
    key = simulated.endpoint.api_key
    with open_engine(EngineSettings(kind="simulated"), SIM, tmp_path, print) as other:
        assert other.endpoint.api_key != key
    assert len(key) >= 32
    tree = [psutil.Process(simulated.endpoint.pid), *psutil.Process().children(recursive=True)]
    assert all(key not in " ".join(process.cmdline()) for process in tree)


def test_an_engine_that_other_machines_load_keeps_its_key(tmp_path):
    """``load.machines``: it must be reached, so the key is all there is."""
    settings = EngineSettings(kind="simulated")
    with open_engine(settings, SIM, tmp_path, print, to_others=True) as engine:
        port = urlsplit(engine.endpoint.base_url).port
        assert beyond_this_machine(engine.endpoint.pid) == [f"{base.EVERYWHERE}:{port}"]
        refused(port, OPENAI, engine.endpoint.api_key)


def test_the_metronome_of_a_calibration():
    with Metronome(Settings(), key="0123456789abcdef") as server:
        refused(server.port, [*OPENAI, ("GET", "/truth"), ("DELETE", "/truth")], server.key)
        assert status(server.port, "GET", "/health", None) == 200
        assert beyond_this_machine(server.pid) == []
        assert server.truth().arrived_ns.size == 0  # it still answers those who may ask
        server.clear()
        assert "0123456789abcdef" not in " ".join(psutil.Process(server.pid).cmdline())


def test_what_is_no_http_is_no_way_in(simulated):
    port = urlsplit(simulated.endpoint.base_url).port
    for said in (
        b"\0" * 100,
        b"GET /v1/models HTTP/1.1\r\nauthorization: Bearer\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(said)
            client.shutdown(socket.SHUT_WR)
            assert b"200 OK" not in client.recv(1 << 16)
