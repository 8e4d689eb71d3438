"""Which experts the tokens of a vLLM engine go to: chosen by us, and recorded.  The side outside vLLM.

Nothing here is in an engine that is timed while the model routes for itself.  What a version can do is read
from its files, since importing vLLM takes seconds.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from profiler.engines import routed, vllm_inside
from profiler.engines.base import Routed, RoutingSource, wanted_routing
from profiler.engines.process import get
from profiler.engines.vllm_inside import ROUTING_VARIABLE, STRATEGY
from profiler.errors import EngineError, InputError
from profiler.schema import Endpoint, Model
from profiler.settings import EngineSettings

WORKER = {"worker-extension-cls": "profiler.engines.vllm_worker.WorkerRouting"}
ANSWERS = {"middleware": f"{vllm_inside.__name__}.RoutedAnswers"}
FLAG = "enable-return-routed-experts"
RECORD_TIMEOUT_S = 60.0

Device = Literal["cpu", "cuda"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is started with beyond its own arguments, the routing it then has, and why."""

    routing: str | None
    arguments: dict[str, Any] = {}
    env: dict[str, str] = {}
    notes: tuple[str, ...] = ()


class _Worker(msgspec.Struct):
    """What a worker says (``vllm_worker.WorkerRouting.profiler_routing``)."""

    layers: tuple[int, ...]
    experts: int
    routing: tuple[str, ...]


def plan(settings: EngineSettings, model: Model, device: Device, given: Mapping[str, Any]) -> Plan:
    """How the engine is given the routing that ``settings`` ask for; ``given`` are the server's arguments.

    Raises InputError where another routing than the model's is asked for by name and cannot be had.
    """
    theirs, asked = settings.env.get(ROUTING_VARIABLE), settings.routing != "auto"
    wanted = wanted_routing(settings, model)
    if theirs:
        if asked:
            raise InputError(
                f"engine.routing and engine.env.{ROUTING_VARIABLE} both choose experts; drop one"
            )
        return Plan(routing=None, notes=(f"experts are chosen by vLLM's simulation {theirs!r}, engine.env",))
    if wanted is None or wanted == "model":
        # A strategy that the shell has for other purposes would be no model's routing.
        return Plan(routing=wanted, env={ROUTING_VARIABLE: ""} if os.environ.get(ROUTING_VARIABLE) else {})
    reason = _not_ours(device, given)
    if reason is None:
        return Plan(routing=wanted, arguments=WORKER, env={ROUTING_VARIABLE: STRATEGY + wanted})
    if asked:
        raise InputError(f"engine.routing = {wanted!r}: {reason}; only 'model' can be had")
    return Plan(routing="model", notes=(f"experts are chosen by the router that the weights make: {reason}",))


def recorder_plan(device: Device) -> Plan:
    """What tells the routing: vLLM's own flag, which on a CPU it refuses; there, hooks on its routers."""
    eager = {"enforce-eager": True} | WORKER
    if device == "cuda":
        # The cached part of a prompt is told only by versions that keep its routing beside the cache.
        beside_cache = {"enable-prefix-caching": True} if _text("config/aux_output.py") else {}
        return Plan(routing=None, arguments={FLAG: True} | eager | beside_cache)
    hooks = {"enable-prefix-caching": False} | eager | ANSWERS
    return Plan(routing=None, arguments=hooks, env={"VLLM_USE_V2_MODEL_RUNNER": "0"})


def unknown(settings: EngineSettings, device: Device) -> str | None:
    """Why this vLLM does not tell its experts; None where it does as far as its files say."""
    names = {name.replace("_", "-"): value for name, value in settings.args.items()}
    taken = _taken(set(names))
    if taken:
        return taken
    if names.get("pipeline-parallel-size", 1) != 1:
        return "vLLM does not tell the experts of a model in pipeline stages"
    if device == "cpu":
        return None if _cpu_routers() else "this CPU build of vLLM does not tell its experts; 0.32 does"
    known = FLAG.replace("-", "_") in _text("engine/arg_utils.py")
    return None if known else "this vLLM does not return the experts it used; 0.21 and later do"


def really(port: int, key: str, planned: Plan) -> Plan:
    """The plan with the routing that the workers say they have."""
    if planned.routing in (None, "model"):
        return planned
    found = {each for worker in _workers(port, key) for each in worker.routing}
    if found == {planned.routing}:
        return planned
    if found == {"model"}:
        note = f"experts are chosen by vLLM's kernel from the weights, {planned.routing} was asked for"
        return Plan(routing="model", notes=(note,))
    note = f"experts are chosen in different ways by different layers, {planned.routing} was asked for"
    return Plan(routing=None, notes=(note,))


def source(endpoint: Endpoint, planned: Plan, version: str | None) -> RoutingSource:
    """What tells the routing of a server started with ``recorder_plan``.  Raises EngineError."""
    port, key = urlsplit(endpoint.base_url).port or 80, endpoint.api_key or ""
    told = _workers(port, key)[0]  # the first sees all tokens and holds all layers
    native = FLAG in planned.arguments
    if not native and get(port, vllm_inside.RECORD_PATH, RECORD_TIMEOUT_S, key)[0] != HTTPStatus.OK:
        raise EngineError("vLLM's workers keep no account of the experts they use")

    def ask(prompt: list[int], output_tokens: int, timeout_s: float) -> Routed:
        found = routed.ask(endpoint, prompt, output_tokens, timeout_s)
        # vLLM's own answer has a row for every layer of the model, of zeros where none routes.
        return found._replace(experts=found.experts[:, list(told.layers)]) if native else found

    how = f"--{FLAG}" if native else "hooks on its routers"
    return RoutingSource(says=f"vLLM {version}, {how}", layers=told.layers, experts=told.experts, ask=ask)


def _workers(port: int, key: str) -> list[_Worker]:
    status, body = get(port, vllm_inside.ROUTING_PATH, key=key)
    if status != HTTPStatus.OK:
        why = body[:300].decode(errors="replace")
        raise EngineError(
            f"vLLM's workers do not tell their routing, engine.routing = 'model' asks nothing of them: {why}"
        )
    return msgspec.json.decode(body, type=list[_Worker])


def _not_ours(device: Device, given: Mapping[str, Any]) -> str | None:
    """Why no router of ours can be put into this vLLM; None where it can."""
    taken = _taken({name for name, value in given.items() if value != vllm_inside.OPTIONS.get(name)})
    if taken:
        return taken
    if "RoutingSimulatorRouter" not in _text(f"{_ROUTERS}/router_factory.py"):
        return "this vLLM has no routing simulation that a router can be put into; 0.32 has"
    return None if device == "cuda" or _cpu_routers() else "this CPU build of vLLM asks no router; 0.32 does"


def _taken(names: set[str]) -> str | None:
    mine = sorted(names & vllm_inside.OPTIONS.keys())
    return f"engine.args.{mine[0].replace('-', '_')} takes the place of what would do it" if mine else None


_ROUTERS = "model_executor/layers/fused_moe/router"


def _cpu_routers() -> bool:
    """Whether a layer on a CPU asks a router, and that tells what it chose."""
    told = "set_capture_fn" in _text(f"{_ROUTERS}/base_router.py")
    return told and bool(_text(f"{_ROUTERS}/cpu_router.py"))


def _text(path: str) -> str:
    """A file of the installed vLLM; empty where this version has none of that name."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return ""
    file = Path(spec.origin).parent / path
    return file.read_text(encoding="utf-8") if file.is_file() else ""
