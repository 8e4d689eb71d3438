"""TOML → ``Scenario``: the one entrance for everything a user writes about *what to measure*.

A scenario comes from a built-in name or a file, plus ``--set path=value`` overrides.  Unknown keys,
wrong types, wrong units and combinations that cannot be measured end in one line that names the file
(or ``--set``), the key, what was expected and what was found.
"""

from __future__ import annotations

import hashlib
import math
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from profiler import workload
from profiler.errors import InputError, nearest
from profiler.scenario_checks import OF_MODE, contradictions
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
        source.overridden.append(_override(tree, override, source.overridden))
    _normalise(tree, _TREE, "", source)
    try:
        scenario = msgspec.convert(tree, Scenario)
    except msgspec.ValidationError as error:
        raise InputError(_explain(str(error), tree, source)) from None
    scenario = _with_absolute_trace(
        scenario, Path.cwd() if source.of("load.trace") == "--set" else path.parent
    )
    for key, trouble in contradictions(scenario):
        raise InputError(f"{source.of(key)}: {key}: {trouble}")
    return scenario


def digest(scenario: Scenario) -> str:
    """SHA-256 (64 hex digits; ``[:8]`` in names) of everything that shapes the measurement.

    Scenarios that differ only in name, description, key order or spelling (``512`` for
    ``{mean = 512, spread = 0}``) have the same digest; of a trace it is the content that counts.
    """
    work, load_ = scenario.workload, scenario.load
    exact = msgspec.structs.replace(
        work, input_tokens=_length(work.input_tokens), output_tokens=_length(work.output_tokens)
    )
    if load_.trace is not None:
        load_ = msgspec.structs.replace(load_, trace=workload.load_trace(load_.trace, load_).digest)
    plain = msgspec.structs.replace(scenario, name="", about="", workload=exact, load=load_)
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()


def points(scenario: Scenario) -> tuple[LoadPoint, ...]:
    """The load axis in the order it is measured: one point a concurrency or rate; one a batch, a replay or
    a series of stages.  None where a search is to choose them."""
    load_ = scenario.load
    if scenario.search is not None:
        return ()
    if load_.mode == "closed":
        return tuple(LoadPoint(mode="closed", concurrency=size) for size in load_.concurrency)
    if load_.mode == "batch":
        return (LoadPoint(mode="batch", concurrency=load_.requests or 1),)
    rates = load_.requests_per_s
    if load_.mode == "replay" or load_.stages:
        rates = (workload.mean_rate(load_),)
    return tuple(LoadPoint(mode=load_.mode, requests_per_s=rate) for rate in rates)


def _length(length: int | Length | None) -> Length | None:
    return Length(mean=length) if isinstance(length, int) else length


def _with_absolute_trace(scenario: Scenario, base: Path) -> Scenario:
    """A relative trace is beside the file that names it; one of ``--set``, where the user is."""
    load_ = scenario.load
    if load_.trace is None:
        return scenario
    trace = str((base / Path(load_.trace).expanduser()).absolute())
    return msgspec.structs.replace(scenario, load=msgspec.structs.replace(load_, trace=trace))


# ------------------------------------------------------------------------------------------ reading


class _Source:
    """Where a key's value came from, for messages: the file, or ``--set`` for overridden keys."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.overridden: list[str] = []

    def of(self, key: str) -> str:
        hit = any(key == path or key.startswith((f"{path}.", f"{path}[")) for path in self.overridden)
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


def _override(tree: dict[str, Any], override: str, before: Sequence[str]) -> str:
    """Put one ``path=value`` into ``tree`` and return its path; what the file says instead of it goes, what
    the overrides ``before`` say stays."""
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
    for section, name in _displaced(path, table[keys[-1]]):
        if f"{section}.{name}" not in before and isinstance(tree.get(section), dict):
            tree[section].pop(name, None)
    return path


def _displaced(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """What cannot stand beside a new value: keys of another mode, other ways to give rates or lengths."""
    lengths = [("workload", name) for name in ("input_tokens", "output_tokens")]
    if path == "load.mode":
        yield from (("load", name) for name, modes in OF_MODE.items() if value not in modes)
        yield from [*lengths, ("workload", "mix")] if value == "replay" else []
    elif path == "workload.mix":
        yield from lengths
    elif path in ("load.stages", "load.requests_per_s"):
        yield "load", "requests_per_s" if path == "load.stages" else "stages"


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
    from difflib import get_close_matches

    tail = get_close_matches(path.rsplit(".", 1)[-1], tails, n=1, cutoff=0.6)
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
    """In place, where the schema says so: ``"30s"`` → 30.0, ``"1%"`` → 0.01, one value → a list of one."""
    struct = _struct(node)
    for field in struct.fields if struct else ():
        if field.name in table:
            key = f"{prefix}{field.name}"
            table[field.name] = _normal(table[field.name], field.type, key, source)


def _normal(value: Any, node: inspect.Type, key: str, source: _Source) -> Any:
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
    table: dict[str, Any], node: inspect.DictType, key: str, source: _Source
) -> dict[str, Any]:
    """A table whose keys are the user's own."""
    if isinstance(node.value_type, inspect.StrType):
        return {name: v if isinstance(v, dict | list) else _text(v) for name, v in table.items()}
    if isinstance(node.value_type, inspect.FloatType):
        return {name: _limit(v, node.value_type, f"{key}.{name}", source) for name, v in table.items()}
    return table


def _limit(value: Any, node: inspect.FloatType, key: str, source: _Source) -> Any:
    """msgspec does not say which key of a table is wrong; so it is checked here."""
    value = _normal(value, node, key, source)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= (node.gt or 0):
        raise InputError(f"{source.of(key)}: {key}: expected {_describe(node, key)}, got {_show(value)}")
    return value


def _is_time(key: str) -> bool:
    return key.endswith("_s") and not key.endswith("_per_s")


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


def _explain(message: str, tree: dict[str, Any], source: _Source) -> str:
    """msgspec's validation error in the user's words: file, key, expectation, what was found."""
    what, _, at = message.partition(" - at `")
    key = re.sub(r"^\$\.?|`$|\[\.\.\.\]", "", at)
    field = re.search(r"field `([^`]+)`", what)
    if field and "unknown" in what:
        full = f"{key}.{field[1]}".lstrip(".")
        struct = _struct(_type_at(key))
        hint = nearest(field[1], [f.name for f in struct.fields] if struct else [])
        return f"{source.of(full)}: unknown key {full}{hint}"
    if field and "missing" in what:
        full = f"{key}.{field[1]}".lstrip(".")
        return f"{source.of(full)}: {full} is missing: expected {_describe(_type_at(full), full)}"
    key = re.sub(r"\[\d+\]$", "", key)  # of a list of numbers, the list
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
    for part in re.findall(r"[^.\[\]]+", key):
        struct = _struct(node)
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
    struct = _struct(node)
    plain = f"a table with {', '.join(field.name for field in struct.fields)}" if struct else "a table"
    plain = "a table of text values" if _is_text_table(node) else plain
    return "text" if isinstance(node, inspect.StrType) else plain


def _bounds(node: inspect.IntType | inspect.FloatType) -> str:
    if node.ge is not None and node.le is not None:
        return f" from {node.ge:g} to {node.le:g}"
    return f" ≥ {node.ge:g}" if node.ge is not None else f" > {node.gt:g}" if node.gt is not None else ""
