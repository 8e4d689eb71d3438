"""A result file's bytes → JSON values or table rows, and what is taken out of them.

Raises InputError, one line that names the file, for everything that is damaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from msgspec import Struct

from profiler.errors import InputError

Json = Mapping[str, Any]
MAX_BYTES = 2 << 30
MAX_COUNT = 10**9  # of requests, of tokens in one
MAX_NUMBER = 1e30  # squares of what is below have sums


class Content(Struct, frozen=True, kw_only=True):
    """``values``: the JSON objects of a file, one after the other; ``rows``: those of a CSV table."""

    path: Path
    sha256: str
    mtime_ns: int
    values: tuple[Json, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def read(path: Path) -> Content:
    """The file, parsed: one JSON value, several of them one after the other, or CSV."""
    try:
        raw, mtime_ns = _bytes(path), path.stat().st_mtime_ns
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; {EXPECTED}") from None
    start = text.lstrip()[:1]
    if not start:
        raise InputError(f"{path}: empty; {EXPECTED}")
    values = tuple(_values(text, path)) if start in "{[" else ()
    rows = () if start in "{[" else _rows(text, path)
    return Content(path=path, sha256=sha256(raw).hexdigest(), mtime_ns=mtime_ns, values=values, rows=rows)


EXPECTED = "results of vllm bench, GuideLLM, AIPerf or a table (CSV, JSON) are read"


def _bytes(path: Path) -> bytes:
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path}: larger than {MAX_BYTES >> 30} GiB")
    return path.read_bytes()


def _values(text: str, path: Path) -> list[Json]:
    """The objects of a JSON document, of a list of them, or of several documents (JSON lines)."""
    import json

    decoder, place = json.JSONDecoder(), 0
    found: list[Json] = []
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        try:
            value, place = decoder.raw_decode(text, place)
        except RecursionError:
            raise InputError(f"{path}: damaged or cut short: nested too deeply") from None
        except ValueError as error:  # of a number with thousands of digits it has no place
            line = text.count("\n", 0, getattr(error, "pos", place)) + 1
            why = getattr(error, "msg", "a number too long")
            raise InputError(f"{path}: damaged or cut short: line {line}: {why}") from None
        found += value if isinstance(value, list) else [value]
    if not found or not all(isinstance(each, dict) for each in found):
        raise InputError(f"{path}: its JSON holds no results; {EXPECTED}")
    return found


def _rows(text: str, path: Path) -> tuple[tuple[str, ...], ...]:
    import csv
    from io import StringIO

    reader = csv.reader(StringIO(text, newline=""))
    try:
        return tuple(tuple(cell.strip() for cell in row) for row in reader if any(row))
    except csv.Error as error:
        raise InputError(f"{path}: damaged: line {reader.line_num}: {error}") from None


# ------------------------------------------------------------------------------------ taking things out


class Reader(Struct, frozen=True):
    """Takes fields out of JSON objects; a field of another type than expected is an InputError."""

    path: Path

    def number(self, value: Json, *keys: str) -> float | None:
        """A number by its path of keys; None where it is missing, null, NaN or beyond all measure."""
        found = self.at(value, *keys)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int | float):
            self.refuse(keys, found, "a number")
        return float(found) if -MAX_NUMBER < found < MAX_NUMBER else None

    def positive(self, value: Json, *keys: str) -> float | None:
        """The same for what cannot be 0: tools write 0 where they have nothing."""
        found = self.number(value, *keys)
        return found if found is not None and found > 0 else None

    def about(self, value: Json, *keys: str) -> int | None:
        """The whole number nearest to a mean or a peak, where that is one to be had: from 1 on."""
        found = self.number(value, *keys)
        return None if found is None or not 1 <= round(found) <= MAX_COUNT else round(found)

    def count(self, value: Json, *keys: str) -> int | None:
        found = self.number(value, *keys)
        if found is not None and not (0 <= found <= MAX_COUNT and found == int(found)):
            self.refuse(keys, found, f"a whole number up to {MAX_COUNT:,}")
        return None if found is None else int(found)

    def text(self, value: Json, *keys: str) -> str | None:
        found = self.at(value, *keys)
        if found is not None and not isinstance(found, str):
            self.refuse(keys, found, "text")
        # Half a surrogate pair, which JSON can hold, no file can.
        return found.encode(errors="replace").decode() if found else None

    def list(self, value: Json, *keys: str) -> Sequence[Any] | None:
        found = self.at(value, *keys)
        if found is not None and not isinstance(found, list):
            self.refuse(keys, found, "a list")
        return found if isinstance(found, list) else None

    def table(self, value: Json, *keys: str) -> Json:
        """A JSON object; empty where it is missing."""
        found = self.at(value, *keys)
        if found is not None and not isinstance(found, dict):
            self.refuse(keys, found, "an object")
        return found or {}

    def at(self, value: Json, *keys: str) -> Any:
        found: Any = value
        for depth, key in enumerate(keys):
            if found is not None and not isinstance(found, dict):
                self.refuse(keys[:depth], found, "an object")
            found = None if found is None else found.get(key)
        return found

    def refuse(self, keys: Sequence[str], found: Any, expected: str) -> None:
        raise InputError(f"{self.path}: {'.'.join(keys)} is {str(found)[:40]!r}, expected {expected}")
