"""Which runs may be held against each other: the same model, scenario and hardware.

Software may differ, and so may the engine's settings: a new version of it is what a gate is for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any

import msgspec
from msgspec import Struct

from profiler.errors import InputError
from profiler.host_facts import facts
from profiler.schema import Manifest
from profiler.settings import EngineSettings
from profiler.store import RunResult

HARDWARE = ("CPU", "cores", "GPUs")
NOTHING = "-"


class Kind(Struct, frozen=True):
    """What must be equal, as ``name → text``: of the model and its machine, and of the scenario."""

    model: str
    machine: tuple[tuple[str, str], ...]
    scenario: tuple[tuple[str, str], ...]


class Match(Struct, frozen=True):
    new: list[RunResult]
    base: list[RunResult]


def matches(new: Sequence[RunResult], base: Sequence[RunResult]) -> tuple[list[Match], list[str]]:
    """The runs of each kind that both sides have, and a line for each kind that only ``new`` has.

    Raises InputError when the sides have no model in common.
    """
    ours, theirs = _by_kind(new), _by_kind(base)
    models = {kind.model for kind in theirs}
    if not models & {kind.model for kind in ours}:
        raise InputError(
            f"nothing to compare: the new runs are of {_names(ours)}, the baseline of {_names(theirs)}"
        )
    found = [Match(runs, theirs[kind]) for kind, runs in ours.items() if kind in theirs]
    return found, [_why_not(kind, theirs) for kind in ours if kind not in theirs]


def under_test(match: Match) -> Iterator[str]:
    """What differs in software and settings, as lines ``vllm 0.11 → 0.12``."""
    ours, theirs = ([_software(run.manifest) for run in runs] for runs in (match.new, match.base))
    for name in dict.fromkeys(key for each in (*theirs, *ours) for key in each):
        before, after = (sorted({each.get(name, NOTHING) for each in side}) for side in (theirs, ours))
        if before != after:
            yield f"{name} {' or '.join(before)} → {' or '.join(after)}"


def _by_kind(runs: Iterable[RunResult]) -> dict[Kind, list[RunResult]]:
    found: dict[Kind, list[RunResult]] = {}
    for run in runs:
        found.setdefault(_kind(run.manifest), []).append(run)
    return found


def _names(kinds: Iterable[Kind]) -> str:
    return ", ".join(sorted({kind.model for kind in kinds})) or "nothing"


def _kind(manifest: Manifest) -> Kind:
    known = facts(manifest.host)
    architecture = manifest.model.facts
    machine = {name: known[name] for name in HARDWARE} | {
        "GPUs used": str(len(manifest.engine.gpus)),
        "weights": manifest.model.weights,
        "parameters": str(architecture.total_params) if architecture else "unknown",
        "routing": str(manifest.engine.routing),
    }
    if manifest.imported:  # of whose scenario little but the name may be known
        machine |= {"measured by": manifest.imported.tool, "scenario": manifest.scenario.name}
    trace = manifest.scenario.load.trace
    load = msgspec.structs.replace(manifest.scenario.load, trace=PurePath(trace).name if trace else None)
    scenario = msgspec.structs.replace(
        manifest.scenario, name="", about="", engine=EngineSettings(), load=load
    )
    plain = dict(_flat(msgspec.to_builtins(scenario)))
    return Kind(manifest.model.name, tuple(machine.items()), tuple(sorted(plain.items())))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names of a record's plain values: ``load.concurrency → [1, 4]``."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, str(list(value) if isinstance(value, tuple) else value)


def _software(manifest: Manifest) -> dict[str, str]:
    known = facts(manifest.host)
    return (
        {name: text for name, text in known.items() if name not in HARDWARE}
        | {"python": str(manifest.host.python), "profile": manifest.tool_version}
        | {"engine": " ".join(filter(None, (manifest.engine.kind, manifest.engine.version)))}
        | {f"engine.{name}": text for name, text in _flat(msgspec.to_builtins(manifest.settings))}
    )


def _why_not(kind: Kind, theirs: Iterable[Kind]) -> str:
    """The fewest differences that keep a kind from being compared."""
    alike = [each for each in theirs if each.model == kind.model]
    if not alike:
        return f"{kind.model}: the baseline has no run of it"
    differing = min((list(_differences(each, kind)) for each in alike), key=len)
    return f"{kind.model} cannot be compared with its baseline: {'; '.join(differing)}"


def _differences(base: Kind, new: Kind) -> Iterator[str]:
    for before, after in ((base.machine, new.machine), (base.scenario, new.scenario)):
        ours, theirs = dict(after), dict(before)
        for name in dict.fromkeys((*theirs, *ours)):
            if ours.get(name) != theirs.get(name):
                yield f"{name} {theirs.get(name, NOTHING)} ≠ {ours.get(name, NOTHING)}"
