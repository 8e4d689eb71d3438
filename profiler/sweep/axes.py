"""The spelling of a sweep file: nested tables, dotted keys and units, brought into one.

An axis is ``model``, ``scenario``, ``gpu`` or ``weights``, or any field of a scenario by its dotted path.
"""

from __future__ import annotations

import copy
import hashlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from profiler import catalog, models, scenario, toml_tables
from profiler.errors import InputError, nearest
from profiler.settings import Scenario
from profiler.sweep.nouns import File, When
from profiler.toml_tables import Source

OWN = ("model", "scenario", "gpu", "weights")  # axes that are no fields of a scenario
NO_AXIS = {
    "name": "it names the scenario, and is no part of what is measured",
    "about": "it describes the scenario, and is no part of what is measured",
}


def flat(table: Mapping[str, Any], where: str, *, lists: bool) -> dict[str, Any]:
    """``{load: {concurrency: 8}}`` and ``{"load.concurrency": 8}`` alike → dotted paths of scenario fields.

    A table that is a whole value of its field (``{mean = 512}`` of a length) stays one.  ``lists``: values
    are lists of what the field takes, so that a table with lists in it is none of its values.
    Raises InputError, which begins with ``where``, for what is no axis and no field, or is said twice.
    """
    found: dict[str, Any] = {}
    for name, value in table.items():
        for path, below in _paths(name, value, where, lists=lists):
            _check_finite(path, below, where)
            if path in found:
                raise InputError(f"{where}: {path}: is said twice, as a dotted key and in a table")
            found[path] = below
    return found


def _paths(path: str, value: Any, where: str, *, lists: bool) -> Iterator[tuple[str, Any]]:
    if path in OWN:
        yield path, value
        return
    check_field(path, where)
    node = toml_tables.type_at(path, Scenario)
    if not isinstance(value, dict) or _is_value(value, node, lists=lists):
        if isinstance(node, inspect.StructType):
            raise InputError(
                f"{where}: {path}: is a table; name the keys in it, such as {_first(path, node)}"
            )
        yield path, value
        return
    for name, below in value.items():
        yield from _paths(f"{path}.{name}", below, where, lists=lists)


def _check_finite(path: str, value: Any, where: str) -> None:
    """TOML knows ``nan`` and ``inf``; JSON, in which cells are kept, does not."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, float) and not math.isfinite(each):
            raise InputError(f"{where}: {path}: expected a finite number, got {each}")


def _first(path: str, node: inspect.StructType) -> str:
    return f"{path}.{node.fields[0].name}"


def check_field(path: str, where: str) -> None:
    """Raises InputError where no scenario has this key, or it shapes no measurement."""
    if path in NO_AXIS:
        raise InputError(f"{where}: {path}: {NO_AXIS[path]}; leave it out")
    first = path.partition(".")[0]
    if first not in Scenario.__struct_fields__:
        close = nearest(first, OWN)
        if "did you mean" in close:
            raise InputError(f"{where}: {path}: unknown key {first!r}{close}")
    scenario.check_path(path, where)


def _is_value(table: dict[str, Any], node: inspect.Type, *, lists: bool) -> bool:
    """Whether the table is all that a value of this type needs: a section, or a table of one's own keys,
    never is."""
    struct = toml_tables.fields_of(node)
    if struct is None:
        return not isinstance(node, inspect.DictType)
    if isinstance(node, inspect.StructType) or (lists and any(isinstance(v, list) for v in table.values())):
        return False
    return all(field.name in table for field in struct.fields if field.required)


def spelled(path: str, value: Any, where: str) -> Any:
    """The value of an axis as it is compared: times in seconds, models and GPUs by what is meant by them.
    Raises InputError for a unit, a GPU or a kind of weights that there is none of."""
    if path == "gpu":
        return gpu_key(value, where)
    if path == "model":
        return model_key(_text(path, value, where))
    if path in OWN:
        return _text(path, value, where)
    return toml_tables.spelled(copy.deepcopy(value), path, Source(where, Scenario))


def _text(path: str, value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {path}: expected text, got {value!r}")
    if path == "weights" and value not in models.WEIGHTS:
        raise InputError(f"{where}: {path}: no such kind {value!r}{nearest(value, models.WEIGHTS)}")
    return value


def gpu_key(value: Any, where: str) -> str:
    """The kinds of the catalog that a GPU's name may mean, in one line; raises InputError for none."""
    name = _text("gpu", value, where)
    meant = catalog.find_gpus(name)
    if not meant:
        raise InputError(
            f"{where}: gpu: unknown GPU {name!r}{catalog.nearest_gpus(name)}; all of them: profile list gpus"
        )
    return " / ".join(spec.gpu for spec in meant)


def model_key(name: str) -> str:
    """A published model by its id on the Hub, however it is written (``qwen3-8b``); another as it is."""
    return models.hub_id(name) or name


def equal(one: Any, other: Any) -> bool:
    """``1`` and ``1.0`` are, ``1`` and ``true`` are not."""
    return bool(key(one) == key(other))


def key(value: Any) -> Any:
    """Hashable, and the same for values that are :func:`equal`."""
    if isinstance(value, dict):
        return "table", frozenset((name, key(each)) for name, each in value.items())
    if isinstance(value, list | tuple):
        return "list", tuple(key(each) for each in value)
    return isinstance(value, bool), value


def words(values: Mapping[str, Any]) -> str:
    """``model=tiny-moe, load.concurrency=8``"""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def in_a_name(value: Any) -> str:
    """A value in a few letters that no other of its axis has: ``64``, ``poisson``; of what is longer, or
    no word, the beginning and a hash."""
    text = value if isinstance(value, str) else msgspec.json.encode(value, order="sorted").decode()
    if re.fullmatch(r"[\w.]{1,24}", text):
        return text
    short = re.sub(r"[^\w.]+", "-", text.rpartition("/")[2])[:16].strip("-.")
    return f"{short}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def check_name(name: str, label: str) -> None:
    """It names the sweep's record."""
    if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise InputError(
            f"{label}: name: {name!r} goes into file names: use letters, digits, '.', '_' and '-'"
        )


# ------------------------------------------------------------------------------- files that are named


def beside(file: File, folder: Path) -> File:
    """Traces, scenarios, price sheets and local models that are written relative to ``folder``, as paths from
    anywhere."""

    def fields(table: Mapping[str, Any]) -> dict[str, Any]:
        return {path: _beside(path, value, folder) for path, value in table.items()}

    return msgspec.structs.replace(
        file,
        axes=fields(file.axes),
        set=fields(file.set),
        scenario=_beside("scenario", file.scenario, folder),
        price=_beside("price", file.price, folder),
        exclude=tuple(fields(each) for each in file.exclude),
        when=tuple(When(cells=fields(each.cells), set=fields(each.set)) for each in file.when),
    )


def _beside(path: str, value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_beside(path, each, folder) for each in value]
    if not isinstance(value, str):
        return value
    if path == "model":
        return models.beside(value, folder)
    if path == "load.trace":
        return str(folder / Path(os.path.expanduser(value)))
    named = path == "price" or (path == "scenario" and value not in scenario.names())
    return str(folder / value) if named and os.path.isfile(folder / value) else value
