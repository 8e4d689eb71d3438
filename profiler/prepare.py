"""Argument words → a Plan: everything is resolved and checked before anything is started or written."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
from msgspec import Struct, field

from profiler import experts, host, models, plain, procfs, scenario, secret, store
from profiler.engines import Kind, boards, check_engine, choose_kind
from profiler.errors import InputError, nearest
from profiler.host_facts import differences
from profiler.loadgen.files import most_connections
from profiler.loadgen.worker import LoadWorker
from profiler.schema import Endpoint, Gpu, Host, Model, Price
from profiler.settings import EngineSettings, Scenario, Search
from profiler.store import RunResult

ENGINES = get_args(get_type_hints(EngineSettings)["kind"])
FINDS = get_args(get_type_hints(Search)["find"])
DEFAULT_SCENARIO = "chat"
PROBE_TIMEOUT_S = 20.0
LAUNCHED = ("vllm", "transformers")
BOOT_TOLERANCE_NS = 60 * 10**9  # the calendar clock may be stepped a little


class Request(Struct, frozen=True, kw_only=True):
    """What a user asked of ``profile run``, word for word.  ``slo`` holds limits ("500ms") by name."""

    models: Sequence[str]
    scenario: str = DEFAULT_SCENARIO
    overrides: Sequence[str] = ()
    engine: str | None = None
    url: str | None = None
    key_env: str | None = None
    weights: str = "auto"
    price: str | None = None
    out: Path = Path("results")
    find: str | None = None
    slo: Mapping[str, str] = field(default_factory=dict)
    max_failed: str | None = None
    devices: str | None = None


class Wanted(Struct, frozen=True, kw_only=True):
    """What is measured under a scenario that is complete, and where its runs go; as in :class:`Request`."""

    models: Sequence[str]
    weights: str = "auto"
    price: str | None = None
    out: Path = Path("results")


class Plan(Struct, frozen=True, kw_only=True):
    """All that is decided before anything starts; ``settings[i]`` belongs to ``models[i]``.  A model that is
    to be routed in several ways is there as often.

    ``resumed`` holds the interrupted runs to go on with, one a model, or is empty; so is ``probed`` unless
    the models are served already, and these endpoints were asked how they talk.  ``prompt_salt`` sets the
    prompts apart from those an endpoint may still hold in its prefix cache, of a run resumed among them.
    """

    scenario: Scenario
    models: tuple[Model, ...]
    settings: tuple[EngineSettings, ...]
    host: Host
    out: Path
    exclusive: bool
    price: Price | None = None
    resumed: tuple[RunResult, ...] = ()
    probed: tuple[Endpoint, ...] = ()
    notes: tuple[str, ...] = ()
    group: str = field(default_factory=lambda: os.urandom(4).hex())
    prompt_salt: int = field(default_factory=lambda: int.from_bytes(os.urandom(4)))


def ask_alone(endpoint: Endpoint, timeout_s: float) -> Endpoint:
    """:meth:`LoadWorker.ask` of a load process that is started for this question."""
    with LoadWorker() as worker:
        return worker.ask(endpoint, timeout_s)


def prepare(request: Request, ask: Callable[[Endpoint, float], Endpoint] = ask_alone) -> Plan:
    """Resolve models, scenario, engine, price and fit.

    ``ask`` finds out how a server talks that is already running (see :meth:`LoadWorker.ask`).  Raises
    InputError, with the mend, for anything that cannot work; leaves nothing running and writes nothing.
    """
    what = scenario.load(request.scenario, _overrides(request))
    if request.key_env and not (request.url or request.engine == "endpoint"):
        raise InputError("--key-env names the key of a server: it goes with --url")
    wanted = Wanted(models=request.models, weights=request.weights, price=request.price, out=request.out)
    return of(what, wanted, ask)


def of(
    what: Scenario,
    wanted: Wanted,
    ask: Callable[[Endpoint, float], Endpoint] = ask_alone,
    machine: Host | None = None,
) -> Plan:
    """:func:`prepare` for a scenario that is resolved already.  ``machine``: this one, where it was looked at
    before; it is looked at anew unless given."""
    _check_words(wanted)
    plain.check_name(what.name, "the scenario's name")
    _check_connections(what)
    _check_machines(what)
    if not wanted.models and what.engine.kind != "endpoint":
        raise InputError("which model? give --model NAME (`profile list models` shows what is known)")
    boards(what.engine, what.telemetry.devices)  # refuses GPUs that are not here
    machine = machine or host.collect()
    probed = _probed(wanted, what.engine, ask)
    named = tuple(models.remote(each.model) for each in probed) or _models(wanted, what.engine)
    kind = choose_kind(what.engine)
    price = price_of(wanted.price, machine.gpus if kind in LAUNCHED else ())
    routings = _routings(what.engine)
    chosen = tuple(model for model in named for _ in routings)
    settings = tuple(
        _settings(model, what, msgspec.structs.replace(what.engine, kind=kind, routing=routing), machine)
        for model in named
        for routing in routings
    )
    store.check_writable(wanted.out)
    return Plan(
        scenario=what,
        models=chosen,
        settings=settings,
        host=machine,
        out=wanted.out,
        exclusive=_exclusive(what, kind, machine, chosen, settings),
        price=price,
        probed=probed,
        notes=_notes(what, kind, machine, chosen, settings),
    )


def _routings(engine: EngineSettings) -> tuple[str, ...]:
    """Each is a run of its own: one of the model's own routing and one of another show what skew costs."""
    asked = engine.routing
    if isinstance(asked, str):
        return (asked,)
    named = {each if each == "auto" else experts.parse(each) for each in asked}
    if not asked or len(named) < len(asked):
        raise InputError(f"engine.routing = {list(asked)}: name at least one, each once")
    if len(asked) > 1 and "auto" in asked:
        raise InputError("engine.routing: auto stands for one of the others; name those, as in model,uniform")
    return asked


def _settings(model: Model, what: Scenario, settings: EngineSettings, machine: Host) -> EngineSettings:
    """The engine settings of one run, its size fitted to this machine."""
    if settings.kind in LAUNCHED:
        from profiler import fit

        memory = fit.available_memory_bytes()
        settings = fit.check_fit(model, settings, what.workload, what.load, machine.gpus, memory)
    check_engine(settings, model)
    if what.routing.record == "on":
        from profiler import routing_pass

        reason = routing_pass.missing(what, settings, model)
        if reason not in (None, routing_pass.NOT_YET):
            raise InputError(f"routing.record = on, but {reason}; leave it at auto")
    return settings


def _notes(
    what: Scenario, kind: Kind, machine: Host, chosen: tuple[Model, ...], settings: tuple[EngineSettings, ...]
) -> tuple[str, ...]:
    """What a user should know before the start, each once."""
    found = [f"{model.name}: {note}" for model in chosen for note in model.notes]
    if kind in LAUNCHED:
        from profiler import fit

        memory = fit.available_memory_bytes()
        queues = [
            (model.name, fit.queue_note(model, each, what.workload, what.load, machine.gpus, memory))
            for model, each in zip(chosen, settings, strict=True)
        ]
        found += [f"{name}: {note}" for name, note in queues if note]
    return tuple(dict.fromkeys(found))


def afresh(plan: Plan) -> Plan:
    """The same once more, as runs of their own: other prompts, and another seed of the simulated engine's
    jitter, unless one is said."""
    return msgspec.structs.replace(
        plan,
        settings=tuple(map(_reseeded, plan.settings)),
        group=os.urandom(4).hex(),
        prompt_salt=int.from_bytes(os.urandom(4)),
    )


def _reseeded(settings: EngineSettings) -> EngineSettings:
    if settings.kind != "simulated":
        return settings
    seed = int.from_bytes(os.urandom(4))
    return msgspec.structs.replace(settings, args={"seed": seed, **settings.args})


def resume(folder: Path) -> Plan:
    """The plan of an interrupted run, with the runs it was interleaved with, to be completed.

    Raises InputError when the folder is sealed, the machine or its software has changed since, or it has
    been restarted (its monotonic clock began anew, so old and new windows cannot share a folder).
    """
    run = store.load(folder)
    if run.manifest.status == "complete":
        store.tidy(folder)
        raise InputError(f"{folder} is complete; nothing is left to resume")
    around = store.group(folder.absolute().parent, run.manifest.group)
    group = [each for each in around if each.manifest.status != "complete"]
    _check_same_plan(run)
    machine = host.collect()
    _check_same_machine(run, machine)
    first = run.manifest
    return Plan(
        scenario=first.scenario,
        models=tuple(each.manifest.model for each in group),
        settings=tuple(each.manifest.settings for each in group),
        host=machine,
        out=folder.parent,
        exclusive=first.exclusive,
        price=first.price,
        resumed=tuple(group),
        notes=tuple(store.absent(run)),
        group=first.group,
    )


def _check_same_plan(run: RunResult) -> None:
    """A trace is named in the manifest, not held in it."""
    plan = run.manifest.scenario
    if scenario.digest(plan) != run.manifest.scenario_hash:
        what = f"its trace {plan.load.trace}" if plan.load.trace else "its plan"
        raise InputError(f"{run.folder}: {what} is not what it was when this run began; measure it anew")


def _check_same_machine(run: RunResult, machine: Host) -> None:
    differing = differences(run.manifest.host, machine)
    if differing:
        raise InputError(f"{run.folder} was begun on another machine or software: {'; '.join(differing)}")
    if not _is_same_boot(run):
        raise InputError(f"{run.folder} was begun before this machine restarted; measure it anew")


def _is_same_boot(run: RunResult) -> bool:
    """By the calendar only where nothing better is known: that may be set, and stands still in no sleep."""
    then, now = run.manifest.boot_id, procfs.boot_id()
    if then is not None and now is not None:
        return then == now
    boot_then = run.manifest.unix_ns - run.manifest.clock_ns
    boot_now = time.time_ns() - time.perf_counter_ns()
    return abs(boot_now - boot_then) <= BOOT_TOLERANCE_NS


def _check_connections(what: Scenario) -> None:
    """A slot needs a connection of its own, and a connection is an open file."""
    for point in scenario.points(what):
        each = math.ceil((point.concurrency or 0) / ((what.load.processes or 1) * what.load.machines))
        if each > most_connections():
            raise InputError(
                f"load: {point.concurrency} requests at once need as many open files, a process may have "
                f"{most_connections()}; raise the limit (ulimit -n) or spread them: --set load.processes="
                f"{math.ceil((point.concurrency or 0) / most_connections())}"
            )


def _check_machines(what: Scenario) -> None:
    if what.load.machines > 1:
        from profiler.cluster import remote_load

        remote_load.check(what.load.machines)


def _check_words(wanted: Wanted) -> None:
    """Refuse words that would otherwise have no effect."""
    if wanted.weights not in models.WEIGHTS:
        raise InputError(f"--weights {wanted.weights}: no such kind{nearest(wanted.weights, models.WEIGHTS)}")
    if any(not name.strip() for name in wanted.models):
        raise InputError("--model: the name is empty")
    for name in wanted.models:
        plain.check_name(name, "--model")


def _fraction(text: str) -> float:
    """``1%`` or ``0.01``."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InputError(f"--max-failed {text}: expected a share of the requests such as 1% or 0.01")
    return value


def _asked(request: Request) -> list[str]:
    """The scenario fields that options of their own stand for."""
    words = [f"slo.{name}={limit}" for name, limit in request.slo.items()]
    if request.max_failed is not None:
        words.append(f"max_failed_frac={_fraction(request.max_failed)}")
    if request.find is not None:
        if request.find not in FINDS:
            raise InputError(f"--find {request.find}: no such thing to find{nearest(request.find, FINDS)}")
        # Capacity is a rate of requests, unless --set load.mode=closed comes after.
        words += [f"search.find={request.find}", "load.mode=open"]
    if request.devices is not None:
        named = [each.strip() for each in request.devices.split(",")]
        words.append(f"telemetry.devices={msgspec.json.encode(named).decode()}")
    return words


def _overrides(request: Request) -> list[str]:
    words = [*_asked(request), *request.overrides]
    if request.engine is not None:
        if request.engine not in ENGINES:
            raise InputError(f"--engine {request.engine}: no such engine{nearest(request.engine, ENGINES)}")
        words.append(f"engine.kind={request.engine}")
    if request.url is not None:
        if request.engine not in (None, "endpoint"):
            raise InputError(f"--url goes with --engine endpoint, not {request.engine}")
        words += ["engine.kind=endpoint", f"engine.args.url={request.url!r}"]
    if request.key_env is not None:
        words.append(f"engine.args.key_env={request.key_env!r}")
    return words


def _models(wanted: Wanted, engine: EngineSettings) -> tuple[Model, ...]:
    """The simulated engine serves names of its own; all others are resolved."""
    if engine.kind == "simulated":
        return tuple(models.remote(name) for name in wanted.models)
    return tuple(models.resolve(name, wanted.weights) for name in wanted.models)


def _probed(
    wanted: Wanted, engine: EngineSettings, ask: Callable[[Endpoint, float], Endpoint]
) -> tuple[Endpoint, ...]:
    """Ask a server that is already running whether it serves these models; none named: its only one."""
    if engine.kind != "endpoint":
        return ()
    from profiler.engines.endpoint import open_endpoint

    named = (Model(name=name, weights="remote") for name in wanted.models or ("",))
    return tuple(ask(open_endpoint(engine, model).endpoint, PROBE_TIMEOUT_S) for model in named)


def _exclusive(
    what: Scenario,
    kind: Kind,
    machine: Host,
    chosen: tuple[Model, ...],
    settings: tuple[EngineSettings, ...],
) -> bool:
    """One engine at a time on GPUs, whose memory an engine takes whole; elsewhere all stay up if they fit."""
    if what.measure.residency != "auto" or kind not in LAUNCHED:
        return what.measure.residency == "exclusive"
    if machine.gpus:
        return True
    from profiler import fit

    needed = [
        fit.least_bytes(model, each, what.workload, what.load)
        for model, each in zip(chosen, settings, strict=True)
    ]
    return sum(each or 0 for each in needed) > fit.available_memory_bytes()


def price_of(text: str | None, gpus: tuple[Gpu, ...]) -> Price | None:
    """The price asked for, else the catalog's for this GPU, else none (a CPU machine has no list price)."""
    gpu = gpus[0].name if gpus else None
    if text is not None:
        from profiler import prices

        return prices.parse(text, gpu)
    if not gpus:
        return None
    from profiler import catalog

    return catalog.default_price(gpus[0])


def without_secrets(settings: EngineSettings) -> EngineSettings:
    """The settings as they may stand in a manifest: tokens, keys and URLs with such in them are left out, not
    masked, so that a resumed run takes them from the environment again."""
    return msgspec.structs.replace(
        settings, env=secret.left_out(settings.env), args=secret.left_out(settings.args)
    )
