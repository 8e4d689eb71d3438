"""A server that somebody else runs, reached by its URL; nothing is started, nothing is asked here."""

from __future__ import annotations

import os
from ipaddress import ip_address
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct, ValidationError, convert

from profiler.engines.base import RunningEngine
from profiler.errors import InputError
from profiler.schema import Endpoint, EngineFacts, Model
from profiler.settings import EngineSettings

_ROUTES = ("/chat/completions", "/completions", "/models")


class EndpointArgs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``engine.args`` of an endpoint.  ``key_env`` names the environment variable with the API key."""

    url: str
    key_env: str | None = None
    protocol: Literal["completions", "chat"] | None = None
    served_model: str | None = None


def open_endpoint(settings: EngineSettings, model: Model) -> RunningEngine:
    """The endpoint as the load generator will try it first; whether it answers, and whether it takes
    token ids, is for a probe to find out.  Raises InputError for a bad URL, key or argument.
    """
    args = parse_args(settings.args)
    base_url = normalise_url(args.url)
    return RunningEngine(
        endpoint=Endpoint(
            base_url=base_url,
            model=args.served_model or model.name,
            api_key=_key(args.key_env),
            protocol=args.protocol or "completions",
            vocab_size=None,  # a served name proves no shape, and an id too large can kill the server
        ),
        facts=EngineFacts(
            kind="endpoint",
            version=None,
            device="none" if is_here(settings.args) else "remote",
            argv=(base_url,),
            weights=model.weights,
        ),
    )


def is_here(args: dict[str, Any]) -> bool:
    """Whether the server runs on this machine, whose energy is then its own; raises InputError."""
    host = urlsplit(normalise_url(parse_args(args).url)).hostname or ""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified


def parse_args(args: dict[str, Any]) -> EndpointArgs:
    """Check ``engine.args`` of an endpoint; raises InputError."""
    if "url" not in args:
        raise InputError("engine endpoint needs the server's address; give --url http://host:port/v1")
    try:
        return convert(args, EndpointArgs)
    except ValidationError as error:
        raise InputError(f"engine.args of an endpoint: {error}") from None


def normalise_url(url: str) -> str:
    """The base URL, ending in ``/v1`` or in the version the server uses (``/v4``, ``/v1beta/openai``).

    Takes a bare host, a base URL, or the URL of a route such as ``…/v1/chat/completions``.
    User name, password, query and fragment are refused: they would reach the run folder.
    """
    if set("@?#") & set(url):  # said before anything else is, for messages show the URL
        raise InputError("--url holds more than scheme, host, port and path; pass a key by --key-env NAME")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
    except ValueError:
        raise InputError(f"{url!r} is not the URL of a server; give --url http://host:port/v1") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{url!r} is not the URL of a server; give --url http://host:port/v1")
    try:
        _ = parts.port
    except ValueError:
        raise InputError(f"{url!r} has no valid port; give --url http://host:port/v1") from None
    path = parts.path.rstrip("/")
    for route in _ROUTES:
        path = path.removesuffix(route)
    return urlunsplit((parts.scheme, parts.netloc, path or "/v1", "", ""))


def _key(key_env: str | None) -> str | None:
    if key_env is None:
        return None
    key = os.environ.get(key_env, "").strip()
    if not key:
        raise InputError(f"the environment variable {key_env} is not set; export it with the API key")
    if not (key.isascii() and key.isprintable()):
        raise InputError(
            f"the environment variable {key_env} holds characters that no API key has (line ends, control or "
            "non-ASCII characters); export the key alone"
        )
    return key
