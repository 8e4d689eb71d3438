"""What a run of a soak comes to: slopes of what was seen of each process, timing errors, what must hold."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from profiler import store
from tests.harden.soak_run import Held, Plan, read_truth
from tests.harden.soak_truth import Late, errors
from tests.harden.soak_verdict import MIB, counted, of_memory, slope, thinned, without_bursts

# The beginning of a run is left out of slopes, while allocators fill their arenas: so much of it, and of
# windows so many at least.
SETTLING, SETTLING_WINDOWS = 0.2, 3
# Why a run's timing error has no bound.
UNBOUNDED = {"client": "no bound: it is held back", "server": "no bound: the engine's own is in it"}
SLOW_TO_SEE = "slow to see answers"  # by the load process's own ticks, whatever the server does
LONG_BLOCK_S, TIMING_BLOCK_S = 20.0, 15.0
MEMORY_MIB_PER_H, ENGINE_SHARE = 5.0, 0.05
P50_US_PER_H, P99_US_PER_H = 100.0, 500.0
LIVED = 0.6  # of the run: what lived shorter (a calibration's metronome) has no slope
# What grows by design: a metronome keeps 16 bytes of each chunk until it is asked for them; the load process
# notes its own lateness every 10 ms (4 bytes) and its CPU time every 50 ms (16 bytes) of a window.
TRUTH_BYTES, PULSE_BYTES_PER_S = 16, 720


class _Seen:
    """The observer's lines as columns."""

    def __init__(self, path: Path) -> None:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        self.of: dict[tuple[int, str], list[list[Any]]] = {}
        for row in rows:
            self.of.setdefault((row[1], row[2]), []).append(row)

    def load(self) -> list[float]:
        values = [row[3] / 100 for row in self.of.get((0, "load"), [])]
        return [round(float(each(values)), 2) for each in (np.min, np.median, np.max)]

    def home_mib(self, home: Path) -> list[float]:
        """The most and the last."""
        values = [row[3] / MIB for row in self.of.get((0, str(home)), [])]
        return [round(max(values), 2), round(values[-1], 2)] if values else []


def looked(plan: Plan, held: Held) -> dict[str, Any]:
    """The run's part of the record."""
    seen = _Seen(held.folder / "seen.jsonl")
    (result,) = store.find([held.folder / "results"])
    windows = result.manifest.windows
    table = result.requests
    chunks = sum(window.audit.chunks for window in windows if window.audit)
    steady_s = sum((w.steady_end_ns or 0) - (w.steady_start_ns or 0) for w in windows) / 1e9
    rate = chunks / steady_s if steady_s else 0.0
    marked = sum(bool(_reasons(window)) for window in windows)
    outcomes = Counter(table["outcome"].to_pylist())
    raw = [
        row[7] for (pid, role), rows in seen.of.items() if role == "load process" for row in rows if row[7]
    ]
    run = {
        "name": plan.name,
        "seconds": round(held.seconds, 1),
        "code": held.code,
        "windows": len(windows),
        "window_s": round(plan.window_s, 1),
        "requests": dict(sorted(outcomes.items(), key=str)),
        "chunks_per_s": round(rate),
        "asked": round(plan.rate * plan.tokens) if plan.rate else _asked(plan),
        "client_bound": marked,
        "blamed": sum(any(SLOW_TO_SEE not in why for why in _reasons(window)) for window in windows),
        "load": seen.load(),
        "processes": _processes(plan, seen, windows, rate),
        "timing": _timing(plan, held, table, windows),
        "folder_mib": seen.home_mib(held.folder / "results"),
        "temporary_mib": seen.home_mib(held.folder / "tmp"),
        "raw_mib": round(max(raw, default=0) / MIB, 1),
    }
    run["checks"] = _checks(plan, held, run, result.manifest.status, table)
    return run


def _reasons(window: Any) -> tuple[str, ...]:
    return window.audit.bound_by if window.audit else ()


def _asked(plan: Plan) -> int:
    law = plan.law
    assert law is not None
    return round(plan.streams * plan.tokens / (law.ttft_s + (plan.tokens - 1) * law.itl_s))


# ------------------------------------------------------------------------------------ processes


def _processes(plan: Plan, seen: _Seen, windows: Any, rate: float) -> list[dict[str, Any]]:
    span_ns = windows[-1].closed_ns - windows[0].opened_ns
    found = []
    for (pid, role), rows in sorted(seen.of.items(), key=lambda each: (each[0][1], each[0][0])):
        if not pid or rows[-1][0] - rows[0][0] < LIVED * span_ns:
            continue
        t_ns, resident = (np.array([row[place] for row in rows]) for place in (0, 3))
        pss = [row[6] for row in rows if row[6]]
        cycles = _cycles(t_ns, windows)
        found.append(
            {
                "role": role,
                "memory": msgspec.to_builtins(_memory(plan, role, t_ns, resident, windows, rate)),
                "series_mib": [round(each / MIB, 1) for each in thinned(resident.tolist())],
                "peak_mib": round(resident.max() / MIB, 1),
                "pss_mib": [round(pss[0] / MIB, 1), round(pss[-1] / MIB, 1)] if pss else [],
                "files": _counts(rows, 4, cycles, windows),
                "threads": _counts(rows, 5, cycles, windows),
            }
        )
    return found


def _memory(plan: Plan, role: str, t_ns: Any, resident: Any, windows: Any, rate: float) -> Any:
    """Within one long window over blocks of time.  Of many, over the least that each held while it was
    steady: what is held in passing (a queue, the record of a window) comes and goes, a leak stays."""
    spans = [(w.steady_start_ns, w.steady_end_ns) for w in windows if w.steady_start_ns and w.steady_end_ns]
    if len(spans) > 1:
        least = [
            ((start + end) / 2e9, float(part.min()))
            for start, end in spans
            if (part := resident[(t_ns >= start) & (t_ns < end)]).size
        ]
        least = least[_settled(len(least)) :]
        block_s = float(np.mean([after[0] - before[0] for before, after in pairwise(least)])) * 0.999
        bound = MEMORY_MIB_PER_H
        return of_memory(*zip(*least, strict=True), bound_mib=bound, block_s=block_s)
    start, end = spans[0]
    start += round((end - start) * SETTLING)
    inside = (t_ns >= start) & (t_ns < end)
    explained = {"metronome": rate * TRUTH_BYTES, "load process": PULSE_BYTES_PER_S}.get(role, 0.0)
    explained_mib = explained * 3600 / MIB
    bound = MEMORY_MIB_PER_H + (ENGINE_SHARE * explained_mib if role == "metronome" else 0.0)
    block_s = min(LONG_BLOCK_S, plan.window_s / 12)
    times, values = t_ns[inside] / 1e9, resident[inside]
    return of_memory(times, values, bound_mib=round(bound, 1), block_s=block_s, explained=explained_mib)


def _settled(windows: int) -> int:
    """How many windows are left out; none of few, of which nothing can be told anyway."""
    most = max(round(windows * SETTLING), SETTLING_WINDOWS)
    return most if windows > 2 * most else 0


def _cycles(t_ns: Any, windows: Any) -> list[Any]:
    """Which looks belong to each window, from its opening to the next."""
    opened = [window.opened_ns for window in windows]
    ends = [*opened[1:], windows[-1].closed_ns]
    return [np.flatnonzero((t_ns >= a) & (t_ns < b)) for a, b in zip(opened, ends, strict=True)]


def _counts(rows: list[list[Any]], place: int, cycles: list[Any], windows: Any) -> dict[str, Any]:
    """Descriptors or threads, once pools of threads have filled."""
    values = np.array([row[place] for row in rows])
    t_ns = np.array([row[0] for row in rows])
    settled = _settled(len(windows))
    steady = [
        values[(t_ns >= (window.steady_start_ns or 0)) & (t_ns < (window.steady_end_ns or 0))].tolist()
        for window in windows[settled:]
    ]
    return counted([values[cycle].tolist() for cycle in cycles[settled:]], steady)


# --------------------------------------------------------------------------------------- timing


def _timing(plan: Plan, held: Held, table: Any, windows: Any) -> dict[str, Any] | None:
    """Against the metronome's emissions; of the simulated engine, gaps against its law."""
    import pyarrow.compute as pc

    times, late_s, left_out = [], [], 0
    for window in windows:
        span = (window.steady_start_ns or 0, window.steady_end_ns or 0)
        own = table.filter(pc.equal(table["window"], window.index))
        if plan.law is None:
            found = _against_law(own, *span)
        elif window.index < len(held.truths):
            truth = read_truth(held.truths[window.index])
            found = errors(own, truth, *span, in_turn=plan.cpu_share < 1)
        else:
            continue
        order = np.argsort(found.at_ns)
        times.append(found.at_ns[order])
        late_s.append(found.late_s[order])
        left_out += found.left_out
    told = sum(map(len, times))
    if not told:
        return None
    at_s, late_us = np.concatenate(times) / 1e9, np.concatenate(late_s) * 1e6
    block_s = TIMING_BLOCK_S if held.seconds > 300 else 2.0
    blocks = _of_blocks(at_s, late_us, block_s)
    since = blocks[0] - blocks[0][0]
    keep = since >= SETTLING * since[-1]
    unbounded = UNBOUNDED.get(plan.name)
    each = {
        name: msgspec.to_builtins(
            slope(
                blocks[0][keep],
                without_bursts(values[keep]),
                bound=None if unbounded else bound,
                unit="µs/h",
                block_s=block_s,
            )
        )
        for name, values, bound in (("p50_us", blocks[1], P50_US_PER_H), ("p99_us", blocks[2], P99_US_PER_H))
    }
    minutes = _of_blocks(at_s, late_us, 60.0)
    rows = [[round(float(v), 1) for v in row] for row in zip(*minutes[1:], strict=True)]
    against = "the metronome's emissions" if plan.law else "the law's gaps"
    return {
        "against": against,
        "chunks": told,
        "left_out": left_out,
        "unbounded": unbounded,
        **each,
        "minutes": thinned(rows, 30),
    }


def _against_law(own: Any, start_ns: int, end_ns: int) -> Late:
    from tests.harden.soak import SERVER

    at, late = [], []
    for arrivals in own["arrivals_ns"].to_pylist():
        if arrivals and start_ns <= arrivals[0] < end_ns:
            at += arrivals[1:]
            late += [(b - a) / 1e9 - SERVER["itl_s"] for a, b in pairwise(arrivals)]
    return Late(np.array(at, np.int64), np.array(late), 0)


def _of_blocks(at_s: Any, late_us: Any, block_s: float) -> tuple[Any, Any, Any]:
    """Middle, p50 and p99 of each block that has a thousand values, or a hundred where all have few."""
    place = ((at_s - at_s[0]) // block_s).astype(int)
    fewest = min(1000, np.bincount(place).max() // 2)
    rows = []
    for number in np.unique(place):
        values = late_us[place == number]
        if values.size >= fewest:
            middle = at_s[0] + (number + 0.5) * block_s
            rows.append((middle, np.percentile(values, 50), np.percentile(values, 99)))
    return tuple(np.array(column) for column in zip(*rows, strict=True))  # type: ignore[return-value]


# --------------------------------------------------------------------------------------- checks


def _checks(plan: Plan, held: Held, run: dict[str, Any], status: str, table: Any) -> list[list[Any]]:
    wanted = 1 if plan.law is None else 0
    named = sum(number for outcome, number in run["requests"].items() if outcome)
    planned_s = plan.windows * (plan.window_s + plan.warm_s)
    checks = [
        ["exit code", held.code == wanted, f"{held.code}, {wanted} expected"],
        ["sealed", status == "complete", status],
        ["windows", run["windows"] == plan.windows, f"{run['windows']} of {plan.windows}"],
        ["every request has an outcome", named == table.num_rows, f"{named} of {table.num_rows}"],
        [
            "in time",
            held.seconds < 2.5 * planned_s + 60,
            f"{held.seconds:.0f} s for {planned_s:.0f} s of load",
        ],
        ["nothing left running", not held.left, ", ".join(held.left) or "nothing"],
        ["no temporary file left", run["temporary_mib"][-1:] == [0.0], f"{run['temporary_mib']} MiB"],
    ]
    if plan.name == "client":
        marks = f"{run['client_bound']} of {plan.windows} windows marked client-bound"
        checks.append(["the client says it was the limit", run["client_bound"] == plan.windows, marks])
        said = next((line for line in held.stderr if "client-bound" in line), "")
        checks.append(["and tells the user", bool(said), said[:120]])
    if plan.law is None:
        late = run["requests"].get("first_token_timeout", 0)
        checks.append(
            ["the server's overload shows", late > 0, f"{late} requests without a first token in time"]
        )
        blamed = f"{run['blamed']} windows marked as sent late or busy"
        checks.append(["its queue is not put down to the client", not run["blamed"], blamed])
    return checks
