"""How much of the paid time works: a number, a percentage, or the day's load hour by hour.

Machines that are always on and sized for the busiest hour work mean/peak of the time: a day whose noon is ten
times its night pays at night for what stands idle.  Machines that are started and stopped with the load are
not that; their utilisation is a number that the user gives.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from profiler.errors import InputError

HOURS = 24
EXPECTED = "a share of the paid time in (0, 1], such as 0.4 or 40%, or a CSV of 24 hourly weights"


def read(given: Any, where: str, base: Path) -> tuple[float, tuple[float, ...]]:
    """The utilisation, and the 24 weights it is from (none of a number).

    ``given``: 0.4, ``"40%"`` or the path of a load profile, relative to ``base``; ``where`` begins the
    message of an InputError.
    """
    number = _number(given)
    if number is not None:
        if not 0 < number <= 1:
            raise InputError(f"{where} {given}: expected {EXPECTED}")
        return number, ()
    path = base / Path(os.path.expanduser(str(given)))
    if not os.path.isfile(path):
        raise InputError(f"{where} {given}: no such file; expected {EXPECTED}")
    return of_profile(weights := _from_csv(path), str(given)), weights


def of_profile(weights: Sequence[Any], where: str) -> float:
    """Mean over peak of a day's 24 hourly loads, in any unit.  Raises InputError."""
    if len(weights) != HOURS:
        raise InputError(f"{where}: a load profile has {HOURS} hourly weights, found {len(weights)}")
    for hour, weight in enumerate(weights):
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not 0 <= weight < math.inf:
            raise InputError(f"{where}: hour {hour}: a weight is a number ≥ 0, got {weight!r}")
    if max(weights) == 0:
        raise InputError(f"{where}: all {HOURS} weights are 0: nothing is served")
    return min(1.0, float(sum(weight / max(weights) for weight in weights)) / HOURS)


def _number(given: Any) -> float | None:
    if isinstance(given, int | float) and not isinstance(given, bool):
        return float(given)
    text = str(given).strip()
    percent = re.fullmatch(r"(.+?)\s*%", text)
    try:
        return float(percent[1]) / 100 if percent else float(text)
    except ValueError:
        return None


def _from_csv(path: Path) -> tuple[float, ...]:
    """``hour,weight`` rows in any order, each hour of 0–23 once, or one weight a row from midnight on; a
    header line is skipped."""
    import csv

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, OSError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV that can be read: {error}") from None
    if rows and all(_number(cell) is None for cell in rows[0]):
        rows = rows[1:]
    return _by_hour(rows, path) if rows and len(rows[0]) == 2 else _in_order(rows, path)


def _in_order(rows: list[list[str]], path: Path) -> tuple[float, ...]:
    return tuple(_weight(row, 1, path, place) for place, row in enumerate(rows, 1))


def _by_hour(rows: list[list[str]], path: Path) -> tuple[float, ...]:
    found: dict[float, float] = {}
    for place, row in enumerate(rows, 1):
        weight, hour = _weight(row, 2, path, place), _number(row[0])
        if hour not in range(HOURS) or hour in found:
            raise InputError(f"{path}: row {place}: expected each hour of 0 to 23 once, got {row[0]!r}")
        found[float(hour or 0)] = weight
    return tuple(found[hour] for hour in sorted(found))


def _weight(row: list[str], columns: int, path: Path, place: int) -> float:
    weight = _number(row[-1]) if len(row) == columns else None
    if weight is None:
        raise InputError(f"{path}: row {place}: expected hour,weight or one weight, got {','.join(row)!r}")
    return weight
