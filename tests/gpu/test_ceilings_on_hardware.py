"""The two ceilings of a real NVIDIA GPU, and a load held against them; skipped where there is none."""

from __future__ import annotations

import importlib.util

import pytest

import profiler
from profiler import catalog, ceilings, comparison, doctor, host

MACHINE = host.collect()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not MACHINE.gpus, reason="no NVIDIA GPU here"),
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed"),
]
# Of the data sheet's figures: the best that was published for bf16 is .80 (H100), .87 (A100), .78 (B200), by
# ml-engineering's search; above the sheet a figure would be wrong.
BANDWIDTH, MATRIX, FP8 = (0.75, 1.02), (0.55, 1.05), (0.45, 1.05)


@pytest.fixture(scope="module")
def found():
    return ceilings.measure(MACHINE.cores)


def test_every_gpu_reaches_its_data_sheet_nearly(found):
    names = {gpu.name: gpu.memory_bytes for gpu in MACHINE.gpus}
    assert set(found.of_gpus()) == set(names)
    for name, rates in found.of_gpus().items():
        spec = catalog.match_gpu(name, names[name], only_shipped=True)
        if spec is None:
            pytest.skip(f"no data sheet of {name}")
        by_sheet = {
            "bandwidth": (ceilings.best(rates, *ceilings.BANDWIDTHS), spec.mem_bw_gbs, 1e9, BANDWIDTH),
            "bf16": (ceilings.best(rates, "bf16"), spec.dense_bf16_tflops, 1e12, MATRIX),
            "fp8": (ceilings.best(rates, "fp8"), spec.fp8_tflops, 1e12, FP8),
        }
        for what, (rate, stated, unit_per_s, (low, high)) in by_sheet.items():
            if stated is None:
                continue
            assert rate is not None, what
            assert low < rate.best_per_s / unit_per_s / stated < high, what
            assert rate.spread_frac < 0.2, what


def test_boards_are_told_apart_and_have_nvmls_names(found):
    uuids = {rate.uuid for rate in found.rates if rate.device == "cuda"}
    assert uuids == {gpu.uuid for gpu in MACHINE.gpus}


def test_a_load_is_held_against_what_was_measured(found, tmp_path, monkeypatch):
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers is not installed")
    sheet = tmp_path / "sheet.toml"
    monkeypatch.setattr(doctor.ceilings, "measure", lambda cores: found)
    doctor.measured(sheet)
    monkeypatch.setenv(catalog.SHEET_VARIABLE, str(sheet))
    overrides = ("measure.window_s=5", "measure.repeats=1", "load.concurrency=1,16")
    runs = profiler.run(
        ["tiny-moe", "tiny-dense"],
        "smoke",
        overrides,
        engine="transformers",
        weights="random",
        out=tmp_path,
    )
    for row in comparison.rows(runs):
        assert row["ceiling_source"].startswith("measured")
        assert 0 < row["s_mbu_frac"] <= row["mbu_frac"] * 1.001
        assert 0 < row["ceiling_frac"] < 1
