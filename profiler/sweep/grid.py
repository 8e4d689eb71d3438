"""A sweep file → its cells: every combination of the axes but those excluded, each with a complete scenario
of one load point."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from profiler import models, scenario, toml_tables
from profiler.errors import InputError, nearest
from profiler.scenario import Setting
from profiler.scenario_checks import OF_MODE
from profiler.settings import Scenario
from profiler.sweep import axes
from profiler.sweep.nouns import Cell, File, Grid, When
from profiler.sweep.select import SPLIT, Axis, Selector
from profiler.toml_tables import Source

MOST_CELLS = 100_000  # beyond that a slip of the pen is likelier than a plan
LOADS = {"closed": "concurrency", "open": "requests_per_s"}  # fields of [load] that list load points, by mode
WINDOWS = ("measure.repeats", "measure.target_ci_frac", "measure.max_seconds")
TABLES = ("axes", "set", "exclude", "when")  # keys of a file that --set does not replace whole

Values = dict[str, Any]


# ------------------------------------------------------------------------------------------- reading


def read(path: Path) -> File:
    """The sweep that is written in a TOML file; files and folders it names are looked for beside it.  Raises
    InputError."""
    label = str(path)
    tree = toml_tables.read(path, label)
    tree.setdefault("name", path.stem)
    file = _flat(toml_tables.convert(tree, File, Source(label, File)), label)
    return axes.beside(file, path.absolute().parent)


def _flat(file: File, label: str) -> File:
    """With dotted keys in all its tables."""
    return msgspec.structs.replace(
        file,
        axes=axes.flat(file.axes, f"{label} [axes]", lists=True),
        set=axes.flat(file.set, f"{label} [set]", lists=False),
        exclude=tuple(
            axes.flat(each, f"{label} exclude[{n}]", lists=True) for n, each in enumerate(file.exclude)
        ),
        when=tuple(
            When(
                cells=axes.flat(each.cells, f"{label} when[{n}].cells", lists=True),
                set=axes.flat(each.set, f"{label} when[{n}].set", lists=False),
            )
            for n, each in enumerate(file.when)
        ),
    )


# ---------------------------------------------------------------------------------------------- cells


def grid(file: File, label: str, overrides: Sequence[str] = ()) -> Grid:
    """All cells of a sweep; messages call its file ``label``.

    An override (``--set``) replaces a key of the file, the values of an axis, or a scenario field of all
    cells.  Raises InputError for what cannot be measured; looks at no machine and no network.
    """
    written = _flat(file, label)
    file, forced = _overridden(written, label, overrides)
    _check_file(file, label)
    lists = [Axis.of(path, values, f"{label} [axes]") for path, values in file.axes.items()]
    _check_axes(file, lists, label, forced)
    known = [Axis.of(path, values, f"{label} [axes]") for path, values in written.axes.items()]
    excluded = [
        Selector.of(table, [*lists, *known], f"{label} exclude[{n}]", split=True)
        for n, table in enumerate(file.exclude)
    ]
    cells, left_out = _cells(_Scenarios(file, label, lists + known, forced), lists, excluded)
    if not cells:
        raise InputError(f"{label}: exclude: leaves out all {left_out} cells; nothing is left to measure")
    _check_unlike(cells, label)
    return Grid(
        name=file.name or "sweep",
        about=file.about,
        label=label,
        axes=_values({axis.path: axis.values for axis in lists}, cells),
        cells=tuple(cells),
        excluded=left_out,
        file=file,
    )


def _cells(
    scenarios: _Scenarios, lists: Sequence[Axis], excluded: Sequence[Selector]
) -> tuple[list[Cell], int]:
    """The cells, and how many were left out."""
    found: list[Cell] = []
    left_out = 0
    for places in itertools.product(*(range(len(axis.values)) for axis in lists)):
        values = {axis.path: axis.values[n] for axis, n in zip(lists, places, strict=True)}
        spelled = {axis.path: axis.spelled[n] for axis, n in zip(lists, places, strict=True)}
        if any(each.takes(spelled) for each in excluded):
            left_out += 1
            continue
        for load, what, digest in scenarios.of(values, spelled):
            brought = {path: [value] for path, value in load.items()}  # spelled as the field: a list
            if any(each.takes(spelled | brought) for each in excluded):
                left_out += 1
            else:
                found.append(_cell(scenarios.file, values | load, spelled, what, digest))
    return found, left_out


def _cell(file: File, values: Values, spelled: Values, what: Scenario, digest: str) -> Cell:
    """``digest``: of the scenario with its one load point."""
    weights = values.get("weights", file.weights)
    shaping = [digest, spelled["model"], weights, spelled.get("gpu")]
    return Cell(
        id=hashlib.sha256(msgspec.json.encode(shaping)).hexdigest()[:16],
        values=values,
        model=values["model"],
        weights=weights,
        gpu=values.get("gpu"),
        scenario=what,
    )


def _values(lists: dict[str, tuple[Any, ...]], cells: Sequence[Cell]) -> dict[str, tuple[Any, ...]]:
    """The axes, and the load points that scenarios brought along."""
    brought = {f"load.{name}" for name in LOADS.values()} - lists.keys()
    for path in sorted(brought):
        found = tuple(dict.fromkeys(cell.values[path] for cell in cells if path in cell.values))
        lists |= {path: found} if found else {}
    return lists


class _Scenarios:
    """The scenarios of cells, each resolved once."""

    def __init__(self, file: File, label: str, lists: Sequence[Axis], forced: Sequence[Setting]) -> None:
        self.file = file
        self._label = label
        self._forced = forced
        self._varied = {axis.path for axis in lists if len(axis.values) > 1}
        self._when = [
            Selector.of(each.cells, lists, f"{label} when[{n}].cells") for n, each in enumerate(file.when)
        ]
        self._known: dict[bytes, list[tuple[Values, Scenario, str]]] = {}
        self._own: dict[str, Values] = {}  # scenarios as they are without the sweep

    def of(self, values: Values, spelled: Values) -> list[tuple[Values, Scenario, str]]:
        """(load point that the scenario itself lists, scenario, its digest) of each cell with these values of
        the axes."""
        name = values.get("scenario", self.file.scenario)
        fields = {path: value for path, value in values.items() if path not in axes.OWN}
        met = [n for n, each in enumerate(self._when) if each.takes(spelled)]
        key = msgspec.json.encode([name, fields, met])
        if key not in self._known:
            told = {"scenario", *fields, *(path for n in met for path in self._when[n].wanted)} & self._varied
            shown = {path: value for path, value in values.items() if path in told}
            self._known[key] = self._resolved(name, fields, met, shown)
        return self._known[key]

    def _resolved(
        self, name: str, fields: Values, met: Sequence[int], shown: Values
    ) -> list[tuple[Values, Scenario, str]]:
        try:
            scenario.locate(name)
        except InputError as error:
            raise InputError(f"{self._label}: scenario: {error}") from None
        of = f" (of the cells with {axes.words(shown)})" if shown else ""
        try:
            whole = scenario.resolve(name, [*self._settings(fields, met), *self._forced])
            _check_is_one(whole, fields, self._label)
            whole = msgspec.structs.replace(whole, name=self._name(name, whole, fields))
            return [(load, each, scenario.digest(each)) for load, each in _by_load(whole)]
        except InputError as error:
            raise InputError(f"{error}{of}") from None

    def _name(self, name: str, whole: Scenario, fields: Values) -> str:
        """``smoke-output_tokens64``: runs go by the name of their scenario, which tells cells apart where no
        column of ``profile compare`` does.  What the scenario has itself is left out, so that names stay as
        they are when an axis is added."""
        if name not in self._own:
            try:
                self._own[name] = msgspec.to_builtins(scenario.resolve(name, []))
            except InputError:  # it is whole only with what the file sets
                self._own[name] = {}
        has = msgspec.to_builtins(whole)
        parts = [whole.name]
        for path in fields:
            value = _at(has, path)
            has_column = path in SPLIT or path.startswith("engine.")
            if not has_column and value != _at(self._own[name], path):
                parts.append(f"{path.rpartition('.')[2]}{axes.in_a_name(value)}")
        return "-".join(parts)

    def _settings(self, fields: Values, met: Sequence[int]) -> list[Setting]:
        """What takes the place of the scenario's own, the later the stronger."""
        found = {path: Setting(path, value, f"{self._label} [set]") for path, value in self.file.set.items()}
        of: dict[str, int] = {}
        for n in met:
            for path, value in self.file.when[n].set.items():
                if path in of and not axes.equal(self.file.when[of[path]].set[path], value):
                    raise InputError(f"{self._label} when[{n}]: {path} is set by when[{of[path]}] too")
                of[path] = n
                found[path] = Setting(path, value, f"{self._label} when[{n}]")
        found |= {path: Setting(path, value, f"{self._label} [axes]") for path, value in fields.items()}
        said = {*found, *(each.path for each in self._forced)}
        once = [] if said & {*WINDOWS} else [Setting("measure.repeats", 1, self._label)]
        if self.file.clients > 1:
            once.append(Setting("load.machines", self.file.clients, f"{self._label}: clients"))
        return [*once, *found.values()]


def _at(tree: Any, path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _by_load(what: Scenario) -> list[tuple[Values, Scenario]]:
    """A scenario of several load points as scenarios of one, and which that is."""
    if len(scenario.points(what)) < 2:
        return [({}, what)]
    name = LOADS[what.load.mode]
    return [
        (
            {f"load.{name}": value},
            msgspec.structs.replace(what, load=msgspec.structs.replace(what.load, **{name: (value,)})),
        )
        for value in getattr(what.load, name)
    ]


# ---------------------------------------------------------------------------------------------- --set


def _overridden(file: File, label: str, overrides: Sequence[str]) -> tuple[File, list[Setting]]:
    """The file as ``--set`` changes it, and what is left for the scenarios."""
    tree: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(file))
    source = Source(label, File)
    forced = []
    for words in overrides:
        setting = scenario.override(words)
        if setting.path in file.axes or setting.path in ("model", "gpu"):
            tree["axes"][setting.path] = setting.value
        elif setting.path in TABLES:
            raise InputError(f"--set {words}: name a key of it, such as load.concurrency")
        elif setting.path in tree:
            tree[setting.path] = setting.value
            source.overridden[setting.path] = setting.label
        else:
            axes.check_field(setting.path, "--set")
            forced.append(setting)
    return toml_tables.convert(tree, File, source), forced


# ---------------------------------------------------------------------------------------------- checks


def _check_file(file: File, label: str) -> None:
    axes.check_name(file.name, label)
    if "model" not in file.axes:
        raise InputError(f'{label} [axes]: model: is missing: which models? model = ["Qwen/Qwen3-8B"]')
    if file.weights not in models.WEIGHTS:
        raise InputError(
            f"{label}: weights: no such kind {file.weights!r}{nearest(file.weights, models.WEIGHTS)}"
        )
    for name, value in (("weights", file.weights), ("scenario", file.scenario)):
        default = next(each.default for each in msgspec.structs.fields(File) if each.name == name)
        if name in file.axes and value != default:
            raise InputError(f"{label}: {name}: is an axis too; leave one of them out")
    for name in file.interleave:
        if name not in file.axes and name != "model":
            raise InputError(
                f"{label}: interleave: {name!r} is no axis of this sweep{nearest(name, file.axes)}"
            )


def _check_axes(file: File, lists: Sequence[Axis], label: str, forced: Sequence[Setting]) -> None:
    said = [(f"{label} [set]", path) for path in file.set]
    said += [(f"{label} when[{n}].set", path) for n, each in enumerate(file.when) for path in each.set]
    said += [(setting.label, setting.path) for setting in forced]
    if file.clients > 1 and "load.machines" in {*file.axes, *(path for _, path in said)}:
        raise InputError(
            f"{label}: clients: is load.machines of all cells, which is said too; drop one of them"
        )
    for where, path in said:
        if path in axes.OWN:
            home = "at the top of the file" if path in ("scenario", "weights") else "in [axes]"
            raise InputError(f"{where}: {path}: is no field of a scenario; it stands {home}")
        for axis in lists:
            if f"{path}.".startswith(f"{axis.path}.") or f"{axis.path}.".startswith(f"{path}."):
                raise InputError(f"{where}: {path}: {axis.path} is an axis; leave one of them out")
    for axis in lists:
        field = axis.path.removeprefix("load.")
        if field in LOADS.values() and any(isinstance(value, list) for value in axis.values):
            raise InputError(f"{label} [axes]: {axis.path}: one load a value, not lists of them")
    cells = math.prod(len(axis.values) for axis in lists)
    if cells > MOST_CELLS:
        raise InputError(
            f"{label} [axes]: {cells:,} cells are more than {MOST_CELLS:,}; drop an axis or values"
        )


def _check_is_one(what: Scenario, fields: Values, label: str) -> None:
    """A cell is one run under a load that its axes tell truly."""
    if not isinstance(what.engine.routing, str) and len(what.engine.routing) != 1:
        raise InputError(f"{label}: engine.routing: one a cell; make it an axis: {list(what.engine.routing)}")
    for path in fields:
        mode = what.load.mode
        if mode not in OF_MODE.get(path.removeprefix("load."), (mode,)):
            raise InputError(
                f"{label} [axes]: {path}: a load of mode {mode!r} has none; exclude these cells, or give "
                "them a sweep file of their own"
            )


def _check_unlike(cells: Sequence[Cell], label: str) -> None:
    seen: dict[str, Cell] = {}
    for cell in cells:
        other = seen.setdefault(cell.id, cell)
        if other is not cell:
            raise InputError(
                f"{label}: two cells are the same measurement: {axes.words(other.values)} and "
                f"{axes.words(cell.values)}; leave one of them out"
            )
