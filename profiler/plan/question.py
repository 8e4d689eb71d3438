"""What a user asks of ``profile plan``, word for word, and what it means: models, GPUs, loads, lengths.

Everything is checked here, so that what comes after has nothing left to refuse.  No network is asked for a
model that the catalog or a folder has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct, field

from profiler import arch, catalog, experts, fit, models, scenario, slo
from profiler.arch import work
from profiler.arch.shape import Feed, Shape
from profiler.arch.work import Widths
from profiler.catalog import GpuSpec
from profiler.errors import InputError, nearest
from profiler.schema import LoadPoint, Model
from profiler.settings import Length, Scenario
from profiler.weight_sizes import block, vision_bytes, widths
from profiler.workload import Extent, extent

if TYPE_CHECKING:
    from profiler.predict import Load

METRICS = ("speed", "energy", "cost")
MOST_GPUS = 64

# What weights may be held in beside their published format: bytes of a matrix's number, the arithmetic.
FORMATS = {"fp8": (1.0, "fp8"), "int4": (0.56, "bf16")}
PUBLISHED = ("auto", "hub")
WEIGHTS = (*PUBLISHED, "random", *FORMATS)

# Scenario fields that mean something before anything is measured.
_SECTIONS = ("workload", "load", "slo")
_ENGINE = ("dtype", "tensor_parallel", "routing", "max_model_len")
_ARGS: dict[str, tuple[type, ...]] = {
    "enable_expert_parallel": (bool,),
    "data_parallel_size": (int,),
    "max_num_seqs": (int,),
    "max_num_batched_tokens": (int,),
    "kv_cache_dtype": (str,),
    "gpu_memory_utilization": (int, float),
    "enforce_eager": (bool,),
}


class Request(Struct, frozen=True, kw_only=True):
    """The words of the command line."""

    models: Sequence[str]
    gpus: Sequence[str]
    counts: str | None = None
    scenario: str = "chat"
    overrides: Sequence[str] = ()
    slo: Mapping[str, str] = field(default_factory=dict)
    price: str | None = None
    weights: str = "auto"
    metric: str = "speed"
    calibrate: Sequence[Path] = ()


class Candidate(Struct, frozen=True, kw_only=True, dict=True):
    """A model as it would be deployed.  ``vision_bytes`` lie in memory and take no part."""

    model: Model
    shape: Shape
    widths: Widths
    vision_bytes: float

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def short(self) -> str:
        """``Qwen3-30B-A3B``."""
        return self.name.rsplit("/", 1)[-1]

    @property
    def feed(self) -> Feed | None:
        """The layers with experts, None in a dense model."""
        return next((kind.feed for kind in self.shape.layers if kind.feed.experts), None)

    @property
    def bytes_per_weight(self) -> float:
        """Mean over all weights, as they lie in memory."""
        return sum(work.weight_parts(self.shape, self.widths).values()) / self.shape.total_params

    @cached_property
    def sizes(self) -> arch.Sizes:
        """Numbers of GPUs that its matrices, and its experts, can be split over."""
        return arch.parallel_sizes(self.shape, MOST_GPUS, block=block(self.model))


class Question(Struct, frozen=True, kw_only=True, dict=True):
    """What is to be answered.  ``counts`` is empty where the plan is to choose."""

    candidates: tuple[Candidate, ...]
    gpus: tuple[GpuSpec, ...]
    counts: tuple[int, ...]
    scenario: Scenario
    points: tuple[LoadPoint, ...]
    limits: tuple[slo.Limit, ...]
    price: str | None = None
    metric: str = "speed"
    notes: tuple[str, ...] = ()

    @cached_property
    def lengths(self) -> Extent:
        return extent(self.scenario.workload, self.scenario.load)

    @property
    def tokens_each(self) -> int:
        """That a request holds in the cache when it ends."""
        return self.lengths.mean_input + self.lengths.mean_output

    def load(self, concurrency: Any, input_tokens: Any = None) -> Load:
        """So many requests of the scenario at once, or of another prompt length."""
        from profiler import predict

        lengths = self.lengths
        output = self.scenario.workload.output_tokens
        return predict.Load(
            concurrency=concurrency,
            input_tokens=lengths.mean_input if input_tokens is None else input_tokens,
            output_tokens=lengths.mean_output,
            output_cv=output.spread / 3**0.5 if isinstance(output, Length) else 0.0,
            backlog=self.scenario.load.mode == "batch",
        )

    @property
    def most_requests(self) -> int:
        """At once, at the scenario's largest load; of a rate, as many as an engine takes."""
        return max(point.concurrency or fit.MAX_SEQUENCES for point in self.points)

    @property
    def args(self) -> dict[str, Any]:
        return self.scenario.engine.args

    @property
    def step_tokens(self) -> int:
        """That an engine works on at once, at most."""
        return int(self.args.get("max_num_batched_tokens", 8192))

    @property
    def cv(self) -> float | None:
        """Of the experts' loads, where the scenario fixes it."""
        routing = self.scenario.engine.routing
        asked = experts.parse(routing) if isinstance(routing, str) and routing != "auto" else "model"
        return 0.0 if asked == "uniform" else None if asked == "model" else asked


def resolve(request: Request) -> Question:
    """Raises InputError, one line, for all that cannot be planned."""
    _check_words(request)
    what = _scenario(request)
    _check_args(what.engine.args)
    candidates = tuple(_candidate(name, request.weights, what) for name in request.models)
    gpus, notes = _gpus(request.gpus)
    for spec in gpus:
        _check_spec(spec, candidates)
    counts = _counts(request.counts, what)
    question = Question(
        candidates=candidates,
        gpus=gpus,
        counts=counts,
        scenario=what,
        points=_points(what),
        limits=slo.limits(what.slo),
        price=request.price,
        metric=_metric(request.metric, what),
        notes=(*notes, *(f"{each.short}: {note}" for each in candidates for note in _model_notes(each))),
    )
    for candidate in candidates:
        _check_context(candidate, question.lengths)
    return msgspec.structs.replace(question, notes=(*question.notes, *_workload_notes(what)))


def _check_words(request: Request) -> None:
    if not request.models:
        raise InputError("which model? give --model NAME (`profile list models` shows what is known)")
    if not request.gpus:
        raise InputError("which GPU? give --gpu NAME (`profile list gpus` shows what is known)")
    if request.weights not in WEIGHTS:
        raise InputError(f"--weights {request.weights}: no such kind{nearest(request.weights, WEIGHTS)}")
    if request.metric not in METRICS:
        raise InputError(f"--metric {request.metric}: no such metric{nearest(request.metric, METRICS)}")
    twice = [name for name in dict.fromkeys(request.models) if list(request.models).count(name) > 1]
    if twice:
        raise InputError(f"--model {twice[0]} is given twice")


# ----------------------------------------------------------------------------------------- scenario


def _scenario(request: Request) -> Scenario:
    for override in request.overrides:
        _check_override(override)
    limits = [f"slo.{name}={limit}" for name, limit in request.slo.items()]
    return scenario.load(request.scenario, [*limits, *request.overrides])


def _check_override(override: str) -> None:
    """Refuse what has no effect on a plan."""
    path = override.partition("=")[0].strip()
    section, _, rest = path.partition(".")
    head, _, argument = rest.partition(".")
    known = head in _ENGINE or (head == "args" and argument.replace("-", "_") in _ARGS)
    if section not in _SECTIONS and not (section == "engine" and known):
        raise InputError(
            f"--set {path}: has no effect on a plan, which takes workload.*, load.*, slo.*, engine."
            f"{'|'.join(_ENGINE)} and what engine.args say of memory and batches (docs/plan.md)"
        )


def _points(what: Scenario) -> tuple[LoadPoint, ...]:
    points = scenario.points(what)
    if not points:
        raise InputError(f"scenario {what.name} searches its load; name loads: --set load.concurrency=1,8,64")
    return points


def _metric(asked: str, what: Scenario) -> str:
    """An answer of one token has no time between tokens to compare."""
    one = extent(what.workload, what.load).mean_output == 1
    return "cost" if one and asked == "speed" else asked


def _workload_notes(what: Scenario) -> list[str]:
    asked, load = what.workload, what.load
    found = []
    if asked.shared_prefix_tokens or asked.conversation:
        found.append("prefix cache hits are not predicted: TTFT and cost are those of prompts read in full")
    if asked.images:
        found.append("images are not predicted: tokens and time of the text alone")
    if load.think_s:
        found.append("think_s is not predicted: every slot asks again at once")
    if asked.mix:
        found.append("a mix is predicted as requests of its mean lengths")
    if load.mode in ("open", "replay"):
        found.append(
            "a rate is predicted as the mean number of requests it keeps under way; bursts wait longer"
        )
    return found


# ------------------------------------------------------------------------------------------- models


def _candidate(name: str, weights: str, what: Scenario) -> Candidate:
    found = models.resolve(name, "random")
    model = msgspec.structs.replace(found, weights=_kind(found, weights))
    if model.config is None:
        raise InputError(f"model {name}: its config is not known, and a plan is made from it")
    held = widths(model, what.engine.dtype)
    if weights in FORMATS:
        each, compute = FORMATS[weights]
        held = msgspec.structs.replace(held, routed=each, other=each, attention=None, compute=compute)
    if str(what.engine.args.get("kv_cache_dtype", "auto")).startswith("fp8"):
        held = msgspec.structs.replace(held, cache=1)
    shape = _shape(model)
    vision = vision_bytes(model, what.engine.dtype)
    return Candidate(model=model, shape=shape, widths=held, vision_bytes=vision)


def _kind(model: Model, weights: str) -> Any:
    """As published, unless the user says otherwise; the built-in models were never published."""
    if weights not in PUBLISHED or model.name in catalog.tiny_models():
        return "random"
    return "local" if model.folder else "hub"


def _shape(model: Model) -> Shape:
    assert model.config is not None, "checked by the caller"
    try:
        return arch.shape(model.config)
    except InputError as error:
        raise type(error)(f"model {model.name}: {error}") from None


def _model_notes(candidate: Candidate) -> list[str]:
    missing = [f"not counted: {each}; its figures are lower bounds" for each in candidate.shape.missing]
    return [*candidate.model.notes, *missing]


def _check_context(candidate: Candidate, lengths: Extent) -> None:
    most = candidate.shape.max_context_tokens
    if most is not None and lengths.longest_total > most:
        raise InputError(
            f"{candidate.name} has a context of {most} tokens, the longest request needs "
            f"{lengths.longest_total}; shorten {lengths.longest_at or 'workload.input_tokens'}"
        )


# --------------------------------------------------------------------------------------------- GPUs


def _gpus(names: Sequence[str]) -> tuple[tuple[GpuSpec, ...], list[str]]:
    found: dict[str, GpuSpec] = {}
    notes = []
    for name in names:
        if name.lower().endswith(".toml"):
            found |= {spec.gpu: spec for spec in catalog.own(Path(name))}
            continue
        meant = catalog.find_gpus(name)
        if not meant:
            raise InputError(_unknown_gpu(name))
        found[meant[0].gpu] = meant[0]
        if len(meant) > 1:
            others = ", ".join(spec.gpu for spec in meant[1:])
            notes.append(f"--gpu {name}: taken as {meant[0].gpu}; it may also mean {others}")
    return tuple(found.values()), notes


def _unknown_gpu(name: str) -> str:
    several = re.fullmatch(r"(\d+)\s*[x×]\s*(.+)|(.+?)\s*[x×]\s*(\d+)", name.strip(), re.IGNORECASE)
    if several:
        count, one = several[1] or several[4], several[2] or several[3]
        if catalog.find_gpus(one):
            return f"--gpu {name}: name the GPU and their number apart: --gpu {one} --gpus {count}"
    return f"unknown GPU {name!r}{catalog.nearest_gpus(name)}; all of them: profile list gpus"


def lacks(spec: GpuSpec, candidate: Candidate) -> list[str]:
    """What a prediction needs of a GPU's sheet and does not find there: its keys."""
    rate = "dense_fp32_tflops" if candidate.widths.compute == "fp32" else "dense_bf16_tflops"
    return [key for key in ("mem_bw_gbs", rate) if getattr(spec, key) is None]


def _check_spec(spec: GpuSpec, candidates: Sequence[Candidate]) -> None:
    missing = dict.fromkeys(key for each in candidates for key in lacks(spec, each))
    if missing:
        raise InputError(
            f"{spec.gpu}: no source for its {' and '.join(missing)}; give them in a sheet of your own: "
            f"--gpu FILE.toml with [[gpu]] gpu = {spec.gpu!r}"
        )


def _counts(text: str | None, what: Scenario) -> tuple[int, ...]:
    """``1,2,4``; without any, what the scenario fixes, if it does."""
    if text is None:
        size = what.engine.tensor_parallel
        return (size * what.engine.args.get("data_parallel_size", 1),) if size else ()
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and 1 <= int(word) <= MOST_GPUS for word in words):
        raise InputError(f"--gpus {text}: expected a number of GPUs from 1 to {MOST_GPUS}, or several: 1,2,4")
    return tuple(dict.fromkeys(int(word) for word in words))


def _check_args(args: Mapping[str, Any]) -> None:
    """Of those that a plan looks at."""
    for name, kinds in _ARGS.items():
        value = args.get(name)
        fine = isinstance(value, kinds) and isinstance(value, bool) == (kinds == (bool,))
        if value is not None and not (fine and (isinstance(value, bool | str) or value > 0)):
            expected = {bool: "true or false", int: "a number above 0", str: "a word"}[kinds[0]]
            raise InputError(f"engine.args.{name} = {value!r}: expected {expected}")
    if args.get("gpu_memory_utilization", 0) > 1:
        raise InputError("engine.args.gpu_memory_utilization is a share of the memory: at most 1")
    if args.get("data_parallel_size", 1) > 1 and not args.get("enable_expert_parallel"):
        raise InputError(
            "engine.args.data_parallel_size: without enable_expert_parallel replicas are independent of each "
            "other; plan one, it costs the same per token"
        )
