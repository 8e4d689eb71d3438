"""Pairs → Cells: which metric worsened beyond its limit, beyond doubt.

A cell fails when a one-sided Welch test on the logarithms of its replicas says that the regression exceeds
the limit, at a family-wise level of 5 % over all cells of the gate (Holm): the chance that a gate fails where
no metric worsened beyond its limit is at most 5 %, however many it looks at.  It passes when the bad end of
its 95 % interval keeps the limit; every cell must, so nothing is adjusted there.  Otherwise it is undecided.

Where only the windows of one start a side are there, what starts scatter is unknown and not nothing: to fail,
a cell must be beyond START_SPREAD too.  The interval, and so a pass, are those of the windows alone.

Failed requests are compared by Fisher's exact test; a share that did not rise passes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from profiler import stats
from profiler.comparison.columns import HIGHER_IS_BETTER
from profiler.gate.nouns import FAILURES, Cell, Limits, Pair, Side, Verdict
from profiler.schema import Estimate
from profiler.stats import LogRatio

ALPHA = 1 - stats.CONFIDENCE
# What engine starts scatter where nobody measured it: the 2 % at which windows of one start, taken for
# replicas, cover 38 % of what 95 % promises (docs/gate.md).  A noisy machine scatters more.
START_SPREAD = 0.02
FEASIBLE = 200  # replicas a side, beyond which "measure more" is no advice
AT_THE_LIMIT = (
    f"so near the limit, with this noise, more than {FEASIBLE} replicas a side would be needed: choose "
    "another limit or a quieter machine"
)
WORDS = {"starts": "engine starts", "repeats": "repeats"}


def cells(pairs: Sequence[Pair], limits: Limits) -> list[Cell]:
    """Every metric of every pair, judged as one family."""
    most = len(pairs) * len(limits.of)
    found = [
        _failures(pair, limit) if metric == FAILURES else _cell(pair, metric, limit, most)
        for pair in pairs
        for metric, limit in limits.of.items()
        if metric == FAILURES or _is_asked(pair, metric, limits.named)
    ]
    places = [place for place, cell in enumerate(found) if cell.p is not None]
    adjusted = stats.holm([found[place].p or 0.0 for place in places])
    for place, p in zip(places, adjusted, strict=True):
        found[place] = _decided(msgspec.structs.replace(found[place], p=p), len(places))
    return found


def _is_asked(pair: Pair, metric: str, named: bool) -> bool:
    """A metric that the baseline never had is missed only by who named it."""
    return named or metric in pair.base.values


def _cell(pair: Pair, metric: str, limit: float, family: int) -> Cell:
    """Not yet judged where it has a p-value, else undecided (or unchanged)."""
    new, base = pair.new.values.get(metric, []), pair.base.values.get(metric, [])
    cell = Cell(
        subject=pair.subject,
        metric=metric,
        limit_frac=limit,
        base=_middle(base),
        new=_middle(new),
        change=None,
        p=None,
        verdict="undecided",
        why="",
        replica=pair.replica,
        n_base=len(base),
        n_new=len(new),
    )
    why = _doubt(pair, metric)
    if why:
        return msgspec.structs.replace(cell, why=why)
    if len({*new, *base}) == 1:
        alike = Estimate(1.0, 1.0, 1.0, min(len(new), len(base)), pair.replica)
        return _settled(msgspec.structs.replace(cell, change=alike), "pass", "the same in every replica")
    return _tested(cell, new, base, family)


def _doubt(pair: Pair, metric: str) -> str | None:
    """Why a cell cannot be judged at all."""
    for side, words in ((pair.new, "new runs"), (pair.base, "baseline")):
        if metric in side.doubts:
            return f"{words}: {side.doubts[metric]}"
        if not side.values.get(metric):
            return f"not measured in the {words}"
    return None


def _tested(cell: Cell, new: Sequence[float], base: Sequence[float], family: int) -> Cell:
    found = log_ratio(new, base)
    if found is None and min(*new, *base) <= 0:
        return msgspec.structs.replace(cell, why="a value of 0 has no ratio; name a mean or another quantile")
    if found is None:
        alone = Estimate((cell.new or 0.0) / (cell.base or 1.0), n=1, over=cell.replica)
        more = f"one of {WORDS[cell.replica]} a side says nothing of how much they differ; measure at least 3"
        return msgspec.structs.replace(cell, change=alone, why=more)
    low, high = found.interval()
    change = Estimate(math.exp(found.mean), low, high, min(len(new), len(base)), cell.replica)
    worse, limit = (
        (found.inverse, 1 / (1 - cell.limit_frac)) if _sinks(cell) else (found, 1 + cell.limit_frac)
    )
    needed = _needed(cell, found, family)
    why = f"about {needed} {WORDS['starts']} a side would decide" if needed else AT_THE_LIMIT
    p = (_with_starts(worse) if cell.replica == "repeats" else worse).p_beyond(limit)
    return msgspec.structs.replace(cell, change=change, p=p, why=why, needed=needed)


def _with_starts(found: LogRatio) -> LogRatio:
    """With the scatter of one start on each side, which is assumed and so costs no degrees of freedom
    (Satterthwaite, Biometrics Bulletin 2, 1946)."""
    error = math.hypot(found.error, START_SPREAD * math.sqrt(2))
    df = found.df * (error / found.error) ** 4 if found.error > 0 else math.inf
    return LogRatio(found.mean, error, min(df, 1e6))


def log_ratio(new: Sequence[float], base: Sequence[float]) -> LogRatio | None:
    """Welch's, or with a single replica on one side the other side's spread for both."""
    return stats.log_ratio(new, base) or stats.log_ratio_alone(new, base)


def _sinks(cell: Cell) -> bool:
    """Whether the metric gets worse by getting smaller."""
    return cell.metric in HIGHER_IS_BETTER


def _bound(cell: Cell) -> float:
    """The change at which the limit is reached."""
    return 1 - cell.limit_frac if _sinks(cell) else 1 + cell.limit_frac


def _needed(cell: Cell, found: LogRatio, family: int) -> int | None:
    """How many replicas a side would decide, if the true change is the one seen; None: no sensible number.

    Failing takes a share of ALPHA (Holm's first step among ``family`` cells), passing one end of an interval.
    """
    beyond = found.mean - math.log(_bound(cell))
    fails = beyond < 0 if _sinks(cell) else beyond > 0
    distance, alpha = abs(beyond), ALPHA / family if fails else ALPHA / 2
    spread = found.error / math.sqrt(1 / cell.n_new + 1 / cell.n_base)
    n = stats.runs_needed(spread, distance, alpha) if distance > 0 else FEASIBLE + 1
    return max(n, cell.n_new + 1, cell.n_base + 1) if n <= FEASIBLE else None


def _decided(cell: Cell, family: int) -> Cell:
    """The verdict of a cell whose p is adjusted; ``why`` holds what would decide it."""
    if cell.metric == FAILURES:
        return _failures_decided(cell)
    change = cell.change or Estimate(1.0)
    bad_end = change.low if _sinks(cell) else change.high
    kept = bad_end is not None and (bad_end >= _bound(cell) if _sinks(cell) else bad_end <= _bound(cell))
    if kept:
        return _settled(cell, "pass", "the whole interval keeps the limit")
    if cell.p is not None and cell.p <= ALPHA:
        among = f" among {family} cells" if family > 1 else ""
        return _settled(
            cell, "fail", f"worse by more than {cell.limit_frac * 100:.3g}%, p = {cell.p:.2g}{among}"
        )
    return cell


def _settled(cell: Cell, verdict: Verdict, why: str) -> Cell:
    return msgspec.structs.replace(cell, verdict=verdict, why=why, needed=None)


def _failures(pair: Pair, limit: float) -> Cell:
    new, base = _share(pair.new), _share(pair.base)
    cell = Cell(
        subject=pair.subject,
        metric=FAILURES,
        limit_frac=limit,
        base=base,
        new=new,
        change=None,
        p=None,
        verdict="undecided",
        why="no request was measured",
        replica=pair.replica,
        n_base=pair.base.requests,
        n_new=pair.new.requests,
    )
    if new is None or base is None:
        return cell
    if pair.new.failed == pair.base.failed == 0:  # nothing could be rejected: no part of the family
        return _failures_decided(cell)
    p = stats.p_more_hits(pair.new.failed, pair.new.requests, pair.base.failed, pair.base.requests)
    return msgspec.structs.replace(cell, p=p)


def _failures_decided(cell: Cell) -> Cell:
    new, base = cell.new or 0.0, cell.base or 0.0
    highest = stats.fraction(round(new * cell.n_new), cell.n_new).high
    counted = f"{round(base * cell.n_base)} of {cell.n_base} → {round(new * cell.n_new)} of {cell.n_new}"
    if new <= base or (highest is not None and highest <= base + cell.limit_frac):
        return _settled(cell, "pass", counted)
    if cell.p is not None and cell.p <= ALPHA and new > base + cell.limit_frac:
        return _settled(cell, "fail", f"{counted}, p = {cell.p:.2g}")
    why = f"{counted}: more failed, but few enough for chance; hold the load longer"
    return msgspec.structs.replace(cell, why=why)


def _share(side: Side) -> float | None:
    return side.failed / side.requests if side.requests else None


def _middle(values: Sequence[float]) -> float | None:
    """As ``stats.over_repeats`` has it, which the cost table shows."""
    return stats.over_repeats(values).value if values else None
