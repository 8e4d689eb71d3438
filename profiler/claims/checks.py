"""What a claim file cannot mean though its words are valid: contradictions, conditions that nothing meets."""

from __future__ import annotations

import datetime
import os
import re
from collections import Counter
from collections.abc import Iterator
from typing import get_args, get_type_hints

from profiler import arch, catalog
from profiler.catalog.scores import quality
from profiler.claims import hardware, law, metrics
from profiler.claims.metrics import Metric
from profiler.claims.nouns import Claim, Conditions, Models
from profiler.errors import InputError, nearest
from profiler.quantization import PLAIN_BYTES
from profiler.scores import benchmark_named, same_model
from profiler.scores.matching import MARGINS
from profiler.settings import EngineSettings

Trouble = Iterator[tuple[str, str]]
ENGINES = tuple(kind for kind in get_args(get_type_hints(EngineSettings)["kind"]) if kind != "auto")
DTYPES: tuple[str, ...] = get_args(get_type_hints(EngineSettings)["dtype"])
# As a checkpoint's config or a maker calls the format of its weights.
FORMATS = ("fp8", "int8", "int4", "awq", "gptq", "mxfp4", "nvfp4", "bitsandbytes", "compressed-tensors")
SPELLINGS = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
# Nobody holds a trial of more; a typing slip in a list makes as many.
MOST_CELLS = 400
_OF_MACHINE = ("power", "energy", "memory", "electricity", "gco2e")
_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?")


def contradictions(claim: Claim) -> Trouble:
    """(key, what is wrong and what to do), the first the most telling."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", claim.id):
        yield "its name", f"{claim.id!r} is the claim's id: small letters, digits, '.', '_' and '-'"
    if not claim.text.strip():
        yield "text", "the sentence on trial is missing"
    yield from _date(claim.source.date)
    if claim.untestable is not None:
        return
    if claim.metric not in metrics.known():
        yield "metric", f"unknown metric {claim.metric!r}{nearest(claim.metric, metrics.known())}"
        return
    metric = metrics.of(claim.metric)
    yield from _relation(claim)
    yield from _sides(claim, metric)
    yield from _conditions(claim, metric)
    yield from _cells(claim)
    yield from _sizes(claim)
    yield from _plan(claim)


def _date(date: str) -> Trouble:
    try:
        known = _DATE.fullmatch(date) and datetime.date.fromisoformat(f"{date}-01-01"[:10])
    except ValueError:
        known = None
    if not known:
        yield "source.date", f"expected a date such as 2025-04-29, 2025-04 or 2025, got {date!r}"


def _relation(claim: Claim) -> Trouble:
    margin, factor = metrics.margin_frac(claim), claim.factor
    if claim.relation == "about" and factor is None:
        yield "factor", "is missing: relation 'about' says about which ratio"
    if claim.relation == "equal" and factor is not None:
        yield "factor", "relation 'equal' has none; a ratio other than 1 is 'about' it"
    if claim.relation in ("equal", "about") and margin == 0:
        yield "margin_frac", f"relation {claim.relation!r} needs one: nothing measured is exactly equal"
    if claim.relation in ("more", "less") and factor is not None and factor <= 1 + margin:
        other = {"more": "less", "less": "more"}[claim.relation]
        hint = f"; {1 / factor:g} times {other} is factor = {1 / factor:g}" if factor < 1 else ""
        yield "factor", f"{factor:g} is no more than 1 and the practical margin of {margin:g}{hint}"


# ------------------------------------------------------------------------------------------- two sides


def _sides(claim: Claim, metric: Metric) -> Trouble:
    for name, side in (("subject", claim.subject), ("baseline", claim.baseline)):
        yield from _models(name, side, claim, metric)
    if claim.subject == claim.baseline:
        yield "baseline", "is the subject itself"
    yield from _both(claim, metric)
    classes = {side.kind for side in (claim.subject, claim.baseline)} - {None}
    if classes and claim.conditions.quality is None:
        yield (
            "conditions.quality",
            f"is missing: of all {classes.pop()} models only equally good ones compare",
        )


def _both(claim: Claim, metric: Metric) -> Trouble:
    """A model on both sides would be compared with itself, which only answers and languages are."""
    ours, theirs = claim.subject.names, claim.baseline.names
    twice = [a for a in ours for b in theirs if same_model(a, b)]
    if metric.kind == "answers" and ours != theirs:
        yield "baseline.names", f"{metric.name} compares one model with itself: the same names on both sides"
    if metric.kind not in ("answers", "tokens") and twice:
        yield "baseline.names", f"{twice[0]} is on both sides"


def _models(name: str, side: Models, claim: Claim, metric: Metric) -> Trouble:
    who = {"names": bool(side.names), "kind": side.kind, "api": side.api, "gpu": side.gpu}
    given = [key for key, value in who.items() if value]
    if len(given) > 1:
        yield f"{name}.{given[1]}", f"{' and '.join(given)}: a side is one of these"
    if not given and metric.kind not in ("tokens", "answers"):
        yield f"{name}.names", "is missing: models, or kind = 'moe' or 'dense' of them"
    if given not in ([], ["names"]) and metric.kind in ("tokens", "answers"):
        yield f"{name}.{given[0]}", f"{metric.name} is of models by name, or of any"
    for model in side.names:
        if not _is_known(model):
            known = [*catalog.tiny_models(), *catalog.models()]
            hint = nearest(model, [*known, *(each.rpartition("/")[2] for each in known)])
            yield f"{name}.names", f"unknown model {model!r}{hint}; other models by their id, maker/model"
    yield from _only_of("language", side.language, ("tokens",), name, metric)
    yield from _only_of("output_tokens", side.output_tokens, ("answers",), name, metric)
    if side.gpu is not None:
        yield from _board(name, side.gpu, metric)
    if side.api is not None:
        yield from _api(name, side.api, metric)
    if claim.conditions.weights == "trained" and set(side.names) & set(catalog.tiny_models()):
        yield "conditions.weights", "the built-in models only have random ones: weights = 'any'"


def _only_of(key: str, value: object, kinds: tuple[str, ...], name: str, metric: Metric) -> Trouble:
    if value is not None and metric.kind not in kinds:
        yield f"{name}.{key}", f"{metric.name} does not depend on it"
    if value is None and metric.kind in kinds:
        yield f"{name}.{key}", f"is missing: {metric.name} depends on it"


def _is_known(model: str) -> bool:
    """Nobody lists all models: an id of the form maker/model, and a folder, are taken as they are."""
    named = model in catalog.tiny_models() or catalog.find(model) is not None
    return (
        named or bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", model)) or os.path.isdir(model)
    )


def _board(name: str, gpu: str, metric: Metric) -> Trouble:
    if name == "subject" or metric.name != "smallest_gpu_bytes":
        yield (
            f"{name}.gpu",
            "a board is the baseline of smallest_gpu_bytes only; runs are chosen by conditions.gpus",
        )
    if not catalog.find_gpus(gpu):
        yield f"{name}.gpu", f"unknown GPU {gpu!r}{catalog.nearest_gpus(gpu)}"


def _api(name: str, api: str, metric: Metric) -> Trouble:
    if not metric.name.startswith("usd_per_") or metric.kind != "runs":
        yield (
            f"{name}.api",
            f"of a model that is sold by the token no {metric.name} is known; usd_per_m_… are",
        )
    if not catalog.api_offers(api, rates={"CNY": 1.0}):
        known = sorted({offer.model for offer in catalog.api_prices()})
        yield f"{name}.api", f"no provider's price of {api!r} is known{nearest(api, known)}"


# ------------------------------------------------------------------------------------------ conditions


def _conditions(claim: Claim, metric: Metric) -> Trouble:
    asked = claim.conditions
    if asked.engine is not None and asked.engine not in ENGINES:
        yield "conditions.engine", f"unknown engine {asked.engine!r}{nearest(asked.engine, ENGINES)}"
    if asked.precision is not None and asked.precision not in (*DTYPES, *FORMATS):
        yield "conditions.precision", f"unknown {asked.precision!r}; one of {', '.join((*DTYPES, *FORMATS))}"
    if asked.engine == "simulated" and asked.weights == "trained":
        yield "conditions.weights", "the simulated engine has none: weights = 'any'"
    if asked.engine == "endpoint" and claim.metric.startswith(_OF_MACHINE):
        yield "conditions.engine", f"an endpoint runs elsewhere: its {claim.metric} is never measured"
    for key in _idle_conditions(asked, metric):
        yield f"conditions.{key}", f"{claim.metric} does not depend on it"
    if metric.name == "gpus_needed" and not asked.gpus and asked.gpu_class is None:
        yield "conditions.gpus", "is missing: gpus_needed depends on it"
    yield from _gpus(asked)
    if asked.quality is not None:
        yield from _quality(claim)


def _idle_conditions(asked: Conditions, metric: Metric) -> list[str]:
    """What is asked of a machine by a metric that needs none."""
    if metric.kind in ("runs", "answers"):
        return []
    given: dict[str, object] = {"engine": asked.engine, "gpu_count": asked.gpu_count}
    if metric.name != "gpus_needed":
        given |= {"gpus": asked.gpus, "gpu_class": asked.gpu_class}
    if metric.kind == "tokens" or (metric.kind == "architecture" and metric.name != "weights_bytes"):
        given |= {"precision": asked.precision}
    return [key for key, value in given.items() if value]


def _gpus(asked: Conditions) -> Trouble:
    """``reading`` has put the catalog's names for those it knows."""
    known = {spec.gpu: spec for spec in catalog.gpus()}
    for name in asked.gpus:
        if name not in known:
            yield "conditions.gpus", f"unknown GPU {name!r}{catalog.nearest_gpus(name)}"
            return
    if asked.gpu_class is not None and asked.gpus:
        others = [name for name in asked.gpus if asked.gpu_class not in hardware.classes(known[name])]
        if others:
            yield "conditions.gpu_class", f"{others[0]} is not {asked.gpu_class}, so no board can be both"


def _quality(claim: Claim) -> Trouble:
    asked = claim.conditions.quality
    if asked is None:
        return
    try:
        benchmark = benchmark_named(asked.benchmark, quality())
    except InputError as error:
        yield "conditions.quality.benchmark", str(error)
        return
    unit = next(score.unit for score in quality() if score.benchmark == benchmark)
    if unit not in MARGINS and asked.margin is None:
        yield "conditions.quality.margin", f"is missing: {benchmark} has no usual one"
    if claim.conditions.weights == "any":
        yield "conditions.weights", "'any' cannot be with quality: random weights answer nothing well"


# ----------------------------------------------------------------------------------------------- cells


def _cells(claim: Claim) -> Trouble:
    axes, needs = metrics.places(claim)
    grid = claim.grid()
    if len(grid) > MOST_CELLS:
        yield "cells", f"{len(grid):,} cells; {MOST_CELLS} at most"
    for axis in metrics.AXES:
        given = [getattr(cell, axis) is not None for cell in grid]
        if any(given) and axis not in axes:
            yield f"cells.{axis}", f"{claim.metric} does not depend on it"
        if not all(given) and axis in needs:
            yield (
                f"cells.{axis}",
                f"is missing: {claim.metric} depends on it, so the cells are fixed beforehand",
            )
    twice = [cell for cell, times in Counter(grid).items() if times > 1]
    if twice:
        place = ", ".join(
            f"{axis} {at}" for axis in metrics.AXES if (at := getattr(twice[0], axis)) is not None
        )
        yield "cells", f"overlap: {place or 'the only cell'} is there twice"
    yield from _wider(claim)


def _wider(claim: Claim) -> Trouble:
    """A cell that leaves a length open holds every cell of that batch."""
    for wide in claim.grid():
        for cell in claim.grid():
            pairs = [(getattr(wide, axis), getattr(cell, axis)) for axis in metrics.AXES]
            if wide != cell and all(a is None or a == b for a, b in pairs):
                yield (
                    "cells",
                    f"overlap: a cell at batch {wide.batch} leaves a length open that another gives",
                )
                return


# ----------------------------------------------------------------------------------------------- sizes


def _sizes(claim: Claim) -> Trouble:
    """What the shapes of the catalog say cannot be: contexts that are too long, weights that do not fit."""
    answers = max(side.output_tokens or 0 for side in (claim.subject, claim.baseline))
    longest = max((cell.input_tokens or 0) + (cell.output_tokens or answers) for cell in claim.grid())
    for name in (*claim.subject.names, *claim.baseline.names):
        config = catalog.tiny_models().get(name) or ((entry := catalog.find(name)) and entry.config)
        if not config:
            continue
        try:
            facts = arch.model_facts(config, name)
        except InputError:
            continue
        most = facts.max_context_tokens
        if most is not None and longest > most:
            yield "cells", f"{longest:,} tokens: the context of {name} ends at {most:,}"
        yield from _weights(claim.conditions, name, facts.total_params)


def _weights(asked: Conditions, name: str, params: int) -> Trouble:
    if asked.gpu_count is None or not asked.gpus or asked.precision not in ("bfloat16", "float16"):
        return
    largest = max((spec for spec in catalog.gpus() if spec.gpu in asked.gpus), key=lambda spec: spec.mem_gb)
    held, needed = asked.gpu_count * largest.memory_bytes, params * PLAIN_BYTES
    if needed > held:
        told = f"{needed / 2**30:.0f} GiB in {asked.precision}, {asked.gpu_count} × {largest.gpu} hold"
        yield "conditions.gpu_count", f"the weights of {name} take {told} {held / 2**30:.0f}"


# ------------------------------------------------------------------------------------------- the trial

_SIDES = ("subject.", "baseline.")
_OF_CELLS = ("load", "search", "workload.input_tokens", "workload.output_tokens", "workload.mix")


def _plan(claim: Claim) -> Trouble:
    plan, few = claim.plan, law.FEWEST_STARTS
    if plan.starts < few and metrics.of(claim.metric).kind in ("runs", "answers"):
        yield "plan.starts", f"{plan.starts} starts a side decide nothing that is timed: {few} or more"
    if plan.looks > plan.starts - 1:
        yield (
            "plan.looks",
            f"{plan.looks} looks at {plan.starts} starts: one start tells nothing, so one fewer",
        )
    for key in plan.set:
        plain = key.removeprefix(_SIDES[0]).removeprefix(_SIDES[1])
        if plain.startswith(_OF_CELLS):
            yield f"plan.set.{key}", "load and lengths of a trial are those of the cells"
    for side in _SIDES if plan.set else ():
        yield from _scenario(claim, side)


def _scenario(claim: Claim, side: str) -> Trouble:
    """The fields as a scenario would read them, those of one side together with those of both."""
    import msgspec

    from profiler import scenario

    other = next(each for each in _SIDES if each != side)
    words = [
        f"workload.{axis}={max(known)}"
        for axis in ("input_tokens", "output_tokens")
        if (known := [at for cell in claim.grid() if (at := getattr(cell, axis)) is not None])
    ]
    for key, value in claim.plan.set.items():
        if not key.startswith(other):
            words.append(f"{key.removeprefix(side)}={msgspec.json.encode(value).decode()}")
    try:
        scenario.load("chat", words)
    except InputError as error:
        yield "plan.set", str(error).removeprefix("--set").lstrip(" :")
