"""The published measurements that prediction is fitted to and checked against, as points.

    python -m benchmarks.prediction.rows FOLDER    # rebuilds rows.csv from FOLDER's measurements and claims

Sources, each row naming its own:

* ``ml-energy``: ml-energy/leaderboard@0cd52da ``public/data/tasks/lm-arena-chat.json`` (ML.ENERGY Benchmark
  3.0, vLLM 0.11.1, H100; a backlog of 1,024 chats at a fixed ``max_num_seqs``; steady window).
* ``qwen``: QwenLM/Qwen3@f4d356c ``speed_benchmark.rst`` (vLLM 0.4.2/0.6.3 and transformers 4.38/4.46 on A100,
  batch 1; tokens over the whole time, prompt included); the H20 rows are from the same project's
  ``speed_benchmark.md`` (SGLang 0.4.6).
* ``tensorrt-llm``: NVIDIA/TensorRT-LLM@258c7540 ``perf-overview.md`` (0.17, offline, as fast as it goes; the
  batch is not told).

What the ML.ENERGY rows do not say is assumed: prompts of INPUT_TOKENS, and output lengths that vary by
OUTPUT_CV.  That dataset's chats are sent turn by turn with what was said before (ml-energy/benchmark
``datasets.py``); the table shows how much either assumption matters.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec

from profiler import arch, catalog
from profiler.arch import work
from profiler.arch.shape import Shape
from profiler.predict.nouns import Deployment, Load, Point

HERE = Path(__file__).resolve().parent
ROWS = HERE / "rows.csv"
INPUT_TOKENS = 250.0
OUTPUT_CV = 0.7
COLUMNS = (
    "source",
    "model",
    "gpu",
    "tensor",
    "expert",
    "precision",
    "engine",
    "input_tokens",
    "output_tokens",
)
COLUMNS += ("concurrency", "batch_seen", "itl_s_p50", "output_tokens_per_s", "power_w_mean")
GPUS = {"H100": "H100 SXM5 80GB", "A100": "A100 SXM4 80GB", "L40S": "L40S 48GB", "H20": "H20 96GB"}
SAME_SHAPE = {
    "LLaMA v3.1 8B": "meta-llama/Meta-Llama-3.1-8B",
    "LLaMA v3.1 70B": "meta-llama/Meta-Llama-3.1-70B",
    "Mistral 7B": "mistralai/Mistral-7B-v0.1",
    "Qwen/Qwen2-0.5B-Instruct": "Qwen/Qwen2.5-0.5B",
    "Qwen/Qwen2-1.5B-Instruct": "Qwen/Qwen2.5-1.5B",
    "Qwen/Qwen2-7B-Instruct": "Qwen/Qwen2.5-7B",
}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration; None where the source does not say."""

    source: str
    model: str
    gpu: str
    tensor: int
    expert: int
    precision: str
    engine: str
    input_tokens: float | None
    output_tokens: float
    concurrency: float | None
    batch_seen: float | None
    itl_s_p50: float | None
    output_tokens_per_s: float
    power_w_mean: float | None

    @property
    def name(self) -> str:
        return self.model.rsplit("/", 1)[-1]


def rows(source: str) -> list[Row]:
    """Those of one source."""
    with ROWS.open(newline="", encoding="utf-8") as file:
        table = [{k: v or None for k, v in row.items()} for row in csv.DictReader(file)]
    return [row for row in msgspec.convert(table, list[Row], strict=False) if row.source == source]


def shape(model: str) -> Shape:
    """From the catalog."""
    entry = catalog.find(SAME_SHAPE.get(model, model))
    assert entry is not None, model
    return arch.shape(entry.config)


def gpu(name: str) -> catalog.GpuSpec:
    return next(spec for spec in catalog.gpus() if spec.gpu == name)


def deployment(row: Row) -> Deployment:
    eight_bit = row.precision.lower() == "fp8"
    each = 1.0 if eight_bit else 2.0
    # Meta's FP8 checkpoint quantises the feed-forward parts; TensorRT-LLM's all layers, and the cache.
    widths = work.Widths(
        routed=each,
        other=each,
        embedding=2.0,
        attention=2.0 if eight_bit and row.source == "ml-energy" else None,
        cache=1.0 if eight_bit and row.source == "tensorrt-llm" else 2.0,
        compute="fp8" if eight_bit else "bf16",
    )
    return Deployment(
        shape=shape(row.model),
        widths=widths,
        gpu=gpu(row.gpu),
        tensor=row.tensor,
        expert=row.expert,
        execution="eager" if row.engine.startswith("transformers") else "graph",
    )


def point(row: Row, input_tokens: float = INPUT_TOKENS, output_cv: float = OUTPUT_CV) -> Point:
    """``batch_seen`` (running on average in the window) is the load where the source tells it."""
    known = row.input_tokens is not None
    load = Load(
        concurrency=row.batch_seen or row.concurrency,
        input_tokens=row.input_tokens if known else input_tokens,
        output_tokens=row.output_tokens,
        output_cv=0.0 if known else output_cv,
        backlog=row.source == "ml-energy",
    )
    return Point(
        what=deployment(row),
        load=load,
        itl_s_p50=row.itl_s_p50,
        output_tokens_per_s=row.output_tokens_per_s,
        power_w_mean=row.power_w_mean,
    )


# --------------------------------------------------------------------------------------- rebuilding


def build(folder: Path) -> list[dict[str, Any]]:
    """Rows of the folder's files, one a configuration."""
    held: dict[tuple[Any, ...], dict[str, Any]] = defaultdict(dict)
    with (folder / "reference_measurements.csv").open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            _take(line, held)
    found = [{**dict.fromkeys(COLUMNS), **values} for values in held.values()]
    with (folder / "claims.csv").open(newline="", encoding="utf-8") as file:
        claims = {line["claim_id"]: line for line in csv.DictReader(file)}
    return found + _h20(claims)


def _take(line: dict[str, str], held: dict[tuple[Any, ...], dict[str, Any]]) -> None:
    energy = "ml-energy" in line["source"]
    source = "ml-energy" if energy else "qwen" if line["source"].startswith("QwenLM") else "tensorrt-llm"
    plain = line["precision"] in ("BF16", "bfloat16") or source == "tensorrt-llm" or energy
    metrics = {"median_itl": ("itl_s_p50", 1e-3), "output_throughput": ("output_tokens_per_s", 1.0)}
    metrics["avg_power_all_gpus"] = ("power_w_mean", 1.0)
    if (
        not plain
        or line["metric"] not in metrics
        or (source == "qwen" and "offline" in line["batch_or_concurrency"])
    ):
        return
    seen = re.search(r"avg_batch=([\d.]+)", line["source"])
    expert = re.search(r"EP(\d+)", line["source"])
    gpus = int(line["num_gpus"])
    layer_by_layer = line["engine"].startswith("transformers") and gpus > 1
    if layer_by_layer:  # spread over GPUs one after the other: not a mode that is predicted
        return
    key = (line["model"], line["gpu"], gpus, line["precision"], line["engine"], line["input_len"])
    key += (line["output_len"], line["batch_or_concurrency"], line["source"] if energy else "")
    name, scale = metrics[line["metric"]]
    if (
        name in held[key]
    ):  # a second setting of the same benchmark (a longer context allowed): the first stands
        return
    held[key] |= {
        "source": source,
        "model": line["model"],
        "gpu": GPUS[line["gpu"].split("-")[0]],
        "tensor": gpus,
        "expert": int(expert[1]) if expert else 1,
        "precision": line["precision"],
        "engine": line["engine"],
        "input_tokens": line["input_len"],
        "output_tokens": line["output_len"],
        "concurrency": line["batch_or_concurrency"] if source != "tensorrt-llm" else None,
        "batch_seen": seen[1] if seen else None,
        name: float(line["value"]) * scale,
    }


def _h20(claims: dict[str, dict[str, str]]) -> list[dict[str, Any]]:
    """The Qwen3 speeds on one H20, in the texts of claims C01 to C03."""
    found = {}
    for claim in ("C01", "C02", "C03"):
        line = claims[claim]
        pair = re.search(r"([\d.]+) vs (?:\S+: )?([\d.]+) tok/s", line["text"])
        assert pair, line["text"]
        found["Qwen/" + line["moe_model"]], found["Qwen/" + line["dense_model"]] = pair[1], pair[2]
    same = {"source": "qwen", "gpu": GPUS["H20"], "tensor": 1, "expert": 1, "precision": "BF16"}
    same |= {"engine": "sglang-0.4.6", "input_tokens": 1, "output_tokens": 2048, "concurrency": 1}
    return [
        dict.fromkeys(COLUMNS) | same | {"model": model, "output_tokens_per_s": speed}
        for model, speed in found.items()
    ]


if __name__ == "__main__":
    with ROWS.open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(build(Path(sys.argv[1])))
