"""Which cells a table of axes and values means (``exclude``, ``when``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from profiler.errors import InputError, nearest
from profiler.sweep import axes

SPLIT = ("load.concurrency", "load.requests_per_s")  # axes that a scenario may bring along


class Axis(NamedTuple):
    """An axis, and its values ``spelled`` as they are compared."""

    path: str
    values: tuple[Any, ...]
    spelled: tuple[Any, ...]

    @classmethod
    def of(cls, path: str, value: Any, where: str) -> Axis:
        """One value or a list of them.  Raises InputError where there is none, or one twice."""
        values = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not values:
            raise InputError(f"{where}: {path}: has no values; give it one, or leave the axis out")
        spelled = tuple(axes.spelled(path, each, where) for each in values)
        seen: dict[Any, Any] = {}
        for written, each in zip(values, spelled, strict=True):
            key = axes.key(each)
            if key in seen:
                twice = f"{seen[key]!r} and {written!r} are the same value"
                raise InputError(f"{where}: {path}: {twice}; name it once")
            seen[key] = written
        return cls(path, values, spelled)


class Selector(NamedTuple):
    """Cells that have one of the values of each of these axes."""

    wanted: dict[str, list[Any]]

    @classmethod
    def of(
        cls, table: Mapping[str, Any], lists: Sequence[Axis], where: str, *, split: bool = False
    ) -> Selector:
        """``split``: load points that a scenario brings along may be named.  Raises InputError for what no
        cell can have."""
        if not table:
            raise InputError(f"{where}: names no axis; it would take every cell")
        known = [axis.path for axis in lists]
        for path in table:
            if path not in known and not (split and path in SPLIT):
                raise InputError(f"{where}: {path}: is no axis of this sweep{nearest(path, set(known))}")
        return cls({path: _options(path, value, lists, where) for path, value in table.items()})

    def takes(self, spelled: Mapping[str, Any]) -> bool:
        """Whether a cell with these values is meant."""
        return all(
            path in spelled and any(axes.equal(spelled[path], option) for option in options)
            for path, options in self.wanted.items()
        )


def _options(path: str, value: Any, lists: Sequence[Axis], where: str) -> list[Any]:
    """The values meant; a list is one value where the axis has it as such."""
    known = [each for axis in lists if axis.path == path for each in axis.spelled]
    whole = axes.spelled(path, value, where) if not isinstance(value, list) or path not in axes.OWN else value
    if any(axes.equal(whole, each) for each in known):
        return [whole]
    options = value if isinstance(value, list) else [value]
    found = [axes.spelled(path, each, where) for each in options]
    for option, each in zip(options, found, strict=True):
        if known and not any(axes.equal(each, one) for one in known):
            values = ", ".join(
                dict.fromkeys(str(one) for axis in lists if axis.path == path for one in axis.values)
            )
            raise InputError(f"{where}: {path}: {option!r} is no value of that axis (it has {values})")
    return found
