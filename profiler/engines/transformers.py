"""The embedded engine: how to start :mod:`profiler.engines.transformers_server` (imports no torch)."""

from __future__ import annotations

import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from profiler.engines.base import HERE, wanted_routing
from profiler.errors import InputError, nearest
from profiler.schema import Model
from profiler.settings import EngineSettings

CONFIG_NAME = "transformers_server.json"
API_KEY_VARIABLE = "PROFILER_API_KEY"

OLDEST = "5.18"  # of the continuous batching that can be paused

Positive = Annotated[int, Meta(ge=1)]


class EngineArgs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[engine.args]`` of the transformers engine; names and meanings are the library's own.

    ``num_blocks`` × ``page_size`` tokens is the key-value cache; ``max_batch_tokens`` the most tokens
    in one forward pass (decoding requests first, the rest is prefill); None leaves the choice to the
    engine (:func:`profiler.engines.transformers_model.batching`).  ``threads`` None is one per physical
    core.  ``seed`` draws random weights.  ``trust_remote_code``: Python files that came with the model run,
    with all that the user may do.
    """

    num_blocks: Positive | None = None
    page_size: Annotated[int, Meta(ge=4)] | None = None
    max_batch_tokens: Positive | None = None
    max_requests_per_batch: Positive | None = None
    allow_block_sharing: bool = False
    experts_implementation: Literal["grouped_mm", "batched_mm", "eager"] | None = None
    attn_implementation: str | None = None
    threads: Positive | None = None
    seed: Annotated[int, Meta(ge=0)] = 0
    trust_remote_code: bool = False


class ServerConfig(Struct, frozen=True, kw_only=True):
    """What the server process reads: which model, from where, and how to run it.

    ``routing`` is None for a model without experts; ``routing_asked`` whether a user named it.
    """

    name: str
    weights: Literal["hub", "local", "random"]
    dtype: Literal["bfloat16", "float16", "float32"]
    args: EngineArgs
    config: dict[str, Any] | None = None
    folder: str | None = None
    max_model_len: int | None = None
    routing: str | None = None
    routing_asked: bool = False


def command(settings: EngineSettings, model: Model, workdir: Path, host: str = HERE) -> list[str]:
    """The argv of the server for ``model``; its settings are written to ``workdir``.

    The server takes its API key from the environment variable ``PROFILER_API_KEY``.
    Raises InputError when torch or transformers is not installed or too old, or a setting cannot be used.
    """
    config = server_config(settings, model)
    path = workdir / CONFIG_NAME
    path.write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2))
    module = [sys.executable, "-m", "profiler.engines.transformers_server"]
    return [*module, "--config", str(path), "--host", host]


def server_config(settings: EngineSettings, model: Model) -> ServerConfig:
    """Check everything that can be checked without loading the model.  Raises InputError."""
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"engine transformers needs {' and '.join(missing)}: pip install 'moe-profiler[transformers]'"
        )
    if _release(found := version("transformers")) < _release(OLDEST):
        raise InputError(
            f"engine transformers needs transformers {OLDEST} or newer, here is {found}: "
            "pip install 'moe-profiler[transformers]'"
        )
    if model.weights == "remote" or model.weights == "unknown":  # noqa: PLR1714  mypy narrows by ==
        raise InputError(f"engine transformers has no weights for {model.name!r}: use --engine endpoint")
    if model.weights == "random" and model.config is None:
        raise InputError(f"random weights of {model.name!r} need its config: give a folder or a catalog name")
    if model.weights == "local" and model.folder is None:
        raise InputError(f"model {model.name!r} has no folder to load its weights from")
    if (settings.tensor_parallel or 1) > 1:
        raise InputError("engine.tensor_parallel: engine transformers uses one device; use --engine vllm")
    return ServerConfig(
        name=model.name,
        weights=model.weights,
        dtype=settings.dtype,
        args=engine_args(settings.args),
        config=model.config,
        folder=model.folder,
        max_model_len=settings.max_model_len,
        routing=wanted_routing(settings, model),
        routing_asked=settings.routing != "auto",
    )


def _release(of: str) -> tuple[int, ...]:
    return tuple(int(part) for part in of.split(".")[:2])


def engine_args(args: dict[str, Any]) -> EngineArgs:
    """``[engine.args]`` with types checked; an unknown name raises InputError with the nearest known one."""
    for name in args:
        if name not in EngineArgs.__struct_fields__:
            hint = nearest(name, EngineArgs.__struct_fields__)
            raise InputError(f"engine.args.{name}: engine transformers has no such argument{hint}")
    try:
        return msgspec.convert(args, EngineArgs)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise InputError(f"engine.args.{where.rstrip('`')}: {what[:1].lower()}{what[1:]}") from None
