"""Remote endpoints: addresses as users write them, keys from the environment, nothing asked."""

from __future__ import annotations

import pytest

from profiler.engines import boards
from profiler.engines.endpoint import is_here, normalise_url, open_endpoint
from profiler.errors import InputError
from profiler.schema import Memory, Model
from profiler.settings import EngineSettings

MODEL = Model(name="served", weights="remote")


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://host:8000", "http://host:8000/v1"),
        ("http://host:8000/", "http://host:8000/v1"),
        ("host:8000", "http://host:8000/v1"),
        ("https://api.example.com/v1", "https://api.example.com/v1"),
        ("https://api.example.com/v1/", "https://api.example.com/v1"),
        ("https://api.example.com/v1/chat/completions", "https://api.example.com/v1"),
        ("https://api.example.com/v1/completions", "https://api.example.com/v1"),
        ("https://api.example.com/v1/models", "https://api.example.com/v1"),
        ("https://api.example.com/api/paas/v4", "https://api.example.com/api/paas/v4"),
        ("https://api.example.com/v1beta/openai/", "https://api.example.com/v1beta/openai"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_addresses_as_users_write_them(url, base):
    assert normalise_url(url) == base
    assert normalise_url(base) == base


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://host:99999",
        "http://[::1",
        "http://me:pw@host",
        "http://h/?key=1",
    ],
)
def test_what_is_no_address_is_refused_in_one_line(url):
    with pytest.raises(InputError) as caught:
        normalise_url(url)
    assert "pw" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_key_comes_from_the_named_variable_and_stays_out_of_the_facts(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret\n")
    args = {"url": "http://host", "key_env": "MY_KEY", "protocol": "chat", "served_model": "other"}
    engine = open_endpoint(EngineSettings(kind="endpoint", args=args), MODEL)
    assert engine.endpoint.api_key == "sk-secret"
    assert engine.endpoint.protocol == "chat"
    assert engine.endpoint.model == "other"
    assert engine.endpoint.pid is None
    assert "secret" not in repr(engine.facts)
    assert engine.facts.device == "remote"


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("localhost:8000", True),
        ("http://[::1]:8000", True),
        ("http://0.0.0.0:8000", True),
        ("http://10.0.0.1:8000", False),
        ("https://api.example.com", False),
    ],
)
def test_a_server_on_this_machine_draws_this_machines_power(url, here):
    assert is_here({"url": url}) is here
    settings = EngineSettings(kind="endpoint", args={"url": url})
    engine = open_endpoint(settings, Model(name="m", weights="remote"))
    assert engine.facts.device == ("none" if here else "remote")
    if not here:
        assert boards(settings) == ()
        with pytest.raises(InputError, match="another machine"):
            boards(settings, ["0"])
    assert engine.memory() == Memory()
    engine.check()


def test_an_empty_key_variable_is_refused(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    settings = EngineSettings(kind="endpoint", args={"url": "http://host", "key_env": "MY_KEY"})
    with pytest.raises(InputError, match="MY_KEY is not set"):
        open_endpoint(settings, MODEL)


@pytest.mark.parametrize("key", ["sk-1\r\nx-other: 1", "sk\t1", "sk-\x7f", "sk-\u2013"])
def test_a_key_that_no_header_can_carry_is_refused_by_the_name_of_its_variable(monkeypatch, key):
    monkeypatch.setenv("MY_KEY", key)
    settings = EngineSettings(kind="endpoint", args={"url": "http://host", "key_env": "MY_KEY"})
    with pytest.raises(InputError, match="MY_KEY") as caught:
        open_endpoint(settings, MODEL)
    assert "sk" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "args", [{"url": 3}, {"url": "http://h", "protocol": "grpc"}, {"url": "http://h", "uri": 1}]
)
def test_wrong_arguments_are_named(args):
    with pytest.raises(InputError, match=r"engine\.args"):
        open_endpoint(EngineSettings(kind="endpoint", args=args), MODEL)


def test_without_a_key_or_protocol_completions_is_tried_first():
    engine = open_endpoint(EngineSettings(kind="endpoint", args={"url": "http://host"}), MODEL)
    assert (engine.endpoint.protocol, engine.endpoint.api_key) == ("completions", None)
    assert engine.endpoint.model == "served"
