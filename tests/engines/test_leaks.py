"""What the servers of ours hold after thousands of requests, counted in Python's own blocks of memory.

The size of a process comes and goes with the most that was under way at a time, and to tell a leak from that
takes hours; a block that is kept for each request shows at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable

import psutil
import pytest

from tests.cluster.raylets import until

REQUESTS, AT_A_TIME = 1500, 150
BLOCKS_A_REQUEST = 0.1
BYTES_A_REQUEST = 2048  # what Python does not count: buffers of C libraries
TELLING = """
import gc, importlib, signal, sys
def tell(*_):
    if gc.isenabled():
        gc.collect()
    print(sys.getallocatedblocks(), flush=True)
signal.signal(signal.SIGUSR1, tell)
sys.argv[1:2], module = [], importlib.import_module(sys.argv[1])
module.main(sys.argv[1:])
"""
SLOW = {"ttft_s": 0.02, "itl_s": 0.002}


class Server:
    def __init__(self, module: str, settings: dict) -> None:
        served = ["--model", "m", "--settings", json.dumps(settings)]
        words = [sys.executable, "-c", TELLING, f"profiler.engines.{module}", *served]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().split()[1])

    def blocks(self) -> int:
        os.kill(self.process.pid, signal.SIGUSR1)
        return int(self.process.stdout.readline())

    def memory_bytes(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    def under_way(self) -> float:
        told = [line for line in self.call("GET", "/metrics").splitlines() if ":num_requests_" in line]
        return sum(float(line.rpartition(" ")[2]) for line in told if line[0] != "#")

    def call(self, method: str, path: str) -> str:
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.read().decode(errors="replace")


@pytest.fixture
def start():
    with contextlib.ExitStack() as open_ones:

        def begin(module: str, settings: dict) -> Server:
            found = Server(module, settings)
            open_ones.callback(found.process.wait)
            open_ones.callback(found.process.kill)
            open_ones.callback(found.process.stdout.close)
            return found

        yield begin


def ask(server: Server, patience_s: float) -> int:
    """``REQUESTS``; every second is hung up on after ``patience_s``.  How many were answered whole."""
    body = json.dumps({"model": "m", "prompt": [1] * 20, "max_tokens": 8, "stream": True}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    request = head + b"content-length: %d\r\n\r\n" % len(body) + body
    numbers = iter(range(REQUESTS))

    async def slot() -> int:
        whole = 0
        for number in numbers:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request)
            with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, ConnectionError):
                async with asyncio.timeout(patience_s if number % 2 else 30):
                    await reader.readuntil(b"[DONE]")
                    whole += 1
            writer.close()
        return whole

    async def main() -> int:
        return sum(await asyncio.gather(*(slot() for _ in range(AT_A_TIME))))

    return asyncio.run(main())


def keeps_nothing(server: Server, serve: Callable[[], None]) -> None:
    serve()
    serve()  # all that is made once is there
    blocks, size = server.blocks(), server.memory_bytes()
    serve()
    assert server.blocks() - blocks < BLOCKS_A_REQUEST * REQUESTS
    assert server.memory_bytes() - size < BYTES_A_REQUEST * REQUESTS


@pytest.mark.parametrize(
    ("settings", "patience_s"),
    [
        (SLOW, 0.01),  # before the first token
        (SLOW, 0.03),  # in the middle
        (SLOW | {"max_running": 30}, 0.03),  # while it waits for its turn
        (SLOW | {"faults": [{"kind": "reset", "every": 3}]}, 0.03),
    ],
)
def test_the_simulated_engine_keeps_nothing_of_a_request(start, settings, patience_s):
    def serve() -> None:
        answered = ask(server, patience_s)
        assert 0.2 * REQUESTS < answered < 0.98 * REQUESTS
        assert until(lambda: server.under_way() == 0, 5)

    server = start("simulated", settings)
    keeps_nothing(server, serve)


def test_the_metronome_keeps_nothing_of_a_request_once_its_truth_was_taken(start):
    def serve() -> None:
        ask(server, 0.01)
        server.call("DELETE", "/truth")

    server = start("metronome", SLOW)
    keeps_nothing(server, serve)
