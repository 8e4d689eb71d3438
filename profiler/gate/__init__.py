"""New runs against their baseline → pass, fail or undecided (``profile gate``, docs/gate.md)."""

from __future__ import annotations

from collections.abc import Sequence

from profiler.errors import InputError
from profiler.gate import judge, match, sides
from profiler.gate.nouns import Limits, Report
from profiler.store import RunResult

__all__ = ["compare"]
WITHIN = (
    "within one engine start a side: the intervals say how far a change is noise of the windows, and nothing "
    f"of the next start, which is taken to scatter by {judge.START_SPREAD:.0%}; give several runs a side to "
    "know"
)
ALONE = "one engine start on one side: the other side's spread is taken for both"


def compare(
    new: Sequence[RunResult], base: Sequence[RunResult], limits: Limits, price: str | None = None
) -> Report:
    """``price`` as for ``--price``.  A run that is on both sides counts as new.  Raises InputError."""
    ours = {run.folder.resolve() for run in new}
    others = [run for run in base if run.folder.resolve() not in ours]
    if not others:
        raise InputError("--baseline holds no run beside the new ones; give the runs to compare with")
    matched, missing = match.matches(new, others)
    pairs, notes = [], []
    for each in matched:
        found, absent, known = sides.pairs(each.new, each.base, price)
        pairs += found
        missing += absent
        notes += known
    changed = dict.fromkeys(line for each in matched for line in match.under_test(each))
    cells = judge.cells(pairs, limits)
    notes += [WITHIN] if any(pair.replica == "repeats" for pair in pairs) else []
    notes += [ALONE] if any(cell.alone for cell in cells) else []
    return Report(cells=tuple(cells), missing=tuple(missing), under_test=tuple(changed), notes=tuple(notes))
