"""The catalog as text or JSON: models, GPUs, scenarios, claims.  What things cost is in ``price_lists``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from profiler import arch, catalog, scenario
from profiler.catalog.scores import quality
from profiler.charts.words import NA, significant
from profiler.claims import metrics, reading
from profiler.claims.nouns import Claim, Models
from profiler.report import price_lists
from profiler.schema import LoadPoint

Rows = Sequence[dict[str, Any]]


def list_models() -> Rows:
    """One row a published or built-in model: parameters, bf16 weight bytes, KV bytes per token."""
    configs = {name: (config, "built in") for name, config in catalog.tiny_models().items()}
    configs |= {name: (entry.config, entry.source) for name, entry in catalog.models().items()}
    found = [(name, arch.model_facts(config, source)) for name, (config, source) in configs.items()]
    return [
        {
            "model": name,
            "kind": facts.kind,
            "total_params": facts.total_params,
            "active_params": facts.active_params,
            "weights_bf16_bytes": 2 * facts.total_params,
            "kv_bytes_per_token": facts.kv_bytes_per_token,
            "source": facts.source,
        }
        for name, facts in found
    ]


def list_scenarios() -> Rows:
    found = [(name, scenario.load(name)) for name in sorted(scenario.names())]
    return [
        {
            "scenario": name,
            "load": each.load.mode,
            "points": ", ".join(_point(point) for point in scenario.points(each)) or "searched",
            "about": each.about,
        }
        for name, each in found
    ]


def _point(point: LoadPoint) -> str:
    """``8`` requests at once, or ``4/s``."""
    rate = point.requests_per_s
    return str(point.concurrency) if rate is None else f"{rate:.3g}/s"


def list_gpus() -> Rows:
    return [
        {
            "gpu": gpu.gpu,
            "memory_gb": gpu.mem_gb,
            "bandwidth_gb_per_s": gpu.mem_bw_gbs,
            "bf16_tflops": gpu.dense_bf16_tflops,
            "fp8_tflops": gpu.fp8_tflops,
            "fp32_tflops": gpu.dense_fp32_tflops,
            "tdp_w": gpu.tdp_w,
            "link_gb_per_s": gpu.nvlink_gbs,
            "kind": gpu.kind,
            "from": _origin(gpu),
            "source": gpu.source,
        }
        for gpu in catalog.gpus()
    ]


def _origin(gpu: catalog.GpuSpec) -> str:
    """The catalog, or the user's own sheet."""
    return f"{gpu.sheet}{' (measured)' if gpu.measured else ''}" if gpu.sheet else "catalog"


def list_quality() -> Rows:
    """One row a model and benchmark; what a row may be compared with is its benchmark's other rows."""
    return [
        {
            "benchmark": score.benchmark,
            "model": score.model,
            "score": score.value,
            "low": score.low,
            "high": score.high,
            "unit": score.unit,
            "scored_on": score.date,
            "source": score.source,
        }
        for score in sorted(quality(), key=lambda score: (score.benchmark, -score.value))
    ]


def list_claims() -> Rows:
    """One row a shipped claim: what is said, and what kind of evidence would tell."""
    return [
        {
            "claim": claim.id,
            "text": claim.text,
            "metric": claim.metric,
            "ratio": _ratio(claim),
            "cells": len(claim.grid()),
            "takes": _takes(claim),
            "subject": _models(claim.subject),
            "baseline": _models(claim.baseline),
            "tags": ", ".join(claim.tags),
            "date": claim.source.date,
            "source": claim.source.name,
            "url": claim.source.url,
        }
        for claim in reading.shipped()
    ]


def _ratio(claim: Claim) -> str:
    """Subject over baseline, as claimed."""
    if claim.relation in ("equal", "about"):
        return f"about {claim.factor or 1:g}"
    sign, factor = (">", claim.factor) if claim.relation == "more" else ("<", claim.factor)
    if factor is None:
        return f"{sign} 1"
    return f"≥ {factor:g}" if claim.relation == "more" else f"≤ 1/{factor:g}"


def _takes(claim: Claim) -> str:
    """What a verdict rests on."""
    if claim.untestable is not None:
        return "not testable"
    return "prices" if metrics.api_priced(claim) else metrics.of(claim.metric).kind


def _models(side: Models) -> str:
    """In words, one side of a claim."""
    who = side.api or side.gpu or side.language or ", ".join(side.names) or (side.kind and f"any {side.kind}")
    answers = f"answers of {side.output_tokens:,} tokens" if side.output_tokens else None
    return ", ".join(word for word in (who, answers) if word)


LISTINGS: dict[str, Callable[[], Rows]] = {
    "models": list_models,
    "scenarios": list_scenarios,
    "gpus": list_gpus,
    "prices": price_lists.list_prices,
    "api-prices": price_lists.list_api_prices,
    "capex": price_lists.list_capex,
    "grids": price_lists.list_grids,
    "quality": list_quality,
    "claims": list_claims,
}

# Terminal headers and units for columns that are not shown as they are stored.
SHOWN: dict[str, tuple[str, Callable[[Any], str]]] = {
    "total_params": ("total B", lambda v: significant(v / 1e9)),
    "active_params": ("active B", lambda v: significant(v / 1e9)),
    "weights_bf16_bytes": ("weights GiB bf16", lambda v: significant(v / 2**30)),
    "kv_bytes_per_token": ("KV bytes/token", lambda v: f"{v:,}"),
    "memory_gb": ("memory GB", lambda v: f"{v:,.0f}"),
    "bandwidth_gb_per_s": ("GB/s", lambda v: f"{v:,.0f}"),
    "bf16_tflops": ("bf16 TFLOP/s", lambda v: f"{v:,.0f}" if v >= 10 else significant(v)),
    "fp8_tflops": ("fp8", lambda v: f"{v:,.0f}"),
    "fp32_tflops": ("fp32", significant),
    "tdp_w": ("TDP W", lambda v: f"{v:,.0f}"),
    "link_gb_per_s": ("link GB/s", lambda v: f"{v:,.0f}"),
    "price_per_gpu_hour": ("per GPU-h", lambda v: f"{v:.2f}"),
    "per_m_input": ("in/M", lambda v: f"{v:.3f}"),
    "per_m_output": ("out/M", lambda v: f"{v:.3f}"),
    "per_m_cached_input": ("cached", lambda v: f"{v:.3f}"),
    "currency": ("in", str),
    "usd": ("USD", lambda v: f"{v:,.0f}"),
    "usd_per_gpu": ("USD/GPU", lambda v: f"{v:,.0f}"),
    "gpus": ("GPUs", str),
    "age_days": ("age", price_lists.age),
    "g_co2e_per_kwh": ("gCO2e/kWh", lambda v: f"{v:.0f}"),
    "year": ("year", str),
    "cells": ("cells", str),
    "score": ("score", "{:.1f}".format),
    "low": ("low", "{:.1f}".format),
    "high": ("high", "{:.1f}".format),
}
# Told by --json, and in the lines below a table where they matter.
WIDE = {"source", "item", "terms", "date", "doubtful", "current", "old"}
WIDE |= {"subject", "baseline", "tags", "url"}
WIDEST = {"vendor": 28, "provider": 18, "aliases": 34, "text": 76}


def render(rows: Rows, as_json: bool) -> str:
    """Aligned text without the sources and what nobody says, or JSON with everything, units in the keys."""
    if as_json:
        return json.dumps(list(rows), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    told = [column for column in rows[0] if any(row[column] is not None for row in rows)]
    columns = [column for column in told if column not in WIDE]
    table = [[SHOWN[c][0] if c in SHOWN else c for c in columns]]
    table += [[_cell(row[c], c) for c in columns] for row in rows]
    widths = [max(_width(line[place]) for line in table) for place in range(len(columns))]
    numeric = [c in SHOWN for c in columns]
    lines = [
        "  ".join(
            " " * (width - _width(text)) + text if number else text + " " * (width - _width(text))
            for text, width, number in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in table
    ]
    return "\n".join([*lines, *price_lists.below(rows)]) + "\n"


def _width(text: str) -> int:
    """Columns of a terminal: Chinese names take two a character."""
    from unicodedata import east_asian_width

    return sum(1 + (east_asian_width(each) in "WF") for each in text)


def _cell(value: Any, column: str) -> str:
    if column in SHOWN and (value is not None or column == "age_days"):
        return SHOWN[column][1](value)
    if value is None:
        return NA
    text, widest = str(value), WIDEST.get(column)
    return text if widest is None or len(text) <= widest else text[: widest - 1] + "…"
