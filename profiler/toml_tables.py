"""TOML files → tables → what a struct holds, with messages in the user's words.

A file is read, brought into the one spelling of its schema (``"30s"`` → 30.0, ``"1%"`` → 0.01, one value → a
list of one) and, where it does not fit, explained in one line: file, key, expectation, what was found.
"""

from __future__ import annotations

import math
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from profiler import secret
from profiler.errors import InputError, nearest

LONGEST_SHOWN = 200
SECONDS_PER_UNIT = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
T = TypeVar("T", bound=msgspec.Struct)


class Source:
    """What is read, for messages: the schema, and where a key's value came from: the file ``label``, or, for
    ``overridden`` keys (path → label), what took its place (``--set``)."""

    def __init__(self, label: str, schema: type[msgspec.Struct]) -> None:
        self.label = label
        self.root = _type_info(schema)
        self.overridden: dict[str, str] = {}

    def of(self, key: str) -> str:
        hits = [path for path in self.overridden if key == path or key.startswith((f"{path}.", f"{path}["))]
        return self.overridden[max(hits, key=len)] if hits else self.label


@cache
def _type_info(schema: type[msgspec.Struct]) -> inspect.Type:
    return inspect.type_info(schema)


def convert(table: dict[str, Any], schema: type[T], source: Source) -> T:
    """``table``, changed in place to the schema's spelling, as what it says.  Raises InputError."""
    _normalise(table, source.root, "", source)
    try:
        return msgspec.convert(table, schema)
    except msgspec.ValidationError as error:
        raise InputError(_explain(str(error), table, source)) from None


def spelled(value: Any, key: str, source: Source) -> Any:
    """One value in its schema's spelling; a table in it is changed in place.  Raises InputError for a time or
    a share that is none; whether the value fits is seen by :func:`convert`."""
    return _normal(value, _type_at(key, source.root), key, source)


def type_at(key: str, schema: type[msgspec.Struct]) -> inspect.Type:
    """What the schema has at a dotted path; of a key in a table of the user's own keys, that table."""
    return _type_at(key, _type_info(schema))


def read(path: Path, label: str) -> dict[str, Any]:
    """The tables of a TOML file that messages call ``label``.  Raises InputError."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{label}: not UTF-8 text (byte {error.start}); TOML files must be UTF-8") from None
    except OSError as error:
        raise InputError(f"{label}: cannot be read: {error.strerror}") from None
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number too long to read, lists too deep
        lines = text.count("\n") + 1
        where = str(error).replace("at end of document", f"at line {lines}, the end")
        raise InputError(f"{label}: not valid TOML: {where}") from None


# -------------------------------------------------------------------------------------- normalising


def _normalise(table: dict[str, Any], node: inspect.Type, prefix: str, source: Source) -> None:
    """In place, where the schema says so: ``"30s"`` → 30.0, ``"1%"`` → 0.01, one value → a list of one."""
    struct = fields_of(node)
    for field in struct.fields if struct else ():
        if field.name in table:
            key = f"{prefix}{field.name}"
            table[field.name] = _normal(table[field.name], field.type, key, source)


def _normal(value: Any, node: inspect.Type, key: str, source: Source) -> Any:
    where = f"{source.of(key)}: {key}"
    if isinstance(node, inspect.VarTupleType):
        items = value if isinstance(value, list) else [value]
        return [_normal(each, node.item_type, f"{key}[{place}]", source) for place, each in enumerate(items)]
    if isinstance(node, inspect.DictType):
        return _normal_entries(value, node, key, source) if isinstance(value, dict) else value
    if isinstance(value, dict):
        _normalise(value, node, f"{key}.", source)
    elif isinstance(value, str) and _is_time(key):
        return seconds(value, where)
    elif isinstance(value, str) and key.endswith("_frac"):
        return _fraction(value, where)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where}: expected a finite number, got {value}")
    return value


def _normal_entries(
    table: dict[str, Any], node: inspect.DictType, key: str, source: Source
) -> dict[str, Any]:
    """A table whose keys are the user's own."""
    if isinstance(node.value_type, inspect.StrType):
        return {name: v if isinstance(v, dict | list) else _text(v) for name, v in table.items()}
    if isinstance(node.value_type, inspect.FloatType):
        return {name: _limit(v, node.value_type, f"{key}.{name}", source) for name, v in table.items()}
    return table


def _limit(value: Any, node: inspect.FloatType, key: str, source: Source) -> Any:
    """msgspec does not say which key of a table is wrong; so it is checked here."""
    value = _normal(value, node, key, source)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= (node.gt or 0):
        raise InputError(f"{source.of(key)}: {key}: expected {_describe(node, key)}, got {_show(value)}")
    return value


def _is_time(key: str) -> bool:
    return key.endswith("_seconds") or (key.endswith("_s") and not key.endswith("_per_s"))


def _fraction(text: str, where: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", text)
    if not match:
        raise InputError(f"{where}: expected a fraction such as 0.01 or '1%', got {text!r}")
    return float(match[1]) / (100 if match[2] else 1)


def seconds(text: str, where: str) -> float:
    """A time as a user writes it, in seconds; raises InputError that begins with ``where``."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-zµ]*)\s*", text)
    if not match:
        raise InputError(
            f"{where}: expected a time in seconds such as 30, '30s', '500ms' or '2min', got {text!r}"
        )
    number, unit = match.groups()
    if (unit or "s") not in SECONDS_PER_UNIT:
        raise InputError(f"{where}: unknown unit {unit!r} in {text!r}; use {', '.join(SECONDS_PER_UNIT)}")
    return float(number) * SECONDS_PER_UNIT[unit or "s"]


# ----------------------------------------------------------------------------------------- messages


def _explain(message: str, tree: dict[str, Any], source: Source) -> str:
    """msgspec's validation error in the user's words: file, key, expectation, what was found."""
    what, _, at = message.partition(" - at `")
    key = re.sub(r"^\$\.?|`$|\[\.\.\.\]", "", at)
    field = re.search(r"field `([^`]+)`", what)
    if field and "unknown" in what:
        full = f"{key}.{field[1]}".lstrip(".")
        struct = fields_of(_type_at(key, source.root))
        hint = nearest(field[1], [f.name for f in struct.fields] if struct else [])
        return f"{source.of(full)}: unknown key {full}{hint}"
    if field and "missing" in what:
        full = f"{key}.{field[1]}".lstrip(".")
        return (
            f"{source.of(full)}: {full} is missing: expected {_describe(_type_at(full, source.root), full)}"
        )
    key = re.sub(r"\[\d+\]$", "", key)  # of a list of numbers, the list
    found = _value_at(tree, key)
    return (
        f"{source.of(key)}: {key}: expected {_describe(_type_at(key, source.root), key)}, got {_show(found)}"
    )


def _show(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    shown = _text(value) if isinstance(value, bool) else secret.without(repr(value))
    return shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}…"


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_text_table(node: inspect.Type) -> bool:
    return isinstance(node, inspect.DictType) and isinstance(node.value_type, inspect.StrType)


def fields_of(node: inspect.Type) -> inspect.StructType | None:
    """The table that a value of this type is, None where it is none."""
    members = node.types if isinstance(node, inspect.UnionType) else (node,)
    return next((member for member in members if isinstance(member, inspect.StructType)), None)


def _type_at(key: str, root: inspect.Type) -> inspect.Type:
    node = root
    for part in re.findall(r"[^.\[\]]+", key):
        struct = fields_of(node)
        if part.isdigit() and isinstance(node, inspect.VarTupleType):
            node = node.item_type
        elif struct is not None:
            node = next((field.type for field in struct.fields if field.name == part), node)
    return node


def _value_at(tree: Any, key: str) -> Any:
    for part in re.findall(r"[^.\[\]]+", key):
        if isinstance(tree, list) and part.isdigit():
            tree = tree[int(part)]
        else:
            tree = tree.get(part) if isinstance(tree, dict) else tree
    return tree


def _describe(node: inspect.Type, key: str = "") -> str:
    if isinstance(node, inspect.UnionType):
        members = [member for member in node.types if not isinstance(member, inspect.NoneType)]
        return " or ".join(_describe(member, key) for member in members)
    if isinstance(node, inspect.VarTupleType):
        one = _describe(node.item_type).removeprefix("a ")
        return "a list of " + re.sub("number|table", r"\g<0>s", one, count=1)
    if isinstance(node, inspect.LiteralType):
        return f"one of {', '.join(repr(value) for value in node.values)}"
    if isinstance(node, inspect.IntType | inspect.FloatType):
        noun = "a whole number" if isinstance(node, inspect.IntType) else "a number"
        return f"{'seconds, ' if _is_time(key) else ''}{noun}{_bounds(node)}"
    if isinstance(node, inspect.BoolType):
        return "true or false"
    struct = fields_of(node)
    plain = f"a table with {', '.join(field.name for field in struct.fields)}" if struct else "a table"
    plain = "a table of text values" if _is_text_table(node) else plain
    return "text" if isinstance(node, inspect.StrType) else plain


def _bounds(node: inspect.IntType | inspect.FloatType) -> str:
    if node.ge is not None and node.le is not None:
        return f" from {node.ge:g} to {node.le:g}"
    return f" ≥ {node.ge:g}" if node.ge is not None else f" > {node.gt:g}" if node.gt is not None else ""
