"""What an hour of a GPU of one's own costs: capital, power, operation, hosting.

    USD per GPU-hour = [price · CRF(r, y) − residual · SFF(r, y)] / (8760 · N)
                     + P_node · PUE · tariff / N + opex · price / (8760 · N) + hosting

with N GPUs a node.  The capital recovery factor CRF = r / (1 − (1 + r)^−y) is the yearly payment that pays a
price off over y years at interest r; the sinking fund factor SFF = r / ((1 + r)^y − 1) is the one that saves
up what the node is still worth at the end (Park, Contemporary Engineering Economics, ch. 3).  CRF = SFF + r.
"""

from __future__ import annotations

import math
import os
from functools import lru_cache
from typing import NamedTuple

from msgspec import Struct

from profiler import catalog, consumption
from profiler.cost import electricity
from profiler.cost.terms import Owned, Terms
from profiler.figures import Figures
from profiler.prices import Missing
from profiler.schema import SIMULATED

HOURS_PER_YEAR = 8760
HOURS_PER_MONTH = HOURS_PER_YEAR / 12
# Interest over a whole life below which the factors are 1/years to more digits than anyone pays.
NO_INTEREST = 1e-9
# What a node's price may be taken from, the whole thing first.
SCOPES = (("node", "server share"), ("rack",), ("card",))


def crf(interest_frac: float, years: float) -> float:
    """Capital recovery factor, 1/year; without interest 1/years."""
    if interest_frac * years < NO_INTEREST:
        return 1 / years
    return interest_frac / -math.expm1(-years * math.log1p(interest_frac))


def sff(interest_frac: float, years: float) -> float:
    """Sinking fund factor, 1/year; without interest 1/years."""
    return crf(interest_frac, years) * math.exp(-years * math.log1p(interest_frac))


class Bought(NamedTuple):
    """What a node costs (USD), the ends of what is asked for it, and whose word that is."""

    usd: float
    low_usd: float | None
    high_usd: float | None
    words: str


class Power(NamedTuple):
    """What a node draws (W) at work and while it waits, and whose word that is."""

    work_w: float
    idle_w: float
    words: str


class Node(Struct, frozen=True, kw_only=True):
    """A node of ``gpus`` as it is bought and run; ``gpus`` is 1 for a machine without.  ``pue`` None: nobody
    says, the building is left out."""

    terms: Owned
    gpus: int
    bought: Bought
    power: Power
    pue: float | None
    tariff_usd_per_kwh: float


class Parts(NamedTuple):
    """USD per GPU-hour, by what it is paid for; ``idle_power`` in place of ``power`` while it waits."""

    capital: float
    power: float
    opex: float
    hosting: float
    idle_power: float

    @property
    def standing(self) -> float:
        """Whatever it draws."""
        return self.capital + self.opex + self.hosting

    @property
    def total(self) -> float:
        return self.standing + self.power

    @property
    def idle_total(self) -> float:
        return self.standing + self.idle_power


def parts(node: Node, node_usd: float | None = None) -> Parts:
    """The formula, part by part; at another price of the node where one is given."""
    own = node.terms
    usd = node.bought.usd if node_usd is None else node_usd
    hours = HOURS_PER_YEAR * node.gpus
    usd_per_w = (node.pue or 1.0) * node.tariff_usd_per_kwh / 1000 / node.gpus
    recovered = crf(own.interest_frac, own.life_years)
    saved = own.residual_frac * sff(own.interest_frac, own.life_years)
    return Parts(
        capital=usd * (recovered - saved) / hours,
        power=node.power.work_w * usd_per_w,
        opex=usd * own.opex_frac / hours,
        hosting=own.hosting_per_kw_month * node.power.work_w / 1000 / HOURS_PER_MONTH / node.gpus,
        idle_power=node.power.idle_w * usd_per_w,
    )


def node(found: Figures, terms: Terms) -> Node | Missing:
    """The node that the engine's GPUs are part of."""
    gpus = terms.owned.gpus_per_node if found.gpu else 1
    bought, power = _bought(found, terms, gpus), _power(found, terms, gpus)
    if isinstance(bought, Missing):
        return bought
    if isinstance(power, Missing):
        return power
    return Node(
        terms=terms.owned,
        gpus=gpus,
        bought=bought,
        power=power,
        pue=electricity.pue_of(found, terms),
        tariff_usd_per_kwh=terms.tariff_usd_per_kwh,
    )


def lines(node: Node, terms: Terms) -> tuple[str, ...]:
    """The formula with its numbers, each with whose word it is."""
    own, each, unit = node.terms, parts(node), "GPU" if node.gpus > 1 else "machine"
    hours = f"({HOURS_PER_YEAR} h × {node.gpus})"

    def said(name: str) -> str:
        return terms.whose(f"owned.{name}")

    whose = "the run's" if terms.pue is None else terms.whose("pue")
    pue = f" × PUE {node.pue:g} ({whose})" if node.pue else ", without the building (no PUE given),"
    found = [
        f"capital: {node.bought.usd:,.0f} USD a node ({node.bought.words}) × "
        f"[CRF {crf(own.interest_frac, own.life_years):.4f} − residual {own.residual_frac:.0%} "
        f"({said('residual_frac')}) × SFF {sff(own.interest_frac, own.life_years):.4f}] / {hours}, "
        f"{own.life_years:g} years ({said('life_years')}) at {own.interest_frac:.1%} "
        f"({said('interest_frac')}): {each.capital:.3f} USD per {unit}-hour",
        f"power: {node.power.work_w:,.0f} W a node ({node.power.words}){pue} × "
        f"{node.tariff_usd_per_kwh:g} USD/kWh ({terms.whose('tariff_usd_per_kwh')}): {each.power:.3f}",
        f"operation: {own.opex_frac:.1%} of the price a year ({said('opex_frac')}): {each.opex:.3f}",
    ]
    if each.hosting:
        found.append(
            f"hosting: {own.hosting_per_kw_month:g} USD per kW and month "
            f"({said('hosting_per_kw_month')}): {each.hosting:.3f}"
        )
    return (*found, f"owned: {each.total:.3f} USD per {unit}-hour")


# ------------------------------------------------------------------------------------------- inputs


def _bought(found: Figures, terms: Terms, gpus: int) -> Bought | Missing:
    """The user's price of a node, else the catalog's of so many GPUs in one."""
    given = terms.owned.node_price
    if given is not None:
        return Bought(given, None, None, terms.whose("owned.node_price"))
    each = None if found.gpu is None or found.gpu.endswith(SIMULATED) else _listed(found.gpu, _own())
    if each is None:
        return Missing(
            f"no price is known of {f'a node of {found.gpu}' if found.gpu else 'this machine'}: "
            "give one with --terms owned.node_price=USD"
        )
    low, high = (None if end is None else end * gpus for end in (each.low_usd, each.high_usd))
    return Bought(each.usd * gpus, low, high, each.words)


def _own() -> str | None:
    """The user's own sheet of GPUs: with another one a name may mean another board."""
    return os.environ.get(catalog.SHEET_VARIABLE)


@lru_cache(maxsize=256)
def _listed(gpu: str, _sheet: str | None) -> Bought | None:
    """The catalog's price per GPU: the median of rows with the most of a node in them, and their ends."""
    rows = [row for row in catalog.capex(gpu) if not row.doubtful]
    for scopes in SCOPES:
        some = sorted((row for row in rows if row.scope in scopes), key=lambda row: row.usd_per_gpu)
        if some:
            middle = (some[(len(some) - 1) // 2].usd_per_gpu + some[len(some) // 2].usd_per_gpu) / 2
            names = "; ".join(f"{row.item}, {row.date}" for row in some)
            without = ", without a server" if scopes == ("card",) else ""
            words = f"catalog: {names}{without}"
            return Bought(middle, some[0].usd_per_gpu, some[-1].usd_per_gpu, words)
    return None


def _power(found: Figures, terms: Terms, gpus: int) -> Power | Missing:
    """The user's word of the whole node, else what was measured, else what the boards may draw."""
    given = terms.owned.node_w
    if given is not None:
        return Power(given, given, terms.whose("owned.node_w"))
    work, idle = found.estimates.get(consumption.POWER), found.estimates.get(consumption.IDLE)
    if work is not None and (found.gpus or not found.gpu):
        scale = gpus / found.gpus if found.gpu else 1.0
        boundary = found.facts.get("energy_boundary") or "boards"
        words = f"measured: {boundary} alone, {work.value / (found.gpus or 1):.0f} W each"
        if idle is None:
            return Power(work.value * scale, work.value * scale, f"{words}; idle power is not known")
        return Power(
            work.value * scale, idle.value * scale, f"{words}, {idle.value / (found.gpus or 1):.0f} W idle"
        )
    tdp_w = _tdp_w(found.gpu, found.gpu_memory_bytes, _own()) if found.gpu else None
    if tdp_w is None:
        return Missing("no power was measured: say what a node draws (--terms owned.node_w=WATTS)")
    return Power(tdp_w * gpus, tdp_w * gpus, f"data sheet: TDP of the boards alone, {tdp_w:g} W each")


@lru_cache(maxsize=256)
def _tdp_w(gpu: str, memory_bytes: int | None, _sheet: str | None) -> float | None:
    spec = catalog.named(gpu, memory_bytes)
    return spec.tdp_w if spec else None
