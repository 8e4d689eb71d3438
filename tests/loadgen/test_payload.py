import json

import pytest

from profiler.loadgen.client import target_of
from profiler.loadgen.payload import build, request_of
from profiler.schema import Endpoint
from profiler.settings import Workload
from profiler.workload import Plan

PLAN = Plan(Workload(input_tokens=12, output_tokens=3), 32_000, 0)
PLANNED = PLAN.request(0)


def request(**fields):
    return request_of(Endpoint(base_url="http://h/v1", model="m", **fields), PLAN, PLANNED)


def test_ids():
    assert request()["prompt"] == PLAN.prompt(PLANNED)
    assert "messages" not in request()


def test_text():
    assert request(prompt="text")["prompt"] == PLAN.text(PLANNED)


def test_chat():
    got = request(prompt="text", protocol="chat")
    assert got["messages"] == [{"role": "user", "content": PLAN.text(PLANNED)}]
    assert "prompt" not in got


@pytest.mark.parametrize(
    ("field", "key"), [("ignores_eos", "ignore_eos"), ("returns_ids", "return_token_ids")]
)
def test_extensions_go_only_where_they_are_understood(field, key):
    assert request()[key] is True
    assert key not in request(**{field: False})


def test_what_every_server_gets():
    got = request(returns_ids=False, ignores_eos=False)
    del got["prompt"]
    assert got == {
        "model": "m",
        "max_tokens": 3,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_head_and_body_fit_together():
    endpoint = Endpoint(base_url="https://h:8443/base/v1", model="mödel", api_key="k")
    head, _, body = build(endpoint, target_of(endpoint), PLAN, PLANNED).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /base/v1/completions HTTP/1.1"
    assert {"host: h:8443", "authorization: Bearer k", f"content-length: {len(body)}"} <= set(lines)
    assert json.loads(body)["model"] == "mödel"


def test_no_key_no_header():
    endpoint = Endpoint(base_url="http://h/v1", model="m")
    assert b"authorization" not in build(endpoint, target_of(endpoint), PLAN, PLANNED)
