"""Where processes listen, and who they let in."""

from __future__ import annotations

import http.client
from ipaddress import ip_address

import psutil


def beyond_this_machine(pid: int | None) -> list[str]:
    """``address:port`` of what the process, or one below it, listens on and other machines can reach.  Fails
    where it listens on nothing."""
    root = psutil.Process(pid)
    sockets = [
        each for process in (root, *root.children(recursive=True)) for each in process.net_connections()
    ]
    heard = [each.laddr for each in sockets if each.status == psutil.CONN_LISTEN]
    assert heard
    return [f"{at.ip}:{at.port}" for at in heard if not ip_address(at.ip).is_loopback]


def status(port: int, method: str, path: str, key: str | None, body: str = "{}") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
    try:
        connection.request(method, path, body if method == "POST" else None, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def refused(port: int, paths: list[tuple[str, str]], key: str) -> None:
    """Without the key, with another, and with most of it nobody gets in; with it anybody does."""
    for method, path in paths:
        for wrong in (None, "", "wrong", key[:-1], key + "x"):
            assert status(port, method, path, wrong) == 401, (method, path, wrong)
        assert status(port, method, path, key) != 401, (method, path)
