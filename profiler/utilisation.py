"""How much of a machine's bandwidth and arithmetic a measured load used, and the ceiling it ran under.

Per output token, times the rate at which output tokens came, over what the machine can do::

    MBU    every weight read once a step, and the cache that the step's sequences read and write
    S-MBU  the same with the weights of the experts that the step's tokens touched
    MFU    2 operations a weight and token as if every expert worked on it, and attention's
    S-MFU  the same with a token's own k experts

S-MBU and S-MFU are MoE-CAP's (arXiv 2412.07067).  Unlike its program, each token counts k experts in S-MFU,
attention over its own context and not over the batch's, the head once a sampled token, and shared experts and
layers without experts by the model's config.  Steps, tokens and contexts are those that were seen
(:mod:`profiler.steps`), work and bytes those of ``arch.work``.  Activations count in the ceiling only.

The ceiling lets every operation of every step run at full bandwidth, at full matrix rate, or as fast as a GPU
starts operations, whichever takes longest, and adds what several GPUs tell each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from profiler import arch, catalog, experts, roofline, routing, stats, steps
from profiler.arch import work
from profiler.arch.shape import Feed, Shape
from profiler.arch.work import Batch, Distinct, Widths
from profiler.catalog import GpuSpec
from profiler.errors import InputError
from profiler.metrics import PointResult
from profiler.roofline import Split
from profiler.schema import Estimate
from profiler.steps import Steps
from profiler.store import RunResult
from profiler.weight_sizes import widths
from profiler.windows import WindowView

ESTIMATES = ("mbu_frac", "mfu_frac", "s_mbu_frac", "s_mfu_frac", "ceiling_frac", "coverage_frac")
FACTS = (
    "ceiling_output_tokens_per_s",
    "ceiling_bound_by",
    "ceiling_source",
    "coverage_source",
    "routing",
)
# Engine arguments under which a token is not a step of one model replica.
UNCOUNTED = ("speculative", "data_parallel", "pipeline_parallel")
# A GPU takes this long for an operation however small: of the kernels it is made of one at least is started.
LAUNCH_S = 3e-6
Passes = Sequence[tuple[float, Batch]]


class Used(Struct, frozen=True, kw_only=True):
    """One load point: estimates and facts by the names of ESTIMATES and FACTS, only those that are known."""

    estimates: dict[str, Estimate] = {}
    facts: dict[str, Any] = {}
    notes: tuple[str, ...] = ()


class Coverage(Struct, frozen=True, kw_only=True):
    """Which experts a step touches: ``of`` a layer by so many tokens, ``of_prompt`` by a prompt alone, whose
    tokens resemble each other; ``source`` measured, uniform or skew; ``seen`` is the measured number, with
    its interval, where there is one."""

    of: Distinct
    of_prompt: Distinct
    source: str
    seen: Callable[[float], Estimate | None]
    note: str | None = None


class Machine(Struct, frozen=True, kw_only=True):
    """The devices of an engine: one kind, ``count`` of them, sharing the model as ``split`` says."""

    spec: GpuSpec
    count: int
    split: Split

    @property
    def source(self) -> str:
        """Whose word the ceilings are."""
        known = "measured" if self.spec.measured else "data sheet"
        return f"{known}: {self.spec.gpu}, {self.spec.source}"


class Ceilings(Struct, frozen=True, kw_only=True):
    """What all devices of an engine together can read and multiply in a second; ``source``: whose word."""

    bytes_per_s: float
    flops_per_s: float
    source: str


def ceilings(run: RunResult) -> Ceilings:
    """In the arithmetic of the run's model.  Raises InputError, with the way to get them, where they or the
    model's config are not known."""
    if run.manifest.model.config is None or run.manifest.engine.device not in ("cpu", "cuda"):
        raise InputError("no model and no device of this engine is known whose work could be counted")
    machine = _machine(run, arch.shape(run.manifest.model.config))
    return Ceilings(
        bytes_per_s=roofline.bytes_per_s(machine.spec) * machine.count,
        flops_per_s=roofline.flops_per_s(machine.spec, _widths(run).compute) * machine.count,
        source=machine.source,
    )


def of_point(run: RunResult, point: PointResult) -> Used:
    """Without ceilings only routing and coverage are known; a note says what is missing and what mends it."""
    manifest = run.manifest
    facts = {"routing": manifest.engine.routing} if manifest.engine.routing else {}
    rate = point.estimates["output_tokens_per_s"]
    if manifest.model.config is None or manifest.engine.device not in ("cpu", "cuda") or rate is None:
        return Used(facts=facts)
    try:
        shape = arch.shape(manifest.model.config)
        counted = _counted(run, point)
        coverage = _coverage(run) if any(kind.feed.experts for kind in shape.layers) else None
        covered = _covered(shape, counted, coverage)
        facts |= {"coverage_source": coverage.source} if coverage else {}
    except InputError as error:
        return Used(facts=facts, notes=(f"utilisation n/a: {error}",))
    try:
        machine = _machine(run, shape)
        found = _against(machine, shape, _widths(run), counted, coverage)
    except InputError as error:
        return Used(estimates=covered, facts=facts, notes=(f"utilisation n/a: {error}",))
    estimates = covered | {name: stats.scaled(rate, each) for name, each in found.per_token.items()}
    ceiling = {"ceiling_output_tokens_per_s": found.ceiling_tokens_per_s, "ceiling_bound_by": found.bound_by}
    return Used(
        estimates=estimates,
        facts=facts | ceiling | {"ceiling_source": machine.source},
        notes=tuple(_notes(shape, coverage, estimates)),
    )


# ------------------------------------------------------------------------------------ what was done


def _counted(run: RunResult, point: PointResult) -> Steps:
    """Raises InputError where steps cannot be told from tokens."""
    for name in _arguments(run):
        if name.startswith(UNCOUNTED):
            raise InputError(f"with {name} steps cannot be counted from tokens")
    windows = [window for window in run.manifest.windows if window.point == point.point]
    views = [WindowView(window, run.requests) for window in windows]
    hit = point.estimates.get("prefix_cache_hit_frac")
    found = steps.count([v for v in views if v.outcome and v.span_s], hit.value if hit else 0.0)
    if found is None:
        raise InputError("the lengths of the prompts are not known")
    return found


def _passes(counted: Steps) -> Passes:
    """How many steps of which kind: decoding alone, with prompts beside, prompts alone."""
    decoding = {"decode_sequences": counted.batch, "decode_context": counted.context}
    shared = min(float(counted.mixed.steps), counted.steps)
    found = [
        (counted.steps - shared, Batch(**decoding)),
        (shared, Batch(**decoding, **_prompts(counted.mixed, shared))),
        (float(counted.alone.steps), Batch(**_prompts(counted.alone, counted.alone.steps))),
    ]
    return [(number, batch) for number, batch in found if number]


def _prompts(prompts: steps.Prompts, over: float) -> dict[str, float]:
    if not over:
        return {}
    each = {"prefill_tokens": prompts.tokens, "prefill_context": prompts.context}
    return each | {"prefill_sequences": prompts.sequences / over}


# ------------------------------------------------------------------------------- which experts


def _coverage(run: RunResult) -> Coverage:
    """Measured where the run's own routing was recorded; beyond the recorded steps the skew fitted to it.
    A router that nobody watched is taken as uniform, which no real one touches more experts than."""
    how = run.manifest.engine.routing or "model"
    seen = routing.report(run)
    if seen is not None and seen.routing == how:
        fitted = seen.fitted_cv

        def measured(by: Callable[[float], Estimate | None]) -> Distinct:
            def distinct(feed: Feed, tokens: Any) -> Any:
                known = by(tokens)
                return known.value if known else _skewed(fitted)(feed, tokens)

            return distinct

        return Coverage(
            of=measured(seen.decode_coverage),
            of_prompt=measured(seen.prefill_coverage),
            source="measured",
            seen=seen.decode_coverage,
        )
    skew = experts.parse(how)
    if isinstance(skew, float):
        form = _skewed(skew)
        return Coverage(of=form, of_prompt=form, source="skew", seen=lambda _: None)
    note = "its router's choices were not recorded: coverage is modelled as uniform, an upper bound of S-MBU"
    return Coverage(
        of=work.uniform,
        of_prompt=work.uniform,
        source="uniform",
        seen=lambda _: None,
        note=note if skew == "model" else None,
    )


def _skewed(cv: float | None) -> Distinct:
    def distinct(feed: Feed, tokens: Any) -> Any:
        return experts.distinct_skewed(feed.experts, feed.per_token, tokens, cv or 0.0)

    return distinct


def _covered(shape: Shape, counted: Steps, coverage: Coverage | None) -> dict[str, Estimate]:
    """The share of a layer's experts that one step touches, mean over layers: a step that decodes, or where
    there is none one of prompts."""
    if coverage is None:
        return {}
    _, batch = _passes(counted)[0]
    feeds = [(kind.count, kind.feed) for kind in shape.layers if kind.feed.experts]
    measured = coverage.seen(batch.tokens)
    if measured is not None and batch.decode_sequences:
        return {"coverage_frac": stats.scaled(measured, 1 / feeds[0][1].experts)}
    distinct = _touched(coverage, batch)
    touched = sum(n * distinct(feed, batch.tokens) / feed.experts for n, feed in feeds)
    return {"coverage_frac": Estimate(float(touched) / sum(n for n, _ in feeds))}


# --------------------------------------------------------------------------------- the machine


def _machine(run: RunResult, shape: Shape) -> Machine:
    """Raises InputError, with the way to get them, where no ceilings are known."""
    manifest, host = run.manifest, run.manifest.host
    used = [gpu for gpu in host.gpus if gpu.uuid in manifest.engine.gpus]
    found = {gpu.name: catalog.match_gpu(gpu.name, gpu.memory_bytes) for gpu in used}
    if manifest.engine.device == "cpu" and host.cpu:
        found = {host.cpu: catalog.match_gpu(host.cpu, cores=host.cores)}
    spec = next(iter(found.values()), None)
    if spec is None or len(found) > 1:
        raise InputError(
            f"the ceilings of {' and '.join(found) or 'its GPUs'} are not known; profile doctor --measure "
            "--out FILE.toml measures them there, PROFILER_GPUS=FILE.toml names them"
        )
    tensor = len(used) or 1
    experts_over = tensor if _arguments(run).get("enable_expert_parallel") else 1
    return Machine(
        spec=spec, count=tensor, split=Split(tensor=tensor, expert=experts_over, kv_heads=shape.kv_heads)
    )


def _widths(run: RunResult) -> Widths:
    wide = widths(run.manifest.model, run.manifest.settings.dtype)
    return replace(wide, cache=1.0) if str(_arguments(run).get("kv_cache_dtype")).startswith("fp8") else wide


def _arguments(run: RunResult) -> dict[str, Any]:
    """The engine's, spelt as in a scenario."""
    return {key.replace("-", "_"): value for key, value in run.manifest.settings.args.items()}


class _Against(Struct, frozen=True, kw_only=True):
    """Shares of the machine's ceilings that one output token a second takes; and the ceiling itself."""

    per_token: dict[str, float]
    ceiling_tokens_per_s: float
    bound_by: str


def _against(
    machine: Machine, shape: Shape, wide: Widths, counted: Steps, coverage: Coverage | None
) -> _Against:
    moved = worked = moved_all = worked_all = 0.0
    bound_s = dict.fromkeys(("bandwidth", "compute", "launch", "communication"), 0.0)
    for number, batch in _passes(counted):
        ops = work.step(shape, wide, batch, _touched(coverage, batch))
        moved += number * sum(_moved(op) for op in ops)
        worked += number * sum(op.flops for op in ops)
        whole = work.step(shape, wide, batch, lambda feed, _: feed.experts)
        moved_all += number * sum(_moved(op) for op in whole)
        worked_all += number * sum(op.flops * _idle_factor(op, shape) for op in ops)
        sent = roofline.link_bytes(shape, wide, batch.tokens, machine.split)
        for word, seconds in _bounds(machine, ops, wide.compute, sent):
            bound_s[word] += number * seconds
    tokens, seconds = counted.output_tokens, sum(bound_s.values())
    token_bytes_per_s = tokens * roofline.bytes_per_s(machine.spec) * machine.count
    token_flops_per_s = tokens * roofline.flops_per_s(machine.spec, wide.compute) * machine.count
    return _Against(
        per_token={
            "mbu_frac": moved_all / token_bytes_per_s,
            "s_mbu_frac": moved / token_bytes_per_s,
            "mfu_frac": worked_all / token_flops_per_s,
            "s_mfu_frac": worked / token_flops_per_s,
            "ceiling_frac": seconds / tokens,
        },
        ceiling_tokens_per_s=tokens / seconds,
        bound_by=max(bound_s, key=lambda word: bound_s[word]),
    )


def _touched(coverage: Coverage | None, batch: Batch) -> Distinct:
    """By a step of one prompt, or by one of many sequences."""
    if coverage is None:
        return work.uniform
    is_prompt = not batch.decode_sequences and round(batch.prefill_sequences) == 1
    return coverage.of_prompt if is_prompt else coverage.of


def _bounds(
    machine: Machine, ops: Sequence[work.Op], compute: str, sent_bytes: float
) -> Iterator[tuple[str, float]]:
    """Seconds of each operation of a step at its own ceiling, and which one that is; then the exchanges."""
    ideal = roofline.ideal(ops, machine.spec, machine.split, compute, sent_bytes)
    launch_s = LAUNCH_S if machine.spec.kind == "gpu" else 0.0
    for op, least in zip(ops, ideal.ops, strict=True):
        if least.seconds < op.layers * launch_s:
            yield "launch", op.layers * launch_s
        else:
            yield "bandwidth" if least.bandwidth_s >= least.compute_s else "compute", float(least.seconds)
    yield "communication", float(ideal.communication_s)


def _moved(op: work.Op) -> float:
    return float(op.weight_bytes + op.cache_bytes)


def _idle_factor(op: work.Op, shape: Shape) -> float:
    """What it would be times as much if every token went to every expert."""
    if op.name != "routed experts":
        return 1.0
    routed = [kind.count * kind.feed.expert_params for kind in shape.layers if kind.feed.experts]
    feeds = [kind.feed for kind in shape.layers if kind.feed.experts]
    everyone = sum(n * feed.experts for n, feed in zip(routed, feeds, strict=True))
    return everyone / sum(n * feed.per_token for n, feed in zip(routed, feeds, strict=True))


def _notes(shape: Shape, coverage: Coverage | None, found: dict[str, Estimate]) -> Iterator[str]:
    if shape.missing:
        yield f"utilisation is a lower bound, not counted: {', '.join(shape.missing)}"
    if coverage and coverage.note:
        yield coverage.note
    above = [name for name in ("s_mbu_frac", "s_mfu_frac", "ceiling_frac") if found[name].value > 1]
    if above:
        yield (
            f"{', '.join(above)} above 1: the ceiling is too low, or less was read than every weight once a "
            "step (small models stay in a cache)"
        )
