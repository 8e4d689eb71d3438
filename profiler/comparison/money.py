"""What a page needs to compute the money columns of its rows again at another price, utilisation, PUE,
tariff or blend: ``report/html/static/money.js`` has the other half, and a test holds the two to
:func:`profiler.cost.columns` within 1e-9 (docs/cost.md, "In a report").

Numbers with an interval are triples ``(value, low, high)``; an end that bounds nothing is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from profiler import consumption, cost, figures, stats
from profiler.comparison.lines import Line
from profiler.cost import basis, bought, carbon, electricity, kinds, listed, owned
from profiler.cost.basis import LEAST_USD_PER_HOUR, MOST_USD_PER_HOUR
from profiler.cost.terms import Terms
from profiler.figures import Figures
from profiler.prices import Missing
from profiler.schema import Estimate

Triple = tuple[float, float | None, float | None]
M = 1e6
SPAN = ("usd_per_m_output_tokens_cheapest", "usd_per_m_output_tokens_dearest")
RATIOS = ("usd_per_m_output_tokens", "usd_per_request")
# What changes with what a reader enters, by the names of the table's columns.
COLUMNS = (
    *(name + end for name in (*cost.ESTIMATES, consumption.FACILITY) for end in ("", "_low", "_high")),
    *SPAN,
    "price_usd_per_hour",
    "utilization_frac",
    "pue",
    *(f"{name}_ratio{end}" for name in RATIOS for end in ("", "_low", "_high")),
)


class Field(Struct, frozen=True, kw_only=True):
    """One thing that a reader may enter; ``value`` None: each row's own.  ``acts``: whether it moves any
    column of these rows."""

    name: str
    label: str
    unit: str | None
    value: float | tuple[float, ...] | None
    least: float | None = None
    most: float | None = None
    acts: bool = True
    about: str = ""


class Hour(Struct, frozen=True, kw_only=True):
    """USD of an hour of the whole engine: ``stated_usd`` + ``work_kw`` · PUE · tariff, and ``idle_kw`` in
    place of ``work_kw`` while it waits.

    ``stated_usd`` None: no price is known.  Where a price has a part in it, one that is entered stands in
    its place times ``per_price``: the GPUs, and on spot what restarts cost.  ``price`` is the column
    ``price_usd_per_hour`` where nothing was entered; where a price has no part the column is the hour over
    ``engine``.
    ``ends``: ``stated_usd`` at the cheapest and at the dearest offer.
    """

    engine: int
    stated_usd: float | None
    price: float | None = None
    per_price: float | None = None
    work_kw: float = 0.0
    idle_kw: float = 0.0
    ends: tuple[float, float] | None = None


class Metered(Struct, frozen=True, kw_only=True):
    """Energy of an output token (J) without the building's share; ``waiting_j``: what it carries on top where
    the machine waits a second for each second of work, None where idle power was not measured."""

    working_j: Triple
    waiting_j: Triple | None


class Listed(Struct, frozen=True, kw_only=True):
    """An API's list prices, USD per 10⁶ input, output and cached input tokens.  Where the row's own mix of
    tokens is not known, the middle one of ``offers`` depends on the blend.  ``bill``: what does not."""

    offers: tuple[tuple[float, float, float], ...]
    bill: dict[str, float]


class Item(Struct, frozen=True, kw_only=True):
    """A row: ``key`` as :func:`key` gives it.  Seconds are of the whole engine: ``whole_s`` per 10⁶ output
    tokens with all inside, ``input_s`` and ``apart_s`` per 10⁶ tokens of their kind, ``request_s`` a request;
    ``input_per_output`` None: input has no price of its own.  ``over``: the keys of the rows that it is put
    over, with the t quantile of their interval."""

    key: str
    hour: Hour | None = None
    whole_s: Triple | None = None
    request_s: Triple | None = None
    input_s: Triple | None = None
    apart_s: Triple | None = None
    input_per_output: float | None = None
    metered: Metered | None = None
    host_j: Triple | None = None
    facility_j: Triple | None = None
    pue: float | None = None
    has_energy: bool = False
    listed: Listed | None = None
    over: tuple[str, ...] = ()
    t: float | None = None


class Money(Struct, frozen=True, kw_only=True):
    """Everything at once.  ``carrying_frac``: the share of the replicas that carry the load;
    ``g_per_kwh``: of the grid, None where none was named.  ``stated``: what the rows were computed with."""

    basis: str
    stated: dict[str, Any]
    fields: tuple[Field, ...]
    carrying_frac: float
    g_per_kwh: float | None
    least_usd_per_hour: float = LEAST_USD_PER_HOUR
    most_usd_per_hour: float = MOST_USD_PER_HOUR
    columns: tuple[str, ...] = COLUMNS
    ratios: tuple[str, ...] = RATIOS
    rows: tuple[Item, ...] = ()


def key(found: Figures) -> str:
    """The same for the same figures of a run folder of that name, wherever it lies: what a chart's row and a
    table's row say to be computed again together."""
    measured = {name: each for name, each in found.estimates.items() if name != consumption.FACILITY}
    held = (Path(found.run).name, found.alike, found.point, found.price, measured)
    return sha256(msgspec.json.encode(held, order="sorted")).hexdigest()[:12]


def of_lines(lines: Sequence[Line], terms: Terms) -> Money:
    """Of lines that stand for one run each, and of what they are put over.  Raises InputError where the terms
    do not fit a run, ValueError for lines that were pooled."""
    if any(line.members for line in lines):
        raise ValueError("pooled lines are computed again by their runs")
    grid = carbon.intensity(terms)
    bases = {id(base): base for line in lines for base in line.over}
    held = list({key(line.found): line for line in (*lines, *bases.values())}.values())
    alone = figures.prefill_s([line.found for line in held])
    rows = tuple(_item(line, alone[line.found.run], terms) for line in held)
    stated = {name: getattr(terms, name) for name in ("utilization", "pue", "tariff_usd_per_kwh", "blend")}
    return Money(
        basis=terms.basis,
        stated={"price": None} | stated,
        fields=_fields(rows, terms, _unit(lines)),
        carrying_frac=terms.replicas / (terms.replicas + terms.redundant_replicas),
        g_per_kwh=grid.g_per_kwh if grid else None,
        rows=rows,
    )


def _triple(estimate: Estimate | None, factor: float = 1.0) -> Triple | None:
    if estimate is None:
        return None
    found = stats.scaled(estimate, factor)
    return found.value, found.low, found.high


def _unit(lines: Sequence[Line]) -> str:
    """Of a price that is entered."""
    has_gpu = {line.found.gpu is not None for line in lines}
    units = [name for name, is_gpu in (("GPU-hour", True), ("machine-hour", False)) if is_gpu in has_gpu]
    return f"USD per {' or '.join(units) or 'hour'}"


def _fields(rows: Sequence[Item], terms: Terms, unit: str) -> tuple[Field, ...]:
    """In the order in which they are asked for."""
    hours = [row.hour for row in rows if row.hour]
    prices = {hour.price for hour in hours if hour.per_price}
    is_powered = any(row.metered or (row.hour and row.hour.work_kw) for row in rows)
    return (
        Field(
            name="price",
            label="price of an hour",
            unit=unit,
            value=prices.pop() if len(prices) == 1 else None,
            least=0.0,
            acts=any(hour.per_price for hour in hours),
            about="empty: each row's own, as stated",
        ),
        Field(
            name="utilization",
            label="utilisation",
            unit="share of the paid time that works",
            value=terms.utilization,
            least=0.0,
            most=1.0,
            acts=terms.basis != "api",
        ),
        Field(
            name="pue",
            label="PUE",
            unit="building ÷ machine",
            value=terms.pue,
            least=1.0,
            acts=is_powered,
            about="empty: as stated, else each run's own, else the building is left out",
        ),
        Field(
            name="tariff_usd_per_kwh",
            label="electricity",
            unit="USD per kWh",
            value=terms.tariff_usd_per_kwh,
            least=0.0,
            acts=is_powered,
        ),
        Field(
            name="blend",
            label="blend",
            unit="input : output tokens",
            value=terms.blend,
            least=0.0,
            acts=any(row.input_per_output is not None or row.listed for row in rows),
        ),
    )


# ---------------------------------------------------------------------------------------- one row


def _item(line: Line, prefill_s: Estimate | None, terms: Terms) -> Item:
    found = line.found
    rate, requests = (found.estimates.get(f"{name}_per_s") for name in ("output_tokens", "requests"))
    is_rated = rate is not None and rate.value > 0
    base = [key(each.found) for each in line.over]
    terms_hour = None if terms.basis == "api" else _hour(found, terms)
    return Item(
        key=key(found),
        hour=terms_hour,
        whole_s=_triple(stats.inverted(rate, M)) if rate and is_rated else None,
        request_s=_triple(stats.inverted(requests, 1.0)) if requests and requests.value > 0 else None,
        **(_kinds(found, prefill_s) if is_rated else {}),
        metered=_metered(found),
        host_j=_triple(found.estimates.get(consumption.HOST)),
        facility_j=_triple(found.estimates.get(consumption.FACILITY)),
        pue=found.facts.get("pue"),
        has_energy=found.facts.get("energy_boundary") is not None,
        listed=_listed(line, terms) if terms.basis == "api" else None,
        over=tuple(base),
        t=stats.t_quantile(len(base) - 1) if len(base) > 1 else None,
    )


def _kinds(found: Figures, prefill_s: Estimate | None) -> Mapping[str, Any]:
    if prefill_s is None:
        return {}
    parts = kinds.of_point(found, kinds.Source(prefill_s, "", is_mean=True))
    prompt, answers = parts.of(kinds.INPUT), parts.of(kinds.OUTPUT)
    return {
        "input_s": _triple(prompt.engine_s, M) if prompt else None,
        "apart_s": _triple(kinds.of_tokens(parts, {kinds.OUTPUT: 1.0}), M),
        "input_per_output": prompt.tokens_per_s / answers.tokens_per_s if prompt and answers else None,
    }


def _hour(found: Figures, terms: Terms) -> Hour | None:
    """None where no price that a reader could enter would make one."""
    if terms.basis in basis.KINDS:
        return _rented(found, terms)
    engine = found.gpus if found.gpu and terms.basis == "owned" else 1
    if terms.basis == "electricity":
        used = electricity.energy(found, terms)
        if isinstance(used, Missing):
            return None
        return Hour(
            engine=engine, stated_usd=0.0, work_kw=used.work_w / 1000, idle_kw=(used.idle_w or 0.0) / 1000
        )
    node = owned.node(found, terms)
    if isinstance(node, Missing) or engine < 1:
        return None
    ends = (node.bought.low_usd, node.bought.high_usd)
    low, high = (None if usd is None else owned.parts(node, usd).standing * engine for usd in ends)
    share = engine / node.gpus / 1000
    return Hour(
        engine=engine,
        stated_usd=owned.parts(node).standing * engine,
        work_kw=node.power.work_w * share,
        idle_kw=node.power.idle_w * share,
        ends=None if low is None or high is None else (low, high),
    )


def _rented(found: Figures, terms: Terms) -> Hour | None:
    at_one = basis.hourly(found, replace(terms, price="1", utilization=1.0, redundant_replicas=0))
    if isinstance(at_one, Missing):
        return None
    paid = basis.hourly(found, terms)
    engine = 1 if at_one.price.per == "machine" else found.gpus
    if isinstance(paid, Missing):
        return Hour(engine=engine, stated_usd=None, per_price=at_one.usd_per_hour)
    low, high = paid.low_usd_per_hour, paid.high_usd_per_hour
    return Hour(
        engine=engine,
        stated_usd=paid.usd_per_hour,
        price=paid.price.usd_per_hour,
        per_price=at_one.usd_per_hour,
        ends=None if low is None or high is None else (low, high),
    )


def _metered(found: Figures) -> Metered | None:
    known = electricity.measured(found)
    if isinstance(known, Missing):
        return None
    working, waiting = _triple(known.working_j), _triple(known.waiting_j)
    return Metered(working_j=working, waiting_j=waiting) if working else None


def _listed(line: Line, terms: Terms) -> Listed | None:
    known = listed.prices(line.found.model, terms)
    if isinstance(known, Missing):
        return None
    rates = [line.found.estimates.get(f"{kind}_tokens_per_s") for kind in ("input", "output")]
    inputs, outputs = (rate.value if rate else 0.0 for rate in rates)
    is_known = all(rates) and outputs > 0
    offers = known.ranked(inputs, outputs)[:1] if is_known else known.offers
    costs = line.costs
    bill = {name: each.value for name, each in costs.estimates.items() if name in RATIOS}
    ends = {name: costs.facts[name] for name in SPAN if costs.facts[name] is not None}
    return Listed(offers=tuple(_asked(each) for each in offers), bill=bill | ends)


def _asked(offer: listed.TokenPrice) -> tuple[float, float, float]:
    each = bought.prices(offer)
    return each[kinds.INPUT], each[kinds.OUTPUT], each[kinds.CACHED]
