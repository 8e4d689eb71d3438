"""Runs of one kind → Pairs: the figures of every replica on both sides, load by load.

What is repeated are engine starts, of one run or of several.  Where each side has only one, it is the windows
held under it: they say how far a change is noise of the measurement, and nothing of the next start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from profiler import comparison, consumption, cost, replicas
from profiler.gate.nouns import Pair, Side, Subject
from profiler.store import RunResult

Row = dict[str, Any]
Point = tuple[Any, ...]


def pairs(
    new: Sequence[RunResult], base: Sequence[RunResult], price: str | None
) -> tuple[list[Pair], list[str], list[str]]:
    """Runs of the same model, scenario and hardware → Pairs; what is missing; and what else to know."""
    sides = new, base
    starts = [replicas.starts(runs) for runs in sides]
    several = max(map(len, starts)) > 1
    replica: Literal["starts", "repeats"] = "starts" if several else "repeats"
    ours, theirs = (_by_load(each, price) for each in (starts if several else map(replicas.repeats, sides)))
    model, name = new[0].manifest.model.name, new[0].manifest.scenario.name
    found, missing, notes = [], [], []
    for load in dict.fromkeys((*theirs, *ours)):
        subject = Subject(model=model, scenario=name, load=load_text(load))
        if load not in ours:
            missing.append(f"{model}, {name}: load {subject.load} is in the baseline and not in the new runs")
        elif load not in theirs:
            notes.append(f"{model}, {name}: load {subject.load} is not in the baseline")
        else:
            found.append(_pair(subject, ours[load], theirs[load], replica))
    return found, missing, notes


def _pair(
    subject: Subject, new: Sequence[Row], base: Sequence[Row], replica: Literal["starts", "repeats"]
) -> Pair:
    ours, theirs = _side(new), _side(base)
    if len({row["price_usd_per_hour"] for row in (*new, *base)}) > 1:
        unlike = "the runs were made with different prices; give one with --price"
        ours.doubts.update(dict.fromkeys(cost.ESTIMATES, unlike))
    return Pair(subject=subject, new=ours, base=theirs, replica=replica)


def load_text(load: Point) -> str:
    """``closed 8``, ``open 12.4/s``."""
    mode, concurrency, rate = load
    return f"{mode} {concurrency}" if rate is None else f"{mode} {rate:.4g}/s"


def _by_load(parts: Sequence[RunResult], price: str | None) -> dict[Point, list[Row]]:
    found: dict[Point, list[Row]] = {}
    for part in parts:
        for row in comparison.rows([part], price):
            load = row["load"], row["concurrency"], row["load_requests_per_s"]
            found.setdefault(load, []).append(row)
    return found


def _side(rows: Sequence[Row]) -> Side:
    """A metric is judged where every replica has it: half a side is another side."""
    values: dict[str, list[float]] = {}
    doubts: dict[str, str] = {}
    for name in comparison.ESTIMATES:
        known = [row[name] for row in rows if row[name] is not None]
        if known:
            values[name] = known
        if 0 < len(known) < len(rows):
            doubts[name] = f"n/a in {len(rows) - len(known)} of {len(rows)} replicas"
    for row in rows:
        if row["shared_gpu"]:
            doubts |= dict.fromkeys(consumption.ESTIMATES, "others used the GPUs")
        if row["client_bound"]:
            doubts |= dict.fromkeys(comparison.ESTIMATES, f"the client was the limit ({row['client_bound']})")
    counts = [row[name] for row in rows for name in ("requests_ok", "requests_failed")]
    if None in counts:  # another tool that kept no count: no share of failures can be told
        return Side(values=values, doubts=doubts)
    failed = sum(row["requests_failed"] for row in rows)
    return Side(values=values, requests=sum(counts), failed=failed, doubts=doubts)
