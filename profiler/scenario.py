"""TOML → ``Scenario``: the one entrance for everything a user writes about *what to measure*.

A scenario comes from a built-in name or a file, plus ``--set path=value`` overrides.  Unknown keys,
wrong types, wrong units and combinations that cannot be measured end in one line that names the file
(or ``--set``), the key, what was expected and what was found.
"""

from __future__ import annotations

import copy
import hashlib
import os
import tomllib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from profiler import toml_tables, workload
from profiler.errors import InputError, nearest
from profiler.scenario_checks import OF_MODE, contradictions
from profiler.schema import LoadPoint
from profiler.settings import Length, Scenario
from profiler.toml_tables import Source, fields_of

ADAPTIVE = ("target_ci_frac", "max_seconds")
_TREE = inspect.type_info(Scenario)

# ------------------------------------------------------------------------------------------- public


def names() -> dict[str, Path]:
    """Built-in scenarios, name → file: ``profiler/scenarios`` in a wheel, ``scenarios`` in a checkout."""
    package = Path(__file__).resolve().parent
    folder = next((f for f in (package / "scenarios", package.parent / "scenarios") if f.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.toml"))} if folder else {}


class Setting(NamedTuple):
    """A value that takes the place of a scenario's own; ``label``: how messages name where it was said."""

    path: str
    value: Any
    label: str = "--set"


def load(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Scenario:
    """The scenario called ``name_or_path`` (built-in name or TOML file), ``overrides`` applied in order.

    An override reads ``load.concurrency=1,8,64``: a dotted path, then a TOML value, a bare word, or a
    comma list.  Raises InputError.
    """
    return resolve(name_or_path, [override(words) for words in overrides])


def resolve(name_or_path: str | Path, settings: Sequence[Setting]) -> Scenario:
    """:func:`load` with values instead of words.  Raises InputError."""
    path, label = locate(str(name_or_path))
    tree = toml_tables.read(path, label)
    tree.setdefault("name", path.stem)
    tree.setdefault("about", "")
    source = Source(label, Scenario)
    for setting in settings:
        _put(tree, setting, source.overridden)
        source.overridden[setting.path] = setting.label
    scenario = toml_tables.convert(tree, Scenario, source)
    scenario = _with_absolute_trace(scenario, path.parent if source.of("load.trace") == label else Path.cwd())
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
    tree = msgspec.to_builtins(plain)
    if not scenario.is_adaptive:  # they say nothing then, and older runs know nothing of them
        for name in ADAPTIVE:
            del tree["measure"][name]
    if load_.machines == 1:  # as of runs that know of no others
        del tree["load"]["machines"]
    return hashlib.sha256(msgspec.json.encode(tree, order="sorted")).hexdigest()


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
    trace = str((base / Path(os.path.expanduser(load_.trace))).absolute())
    return msgspec.structs.replace(scenario, load=msgspec.structs.replace(load_, trace=trace))


# ------------------------------------------------------------------------------------------ reading


def locate(name: str) -> tuple[Path, str]:
    """The file of a scenario, and how messages call it.  Raises InputError."""
    known = names()
    if name in known:
        return known[name], f"scenarios/{name}.toml"
    path = Path(name)
    if os.path.isfile(path):
        return path, name
    if path.suffix == ".toml" or len(path.parts) > 1:
        reason = "is a folder, not a TOML file" if os.path.isdir(path) else "no such file"
        raise InputError(f"scenario {name}: {reason}; built-in scenarios: {', '.join(known)}")
    raise InputError(
        f"unknown scenario {name!r}{nearest(name, known)}; a file of your own works too: ./{name}.toml"
    )


# ---------------------------------------------------------------------------------------- overrides


def override(words: str) -> Setting:
    """``path=value`` as it is written after ``--set``.  Raises InputError for what is none; that the path
    is one of a scenario is checked where it is applied."""
    path, equals, text = (part.strip() for part in words.partition("="))
    if not equals or not path:
        raise InputError(f"--set {words}: expected key=value, for example --set load.concurrency=1,8,64")
    return Setting(path, _value(text))


def _put(tree: dict[str, Any], setting: Setting, before: Collection[str]) -> None:
    """Put one value into ``tree``; what the file says instead of it goes, what the settings ``before`` say
    stays."""
    keys = setting.path.split(".")
    check_path(setting.path, setting.label)
    table = tree
    for key in keys[:-1]:
        below = table.get(key)
        if key in ("input_tokens", "output_tokens") and isinstance(below, int):
            below = {"mean": below}  # workload.input_tokens.spread=0.5 on an exact length
        table[key] = below if isinstance(below, dict) else {}
        table = table[key]
    table[keys[-1]] = copy.deepcopy(setting.value)  # brought into its spelling in place
    for section, name in _displaced(setting.path, setting.value):
        if f"{section}.{name}" not in before and isinstance(tree.get(section), dict):
            tree[section].pop(name, None)


def _displaced(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """What cannot stand beside a new value: keys of another mode, other ways to give rates or lengths."""
    lengths = [("workload", name) for name in ("input_tokens", "output_tokens")]
    if path == "load.mode":
        yield from (("load", name) for name, modes in OF_MODE.items() if value not in modes)
        yield from [*lengths, ("workload", "mix")] if value == "replay" else []
    elif path == "workload.mix":
        yield from lengths
    elif path == "measure.repeats":
        yield from (("measure", name) for name in ADAPTIVE)
    elif path.removeprefix("measure.") in ADAPTIVE:
        yield "measure", "repeats"
    elif path.startswith("search"):
        yield from (("measure", name) for name in ADAPTIVE)
    elif path in ("load.stages", "load.requests_per_s"):
        yield "load", "requests_per_s" if path == "load.stages" else "stages"


def check_path(path: str, label: str) -> None:
    """Raises InputError, which begins with ``label``, where no scenario has such a key."""
    node: inspect.Type = _TREE
    keys = path.split(".")
    for depth, key in enumerate(keys):
        struct = fields_of(node)
        if isinstance(node, inspect.DictType):
            return
        prefix = ".".join(keys[:depth])
        if struct is None:
            raise InputError(f"{label}: {path}: {prefix} is a single value, it has no key {key!r}")
        fields = {field.name: field.type for field in struct.fields}
        if key not in fields:
            hint = _nearest_path(path) if depth == 0 else nearest(key, fields)
            raise InputError(f"{label}: {path}: unknown key {key!r}{f' in {prefix}' if prefix else ''}{hint}")
        node = fields[key]


def _nearest_path(path: str) -> str:
    """For a first key that is no section: the nearest full path (``concurrency`` → ``load.concurrency``)."""
    known = dict(_paths(_TREE))
    tails = {full.rsplit(".", 1)[-1]: full for full in known}
    from difflib import get_close_matches

    tail = get_close_matches(path.rsplit(".", 1)[-1], tails, n=1, cutoff=0.6)
    return nearest(tails[tail[0]], [tails[tail[0]]]) if tail else nearest(path, known)


def _paths(node: inspect.Type, prefix: str = "") -> Iterator[tuple[str, inspect.Type]]:
    struct = fields_of(node)
    for field in struct.fields if struct else ():
        yield f"{prefix}{field.name}", field.type
        yield from _paths(field.type, f"{prefix}{field.name}.")


def _value(text: str) -> Any:
    """A TOML value, else a comma list of values, else the text itself."""
    try:
        parsed = tomllib.loads(f"x = {text}")
        if set(parsed) == {"x"}:
            return parsed["x"]
    except (ValueError, RecursionError):  # no TOML; a number too long, lists too deep
        pass
    if "," in text:
        return [_value(part.strip()) for part in text.split(",") if part.strip()]
    return text
