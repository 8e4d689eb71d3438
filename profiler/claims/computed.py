"""Claims that no load decides: what configs imply, what fits, what texts take, what price lists say.

Figures of a config are the same on every machine: the setting is any machine.  They are exact, except that
what a model takes of a board's memory is an account of ours, off by what ``profile plan`` allows for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import hypot
from typing import NamedTuple

from profiler import arch, catalog, fit
from profiler.arch import work
from profiler.catalog import GpuSpec
from profiler.claims import bought, languages, metrics
from profiler.claims.configs import Held, Pair, claim_of_classes, held, pairs
from profiler.claims.nouns import Case, Cell, Claim, Evidence, Setting, Side
from profiler.errors import InputError
from profiler.plan.placement import OVERHEAD_OFF_FRAC, WEIGHTS_OFF_FRAC
from profiler.store import RunResult

ANY_MACHINE = "any machine"
ENGINE = "computed"
MOST_GPUS = 64


class Figure(NamedTuple):
    """``value`` in the metric's unit, off by ``off_frac`` at most; why there is none where it is None."""

    value: float | None
    off_frac: float = 0.0
    doubt: str | None = None


Figures = Callable[[Held, Cell], Figure]


def cases(claim: Claim, runs: Sequence[RunResult]) -> list[Case]:
    """The claim in every setting there is for it.  Raises InputError for a metric nobody knows."""
    try:
        return _cases(claim, runs)
    except InputError as error:
        return [Case(claim=claim, impossible=str(error))]


def _cases(claim: Claim, runs: Sequence[RunResult]) -> list[Case]:
    kind = metrics.of(claim.metric).kind
    if metrics.api_priced(claim):
        return bought.cases(claim, runs)
    if kind == "tokens":
        return languages.cases(claim, runs)
    if claim.metric == "gpus_needed":
        return [case for spec in _boards(claim) for case in _of_board(claim, spec, runs)]
    if claim.baseline.gpu is not None:
        return [_on_board(claim, name, runs) for name in claim.subject.names]
    figures = _FIGURES.get(claim.metric)
    if kind not in ("architecture", "fit") or figures is None:
        raise InputError(f"metric {claim.metric}: there is no way to compute it")
    setting = ANY_MACHINE, ENGINE
    return _of_pairs(claim, runs, setting, figures)


def _of_pairs(
    claim: Claim, runs: Sequence[RunResult], setting: tuple[str, str], figures: Figures
) -> list[Case]:
    found = [_of_pair(claim, pair, runs, setting, figures) for pair in pairs(claim, runs)]
    return found or [_without_pairs(claim)]


def _without_pairs(claim: Claim) -> Case:
    quality = claim.conditions.quality
    if not claim_of_classes(claim):
        return Case(claim=claim, impossible="the claim names no models on one side")
    if quality is None:
        return Case(claim=claim, missing=("runs of models of both classes: profile run --model A --model B",))
    told = f"no two such models are equivalent on {quality.benchmark} (profile list quality)"
    return Case(claim=claim, impossible=told)


def _of_pair(
    claim: Claim, pair: Pair, runs: Sequence[RunResult], at: tuple[str, str], figures: Figures
) -> Case:
    precision = claim.conditions.precision
    setting = Setting(subject=pair.subject, baseline=pair.baseline, machine=at[0], engine=at[1])
    try:
        sides = held(pair.subject, precision, runs), held(pair.baseline, precision, runs)
    except InputError as error:
        return Case(claim=claim, setting=setting, impossible=str(error))
    unlike = [] if precision or claim.metric not in _OF_PRECISION else list(_unlike(*sides))
    return Case(
        claim=claim,
        setting=setting,
        evidence=tuple(_evidence(cell, sides, figures) for cell in claim.grid()),
        doubts=(*pair.doubts, *unlike),
    )


def _unlike(subject: Held, baseline: Held) -> Iterator[str]:
    """Bytes of a weight in two formats tell of the formats, not of the models."""
    if abs(subject.bytes_each / baseline.bytes_each - 1) > 0.02:
        yield (
            f"published in unlike number formats ({subject.bytes_each:.3g} and {baseline.bytes_each:.3g} "
            "bytes a weight): name one in conditions.precision"
        )


def _evidence(cell: Cell, sides: tuple[Held, Held], figures: Figures) -> Evidence:
    found = [figures(each, cell) for each in sides]
    tokens = _tokens(cell)
    doubts = [doubt for each in sides for doubt in each.doubts(tokens)]
    return Evidence(
        cell=cell,
        subject=_exact(sides[0], found[0]),
        baseline=_exact(sides[1], found[1]),
        doubts=(*doubts, *(each.doubt for each in found if each.doubt)),
        systematic_frac=_together(found[0].off_frac, found[1].off_frac),
    )


def _exact(side: Held, found: Figure) -> Side:
    return Side(exact=found.value, facts=side.facts())


def _together(one: float, other: float) -> float:
    """Two accounts may be off in opposite directions."""
    return (1 + one) * (1 + other) - 1


def _tokens(cell: Cell) -> int | None:
    """Of a request of the cell, from the first to the last."""
    return None if cell.input_tokens is None else cell.input_tokens + (cell.output_tokens or 1)


# -------------------------------------------------------------------------------------- architecture


def _flops(side: Held, cell: Cell) -> Figure:
    """Of one new token behind ``input_tokens`` others; what ``work`` does not count is not in it."""
    batch = work.Batch(decode_sequences=1, decode_context=cell.input_tokens or 0)
    return Figure(float(sum(op.flops for op in work.step(side.shape, side.widths, batch))))


def _kv_bytes(side: Held, _cell: Cell) -> Figure:
    """Of one more token, where that is the same for the first and the last of them."""
    windows = [kind.mixer for kind in side.shape.layers if kind.mixer.kind in ("window", "linear")]
    if windows:
        return Figure(None, doubt=f"{side.name}: what one more token takes of its cache depends on how many")
    each = work.kv_bytes(side.shape, work.Widths(routed=2, other=2, embedding=2), 1, 0)
    return Figure(float(each))


# ----------------------------------------------------------------------------------------------- fit


def smallest_gpu_bytes(side: Held, cell: Cell) -> Figure:
    """Memory that one GPU must have for weights, runtime and the cache of ``batch`` requests, each with all
    its tokens in the cache."""
    overhead, cache = float(fit.GPU_OVERHEAD_BYTES), _cache_bytes(side, cell)
    whole = side.weights_bytes + overhead + cache
    return Figure(whole / fit.USABLE_FRAC, off_frac=_off_bytes(side, overhead) / whole)


def _cache_bytes(side: Held, cell: Cell) -> float:
    batch = cell.batch or 1
    return float(work.kv_bytes(side.shape, side.widths, batch * (_tokens(cell) or 1), batch))


def _off_bytes(side: Held, overhead_bytes: float) -> float:
    return hypot(side.weights_bytes * WEIGHTS_OFF_FRAC, overhead_bytes * OVERHEAD_OFF_FRAC)


def gpus_needed(side: Held, cell: Cell, spec: GpuSpec) -> Figure:
    """The smallest power of two of these GPUs that holds the load and divides the model."""
    cache = _cache_bytes(side, cell)

    def count(direction: int) -> int | None:
        fitting = (n for n in fit.powers(MOST_GPUS) if _fits(side, cache, spec, n, direction))
        return next(fitting, None)

    middle, low, high = count(0), count(-1), count(1)
    if middle is None or low is None or high is None:
        return Figure(None, doubt=f"{side.name}: {MOST_GPUS} × {spec.gpu} do not hold it for sure")
    return Figure(float(middle), off_frac=max(high / middle, middle / low) - 1)


def _fits(side: Held, cache_bytes: float, spec: GpuSpec, count: int, direction: int) -> bool:
    """With our account of weights and runtime as it is, or off to one side."""
    if arch.tensor_obstacle(side.shape, count, block=side.block):
        return False
    overhead = float(count * fit.GPU_OVERHEAD_BYTES)
    taken = side.weights_bytes + overhead + direction * _off_bytes(side, overhead)
    return cache_bytes <= fit.cache_room(taken, count, spec.memory_bytes, side.shape.kv_heads)


def _boards(claim: Claim) -> list[GpuSpec]:
    """Raises InputError where the claim says of none."""
    from profiler.claims import hardware

    known = {spec.gpu: spec for spec in catalog.gpus()}
    if claim.conditions.gpus:
        return [known[name] for name in claim.conditions.gpus]
    if claim.conditions.gpu_class:
        return list(hardware.of_class(claim.conditions.gpu_class))
    raise InputError("how many GPUs are needed depends on which: name them in conditions.gpus")


def _of_board(claim: Claim, spec: GpuSpec, runs: Sequence[RunResult]) -> list[Case]:
    setting = spec.gpu, ENGINE
    return _of_pairs(claim, runs, setting, lambda side, cell: gpus_needed(side, cell, spec))


def _on_board(claim: Claim, name: str, runs: Sequence[RunResult]) -> Case:
    """A model against the memory of a board."""
    assert claim.baseline.gpu is not None, "the caller looked"
    meant = catalog.find_gpus(claim.baseline.gpu)
    if not meant:
        raise InputError(f"baseline.gpu {claim.baseline.gpu}: no such GPU in the catalog")
    spec = meant[0]
    setting = Setting(subject=name, baseline=spec.gpu, machine=spec.gpu, engine=ENGINE)
    try:
        side = held(name, claim.conditions.precision, runs)
    except InputError as error:
        return Case(claim=claim, setting=setting, impossible=str(error))
    board = Side(exact=float(spec.memory_bytes), facts={"gpu": spec.gpu, "source": spec.source})
    evidence = []
    for cell in claim.grid():
        found = smallest_gpu_bytes(side, cell)
        each = Evidence(
            cell=cell,
            subject=_exact(side, found),
            baseline=board,
            doubts=tuple(side.doubts(_tokens(cell))),
            systematic_frac=found.off_frac,
        )
        evidence.append(each)
    return Case(claim=claim, setting=setting, evidence=tuple(evidence))


_FIGURES: dict[str, Figures] = {
    "flops_per_token": _flops,
    "total_params": lambda side, _: Figure(float(side.shape.total_params)),
    "active_params": lambda side, _: Figure(float(side.shape.active_params)),
    "active_params_no_embedding": lambda side, _: Figure(float(side.shape.active_params_no_embedding)),
    "kv_bytes_per_token": _kv_bytes,
    "weights_bytes": lambda side, _: Figure(side.weights_bytes),
    "smallest_gpu_bytes": smallest_gpu_bytes,
}
_OF_PRECISION = ("weights_bytes", "smallest_gpu_bytes", "gpus_needed")
