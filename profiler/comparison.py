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

from profiler import consumption, cost, figures, memory, prices, store, utilisation
from profiler.errors import InputError
from profiler.figures import ENERGY_FACTS, STATISTICS, Figures
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
ESTIMATES = (
    "output_tokens_per_s",
    "requests_per_s",
    *(f"{name}_{statistic}" for name in LATENCIES for statistic in STATISTICS),
    "memory_weights_bytes",
    "memory_kv_bytes",
    "memory_peak_bytes",
    *consumption.ESTIMATES,
    *cost.ESTIMATES,
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
    measured = figures.of_runs(runs, None if pue is None else _pue(pue))
    alone = figures.prefill_s(measured)
    return [_row(each, _paid(each, price), alone[each.run]) for each in measured]


def _paid(found: Figures, price: str | float | None) -> Price | None:
    return found.price if price is None else prices.parse(str(price), found.gpu)


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


def _row(found: Figures, price: Price | None, prefill: Estimate | None) -> dict[str, Any]:
    row = dict(found.facts)
    estimates = found.estimates | cost.costs(found, price, found.gpus, prefill)
    for name in ESTIMATES:
        estimate = estimates.get(name)
        row[name] = estimate.value if estimate else None
        row[f"{name}_low"] = estimate.low if estimate else None
        row[f"{name}_high"] = estimate.high if estimate else None
    row["price_usd_per_hour"] = price.usd_per_hour if price else None
    row["price_basis"] = _basis(price) if price else None
    return {name: row[name] for name in COLUMNS}


def _basis(price: Price) -> str:
    """Per what the price is, and whose word it is."""
    low, high = price.low_usd_per_hour, price.high_usd_per_hour
    spread = f", offers {low:.2f}–{high:.2f}" if low is not None and high is not None else ""
    return f"per {price.per}-hour, {price.source}{f', {price.date}' if price.date else ''}{spread}"


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
