"""The models a claim names, from their configs alone: which pairs there are, and what they are held in.

A model is one of the runs at hand, a built-in or catalog entry, or a folder with config.json; no network is
asked.  A class of models ("moe") means those of the catalog that match the other side on the benchmark of
``conditions.quality``; without one, those of the runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from profiler import arch, catalog, scores
from profiler.arch import work
from profiler.arch.shape import Shape
from profiler.arch.work import Widths
from profiler.claims.nouns import Claim, Models, Quality
from profiler.errors import InputError
from profiler.schema import Model, ModelFacts
from profiler.store import RunResult
from profiler.weight_sizes import DTYPE_BYTES, block, widths

# What a checkpoint in another number format than the published one says of it.
_FORMATS: dict[str, dict[str, Any]] = {
    "fp8": catalog.FORMATS["-fp8"],
    "int4": catalog.FORMATS["-gptq-int4"],
    "int8": catalog.FORMATS["-gptq-int8"],
    "mxfp4": {"quant_method": "mxfp4"},
    "nvfp4": {"quant_method": "nvfp4"},
}


# Configs of one model differ in its padding of the vocabulary at most.
SAME_PARAMS_FRAC = 0.02


class Held(NamedTuple):
    """A model as its weights lie in memory.  ``vision_bytes`` lie there too and take no part."""

    name: str
    shape: Shape
    widths: Widths
    vision_bytes: float
    block: int
    source: str

    @property
    def weights_bytes(self) -> float:
        return work.weight_bytes(self.shape, self.widths) + self.vision_bytes

    @property
    def bytes_each(self) -> float:
        """Mean of a weight of the language model."""
        return work.weight_bytes(self.shape, self.widths) / self.shape.total_params

    def doubts(self, tokens: int | None = None) -> Iterator[str]:
        """Why figures of this model are none; ``tokens``: that a request of the cell has in all."""
        for each in self.shape.missing:
            yield f"{self.name}: not counted: {each}; its figures are lower bounds"
        most = self.shape.max_context_tokens
        if tokens is not None and most is not None and tokens > most:
            yield f"{self.name} has a context of {most:,} tokens, the cell asks for {tokens:,}"

    def facts(self) -> dict[str, Any]:
        return {
            "config": self.source,
            "total_params": self.shape.total_params,
            "active_params": self.shape.active_params,
            "bytes_per_weight": round(self.bytes_each, 4),
        }


class Pair(NamedTuple):
    """Two names, and why they may not be compared."""

    subject: str
    baseline: str
    doubts: tuple[str, ...] = ()


def held(name: str, precision: str | None, runs: Sequence[RunResult] = ()) -> Held:
    """The model called ``name`` in ``precision`` (None: as published).  Raises InputError."""
    model = _model(name, runs)
    assert model.config is not None, "models without one are not found"
    entry = catalog.find(model.name)
    plain = DTYPE_BYTES.get(precision or "bfloat16", DTYPE_BYTES["bfloat16"])
    try:
        shape = arch.shape(model.config)
        model = _in_precision(model, precision)
        return Held(
            name=model.name,
            shape=shape,
            widths=widths(model, precision if precision in DTYPE_BYTES else "bfloat16"),
            vision_bytes=entry.computed_vision_params * plain if entry else 0.0,
            block=block(model),
            source=entry.source if entry else model.facts.source if model.facts else "built in",
        )
    except InputError as error:
        raise InputError(f"{model.name}: {error}") from None


def _in_precision(model: Model, precision: str | None) -> Model:
    """A model with what says how it is held; plain numbers are what random weights are drawn in."""
    assert model.config is not None
    if precision is None:
        return model
    if precision in DTYPE_BYTES:
        return msgspec.structs.replace(model, weights="random")
    entry = catalog.find(model.name)
    if precision in (_word(model.config.get("quantization_config")), entry and entry.checkpoint_quantization):
        return model
    if precision not in _FORMATS:
        raise InputError(f"precision {precision}: how many bytes its weights take is not known")
    config = {**model.config, "quantization_config": _FORMATS[precision]}
    return msgspec.structs.replace(model, config=config)


def _word(quantization: Any) -> str | None:
    """The format that a checkpoint says it has, as claims name it."""
    found = quantization if isinstance(quantization, dict) else {}
    method = found.get("quant_method")
    return f"int{found.get('bits')}" if method in ("gptq", "awq") else method


def _model(name: str, runs: Sequence[RunResult]) -> Model:
    """As published, wherever its config is from.  Raises InputError where nobody has one."""
    for run in runs:
        model = run.manifest.model
        if model.config is not None and scores.same_model(model.name, name) and is_as_listed(model):
            kind = "random" if model.name in catalog.tiny_models() else "local" if model.folder else "hub"
            return msgspec.structs.replace(model, weights=kind)
    if name in catalog.tiny_models():
        config = catalog.tiny_models()[name]
        return Model(name=name, weights="random", config=config)
    if entry := catalog.find(name):
        variant = name if "/" in name or entry.id.rpartition("/")[2].lower() != name.lower() else entry.id
        return Model(
            name=variant,
            weights="hub",
            config=entry.config,
            facts=arch.model_facts(entry.config, entry.source),
        )
    folder = Path(os.path.expanduser(name))
    if (folder / "config.json").is_file():
        config = _read(folder / "config.json")
        return Model(name=folder.resolve().name, weights="local", config=config, folder=str(folder))
    raise InputError(
        f"the config of {name} is not known: it is not in the catalog (profile list models); "
        "name a folder with its config.json in a claim file of yours"
    )


@lru_cache(maxsize=256)
def listed(name: str) -> ModelFacts | None:
    """Of the built-in or catalog model of this name, where all of it can be counted."""
    entry = catalog.find(name)
    config = catalog.tiny_models().get(name) or (entry and entry.config)
    facts = arch.model_facts(config, name) if config else None
    return None if facts is None or facts.missing else facts


def is_as_listed(model: Model) -> bool:
    """Whether a model can be the one that has its name: a folder may be called what it likes."""
    known, facts = listed(model.name), model.facts
    if known is None or facts is None or facts.missing:
        return True
    both = ((facts.total_params, known.total_params), (facts.active_params, known.active_params))
    return all(abs(own - each) <= SAME_PARAMS_FRAC * each for own, each in both)


def _read(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError, RecursionError) as error:
        raise InputError(f"{path}: not a readable JSON config: {error}") from None


# -------------------------------------------------------------------------------------------- pairs


def pairs(claim: Claim, runs: Sequence[RunResult]) -> list[Pair]:
    """Every subject with every baseline; of classes only models that match in quality."""
    quality = claim.conditions.quality
    subjects, baselines = (_names(side, quality, runs) for side in (claim.subject, claim.baseline))
    found = []
    for subject in subjects:
        for baseline in baselines:
            doubt = None if quality is None else unmatched(subject, baseline, quality)
            if scores.same_model(subject, baseline) or (doubt and claim_of_classes(claim)):
                continue
            found.append(Pair(subject, baseline, (doubt,) if doubt else ()))
    return found


def claim_of_classes(claim: Claim) -> bool:
    """Whether a side is a class of models: which pairs it is of is then ours to find."""
    return claim.subject.kind is not None or claim.baseline.kind is not None


def _names(side: Models, quality: Quality | None, runs: Sequence[RunResult]) -> list[str]:
    if side.names:
        return list(side.names)
    if side.kind is None:
        return []
    own = [run.manifest.model for run in runs]
    found = [model.name for model in own if model.facts is not None and model.facts.kind == side.kind]
    if quality is not None:
        found += [entry.id for entry in catalog.models().values() if entry.kind == side.kind]
    return [name for at, name in enumerate(found) if not any(scores.same_model(name, x) for x in found[:at])]


@lru_cache(maxsize=4096)
def unmatched(subject: str, baseline: str, quality: Quality) -> str | None:
    """Why two models are not equally good by published scores, None where they are.  Raises InputError for a
    benchmark that nobody publishes."""
    known = scores.quality()
    benchmark = scores.benchmark_named(quality.benchmark, known)
    ours, theirs = (scores.of_model(name, benchmark, known)[0] for name in (subject, baseline))
    lacking = [name for name, score in ((subject, ours), (baseline, theirs)) if score is None]
    if ours is None or theirs is None:
        return f"quality: no {benchmark} score of {' and '.join(lacking)}"
    try:
        judged = scores.matched(ours, theirs, quality.margin)
    except ValueError as error:
        raise InputError(f"conditions.quality: {error}") from None
    if judged.verdict == "equivalent":
        return None
    return f"quality on {benchmark}: {judged.verdict}, {judged.reason}"
