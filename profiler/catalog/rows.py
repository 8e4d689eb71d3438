"""Reading sheets: every row has a date, a source and a positive price, or the sheet is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from profiler.catalog.entries import CURRENCIES
from profiler.errors import InputError, nearest

_DATE = re.compile(r"(?<![\w-])(20\d\d)(?:-(\d\d))?(?:-(\d\d))?(?![\w-])")


def from_csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row stands (for a message) and what it says; empty cells are left out.

    Raises InputError where the file is no CSV with a header.
    """
    import csv

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True, skipinitialspace=True)
            header, found = reader.fieldnames or (), list(reader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not valid CSV: {error}") from None
    if any(";" in name for name in header):
        raise InputError(f"{path}: cells are separated by semicolons; write commas, and points in numbers")
    for number, row in enumerate(found, start=2):
        if None in row:
            raise InputError(
                f"{path}: line {number} has more cells than the header; quote cells with a comma"
            )
        told = ((" ".join(key.split()), " ".join((value or "").split())) for key, value in row.items())
        yield f"{path}: line {number}", {key: value for key, value in told if value}


def from_toml(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each ``[[price]]`` table stands and what it says, ``[rates]`` last.

    Raises InputError where the file is no TOML or made of other tables.
    """
    import tomllib

    try:
        sheet = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    tables, rates = sheet.pop("price", []), sheet.pop("rates", {})
    plain = isinstance(tables, list) and all(isinstance(table, dict) for table in tables)
    if sheet or not plain or not isinstance(rates, dict):
        strange = next((repr(key) for key in sheet), "something else")
        raise InputError(f"{path}: a price sheet is made of [[price]] tables and [rates]; found {strange}")
    yield from ((f"{path}: [[price]] {place}", table) for place, table in enumerate(tables, start=1))
    yield f"{path}: [rates]", rates


def from_sheet(path: Path) -> tuple[list[tuple[str, dict[str, Any]]], dict[str, float]]:
    """The rows of a user's sheet, TOML or CSV by its name, and its rates: USD for one unit of a currency.

    Raises InputError for a file that cannot be read or has no rows, and for a rate that is none.
    """
    *found, (where, told) = [*from_csv(path), ("", {})] if path.suffix.lower() == ".csv" else from_toml(path)
    if not found:
        raise InputError(f"{path}: no price in it")
    return found, {currency(code, where): positive(rate, code, where) for code, rate in told.items()}


def only(row: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """Raises InputError for a column that no row of this kind has."""
    for key in row:
        if key not in known and not _PRICE.fullmatch(key):
            raise InputError(f"{where}: unknown key {key!r}{nearest(key, known)}")


def text(row: Mapping[str, Any], key: str, where: str) -> str:
    """A cell that must say something.  Raises InputError."""
    found = str(row.get(key, "")).strip()
    if not found:
        hint = {"date": " (when the price was seen: YYYY-MM-DD)", "source": " (whose word it is)"}
        raise InputError(f"{where}: {key} is missing{hint.get(key, '')}")
    return found


def dated(row: Mapping[str, Any], where: str) -> str:
    """The cell ``date``.  Raises InputError for what is neither a date nor says that there is none."""
    written = text(row, "date", where)
    if day(written) is None and "undated" not in written and not written.startswith("commit "):
        raise InputError(f"{where}: date is {written!r}: write YYYY-MM-DD (or 'undated')")
    return written


def positive(value: object, key: str, where: str) -> float:
    """Raises InputError for what is no finite number above 0."""
    try:
        found = float(str(value))
    except ValueError:
        raise InputError(f"{where}: {key} is {value!r}, not a number") from None
    if not (found > 0 and math.isfinite(found)):
        raise InputError(f"{where}: {key} is {found:g}; a price is positive")
    return found


# ----------------------------------------------------------------------------------------- currencies

_PRICE = re.compile(r"([a-z]{3})_per_(gpu_hour|hour|m_input|m_output|m_cached_input)")


def currency(code: str, where: str) -> str:
    """The code in capitals.  Raises InputError for one that is no currency."""
    found = code.strip().upper()
    if found not in CURRENCIES:
        raise InputError(f"{where}: {code!r} is no currency known here{nearest(found, sorted(CURRENCIES))}")
    return found


def prices(row: Mapping[str, Any], where: str) -> dict[str, tuple[str, float]]:
    """The row's amounts by what they are per (``hour``, ``m_input`` …) with their currency, from columns
    such as ``usd_per_gpu_hour``, or from ``price_per_hour`` beside ``currency``."""
    found: dict[str, tuple[str, float]] = {}
    for key, value in row.items():
        if written := _PRICE.fullmatch(key):
            of = written[2].removeprefix("gpu_")
            if of in found:
                raise InputError(f"{where}: two prices for one hour")
            found[of] = (currency(written[1], f"{where}: {key}"), positive(value, key, where))
    if "price_per_hour" in row:
        if "hour" in found:
            raise InputError(f"{where}: two prices for one hour")
        code = currency(text(row, "currency", where), f"{where}: currency")
        found["hour"] = (code, positive(row["price_per_hour"], "price_per_hour", where))
    elif "currency" in row:
        raise InputError(f"{where}: currency goes with price_per_hour")
    return found


def usd_for(code: str, rates: Mapping[str, float]) -> float | None:
    """USD for one unit of a currency; None without a rate of the user's."""
    return 1.0 if code == "USD" else rates.get(code)


# ---------------------------------------------------------------------------------------------- dates


def day(written: str) -> date | None:
    """The last date that is written, a month's or a year's taken as its first day; None where there is none:
    ``undated`` rows and those that name a commit alone."""
    found = [] if "undated" in written else _DATE.findall(written)
    if not found:
        return None
    year, month, of_month = found[-1]
    try:
        return date(int(year), int(month or 1), int(of_month or 1))
    except ValueError:
        return None


def month(written: str) -> int | None:
    """Months since year 0 of the (last) date; None when undated."""
    found = day(written)
    return None if found is None else found.year * 12 + found.month


def before(written: str, other: str) -> bool:
    """Whether a date lies wholly before another: ``2025`` is not before ``2025-08``; False when undated."""
    one, two = day(written), day(other)
    if one is None or two is None:
        return False
    dashes = _DATE.findall(written)[-1]
    shared = sum(bool(part) for part in dashes)
    return (one.year, one.month, one.day)[:shared] < (two.year, two.month, two.day)[:shared]


def ended(written: str) -> bool:
    """Whether the price is said to be no longer asked: ``until 2025-02-08``, ``2023-07..2025-05``."""
    return written.startswith("until ") or ".." in written


def age_days(written: str, today: date) -> int | None:
    """Days since the price was seen, None when undated."""
    found = day(written)
    return None if found is None else (today - found).days
