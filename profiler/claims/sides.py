"""Which engine starts bear on a claim, and which of them may stand side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from profiler import alike, catalog, host_facts, replicas, scores
from profiler.claims.nouns import Claim, Conditions, Models, Setting
from profiler.comparison import lines
from profiler.comparison.lines import Line
from profiler.cost.terms import Terms
from profiler.errors import InputError
from profiler.schema import Gpu, Manifest
from profiler.store import RunResult

UNKNOWN = host_facts.UNKNOWN
_PRECISIONS = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fbgemm_fp8": "fp8"}
SEED = {"seed"}  # an argument that makes no engine another
Words = tuple[tuple[str, str], ...]


class Start(NamedTuple):
    """One engine start: a run as if nothing else had been held, and its load points.  Several runs of a sweep
    may share one: ``engine_start`` is the same then."""

    run: RunResult
    lines: list[Line]

    @property
    def manifest(self) -> Manifest:
        return self.run.manifest

    @property
    def folder(self) -> str:
        return str(self.run.folder)

    @property
    def engine_start(self) -> tuple[Any, ...]:
        """What the start is told by; what another tool measured is told by nothing but itself."""
        if self.manifest.engine_from is not None:
            return self.manifest.engine_from, 0
        windows = self.manifest.windows
        return self.manifest.run_id, windows[0].engine_start if windows else 0


class Group(NamedTuple):
    """Starts of one model that may be pooled.  ``place``: what both sides of a comparison must have in
    common, by name in words; ``own``: what need be alike within a side alone."""

    model: str
    place: Words
    own: Words
    starts: list[Start]

    @property
    def manifest(self) -> Manifest:
        return self.starts[0].manifest


class Pair(NamedTuple):
    """Two groups, and how their machines, software and settings differ, as lines; none: they are alike."""

    subject: Group
    baseline: Group
    unlike: tuple[str, ...]


def starts(runs: Iterable[RunResult]) -> list[Start]:
    """Every engine start of the sealed runs, oldest first, each run once however often it is named or copied.

    Raises InputError for two folders that say they are one run and are not alike.
    """
    sealed = _once(run for run in runs if run.manifest.status == "complete")
    ordered = sorted(sealed, key=lambda run: run.manifest.unix_ns)
    # Each alone: what a start says may not lean on another's.
    return [Start(run, lines.of(found, Terms())) for run, found in replicas.figures_of_starts(ordered)]


def _once(runs: Iterable[RunResult]) -> list[RunResult]:
    """A copy is no further start, whatever it was renamed to: no clock begins two runs at one instant."""
    by_name: dict[str, RunResult] = {}
    for run in runs:
        other = by_name.setdefault(run.manifest.run_id, run)
        if other.manifest != run.manifest:
            raise InputError(
                f"{run.folder} and {other.folder} say they are one run and are not alike: leave one out"
            )
    held: dict[tuple[Any, ...], RunResult] = {}
    for run in by_name.values():
        held.setdefault(_instant(run.manifest), run)
    return list(held.values())


def _instant(manifest: Manifest) -> tuple[Any, ...]:
    """When and where a run was held, to the nanosecond; what another tool measured goes by its name."""
    if manifest.imported is not None:
        return (manifest.run_id,)
    opened = tuple(window.opened_ns for window in manifest.windows)
    return (manifest.host.hostname_hash, manifest.unix_ns, manifest.clock_ns, manifest.model.name, opened)


# ------------------------------------------------------------------------------------ whom it bears on


def is_of(side: Models, manifest: Manifest) -> bool:
    """Whether a run is of a model that the side speaks of."""
    facts = manifest.model.facts
    named = not side.names or any(scores.same_model(manifest.model.name, name) for name in side.names)
    return named and (side.kind is None or (facts is not None and facts.kind == side.kind))


def unmet(conditions: Conditions, manifest: Manifest) -> str | None:
    """The first condition of a claim that a run does not meet, in words; None where it meets all."""
    asked, found = conditions, _formats(manifest)
    if asked.engine is not None and manifest.engine.kind != asked.engine:
        return f"the claim is of engine {asked.engine}, the run of {manifest.engine.kind}"
    if asked.precision is not None and _PRECISIONS.get(asked.precision, asked.precision) not in found:
        return f"the claim is of {asked.precision}, the run of {found[0]}"
    if why := unmet_boards(conditions, boards(manifest)):
        return why
    count = len(manifest.engine.gpus)
    if asked.gpu_count is not None and count != asked.gpu_count:
        wanted = f"{asked.gpu_count} GPU{'s' * (asked.gpu_count > 1)}"
        return f"the claim is of {wanted}, the run used {count or 'none'}"
    return None


def unmet_boards(conditions: Conditions, used: Sequence[Gpu]) -> str | None:
    """Why GPUs are none that the claim is of."""
    if not conditions.gpus and conditions.gpu_class is None:
        return None
    asked = " or ".join(conditions.gpus) or f"a {conditions.gpu_class} GPU"
    if not used:
        return f"the claim is of {asked}, the run used no GPU"
    from profiler.claims import hardware

    for gpu in used:
        spec = catalog.named(gpu.name, gpu.memory_bytes)
        named = not conditions.gpus or (spec is not None and spec.gpu in conditions.gpus)
        wanted = conditions.gpu_class
        if not named or (wanted is not None and not hardware.is_of(gpu.name, gpu.memory_bytes, wanted)):
            return f"the claim is of {asked}, the run used {gpu.name}"
    return None


def boards(manifest: Manifest) -> list[Gpu]:
    """The GPUs that the engine used."""
    used = set(manifest.engine.gpus)
    return [gpu for gpu in manifest.host.gpus if gpu.uuid in used]


def precision(manifest: Manifest) -> str:
    """What the weights are kept in: the checkpoint's own format, else the engine's number format."""
    return _formats(manifest)[0]


def _formats(manifest: Manifest) -> tuple[str, ...]:
    """All words for it: ``gptq`` of 4 bits is ``int4`` too."""
    if manifest.imported is not None:
        told = (manifest.imported.precision or UNKNOWN).lower()
        return (_PRECISIONS.get(told, told),)
    if asked := manifest.scenario.engine.args.get("quantization"):
        return (_PRECISIONS.get(str(asked), str(asked)),)
    config = manifest.model.config or {}
    found = config.get("quantization_config")
    if manifest.model.weights == "random" or not isinstance(found, dict):
        return (manifest.settings.dtype,)
    method = str(found.get("quant_method") or UNKNOWN)
    if method == "compressed-tensors":
        groups = found.get("config_groups") or {}
        weights = (
            [group.get("weights") or {} for group in groups.values()] if isinstance(groups, dict) else []
        )
        kinds = {f"{each.get('type', 'int')}{each.get('num_bits', '')}" for each in weights}
        return tuple(sorted({"float8": "fp8"}.get(kind, kind) for kind in kinds)) or (method,)
    bits = (f"int{found['bits']}",) if method in ("awq", "gptq") and "bits" in found else ()
    return (_PRECISIONS.get(method, method), *bits)


# ---------------------------------------------------------------------------------------- side by side


def pairs(claim: Claim, found: Sequence[Start]) -> list[Pair]:
    """Every pair of a model of the subject with one of the baseline.

    On each kind of machine and engine: all groups that are alike, else the two that differ least.  Where a
    pair of models has no machine and engine in common, the two that differ least of all.
    """
    own = _of_one_side(claim)
    ours, theirs = (
        groups([start for start in found if is_of(side, start.manifest)], own)
        for side in (claim.subject, claim.baseline)
    )
    by_models: dict[tuple[str, str], list[Pair]] = {}
    for a in ours:
        for b in theirs:
            if a.model != b.model:
                pair = Pair(a, b, tuple(_unlike(a, b)))
                by_models.setdefault((a.model, b.model), []).append(pair)
    return [pair for held in by_models.values() for pair in _fairest(held)]


def _fairest(held: Sequence[Pair]) -> Iterator[Pair]:
    by_site: dict[Words, list[Pair]] = {}
    for pair in held:
        where = site(pair.subject)
        if where == site(pair.baseline):
            by_site.setdefault(where, []).append(pair)
    if not by_site:
        yield min(held, key=lambda pair: len(pair.unlike))
    for there in by_site.values():
        fair = [pair for pair in there if not pair.unlike]
        yield from fair or [min(there, key=lambda pair: len(pair.unlike))]


def _of_one_side(claim: Claim) -> set[str]:
    """Arguments of the engine that the claim's plan sets for one side alone: they differ on purpose."""
    prefixes = ("subject.engine.args.", "baseline.engine.args.")
    return {key.removeprefix(each) for key in claim.plan.set for each in prefixes if key.startswith(each)}


def groups(found: Sequence[Start], own: set[str]) -> list[Group]:
    """Starts of one kind together; ``own``: arguments of the engine in which sides may differ."""
    held: dict[tuple[str, Words, Words], Group] = {}
    for start in found:
        manifest = start.manifest
        key = (manifest.model.name, _place(manifest, own), _own(manifest))
        held.setdefault(key, Group(*key, [])).starts.append(start)
    return list(held.values())


_SITE = ("CPU", "cores", "GPUs", "GPUs used", "engine")


def site(group: Group) -> Words:
    """The kind of machine and of engine, of whatever versions."""
    return tuple((name, text) for name, text in group.place if name in _SITE)


def _place(manifest: Manifest, own: set[str]) -> Words:
    asked = manifest.scenario.engine
    used = boards(manifest)
    known = host_facts.facts(manifest.host) | {
        "GPUs used": " + ".join(sorted(gpu.name for gpu in used)) or str(len(manifest.engine.gpus)),
        "device": manifest.engine.device,
        "engine": manifest.engine.kind,
        "engine version": manifest.engine.version or UNKNOWN,
        "precision": precision(manifest),
        "environment": _plain(asked.env),
    }
    if manifest.engine.kind != "simulated":  # whose arguments are what its model is
        known["arguments"] = _plain(asked.args, own | SEED)
    if manifest.imported is not None:
        known["measured by"] = manifest.imported.by
    return tuple(known.items())


def _own(manifest: Manifest) -> Words:
    trained = {"hub": "trained", "local": "trained"}
    held = {
        "weights": trained.get(manifest.model.weights, manifest.model.weights),
        "routing": manifest.engine.routing or "none",
        "arguments": _plain(manifest.scenario.engine.args, SEED),
        "parameters": str(manifest.model.facts.total_params) if manifest.model.facts else UNKNOWN,
    }
    return tuple(held.items())


def _plain(values: dict[str, Any], left_out: Collection[str] = ()) -> str:
    told = [f"{name} = {value}" for name, value in sorted(values.items()) if name not in left_out]
    return ", ".join(told) or "none"


def _unlike(a: Group, b: Group) -> Iterator[str]:
    """``driver 550 ≠ 560``; what nobody knows is not alike either."""
    theirs, own = dict(b.place), (dict(a.own), dict(b.own))
    for name, text in a.place:
        other = theirs.get(name, "none")
        if name == "precision" and _same_weights(a.model, b.model):
            continue  # the two number formats are what is compared
        if text != other:
            yield f"{name} {text} ≠ {other}"
        elif text == UNKNOWN and a.manifest.imported is None:
            yield f"{name}: not known"
    if "random" in (own[0]["weights"], own[1]["weights"]) and own[0]["weights"] != own[1]["weights"]:
        yield f"weights {own[0]['weights']} ≠ {own[1]['weights']}"


def _same_weights(a: str, b: str) -> bool:
    from profiler.scores.naming import without_format

    return scores.same_model(without_format(a) or a, without_format(b) or b)


def setting(pair: Pair) -> Setting:
    """Where a pair is judged, in words."""
    manifest = pair.subject.manifest
    known, used = dict(pair.subject.place), boards(manifest)
    driver = f" (driver {known['driver']})" if used and not manifest.imported else ""
    gpus = f"{len(used)} × {alike.gpu_name(pair.subject.starts[0].run)}" if used else None
    cpu = f"{known['CPU']}, {known['cores']} cores"
    remote = manifest.engine.device == "remote"
    parts = [f"{known['engine']} {known['engine version']}", known["precision"]]
    parts += [f"routing {text}" for text in _routings(pair)]
    parts += _arguments(pair) if manifest.engine.kind != "simulated" else []
    return Setting(
        subject=pair.subject.model,
        baseline=pair.baseline.model,
        machine="a machine elsewhere" if remote else gpus + driver if gpus else cpu,
        engine=", ".join(parts),
    )


def _arguments(pair: Pair) -> list[str]:
    """Those of the engine; of each side where the claim asks for unlike ones."""
    ours, theirs = (dict(group.own)["arguments"] for group in (pair.subject, pair.baseline))
    if ours != theirs:
        return [f"subject: {ours}", f"baseline: {theirs}"]
    return [ours] if ours != "none" else []


def _routings(pair: Pair) -> list[str]:
    """How experts were chosen where no router of the model's did."""
    told = [dict(group.own)["routing"] for group in (pair.subject, pair.baseline)]
    return list(dict.fromkeys(text for text in told if text not in ("none", "model")))
