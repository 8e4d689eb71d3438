"""The record of a sweep on disk: ``sweeps/<name>.json`` in its home, whole at every moment."""

from __future__ import annotations

from contextlib import AbstractContextManager

import msgspec

from profiler.errors import InputError
from profiler.storage import Home
from profiler.sweep.nouns import VERSION, Record

FOLDER = "sweeps"
SUFFIX = ".json"
MEND = "restore it, or give the sweep another name"


def path_of(name: str) -> str:
    return f"{FOLDER}/{name}{SUFFIX}"


def aside_of(name: str) -> str:
    """Where runs go that do not count."""
    return f"{FOLDER}/{name}.aside"


def read(home: Home, name: str) -> Record | None:
    """None where nothing was begun.  Raises InputError for what is damaged or of a newer version."""
    raw = home.read(path_of(name))
    where = f"{home.where}/{path_of(name)}"
    if raw is None:
        return None
    try:
        version = msgspec.json.decode(raw).get("version")
        if not isinstance(version, int) or version > VERSION:
            raise InputError(f"{where} has version {version}, this profiler reads up to {VERSION}: update it")
        return msgspec.json.decode(raw, type=Record)
    except (msgspec.MsgspecError, AttributeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{where}: this record of a sweep cannot be read ({error}); {MEND}") from None


def names(home: Home) -> list[str]:
    """The sweeps that were begun here."""
    return [each.removesuffix(SUFFIX) for each in home.names(FOLDER) if each.endswith(SUFFIX)]


def write(home: Home, record: Record) -> None:
    """Whole or not at all.  Raises StoreError."""
    home.write(path_of(record.name), msgspec.json.format(msgspec.json.encode(record), indent=1))


def locked(home: Home, name: str) -> AbstractContextManager[None]:
    """Nobody else goes on with this sweep; raises InputError where somebody does."""
    return home.lock(f"{FOLDER}/{name}")
