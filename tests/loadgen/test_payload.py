import json

import pytest

from profiler.loadgen.client import target_of
from profiler.loadgen.payload import build
from profiler.schema import Endpoint
from profiler.settings import Conversation, Images, Workload
from profiler.workload import Plan

PLAN = Plan(Workload(input_tokens=12, output_tokens=3), 32_000, 0)
PLANNED = PLAN.request(0)


def request(plan=PLAN, planned=PLANNED, **fields):
    endpoint = Endpoint(base_url="http://h/v1", model="m", **fields)
    _, _, body = build(endpoint, target_of(endpoint), plan, planned).partition(b"\r\n\r\n")
    return json.loads(body)


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


# ------------------------------------------------------------------------------------ conversations

TALKS = Workload(input_tokens=12, output_tokens=3, conversation=Conversation(turns=3))


def test_a_conversation_sends_back_what_the_server_said_as_messages():
    plan = Plan(TALKS, 32_000, 0)
    talk = plan.conversation(0)
    first = talk.open(0)
    second = talk.go_on(5, 'a "quoted"\nanswer – \u2603')
    got = request(plan, second, prompt="text", protocol="chat")["messages"]
    assert [(m["role"], len(m["content"].split())) for m in got] == [
        ("user", 12),
        ("assistant", 5),
        ("user", 12),
    ]
    assert got[0]["content"] == plan.text(first)
    assert got[1]["content"] == 'a "quoted"\nanswer – \u2603'
    assert got[2]["content"] == plan.text(plan.request(5))


def test_a_conversation_in_text_is_one_growing_prompt():
    plan = Plan(TALKS, 32_000, 0)
    talk = plan.conversation(0)
    first = request(plan, talk.open(0), prompt="text")["prompt"]
    second = request(plan, talk.go_on(1, " so it is."), prompt="text")["prompt"]
    assert second.startswith(f"{first} so it is. ")
    assert second.split()[-12:] == plan.text(plan.request(1)).split()


# ------------------------------------------------------------------------------------------ pictures


def test_every_message_has_its_own_pictures():
    work = Workload(
        input_tokens=12,
        output_tokens=3,
        images=Images(width=30, height=20, count=2),
        conversation=Conversation(turns=2),
    )
    plan = Plan(work, 32_000, 0)
    talk = plan.conversation(0)
    (only,) = request(plan, talk.open(0), prompt="text", protocol="chat")["messages"]
    text, *pictures = only["content"]
    assert text == {"type": "text", "text": plan.text(plan.request(0))}
    assert [each["type"] for each in pictures] == ["image_url"] * 2
    assert all(each["image_url"]["url"].startswith("data:image/png;base64,") for each in pictures)
    again, answer, fresh = request(plan, talk.go_on(1, "yes"), prompt="text", protocol="chat")["messages"]
    assert again == only
    assert answer == {"role": "assistant", "content": "yes"}
    urls = [part["image_url"]["url"] for each in (again, fresh) for part in each["content"][1:]]
    assert len(set(urls)) == 4
