"""Sealed runs → one tidy table, a row a load point.  The columns are a public contract (docs/results.md).

Values only: text is made by ``report.table``.  ``rows`` gives plain dicts so that the command line needs
no pandas; ``compare`` gives the same as a DataFrame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler import cost, metrics, store
from profiler.host_facts import differences
from profiler.schema import Estimate, Price
from profiler.store import RunResult
from profiler.windows import LATENCIES

if TYPE_CHECKING:
    import pandas as pd

IDENTITY = (
    "model",
    "kind",
    "engine",
    "scenario",
    "load",
    "concurrency",
    "load_requests_per_s",
    "gpu",
    "gpus",
)
COUNTS = ("requests_ok", "requests_failed")
STATISTICS = ("mean", "p50", "p90", "p95", "p99")
ESTIMATES = (
    "output_tokens_per_s",
    "requests_per_s",
    *(f"{name}_{statistic}" for name in LATENCIES for statistic in STATISTICS),
    "memory_weights_bytes",
    "memory_kv_bytes",
    "memory_peak_bytes",
    "power_w_mean",
    "energy_j_per_output_token",
    "usd_per_m_output_tokens",
    "usd_per_m_input_tokens",
    "usd_per_m_blended_tokens",
    "input_tokens_per_s",
    "total_tokens_per_s",
    "input_tokens_mean",
    "output_tokens_mean",
    "offered_requests_per_s",
    "goodput_requests_per_s",
    "slo_met_frac",
    "first_wave_ttft_s_mean",
    "tokens_per_chunk_mean",
    "prefix_cache_hit_frac",
)
CONTEXT = (
    "first_wave_requests",
    "send_lag_p99_s",
    "client_cpu_frac",
    "loop_lag_p99_s",
    "client_bound",
    "slo_verdicts",
    "weights",
    "repeats",
    "failures",
    "status",
    "price_usd_per_hour",
    "price_basis",
    "host",
    "notes",
    "run",
)
COLUMNS = (
    *IDENTITY,
    *COUNTS,
    *(name + end for name in ESTIMATES for end in ("", "_low", "_high")),
    *CONTEXT,
)
ENERGY_PROBES = ("nvml", "rapl")
NOTE_SEPARATOR = " | "
HIGHER_IS_BETTER = (
    "output_tokens_per_s",
    "requests_per_s",
    "total_tokens_per_s",
    "input_tokens_per_s",
    "goodput_requests_per_s",
    "slo_met_frac",
)


def rows(runs: Sequence[RunResult], price: str | float | None = None) -> list[dict[str, Any]]:
    """One dict a load point with every name of COLUMNS; None where not measured.

    ``price`` (USD per hour or a price sheet, as for ``--price``) overrides what each run was made with;
    a sheet is looked up for each run's own GPU.  Raises InputError.
    """
    measured = [(run, metrics.points(run)) for run in runs]
    table = []
    for run, points in measured:
        siblings = [p for other, found in measured if same_engine(run, other) for p in found]
        prefill = cost.prefill_s_per_token(points) or cost.prefill_s_per_token(siblings)
        paid = cost.parse_price(str(price), _gpu_name(run)) if price is not None else run.manifest.price
        table += [_row(run, point, paid, prefill) for point in points]
    return table


def same_engine(a: RunResult, b: RunResult) -> bool:
    """Whether two runs measured the same model on the same engine, precision and host."""
    ours, theirs = a.manifest, b.manifest
    return (
        ours.model.name == theirs.model.name
        and ours.engine.kind == theirs.engine.kind
        and ours.engine.version == theirs.engine.version
        and ours.scenario.engine == theirs.scenario.engine
        and not differences(ours.host, theirs.host)
    )


def _row(
    run: RunResult, point: metrics.PointResult, price: Price | None, prefill: Estimate | None
) -> dict[str, Any]:
    manifest = run.manifest
    gpus = manifest.engine.gpus
    facts = manifest.model.facts
    row: dict[str, Any] = {
        "model": manifest.model.name,
        "kind": facts.kind if facts else None,
        "engine": manifest.engine.kind,
        "scenario": manifest.scenario.name,
        "load": point.point.mode,
        "concurrency": point.point.concurrency,
        "load_requests_per_s": point.point.requests_per_s,
        "gpu": _gpu_name(run),
        "gpus": len(gpus),
        "requests_ok": point.requests_ok,
        "requests_failed": sum(point.failures.values()),
    }
    estimates = point.estimates | cost.costs(point, price, len(gpus), prefill)
    for name in ESTIMATES:
        estimate = estimates.get(name)
        row[name] = estimate.value if estimate else None
        row[f"{name}_low"] = estimate.low if estimate else None
        row[f"{name}_high"] = estimate.high if estimate else None
    wave = point.estimates["first_wave_ttft_s_mean"]
    return row | {
        "first_wave_requests": wave.n if wave else None,
        "send_lag_p99_s": point.client.send_lag_p99_s,
        "client_cpu_frac": point.client.cpu_frac,
        "loop_lag_p99_s": point.client.loop_lag_p99_s,
        "client_bound": point.client.bound,
        "slo_verdicts": ", ".join(f"{each.limit.name} {each.verdict}" for each in point.judged) or None,
        "weights": manifest.model.weights,
        "repeats": point.repeats,
        "failures": ", ".join(f"{n} {what}" for what, n in sorted(point.failures.items())) or None,
        "status": manifest.status,
        "price_usd_per_hour": price.usd_per_hour if price else None,
        "price_basis": _basis(price) if price else None,
        "host": manifest.host.hostname_hash,
        "notes": NOTE_SEPARATOR.join([*manifest.engine.notes, *point.notes, *_unmeasured(run, point)])
        or None,
        "run": str(run.folder),
    }


def _basis(price: Price) -> str:
    """Per what the price is, and whose word it is."""
    low, high = price.low_usd_per_hour, price.high_usd_per_hour
    spread = f", offers {low:.2f}–{high:.2f}" if low is not None and high is not None else ""
    return f"per {price.per}-hour, {price.source}{f', {price.date}' if price.date else ''}{spread}"


def _unmeasured(run: RunResult, point: metrics.PointResult) -> list[str]:
    """Why there is no power or energy: the probes' own words where no probe could be used."""
    if run.manifest.engine.device == "remote":
        return list(dict.fromkeys(point.reasons.values()))
    broken = [
        f"{p.probe}: {p.detail}" for p in run.manifest.probes if not p.usable and p.probe in ENERGY_PROBES
    ]
    if not point.reasons:
        return []
    if len(broken) == len(ENERGY_PROBES):
        return [f"no power or energy: {'; '.join(broken)}"]
    return [f"{name} n/a: {reason}" for name, reason in point.reasons.items()]


def _gpu_name(run: RunResult) -> str | None:
    used = set(run.manifest.engine.gpus)
    names = sorted({gpu.name for gpu in run.manifest.host.gpus if gpu.uuid in used})
    return " + ".join(names) or None


def host_differences(runs: Sequence[RunResult]) -> list[str]:
    """How the runs' machines and software differ, as lines; empty when all are alike."""
    found: list[str] = []
    for run in runs[1:]:
        for line in differences(runs[0].manifest.host, run.manifest.host):
            text = f"{run.folder.name}: {line}"
            if text not in found:
                found.append(text)
    return found


def same_load(row: dict[str, Any]) -> tuple[Any, ...]:
    """What rows share that may be compared with each other."""
    return row["scenario"], row["load"], row["concurrency"], row["load_requests_per_s"]


def best(table: Sequence[dict[str, Any]], column: str) -> dict[tuple[Any, ...], int]:
    """The row number holding the best value of ``column`` for each load with at least two rows: highest
    for rates, lowest for everything else.  A row in which the client was the limit is never the best."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, row in enumerate(table):
        if row[column] is not None:
            groups.setdefault(same_load(row), []).append(number)
    pick = max if column in HIGHER_IS_BETTER else min
    found = {}
    for key, held in groups.items():
        fair = [number for number in held if not table[number]["client_bound"]]
        if len(held) > 1 and fair:
            found[key] = pick(fair, key=lambda n: table[n][column])
    return found


def compare(paths: Iterable[str | Path], price: str | float | None = None) -> pd.DataFrame:
    """Run folders (or folders of them) → a DataFrame with COLUMNS; not measured is NA."""
    import pandas as pd

    return pd.DataFrame(rows(store.find(paths), price), columns=list(COLUMNS))
