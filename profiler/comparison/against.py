"""``--baseline``: every figure over that of a baseline at the same load, with the interval of the ratio."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from profiler import stats
from profiler.comparison.choice import condition
from profiler.comparison.columns import AGAINST, RATIOS
from profiler.comparison.lines import Line, Row, same_load
from profiler.errors import InputError, nearest
from profiler.schema import Estimate

# What a baseline has in common with what is put over it, where there is such a one.
NEARNESS = ("model", "gpu", "host", "engine", "routing", "weights", "settings")
OF_RUNS = "runs"
OF_INTERVALS = "the two intervals"
MEANING = {
    OF_RUNS: "Welch's t on the logarithms of run means",
    OF_INTERVALS: "the two figures' intervals in quadrature; a single run's say nothing of the next run",
}


class Base:
    """The baseline of some lines: one line, or the single runs of one kind."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = lines
        runs = sum(line.runs for line in lines)
        self.is_repeated = runs > 1
        self.is_of_one_kind = len({line.found.alike for line in lines}) == 1
        self.name = f"{lines[0].found.model}, {runs} run{'s' if runs > 1 else ''}"
        self.values = cache(self._values)
        self.estimate = cache(self._estimate)

    def _values(self, name: str) -> list[float]:
        """The figure of each run; none unless all have it."""
        each = [line.values(name) for line in self.lines]
        return [value for values in each for value in values] if all(each) else []

    def _estimate(self, name: str) -> Estimate | None:
        values = self.values(name)
        if len(self.lines) == 1:
            return self.lines[0].estimate(name)
        return stats.over_repeats(values) if values else None


def put_over(lines: Sequence[Line], baseline: str, rest: Sequence[Line] = ()) -> list[str]:
    """Give each line its ``against``: figures over those of ``baseline``, a model, a run (folder, name, or
    what its name begins with) or COLUMN=VALUE; what is to be known of that comes back.  The baseline is
    among ``rest``, which is not shown, only where it is not among ``lines``.  Raises InputError.
    """
    notes: dict[str, None] = {}
    found = _matching(lines, baseline)
    if not found and (found := _matching(rest, baseline)):
        notes[f"the baseline {baseline} is not among these rows"] = None
    if not found:
        raise _unknown([*lines, *rest], baseline)
    there: dict[tuple[Any, ...], list[Line]] = {}
    for line in found:
        there.setdefault(same_load(line.found.facts), []).append(line)
    bases: dict[tuple[Any, ...], Base | None] = {}
    for line in lines:
        facts = line.found.facts
        key = (*same_load(facts), line.found.work, *(facts[name] for name in NEARNESS))
        held = there.get(same_load(facts), [])
        if key not in bases:
            bases[key] = _nearest(line, held)
        base = bases[key]
        if base is not None and base.is_of_one_kind:
            line.against, line.over = _ratios(line, base), base.lines
        else:
            line.against = dict.fromkeys(AGAINST)
            notes |= dict.fromkeys([_why_not(line, baseline, bool(held), base)])
    return list(notes)


def _matching(lines: Sequence[Line], baseline: str) -> list[Line]:
    if "=" in baseline:
        asked = condition(baseline, "--baseline")
        return [line for line in lines if asked.holds(line)]
    return [line for line in lines if line.found.model == baseline] or _of_runs(lines, baseline)


def _unknown(lines: Sequence[Line], baseline: str) -> InputError:
    known = {line.found.model for line in lines}
    known |= {Path(folder).name for line in lines for folder in line.folders}
    hint = "" if "=" in baseline else nearest(baseline, known)
    return InputError(f"--baseline {baseline}: no such model, run or COLUMN=VALUE{hint}")


def _of_runs(lines: Sequence[Line], baseline: str) -> list[Line]:
    found = [line for line in lines if any(_is_run(folder, baseline) for folder in line.folders)]
    models = {line.found.model for line in found}
    if len(models) > 1:
        raise InputError(
            f"--baseline {baseline}: runs of {len(models)} models begin so ({', '.join(sorted(models))}): "
            "name one, or use COLUMN=VALUE"
        )
    return found


def _is_run(folder: str, baseline: str) -> bool:
    return Path(folder).name.startswith(baseline) or Path(folder) == Path(baseline)


def _nearest(line: Line, there: Sequence[Line]) -> Base | None:
    """Of the baseline's lines at a load those that were asked for the same requests, and differ from this one
    in as little else as can be."""
    found = [each for each in there if each.found.work == line.found.work]
    for name in NEARNESS:
        same = [each for each in found if each.found.facts[name] == line.found.facts[name]]
        found = same or found
    return Base(found) if found else None


def _why_not(line: Line, baseline: str, is_there: bool, base: Base | None) -> str:
    at = f"{line.found.model} has no ratio"
    if base is not None:
        return f"{at} where {baseline} is several unlike runs: name one of them, or use COLUMN=VALUE"
    if is_there:
        return f"{at} where {baseline} was asked for requests of other lengths"
    return f"{at} at loads at which {baseline} was not measured"


# -------------------------------------------------------------------------------------- the ratios


def _ratios(line: Line, base: Base) -> Row:
    found: Row = dict.fromkeys(AGAINST)
    found["baseline"] = base.name
    if len(base.lines) == 1 and line is base.lines[0]:
        return found | {f"{name}_ratio": 1.0 for name in RATIOS if line.estimate(name) is not None}
    found["ratio_interval"] = OF_RUNS if line.runs > 1 and base.is_repeated else OF_INTERVALS
    for name in RATIOS:
        ratio = _ratio(line, base, name)
        if ratio is not None:
            found[f"{name}_ratio"] = ratio.value
            found[f"{name}_ratio_low"], found[f"{name}_ratio_high"] = ratio.low, ratio.high
    return found


def _ratio(line: Line, base: Base, name: str) -> Estimate | None:
    ours, theirs = line.estimate(name), base.estimate(name)
    if ours is None or theirs is None or min(ours.value, theirs.value) <= 0:
        return None
    new, old = line.values(name), base.values(name)
    return stats.ratio_of_means(new, old) if len(new) > 1 and len(old) > 1 else stats.ratio_of(ours, theirs)
