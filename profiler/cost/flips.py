"""Which of two models is the cheaper, and where that turns: in a MoE's and a dense model's case or any other.

The verdict is that of the interval of the ratio of their costs; undecided where 1 is inside.  It turns

* at a ratio of the prices of their GPU-hours: a cost is in proportion to the hour's price, so the ratio now
  over the ratio of costs,
* at a utilisation of the cheaper one, at which it costs what the other does at the stated one,
* at an electricity tariff: each cost is a line over it, which two evaluations fix,
* at a load: where the curves of cost over load cross, straight between measured loads on logarithmic axes.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from profiler import stats
from profiler.cost import at_slo, basis, columns
from profiler.cost.break_even import share_at
from profiler.cost.invoice import ends
from profiler.cost.promise import Choice
from profiler.cost.question import Question
from profiler.cost.terms import Terms
from profiler.figures import Figures
from profiler.schema import Estimate

UNDECIDED = "undecided"
AT_LOAD, AT_PROMISE, CROSSING = "load", "promise", "crossing"
BY_HOUR = ("rented", "spot", "reserved")
WITH_TARIFF = ("owned", "electricity")
ESTIMATES = ("ratio", "price_ratio_flip", "utilization_flip")
COLUMNS = (
    *("scenario", "what", "at", "a", "b", "load", "load_low", "load_high"),
    *(name + end for name in ESTIMATES for end in ("", "_low", "_high")),
    *("cheaper", "price_ratio", "utilization_of", "tariff_flip_usd_per_kwh", "tariff_cheaper_below"),
    *("cost_basis", "utilization", "tariff_usd_per_kwh", "gpu_a", "gpus_a", "gpu_b", "gpus_b"),
)
Row = dict[str, Any]


class Side(NamedTuple):
    """A model at a load, on its terms."""

    found: Figures
    prefill_s: Estimate | None
    terms: Terms

    def usd_per_m(self, terms: Terms | None = None) -> Estimate | None:
        return columns(self.found, self.prefill_s, terms or self.terms).estimates.get(at_slo.COST)

    @property
    def hour(self) -> basis.Hourly | None:
        found = basis.hourly(self.found, self.terms)
        return found if isinstance(found, basis.Hourly) else None


class Crossing(NamedTuple):
    """Where two curves meet, between two neighbouring measured loads; ``below`` is the lower one before."""

    load: float
    low: float
    high: float
    below: str


def rows(question: Question) -> list[Row]:
    """For each pair a row at the promise, one at each load both were held at, one a crossing."""
    found = [each.choice for each in at_slo.best_of_each(question)]
    return [row for a, b in pairs(found) for row in _of_pair(a, b, question)]


def pairs(found: Sequence[Choice]) -> Iterator[tuple[Choice, Choice]]:
    """Each MoE against each dense model of its scenario; without both kinds the first against the others."""
    scenarios: dict[tuple[Any, ...], list[Choice]] = {}
    for each in found:
        scenarios.setdefault(at_slo.promise_of(each), []).append(each)
    for held in scenarios.values():
        kinds = {
            name: [each for each in held if each.found.facts["kind"] == name] for name in ("moe", "dense")
        }
        if all(kinds.values()):
            yield from itertools.product(kinds["moe"], kinds["dense"])
        else:
            yield from ((held[0], other) for other in held[1:])


def _of_pair(a: Choice, b: Choice, question: Question) -> Iterator[Row]:
    def side(found: Figures) -> Side:
        return Side(found, question.prefill_s[found.run], question.terms)

    curves = [{each.load: side(each.found) for each in choice.standings} for choice in (a, b)]
    if a.limits and a.best and b.best:
        row = _row(side(a.found), side(b.found))
        yield from _named(row, AT_PROMISE, f"{a.best.words} and {b.best.words}, {at_slo.slo_text(a)}")
    words = {each.load: each.words for each in a.standings}
    verdicts = {}
    for load in sorted(curves[0].keys() & curves[1].keys()):
        for row in _named(_row(curves[0][load], curves[1][load]), AT_LOAD, words[load]):
            verdicts[load] = row["cheaper"]
            yield row | {"load": load}
    yield from _crossing_rows(curves[0], curves[1], verdicts)


def _named(row: Row | None, what: str, at: str) -> Iterator[Row]:
    if row is not None:
        yield row | {"what": what, "at": at}


def _row(a: Side, b: Side) -> Row | None:
    ratio = cost_ratio(a, b)
    if ratio is None:
        return None
    price, share = price_ratio_flip(a, b, ratio), utilization_flip(a, b, ratio)
    tariff = tariff_flip(a, b)
    row: Row = _base(a, b) | {"cheaper": cheaper(ratio, a.found.model, b.found.model)}
    for name, estimate in (
        ("ratio", ratio),
        ("price_ratio_flip", price),
        ("utilization_flip", share.share if share else None),
    ):
        row |= ends(name, estimate)
    return row | {
        "price_ratio": _price_ratio(a, b) if price else None,
        "utilization_of": share.model if share else None,
        "tariff_flip_usd_per_kwh": tariff.usd_per_kwh if tariff else None,
        "tariff_cheaper_below": tariff.below if tariff else None,
    }


def _base(a: Side, b: Side) -> Row:
    terms = a.terms
    return dict.fromkeys(COLUMNS) | {
        "scenario": a.found.facts["scenario"],
        "a": a.found.model,
        "b": b.found.model,
        "gpu_a": a.found.gpu,
        "gpus_a": a.found.gpus,
        "gpu_b": b.found.gpu,
        "gpus_b": b.found.gpus,
        "cost_basis": terms.basis,
        "utilization": terms.paid_share,
        "tariff_usd_per_kwh": terms.tariff_usd_per_kwh if terms.basis in WITH_TARIFF else None,
    }


def cost_ratio(a: Side, b: Side) -> Estimate | None:
    """Cost of an output token of A over B's."""
    own, other = a.usd_per_m(), b.usd_per_m()
    return stats.ratio_of(own, other) if own and other else None


def cheaper(ratio: Estimate, a: str, b: str) -> str:
    """By the interval."""
    if ratio.high is not None and ratio.high < 1:
        return a
    return b if ratio.low is not None and ratio.low > 1 else UNDECIDED


# -------------------------------------------------------------------------------- price, utilisation


def price_ratio_flip(a: Side, b: Side, ratio: Estimate) -> Estimate | None:
    """Price of A's GPU-hour over B's at which they cost the same: below it A is the cheaper.  None on a basis
    that is not paid by the hour."""
    now = _price_ratio(a, b)
    return stats.inverted(ratio, now) if now is not None else None


def _price_ratio(a: Side, b: Side) -> float | None:
    hours = a.hour, b.hour
    if a.terms.basis not in BY_HOUR or hours[0] is None or hours[1] is None:
        return None
    return hours[0].price.usd_per_hour / hours[1].price.usd_per_hour


class ShareFlip(NamedTuple):
    """The utilisation of ``model``, the cheaper one, at which it costs what the other does as stated."""

    model: str
    share: Estimate


def utilization_flip(a: Side, b: Side, ratio: Estimate) -> ShareFlip | None:
    """None where waiting costs nothing, so that no utilisation changes the verdict."""
    low, over = (a, stats.inverted(ratio, 1.0)) if ratio.value <= 1 else (b, ratio)
    hour = low.hour
    if hour is None or hour.idle_usd_per_hour <= 0:
        return None
    value, *bounds = (
        None if end is None else share_at(hour, hour.effective_usd_per_hour * end)
        for end in (over.value, over.high, over.low)
    )
    if value is None:
        return None
    return ShareFlip(low.found.model, Estimate(value, bounds[0], bounds[1], ratio.n, ratio.over))


# -------------------------------------------------------------------------------------------- tariff


class TariffFlip(NamedTuple):
    """``below`` is the cheaper at tariffs below; without a tariff: at any."""

    usd_per_kwh: float | None
    below: str


def tariff_flip(a: Side, b: Side) -> TariffFlip | None:
    """None on a basis that knows no tariff, or where a cost is unknown."""
    if a.terms.basis not in WITH_TARIFF:
        return None
    lines = [_line(side) for side in (a, b)]
    if lines[0] is None or lines[1] is None:
        return None
    (fixed_a, slope_a), (fixed_b, slope_b) = lines[0], lines[1]
    names = a.found.model, b.found.model
    steeper = slope_a - slope_b
    scale = max(fixed_a, fixed_b, slope_a, slope_b)
    if abs(steeper) > 1e-12 * scale:
        tariff = (fixed_b - fixed_a) / steeper
        if tariff > 1e-9:
            return TariffFlip(tariff, names[0] if steeper > 0 else names[1])
    now = a.terms.tariff_usd_per_kwh
    return TariffFlip(None, names[0] if fixed_a + slope_a * now <= fixed_b + slope_b * now else names[1])


def _line(side: Side) -> tuple[float, float] | None:
    """USD per million output tokens without power, and more of it a USD/kWh."""
    now = side.terms.tariff_usd_per_kwh
    costs = [side.usd_per_m(replace(side.terms, tariff_usd_per_kwh=tariff)) for tariff in (now, 2 * now)]
    if costs[0] is None or costs[1] is None:
        return None
    slope = (costs[1].value - costs[0].value) / now
    return max(0.0, costs[0].value - slope * now), slope


# ---------------------------------------------------------------------------------------------- load


def crossings(
    a: Mapping[float, float], b: Mapping[float, float], names: tuple[str, str] = ("a", "b")
) -> list[Crossing]:
    """Where two curves of cost over load (> 0) cross, between the loads that both were measured over."""
    if len(a) < 2 or len(b) < 2:
        return []
    low, high = max(min(a), min(b)), min(max(a), max(b))
    loads = [load for load in sorted({*a, *b}) if low <= load <= high]
    gaps = [_log_cost(a, load) - _log_cost(b, load) for load in loads]
    found = []
    for place, (left, right) in enumerate(itertools.pairwise(loads)):
        before, after = gaps[place], gaps[place + 1]
        if before * after < 0:
            part = before / (before - after)
            load = math.exp(math.log(left) + part * math.log(right / left))
            found.append(Crossing(load, left, right, names[0] if before < 0 else names[1]))
    return found


def _log_cost(curve: Mapping[float, float], load: float) -> float:
    """Straight between measured loads on logarithmic axes (np.interp, without numpy for a handful)."""
    loads = sorted(curve)
    place = min(max(bisect_left(loads, load), 1), len(loads) - 1)
    left, right = loads[place - 1], loads[place]
    part = math.log(load / left) / math.log(right / left)
    return (1 - part) * math.log(curve[left]) + part * math.log(curve[right])


def _crossing_rows(
    a: Mapping[float, Side], b: Mapping[float, Side], verdicts: Mapping[float, str]
) -> Iterator[Row]:
    """``verdicts``: the cheaper at each load in common; a crossing is beyond doubt between two of them."""
    curves = [
        {load: usd.value for load, side in held.items() if (usd := side.usd_per_m())} for held in (a, b)
    ]
    sides = next(iter(a.values())), next(iter(b.values()))
    names = sides[0].found.model, sides[1].found.model
    for each in crossings(curves[0], curves[1], names):
        yield (
            _base(*sides)
            | ends("ratio", Estimate(1.0))
            | {
                "what": CROSSING,
                "at": f"{each.load:.3g}, between {each.low:g} and {each.high:g}",
                "load": each.load,
                "load_low": each.low,
                "load_high": each.high,
                "cheaper": f"{each.below} below" if _is_certain(each, names, verdicts) else UNDECIDED,
            }
        )


def _is_certain(crossing: Crossing, names: tuple[str, str], verdicts: Mapping[float, str]) -> bool:
    above = next(name for name in names if name != crossing.below)
    return any(load <= crossing.low and name == crossing.below for load, name in verdicts.items()) and any(
        load >= crossing.high and name == above for load, name in verdicts.items()
    )
