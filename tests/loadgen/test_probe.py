import asyncio
import json
import socket
import time

import msgspec
import pytest

from profiler.errors import InputError
from profiler.loadgen.probe import probe
from profiler.schema import Endpoint


def probe_endpoint(endpoint, timeout_s=30.0):
    return asyncio.run(probe(endpoint, timeout_s))


@pytest.fixture
def server():
    """A scripted HTTP server in a thread; ``answer(path, headers, request)`` gives status and body."""
    import threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    started = []

    def start(answer):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def reply(self):
                size = int(self.headers.get("content-length") or 0)
                request = json.loads(self.rfile.read(size)) if size else None
                status, body = answer(self.path, self.headers, request)
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = reply

            def log_message(self, *_):
                pass

        httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        started.append(httpd)
        return Endpoint(base_url=f"http://127.0.0.1:{httpd.server_port}/v1", model="org/model-7b")

    yield start
    for httpd in started:
        httpd.shutdown()
        httpd.server_close()


MODELS = {"object": "list", "data": [{"id": "org/model-7b"}, {"id": "org/other"}]}


def stream(*chunks, usage=None):
    events = [{"choices": [chunk]} for chunk in chunks] + [{"choices": [], "usage": usage}]
    return b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events) + b"data: [DONE]\n\n"


def texts(prompt_tokens=8):
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 2}
    return stream({"text": "a"}, {"text": "b", "finish_reason": "length"}, usage=usage)


def test_real_protocol_is_recognised(simulated):
    found = probe_endpoint(simulated(ttft_s=0.01, itl_s=0.01))
    assert (found.prompt, found.returns_ids, found.ignores_eos) == ("ids", True, True)


def test_server_that_ignores_unknown_fields_returns_no_ids(server):
    endpoint = server(lambda path, headers, request: (200, MODELS if path.endswith("models") else texts()))
    found = probe_endpoint(endpoint)
    assert (found.prompt, found.returns_ids) == ("ids", False)


def test_text_only_server_gets_text(server):
    def answer(path, headers, request):
        if path.endswith("models"):
            return 200, MODELS
        return (
            (422, {"detail": "prompt must be a string"})
            if isinstance(request["prompt"], list)
            else (200, texts())
        )

    assert probe_endpoint(server(answer)).prompt == "text"


def test_server_that_miscounts_ids_gets_text(server):
    def answer(path, headers, request):
        if path.endswith("models"):
            return 200, MODELS
        return 200, texts(17 if isinstance(request["prompt"], list) else 8)

    assert probe_endpoint(server(answer)).prompt == "text"


def test_strict_server_gets_no_extensions(server):
    def answer(path, headers, request):
        if path.endswith("models"):
            return 200, MODELS
        unknown = {"ignore_eos", "return_token_ids"} & set(request)
        return (400, {"error": f"unknown: {unknown}"}) if unknown else (200, texts())

    found = probe_endpoint(server(answer))
    assert (found.prompt, found.ignores_eos, found.returns_ids) == ("ids", False, False)


def test_chat(server):
    asked = []

    def answer(path, headers, request):
        asked.append(path)
        if path.endswith("models"):
            return 200, MODELS
        assert request["messages"][0]["role"] == "user"
        deltas = [{"delta": {"role": "assistant"}}, {"delta": {"content": "hi"}, "finish_reason": "length"}]
        return 200, stream(*deltas, usage={"prompt_tokens": 20, "completion_tokens": 2})

    found = probe_endpoint(msgspec.structs.replace(server(answer), protocol="chat"))
    assert (found.prompt, found.returns_ids) == ("text", False)
    assert asked == ["/v1/models", "/v1/chat/completions"]


def refusal(endpoint, timeout_s=5.0):
    with pytest.raises(InputError) as caught:
        probe_endpoint(endpoint, timeout_s)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_not_reachable():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        assert "is not reachable" in refusal(Endpoint(base_url=url, model="m"))


def test_unknown_host():
    assert "is not reachable" in refusal(Endpoint(base_url="http://no-such-host.invalid/v1", model="m"))


def test_silent_server_costs_the_timeout_and_no_more():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        assert "no complete answer in 0.3 s" in refusal(Endpoint(base_url=url, model="m"), 0.3)
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("status", [401, 403])
def test_key(server, status):
    def answer(path, headers, request):
        right = headers.get("authorization") == "Bearer right"
        return (200, MODELS if path.endswith("models") else texts()) if right else (status, {"error": "key"})

    endpoint = server(answer)
    assert "an API key is needed" in refusal(endpoint)
    wrong = refusal(msgspec.structs.replace(endpoint, api_key="wrong-one"))
    assert "the API key was refused" in wrong
    assert "wrong-one" not in wrong
    assert probe_endpoint(msgspec.structs.replace(endpoint, api_key="right")).api_key == "right"


def test_model_not_served_names_the_nearest(server):
    endpoint = server(lambda *_: (200, MODELS))
    message = refusal(msgspec.structs.replace(endpoint, model="org/model-8b"))
    assert "does not serve 'org/model-8b' (did you mean 'org/model-7b'?)" in message


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, b"not here"), (200, b"<html>hello</html>"), (200, b'{"models": []}'), (500, b"")],
)
def test_something_else_listens_there(server, status, body):
    assert "is no OpenAI-compatible server" in refusal(server(lambda *_: (status, body)))


def test_missing_v1_is_hinted_at(server):
    endpoint = server(lambda *_: (404, b"no"))
    bare = msgspec.structs.replace(endpoint, base_url=endpoint.base_url.removesuffix("/v1"))
    assert "usually end in /v1" in refusal(bare)


def test_model_is_listed_but_does_not_answer(server):
    def answer(path, headers, request):
        return (
            (200, MODELS) if path.endswith("models") else (400, {"error": "no completions for chat models"})
        )

    message = refusal(server(answer))
    assert "HTTP 400" in message
    assert "no completions for chat models" in message
    assert "try the chat protocol" in message


@pytest.mark.parametrize("protocol", ["completions", "chat"])
def test_server_whose_tokens_cannot_be_counted_is_refused(server, protocol):
    def answer(path, headers, request):
        if path.endswith("models"):
            return 200, MODELS
        delta = {"delta": {"content": "a b c d"}} if protocol == "chat" else {"text": "a b c d"}
        return 200, stream(delta, delta | {"finish_reason": "length"})

    message = refusal(msgspec.structs.replace(server(answer), protocol=protocol))
    assert "neither returns token ids nor usage: its tokens cannot be counted" in message
    assert "stream_options.include_usage" in message


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_is_busy_once_is_asked_again_in_the_same_way(server, status):
    asked = []

    def answer(path, _, request):
        if path.endswith("/models"):
            return 200, MODELS
        asked.append(request)
        if len(asked) == 1:
            return status, {"error": {"message": "not now"}}
        usage = {"prompt_tokens": 8, "completion_tokens": 2}
        return 200, stream({"token_ids": [5]}, {"token_ids": [6], "finish_reason": "length"}, usage=usage)

    assert probe_endpoint(server(answer)).prompt == "ids"
    assert asked[0] == asked[1]


@pytest.mark.parametrize("status", [429, 503])
def test_one_that_does_not_serve_now_is_not_called_no_server(server, status):
    with pytest.raises(InputError, match=f"does not serve now: .*HTTP {status}.*try again"):
        probe_endpoint(server(lambda *_: (status, {})))


def test_ids_that_come_twice_are_no_reason_to_count_by_usage_from_now_on(server):
    usage = {"prompt_tokens": 8, "completion_tokens": 2}
    twice = stream(
        {"token_ids": [5]}, {"token_ids": [5]}, {"token_ids": [6], "finish_reason": "length"}, usage=usage
    )

    def answer(path, _, request):
        if path.endswith("/models"):
            return 200, MODELS
        return 200, twice if request.get("return_token_ids") else texts()

    with pytest.raises(InputError, match="3 tokens came, 2 were asked for"):
        probe_endpoint(server(answer))
