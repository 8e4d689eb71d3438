"""Reaching a Ray cluster.

Ray itself waits two minutes for an address at which no cluster is, and then ends the process; so the
address is asked first whether anything there speaks gRPC.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import socket
from collections.abc import Iterator
from typing import Any

from profiler import secret
from profiler.errors import InputError

AUTO, LOCAL = "auto", "local"
ANSWER_S = 5.0
# What an HTTP/2 client says first (RFC 9113, 3.4), with empty settings; a gRPC server answers with its own.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS = 4
GET_RAY = "pip install 'moe-profiler[ray]'"
START_ONE = "start one with `ray start --head`, or take --ray local"
# The driver's requests to a cluster that has gone are to end, not to wait for it to come back; engines of a
# cluster that we begin are to stand behind nobody (see :func:`profiler.cluster.nodes.restore_priority`).
SETTINGS_OF_RAY = {
    "RAY_gcs_rpc_server_reconnect_timeout_s": "30",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@contextlib.contextmanager
def connected(address: str = AUTO) -> Iterator[str]:
    """This process as the driver of a cluster, and the address of that; it leaves it at the end.

    ``auto``: the cluster this machine belongs to (RAY_ADDRESS, or one that ``ray start`` began here);
    ``local``: one that is begun on this machine and ended here; else ``HOST:PORT``.  A process that is
    connected already stays so.  Raises InputError, one line, where there is none that can be used.
    """
    ray = load()
    if ray.is_initialized():
        yield str(ray.get_runtime_context().gcs_address)
        return
    wanted = address if address == LOCAL else found(address)
    with _token_of_its_own() if address == LOCAL else contextlib.nullcontext():
        try:
            _begin(ray, wanted)
            yield str(ray.get_runtime_context().gcs_address)
        finally:
            ray.shutdown()


def load() -> Any:
    """The package; raises InputError where it is missing or broken."""
    os.environ.update({name: os.environ.get(name, value) for name, value in SETTINGS_OF_RAY.items()})
    try:
        import ray
    except Exception as error:  # what it imports on its way may raise anything
        raise InputError(_why_not(error)) from None
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    return ray


def _why_not(error: Exception) -> str:
    if isinstance(error, ImportError) and error.name == "ray":
        return f"--ray needs the package ray: {GET_RAY}"
    what = " ".join(f"{type(error).__name__}: {error}".split())
    mend = "; `pip uninstall amdsmi`, which is of no use without AMD's library" if "amd" in what else ""
    return f"ray cannot be imported ({what}){mend}"


def found(address: str) -> str:
    """``host:port`` of a cluster that answers; raises InputError."""
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS") or _of_this_machine()
    if "://" in address:
        raise InputError(
            f"--ray {secret.without(address)}: give the cluster's own address (HOST:6379) on one of its "
            "machines, or submit the sweep there as a job"
        )
    host, colon, port = address.rpartition(":")
    if not (colon and host and re.fullmatch(r"\d{1,5}", port)):
        raise InputError(
            f"--ray {secret.without(address)}: expected auto, local or HOST:PORT, such as 10.0.0.5:6379"
        )
    _check_answers(address, host.strip("[]"), int(port))
    return address


def _of_this_machine() -> str:
    from ray._private.services import canonicalize_bootstrap_address

    try:
        here = canonicalize_bootstrap_address(AUTO)
    except ConnectionError:
        here = None
    if not here:
        raise InputError(f"--ray auto: no Ray cluster runs on this machine; {START_ONE}")
    return str(here)


def _check_answers(address: str, host: str, port: int) -> None:
    try:
        with socket.create_connection((host, port), ANSWER_S) as asked:
            asked.settimeout(ANSWER_S)
            asked.sendall(PREFACE)
            header = asked.recv(9)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"--ray {address}: no Ray cluster answers there ({why}); {START_ONE}") from None
    if len(header) < len(PREFACE[-9:]) or header[3] != SETTINGS:
        raise InputError(
            f"--ray {address}: what answers there is no Ray cluster; its port is the one that `ray start` "
            f"prints, 6379 unless told otherwise"
        )


@contextlib.contextmanager
def _token_of_its_own() -> Iterator[None]:
    """For a cluster that ends with us.  Ray would write one to ``~/.ray`` for good, and each ``ray start``
    on this machine would ask for it from then on."""
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    if any(name in os.environ for name in (*own, "RAY_AUTH_TOKEN_PATH")):
        yield
        return
    os.environ.update(own)
    _read_token_anew()
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)
        _read_token_anew()


def _read_token_anew() -> None:
    from ray._raylet import AuthenticationTokenLoader, Config

    AuthenticationTokenLoader.instance().reset_cache()
    Config.initialize("")  # the mode is kept there


def _begin(ray: Any, address: str) -> None:
    where: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            configure_logging=False,
            **where,
        )
    except (RuntimeError, OSError, ValueError, ray.exceptions.RayError) as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        first = secret.without(first, secret.values(os.environ))
        raise InputError(f"--ray {address}: {first}{_token_advice(str(error))}") from None
    _quiet()


def _token_advice(text: str) -> str:
    if "token" not in text.lower():
        return ""
    return "; the cluster's token belongs into RAY_AUTH_TOKEN here (`ray get-auth-token` prints it there)"


def _quiet() -> None:
    """Ray prints what its daemons say, a page for each that dies, to the terminal of whoever watches; what
    matters of it we say."""
    from ray._private import worker

    worker.print_to_stdstream = lambda *_said, **_how: None
