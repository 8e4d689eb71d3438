"""Claim files → Claims: the one entrance for what a user says that somebody said (docs/claims.md)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from profiler import catalog, toml_tables
from profiler.catalog.boards import FOLDER
from profiler.claims.checks import SPELLINGS, contradictions
from profiler.claims.nouns import Claim
from profiler.errors import InputError, nearest

SHIPPED = FOLDER / "claims"


@cache
def shipped() -> tuple[Claim, ...]:
    """The claims that come with the package, by id."""
    return tuple(read(path) for path in sorted(SHIPPED.glob("*.toml")))


def named(words: Sequence[str]) -> list[Claim]:
    """The claims that ``words`` name, each once: ids of shipped ones, claim files, folders of them.

    Raises InputError, also where two different claims have one id: their trials would be mixed up.
    """
    found: dict[str, tuple[str, Claim]] = {}
    for word in words:
        for claim in _named(word):
            first, other = found.setdefault(claim.id, (word, claim))
            if other != claim:
                raise InputError(f"claims {first} and {word}: two different claims are called {claim.id}")
    return [claim for _, claim in found.values()]


def read(path: Path | str) -> Claim:
    """The claim in one file.  Raises InputError: file, key, reason."""
    path = Path(path)
    label = path.name if path.parent == SHIPPED else str(path)
    table = toml_tables.read(path, label)
    if "id" in table:
        raise InputError(f"{label}: id: the claim's id is the name of its file, {path.stem}")
    _spell(table)
    source = toml_tables.Source(label, Claim)
    claim = toml_tables.convert({**table, "id": path.stem}, Claim, source)
    for key, trouble in contradictions(claim):
        raise InputError(f"{label}: {key}: {trouble}")
    return claim


def _named(word: str) -> Iterator[Claim]:
    known = {claim.id: claim for claim in shipped()}
    path = Path(os.path.expanduser(word))
    if word in known:
        yield known[word]
    elif os.path.isdir(path):
        files = sorted(path.glob("*.toml"))
        if not files:
            raise InputError(f"claims {word}: no claim files (*.toml) in this folder")
        yield from map(read, files)
    elif path.suffix == ".toml" or len(path.parts) > 1:
        yield read(path)
    else:
        hint = nearest(word, known)
        raise InputError(f"unknown claim {word!r}{hint}; a file of your own works too: ./{word}.toml")


def _spell(table: dict[str, Any]) -> None:
    """In place: dates as text, the catalog's names of GPUs, the engine's of number formats, one key a
    scenario field."""
    source, conditions, plan = (table.get(key) for key in ("source", "conditions", "plan"))
    if isinstance(source, dict) and isinstance(source.get("date"), date | int):
        source["date"] = str(source["date"])  # TOML has dates of its own, and a year alone is a number
    if isinstance(conditions, dict):
        gpus = conditions.get("gpus")
        if isinstance(gpus, str | list):
            conditions["gpus"] = _boards([gpus] if isinstance(gpus, str) else gpus)
        precision = conditions.get("precision")
        if isinstance(precision, str):
            conditions["precision"] = SPELLINGS.get(precision, precision)
    if isinstance(plan, dict) and isinstance(plan.get("set"), dict):
        plan["set"] = dict(_flat(plan["set"]))


def _boards(names: list[Any]) -> list[Any]:
    """All boards that a name may mean: an "A100" is any A100."""
    found = [
        spec.gpu for name in names for spec in (catalog.find_gpus(name) if isinstance(name, str) else ())
    ]
    unknown = [name for name in names if not isinstance(name, str) or not catalog.find_gpus(name)]
    return [*dict.fromkeys(found), *unknown]


def _flat(table: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """``measure.window_s = 10`` in a [plan.set] table is a table in a table; here it is one key."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
