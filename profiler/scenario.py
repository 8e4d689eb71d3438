"""TOML → ``Scenario``: the one entrance for everything a user writes about *what to measure*.

A scenario comes from a built-in name or a file, plus ``--set path=value`` overrides.  Unknown keys,
wrong types, wrong units and combinations that cannot be measured end in one line that names the file
(or ``--set``), the key, what was expected and what was found.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from profiler.errors import InputError, nearest
from profiler.schema import LoadPoint
from profiler.settings import Length, Scenario

SECONDS_PER_UNIT = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_TREE = inspect.type_info(Scenario)

# ------------------------------------------------------------------------------------------- public


def names() -> dict[str, Path]:
    """Built-in scenarios, name → file: ``profiler/scenarios`` in a wheel, ``scenarios`` in a checkout."""
    package = Path(__file__).resolve().parent
    folder = next((f for f in (package / "scenarios", package.parent / "scenarios") if f.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.toml"))} if folder else {}


def load(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Scenario:
    """The scenario called ``name_or_path`` (built-in name or TOML file), ``overrides`` applied in order.

    An override reads ``load.concurrency=1,8,64``: a dotted path, then a TOML value, a bare word, or a
    comma list.  Raises InputError.
    """
    path, label = _locate(str(name_or_path))
    tree = _read(path, label)
    tree.setdefault("name", path.stem)
    tree.setdefault("about", "")
    source = _Source(label)
    for override in overrides:
        source.overridden.append(_override(tree, override))
    _normalise(tree, _TREE, "", source)
    try:
        scenario = msgspec.convert(tree, Scenario)
    except msgspec.ValidationError as error:
        raise InputError(_explain(str(error), tree, source)) from None
    for key, trouble in _contradictions(scenario):
        raise InputError(f"{source.of(key)}: {key}: {trouble}")
    return scenario


def digest(scenario: Scenario) -> str:
    """SHA-256 (64 hex digits; ``[:8]`` in names) of everything that shapes the measurement.

    Scenarios that differ only in name, description, key order or spelling (``512`` for
    ``{mean = 512, spread = 0}``) have the same digest.
    """
    work = scenario.workload
    exact = msgspec.structs.replace(
        work, input_tokens=_length(work.input_tokens), output_tokens=_length(work.output_tokens)
    )
    plain = msgspec.structs.replace(scenario, name="", about="", workload=exact)
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()


def points(scenario: Scenario) -> tuple[LoadPoint, ...]:
    """The load axis in the order it is measured: one point a concurrency, or one batch of all requests."""
    load_ = scenario.load
    sizes = (load_.requests or 1,) if load_.mode == "batch" else load_.concurrency
    return tuple(LoadPoint(mode=load_.mode, concurrency=size) for size in sizes)


def longest(length: int | Length) -> int:
    """The most tokens a drawn length can have: ⌈mean · (1 + spread)⌉."""
    exact = _length(length)
    return math.ceil(exact.mean * (1 + exact.spread))


def shortest(length: int | Length) -> int:
    """The fewest tokens a drawn length can have: ⌊mean · (1 − spread)⌋, at least 1."""
    exact = _length(length)
    return max(1, math.floor(exact.mean * (1 - exact.spread)))


def _length(length: int | Length) -> Length:
    return length if isinstance(length, Length) else Length(mean=length)


# ------------------------------------------------------------------------------------------ reading


class _Source:
    """Where a key's value came from, for messages: the file, or ``--set`` for overridden keys."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.overridden: list[str] = []

    def of(self, key: str) -> str:
        hit = any(key == path or key.startswith(f"{path}.") for path in self.overridden)
        return "--set" if hit else self.label


def _locate(name: str) -> tuple[Path, str]:
    known = names()
    if name in known:
        return known[name], f"scenarios/{name}.toml"
    path = Path(name)
    if path.is_file():
        return path, name
    if path.suffix == ".toml" or len(path.parts) > 1:
        reason = "is a folder, not a TOML file" if path.is_dir() else "no such file"
        raise InputError(f"scenario {name}: {reason}; built-in scenarios: {', '.join(known)}")
    raise InputError(
        f"unknown scenario {name!r}{nearest(name, known)}; a file of your own works too: ./{name}.toml"
    )


def _read(path: Path, label: str) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{label}: not UTF-8 text (byte {error.start}); TOML files must be UTF-8") from None
    except OSError as error:
        raise InputError(f"{label}: cannot be read: {error.strerror}") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        lines = text.count("\n") + 1
        where = str(error).replace("at end of document", f"at line {lines}, the end")
        raise InputError(f"{label}: not valid TOML: {where}") from None


# ---------------------------------------------------------------------------------------- overrides


def _override(tree: dict[str, Any], override: str) -> str:
    """Put one ``path=value`` into ``tree`` and return its path."""
    path, equals, text = (part.strip() for part in override.partition("="))
    if not equals or not path:
        raise InputError(f"--set {override}: expected key=value, for example --set load.concurrency=1,8,64")
    keys = path.split(".")
    _check_path(keys)
    table = tree
    for key in keys[:-1]:
        below = table.get(key)
        if key in ("input_tokens", "output_tokens") and isinstance(below, int):
            below = {"mean": below}  # workload.input_tokens.spread=0.5 on an exact length
        table[key] = below if isinstance(below, dict) else {}
        table = table[key]
    table[keys[-1]] = _value(text)
    if path == "load.mode" and table["mode"] == "closed":
        table.pop("requests", None)  # a batch scenario turned closed keeps no batch size
    return path


def _check_path(keys: list[str]) -> None:
    node: inspect.Type = _TREE
    for depth, key in enumerate(keys):
        struct = _struct(node)
        if isinstance(node, inspect.DictType):
            return
        prefix = ".".join(keys[:depth])
        if struct is None:
            raise InputError(f"--set {'.'.join(keys)}: {prefix} is a single value, it has no key {key!r}")
        fields = {field.name: field.type for field in struct.fields}
        if key not in fields:
            hint = _nearest_path(".".join(keys)) if depth == 0 else nearest(key, fields)
            raise InputError(
                f"--set {'.'.join(keys)}: unknown key {key!r}{f' in {prefix}' if prefix else ''}{hint}"
            )
        node = fields[key]


def _nearest_path(path: str) -> str:
    """For a first key that is no section: the nearest full path (``concurrency`` → ``load.concurrency``)."""
    known = dict(_paths(_TREE))
    tails = {full.rsplit(".", 1)[-1]: full for full in known}
    tail = difflib.get_close_matches(path.rsplit(".", 1)[-1], tails, n=1, cutoff=0.6)
    return nearest(tails[tail[0]], [tails[tail[0]]]) if tail else nearest(path, known)


def _paths(node: inspect.Type, prefix: str = "") -> Iterator[tuple[str, inspect.Type]]:
    struct = _struct(node)
    for field in struct.fields if struct else ():
        yield f"{prefix}{field.name}", field.type
        yield from _paths(field.type, f"{prefix}{field.name}.")


def _value(text: str) -> Any:
    """A TOML value, else a comma list of values, else the text itself."""
    try:
        parsed = tomllib.loads(f"x = {text}")
        if set(parsed) == {"x"}:
            return parsed["x"]
    except tomllib.TOMLDecodeError:
        pass
    if "," in text:
        return [_value(part.strip()) for part in text.split(",") if part.strip()]
    return text


# -------------------------------------------------------------------------------------- normalising


def _normalise(table: dict[str, Any], node: inspect.Type, prefix: str, source: _Source) -> None:
    """In place, where the schema says so: ``"30s"`` → 30.0, a single value → a list of one."""
    struct = _struct(node)
    for field in struct.fields if struct else ():
        if field.name not in table:
            continue
        key, value = f"{prefix}{field.name}", table[field.name]
        if isinstance(value, dict) and not isinstance(field.type, inspect.DictType):
            _normalise(value, field.type, f"{key}.", source)
        elif field.name.endswith("_s") and isinstance(value, str):
            table[field.name] = _seconds(value, f"{source.of(key)}: {key}")
        elif isinstance(field.type, inspect.VarTupleType) and not isinstance(value, list):
            table[field.name] = [value]
        elif _is_text_table(field.type) and isinstance(value, dict):
            table[field.name] = {
                name: v if isinstance(v, dict | list) else _text(v) for name, v in value.items()
            }
        elif isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{source.of(key)}: {key}: expected a finite number, got {value}")


def _seconds(text: str, where: str) -> float:
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


def _explain(message: str, tree: dict[str, Any], source: _Source) -> str:
    """msgspec's validation error in the user's words: file, key, expectation, what was found."""
    what, _, at = message.partition(" - at `")
    key = re.sub(r"^\$\.?|\[[^\]]*\]|`$", "", at)
    field = re.search(r"field `([^`]+)`", what)
    if field and "unknown" in what:
        full = f"{key}.{field[1]}".lstrip(".")
        struct = _struct(_type_at(key))
        hint = nearest(field[1], [f.name for f in struct.fields] if struct else [])
        return f"{source.of(full)}: unknown key {full}{hint}"
    if field and "missing" in what:
        full = f"{key}.{field[1]}".lstrip(".")
        return f"{source.of(full)}: {full} is missing: expected {_describe(_type_at(full), full)}"
    found = _value_at(tree, key)
    return f"{source.of(key)}: {key}: expected {_describe(_type_at(key), key)}, got {_show(found)}"


def _show(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return _text(value) if isinstance(value, bool) else repr(value)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_text_table(node: inspect.Type) -> bool:
    return isinstance(node, inspect.DictType) and isinstance(node.value_type, inspect.StrType)


def _struct(node: inspect.Type) -> inspect.StructType | None:
    members = node.types if isinstance(node, inspect.UnionType) else (node,)
    return next((member for member in members if isinstance(member, inspect.StructType)), None)


def _type_at(key: str) -> inspect.Type:
    node: inspect.Type = _TREE
    for part in key.split(".") if key else ():
        struct = _struct(node)
        if struct is None:
            return node
        node = next((field.type for field in struct.fields if field.name == part), node)
    return node


def _value_at(tree: Any, key: str) -> Any:
    for part in key.split(".") if key else ():
        tree = tree.get(part) if isinstance(tree, dict) else tree
    return tree


def _describe(node: inspect.Type, key: str = "") -> str:
    if isinstance(node, inspect.UnionType):
        members = [member for member in node.types if not isinstance(member, inspect.NoneType)]
        return " or ".join(_describe(member, key) for member in members)
    if isinstance(node, inspect.VarTupleType):
        return f"a list of {_describe(node.item_type).removeprefix('a ').replace('number', 'numbers', 1)}"
    if isinstance(node, inspect.LiteralType):
        return f"one of {', '.join(repr(value) for value in node.values)}"
    if isinstance(node, inspect.IntType | inspect.FloatType):
        noun = "a whole number" if isinstance(node, inspect.IntType) else "a number"
        return f"{'seconds, ' if key.endswith('_s') else ''}{noun}{_bounds(node)}"
    struct = _struct(node)
    plain = f"a table with {', '.join(field.name for field in struct.fields)}" if struct else "a table"
    plain = "a table of text values" if _is_text_table(node) else plain
    return "text" if isinstance(node, inspect.StrType) else plain


def _bounds(node: inspect.IntType | inspect.FloatType) -> str:
    if node.ge is not None and node.le is not None:
        return f" from {node.ge:g} to {node.le:g}"
    return f" ≥ {node.ge:g}" if node.ge is not None else f" > {node.gt:g}" if node.gt is not None else ""


# ------------------------------------------------------------------------------ what cannot be true


def _contradictions(scenario: Scenario) -> Iterator[tuple[str, str]]:
    """(key, what is wrong and what to do) for settings that are valid one by one but not together."""
    work, load_, measure = scenario.workload, scenario.load, scenario.measure
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", scenario.name):
        yield "name", f"{scenario.name!r} goes into folder names: use letters, digits, '.', '_' and '-'"
    if load_.mode == "batch" and load_.requests is None:
        yield "load.requests", "missing: mode 'batch' needs to know how many, for example load.requests=256"
    if load_.mode == "closed" and load_.requests is not None:
        yield (
            "load.requests",
            "only mode 'batch' has it; a closed loop ends by measure.window_s and min_requests",
        )
    if len(set(load_.concurrency)) < len(load_.concurrency):
        yield "load.concurrency", f"lists a value twice: {list(load_.concurrency)}"
    if measure.window_s > measure.max_window_s:
        yield (
            "measure.window_s",
            f"{measure.window_s:g} s is longer than measure.max_window_s ({measure.max_window_s:g} s)",
        )
    if work.shared_prefix_tokens >= shortest(work.input_tokens):
        yield (
            "workload.shared_prefix_tokens",
            f"{work.shared_prefix_tokens} leaves nothing of its own to the shortest prompt "
            f"({shortest(work.input_tokens)} tokens); make it smaller",
        )
    longest_ = longest(work.input_tokens) + longest(work.output_tokens)
    if scenario.engine.max_model_len is not None and longest_ > scenario.engine.max_model_len:
        yield (
            "engine.max_model_len",
            f"{scenario.engine.max_model_len} is less than the longest prompt + answer ({longest_} tokens)",
        )
