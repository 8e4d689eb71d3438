"""What an hour of a GPU, or of a machine, costs: what the user says of it (a number or a sheet of their own)
or the catalog's offers → ``Price``.  What tokens cost is told in ``cost``.

A sheet is TOML (``[[price]]`` tables) or CSV with a header.  A row has ``gpu``, ``date``, ``source`` and the
price, ``usd_per_hour`` or ``price_per_hour`` with ``currency``, and may have ``vendor`` and ``kind``
(``on_demand``, ``spot``, ``reserved``, …).  A ``[rates]`` table of a TOML sheet says what one unit of another
currency is in USD.  ``machine`` names a machine without GPU.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from profiler import catalog
from profiler.catalog import GpuSpec, PriceOffer, checks, rows
from profiler.catalog import gpu_offers as sheets
from profiler.errors import InputError, nearest
from profiler.schema import SIMULATED, Price

OLD_DAYS = 180
Rates = Mapping[str, float]
NO_RATES: Rates = {}


class Missing(Struct, frozen=True):
    """No price, and why: what is missing and how to give it."""

    reason: str


class _Sheet(Struct, frozen=True):
    offers: tuple[PriceOffer, ...]
    rates: dict[str, float]


def usd_per_s(price: Price | None, gpus: int) -> float | None:
    """What a second of the whole engine costs; None without a price, or per GPU where there is none."""
    if price is None or (price.per == "gpu" and gpus < 1):
        return None
    return price.usd_per_hour * (gpus if price.per == "gpu" else 1) / 3600


@contextmanager
def as_of(day: datetime.date) -> Iterator[None]:
    """Inside, prices are as old as they are on ``day``, so that what is said of them does not change."""
    token = _DAY.set(day)
    try:
        yield
    finally:
        _DAY.reset(token)


_DAY: ContextVar[datetime.date | None] = ContextVar("day", default=None)


def age_note(price: Price, today: datetime.date | None = None) -> str | None:
    """A warning where a price is undated, of a day to come or seen more than :data:`OLD_DAYS` ago; None for
    one that was given without a date, which is the user's of today."""
    if price.date is None:
        return None
    age = catalog.age_days(price.date, today or _DAY.get() or datetime.date.today())
    if age is None:
        return f"the price is undated ({price.date})"
    if age < 0:
        return f"the price is of {price.date}, which is to come"
    return f"the price is of {price.date}, {age / 30.44:.0f} months old" if age > OLD_DAYS else None


def parse(text: str, gpu: str | None) -> Price:
    """``--price``: a number (USD per GPU-hour, per machine-hour without a GPU) or a price sheet's path.  Of a
    sheet's kinds on demand first, another only where it is the one there is.

    Raises InputError when it is neither, not positive, or the sheet has no row for ``gpu``, which it cannot
    have for a simulated board.
    """
    kind = "on_demand"
    if _number(text) is None:
        kinds = sorted({each.kind for each in _named(Path(text), gpu)})
        stands = set(sum(sheets.STANDS_FOR["on_demand"], ()))
        kind = kinds[0] if len(kinds) == 1 and kinds[0] not in stands else kind
    found = quote(gpu, kind, text)
    if isinstance(found, Missing):
        raise InputError(found.reason)
    return found


def quote(
    gpu: str | None,
    kind: str = "on_demand",
    given: str | None = None,
    rates: Rates = NO_RATES,
    memory_bytes: int | None = None,
) -> Price | Missing:
    """What an hour of ``gpu`` (as its driver or the catalog names it; None: a machine without) costs on the
    terms ``kind``: what is ``given`` as for ``--price``, else the catalog's offers: their median, with the
    cheapest and the dearest.

    ``rates``: USD for one unit of another currency; offers in a currency without a rate are not counted.
    ``memory_bytes`` tells variants of a GPU apart.  Raises InputError for an unknown kind or currency and for
    a price or sheet that is not valid; a sheet without a row for the GPU is ``Missing``.
    """
    key = tuple(sorted(rates.items()))
    return _quote(
        gpu, kind, given, key, (memory_bytes, _stamp(given), os.environ.get(catalog.SHEET_VARIABLE))
    )


def offers(
    gpu: str | None,
    kind: str = "on_demand",
    given: str | None = None,
    rates: Rates = NO_RATES,
    memory_bytes: int | None = None,
) -> tuple[PriceOffer, ...]:
    """The offers behind :func:`quote`, each in its own currency; none behind a number."""
    if given is None:
        spec = catalog.named(gpu, memory_bytes) if gpu else None
        return catalog.offers(spec, kind, rates) if spec else ()
    return () if _number(given) is not None else _of_kind(_named(Path(given), gpu), kind)


@lru_cache(maxsize=4096)
def _quote(
    gpu: str | None, kind: str, given: str | None, key: tuple[tuple[str, float], ...], seen: tuple[Any, ...]
) -> Price | Missing:
    """:func:`quote`, remembered for as long as what it was read from stays as it is (``seen``)."""
    if kind not in sheets.KINDS:
        raise InputError(f"unknown kind of price {kind!r}{nearest(kind, sheets.KINDS)}")
    rates = {rows.currency(code, "rates"): rows.positive(rate, code, "rates") for code, rate in key}
    spec = catalog.named(gpu, seen[0]) if gpu else None
    if given is None:
        return _listed(gpu, spec, kind, rates)
    usd = _number(given)
    if usd is None:
        return _from_sheet(Path(given), gpu, spec, kind, rates)
    per = "gpu" if gpu else "machine"
    if not 0 < usd < float("inf"):
        raise InputError(f"--price {given}: a price is a positive number of USD per {per}-hour")
    return _doubted(
        Price(usd_per_hour=usd, per="gpu" if gpu else "machine", source="given with --price", kind=kind), spec
    )


def _number(given: str) -> float | None:
    try:
        return float(given)
    except ValueError:
        return None


def _doubted(price: Price, spec: GpuSpec | None, found: Sequence[PriceOffer] = ()) -> Price:
    """The price, with what speaks against it: rows that the sheet's other rows make improbable, and being far
    from what the catalog's vendors ask on the same terms."""
    doubts = [
        f"{each.price_per_gpu_hour:g} {each.currency}: {each.doubtful}" for each in found if each.doubtful
    ]
    others = [each.price_per_gpu_hour for each in catalog.offers(spec, price.kind)] if spec else []
    far = checks.far_off(price.usd_per_hour, others, "vendors in the catalog")
    if far and spec:
        doubts.append(f"{price.usd_per_hour:g} USD per hour of one {spec.gpu} is {far}")
    return replace(price, doubt="; ".join(doubts)) if doubts else price


# ---------------------------------------------------------------------------------------- the catalog's


def _listed(gpu: str | None, spec: GpuSpec | None, kind: str, rates: Rates) -> Price | Missing:
    if gpu is None:
        return Missing(
            "a machine without GPU has no list price: give USD per machine-hour with --price"
            " (results of another tool: profile import --gpu NAME says which GPU they are of)"
        )
    if gpu.endswith(SIMULATED):
        return Missing(f"{gpu} is no real board and has no price; give USD per GPU-hour with --price")
    if spec is None:
        return Missing(f"the catalog knows no {gpu!r}: give USD per GPU-hour with --price")
    found = catalog.offers(spec, kind, rates)
    if found:
        return sheets.price_of(found, kind, f"catalog: {spec.gpu}, ", rates)
    return Missing(_nobody(spec, kind, rates))


def _nobody(spec: GpuSpec, kind: str, rates: Rates) -> str:
    """Why the catalog has no price, and what would mend it: a rate, other terms, or one's own price."""
    words = f"no {sheets.KINDS[kind]} offer of {spec.gpu} in USD"
    every = dict.fromkeys(catalog.CURRENCIES, 1.0)
    foreign = [each for each in catalog.offers(spec, kind, every) if each.currency not in rates]
    if foreign:
        one = foreign[0]
        return (
            f"{words}; {one.vendor} asks {one.price_per_gpu_hour:g} {one.currency}: give rates.{one.currency}"
            f" (USD for one {one.currency}), or USD per GPU-hour with --price"
        )
    others = ", ".join(each for each in sheets.KINDS if catalog.offers(spec, each))
    return f"{words}{f' (there are: {others})' if others else ''}: give USD per GPU-hour with --price"


# ------------------------------------------------------------------------------------- the user's sheet


def _from_sheet(
    path: Path, gpu: str | None, spec: GpuSpec | None, kind: str, rates: Rates
) -> Price | Missing:
    named = _named(path, gpu)
    found = _of_kind(named, kind)
    if not found:
        return Missing(_nobody_there(path, gpu, kind, named))
    known = _sheet(str(path), _stamp(str(path))).rates | dict(rates)
    lacking = next((each for each in found if rows.usd_for(each.currency, known) is None), None)
    if lacking is not None:
        code = lacking.currency
        return Missing(
            f"{path}: the price of {lacking.gpu!r} is in {code}: give rates.{code} (USD for one {code})"
        )
    price = sheets.price_of(found, kind, f"{path.name}: ", known)
    if len(found) == 1:
        price = replace(
            price,
            usd_per_hour=price.low_usd_per_hour or price.usd_per_hour,
            source=f"{path.name}: {found[0].source}{sheets.converted(found, known)}",
            low_usd_per_hour=None,
            high_usd_per_hour=None,
        )
    return _doubted(price if gpu else replace(price, per="machine"), spec, found)


def _nobody_there(path: Path, gpu: str | None, kind: str, named: Sequence[PriceOffer]) -> str:
    """Why a sheet has no price for a GPU: its board is none, no row names it, or only on other terms."""
    if gpu is not None and gpu.endswith(SIMULATED):
        return f"--price {path}: {gpu} is no real board and has no price; give USD per GPU-hour as a number"
    if named:
        others = ", ".join(sorted({each.kind for each in named}))
        return f"{path} has no {sheets.KINDS[kind]} price for {gpu or 'machine'!r}; it has: {others}"
    known = ", ".join(sorted({each.gpu for each in _sheet(str(path), _stamp(str(path))).offers}))
    return f"{path} has no price for {gpu or 'machine'!r}; it has: {known}"


def _named(path: Path, gpu: str | None) -> tuple[PriceOffer, ...]:
    """The rows for a GPU, those of the longest name of it."""
    if not os.path.isfile(path):
        raise InputError(f"--price {path}: neither a number (USD per hour) nor a price sheet that exists")
    if gpu is not None and gpu.endswith(SIMULATED):
        return ()
    found = [each for each in _sheet(str(path), _stamp(str(path))).offers if _names(each.gpu, gpu)]
    longest = max((len(each.gpu) for each in found), default=0)
    return tuple(each for each in found if len(each.gpu) == longest)


def _of_kind(named: Sequence[PriceOffer], kind: str) -> tuple[PriceOffer, ...]:
    for kinds in sheets.STANDS_FOR.get(kind, ((kind,),)):
        if found := sheets.current(each for each in named if each.kind in kinds):
            return found
    return ()


def _names(written: str, gpu: str | None) -> bool:
    """Whether a sheet's name means this GPU: a whole-word part of the driver's name (``H100``, not ``A10``
    for an A100) or one of the catalog's names for it; ``machine`` where there is none."""
    if gpu is None:
        return written.lower() == "machine"
    spec = catalog.named(gpu)
    if spec is not None:
        listed = re.split(r" \+ |\|", spec.price_names)
        if written.lower() in {name.lower() for name in (spec.gpu, *listed)} or spec in catalog.find_gpus(
            written
        ):
            return True
    return re.search(rf"(?<!\w){re.escape(written)}(?!\w)", gpu, re.IGNORECASE) is not None


def _stamp(given: str | None) -> tuple[int, int] | None:
    """What tells whether a sheet was changed since it was read; None for what is no file."""
    if given is None or _number(given) is not None:
        return None
    try:
        found = os.stat(given)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=16)
def _sheet(path: str, _seen: tuple[int, int] | None) -> _Sheet:
    """A sheet, remembered until it changes, improbable rows marked.  Raises InputError: file, row, what."""
    told, rates = rows.from_sheet(Path(path))
    found = [sheets.offer(row, where) for where, row in told]
    doubts = zip(found, checks.doubts(found), strict=True)
    return _Sheet(tuple(replace(each, doubtful=doubt) for each, doubt in doubts), rates)
