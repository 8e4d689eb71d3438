"""Which lines are wanted and in which order: ``--where`` and ``--sort``."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from profiler.comparison.columns import COLUMNS
from profiler.comparison.lines import Line
from profiler.errors import InputError, nearest

NOTHING = "n/a"
_FORM = re.compile(r"\s*(\w+)\s*(!=|<=|>=|=|~|<|>)(.*)", re.DOTALL)
_ORDERS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TRUTH = {"true": True, "yes": True, "false": False, "no": False}


class Condition(NamedTuple):
    """What a line must be: its ``column`` stands in the relation ``sign`` to ``text``, as ``option`` said."""

    option: str
    column: str
    sign: str
    text: str

    def holds(self, line: Line) -> bool:
        """What is not there equals ``n/a`` and is in no other relation.  Raises InputError where words are
        put in order, or a figure is compared with a word."""
        value = line.value(self.column)
        if self.sign in ("=", "!="):
            return self._is(value) == (self.sign == "=")
        if value is None:
            return False
        if self.sign == "~":
            return self.text.lower() in str(value).lower()
        if not isinstance(value, int | float):
            raise InputError(f"{self.option}: {self.column} holds words: =, != or ~ (contains) can be asked")
        return _ORDERS[self.sign](value, self._number())

    def _is(self, value: Any) -> bool:
        if value is None or self.text == NOTHING:
            return value is None and self.text == NOTHING
        if isinstance(value, bool):
            return _TRUTH.get(self.text.lower()) is value
        if isinstance(value, int | float):
            return value == self._number()
        return str(value).lower() == self.text.lower()

    def _number(self) -> float:
        try:
            return float(self.text)
        except ValueError:
            raise InputError(f"{self.option}: {self.column} is a number, {self.text!r} is none") from None


def condition(text: str, option: str = "--where") -> Condition:
    """``model~Qwen``, ``concurrency>=8``, ``status!=failed``.  Raises InputError."""
    form = _FORM.fullmatch(text)
    if form is None:
        raise InputError(f"{option} {text}: expected COLUMN=VALUE, or !=, ~ (contains), <, <=, >, >= for =")
    name, sign, value = form.groups()
    found = Condition(f"{option} {text}", column(name, option), sign, value.strip())
    if sign in _ORDERS:
        found._number()
    return found


def column(name: str, option: str, columns: Sequence[str] = COLUMNS) -> str:
    """A column's name as written, or InputError with the nearest one."""
    if name not in columns:
        raise InputError(f"{option}: no column {name!r}{nearest(name, columns)}")
    return name


def chosen(lines: Iterable[Line], where: Sequence[str]) -> list[Line]:
    """The lines for which every condition holds; raises InputError where there is none."""
    conditions = [condition(text) for text in where]
    found = [line for line in lines if all(each.holds(line) for each in conditions)]
    if conditions and not found:
        raise InputError(f"no row is left by {' and '.join(each.option for each in conditions)}")
    return found


def sort(lines: Iterable[Line], by: str, columns: Sequence[str] = COLUMNS) -> list[Line]:
    """Ascending, or descending with ``-`` before the name; what is not known comes last either way."""
    name = column(by.removeprefix("-"), "--sort", columns)
    known: list[tuple[Any, Line]] = []
    unknown: list[tuple[Any, Line]] = []
    for line in lines:
        value = line.value(name)
        (unknown if value is None else known).append((value, line))
    known.sort(key=lambda each: each[0], reverse=by.startswith("-"))
    return [line for _, line in (*known, *unknown)]
