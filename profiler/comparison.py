"""Sealed runs → one tidy table, a row a load point.  The columns are a public contract (docs/results.md).

Values only: text is made by ``report.table``.  ``rows`` gives plain dicts so that the command line needs
no pandas; ``compare`` gives the same as a DataFrame.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiler import consumption, cost, memory, metrics, store, utilisation
from profiler.errors import InputError
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
    *consumption.ESTIMATES,
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
    *utilisation.ESTIMATES,
)
ENERGY_FACTS = (
    "energy_boundary",
    "pue",
    "idle_kind",
    "energy_counter_j",
    "energy_integral_j",
    "energy_disagreement_frac",
    "energy_statistical_frac",
    "energy_systematic_frac",
    "throttled_thermal_frac",
    "throttled_power_frac",
    "temperature_c_mean",
    "sm_clock_mhz_median",
    "shared_gpu",
)
CONTEXT = (
    "first_wave_requests",
    "send_lag_p99_s",
    "client_cpu_frac",
    "loop_lag_p99_s",
    "client_bound",
    "sampler_cpu_frac",
    "sampler_late_s_max",
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
    *ENERGY_FACTS,
    "energy_trouble",
    *memory.FIGURES,
    *utilisation.FACTS,
    *CONTEXT,
)
NOTE_SEPARATOR = " | "
SUMMARY = "summary.json"
HIGHER_IS_BETTER = (
    "output_tokens_per_s",
    "requests_per_s",
    "total_tokens_per_s",
    "input_tokens_per_s",
    "goodput_requests_per_s",
    "slo_met_frac",
)


def rows(
    runs: Sequence[RunResult], price: str | float | None = None, pue: str | float | None = None
) -> list[dict[str, Any]]:
    """One dict a load point with every name of COLUMNS, in that order; None where not measured.

    ``price`` (USD per hour or a price sheet, as for ``--price``) and ``pue`` override what each run was made
    with; a sheet is looked up for each run's own GPU.  Raises InputError.
    """
    building = None if pue is None else _pue(pue)
    measured = [(run, metrics.points(run, building)) for run in runs]
    table = []
    for run, points in measured:
        siblings = [p for other, found in measured if same_engine(run, other) for p in found]
        prefill = cost.prefill_s_per_token(points) or cost.prefill_s_per_token(siblings)
        paid = cost.parse_price(str(price), gpu_name(run)) if price is not None else run.manifest.price
        held = memory.account(run)
        for point in points:
            row = _row(run, point, paid, prefill) | memory.figures(held, point.point)
            table.append({name: row[name] for name in COLUMNS})
    return table


def _pue(given: str | float) -> float:
    try:
        value = float(given)
    except ValueError:
        value = math.nan
    if not 1 <= value < math.inf:
        raise InputError(
            f"--pue {given}: expected what the building takes over what the machine takes, 1.0 or more"
        )
    return value


def summarise(runs: Sequence[RunResult]) -> list[dict[str, Any]]:
    """The rows of runs that were just sealed; each run folder keeps its own as ``summary.json``."""
    table = rows(runs)
    for run in runs:
        own = [row for row in table if row["run"] == str(run.folder)]
        (run.folder / SUMMARY).write_text(as_json(own))
    return table


def as_json(table: Sequence[dict[str, Any]]) -> str:
    return json.dumps(list(table), indent=1, allow_nan=False) + "\n"


def same_engine(a: RunResult, b: RunResult) -> bool:
    """Whether two runs measured the same model, routed alike, on the same engine, precision and host."""
    ours, theirs = a.manifest, b.manifest
    return (
        ours.model.name == theirs.model.name
        and ours.engine.kind == theirs.engine.kind
        and ours.engine.version == theirs.engine.version
        and ours.scenario.engine == theirs.scenario.engine
        and ours.engine.routing == theirs.engine.routing
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
        "gpu": gpu_name(run),
        "gpus": len(gpus),
        "requests_ok": point.requests_ok,
        "requests_failed": sum(point.failures.values()),
    }
    used = utilisation.of_point(run, point)
    estimates = point.estimates | cost.costs(point, price, len(gpus), prefill) | used.estimates
    for name in ESTIMATES:
        estimate = estimates.get(name)
        row[name] = estimate.value if estimate else None
        row[f"{name}_low"] = estimate.low if estimate else None
        row[f"{name}_high"] = estimate.high if estimate else None
    wave = point.estimates["first_wave_ttft_s_mean"]
    row |= {name: point.consumed.facts.get(name) for name in ENERGY_FACTS}
    row |= {name: used.facts.get(name) for name in utilisation.FACTS}
    return row | {
        "energy_trouble": NOTE_SEPARATOR.join(point.consumed.trouble) or None,
        "first_wave_requests": wave.n if wave else None,
        "send_lag_p99_s": point.client.send_lag_p99_s,
        "client_cpu_frac": point.client.cpu_frac,
        "loop_lag_p99_s": point.client.loop_lag_p99_s,
        "client_bound": point.client.bound,
        "sampler_cpu_frac": point.sampling.cpu_frac,
        "sampler_late_s_max": point.sampling.late_s_max,
        "slo_verdicts": ", ".join(f"{each.limit.name} {each.verdict}" for each in point.judged) or None,
        "weights": manifest.model.weights,
        "repeats": point.repeats,
        "failures": ", ".join(f"{n} {what}" for what, n in sorted(point.failures.items())) or None,
        "status": manifest.status,
        "price_usd_per_hour": price.usd_per_hour if price else None,
        "price_basis": _basis(price) if price else None,
        "host": manifest.host.hostname_hash,
        "notes": NOTE_SEPARATOR.join([*_notes(run, point), *used.notes]) or None,
        "run": str(run.folder),
    }


def _basis(price: Price) -> str:
    """Per what the price is, and whose word it is."""
    low, high = price.low_usd_per_hour, price.high_usd_per_hour
    spread = f", offers {low:.2f}–{high:.2f}" if low is not None and high is not None else ""
    return f"per {price.per}-hour, {price.source}{f', {price.date}' if price.date else ''}{spread}"


def _notes(run: RunResult, point: metrics.PointResult) -> list[str]:
    consumed = point.consumed
    own = [*run.manifest.engine.notes, *point.notes, *consumed.notes]
    return [*own, *(consumed.trouble), *_unmeasured(run, consumed)]


def _unmeasured(run: RunResult, consumed: consumption.Consumption) -> list[str]:
    """Why figures of power or energy are missing: the probes' own words where no probe could be used."""
    if run.manifest.engine.device == "remote":
        return list(dict.fromkeys(consumed.reasons.values()))
    sources = [each for each in run.manifest.probes if each.of_energy]
    broken = {each.probe: each.detail for each in sources if not each.usable}
    if consumed.reasons and broken and len(broken) == len(sources):
        return [f"no power or energy: {'; '.join(f'{name}: {why}' for name, why in broken.items())}"]
    missing: dict[str, list[str]] = {}
    for name, why in consumed.reasons.items():
        if why not in consumed.trouble:
            missing.setdefault(_in_words(why, broken), []).append(consumption.WORDS[name])
    return [f"{', '.join(names)} n/a: {why}" for why, names in missing.items()]


def _in_words(why: str, broken: dict[str, str]) -> str:
    """What a probe says of itself instead of that nothing was sampled."""
    probe = "rapl" if "no cpu package energy was sampled" in why else "nvml"
    return f"{probe}: {broken[probe]}" if "energy was sampled" in why and probe in broken else why


def gpu_name(run: RunResult) -> str | None:
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
    for rates, lowest for everything else.  A row in which the client was the limit is never the best, nor
    is one on shared boards the best in power and energy."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, row in enumerate(table):
        if row[column] is not None:
            groups.setdefault(same_load(row), []).append(number)
    pick = max if column in HIGHER_IS_BETTER else min
    found = {}
    for key, held in groups.items():
        fair = [number for number in held if not _is_doubtful(table[number], column)]
        if len(held) > 1 and fair:
            found[key] = pick(fair, key=lambda n: table[n][column])
    return found


def _is_doubtful(row: dict[str, Any], column: str) -> bool:
    return bool(row["client_bound"] or (row["shared_gpu"] and column in consumption.ESTIMATES))


def compare(
    paths: Iterable[str | Path], price: str | float | None = None, pue: float | None = None
) -> pd.DataFrame:
    """Run folders (or folders of them) → a DataFrame with COLUMNS; not measured is NA."""
    import pandas as pd

    return pd.DataFrame(rows(store.find(paths), price, pue), columns=list(COLUMNS))
