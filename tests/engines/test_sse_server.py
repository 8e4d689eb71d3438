"""The server base: what every app gets without doing anything for it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from profiler.engines.sse_server import App, HttpError, serve


class Echo(App):
    model = "echo"

    def __init__(self):
        self.cancelled = 0
        self.requests = []

    async def completions(self, request, stream):
        self.requests.append(request)
        kind = request.get("kind")
        if kind == "refuse":
            raise HttpError(429, "later")
        try:
            for token in range(request.get("max_tokens", 2)):
                stream.tokens([token], text="x")
                await asyncio.sleep(0.01)
                if kind == "bug":
                    raise RuntimeError("broken engine")
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        stream.finish("length", prompt_tokens=3, completion_tokens=request.get("max_tokens", 2))

    def page(self, path):
        return {"bytes": 7} if path == "/memory" else None


@asynccontextmanager
async def served(app, api_key=None):
    port = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(serve(app, api_key=api_key, ready=port.set_result))
    try:
        yield await port
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def call(port, method, path, body=None, key=None, raw=None):
    """Status and body of one call, chunked bodies joined."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = raw if raw is not None else (json.dumps(body).encode() if body is not None else b"")
    auth = f"Authorization: Bearer {key}\r\n" if key else ""
    writer.write(
        f"{method} {path} HTTP/1.1\r\nHost: x\r\n{auth}Content-Length: {len(data)}\r\n\r\n".encode() + data
    )
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        content = b""
        if b"chunked" in head:
            while size := int(await reader.readline(), 16):
                content += (await reader.readexactly(size + 2))[:-2]
        else:
            content = await reader.readexactly(
                int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            )
    writer.close()
    return int(head.split()[1]), content


def ask(**fields):
    return {"model": "echo", "prompt": [1, 2, 3], "stream": True} | fields


def events(content):
    return [line.removeprefix(b"data: ") for line in content.split(b"\n\n") if line]


async def test_routes():
    async with served(Echo()) as port:
        assert (await call(port, "GET", "/health"))[0] == 200
        status, content = await call(port, "GET", "/v1/models")
        assert (status, json.loads(content)["data"][0]["id"]) == (200, "echo")
        assert json.loads((await call(port, "GET", "/memory"))[1]) == {"bytes": 7}
        assert (await call(port, "GET", "/nothing"))[0] == 404
        assert (await call(port, "POST", "/v1/embeddings", ask()))[0] == 404
        assert (await call(port, "POST", "/v1/completions", ask(model="other")))[0] == 404
        for raw in (b"", b"{", b"[1]", b"\xff"):
            assert (await call(port, "POST", "/v1/completions", raw=raw))[0] == 400


async def test_key_guards_all_but_health_and_metrics():
    async with served(Echo(), api_key="right") as port:
        assert (await call(port, "GET", "/health"))[0] == 200
        assert (await call(port, "GET", "/metrics"))[0] == 404  # it has none, and would say so to anybody
        for key, status in ((None, 401), ("wrong", 401), ("right", 200)):
            assert (await call(port, "GET", "/memory", key=key))[0] == status
            assert (await call(port, "GET", "/v1/models", key=key))[0] == status
            assert (await call(port, "POST", "/v1/completions", ask(), key=key))[0] == status


async def test_stream_with_and_without_extensions():
    async with served(Echo()) as port:
        _, plain = await call(port, "POST", "/v1/completions", ask())
        _, full = await call(
            port,
            "POST",
            "/v1/completions",
            ask(return_token_ids=True, stream_options={"include_usage": True}),
        )
    assert b"token_ids" not in plain
    assert b"usage" not in plain
    *chunks, usage, done = events(full)
    assert [json.loads(c)["choices"][0]["token_ids"] for c in chunks] == [[0], [1], []]
    assert json.loads(chunks[-1])["choices"][0]["finish_reason"] == "length"
    assert json.loads(usage)["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert done == b"[DONE]"


@pytest.mark.parametrize("chat", [False, True])
async def test_answer_in_one_piece(chat):
    path = "/v1/chat/completions" if chat else "/v1/completions"
    async with served(Echo()) as port:
        status, content = await call(port, "POST", path, ask(stream=False, return_token_ids=True))
    choice = json.loads(content)["choices"][0]
    assert status == 200
    assert (choice["message"]["content"] if chat else choice["text"]) == "xx"
    assert choice["token_ids"] == [0, 1]
    assert choice["finish_reason"] == "length"
    assert json.loads(content)["usage"]["completion_tokens"] == 2


async def test_refusals_and_bugs():
    async with served(Echo()) as port:
        status, content = await call(port, "POST", "/v1/completions", ask(kind="refuse"))
        assert status == 429
        assert json.loads(content)["error"]["message"] == "later"
        status, content = await call(port, "POST", "/v1/completions", ask(kind="bug"))
        assert status == 200
        _, error, done = events(content)
        assert "RuntimeError: broken engine" in json.loads(error)["error"]["message"]
        assert done == b"[DONE]"
        status, content = await call(port, "POST", "/v1/completions", ask(kind="bug", stream=False))
        assert status == 500


async def test_client_that_leaves_cancels_its_request():
    app = Echo()
    async with served(app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps(ask(max_tokens=10_000)).encode()
        writer.write(b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await asyncio.sleep(0.1)
        assert app.cancelled == 1


async def test_keep_alive_and_split_requests():
    async with served(Echo()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps(ask(stream=False)).encode()
        request = b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        for _ in range(3):
            for start in range(0, len(request), 11):
                writer.write(request[start : start + 11])
                await asyncio.sleep(0)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        writer.close()


async def test_garbage_is_answered_and_dropped():
    async with served(Echo()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16\x03\x01 not http\r\n\r\n")
        async with asyncio.timeout(2):
            assert (await reader.read()).startswith(b"HTTP/1.1 400")
        writer.close()
