"""An S3-compatible object store on this machine (moto's server), with faults to order."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

Answer = tuple[str, str]
DENIED = ("403 Forbidden", "AccessDenied")
SLOW_DOWN = ("503 Slow Down", "SlowDown")


class Server:
    """``requests``: method and path of each; ``refuse``: answers to give instead of the store's."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app = DomainDispatcherApplication(create_backend_app)
        self.requests: list[str] = []
        self.refuse: list[Callable[[str, dict[str, Any]], Answer | None]] = []
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        self.requests.append(request)
        for refuse in self.refuse:
            if answer := refuse(request, environ):
                length = int(environ.get("CONTENT_LENGTH") or 0)
                environ["wsgi.input"].read(length)
                body = f"<Error><Code>{answer[1]}</Code><Message>{answer[1]} said</Message></Error>".encode()
                start(answer[0], [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
                return [body]
        return self._app(environ, start)

    @contextmanager
    def refusing(self, pattern: str, answer: Answer, times: int = 1 << 30) -> Iterator[list[str]]:
        """Requests whose method and path match are answered so, at most so many times; what was refused."""
        refused: list[str] = []

        def refuse(request: str, _environ: dict[str, Any]) -> Answer | None:
            if len(refused) < times and re.search(pattern, request):
                refused.append(request)
                return answer
            return None

        self.refuse.append(refuse)
        try:
            yield refused
        finally:
            self.refuse.remove(refuse)

    @contextmanager
    def signed_only(self) -> Iterator[None]:
        """Requests without credentials are refused, as AWS does and moto does not."""

        def refuse(_request: str, environ: dict[str, Any]) -> Answer | None:
            return None if "HTTP_AUTHORIZATION" in environ else DENIED

        self.refuse.append(refuse)
        try:
            yield
        finally:
            self.refuse.remove(refuse)

    def bucket(self, name: str) -> str:
        """A new bucket's address; the environment must name the server."""
        from pyarrow.fs import FileSystem

        FileSystem.from_uri(f"s3://{name}?allow_bucket_creation=true")[0].create_dir(name)
        return f"s3://{name}"

    def close(self) -> None:
        self._server.shutdown()


@contextmanager
def serving(cache: str) -> Iterator[Server]:
    """A server that this process and those it starts take for S3, with a cache of its own."""
    pytest.importorskip("moto")
    pytest.importorskip("flask_cors")
    server = Server()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("XDG_CACHE_HOME", cache)
        yield server
    server.close()
