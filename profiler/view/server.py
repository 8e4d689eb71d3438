"""The site on a port of this machine's loopback interface, until Ctrl-C."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from profiler.errors import InputError

HOST, PORT = "127.0.0.1", 8321


def serve(path: Path, port: int | None, ready: Callable[[str], None]) -> None:
    """Serve ``path``; ``ready`` is told the address once it answers.  Ends by Ctrl-C or SIGTERM.

    ``port`` None: 8321, or any other where that is taken.  Raises InputError for a port that cannot be had.
    """
    import uvicorn

    from profiler.view.app import app

    with closing(_bound(port)) as listening:
        config = uvicorn.Config(
            app(path), log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        ready(f"http://{HOST}:{listening.getsockname()[1]}/")
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def _bound(port: int | None) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, PORT if port is None else port))
        listening.listen()
    except OSError as error:
        listening.close()
        if port is None:
            return _bound(0)
        raise InputError(f"--port {port}: {error.strerror}: name another, or none to get one") from None
    return listening
