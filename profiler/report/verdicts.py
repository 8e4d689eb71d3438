"""What runs prove, as text and values: limits, searches, failures, the client's own error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from profiler import search
from profiler.charts.words import significant
from profiler.client import Calibration
from profiler.report.table import CLIENT_MARK, Row, load_text
from profiler.search import Found
from profiler.slo import Judged, limits
from profiler.store import RunResult

NO_END = "?"
MORE_TO_SEND_WITH = (
    "  the load needs more to be sent with: a quiet machine, load.processes where cores are free, else "
    "--set load.machines=2, a second machine of a Ray cluster"
)
OF_CLOCKS = "the clock of "
UNITS = {"requests_per_s": "requests/s", "concurrency": "requests at a time"}


def _searches(runs: Sequence[RunResult]) -> list[tuple[RunResult, Found]]:
    return [(run, search.found(run)) for run in runs if run.manifest.scenario.search and run.manifest.windows]


def found_lines(runs: Sequence[RunResult]) -> list[str]:
    """The outcome of each search: a line, and one for each thing to know about it."""
    found = _searches(runs)
    named = len(found) > 1
    lines = []
    for run, each in found:
        who = f"{run.manifest.model.name}: " if named else ""
        lines += [f"{who}{_headline(each)}", *(f"· {who}{note}" for note in each.notes)]
    return lines


def _headline(found: Found) -> str:
    counted = f"{found.windows} probes, {found.requests:,} requests"
    if found.load is None:
        return f"{found.find}: none found ({counted})"
    low = found.load if found.find == "capacity" else found.below
    ends = [NO_END if end is None else f"{end:.4g}" for end in (low, found.above)]
    kept = ", ".join(_kept(each) for each in found.judged)
    return (
        f"{found.find} {found.load:.4g} {UNITS[found.unit]} ({'–'.join(ends)}; {counted})"
        f"{f': {kept}' if kept else ''}"
    )


def _kept(judged: Judged) -> str:
    """``TTFT p99 480 ms ≤ 500 ms``; what a sample too small to prove it says is marked."""
    limit_ms = significant(judged.limit.limit_s * 1e3)
    if judged.seen is None:
        return f"{judged.limit.words} n/a"
    sign = "≤" if judged.seen.value <= judged.limit.limit_s else ">"
    doubt = " (undecided)" if judged.verdict == "undecided" else ""
    return f"{judged.limit.words} {significant(judged.seen.value * 1e3)} ms {sign} {limit_ms} ms{doubt}"


def found_values(runs: Sequence[RunResult]) -> list[dict[str, Any]]:
    """The outcome of each search for JSON."""
    return [
        {
            "model": run.manifest.model.name,
            "run": str(run.folder),
            "find": found.find,
            "unit": found.unit,
            "value": found.load,
            "low": found.load if found.find == "capacity" else found.below,
            "high": found.above,
            "probes": found.windows,
            "requests": found.requests,
            "limits": [_limit_values(each) for each in found.judged],
            "notes": list(found.notes),
        }
        for run, found in _searches(runs)
    ]


def _limit_values(judged: Judged) -> dict[str, Any]:
    seen = judged.seen
    return {
        "name": judged.limit.name,
        "limit_s": judged.limit.limit_s,
        "value_s": seen.value if seen else None,
        "low_s": seen.low if seen else None,
        "high_s": seen.high if seen else None,
        "late": judged.late.late,
        "of": judged.late.n,
        "verdict": judged.verdict,
    }


def limit_lines(rows: Sequence[Row], runs: Sequence[RunResult]) -> Iterator[str]:
    """The limits, and how each load stands to them; a search has said so already."""
    wanted = {limit for run in runs for limit in limits(run.manifest.scenario.slo)}
    if not wanted:
        return
    names = sorted(f"{limit.words} ≤ {significant(limit.limit_s * 1e3)} ms" for limit in wanted)
    yield f"SLO: {', '.join(names)}; goodput counts requests within all of them, failed ones are not"
    words = {limit.name: limit.words for limit in wanted}
    searched = {str(run.folder) for run in runs if run.manifest.scenario.search}
    for row in rows:
        if row["slo_verdicts"] and row["run"] not in searched:
            said = [each.split() for each in row["slo_verdicts"].split(", ")]
            stands = [f"{words[name]} {verdict}" for name, verdict in said]
            yield f"{row['model']} at {load_text(row)}: {', '.join(stands)}"


def precision_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Of each run whose windows decided how many there are: what was asked, and reached at each load."""
    asked: dict[tuple[str, str, float], list[str]] = {}
    for row in rows:
        if row["target_ci_frac"] and row["repeats"]:
            key = (row["run"], row["model"], row["target_ci_frac"])
            asked.setdefault(key, []).append(f"at {load_text(row)} {_reached(row)}")
    names = Counter(model for _, model, _ in asked)
    for (run, model, target), loads in asked.items():
        who = model if names[model] == 1 else run
        yield f"{who}, asked for ±{100 * target:.3g}%: {'; '.join(loads)}"


def _reached(row: Row) -> str:
    windows = f"{row['repeats']} window{'s' if row['repeats'] > 1 else ''}"
    spent = f"after {windows}, {row['measured_s']:.0f} s"
    if row["ci_frac"] is None:
        return f"no interval {spent}"
    stopped = "" if row["ci_frac"] <= row["target_ci_frac"] else "stopped at "
    return f"{stopped}±{row['ci_frac']:.1%} {spent}"


def client_lines(rows: Sequence[Row]) -> list[str]:
    """Where the client was the limit, and what helps; to a clock that is not well known nothing does."""
    bound = [row for row in rows if row["client_bound"]]
    lines = [
        f"{CLIENT_MARK} {row['model']} at {load_text(row)} is client-bound: {row['client_bound']}"
        for row in bound
    ]
    if any(not row["client_bound"].startswith(OF_CLOCKS) for row in bound):
        lines.append(MORE_TO_SEND_WITH)
    return lines


def sampler_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What reading power and memory took, at worst."""
    cpu = [row["sampler_cpu_frac"] for row in rows if row["sampler_cpu_frac"] is not None]
    late = [row["sampler_late_s_max"] for row in rows if row["sampler_late_s_max"] is not None]
    if not cpu or not late:
        return []
    worst = f"{max(late):.2g} s" if max(late) >= 1 else f"{max(late) * 1e3:.2g} ms"
    return [f"telemetry took at most {max(cpu):.1%} of a core; ticks late by at most {worst}"]


def calibration_lines(runs: Sequence[RunResult]) -> list[str]:
    """The load generator's own error on the machine of each run."""
    found = [run.manifest.calibration for run in runs]
    return list(dict.fromkeys(_calibration(each) for each in found if each is not None))


def _calibration(found: Calibration) -> str:
    errors = [
        f"{name} {error:+.1%}"
        for name, error in (
            ("TTFT", found.ttft_mean_error_frac),
            ("TTFT p99", found.ttft_p99_error_frac),
            ("ITL p99", found.itl_p99_error_frac),
        )
        if error is not None
    ]
    rate = f"{significant(found.chunks_per_s)} chunks/s"
    return f"client error on this machine at {rate}: {', '.join(errors) or 'n/a'}"


def failed_lines(runs: Sequence[RunResult], rows: Sequence[Row]) -> Iterator[str]:
    """A line for each run that failed: too many requests did, or a search found no load that will do.
    A search goes beyond what the server can take: its failures are part of the verdict."""
    for run in runs:
        name, plan = run.manifest.model.name, run.manifest.scenario
        if plan.search:
            if run.manifest.windows and search.found(run).load is None:
                yield f"{name}: no load tried keeps the limits"
            continue
        own = [row for row in rows if row["run"] == str(run.folder)]
        bad, good = (sum(row[f"requests_{what}"] for row in own) for what in ("failed", "ok"))
        if bad > plan.max_failed_frac * (bad + good):
            kinds = "; ".join(f"at {load_text(row)} {row['failures']}" for row in own if row["failures"])
            yield (
                f"{name}: {bad:,} of {bad + good:,} requests failed, more than {plan.max_failed_frac:.3g} "
                f"of them: {kinds}"
            )
