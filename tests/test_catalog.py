"""The shipped data: complete, sourced, and recognised from what a driver reports."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from profiler import catalog
from profiler.schema import Model
from profiler.weight_sizes import widths
from tools import build_catalog

MIB = 1 << 20
ROOT = Path(__file__).resolve().parent.parent


def spec(name: str) -> catalog.GpuSpec:
    return next(gpu for gpu in catalog.gpus() if gpu.gpu == name)


def test_all_published_models_are_there():
    models = catalog.models()
    assert len(models) == 67
    assert {
        "Qwen/Qwen2.5-72B",
        "deepseek-ai/DeepSeek-V3",
        "openai/gpt-oss-120b",
        "google/gemma-2-27b",
    } < models.keys()
    assert sum(entry.kind == "moe" for entry in models.values()) == 29


@pytest.mark.parametrize("entry", catalog.models().values(), ids=lambda entry: entry.id)
def test_every_model_is_whole_and_sourced(entry):
    assert entry.source
    assert entry.published_source
    assert entry.license
    assert entry.config["model_type"]
    assert entry.computed_active_params <= entry.computed_text_params <= entry.computed_total_params
    assert (entry.computed_routed_expert_params > 0) == (entry.kind == "moe")
    if entry.published_total_params_b is not None:
        assert entry.computed_total_params == pytest.approx(entry.published_total_params_b * 1e9, rel=0.07)


def test_tiny_models_are_configs():
    assert {"tiny-moe", "tiny-dense", "tiny-dense-active"} == catalog.tiny_models().keys()
    assert all(config["model_type"].startswith("qwen3") for config in catalog.tiny_models().values())


def test_specifications_are_sourced_and_unknown_is_not_zero():
    assert len(catalog.gpus()) == 37
    for gpu in catalog.gpus():
        assert gpu.source
        assert gpu.mem_gb > 0
        assert 0 not in (gpu.mem_bw_gbs, gpu.dense_bf16_tflops, gpu.fp8_tflops, gpu.tdp_w)
    assert spec("H100 SXM5 80GB").mem_bw_gbs == 3350
    assert spec("A100 SXM4 80GB").fp8_tflops is None
    assert spec("L40S 48GB").nvlink_gbs == 0, "it has none: a fact, not a gap"


@pytest.mark.parametrize(
    ("driver_name", "mib", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", 81559, "H100 SXM5 80GB"),
        ("NVIDIA H100 PCIe", 81559, "H100 PCIe 80GB"),
        ("NVIDIA H100 NVL", 95830, "H100 NVL 94GB"),
        ("NVIDIA H200", 143771, "H200 SXM 141GB"),
        ("NVIDIA A100-SXM4-80GB", 81920, "A100 SXM4 80GB"),
        ("NVIDIA A100-SXM4-40GB", 40960, "A100 SXM4 40GB"),
        ("NVIDIA A100 80GB PCIe", 81920, "A100 PCIe 80GB"),
        ("NVIDIA A100-PCIE-40GB", 40960, "A100 PCIe 40GB"),
        ("NVIDIA GeForce RTX 4090", 24564, "RTX 4090 24GB"),
        ("NVIDIA GeForce RTX 4090 D", 24564, "RTX 4090 D 24GB"),
        ("NVIDIA GeForce RTX 3090 Ti", 24564, "RTX 3090 Ti 24GB"),
        ("NVIDIA L40S", 46068, "L40S 48GB"),
        ("NVIDIA L4", 23034, "L4 24GB"),
        ("NVIDIA RTX A6000", 49140, "RTX A6000 48GB"),
        ("NVIDIA RTX 6000 Ada Generation", 49140, "RTX 6000 Ada 48GB"),
        ("Tesla T4", 15360, "T4 16GB"),
        ("NVIDIA B200", 183359, "B200 SXM 180GB"),
        ("NVIDIA H20", 97871, "H20 96GB"),
        # Not the same product, though the name begins alike: no match is better than a wrong one.
        ("NVIDIA H200 NVL", 143771, None),
        ("NVIDIA A10G", 23028, None),
        ("NVIDIA GH200 480GB", 97871, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16376, None),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", 40448, None),
        ("NVIDIA H20", 143771, None),
        ("", None, None),
    ],
)
def test_gpus_are_recognised_by_their_driver_name(driver_name, mib, expected):
    found = catalog.match_gpu(driver_name, mib * MIB if mib else None)
    assert (found.gpu if found else None) == expected


def test_the_catalog_can_be_rebuilt(tmp_path):
    """``tools/build_catalog.py`` writes the same bytes from facts in the shape they were collected in."""
    before = {
        path.name: path.read_bytes() for path in catalog.FOLDER.iterdir() if path.suffix in (".csv", ".json")
    }
    specs = list(csv.DictReader(before["gpus.csv"].decode().splitlines()))
    plain = [key for key in specs[0] if key not in ("driver_name", "price_names")]
    with (tmp_path / "gpu_specs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, plain, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(specs)
    (tmp_path / "model_catalog.json").write_text(json.dumps(json.loads(before["models.json"])))
    for name in before.keys() & build_catalog.PRICES:
        (tmp_path / name).write_bytes(before[name])
    subprocess.run([sys.executable, str(ROOT / "tools/build_catalog.py"), str(tmp_path)], check=True)
    after = {name: (catalog.FOLDER / name).read_bytes() for name in before}
    assert after == before


@pytest.mark.parametrize(
    ("name", "shapes_of"),
    [
        ("meta-llama/Llama-3.3-70B-Instruct", "meta-llama/Meta-Llama-3.1-70B"),
        ("llama-3.3-70b", "meta-llama/Meta-Llama-3.1-70B"),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "Qwen/Qwen3-30B-A3B"),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "Qwen/Qwen3-235B-A22B"),
        ("meta-llama/Llama-3.1-405B-Instruct-FP8", "meta-llama/Meta-Llama-3.1-405B"),
    ],
)
def test_models_of_the_same_shapes_are_found(name, shapes_of):
    entry = catalog.find(name)
    assert entry is not None
    assert entry.id == shapes_of


@pytest.mark.parametrize(
    ("ending", "bytes_each"), [("-FP8", 1), ("-AWQ", 0.5), ("-GPTQ-Int4", 0.5), ("-GPTQ-Int8", 1), ("", 2)]
)
def test_a_number_format_in_the_name_is_that_of_the_weights(ending, bytes_each):
    name = f"Qwen/Qwen3-235B-A22B{ending}"
    entry = catalog.find(name)
    assert entry is not None
    model = Model(name=name, weights="hub", config=entry.config)
    assert widths(model, "bfloat16").routed == pytest.approx(bytes_each, rel=0.05)
    drawn = Model(name=name, weights="random", config=entry.config)
    assert widths(drawn, "bfloat16").routed == 2


def test_a_name_that_only_ends_like_a_format_is_not_found():
    assert catalog.find("Qwen/Qwen9-1B-FP8") is None


def test_every_hand_kept_shape_names_its_source_and_an_entry():
    for other in catalog._others():
        assert other.source
        assert other.shapes_of in catalog.models()
