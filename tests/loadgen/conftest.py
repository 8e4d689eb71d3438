"""Servers to load: the simulated engine in a process of its own, and scripted ones in the test's loop."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from contextlib import asynccontextmanager

import pytest

from profiler.engines.simulated import command
from profiler.loadgen.client import tls_context
from profiler.loadgen.job import LoadJob
from profiler.schema import Endpoint, LoadPoint
from profiler.settings import Load, Measure, Timeouts, Workload


@pytest.fixture
def simulated():
    """``simulated(ttft_s=…, …)`` starts an engine and gives its Endpoint."""
    started = []

    def start(**args):
        server = subprocess.Popen(command(args), stdout=subprocess.PIPE, text=True)
        started.append(server)
        port = int(server.stdout.readline().split()[1])
        return Endpoint(base_url=f"http://127.0.0.1:{port}/v1", model="simulated", vocab_size=32_000)

    yield start
    for server in started:
        server.kill()
        server.wait()
        server.stdout.close()


@pytest.fixture
def job(tmp_path):
    """A small job against an endpoint, any field replaced."""

    def make(endpoint, *, concurrency=2, mode="closed", n_in=8, n_out=8, timeouts=None, window=0, **more):
        load = Load(mode=mode, **(more.pop("load", {}) | {"concurrency": (concurrency,)}))
        rate = more.pop("rate", None)
        workload = {"input_tokens": n_in, "output_tokens": n_out} | more.pop("workload", {})
        settings = {"warmup_s": 0.1, "window_s": 0.5, "min_requests": 1, "max_window_s": 5.0} | more
        slots = concurrency if mode in ("closed", "batch") else None
        return LoadJob(
            endpoint=endpoint,
            workload=Workload(**workload),
            point=LoadPoint(mode=mode, concurrency=slots, requests_per_s=rate),
            measure=Measure(**settings),
            timeouts=timeouts or Timeouts(connect_s=2, first_token_s=2, gap_s=2, total_s=10),
            window=window,
            repeat=0,
            engine_start=0,
            records_path=str(tmp_path / f"window-{window}.parquet"),
            load=load,
        )

    return make


@pytest.fixture
def certified(tmp_path, monkeypatch):
    """What a server needs for TLS, and a call that makes this process and its children trust it."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", key, "-out", cert, "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(cert, key)

    def trust():
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
        tls_context.cache_clear()

    yield served, trust
    tls_context.cache_clear()


@pytest.fixture
def scripted():
    """``async with scripted(handler) as endpoint``: ``handler(writer)`` answers each request's body."""

    @asynccontextmanager
    async def serve(handler, **endpoint):
        async def connected(reader, writer):
            try:
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    fields = dict(
                        line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
                    )
                    body = await reader.readexactly(int(fields.get(b"content-length", 0)))
                    await handler(writer, head, body)
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield Endpoint(base_url=f"http://127.0.0.1:{port}/v1", model="m", vocab_size=1000, **endpoint)
        finally:
            server.close()

    return serve
