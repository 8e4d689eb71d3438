"""Engines of our own, simulated and transformers: servers that print the port they listen on."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from profiler.engines import routed
from profiler.engines.base import HERE, RoutingSource, RunningEngine, code_note, routing_note
from profiler.engines.gpus import visible_gpus
from profiler.engines.process import Launch, Started, get, start_server
from profiler.errors import EngineError
from profiler.schema import Endpoint, EngineFacts, Memory, Model
from profiler.settings import EngineSettings


class _Account(Memory, frozen=True, kw_only=True):
    """What GET /memory answers: the account, and where the model runs."""

    device: Literal["cpu", "cuda"] | None = None


class _Routing(Struct):
    """What GET /routing answers: how tokens find their experts, and the layers whose experts are told."""

    routing: str | None = None
    layers: tuple[int, ...] = ()
    experts: int | None = None
    notes: tuple[str, ...] = ()


def open_simulated(
    settings: EngineSettings, model: Model, workdir: Path, report: Callable[[str], None], host: str = HERE
) -> RunningEngine:
    """Start the simulated engine: a real server whose latency follows a law, with no model inside."""
    from profiler.engines import simulated

    argv = simulated.command(settings.args, model=model.name, host=host)
    key = secrets.token_urlsafe(24)
    started = _start(settings, argv, {simulated.API_KEY_VARIABLE: key}, workdir, report)
    facts = EngineFacts(
        kind="simulated",
        version=_version("moe-profiler"),
        device="none",
        argv=started.argv,
        start_s=started.start_s,
    )
    return _running(started, key, model, facts)


def open_transformers(
    settings: EngineSettings, model: Model, workdir: Path, report: Callable[[str], None], host: str = HERE
) -> RunningEngine:
    """Start the embedded engine on this machine's GPU, or on its CPU without one."""
    from profiler.engines import transformers

    argv = transformers.command(settings, model, workdir, host)
    key = secrets.token_urlsafe(24)
    started = _start(settings, argv, {transformers.API_KEY_VARIABLE: key}, workdir, report)
    account = read_account(started.port, key)
    _, told = get(started.port, "/routing", key=key)
    routing = msgspec.json.decode(told or b"{}", type=_Routing)
    facts = EngineFacts(
        kind="transformers",
        version=_version("transformers"),
        device=account.device or "cpu",
        routing=routing.routing,
        argv=started.argv,
        gpus=tuple(uuid for uuid, _ in visible_gpus(settings.env)[:1]) if account.device == "cuda" else (),
        start_s=started.start_s,
        weights=model.weights,
        notes=(*code_note(settings), *routing.notes, *routing_note(model, routing.routing)),
    )
    running = _running(started, key, model, facts)
    if not routing.layers or routing.experts is None:
        return running
    source = RoutingSource(
        says=f"transformers {facts.version}, what its experts were given",
        layers=routing.layers,
        experts=routing.experts,
        ask=lambda *asked: routed.ask(running.endpoint, *asked),
    )
    return msgspec.structs.replace(running, routing=source)


def missing_packages() -> list[str]:
    """What the embedded engine needs and this environment lacks."""
    return [name for name in ("torch", "transformers") if find_spec(name) is None]


def missing_advice(missing: list[str]) -> str:
    """What is missing, and how to install it."""
    return f"{', '.join(missing)} not installed; run `pip install 'moe-profiler[transformers]'`"


def phase(line: str) -> str | None:
    """Our servers say what they do in short lines that begin with a small letter."""
    return line if len(line) <= 60 and line[:1].islower() and not line.startswith("listening") else None


def read_account(port: int, key: str) -> _Account:
    """What the server says of its memory; an empty account where it keeps none."""
    status, body = get(port, "/memory", key=key)
    return msgspec.json.decode(body, type=_Account) if status == 200 else _Account()


def _start(
    settings: EngineSettings,
    argv: list[str],
    env: dict[str, str],
    workdir: Path,
    report: Callable[[str], None],
) -> Started:
    launch = Launch(
        name=settings.kind,
        argv=lambda _port: argv,
        timeout_s=settings.start_timeout_s,
        env=env | settings.env,
        announces_port=True,
        phase=phase,
    )
    return start_server(launch, workdir / "engine.log", report)


def _running(started: Started, key: str, model: Model, facts: EngineFacts) -> RunningEngine:
    def account() -> Memory:
        found = msgspec.structs.asdict(read_account(started.port, key))
        return Memory(**{name: found[name] for name in Memory.__struct_fields__})

    return RunningEngine(
        endpoint=Endpoint(
            base_url=f"http://127.0.0.1:{started.port}/v1",
            model=_served_model(started, key),
            api_key=key,
            vocab_size=model.facts.vocab_size if model.facts else None,
            pid=started.process.pid,
            metrics_url=f"http://127.0.0.1:{started.port}/metrics",
        ),
        facts=facts,
        log_path=started.process.log_path,
        process=started.process,
        account=account,
    )


def _served_model(started: Started, key: str) -> str:
    status, body = get(started.port, "/v1/models", key=key)
    if status != 200:
        started.process.stop()
        raise EngineError(f"the engine is up but GET /v1/models answers {status}", started.process.tail(8))
    return str(msgspec.json.decode(body)["data"][0]["id"])


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
