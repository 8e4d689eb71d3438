"""A user's own GPU sheet, names as people write them, and the sanity of what is shipped."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from profiler import catalog, prices
from profiler.errors import InputError
from profiler.report import listing

MEASURED = """
[[gpu]]
gpu = "NVIDIA H200"
mem_gb = 139.8
mem_bw_gbs = 4010.2
dense_bf16_tflops = 701.0
measured = true
source = "measured 2026-11-22: best of 12 rounds"

[[gpu]]
gpu = "AMD EPYC 9654"
kind = "cpu"
cores = 2
mem_gb = 64
mem_bw_gbs = 21.5
dense_fp32_tflops = 0.31
source = "measured"

[[gpu]]
gpu = "Tenstorrent Wormhole"
mem_gb = 24
mem_bw_gbs = 576
dense_bf16_tflops = 131
driver_name = "WORMHOLE( N300)?"
source = "data sheet"
"""


@pytest.fixture
def sheet(tmp_path, monkeypatch):
    """Names a file for all that ask; the one given holds MEASURED."""
    path = tmp_path / "mine.toml"
    path.write_text(MEASURED)
    monkeypatch.setenv(catalog.SHEET_VARIABLE, str(path))
    return path


# -------------------------------------------------------------------------------------- the user's rows


def test_a_measured_row_lies_over_the_shipped_one(sheet):
    found = catalog.match_gpu("NVIDIA H200", 143771 << 20)
    assert (found.mem_bw_gbs, found.dense_bf16_tflops, found.measured) == (4010.2, 701.0, True)
    assert (found.gpu, found.tdp_w, found.fp8_tflops) == ("H200 SXM 141GB", 700, 1979), (
        "the rest is the catalog's"
    )
    assert found.sheet == str(sheet)
    assert catalog.default_price(found) == catalog.default_price(
        catalog.match_gpu("NVIDIA H200", only_shipped=True)
    )
    assert len(catalog.gpus()) == len(catalog.shipped()) + 2, "overlaid, not doubled"


def test_the_shipped_row_is_still_there(sheet):
    assert catalog.match_gpu("NVIDIA H200", 143771 << 20, only_shipped=True).mem_bw_gbs == 4800


def test_a_cpu_is_known_by_its_cores(sheet):
    assert catalog.match_gpu("AMD EPYC 9654", cores=2).dense_fp32_tflops == 0.31
    assert catalog.match_gpu("AMD EPYC 9654", cores=4) is None
    assert catalog.match_gpu("AMD EPYC 9654", 1 << 40, cores=2).kind == "cpu", "a host's memory varies"


def test_a_gpu_nobody_ships_is_known_by_its_own_pattern(sheet):
    assert catalog.match_gpu("Wormhole n300").gpu == "Tenstorrent Wormhole"
    assert catalog.find_gpus("tenstorrent wormhole")[0].mem_bw_gbs == 576
    assert catalog.gpus()[1].nvlink_gbs is None, "not given is unknown, not 0"


def test_everything_sees_it(sheet):
    rows = {row["gpu"]: row for row in listing.list_gpus()}
    assert rows["H200 SXM 141GB"]["from"] == f"{sheet} (measured)"
    assert rows["L4 24GB"]["from"] == "catalog"
    assert prices.parse("2.5", "Tenstorrent Wormhole").usd_per_hour == 2.5


def test_without_the_variable_nothing_changes(sheet, monkeypatch):
    monkeypatch.delenv(catalog.SHEET_VARIABLE)
    assert catalog.gpus() == catalog.shipped()


def test_a_list_shows_where_a_row_is_from(sheet):
    done = subprocess.run(
        [sys.executable, "-m", "profiler", "list", "gpus", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = {row["gpu"]: row for row in json.loads(done.stdout)}
    assert rows["AMD EPYC 9654"]["kind"] == "cpu"
    assert rows["H200 SXM 141GB"]["source"].startswith("measured 2026")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[[gpu]]\ngpu='X'\nsource='s'\nmem_gb=8\nmem_bw_gb=900",
            "unknown key 'mem_bw_gb' (did you mean 'mem_bw_gbs'?)",
        ),
        (
            "[[gpu]]\ngpu='X'\nsource='s'\nmem_gb=8\nmem_bw_gbs=3.35e12",
            "mem_bw_gbs: Expected `float` <= 200000.0, found 3350000000000.0 (10⁹ bytes/s)",
        ),
        (
            "[[gpu]]\ngpu='X'\nsource='s'\nmem_gb=8\nfp8_tflops=0",
            "fp8_tflops: Expected `float` >= 0.001, found 0 (10¹² FLOP/s)",
        ),
        ("[[gpu]]\ngpu='X'\nsource='s'\nmem_gb='8'", "mem_gb: Expected `float | null`, got `str`"),
        ("[[gpu]]\ngpu='X'\nsource='s'\nmem_bw_gbs=8", "mem_gb is missing, and the catalog has no such GPU"),
        ("[[gpu]]\ngpu='X'\nmem_gb=8", "missing required field `source`"),
        ("[[gpu]]\ngpu='X'\nsource='s'\nmem_gb=8\ndriver_name='X('", "driver_name: not a regular expression"),
        ("[gpu]\ngpu='X'", "made of [[gpu]] tables"),
        ("[[gpus]]\ngpu='X'", "found 'gpus'"),
        ("", "found nothing else"),
        ("[[gpu]\n", "not valid TOML"),
    ],
)
def test_a_wrong_sheet_is_one_line_with_file_and_key(tmp_path, monkeypatch, text, said):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        catalog.own(path)
    line = str(caught.value)
    assert said in line
    assert line.startswith(str(path))
    assert "\n" not in line
    monkeypatch.setenv(catalog.SHEET_VARIABLE, str(path))
    with pytest.raises(InputError, match=f"^{catalog.SHEET_VARIABLE}: "):
        catalog.gpus()


def test_a_sheet_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        catalog.own(tmp_path / "none.toml")


# --------------------------------------------------------------------------------------- finding by name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("H100", "H100 SXM5 80GB"),
        ("h100 pcie", "H100 PCIe 80GB"),
        ("H100-NVL", "H100 NVL 94GB"),
        ("h200", "H200 SXM 141GB"),
        ("H20", "H20 96GB"),
        ("A100", "A100 SXM4 80GB"),
        ("A100-80GB", "A100 SXM4 80GB"),
        ("a100 80gb pcie", "A100 PCIe 80GB"),
        ("A100-SXM-40GB", "A100 SXM4 40GB"),
        ("4090", "RTX 4090 24GB"),
        ("RTX4090", "RTX 4090 24GB"),
        ("4090 D", "RTX 4090 D 24GB"),
        ("3090ti", "RTX 3090 Ti 24GB"),
        ("A6000", "RTX A6000 48GB"),
        ("l4", "L4 24GB"),
        ("AMD Instinct MI300X", "MI300X 192GB"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM5 80GB"),
        ("GB200", "GB200 NVL72 (per GPU)"),
    ],
)
def test_names_as_people_write_them(name, expected):
    assert catalog.find_gpus(name)[0].gpu == expected


@pytest.mark.parametrize("name", ["", "80GB", "SXM", "H2", "H1000", "2xH100", "RTX"])
def test_what_names_no_gpu(name):
    assert catalog.find_gpus(name) == ()


@pytest.mark.parametrize("spec", catalog.shipped(), ids=lambda spec: spec.gpu)
def test_every_gpu_is_found_by_its_full_name(spec):
    assert catalog.find_gpus(spec.gpu) == (spec,)


def test_a_name_of_several_gives_them_all():
    assert {spec.gpu for spec in catalog.find_gpus("h100")} == {
        "H100 SXM5 80GB",
        "H100 PCIe 80GB",
        "H100 NVL 94GB",
    }


def test_the_nearest_are_named():
    assert "H100 SXM5 80GB" in catalog.nearest_gpus("H10O")
    assert catalog.nearest_gpus("zzzz") == ""


# ------------------------------------------------------------------------------------- what is shipped


@pytest.mark.parametrize("spec", catalog.shipped(), ids=lambda spec: spec.gpu)
def test_ratios_are_those_of_real_chips(spec):
    """A slip of a digit, a sparse rate for a dense one, or TB for GB would break one of these."""
    if spec.fp8_tflops and spec.dense_bf16_tflops:
        assert spec.fp8_tflops / spec.dense_bf16_tflops == pytest.approx(2, rel=0.03), (
            "dense 8-bit is twice 16-bit"
        )
    if spec.mem_bw_gbs and spec.dense_bf16_tflops:
        assert 30 < spec.dense_bf16_tflops * 1e3 / spec.mem_bw_gbs < 520, "FLOPs a byte"
    if spec.mem_bw_gbs:
        assert 4 < spec.mem_gb * 1e3 / spec.mem_bw_gbs < 90, "ms to read all of it"
    if spec.tdp_w and spec.dense_bf16_tflops:
        assert 0.15 < spec.dense_bf16_tflops / spec.tdp_w < 2.5, "TFLOP/s a watt"
    if spec.nvlink_gbs:
        assert 300 <= spec.nvlink_gbs <= 1800
