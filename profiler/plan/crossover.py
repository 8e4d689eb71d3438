"""Where a MoE beats a dense rival: batch × prompt length, who wins, by how much, where it flips.

A ratio is the dense model's figure over the MoE's: above 1 the MoE is better.  A cell is decided where the
90 % interval of the ratio lies on one side of 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from profiler.errors import InputError
from profiler.plan.answers import Interval
from profiler.plan.placement import Placement
from profiler.plan.question import METRICS, Candidate, Question

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from profiler.predict import Calibration, Load, Prediction

    Floats = NDArray[np.float64]

Winner = Literal["moe", "dense", "undecided"]
BATCHES = (*range(1, 8), *(step << octave for octave in range(1, 10) for step in (4, 5, 6, 7)), 4096)
TOLD = 1.05  # times better, below which a flip and a flip back are not told
CONTEXTS = tuple(256 << octave for octave in range(10))
# Beside the GPUs asked for: what is sold where the fastest are not, and what is at home.
BESIDE = ("H20 96GB", "A100 SXM4 80GB", "L40S 48GB", "L4 24GB", "RTX 4090 24GB")


class Map(Struct, frozen=True, kw_only=True):
    """``ratio`` has a row a context, a column a batch; ``held`` says where both models' caches hold the whole
    batch; elsewhere the ratio is what it would be if they did."""

    moe: Placement
    dense: Placement
    metric: str
    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    ratio: Interval
    held: NDArray[np.bool_]

    def winner(self, row: int, column: int) -> Winner:
        if self.ratio.low[row, column] > 1:
            return "moe"
        return "dense" if self.ratio.high[row, column] < 1 else "undecided"


class Stretch(Struct, frozen=True, kw_only=True):
    """Batches ``first`` to ``last`` where one is better by the prediction: ``least`` to ``most`` times."""

    winner: Literal["moe", "dense"]
    first: int
    last: int
    least: float
    most: float


def drawn(moe: Placement, dense: Placement, contexts: Sequence[int], calibration: Calibration | None) -> Map:
    """The map of the metric that was asked for, all cells at once."""
    import numpy as np

    question = moe.question
    load = question.load(np.array(BATCHES, dtype=float)[None, :], np.array(contexts, dtype=float)[:, None])
    if question.metric == "speed":
        from profiler import predict

        found = predict.ratio(moe.deployment(), dense.deployment(), load, calibration)
        return _map(moe, dense, "speed", contexts, Interval(found.value, found.low, found.high))
    both = (_forecast(each, load, calibration) for each in (moe, dense))
    return _map(moe, dense, question.metric, contexts, _ratio(question.metric, *both))


def others(drawn_maps: Sequence[Map], calibration: Calibration | None) -> list[Map]:
    """For each map, one line a metric that it does not show, at the scenario's prompt length."""
    import numpy as np

    axes: dict[tuple[str, str, int], Prediction] = {}

    def axis(placement: Placement) -> Prediction:
        key = (placement.candidate.name, placement.gpu.gpu, placement.gpus)
        if key not in axes:
            load = placement.question.load(np.array(BATCHES, dtype=float)[None, :])
            axes[key] = _forecast(placement, load, calibration)
        return axes[key]

    found = []
    for each in drawn_maps:
        lengths = each.moe.question.lengths
        here = (lengths.mean_input,)
        known = {"speed": lengths.mean_output > 1, "energy": each.moe.gpu.tdp_w is not None, "cost": True}
        for metric in METRICS:
            if metric != each.metric and known[metric]:
                ratio = _ratio(metric, axis(each.moe), axis(each.dense))
                found.append(_map(each.moe, each.dense, metric, here, ratio))
    return found


def _forecast(placement: Placement, load: Load, calibration: Calibration | None) -> Prediction:
    from profiler import predict

    return predict.predict(placement.deployment(), load, calibration)


def _map(moe: Placement, dense: Placement, metric: str, contexts: Sequence[int], ratio: Interval) -> Map:
    import numpy as np

    held = np.minimum(_room(moe, contexts), _room(dense, contexts))
    return Map(
        moe=moe,
        dense=dense,
        metric=metric,
        batches=BATCHES,
        contexts=tuple(contexts),
        ratio=ratio,
        held=np.array(BATCHES)[None, :] <= held[:, None],
    )


def _room(placement: Placement, contexts: Sequence[int]) -> Floats:
    """Requests that the cache holds, by prompt length."""
    import numpy as np

    output = placement.question.lengths.mean_output
    room = placement.cache_bytes()
    return np.array([room / placement.request_bytes(context + output) for context in contexts])


def _ratio(metric: str, moe: Prediction, dense: Prediction) -> Interval:
    """Raises InputError where there is no power to tell energy from."""
    if metric == "speed":
        return over(dense.tpot_s, moe.tpot_s)
    if metric == "cost":  # of equal GPUs: what one makes a second over what the other makes
        return over(moe.output_tokens_per_s, dense.output_tokens_per_s)
    if moe.energy_j_per_output_token is None or dense.energy_j_per_output_token is None:
        raise InputError("--metric energy: no tdp_w of this GPU is known; give it in a sheet of your own")
    return over(dense.energy_j_per_output_token, moe.energy_j_per_output_token)


def over(one: Any, other: Any) -> Interval:
    """Of two figures whose errors are independent: log widths add as squares."""
    import numpy as np

    value = one.value / other.value
    up = np.hypot(np.log(one.high / one.value), np.log(other.value / other.low))
    down = np.hypot(np.log(one.value / one.low), np.log(other.high / other.value))
    return Interval(value, value * np.exp(-down), value * np.exp(up))


def stretches(found: Map, row: int) -> tuple[Stretch, ...]:
    """Who is better along a row, by the prediction itself, from flip to flip.  A lead below TOLD between two
    leads of the other is told as theirs."""
    import numpy as np

    logs, batches = np.log(found.ratio.value[row]), np.array(found.batches, dtype=float)
    ahead = logs > 0
    last = [*np.nonzero(ahead[1:] != ahead[:-1])[0], len(logs) - 1]  # of each stretch
    flips = [_flip(logs[i : i + 2], batches[i : i + 2]) for i in last[:-1]]
    starts, ends = [batches[0], *flips], [*flips, batches[-1]]
    told: list[Stretch] = []
    for place, stop in enumerate(last):
        begin = last[place - 1] + 1 if place else 0
        sizes = np.abs(logs[begin : stop + 1])
        told.append(
            Stretch(
                winner="moe" if ahead[stop] else "dense",
                first=round(starts[place]),
                last=round(ends[place]),
                least=float(np.exp(sizes.min())),
                most=float(np.exp(sizes.max())),
            )
        )
        told[-3:] = _merged(told[-3:])
    return tuple(told)


def _flip(logs: Floats, batches: Floats) -> float:
    """The batch at which the logarithm is 0, between two of different sign."""
    import numpy as np

    order = np.argsort(logs)
    return float(np.exp(np.interp(0.0, logs[order], np.log(batches[order]))))


def _merged(last: list[Stretch]) -> list[Stretch]:
    """Three as one where the one between leads by next to nothing."""
    if len(last) < 3 or last[1].most >= TOLD:
        return last
    before, _, after = last
    whole = msgspec.structs.replace(before, last=after.last, least=1.0, most=max(before.most, after.most))
    return [whole]


def undecided(found: Map, row: int) -> tuple[tuple[int, int], ...]:
    """Runs of batches whose interval includes 1, first to last."""
    runs: list[tuple[int, int]] = []
    for column, batch in enumerate(found.batches):
        if found.winner(row, column) == "undecided":
            joins = bool(runs) and column > 0 and runs[-1][1] == found.batches[column - 1]
            runs[-1:] = [(runs[-1][0], batch)] if joins else [*runs[-1:], (batch, batch)]
    return tuple(runs)


def pairs(question: Question) -> list[tuple[Candidate, Candidate]]:
    """Each MoE with each dense rival."""
    moes = [each for each in question.candidates if each.feed]
    rivals = [each for each in question.candidates if not each.feed]
    return [(moe, rival) for moe in moes for rival in rivals]
