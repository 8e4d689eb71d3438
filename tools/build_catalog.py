"""Rebuild ``profiler/catalog/{models.json,gpus.csv,gpu_prices.csv}`` from the collected fact files.

    python tools/build_catalog.py model_catalog.json gpu_specs.csv gpu_prices.csv

Adds to the facts only how a GPU is recognised: the pattern of its driver name and its names in price lists.
"""

from __future__ import annotations

import csv
import json
import sys
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
    "H20 96GB": (r"H20", "H20"),
    "L20 48GB": (r"L20", "L20"),
    "L2 24GB": (r"L2", "L2"),
    "A100 SXM4 40GB": (r"A100 SXM4? 40GB", "A100 SXM 40GB|A100 40GB"),
    "A100 PCIe 40GB": (r"A100 PCIE 40GB", "A100 PCIe 40GB|A100 40GB"),
    "A100 SXM4 80GB": (r"A100 SXM4? 80GB", "A100 SXM 80GB|A100 80GB"),
    "A100 PCIe 80GB": (r"A100 (80GB PCIE|PCIE 80GB)", "A100 PCIe 80GB|A100 80GB"),
    "A800 SXM4 80GB": (r"A800 SXM4 80GB", ""),
    "A800 PCIe 80GB": (r"A800 (80GB PCIE|PCIE 80GB)", ""),
    "A800 PCIe 40GB": (r"A800 (40GB PCIE|PCIE 40GB|40GB ACTIVE)", ""),
    "L40S 48GB": (r"L40S", "L40S"),
    "L40 48GB": (r"L40", "L40"),
    "L4 24GB": (r"L4", "L4"),
    "RTX 4090 24GB": (r"RTX 4090", "RTX 4090"),
    "RTX 4090 D 24GB": (r"RTX 4090 D", ""),
    "RTX 5090 32GB": (r"RTX 5090", "RTX 5090"),
    "RTX 3090 24GB": (r"RTX 3090", "RTX 3090"),
    "RTX 3090 Ti 24GB": (r"RTX 3090 TI", ""),
    "RTX A6000 48GB": (r"RTX A6000", "RTX A6000"),
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


def main(models: str, gpus: str, prices: str) -> None:
    write_models(Path(models))
    write_csv("gpus.csv", [gpu(row) for row in rows_of(Path(gpus))])
    write_csv("gpu_prices.csv", rows_of(Path(prices)))


if __name__ == "__main__":
    main(*sys.argv[1:])
