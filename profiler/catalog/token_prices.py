"""What providers ask for the tokens of a model: the shipped price lists, and those for a model by its name.

``api_prices.csv`` and ``api_prices_cny.csv`` are rebuilt by ``tools/build_catalog.py``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

from msgspec.structs import replace

from profiler.catalog import checks, rows
from profiler.catalog.boards import FOLDER
from profiler.catalog.entries import ApiOffer
from profiler.errors import InputError, nearest

COLUMNS = ("model", "provider", "kind", "date", "source")
Kind = Literal["list", "batch"]
KINDS: dict[str, Kind] = {"list": "list", "batch": "batch"}
NO_RATES: Mapping[str, float] = {}

# Who asks the maker's own price, by how the model's name begins.
_MAKERS = {
    "deepseek": "DeepSeek",
    "qwen": "Alibaba",
    "gpt": "OpenAI",
    "chatgpt": "OpenAI",
    "o1": "OpenAI",
    "o3": "OpenAI",
    "claude": "Anthropic",
    "glm": "Z.ai",
    "kimi": "Moonshot",
    "mistral": "Mistral",
}
_FORMAT = re.compile(r"-(fp8|awq|gptq(-int\d)?|int[48]|bf16|mxfp4|nvfp4)$")
_VERSION = re.compile(r"-(20\d\d-?\d\d-?\d\d|latest|preview)(?=-|$)")
_STAGE = re.compile(r"-(instruct|chat|it|hf)(?=-|$)")


def offer(row: Mapping[str, Any], where: str) -> ApiOffer:
    """A row of a price list.  Raises InputError where something is missing, unknown or not positive."""
    rows.only(row, COLUMNS, where)
    where = f"{where} ({row.get('model', 'no model')})"
    prices = rows.prices(row, where)
    for name in ("m_input", "m_output"):
        if name not in prices:
            raise InputError(f"{where}: usd_per_{name} is missing")
    if len({code for code, _ in prices.values()}) > 1:
        raise InputError(f"{where}: prices in two currencies")
    return ApiOffer(
        model=rows.text(row, "model", where),
        provider=rows.text(row, "provider", where),
        kind=_kind(str(row.get("kind", "list")), where),
        per_m_input=prices["m_input"][1],
        per_m_output=prices["m_output"][1],
        per_m_cached_input=prices["m_cached_input"][1] if "m_cached_input" in prices else None,
        currency=prices["m_input"][0],
        date=rows.dated(row, where),
        source=rows.text(row, "source", where),
    )


def _kind(written: str, where: str) -> Kind:
    if written not in KINDS:
        raise InputError(f"{where}: unknown kind {written!r}{nearest(written, KINDS)}")
    return KINDS[written]


def read(path: Path) -> tuple[ApiOffer, ...]:
    """The offers of a CSV sheet in the catalog's columns.  Raises InputError: file, line, what is wrong."""
    return tuple(offer(row, where) for where, row in rows.from_csv(path))


@cache
def api_prices() -> tuple[ApiOffer, ...]:
    """All shipped offers, the doubtful ones marked."""
    return checked(read(FOLDER / "api_prices.csv") + read(FOLDER / "api_prices_cny.csv"))


def checked(offers: tuple[ApiOffer, ...]) -> tuple[ApiOffer, ...]:
    """The offers, each with why it is doubted, beside those of the same model, kind and currency."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for place, each in enumerate(offers):
        groups.setdefault((_plain(each.model), each.kind, each.currency), []).append(place)
    found: dict[int, str | None] = {}
    for places in groups.values():
        doubts = checks.api_doubts([offers[place] for place in places], maker, _published)
        found |= dict(zip(places, doubts, strict=True))
    return tuple(replace(each, doubtful=found[place]) for place, each in enumerate(offers))


def maker(model: str) -> str | None:
    """The provider that made a model, by its name; gpt-oss is open and OpenAI sells none of it."""
    name = model.lower().rpartition("/")[2]
    if name.startswith("gpt-oss"):
        return None
    return next((who for begins, who in _MAKERS.items() if name.startswith(begins)), None)


def _published(model: str) -> str | None:
    return _releases().get(_plain(model))


@cache
def _releases() -> dict[str, str]:
    """When the models of the catalog came out, by their plain names."""
    from profiler.catalog import models

    return {_plain(each.id): each.release for each in models().values()}


def api_offers(
    model: str, rates: Mapping[str, float] = NO_RATES, kind: Kind = "list", sheet: str | None = None
) -> tuple[ApiOffer, ...]:
    """What providers ask for ``model`` now, in USD: each one's newest price that is believed and not
    withdrawn, none over a year older than the newest of all, undated ones only where none is dated.

    ``model``: a hub id (``Qwen/Qwen3-30B-A3B``) or the name in an API (``gpt-4o``).  The number format of a
    checkpoint is no other model; a version or training stage that is left out is found where the plain name
    is nobody's.  Empty where nobody sells it.  Offers in a currency that ``rates`` lacks are left out.
    ``sheet``: a file of the user's own, TOML or CSV with the catalog's columns; where it names the model, it
    stands for the catalog, and what is doubtful in it is marked and counts.  Raises InputError for a wrong
    one.
    """
    if sheet is not None:
        offers, own_rates = _own(sheet, _changed(sheet))
        if named := _named(offers, model, kind):
            return _current(_in_usd(named, own_rates | dict(rates)))
    named = _named(api_prices(), model, kind)
    return _current(_in_usd([each for each in named if each.doubtful is None], rates))


def _named(offers: Iterable[ApiOffer], model: str, kind: Kind) -> list[ApiOffer]:
    some = [each for each in offers if each.kind == kind]
    found = ([each for each in some if known(each.model)] for known in _names(model))
    return next((each for each in found if each), [])


@lru_cache(maxsize=16)
def _own(path: str, _seen: int) -> tuple[tuple[ApiOffer, ...], dict[str, float]]:
    told, rates = rows.from_sheet(Path(path))
    return checked(tuple(offer(row, where) for where, row in told)), rates


def _changed(path: str) -> int:
    """When a sheet was changed last.  Raises InputError where there is none."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _names(model: str) -> Iterator[Any]:
    """Ever looser ways in which a name on a price list may mean ``model``."""
    plain = _plain(model)
    bare = _plain(_FORMAT.sub("", model.lower()))
    loose = _loosely(model)
    yield lambda name: _plain(name) == plain
    yield lambda name: _plain(name) == bare
    yield lambda name: _loosely(name) == loose


def _plain(name: str) -> str:
    """``Qwen/Qwen2.5-72B-Instruct`` and ``qwen-2.5-72b-instruct`` are one name."""
    return re.sub(r"[^a-z0-9]", "", name.lower().rpartition("/")[2].removeprefix("meta-"))


def _loosely(name: str) -> str:
    return _plain(_STAGE.sub("", _VERSION.sub("", _FORMAT.sub("", name.lower()))))


def _in_usd(offers: list[ApiOffer], rates: Mapping[str, float]) -> list[ApiOffer]:
    found = []
    for each in offers:
        rate = rows.usd_for(each.currency, rates)
        if rate is None:
            continue
        cached = each.per_m_cached_input
        said = f"; {each.per_m_input:g}/{each.per_m_output:g} {each.currency} at {rate:g} USD"
        found.append(
            replace(
                each,
                per_m_input=each.per_m_input * rate,
                per_m_output=each.per_m_output * rate,
                per_m_cached_input=None if cached is None else cached * rate,
                currency="USD",
                source=each.source + (said if each.currency != "USD" else ""),
            )
        )
    return found


def _current(offers: list[ApiOffer]) -> tuple[ApiOffer, ...]:
    asked = [each for each in offers if not rows.ended(each.date)]
    dated = [(found, each) for each in asked if (found := rows.month(each.date)) is not None]
    if not dated:
        return tuple(asked)
    newest = max(month for month, _ in dated)
    recent = sorted((each for month, each in dated if newest - month <= 12), key=_day)
    return tuple({each.provider: each for each in recent}.values())


def _day(each: ApiOffer) -> int:
    found = rows.day(each.date)
    return found.toordinal() if found else 0
