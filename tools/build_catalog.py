"""Rebuild the models, GPUs and prices of ``profiler/catalog`` from a folder of collected facts.

    python tools/build_catalog.py FACTS

FACTS holds ``model_catalog.json``, ``gpu_specs.csv`` and the price files of the catalog's names.  Added to
the facts are how a GPU is recognised (the pattern of its driver name, its names in price lists), who a token
price is asked by, which GPU a price of hardware is for, and prices of cached input from one more source.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CATALOG = Path(__file__).resolve().parent.parent / "profiler" / "catalog"

KEPT = [
    "id",
    "kind",
    "release",
    "license",
    "config",
    "published_total_params_b",
    "published_active_params_b",
    "published_source",
    "source",
    "checkpoint_quantization",
    "variants",
    "computed_total_params",
    "computed_text_params",
    "computed_vision_params",
    "computed_active_params",
    "computed_routed_expert_params",
    "computed_mtp_params",
    "total_scope",
    "active_convention",
    "verified_by",
    "kv_cache_bytes_per_token_bf16",
    "notes",
]

# GPU → (pattern of the driver's name in capitals, without NVIDIA, GEFORCE and hyphens; names in price lists,
# exact ones first, then after "|" those that do not say which variant they mean).
RECOGNISED = {
    "H100 SXM5 80GB": (r"H100( SXM5?)?( 80GB)?( HBM3)?", "H100 SXM|H100"),
    "H100 PCIe 80GB": (r"H100 PCIE( 80GB)?", "H100 PCIe|H100"),
    "H100 NVL 94GB": (r"H100 NVL", "H100 NVL|H100"),
    "H200 SXM 141GB": (r"H200( SXM)?( 141GB)?( HBM3E)?", "H200 SXM|H200"),
    "H800 SXM5 80GB": (r"H800( SXM5)?( 80GB)?", "H800"),
    "H20 96GB": (r"H20", "H20 + H20 96GB"),
    "L20 48GB": (r"L20", "L20"),
    "L2 24GB": (r"L2", "L2"),
    "A100 SXM4 40GB": (r"A100 SXM4? 40GB", "A100 SXM 40GB|A100 40GB"),
    "A100 PCIe 40GB": (r"A100 PCIE 40GB", "A100 PCIe 40GB|A100 40GB"),
    "A100 SXM4 80GB": (r"A100 SXM4? 80GB", "A100 SXM 80GB|A100 80GB"),
    "A100 PCIe 80GB": (r"A100 (80GB PCIE|PCIE 80GB)", "A100 PCIe 80GB|A100 80GB"),
    "A800 SXM4 80GB": (r"A800 SXM4 80GB", "|A800 80GB"),
    "A800 PCIe 80GB": (r"A800 (80GB PCIE|PCIE 80GB)", "|A800 80GB"),
    "A800 PCIe 40GB": (r"A800 (40GB PCIE|PCIE 40GB|40GB ACTIVE)", ""),
    "L40S 48GB": (r"L40S", "L40S"),
    "L40 48GB": (r"L40", "L40"),
    "L4 24GB": (r"L4", "L4"),
    "RTX 4090 24GB": (r"RTX 4090", "RTX 4090"),
    "RTX 4090 D 24GB": (r"RTX 4090 D", "RTX 4090 D"),
    "RTX 5090 32GB": (r"RTX 5090", "RTX 5090"),
    "RTX 3090 24GB": (r"RTX 3090", "RTX 3090"),
    "RTX 3090 Ti 24GB": (r"RTX 3090 TI", ""),
    "RTX A6000 48GB": (r"RTX A6000", "RTX A6000 + A6000 48GB"),
    "RTX 6000 Ada 48GB": (r"RTX 6000 ADA( GENERATION)?", ""),
    "RTX PRO 6000 Blackwell Server 96GB": (r"RTX PRO 6000 BLACKWELL SERVER( EDITION)?", ""),
    "A10 24GB": (r"A10", "A10 24GB"),
    "A30 24GB": (r"A30", ""),
    "T4 16GB": (r"(TESLA )?T4", "T4"),
    "GH200 141GB": (r"GH200( \d+GB)?", "GH200"),
    "B200 SXM 180GB": (r"B200( SXM)?", "B200 SXM|B200"),
    "B300 SXM": (r"B300( SXM6?( AC)?)?", "B300 SXM"),
    "GB200 NVL72 (per GPU)": (r"GB200", "GB200 NVL72 + GB200 (per GPU; $9.08 per 2-GPU superchip)"),
    "GB300 NVL72 (per GPU)": (r"GB300", "GB300 NVL72"),
    "MI300X 192GB": (r"(AMD INSTINCT )?MI300X.*", "MI300X"),
    "MI325X 256GB": (r"(AMD INSTINCT )?MI325X.*", "MI325X"),
    "MI355X 288GB": (r"(AMD INSTINCT )?MI355X.*", "MI355X"),
}


def model(fact: dict[str, Any]) -> dict[str, Any]:
    kept = {key: fact[key] for key in KEPT if fact.get(key) not in (None, [], "")}
    if "hub_id" in fact:
        kept["hub_id"] = fact["hub_id"].split(" ")[0]
    return kept


def write_models(source: Path) -> None:
    facts = json.loads(source.read_text())
    lines = (json.dumps(model(fact), ensure_ascii=False, separators=(",", ":")) for fact in facts)
    (CATALOG / "models.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


def write_csv(target: str, rows: list[dict[str, str]]) -> None:
    with (CATALOG / target).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def gpu(row: dict[str, str]) -> dict[str, str]:
    pattern, prices = RECOGNISED[row["gpu"]]
    source = row.pop("source")
    return {**row, "driver_name": pattern, "price_names": prices, "source": source}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------------------------------- token prices

# Where a row's source sends the reader → who asks the price.  The first that is found counts.
PROVIDERS = {
    "China price list": "Alibaba (China)",
    "openai.com": "OpenAI",
    "anthropic.com": "Anthropic",
    "together.ai": "Together",
    "alibabacloud.com": "Alibaba",
    "Alibaba Cloud": "Alibaba",
    "mistral.ai": "Mistral",
    "openrouter.ai": "OpenRouter",
    "deepseek": "DeepSeek",
    "artificialanalysis.ai": "(several, by Artificial Analysis)",
    "z.ai": "Z.ai",
    "deepinfra.com": "DeepInfra",
    "moonshot.ai": "Moonshot",
    "llm-leaderboard": "(not named, by llm-stats)",
}
# Providers as the leaderboard spells them, where capitals do not do.
SPELLED = {
    "openai": "OpenAI",
    "bedrock": "AWS Bedrock",
    "google": "Google Vertex",
    "deepinfra": "DeepInfra",
    "deepseek": "DeepSeek",
    "sambanova": "SambaNova",
}
MAKERS = {"gpt": "OpenAI", "o1": "OpenAI", "claude": "Anthropic", "deepseek": "DeepSeek", "qwen": "Alibaba"}
# (model, provider) → USD per 10⁶ tokens of cached input, and whose word it is.
LLM_PRICES = "simonw/llm-prices@723ef0b (2026-08-05)"
CACHED = {
    ("gpt-4o", "OpenAI"): ("1.25", LLM_PRICES),
    ("gpt-4o-mini-2024-07-18", "OpenAI"): ("0.075", LLM_PRICES),
    ("o1", "OpenAI"): ("7.5", LLM_PRICES),
    ("o1-preview", "OpenAI"): ("7.5", LLM_PRICES),
    ("o1-mini", "OpenAI"): ("0.55", LLM_PRICES),
    ("o3-mini", "OpenAI"): ("0.55", LLM_PRICES),
    ("gpt-5-high", "OpenAI"): ("0.125", LLM_PRICES),
    ("gpt-5.1", "OpenAI"): ("0.125", LLM_PRICES),
    ("kimi-k2-0905-preview", "Moonshot"): ("0.15", LLM_PRICES),
    ("kimi-k2-0711-preview", "Moonshot"): ("0.15", LLM_PRICES),
    ("deepseek-v4-flash", "DeepSeek"): ("0.028", LLM_PRICES),
    ("deepseek-v4-pro", "DeepSeek"): ("0.145", LLM_PRICES),
    ("deepseek-r1", "DeepSeek"): ("0.14", "deepseek-ai/open-infra-index day 6"),
}
NAMED = {"deepseek-reasoner (R1)": "deepseek-r1"}


def api_price(row: dict[str, str]) -> dict[str, str]:
    """A fact with its provider, terms and cached input in columns of their own; a row that has them stays."""
    if "provider" in row:
        return row
    fact = dict(row)
    model, source, date = (fact.pop(key) for key in ("model", "source", "date"))
    written, _, remark = NAMED.get(model, model).partition(" (")
    plain = written.removesuffix(" fp8")
    provider = remark.rstrip(")") if "OpenRouter" in source else provider_of(written, source)
    if plain != model and not remark.startswith("cache hit"):
        source += f"; listed as {model}"
    currency = next(iter(fact)).partition("_")[0]
    if remark.startswith("cache hit"):  # the same page asks 0.55 for input that is not cached
        fact["usd_per_m_input"] = "0.55"
    cached, said = CACHED.get((plain, provider), ("", ""))
    return {
        "model": plain,
        "provider": provider,
        "kind": "batch" if remark.startswith("batch") else "list",
        **fact,
        f"{currency}_per_m_cached_input": cached,
        "date": date,
        "source": source + (f"; cached input: {said}" if cached and said != source else ""),
    }


def provider_of(model: str, source: str) -> str:
    if found := re.search(r"llm-stats:(\w+)", source):
        return SPELLED.get(found[1], found[1].capitalize())
    if "simonw" in source:
        return next(maker for begins, maker in MAKERS.items() if model.startswith(begins))
    where = source.rpartition("orig ")[2]
    return next(provider for part, provider in PROVIDERS.items() if part in where)


# ------------------------------------------------------------------------------------- prices of hardware

# Item → (GPU of gpus.csv, how many, what is in the price).
BOUGHT = {
    "H100 SXM (DGX/8, incl. server share)": ("H100 SXM5 80GB", "1", "server share"),
    "HGX H20": ("H20 96GB", "1", "card"),
    "L20": ("L20 48GB", "1", "card"),
    "A100 SXM 40GB": ("A100 SXM4 40GB", "1", "card"),
    "MI300X": ("MI300X 192GB", "1", "card"),
    "RTX 4090": ("RTX 4090 24GB", "1", "card"),
    "RTX 3090": ("RTX 3090 24GB", "1", "card"),
    "RTX A6000": ("RTX A6000 48GB", "1", "card"),
    "RTX 6000 Ada": ("RTX 6000 Ada 48GB", "1", "card"),
    "A10 PCIe": ("A10 24GB", "1", "card"),
    "8xH100 node": ("H100 SXM5 80GB", "8", "node"),
    "GB200 NVL72 rack": ("GB200 NVL72 (per GPU)", "72", "rack"),
}


def bought(row: dict[str, str]) -> dict[str, str]:
    """A fact with what it is the price of; a row that says so stays."""
    if "gpu" in row:
        return row
    gpu, count, scope = BOUGHT[row["item"]]
    kept = {key: row[key] for key in ("usd", "date", "source")}
    return {"item": row["item"], "gpu": gpu, "gpus": count, "scope": scope, **kept}


# How the rows of each price file are made of the facts of the same name.
PRICES: dict[str, Callable[[dict[str, str]], dict[str, str]]] = {
    "gpu_prices.csv": dict,
    "gpu_prices_cny.csv": dict,
    "api_prices.csv": api_price,
    "api_prices_cny.csv": api_price,
    "gpu_capex.csv": bought,
}


def main(folder: str) -> None:
    facts = Path(folder)
    write_models(facts / "model_catalog.json")
    write_csv("gpus.csv", [gpu(row) for row in rows_of(facts / "gpu_specs.csv")])
    for name, row_of in PRICES.items():
        write_csv(name, [row_of(row) for row in rows_of(facts / name)])


if __name__ == "__main__":
    main(*sys.argv[1:])
