"""Numbers and names as a reader sees them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from profiler.schema import Estimate, LoadPoint
from profiler.store import RunResult

NA = "n/a"
_CONTROL = re.compile(r"[\x00-\x20\x7f-\xa0\u2028\u2029]+")
# Marks that turn the direction of writing, and with it that of the digits after a name.
_TURNING = re.compile(r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_MOST_LETTERS = 40
_NUMBER = re.compile(r"[±(-]*\d[\d.,]*\w?\W*")  # ``(3.79``, ``±21%★``, ``143k``


def one_line(text: str) -> str:
    """Names are a user's: none breaks a line, commands a terminal or has what follows read backwards."""
    return _CONTROL.sub(" ", _TURNING.sub("", text))


def significant(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits and no exponent: ``1,780``, ``0.0421``."""
    if value is None:
        return NA
    if value == 0:
        return "0"
    from math import floor, log10

    rounded = abs(float(f"{value:.{digits - 1}e}"))  # 0.9996 becomes 1.00, which has one digit more before
    places = max(0, digits - 1 - floor(log10(rounded)))
    return f"{value:,.{places}f}"


def whole_numbers(cells: Iterable[str]) -> int:
    """The width of a column in which none of its numbers is broken: half of 5,741 reads as 5,74."""
    numbers = (word for cell in cells for word in cell.split() if _NUMBER.fullmatch(word))
    return max(map(len, numbers), default=0)


def interval(estimate: Estimate, factor: float = 1.0) -> str:
    """``12.3 (11.8–12.9)``; the figure alone where nothing bounds it."""
    text = significant(estimate.value * factor)
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} ({significant(estimate.low * factor)}–{significant(estimate.high * factor)})"


def load(point: LoadPoint) -> str:
    """``64``, ``12.4/s``."""
    return f"{point.concurrency:,}" if point.requests_per_s is None else f"{point.requests_per_s:.4g}/s"


def slug(text: str) -> str:
    """What may stand in an id: small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def model(run: RunResult) -> str:
    """The name of a run's model."""
    return one_line(run.manifest.model.name)


def short(name: str) -> str:
    """A model's name without whose it is: ``Qwen3-32B`` of ``Qwen/Qwen3-32B``; of a very long one both ends,
    for a figure has to have room beside it."""
    own = one_line(name).rsplit("/", 1)[-1]
    half = _MOST_LETTERS // 2
    return own if len(own) <= _MOST_LETTERS else f"{own[:half]}…{own[-half:]}"
