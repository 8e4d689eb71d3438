"""Predictions as rows: one a model × GPU × number of GPUs × load, in the column names of ``compare``."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from profiler.plan.answers import Answer, all_met, answer, at_rates, money, price, usd_per_s
from profiler.plan.placement import OVERHEAD_OFF_FRAC, WEIGHTS_OFF_FRAC, Placement
from profiler.plan.question import Question
from profiler.schema import LoadPoint

if TYPE_CHECKING:
    from profiler.predict import Calibration

Row = dict[str, Any]
ESTIMATES = (
    "tpot_s",
    "ttft_s",
    "itl_s_p50",
    "output_tokens_per_s",
    "requests_per_s",
    "power_w_mean",
    "energy_j_per_output_token",
    "usd_per_m_output_tokens",
    "usd_per_m_input_tokens",
    "usd_per_m_blended_tokens",
    "memory_weights_bytes",
    "memory_kv_bytes",
    "memory_peak_bytes",
)
IDENTITY = ("model", "kind", "scenario", "load", "concurrency", "load_requests_per_s", "gpu", "gpus")
CONTEXT = (
    "tensor_parallel",
    "expert_parallel",
    "weights",
    "bytes_per_weight",
    "input_tokens_mean",
    "output_tokens_mean",
    "running_requests",
    "kv_tokens",
    "fits",
    "bound_by",
    "distinct_experts",
    "idle_experts_frac",
    "calibrated",
    "extrapolated",
    "slo_met",
    "price_usd_per_hour",
    "price_low_usd_per_hour",
    "price_high_usd_per_hour",
    "price_basis",
    "notes",
)
COLUMNS = (*IDENTITY, *(name + end for name in ESTIMATES for end in ("", "_low", "_high")), *CONTEXT)

NOTE_SEPARATOR = " | "  # as in compare's rows
VERDICTS = {True: "yes", False: "no", None: "undecided"}


def rows_of(question: Question, placement: Placement, calibration: Calibration | None) -> list[Row]:
    """The scenario's loads on one placement; a model that does not fit has one row that says so."""
    if not placement.fits:
        return [_row(question, placement, point, None, 0) for point in question.points[:1]]
    found = answer(placement, offered(question, placement), calibration)
    rates = [point.requests_per_s for point in question.points if point.requests_per_s is not None]
    found = at_rates(found, rates) if rates else found
    return [_row(question, placement, point, found, place) for place, point in enumerate(question.points)]


def row_at(question: Question, placement: Placement, requests: int, calibration: Calibration | None) -> Row:
    """One load, not of the scenario."""
    point = LoadPoint(mode="closed", concurrency=requests)
    return _row(question, placement, point, answer(placement, [requests], calibration), 0)


def offered(question: Question, placement: Placement) -> list[float]:
    """Requests under way at each load point; nan where a rate cannot be kept up with."""
    from profiler import predict

    rates = [point.requests_per_s for point in question.points if point.requests_per_s is not None]
    if not rates:
        return [float(point.concurrency or 1) for point in question.points]
    under_way = predict.at_rate(placement.deployment(), rates, question.load(1.0))
    return [each if each <= placement.sequences else float("nan") for each in under_way]


def _row(question: Question, placement: Placement, point: LoadPoint, found: Answer | None, place: int) -> Row:
    candidate, paid = placement.candidate, price(question, placement.gpu)
    row: Row = dict.fromkeys(COLUMNS)
    row |= {
        "model": candidate.name,
        "kind": "moe" if candidate.feed else "dense",
        "scenario": question.scenario.name,
        "load": point.mode,
        "concurrency": point.concurrency,
        "load_requests_per_s": point.requests_per_s,
        "gpu": placement.gpu.gpu,
        "gpus": placement.gpus,
        "tensor_parallel": placement.tensor,
        "expert_parallel": placement.expert,
        "weights": candidate.model.weights,
        "bytes_per_weight": candidate.bytes_per_weight,
        "input_tokens_mean": question.lengths.mean_input,
        "output_tokens_mean": question.lengths.mean_output,
        "kv_tokens": placement.kv_tokens,
        "fits": placement.fits,
        "idle_experts_frac": placement.residency_frac if candidate.feed else None,
        **_intervals(_memory(placement)),
    }
    if paid is not None:
        row |= {
            "price_usd_per_hour": paid.usd_per_hour,
            "price_low_usd_per_hour": paid.low_usd_per_hour,
            "price_high_usd_per_hour": paid.high_usd_per_hour,
            "price_basis": f"per {paid.per}-hour, {paid.source}",
        }
    return row | (_predicted(question, found, place) if found else {})


def _memory(placement: Placement) -> dict[str, tuple[float, float, float]]:
    """Interval ends are what our count of weights and allowance for the runtime may be off by."""
    weights, overhead = placement.weights_bytes, placement.overhead_bytes
    room = [
        max(0.0, placement.cache_bytes(sign * WEIGHTS_OFF_FRAC, sign * OVERHEAD_OFF_FRAC))
        for sign in (0, 1, -1)
    ]
    whole = placement.usable_bytes * placement.gpus  # an engine takes its share whole
    return {
        "memory_weights_bytes": (weights, weights * (1 - WEIGHTS_OFF_FRAC), weights * (1 + WEIGHTS_OFF_FRAC)),
        "memory_kv_bytes": (room[0], room[1], room[2]),
        "memory_peak_bytes": (
            whole,
            whole - overhead * OVERHEAD_OFF_FRAC,
            min(whole + overhead * OVERHEAD_OFF_FRAC, placement.gpu.memory_bytes * placement.gpus),
        ),
    }


def _intervals(values: dict[str, tuple[float, float, float]]) -> Row:
    ends = ("", "_low", "_high")
    return {
        name + end: each if isfinite(each) else None
        for name, three in values.items()
        for end, each in zip(ends, three, strict=True)
    }


def _predicted(question: Question, found: Answer, place: int) -> Row:
    placement = found.placement
    values = found.values | money(found, usd_per_s(question, placement))
    picked = {
        name: (float(v[place]), float(low[place]), float(high[place]))
        for name, (v, low, high) in values.items()
        if name in ESTIMATES
    }
    running = float(found.running[place])
    if not isfinite(found.asked[place]):
        late = {"slo_met": "no"} if question.limits else {}
        return late | {"notes": "more than this placement can keep up with"}
    limits, distinct = question.limits, found.distinct_experts
    return {
        **_intervals(picked),
        "running_requests": running,
        "bound_by": found.bound_by[place],
        "distinct_experts": None if distinct is None else float(distinct[place]),
        "calibrated": found.calibrated,
        "extrapolated": found.extrapolated[place],
        "slo_met": VERDICTS[all_met(found, limits)[place]] if limits else None,
        "notes": NOTE_SEPARATOR.join([*_waits(found, place), *found.reasons[place]]) or None,
    }


def _waits(found: Answer, place: int) -> list[str]:
    running, asked = found.running[place], found.asked[place]
    return [f"{running:.0f} of {asked:.0f} run at once, the others wait"] if asked > running else []
