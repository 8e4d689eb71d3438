"""The manifest a run folder begins with."""

from __future__ import annotations

import time

from msgspec.structs import replace as replace_struct

from profiler import __version__, procfs, routing_pass, scenario, store
from profiler.plain import in_a_path
from profiler.prepare import Plan, without_secrets
from profiler.schema import SCHEMA_VERSION, EngineFacts, Manifest, Memory
from profiler.settings import Scenario


def of(plan: Plan, number: int) -> Manifest:
    """That of the ``number``-th model of ``plan``, as it stands before anything was started."""
    model, settings = plan.models[number], plan.settings[number]
    utc = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    asked = _told(plan.scenario)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        run_id=f"{in_a_path(model.name)}-{in_a_path(plan.scenario.name)}-{utc}-{own_hash(plan, number)}",
        group=plan.group,
        group_size=len(plan.models),
        tool_version=__version__,
        status="running",
        reason=None,
        utc=utc,
        unix_ns=time.time_ns(),
        clock_ns=time.perf_counter_ns(),
        boot_id=procfs.boot_id(),
        scenario=asked,
        scenario_hash=digest(plan.scenario),
        model=model,
        settings=without_secrets(settings),
        exclusive=plan.exclusive,
        engine=EngineFacts(kind=settings.kind, version=None, device="none"),
        memory=Memory(),
        host=plan.host,
        probes=(),
        price=plan.price,
        routing_missing=routing_pass.missing(plan.scenario, settings, model),
    )


def _told(what: Scenario) -> Scenario:
    return replace_struct(what, engine=without_secrets(what.engine))


def digest(what: Scenario) -> str:
    """That of a scenario as a manifest holds it."""
    return scenario.digest(_told(what))


def own_hash(plan: Plan, number: int) -> str:
    """What a run id ends with."""
    return store.own_hash(digest(plan.scenario), plan.group, number)
