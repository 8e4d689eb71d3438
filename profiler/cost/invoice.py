"""Kinds × what an hour costs → what a million tokens of each kind cost, and the invoice of one paid hour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from profiler import stats
from profiler.cost import basis, bought, kinds
from profiler.cost.basis import Hourly
from profiler.cost.kinds import Kinds
from profiler.cost.listed import TokenPrice
from profiler.cost.question import Question
from profiler.figures import Figures
from profiler.prices import Missing
from profiler.schema import Estimate

Row = dict[str, Any]

WHICH = (
    *("model", "engine", "gpu", "gpus", "scenario", "load", "concurrency", "load_requests_per_s"),
    *("repeats", "client_bound", "run"),
)
PAID = (
    *("cost_basis", "utilization_frac", "price_usd_per_hour", "price_basis"),
    *("usd_per_hour", "usd_per_hour_cheapest", "usd_per_hour_dearest"),
)
NOTES = ("way", "missing", "cached_missing", "price_missing")
FIGURES = {
    kinds.INPUT: "per_m_input_tokens",
    kinds.CACHED: "per_m_cached_input_tokens",
    kinds.OUTPUT: "per_m_output_tokens",
}
BLENDED, IDLE, WHOLE = "per_m_blended_tokens", "idle_per_m_output_tokens", "whole_per_m_output_tokens"
ENDS = ("", "_low", "_high")
KIND_COLUMNS = (
    *(*WHICH, "quantity", "unit"),
    *(name + end for name in (*FIGURES.values(), BLENDED, WHOLE) for end in ENDS),
    *(IDLE, "idle_frac", "blend", *PAID, *NOTES),
)
LINE_COLUMNS = (
    *(*WHICH, "line", "tokens"),
    *(f"{quantity}_per_m_tokens{end}" for quantity in ("gpu_s", "usd") for end in ENDS),
    *("usd", "share_frac", *PAID, *NOTES),
)
TIME, COST = "engine time", "cost"
STANDING, UNUSED, TOTAL = "idle", "not used", "paid hour"
BOUGHT = "list price"
PER_M = 1e6


def which(found: Figures) -> Row:
    """Which load of which run."""
    return {name: found.facts.get(name) for name in WHICH}


def paid(hour: Hourly | TokenPrice | Missing, asked_basis: str) -> Row:
    """On what basis, at what price, and how much of the paid time works."""
    row: Row = dict.fromkeys(PAID) | {"cost_basis": asked_basis, "price_missing": None}
    if isinstance(hour, Missing):
        return row | {"price_missing": hour.reason}
    if isinstance(hour, TokenPrice):
        return row | {"price_basis": f"list price of {hour.provider}, {hour.date}"}
    return row | {
        "utilization_frac": hour.paid_share,
        "price_usd_per_hour": hour.price.usd_per_hour,
        "usd_per_hour": hour.usd_per_hour,
        "usd_per_hour_cheapest": hour.low_usd_per_hour,
        "usd_per_hour_dearest": hour.high_usd_per_hour,
        "price_basis": basis.words(hour.price),
    }


def ends(name: str, estimate: Estimate | None, factor: float = 1.0) -> Row:
    """A figure and its interval as columns."""
    found = estimate and stats.scaled(estimate, factor)
    values = (found.value, found.low, found.high) if found else (None, None, None)
    return {name + end: value for end, value in zip(ENDS, values, strict=True)}


# ------------------------------------------------------------------------------------- per million


def kind_rows(question: Question) -> list[Row]:
    """A row a load and quantity: engine time (GPU-seconds) and, with a price, USD per million tokens of each
    kind.  USD are at the utilisation of the terms: paid time that does not work is in every token."""
    return [
        row
        for found, parts, hour in question.priced
        for row in of_load(found, parts, hour, question)
        if parts.kinds
    ]


def of_load(
    found: Figures, parts: Kinds, hour: Hourly | TokenPrice | Missing, question: Question
) -> Iterator[Row]:
    """Engine time, then USD where there is a price; of list prices USD alone."""
    blend = question.terms.blend
    shared = which(found) | paid(hour, question.terms.basis) | notes(parts)
    shared |= {"idle_frac": parts.idle_frac, "blend": ":".join(f"{share:.4g}" for share in blend)}
    if isinstance(hour, TokenPrice):
        yield shared | {"quantity": COST, "unit": "USD"} | _bought_per_m(found, hour, blend)
        return
    unit = "GPU-s" if found.gpus else "s"
    yield shared | {"quantity": TIME, "unit": unit} | _per_m(parts, blend, found.gpus or 1)
    if isinstance(hour, Hourly):
        yield shared | {"quantity": COST, "unit": "USD"} | _per_m(parts, blend, hour.effective_usd_per_s)


def _bought_per_m(found: Figures, offer: TokenPrice, blend: tuple[float, ...]) -> Row:
    """List prices; what comes to all output tokens is over this load's own tokens."""
    rates = bought.rates(found)
    row: Row = {"idle_frac": None, IDLE: None}
    for kind, name in FIGURES.items():
        is_there = rates is None or kind in rates
        row |= ends(name, Estimate(bought.prices(offer)[kind]) if is_there else None)
    whole = bought.per_m_output(found, offer)
    row |= ends(BLENDED, Estimate(bought.blended(offer, blend)))
    return row | ends(WHOLE, None if whole is None else Estimate(whole))


def notes(parts: Kinds) -> Row:
    return {"way": parts.way, "missing": parts.missing, "cached_missing": parts.cached_missing}


def _per_m(parts: Kinds, blend: tuple[float, ...], per_s: float) -> Row:
    """The figures of a row, ``per_s`` being the worth of a second of the whole engine."""
    factor = per_s * PER_M
    row: Row = {}
    for kind, name in FIGURES.items():
        found = parts.of(kind)
        row |= ends(name, found.engine_s if found else None, factor)
    row |= ends(BLENDED, kinds.blended(parts, blend), factor) | ends(WHOLE, parts.whole_s, factor)
    if parts.idle_frac is None or parts.whole_s is None:
        return row | {IDLE: None}
    return row | {IDLE: parts.idle_frac * parts.whole_s.value * factor}


# ------------------------------------------------------------------------------------- one hour


def line_rows(question: Question) -> list[Row]:
    """The invoice of one paid hour of every load: a line a kind at its price at work, the idle time in the
    load's own windows, the paid time that does not work at all, and their sum, which is the hour's price.
    Of basis ``api`` it is what the tokens of an hour of this load would be sold for."""
    return [
        which(found) | paid(hour, question.terms.basis) | notes(parts) | line
        for found, parts, hour in question.priced
        for line in _lines(found, parts, hour)
    ]


def _lines(found: Figures, parts: Kinds, hour: Hourly | TokenPrice | Missing) -> Iterator[Row]:
    if isinstance(hour, TokenPrice):
        yield from _bought_lines(found, hour)
    elif isinstance(hour, Hourly) and parts.kinds:
        yield from _rented_lines(found, parts, hour)


def _rented_lines(found: Figures, parts: Kinds, hour: Hourly) -> Iterator[Row]:
    """Tokens and USD of an hour of which ``paid_share`` works."""
    worked = hour.usd_per_hour * hour.paid_share
    unused = hour.idle_usd_per_hour * (1 - hour.paid_share)
    total = worked + unused
    for kind in parts.kinds:
        per_m = ends("gpu_s_per_m_tokens", kind.engine_s, PER_M * (found.gpus or 1))
        per_m |= ends("usd_per_m_tokens", kind.engine_s, PER_M * hour.usd_per_hour / 3600)
        tokens = kind.tokens_per_s * 3600 * hour.paid_share
        yield _line(kind.name, kind.share * worked, total) | per_m | {"tokens": tokens}
    if parts.idle_frac is not None:
        yield _line(STANDING, parts.idle_frac * worked, total)
    if hour.paid_share < 1:
        yield _line(UNUSED, unused, total)
    yield _line(TOTAL, total, total)


def _bought_lines(found: Figures, offer: TokenPrice) -> Iterator[Row]:
    rates = bought.rates(found) or {}
    usd = {kind: rate.value * 3600 * bought.prices(offer)[kind] / PER_M for kind, rate in rates.items()}
    total = sum(usd.values())
    for kind, each in usd.items():
        per_m = ends("usd_per_m_tokens", Estimate(bought.prices(offer)[kind]))
        yield _line(kind, each, total) | per_m | {"tokens": rates[kind].value * 3600}
    if usd:
        yield _line(BOUGHT, total, total)


def _line(name: str, usd: float, total: float) -> Row:
    nothing = dict.fromkeys(LINE_COLUMNS[len(WHICH) + 1 : len(LINE_COLUMNS) - len(PAID) - len(NOTES)])
    return nothing | {"line": name, "usd": usd, "share_frac": usd / total}
