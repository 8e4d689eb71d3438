"""What things cost, as rows: GPU-hours, tokens, hardware; and what grids emit.  Age in days, doubts told."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from msgspec.structs import asdict

from profiler import catalog
from profiler.catalog import ApiOffer, PriceOffer
from profiler.catalog.gpu_offers import KINDS
from profiler.prices import OLD_DAYS

Rows = Sequence[dict[str, Any]]
DAYS_A_MONTH = 30.44


def list_prices(today: datetime.date | None = None) -> Rows:
    """One row an offer of a GPU-hour, by GPU, terms and price.  ``mark``: ``*`` counts in the price of its
    GPU today, ``?`` doubtful, ``!`` old or undated."""
    day = today or datetime.date.today()
    counted = _counted()
    order = list(KINDS)
    return [
        {
            "gpu": each.gpu.partition(" (")[0],
            "vendor": each.vendor,
            "kind": each.kind,
            "price_per_gpu_hour": each.price_per_gpu_hour,
            "currency": each.currency,
            **_age(each.date, each.doubtful, day, each in counted),
            "source": each.source,
        }
        for each in sorted(
            catalog.gpu_prices(), key=lambda each: (each.gpu, order.index(each.kind), each.price_per_gpu_hour)
        )
    ]


def _counted() -> set[PriceOffer]:
    """The offers that make the price of some GPU on some terms."""
    terms = [kind for kind in KINDS if kind not in ("on_demand_avg", "rental_cheapest")]
    return {each for spec in catalog.gpus() for kind in terms for each in catalog.offers(spec, kind)}


def list_api_prices(today: datetime.date | None = None) -> Rows:
    """One row an offer of a model's tokens, by model and price; marks as of GPU-hours, ``b`` in batches."""
    day = today or datetime.date.today()
    every = catalog.api_prices()
    counted = {id_ for each in every for id_ in map(_key, catalog.api_offers(each.model, kind=each.kind))}
    return [
        {
            "model": each.model,
            "provider": each.provider,
            "terms": each.kind,
            "per_m_input": each.per_m_input,
            "per_m_output": each.per_m_output,
            "per_m_cached_input": each.per_m_cached_input,
            "currency": each.currency,
            **_age(each.date, each.doubtful, day, _key(each) in counted, "b" * (each.kind == "batch")),
            "source": each.source,
        }
        for each in sorted(every, key=lambda each: (each.model, each.per_m_output))
    ]


def _key(each: ApiOffer) -> tuple[str, str, str, str]:
    return each.model, each.provider, each.kind, each.date


def list_capex(today: datetime.date | None = None) -> Rows:
    """One row a price of hardware."""
    day = today or datetime.date.today()
    return [
        {
            **{
                key: value for key, value in asdict(each).items() if key not in ("date", "source", "doubtful")
            },
            "usd_per_gpu": each.usd_per_gpu,
            **_age(each.date, each.doubtful, day, None),
            "source": each.source,
        }
        for each in catalog.capex_rows()
    ]


def list_grids() -> Rows:
    """One row a grid."""
    return [asdict(each) | {"aliases": each.aliases.replace("|", ", ")} for each in catalog.grids()]


def _age(
    date: str, doubtful: str | None, day: datetime.date, current: bool | None, mark: str = ""
) -> dict[str, Any]:
    age_days = catalog.age_days(date, day)
    old = age_days is None or age_days > OLD_DAYS
    marks = ("?" if doubtful else "*" if current else "") + ("!" if old else "") + mark
    return {
        "date": date,
        "age_days": age_days,
        "mark": marks,
        "old": old,
        "doubtful": doubtful,
        "current": current,
    }


def age(days: int | None) -> str:
    """``13 d``, ``15 mo``."""
    if days is None:
        return "undated"
    return f"{days} d" if days < 2 * DAYS_A_MONTH else f"{days / DAYS_A_MONTH:.0f} mo"


def below(rows: Rows) -> list[str]:
    """What a reader of a list of prices must know: what the marks say, what is old, what is not believed."""
    if "age_days" not in rows[0]:
        return []
    lines = [""]
    if any(row["current"] for row in rows):
        lines.append("* counts in the price that is taken today: each vendor's newest, in USD, believed")
    old = sum(row["old"] for row in rows)
    if old:
        lines.append(
            f"! {old} of {len(rows)} are undated or more than {OLD_DAYS} days old: {_advice(rows[0])}"
        )
    if any("b" in row["mark"] for row in rows):
        lines.append("b in batches that may take hours")
    doubtful = [row for row in rows if row["doubtful"]]
    if doubtful:
        lines.append("? doubtful, counted nowhere:")
        lines += [f"  {_who(row)}: {row['doubtful']}" for row in doubtful]
    foreign = sorted({row["currency"] for row in rows if row.get("currency", "USD") != "USD"})
    lines += [f"{code}: counted only with a rate of yours (rates.{code}, USD for one)" for code in foreign]
    return lines


def _advice(row: dict[str, Any]) -> str:
    """What to do about old prices."""
    if "vendor" in row:
        return "give today's with --price FILE"
    return "look at the provider's page" if "provider" in row else "give your own (owned.node_price)"


def _who(row: dict[str, Any]) -> str:
    price = row.get("price_per_gpu_hour")
    amount = f"{price:g}" if price else f"{row['per_m_input']:g}/{row['per_m_output']:g}"
    return f"{row.get('gpu') or row['model']}, {row.get('vendor') or row['provider']}, {amount}"
