"""What servers say of their experts, over a real connection."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from profiler.engines import routed
from profiler.engines.sse_server import App, HttpError, serve
from profiler.errors import EngineError
from profiler.schema import Endpoint

EXPERTS = np.arange(4 * 3 * 2, dtype=np.uint8).reshape(4, 3, 2)


class Telling(App):
    model = "m"

    def __init__(self, says):
        self.says, self.asked = says, None

    async def completions(self, request, stream):
        self.asked = request
        if isinstance(self.says, Exception):
            raise self.says
        if self.says == "silence":
            await asyncio.sleep(60)
        if self.says is not None:
            stream.beside["routed_experts"] = self.says
        stream.tokens([1, 2], "", "length")
        stream.finish(prompt_tokens=3, completion_tokens=2)


@contextmanager
def serving(app):
    loop, ports = asyncio.new_event_loop(), []
    up = threading.Event()

    def ready(port):
        ports.append(port)
        up.set()

    task = loop.create_task(serve(app, api_key="k", ready=ready))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    assert up.wait(10)
    try:
        yield Endpoint(base_url=f"http://127.0.0.1:{ports[0]}/v1", model="m", api_key="k")
    finally:
        loop.call_soon_threadsafe(task.cancel)
        loop.call_soon_threadsafe(loop.call_later, 0.05, loop.stop)
        thread.join()
        loop.close()


def asked(says, timeout_s=10.0):
    with serving(Telling(says)) as endpoint:
        return routed.ask(endpoint, [5, 6, 7], 2, timeout_s)


def test_what_is_written_is_read_back_whatever_its_width():
    for kind in (np.uint8, np.uint16):
        found = asked(routed.written(EXPERTS.astype(kind)))
        assert found.prompt_tokens == 3
        assert found.experts.dtype == np.uint16
        np.testing.assert_array_equal(found.experts, EXPERTS)


def test_the_answer_is_as_long_as_asked_and_greedy():
    app = Telling(routed.written(EXPERTS))
    with serving(app) as endpoint:
        routed.ask(endpoint, [5, 6, 7], 2, 10.0)
    assert app.asked["prompt"] == [5, 6, 7]
    assert (app.asked["max_tokens"], app.asked["temperature"], app.asked["ignore_eos"]) == (2, 0, True)


@pytest.mark.parametrize(
    ("says", "trouble"),
    [
        (None, "says nothing of its experts"),
        ("bm90IG5weQ==", "cannot be read"),
        ("%%%", "cannot be read"),
        (routed.written(EXPERTS[:3]), "the experts of (3, 3, 2), 4 positions were run"),
        (routed.written(EXPERTS[0]), "4 positions were run"),
        (HttpError(501, "no experts here"), "answers 501: .*no experts here"),
    ],
)
def test_every_failure_is_one_line(says, trouble):
    with pytest.raises(EngineError, match=trouble.replace("(", r"\(").replace(")", r"\)")) as found:
        asked(says)
    assert "\n" not in str(found.value)


def test_a_server_that_hangs_or_is_gone_is_given_up():
    with pytest.raises(EngineError, match="does not answer"):
        asked("silence", timeout_s=0.2)
    gone = Endpoint(base_url="http://127.0.0.1:9/v1", model="m")
    with pytest.raises(EngineError, match="does not answer"):
        routed.ask(gone, [1], 1, 1.0)
