"""What an hour of a GPU is offered for: the shipped offers, those that are current, and the price they make.

``gpu_prices.csv`` and ``gpu_prices_cny.csv`` are rebuilt by ``tools/build_catalog.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from profiler.catalog import checks, rows
from profiler.catalog.boards import FOLDER, GpuSpec, match_gpu
from profiler.catalog.entries import PriceOffer
from profiler.errors import InputError, nearest
from profiler.schema import Gpu, Price

# Kinds of terms and what they are called.  An average over a vendor's regions and the cheapest offer of an
# index stand for on-demand where no vendor's own price is known.  A marketplace's hosts differ in what they
# promise, and their median moved from 6.15 to 2.40 USD in 12 days (H100, Vast.ai): it is a kind of its own.
# A reservation of some days stands for reserved where nobody binds for longer.
KINDS = {
    "on_demand": "on-demand",
    "on_demand_avg": "average on-demand",
    "rental_cheapest": "cheapest rental",
    "spot": "spot",
    "reserved": "reserved",
    "reservation": "reservation",
    "rental_3yr": "3-year rental",
    "serverless": "serverless",
    "marketplace": "marketplace",
    "tco_own": "cost of owning, estimated",
    "assumed_lease": "lease, assumed",
}
STANDS_FOR: dict[str, tuple[tuple[str, ...], ...]] = {
    "on_demand": (("on_demand",), ("on_demand_avg",), ("rental_cheapest",)),
    "reserved": (("reserved", "rental_3yr"), ("reservation",)),
}
COLUMNS = ("gpu", "vendor", "kind", "currency", "price_per_hour", "usd_per_hour", "date", "source")
NO_RATES: Mapping[str, float] = {}


def offer(row: Mapping[str, Any], where: str) -> PriceOffer:
    """A row of a sheet.  Raises InputError where something is missing, unknown, not positive or undated."""
    rows.only(row, COLUMNS, where)
    where = f"{where} ({row.get('gpu', 'no gpu')})"
    kind = str(row.get("kind", "on_demand"))
    if kind not in KINDS:
        raise InputError(f"{where}: unknown kind {kind!r}{nearest(kind, KINDS)}")
    price = rows.prices(row, where).get("hour")
    if price is None:
        raise InputError(f"{where}: usd_per_hour is missing (or price_per_hour with currency)")
    return PriceOffer(
        gpu=rows.text(row, "gpu", where),
        vendor=str(row.get("vendor", "")),
        kind=kind,
        price_per_gpu_hour=price[1],
        currency=price[0],
        date=rows.dated(row, where),
        source=rows.text(row, "source", where),
    )


def read(path: Path) -> tuple[PriceOffer, ...]:
    """The offers of a CSV sheet in the catalog's columns.  Raises InputError: file, line, what is wrong."""
    return tuple(offer(row, where) for where, row in rows.from_csv(path))


@cache
def gpu_prices() -> tuple[PriceOffer, ...]:
    """All shipped offers and estimates, the doubtful ones marked."""
    found = read(FOLDER / "gpu_prices.csv") + read(FOLDER / "gpu_prices_cny.csv")
    doubts = checks.doubts(found)
    return tuple(replace(each, doubtful=doubt) for each, doubt in zip(found, doubts, strict=True))


def offers(
    gpu: GpuSpec, kind: str = "on_demand", rates: Mapping[str, float] = NO_RATES
) -> tuple[PriceOffer, ...]:
    """Current offers for ``gpu``, believed, in USD or a currency that ``rates`` (USD for one) has.

    Offers that do not name the variant (``H100``) count only where none does.
    """
    exact, _, vague = gpu.price_names.partition("|")
    for kinds in STANDS_FOR.get(kind, ((kind,),)):
        for group in (exact, vague):
            named = [
                each
                for each in gpu_prices()
                if each.kind in kinds
                and each.gpu in group.split(" + ")
                and each.doubtful is None
                and rows.usd_for(each.currency, rates) is not None
            ]
            if found := current(named):
                return found
    return ()


def current(named: Iterable[PriceOffer]) -> tuple[PriceOffer, ...]:
    """Each vendor's newest offer on each kind of terms that is not withdrawn, none over a year older than the
    newest of all; undated ones only where none is dated.  Of rows without a vendor all of their newest day.
    """
    asked = [each for each in named if not rows.ended(each.date)]
    dated = [(found, each) for each in asked if (found := rows.month(each.date)) is not None]
    if not dated:
        return tuple(asked)
    newest = max(month for month, _ in dated)
    recent = sorted((each for month, each in dated if newest - month <= 12), key=lambda each: each.date)
    of_vendors = {(each.vendor, each.kind): each for each in recent if each.vendor}
    nameless = [each for each in recent if not each.vendor]
    return (*of_vendors.values(), *(each for each in nameless if each.date == nameless[-1].date))


def price_of(
    found: Sequence[PriceOffer], kind: str, origin: str, rates: Mapping[str, float] = NO_RATES
) -> Price:
    """The median of the offers as a price, with the cheapest and the dearest; ``origin`` begins its source.

    Raises KeyError for an offer in a currency without a rate.
    """
    from statistics import median

    usd = [
        each.price_per_gpu_hour * (rates[each.currency] if each.currency != "USD" else 1) for each in found
    ]
    dates = sorted(each.date for each in found)
    currencies = sorted({each.currency for each in found})
    return Price(
        usd_per_hour=round(median(usd), 4) or median(usd),
        per="gpu",
        source=origin + _said(found) + converted(found, rates),
        date=dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}",
        low_usd_per_hour=min(usd),
        high_usd_per_hour=max(usd),
        kind=kind,
        currency=currencies[0] if len(currencies) == 1 else "USD",
    )


def _said(found: Sequence[PriceOffer]) -> str:
    kinds = " and ".join(sorted({KINDS[each.kind] for each in found}))
    vendors = ", ".join(sorted({each.vendor for each in found if each.vendor}))
    count = "1" if len(found) == 1 else f"median of {len(found)}"
    return f"{count} {kinds} offer{'s' * (len(found) > 1)}" + (f" ({vendors})" if vendors else "")


def converted(found: Sequence[PriceOffer], rates: Mapping[str, float]) -> str:
    """``, 7.5 CNY at 0.14 USD`` for those that were not in USD."""
    others = sorted({(each.currency, each.price_per_gpu_hour) for each in found if each.currency != "USD"})
    return "".join(f", {price:g} {code} at {rates[code]:g} USD" for code, price in others)


def default_price(gpu: Gpu | GpuSpec) -> Price | None:
    """What renting one ``gpu`` for an hour costs, on demand: the median over vendors' current offers, with
    the cheapest and the dearest.  None when the GPU is not in the catalog or nobody offers it in USD."""
    spec = gpu if isinstance(gpu, GpuSpec) else match_gpu(gpu.name, gpu.memory_bytes)
    found = offers(spec) if spec else ()
    return price_of(found, "on_demand", f"catalog: {spec.gpu}, ") if spec and found else None
