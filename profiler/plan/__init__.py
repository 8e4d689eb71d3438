"""Before renting: does a model fit on a GPU, what will it cost, and where does a MoE beat a dense rival?

``answer_all`` goes from the words of a request to a :class:`Plan`; ``report.plan`` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from profiler import catalog, fit
from profiler.catalog import GpuSpec
from profiler.errors import InputError
from profiler.plan.answers import Interval, all_met, answer, gpu_seconds
from profiler.plan.crossover import BATCHES, BESIDE, CONTEXTS, Map, drawn, others, over, pairs
from profiler.plan.placement import Placement, place, places, smallest, together
from profiler.plan.question import MOST_GPUS, Candidate, Question, Request, lacks, resolve
from profiler.plan.rows import COLUMNS, Row, row_at, rows_of

if TYPE_CHECKING:
    from profiler.predict import Calibration

__all__ = [
    "COLUMNS",
    "Beside",
    "Map",
    "Placement",
    "Plan",
    "Question",
    "Reach",
    "Request",
    "Size",
    "answer_all",
]

ONE_MACHINE = 8  # GPUs beyond which a placement spans machines


class Size(Struct, frozen=True, kw_only=True):
    """How a model fits on a kind of GPU.  ``runs``: on as few as hold the weights and one request; ``holds``:
    on as few as run the scenario's largest load at once; None where 64 do not.  ``by_count``: on 1, 2, 4, 8
    of them."""

    candidate: Candidate
    gpu: GpuSpec
    runs: Placement | None
    holds: Placement | None
    by_count: tuple[Placement, ...]

    @property
    def least(self) -> Placement:
        """On the fewest GPUs that it can be split over, fitting or not."""
        return self.by_count[0]


class Reach(Struct, frozen=True, kw_only=True):
    """The highest number of requests at once under which all limits are kept, surely and possibly; 0 where
    not even one is, and then ``shortfalls`` has limit → how many times it the prediction is."""

    placement: Placement
    surely: int
    possibly: int
    shortfalls: dict[str, float]


class Worth(Struct, frozen=True, kw_only=True):
    """``gpu`` makes ``times`` the tokens that ``other`` does of ``candidate``, each at its own best: at that
    share of the other's price a token costs the same.  ``low`` to ``high``: 90 %, as if the errors of the two
    were independent."""

    candidate: Candidate
    gpu: GpuSpec
    other: GpuSpec
    times: float
    low: float
    high: float


class Beside(Struct, frozen=True, kw_only=True):
    """A pair on a GPU that was not asked for, at the scenario's prompt length; no map where 64 do not hold
    both."""

    moe: Candidate
    dense: Candidate
    gpu: GpuSpec
    found: Map | None


class Plan(Struct, frozen=True, kw_only=True):
    """All that is printed.  ``best``: each model's cheapest load and number of GPUs, up to 8, a GPU;
    ``lines``: what the maps do not compare, at the scenario's prompt length."""

    question: Question
    sizes: tuple[Size, ...]
    sets: dict[str, list[str]]
    rows: tuple[Row, ...]
    best: tuple[Row, ...]
    worth: tuple[Worth, ...]
    reaches: tuple[Reach, ...]
    maps: tuple[Map, ...]
    lines: tuple[Map, ...]
    beside: tuple[Beside, ...]
    notes: tuple[str, ...]


def answer_all(request: Request) -> Plan:
    """Raises InputError, one line, for what cannot be planned and for models that fit nowhere."""
    question = resolve(request)
    sizes = tuple(_size(question, each, gpu) for each in question.candidates for gpu in question.gpus)
    calibration = _calibration(request)
    placements = [each for gpu in question.gpus for each in _placements(question, gpu)]
    if not any(size.runs for size in sizes):
        raise InputError(_nowhere(question, sizes))
    fitting = [each for each in placements if each.fits]
    duels = [duel for gpu in question.gpus for duel in _duels(question, gpu)]
    maps = tuple(drawn(*duel, _contexts(*duel), calibration) for duel in duels)
    best = tuple(row for size in sizes if (row := _best(question, size, calibration)))
    return Plan(
        question=question,
        sizes=sizes,
        sets={each.name: _sets(question, each) for each in question.candidates},
        rows=tuple(row for each in placements for row in rows_of(question, each, calibration)),
        best=best,
        worth=tuple(_worth(question, best)),
        reaches=tuple(_reach(question, each, calibration) for each in fitting if question.limits),
        maps=maps,
        lines=tuple(others(maps, calibration)),
        beside=tuple(_beside(question, calibration)),
        notes=question.notes,
    )


def _calibration(request: Request) -> Calibration | None:
    """None stands for the shipped fit."""
    if not request.calibrate:
        return None
    from profiler.plan.calibration import from_runs

    return from_runs(request.calibrate)


# ---------------------------------------------------------------------------------------------- fit


def _size(question: Question, candidate: Candidate, gpu: GpuSpec) -> Size:
    return Size(
        candidate=candidate,
        gpu=gpu,
        runs=smallest(question, candidate, gpu),
        holds=smallest(question, candidate, gpu, question.most_requests),
        by_count=tuple(places(question, candidate, gpu, ONE_MACHINE)),
    )


def _sets(question: Question, candidate: Candidate) -> list[str]:
    """The smallest hardware of the catalog that holds the scenario's largest load, cheapest first."""

    def count(device_bytes: int) -> int | None:
        spec = msgspec.structs.replace(question.gpus[0], mem_gb=device_bytes / fit.GIB)
        found = smallest(question, candidate, spec, question.most_requests)
        return found.gpus if found else None

    return fit.gpu_sets(count)


def _nowhere(question: Question, sizes: Sequence[Size]) -> str:
    size = sizes[0]
    weights = size.least.weights_bytes / fit.GIB
    sets = _sets(question, size.candidate)
    instead = f"; it would on {sets[0]}" if sets else ""
    return (
        f"{size.candidate.name} does not fit: {weights:,.0f} GiB of weights, {size.gpu.gpu} has "
        f"{size.gpu.mem_gb:g} GiB, and {MOST_GPUS} of them do not hold it{instead}"
    )


def _placements(question: Question, gpu: GpuSpec) -> list[Placement]:
    """What rows are made for: the numbers asked for; else each model's own smallest, and the smallest that
    holds all of them, so that they can be compared on equal GPUs."""
    if question.counts:
        return [place(question, each, gpu, n) for n in question.counts for each in question.candidates]
    own = [each for one in question.candidates if (each := smallest(question, one, gpu))]
    equal = together(question, question.candidates, gpu)
    seen = {(each.candidate.name, each.gpus): each for each in (*own, *equal)}
    return sorted(seen.values(), key=lambda each: each.gpus)


# -------------------------------------------------------------------------------- best, limits, rivals


def _best(question: Question, size: Size, calibration: Calibration | None) -> Row | None:
    """The cheapest load per token, on any number of GPUs in a machine, that keeps the limits as predicted."""
    cheapest: tuple[float, Placement, int] | None = None
    for placement in size.by_count:
        loads = [each for each in BATCHES if each <= placement.sequences]
        if not placement.fits or not loads:
            continue
        for seconds, load in zip(*gpu_seconds(placement, loads, calibration), strict=True):
            if cheapest is None or seconds < cheapest[0]:
                cheapest = (seconds, placement, load)
    return row_at(question, cheapest[1], cheapest[2], calibration) if cheapest else None


def _worth(question: Question, best: Sequence[Row]) -> Iterator[Worth]:
    """Every GPU that was asked for against the first."""
    rates = {(row["model"], row["gpu"]): _per_gpu(row) for row in best}
    first = question.gpus[0]
    for candidate in question.candidates:
        for gpu in question.gpus[1:]:
            ours, theirs = (rates.get((candidate.name, each.gpu)) for each in (gpu, first))
            if ours and theirs:
                times = over(ours, theirs)
                yield Worth(
                    candidate=candidate,
                    gpu=gpu,
                    other=first,
                    times=float(times.value),
                    low=float(times.low),
                    high=float(times.high),
                )


def _per_gpu(row: Row) -> Interval:
    """Output tokens per second."""
    return Interval(*(row[f"output_tokens_per_s{end}"] / row["gpus"] for end in ("", "_low", "_high")))


def _reach(question: Question, placement: Placement, calibration: Calibration | None) -> Reach:
    found = answer(placement, BATCHES, calibration)
    verdicts = all_met(found, question.limits)

    def highest(kept: Sequence[bool]) -> int:
        """Of the loads from 1 up, before the first that fails."""
        first = kept.index(False) if False in kept else len(kept)
        return BATCHES[first - 1] if first else 0

    possibly = highest([each is not False for each in verdicts])
    shortfalls = {
        limit.words: float(found.of(limit).value[0] / limit.limit_s)
        for limit in question.limits
        if not possibly and found.of(limit).value[0] > limit.limit_s
    }
    return Reach(
        placement=placement,
        surely=highest([each is True for each in verdicts]),
        possibly=possibly,
        shortfalls=shortfalls,
    )


def _duels(question: Question, gpu: GpuSpec) -> list[tuple[Placement, Placement]]:
    """Each MoE and dense rival on equal GPUs: the first number asked for, else as few as hold both."""
    found = []
    for pair in pairs(question):
        if question.counts:
            placed = tuple(place(question, each, gpu, question.counts[0]) for each in pair)
            both = placed if all(each.fits for each in placed) else ()
        else:
            both = together(question, pair, gpu)
        if both:
            found.append((both[0], both[1]))
    return found


def _contexts(moe: Placement, dense: Placement) -> tuple[int, ...]:
    """Prompt lengths that both models take, answers included; the scenario's own is among them."""
    lengths = moe.question.lengths
    most = min(each.candidate.shape.max_context_tokens or CONTEXTS[-1] for each in (moe, dense))
    own = {each for each in CONTEXTS if each + lengths.mean_output <= most}
    return tuple(sorted(own | {lengths.mean_input}))


def _beside(question: Question, calibration: Calibration | None) -> list[Beside]:
    asked = {gpu.gpu for gpu in question.gpus}
    rest = {spec.gpu: spec for spec in catalog.gpus() if spec.gpu not in asked}
    here = (question.lengths.mean_input,)
    found = []
    for moe, dense in pairs(question):
        for gpu in (rest[name] for name in BESIDE if name in rest):
            if lacks(gpu, moe) or lacks(gpu, dense):
                continue  # as all of them, of a rate in 32 bits
            both = together(question, (moe, dense), gpu)
            line = drawn(both[0], both[1], here, calibration) if both else None
            found.append(Beside(moe=moe, dense=dense, gpu=gpu, found=line))
    return found
