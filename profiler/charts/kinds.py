"""The families of charts by name: what ``profile plot`` can draw, and what a report is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from msgspec import Struct

from profiler.charts.nouns import Absent, Chart
from profiler.cost.terms import Terms
from profiler.store import RunResult


class Asked(Struct, frozen=True, kw_only=True):
    """What a chart may depend on beside the runs.  ``baseline``: the model that others are put over; None:
    the chart's own choice.  ``score``: a benchmark, for charts of quality."""

    terms: Terms = Terms()
    baseline: str | None = None
    score: str | None = None


Drawn = Sequence[Chart | Absent]
Family = Callable[[Sequence[RunResult], Asked], Drawn]


def _module(name: str) -> Any:
    """Imported when it is drawn: a family needs its half of the reading side."""
    return import_module(f"profiler.charts.{name}")


def _of_each(name: str) -> Family:
    """A family of single runs."""
    return lambda runs, _: [chart for run in runs for chart in _module(name).of_run(run)]


def _of_all(name: str) -> Family:
    """A family of runs beside each other."""
    return lambda runs, _: _module(name).of_runs(runs)


def _on_terms(name: str) -> Family:
    """A family whose charts depend on what is asked."""
    return lambda runs, asked: _module(name).of_runs(runs, asked)


# In the order of a page; the charts of a family come the most telling one first.
KINDS: dict[str, Family] = {
    "advantage": _on_terms("advantage"),
    "crossover": _on_terms("crossover"),
    "latency": _of_all("latency"),
    "distributions": _of_each("distributions"),
    "power": _of_each("timeline"),
    "memory": _of_all("memory"),
    "roofline": _of_each("roofline"),
    "routing": _of_each("routing"),
    "frontier": _on_terms("fronts"),
    "quality": _on_terms("quality"),
    "split": lambda runs, asked: _module("split").of_runs(runs, asked.terms),
}
