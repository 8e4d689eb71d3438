"""What an hour of the engine costs, on one basis: rented, spot, reserved, owned, or its electricity alone.

Every basis says its formula and each input with its unit and whose word it is.  A list price of
tokens (``api``) has no hour: it is in :mod:`profiler.cost.listed`.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from profiler import prices
from profiler.cost import electricity, owned
from profiler.cost.terms import Terms
from profiler.errors import InputError
from profiler.figures import Figures
from profiler.prices import Missing
from profiler.schema import Price

KINDS = {"rented": "on_demand", "spot": "spot", "reserved": "reserved"}
NO_COUNT = "the number of GPUs is not known"
# What an hour of work can come to, USD: beyond that a price or a share was mistyped, and figures made from it
# overflow.
LEAST_USD_PER_HOUR, MOST_USD_PER_HOUR = 1e-12, 1e12


class Hourly(Struct, frozen=True, kw_only=True):
    """What an hour of the whole engine costs (USD), working all of it; ``low``/``high`` span the offers.

    ``idle_usd_per_hour`` is what an hour costs in which it waits: the same, unless the bill is for power.
    ``price`` is what ``usd_per_hour`` comes from, per GPU where there are any.
    """

    basis: str
    price: Price
    usd_per_hour: float
    idle_usd_per_hour: float
    paid_share: float
    lines: tuple[str, ...]
    low_usd_per_hour: float | None = None
    high_usd_per_hour: float | None = None

    @property
    def effective_usd_per_hour(self) -> float:
        """Paid for one hour of work: that hour, and those in which the engine waited for it."""
        return self.usd_per_hour + self.idle_usd_per_hour * (1 / self.paid_share - 1)

    @property
    def effective_usd_per_s(self) -> float:
        return self.effective_usd_per_hour / 3600

    def at(self, usd_per_hour: float) -> Hourly:
        """At another offer, which costs as much more or less while the engine waits."""
        more = usd_per_hour - self.usd_per_hour
        return replace(self, usd_per_hour=usd_per_hour, idle_usd_per_hour=self.idle_usd_per_hour + more)


def hourly(found: Figures, terms: Terms) -> Hourly | Missing:
    """On the basis that the terms name.  Raises InputError for a price sheet that is wrong and for terms that
    come to no amount anybody pays."""
    hour = _hour(found, terms)
    if isinstance(hour, Hourly):
        usd = hour.effective_usd_per_hour
        if not LEAST_USD_PER_HOUR <= usd <= MOST_USD_PER_HOUR:
            raise InputError(
                f"an hour of work comes to {usd:.3g} USD ({terms.basis}, {terms.paid_share:.3g} of the paid "
                "time works): a price, a power or a share is not what was meant"
            )
    return hour


def _hour(found: Figures, terms: Terms) -> Hourly | Missing:
    if terms.basis in KINDS:
        return _rented(found, terms)
    if terms.basis == "owned":
        return _owned(found, terms)
    if terms.basis == "electricity":
        return _electricity(found, terms)
    return Missing("an API is paid by the token, not by the hour")


# ------------------------------------------------------------------------------------------- rented


def _rented(found: Figures, terms: Terms) -> Hourly | Missing:
    """On demand, spot or reserved.  A spot machine costs its price and what is lost to restarts:
    p · (1 + preemptions per hour · hours a restart takes)."""
    price = _price(found, terms)
    if isinstance(price, Missing):
        return price
    lines = _price_lines(price, terms)
    factor = 1.0
    if terms.basis == "spot":
        restart = _restart(found, terms)
        if isinstance(restart, Missing):
            return restart
        per_hour = terms.spot.preemptions_per_hour
        factor = 1 + per_hour * restart.seconds / 3600
        lines.append(
            f"spot: × (1 + {per_hour:g} preemptions an hour ({terms.whose('spot.preemptions_per_hour')}) × "
            f"{restart.seconds:.0f} s a restart ({restart.words})) = {price.usd_per_hour * factor:.4g} USD"
        )
    return _hourly(price, found, terms, factor, lines)


def _price(found: Figures, terms: Terms) -> Price | Missing:
    """What the user gives, else what the run was made with, else the catalog's offers on these terms."""
    if terms.price is None and terms.basis == "rented" and found.price is not None:
        return found.price
    return prices.quote(
        found.gpu, KINDS[terms.basis], terms.price, rates=terms.rates, memory_bytes=found.gpu_memory_bytes
    )


def _price_lines(price: Price, terms: Terms) -> list[str]:
    """What the price is, whose word it is, and what speaks against it."""
    line = f"{terms.basis}: {price.usd_per_hour:.4g} USD {words(price)}"
    return [line, *warnings(price)]


def warnings(price: Price) -> tuple[str, ...]:
    """What speaks against a price: what makes it improbable, and its age."""
    return tuple(each for each in (price.doubt, prices.age_note(price)) if each)


def words(price: Price) -> str:
    """Per what the price is, and whose word it is."""
    low, high = price.low_usd_per_hour, price.high_usd_per_hour
    spread = f", offers {low:.2f}–{high:.2f}" if low is not None and high is not None and low < high else ""
    kind = "" if price.kind == "on_demand" or price.kind in price.source else f"{price.kind}, "
    return f"per {price.per}-hour, {kind}{price.source}{f', {price.date}' if price.date else ''}{spread}"


class _Restart(NamedTuple):
    seconds: float
    words: str


def _restart(found: Figures, terms: Terms) -> _Restart | Missing:
    if terms.spot.restart_s is not None:
        return _Restart(terms.spot.restart_s, terms.whose("spot.restart_s"))
    if found.start_s is not None:
        return _Restart(found.start_s, "the engine's start as measured; without finding a machine")
    return Missing(
        "no start of this engine was measured: say what a restart takes (--terms spot.restart_s=120)"
    )


def _hourly(price: Price, found: Figures, terms: Terms, factor: float, lines: list[str]) -> Hourly | Missing:
    """Of the whole engine: a price per GPU is paid for each."""
    engine = 1 if price.per == "machine" else found.gpus
    if engine < 1:
        return Missing(NO_COUNT)
    low, high = (
        None if end is None else end * engine * factor
        for end in (price.low_usd_per_hour, price.high_usd_per_hour)
    )
    usd = price.usd_per_hour * engine * factor
    return Hourly(
        basis=terms.basis,
        price=price,
        usd_per_hour=usd,
        idle_usd_per_hour=usd,
        paid_share=terms.paid_share,
        lines=(*lines, *share_lines(terms)),
        low_usd_per_hour=low,
        high_usd_per_hour=high,
    )


def share_lines(terms: Terms) -> tuple[str, ...]:
    """How much of the paid time works, and whose word that is."""
    spare = terms.redundant_replicas
    replicas = f", {terms.replicas} of {terms.replicas + spare} replicas carry the load" if spare else ""
    if terms.utilization == 1 and not terms.load_profile and not spare:
        return (f"at 100 % utilisation ({terms.whose('utilization')}), which no service has",)
    whose = "mean over peak of the load profile, " if terms.load_profile else ""
    share = f"utilisation {terms.utilization:.4g} ({whose}{terms.whose('utilization')}){replicas}"
    return (f"{share}: {terms.paid_share:.1%} of the paid time works",)


# -------------------------------------------------------------------------------------------- owned


def _owned(found: Figures, terms: Terms) -> Hourly | Missing:
    """Bought: the formula of :mod:`profiler.cost.owned`.  While it waits only its power is another,
    where idle power was measured."""
    node = owned.node(found, terms)
    if isinstance(node, Missing):
        return node
    engine = found.gpus if found.gpu else 1
    if engine < 1:
        return Missing(NO_COUNT)
    at, bought = owned.parts(node), node.bought
    low, high = (
        None if usd is None else owned.parts(node, usd).total for usd in (bought.low_usd, bought.high_usd)
    )
    return Hourly(
        basis=terms.basis,
        price=Price(
            usd_per_hour=at.total,
            per="gpu" if found.gpu else "machine",
            source=f"owned: {bought.usd:,.0f} USD a node ({bought.words})",
            low_usd_per_hour=low,
            high_usd_per_hour=high,
        ),
        usd_per_hour=at.total * engine,
        idle_usd_per_hour=at.idle_total * engine,
        paid_share=terms.paid_share,
        lines=(*owned.lines(node, terms), *_unused(terms), *share_lines(terms)),
        low_usd_per_hour=None if low is None else low * engine,
        high_usd_per_hour=None if high is None else high * engine,
    )


def _electricity(found: Figures, terms: Terms) -> Hourly | Missing:
    """The measured energy alone; in idle time what the machine was measured to draw, nothing where that was
    not measured."""
    used = electricity.energy(found, terms)
    if isinstance(used, Missing):
        return used
    tariff = terms.tariff_usd_per_kwh
    usd, idle = (watts * used.pue / 1000 * tariff for watts in (used.work_w, used.idle_w or 0.0))
    source = f"electricity: {used.work_w:.0f} W measured ({used.boundary}) at {tariff:g} USD/kWh"
    return Hourly(
        basis=terms.basis,
        price=Price(usd_per_hour=usd, per="machine", source=source),
        usd_per_hour=usd,
        idle_usd_per_hour=idle,
        paid_share=terms.paid_share,
        lines=(
            f"{source} ({terms.whose('tariff_usd_per_kwh')})",
            *used.notes,
            *_unused(terms),
            *share_lines(terms),
        ),
    )


def _unused(terms: Terms) -> tuple[str, ...]:
    """A price that was given and has no part in this."""
    return (f"the price {terms.price} ({terms.whose('price')}) has no part in it",) if terms.price else ()
