"""What is predicted for a placement at several loads: times, rates, energy, and what a limit or a price makes
of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct

from profiler import cost, prices
from profiler.catalog import GpuSpec
from profiler.plan.placement import Placement
from profiler.plan.question import Question
from profiler.schema import Price
from profiler.slo import Limit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from profiler.predict import Calibration

    Floats = NDArray[np.float64]

# How far a quantile of a steady load may lie above the mean and still be within a limit that the mean keeps
# with that much to spare.  Prompts come in their own time, so first tokens spread more than later ones; what
# the slowest gaps are is not predicted.
TAILS = {"ttft_s": 2.0, "tpot_s": 1.25, "e2e_s": 2.0, "itl_s": float("inf")}


class Interval(NamedTuple):
    """A prediction and the ends of its 90 % interval."""

    value: Floats
    low: Floats
    high: Floats


class Answer(Struct, frozen=True, kw_only=True):
    """What is predicted for one placement at ``asked`` requests at once (or as many as a rate keeps under
    way; nan where it cannot be kept up with), of which ``running`` are in the engine.

    ``values`` maps a name of ESTIMATES, or ``e2e_s``, to an interval of arrays, one entry a load; a name that
    cannot be predicted is absent.  ``reasons``: what makes each load's interval wider.  ``distinct_experts``:
    of a layer in a decode step, None in a dense model.
    """

    placement: Placement
    asked: Floats
    running: Floats
    values: dict[str, Interval]
    alone_ttft_s: Interval
    bound_by: list[str]
    extrapolated: list[bool]
    calibrated: bool
    reasons: list[list[str]]
    distinct_experts: Floats | None

    def of(self, limit: Limit) -> Interval:
        """What a limit is held against; between tokens, the gap that half of them stay below."""
        return self.values["itl_s_p50" if limit.metric == "itl_s" else limit.metric]


def answer(placement: Placement, asked: Sequence[float] | Floats, calibration: Calibration | None) -> Answer:
    """Predict loads that may be beyond what the cache holds: the engine runs what fits, the others wait.

    A closed loop of N slots, B of which run, completes as B slots do, so that a request's whole time is
    N/B of what it is at B slots (Little's law), and all that is added is spent before the first token.
    """
    import numpy as np

    from profiler import predict

    question, lengths = placement.question, placement.question.lengths
    wanted = np.asarray(asked, dtype=float)
    running = np.minimum(np.nan_to_num(wanted, nan=1.0), placement.sequences)
    load = question.load(
        np.concatenate([[1.0], running])
    )  # the first: a request that has the engine for itself
    found = predict.predict(placement.deployment(), load, calibration)
    values = {
        name: Interval(each.value[1:], each.low[1:], each.high[1:])
        for name in predict.METRICS
        if (each := getattr(found, name)) is not None
    }
    after, waits = lengths.mean_output - 1, wanted / running - 1
    first, gap = values["ttft_s"], values["tpot_s"]
    values["ttft_s"] = first = _each(lambda f, g: f + waits * (f + after * g), first, gap)
    values["e2e_s"] = _each(lambda f, g: f + after * g, first, gap)
    values["requests_per_s"] = _each(lambda rate: rate / lengths.mean_output, values["output_tokens_per_s"])
    if lengths.mean_output == 1:  # no time between tokens
        del values["tpot_s"]
    return Answer(
        placement=placement,
        asked=wanted,
        running=running,
        values=values,
        alone_ttft_s=Interval(found.ttft_s.value[:1], found.ttft_s.low[:1], found.ttft_s.high[:1]),
        bound_by=[str(each) for each in found.bound_by[1:]],
        extrapolated=[bool(each) for each in found.extrapolated[1:]],
        calibrated=bool(found.calibrated),
        reasons=[
            [words for words, holds in found.reasons.items() if holds[place]]
            for place in range(1, len(wanted) + 1)
        ],
        distinct_experts=predict.distinct_experts(placement.deployment(), running, calibration),
    )


def gpu_seconds(
    placement: Placement, loads: Sequence[int], calibration: Calibration | None
) -> tuple[list[float], list[int]]:
    """GPU seconds an output token takes, without intervals, at those loads that keep all limits."""
    import numpy as np

    from profiler import predict

    question = placement.question
    found = predict.figures(placement.deployment(), question.load(np.array(loads, dtype=float)), calibration)
    after = question.lengths.mean_output - 1
    seen = {
        "ttft_s": found.ttft_s,
        "tpot_s": found.tpot_s,
        "itl_s": found.itl_s_p50,
        "e2e_s": found.ttft_s + after * found.tpot_s,
    }
    kept = np.ones(len(loads), dtype=bool)
    for limit in question.limits:
        if limit.metric == "tpot_s" and question.lengths.mean_output == 1:
            continue
        kept &= seen[limit.metric] * _tail(limit) <= limit.limit_s
    seconds = placement.gpus / found.output_tokens_per_s
    return seconds[kept].tolist(), [load for load, good in zip(loads, kept, strict=True) if good]


def at_rates(found: Answer, requests_per_s: Sequence[float]) -> Answer:
    """The same where requests come at given rates: tokens come with them, and energy is power over those."""
    import numpy as np

    rates = np.asarray(requests_per_s, dtype=float)
    tokens = rates * found.placement.question.lengths.mean_output
    values = found.values | {
        "requests_per_s": Interval(rates, rates, rates),
        "output_tokens_per_s": Interval(tokens, tokens, tokens),
    }
    if "power_w_mean" in values:
        values["energy_j_per_output_token"] = _each(lambda power: power / tokens, values["power_w_mean"])
    return msgspec.structs.replace(found, values=values)


def _each(function: Callable[..., Floats], *intervals: Interval) -> Interval:
    """Of a function that rises with all its arguments."""
    return Interval(*(function(*ends) for ends in zip(*intervals, strict=True)))


# ------------------------------------------------------------------------------------- limits and money


def met(found: Answer, limit: Limit) -> list[bool | None]:
    """Whether each load keeps the limit: no where even the mean at the interval's lower end is beyond it, yes
    where the upper end leaves room for the tail, else undecided (None)."""
    if limit.metric not in found.values and limit.metric != "itl_s":
        return [True] * len(found.asked)  # an answer of one token has no TPOT to be late in
    tail = _tail(limit)
    verdicts: list[bool | None] = []
    for low, high in zip(found.of(limit).low, found.of(limit).high, strict=True):
        verdicts.append(True if high * tail <= limit.limit_s else None if low <= limit.limit_s else False)
    return verdicts


def _tail(limit: Limit) -> float:
    return TAILS[limit.metric] if limit.allowed_frac < 0.5 else 1.0


def all_met(found: Answer, limits: Sequence[Limit]) -> list[bool | None]:
    """Of all limits together: no where one is missed, undecided where one is."""
    every = [met(found, limit) for limit in limits]
    return [
        False if False in verdicts else None if None in verdicts else True
        for verdicts in zip(*every, strict=True)
    ]


def price(question: Question, gpu: GpuSpec) -> Price | None:
    """The user's, else the catalog's: the median of offers, with the cheapest and the dearest.  None where
    nobody offers it."""
    found = prices.quote(gpu.gpu, given=question.price, memory_bytes=gpu.memory_bytes)
    return None if isinstance(found, prices.Missing) else found


def usd_per_s(question: Question, placement: Placement) -> float | None:
    return prices.usd_per_s(price(question, placement.gpu), placement.gpus)


def money(found: Answer, per_s: float | None) -> dict[str, Interval]:
    """The three cost columns, as ``profile compare`` has them: a prompt token takes what it takes alone."""
    if per_s is None:
        return {}
    question = found.placement.question
    lengths, rate = question.lengths, found.values["output_tokens_per_s"]
    scale = per_s * 1e6
    alone = _each(lambda first: first / lengths.mean_input, found.alone_ttft_s)
    bill = Interval(scale / rate.value, scale / rate.high, scale / rate.low)
    # What prompts take is paid for by the kind and taken off the rest of the bill: both ends at their worst.
    inputs, outputs = cost.TERMS.blend
    weight = inputs - outputs * lengths.mean_input / lengths.mean_output
    least, most = (alone.low, alone.high) if weight >= 0 else (alone.high, alone.low)
    pairs = ((rate.value, alone.value), (rate.high, least), (rate.low, most))
    blended = Interval(*((outputs / each + weight * prompt) * scale for each, prompt in pairs))
    return {
        "usd_per_m_output_tokens": bill,
        "usd_per_m_input_tokens": _each(lambda each: each * scale + 0 * rate.value, alone),
        "usd_per_m_blended_tokens": blended,
    }
