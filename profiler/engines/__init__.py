"""Engines: vLLM, transformers, a remote endpoint, the simulated one; each yields an address to load.

Every engine that is started here runs below a supervisor (:mod:`profiler.engines.supervise`) and is
gone when the ``with`` block ends, whichever way it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from msgspec import structs

from profiler import experts
from profiler.engines.base import EVERYWHERE, HERE, RunningEngine, wanted_routing
from profiler.errors import InputError
from profiler.schema import Model, ProbeStatus
from profiler.settings import EngineSettings

__all__ = [
    "RunningEngine",
    "available_engines",
    "boards",
    "check_engine",
    "choose_kind",
    "open_engine",
    "open_recorder",
    "routing_unknown",
]

Kind = Literal["vllm", "transformers", "endpoint", "simulated"]


@contextmanager
def open_engine(
    settings: EngineSettings,
    model: Model,
    workdir: Path,
    report: Callable[[str], None],
    to_others: bool = False,
) -> Iterator[RunningEngine]:
    """Start the engine that ``settings`` asks for, or address the remote one, and stop it at the end.

    ``workdir`` exists; the engine's log is ``workdir/engine.log``.  ``report`` gets one short line about
    every second until the engine answers.  ``to_others``: other machines reach it too.  Raises InputError
    when the engine cannot be used here or an argument is wrong, EngineError when it does not start.
    """
    host = EVERYWHERE if to_others else HERE
    engine = _open(choose_kind(settings), settings, model, workdir, report, host)
    try:
        yield engine
    finally:
        if engine.process is not None:
            engine.process.stop()


@contextmanager
def open_recorder(
    settings: EngineSettings, model: Model, workdir: Path, report: Callable[[str], None]
) -> Iterator[RunningEngine]:
    """As :func:`open_engine`, an engine that tells its routing (``RunningEngine.routing``) whatever that
    costs in speed: nothing may be timed in it."""
    kind = choose_kind(settings)
    if kind != "vllm":  # it costs nothing to be asked
        with open_engine(settings, model, workdir, report) as engine:
            yield engine
        return
    from profiler.engines import vllm

    engine = vllm.open_recorder(structs.replace(settings, kind=kind), model, workdir, report)
    try:
        yield engine
    finally:
        if engine.process is not None:
            engine.process.stop()


def routing_unknown(settings: EngineSettings, model: Model) -> str | None:
    """Why the experts of this model cannot be recorded with these settings; None where they can, as far as
    can be known before it runs.  Starts and asks nothing."""
    kind = choose_kind(settings)
    if kind == "simulated":
        return "the simulated engine has no experts"
    if kind == "endpoint":
        return "a server that runs already does not tell which experts it uses"
    if model.facts is None:
        return f"the architecture of {model.name} is not known"
    if kind == "vllm":
        from profiler.engines import vllm

        return vllm.routing_unknown(settings)
    return None


def choose_kind(settings: EngineSettings) -> Kind:
    """The engine that ``auto`` stands for here: vLLM with a GPU and its CUDA build, else transformers."""
    if settings.kind != "auto":
        return settings.kind
    from profiler.engines.gpus import visible_gpus
    from profiler.engines.vllm import installed

    build = installed()
    fast = build is not None and build.device == "cuda" and visible_gpus(settings.env)
    return "vllm" if fast else "transformers"


def boards(settings: EngineSettings, devices: Sequence[int | str] = ()) -> tuple[str, ...]:
    """UUIDs of the GPUs that an engine with these settings uses, or may use, and of those that ``devices``
    name; none where the engine runs on another machine.  Raises InputError for a device that is not here, and
    for devices without those of an engine that is started here: what it draws would go unread."""
    from profiler.engines.gpus import chosen_gpus

    if settings.kind == "endpoint":
        from profiler.engines.endpoint import is_here

        if not is_here(settings.args):
            if devices:
                raise InputError(
                    f"--devices {','.join(map(str, devices))}: the server runs on another machine"
                )
            return ()
        return chosen_gpus(devices, settings.env)
    taken = _taken(settings)
    if not devices:
        return chosen_gpus((), settings.env) if taken is None else taken
    chosen = chosen_gpus(devices, settings.env)
    if unread := [uuid for uuid in taken or () if uuid not in chosen]:
        raise InputError(
            f"--devices {','.join(map(str, devices))}: the engine runs on {', '.join(unread)}, unread then; "
            "where it runs is said by CUDA_VISIBLE_DEVICES (or engine.env)"
        )
    return chosen


def _taken(settings: EngineSettings) -> tuple[str, ...] | None:
    """The GPUs that an engine takes once it is started here: of those a CUDA program sees the first, as many
    as it needs.  None where it does not say: then all count."""
    from profiler.engines import vllm
    from profiler.engines.gpus import visible_gpus

    kind = choose_kind(settings)
    if kind not in ("vllm", "transformers"):
        return None
    count = 1
    if kind == "vllm":
        build = vllm.installed()
        if build is not None and build.device == "cpu":
            return ()
        try:
            count = vllm.device_count(settings)
        except (TypeError, ValueError):  # no number: vLLM refuses it in its own words
            return None
    return tuple(uuid for uuid, _ in visible_gpus(settings.env)[:count])


def available_engines() -> tuple[ProbeStatus, ...]:
    """Every engine kind, whether it can be used here, and what would mend it; imports none of them."""
    from profiler.engines import local, vllm

    missing = local.missing_packages()
    found = vllm.installed()
    return (
        ProbeStatus(
            probe="vllm",
            usable=found is not None,
            detail=f"vLLM {found.version}, {found.device} build" if found else vllm.MISSING,
        ),
        ProbeStatus(
            probe="transformers",
            usable=not missing,
            detail=local.missing_advice(missing) if missing else "embedded engine, CPU or GPU",
        ),
        ProbeStatus(probe="endpoint", usable=True, detail="any OpenAI-compatible server: --url"),
        ProbeStatus(probe="simulated", usable=True, detail="server with a known latency law"),
    )


def check_engine(settings: EngineSettings, model: Model) -> None:
    """Raise InputError for whatever :func:`open_engine` would refuse; starts, writes and asks nothing."""
    kind = choose_kind(settings)
    _check_routing(settings, model, kind)
    if kind == "endpoint":
        from profiler.engines.endpoint import open_endpoint

        open_endpoint(settings, model)
    elif kind == "simulated":
        from profiler.engines import simulated

        simulated.parse(settings.args)
    elif kind == "vllm":
        from profiler.engines.vllm import check_vllm

        check_vllm(settings, model)
    else:
        from profiler.engines import transformers

        transformers.server_config(settings, model)


def _check_routing(settings: EngineSettings, model: Model, kind: Kind) -> None:
    asked = settings.routing
    if asked == "auto":
        return
    assert isinstance(asked, str), "of several routings each is a run of its own"
    wanted = experts.parse(asked)
    if kind in ("endpoint", "simulated"):
        raise InputError(
            f"engine.routing = {asked!r}: the routing of engine {kind} cannot be chosen; leave it out"
        )
    facts = model.facts
    if wanted_routing(settings, model) is None or facts is None:
        raise InputError(f"engine.routing = {asked!r}: {model.name} has no experts to route to; leave it out")
    if isinstance(wanted, float) and facts.experts and facts.experts_per_token:
        bound = experts.largest_cv(facts.experts, facts.experts_per_token)
        if wanted >= bound:
            raise InputError(
                f"engine.routing = {asked!r}: {model.name} sends a token to {facts.experts_per_token} of "
                f"{facts.experts} experts, so the CV is below {bound:.4g}"
            )


def _open(
    kind: Kind,
    settings: EngineSettings,
    model: Model,
    workdir: Path,
    report: Callable[[str], None],
    host: str,
) -> RunningEngine:
    if kind == "endpoint":
        from profiler.engines.endpoint import open_endpoint

        return open_endpoint(settings, model)
    from profiler.engines import local, vllm

    start = {
        "vllm": vllm.open_vllm,
        "transformers": local.open_transformers,
        "simulated": local.open_simulated,
    }[kind]
    return start(structs.replace(settings, kind=kind), model, workdir, report, host)
