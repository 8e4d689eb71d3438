"""Ceilings measured, written as a sheet, and read again."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from profiler import catalog, ceilings, doctor
from profiler.ceilings import Measured, Rate, sheet
from profiler.cli import catalog as commands
from profiler.errors import InputError, MeasurementError
from profiler.schema import Gpu
from tests import make

H200 = Gpu(uuid="GPU-1", name="NVIDIA H200", memory_bytes=150_754_820_096)
MACHINE = replace(make.HOST, cpu="AMD EPYC 9654", gpus=(H200,))


def rates(device, name="", **best):
    """The best round is the second of three."""
    return [
        Rate(device=device, name=name, what=what, size="1 GiB", per_s=[0.8 * value, value, 0.9 * value])
        for what, value in best.items()
    ]


GPU_RATES = rates("cuda", "NVIDIA H200", sum=4.0e12, copy=4.2e12, bf16=700e12, fp32=50e12, fp8=1300e12)
CPU_RATES = rates("cpu", sum=22e9, dot=32.4242e9, bf16=0.4e12, fp32=0.15e12)
FOUND = Measured(rates=(*GPU_RATES, *CPU_RATES))


def test_the_best_round_is_the_ceiling():
    rate = GPU_RATES[0]
    assert rate.best_per_s == 4.0e12
    assert rate.spread_frac == pytest.approx(0.1)
    assert ceilings.best(GPU_RATES, "sum", "copy").what == "copy"
    assert ceilings.best(GPU_RATES, "int4") is None


def test_a_sheet_is_read_as_it_was_measured(tmp_path, monkeypatch):
    path = tmp_path / "sheet.toml"
    path.write_text(sheet.toml(sheet.rows(FOUND, MACHINE, "2026-11-22")))
    monkeypatch.setenv(catalog.SHEET_VARIABLE, str(path))
    gpu = catalog.match_gpu(H200.name, H200.memory_bytes)
    assert (gpu.mem_bw_gbs, gpu.dense_bf16_tflops, gpu.fp8_tflops) == (4200, 700, 1300)
    assert gpu.measured
    assert "2026-11-22" in gpu.source
    assert (gpu.tdp_w, gpu.nvlink_gbs) == (700, 900), "what was not measured is the data sheet's"
    cpu = catalog.match_gpu("AMD EPYC 9654", cores=2)
    assert (cpu.mem_bw_gbs, cpu.dense_bf16_tflops, cpu.dense_fp32_tflops) == (32.42, 0.4, 0.15)
    assert cpu.fp8_tflops is None
    assert catalog.match_gpu("AMD EPYC 9654", cores=64) is None, "other cores, other ceilings"


def test_of_two_boards_of_one_name_the_faster_is_the_ceiling():
    slower = [replace(each, uuid="GPU-2", per_s=[each.per_s[0]]) for each in GPU_RATES]
    rows = sheet.rows(Measured(rates=(*slower, *GPU_RATES)), MACHINE, "2026-11-22")
    assert [(row["gpu"], row["mem_bw_gbs"]) for row in rows] == [("NVIDIA H200", 4200)]


def test_what_a_chip_has_not_is_left_out_and_said(tmp_path):
    lacks = Rate(
        device="cuda", name="NVIDIA H200", what="fp8", size="8192³", per_s=[], missing="no such unit"
    )
    found = Measured(rates=(*GPU_RATES[:3], lacks, *CPU_RATES))
    assert "fp8_tflops" not in sheet.rows(found, MACHINE, "2026-11-22")[0]
    assert "NVIDIA H200 fp8: not measured: no such unit" in doctor.ceiling_lines(found, MACHINE)


def test_the_doctor_holds_it_against_the_shipped_data_sheet(tmp_path, monkeypatch):
    path = tmp_path / "own.toml"
    path.write_text('[[gpu]]\ngpu = "NVIDIA H200"\nmem_bw_gbs = 1000\nsource = "mine"\n')
    monkeypatch.setenv(catalog.SHEET_VARIABLE, str(path))
    lines = doctor.ceiling_lines(FOUND, MACHINE)
    (copy,) = (line for line in lines if line.startswith("  copy"))
    assert "4,200.0 GB/s" in copy
    assert "spread 10.0% of 3 rounds" in copy
    assert copy.endswith("88% of the data sheet's 4,800")
    assert any(line.startswith("  fp8") and line.endswith("66% of the data sheet's 1,979") for line in lines)
    (bf16_on_cpu,) = (line for line in lines if line.startswith("  bf16") and "0.4 TFLOP/s" in line)
    assert "data sheet" not in bf16_on_cpu


def test_the_command_measures_and_writes(tmp_path, monkeypatch, capsys):
    busy = replace(FOUND, others=("other programs used 1.3 of 2 cores",))
    monkeypatch.setattr(ceilings, "measure", lambda cores: busy)
    monkeypatch.setattr(doctor.host, "collect", lambda: MACHINE)
    out = tmp_path / "sheet.toml"
    commands.doctor(measure=True, out=out)
    said = capsys.readouterr().out
    assert "other programs used 1.3 of 2 cores: a ceiling measured meanwhile may be too low" in said
    assert f"PROFILER_GPUS={out}" in said
    assert all("other programs used" in row.source for row in catalog.own(out)), "it stays with the figures"
    commands.doctor(measure=True, out=out)  # one of its own may be measured anew


def test_a_sheet_takes_no_other_files_place(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text("# by hand\n")
    for path, word in (
        (mine, "not written by"),
        (tmp_path, "a folder"),
        (tmp_path / "no" / "x", "no folder"),
    ):
        with pytest.raises(InputError, match=word):
            sheet.check_target(path)
    with pytest.raises(InputError, match="--out goes with --measure"):
        commands.doctor(out=tmp_path / "x")


# --------------------------------------------------------------------------------- the process


def test_a_machine_without_torch_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(ceilings, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install"):
        ceilings.measure(2)


def test_a_process_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(ceilings, "COMMAND", (sys.executable, "-c", "raise SystemExit('out of memory')"))
    with pytest.raises(MeasurementError, match="could not be measured: out of memory"):
        ceilings.measure(2)


def test_who_else_used_the_cores():
    before = ceilings._Cpu(100.0, 50.0, 10.0)
    cores = ceilings.os.cpu_count()
    span = 10.0
    after = ceilings._Cpu(100.0 + span * cores, 50.0 + 15.0, 10.0 + 8.0)
    (line,) = ceilings._busy_cpu(before, after, 2)
    assert line == f"other programs used 0.7 of {cores} cores"
    alone = ceilings._Cpu(100.0 + span * cores, 50.0 + 8.5, 10.0 + 8.0)
    assert list(ceilings._busy_cpu(before, alone, 2)) == []
    assert list(ceilings._busy_cpu(None, after, 2)) == []


def test_the_system_counts_what_this_process_does():
    before = ceilings._cpu_s()
    while ceilings._cpu_s().ours_s - before.ours_s < 0.05:
        sum(range(100_000))
    after = ceilings._cpu_s()
    assert after.busy_s - before.busy_s > 0.01
    assert after.all_s > before.all_s


@pytest.mark.parametrize(
    ("percent", "processes", "said"),
    [(0, 0, None), (3, 0, None), (40, 0, "40% busy and held 0"), (0, 2, "held 2 process(es)")],
)
def test_a_board_at_work_is_noticed(monkeypatch, percent, processes, said):
    library = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=percent),
        nvmlDeviceGetComputeRunningProcesses_v3=lambda handle: [object()] * processes,
    )
    monkeypatch.setattr(ceilings.nvml, "load", lambda: library)
    found = list(ceilings._busy_boards())
    assert found == [] if said is None else said in found[0]


def test_the_cpu_is_measured_for_real(monkeypatch):
    """Small, for time: that every rate comes out, of the right size, and in the order of what a core does."""
    pytest.importorskip("torch")
    from profiler.ceilings import child

    for name, value in {"CPU_BYTES": 1 << 22, "SECONDS_A_RATE": 0.02, "GPU_SIDE": 512}.items():
        monkeypatch.setattr(child, name, value)
    found = {rate.what: rate for rate in child._of_cpu()}
    assert list(found) == [*ceilings.BANDWIDTHS, "bf16", "fp32"]
    assert all(1e8 < found[what].best_per_s < 1e13 for what in ceilings.BANDWIDTHS)
    assert 1e6 < found["fp32"].best_per_s < 1e14
    assert found["fp32"].size in {f"{side}³" for side in (32, 64, 128, 256, 512)}


def test_a_rate_is_what_was_moved_over_the_time_it_took():
    pytest.importorskip("torch")
    from profiler.ceilings import child

    place, size = {"device": "cpu"}, 1 << 20
    found = {rate.what: rate.best_per_s for rate in child._bandwidths(place, size, lambda run: 0.5)}
    assert found == {"sum": 2 * size, "dot": 4 * size, "copy": 4 * size, "scale": 4 * size}
    assert child._flops(place, "bf16", 10, [2.0, 4.0]).best_per_s == 1000


def test_what_is_asked_of_a_gpu_can_be_asked(monkeypatch):
    """The same calls with the CPU in a GPU's place: no figure, but every call is one that torch has."""
    torch = pytest.importorskip("torch")
    from profiler.ceilings import child

    board = SimpleNamespace(name="NVIDIA H200", uuid="1-2", major=9, minor=0)
    for name, value in {
        "GPU_BYTES": 1 << 20,
        "GPU_SIDE": 256,
        "SECONDS_A_RATE": 0.02,
        "_by_events": child._clocked,
    }.items():
        monkeypatch.setattr(child, name, value)
    monkeypatch.setattr(child.torch, "device", lambda kind, index: SimpleNamespace(type="cpu"))
    real = {name: getattr(torch, name) for name in ("ones", "randn")}
    for name, make_one in real.items():
        monkeypatch.setattr(
            child.torch, name, lambda *size, device=None, make_one=make_one: make_one(*size, device="cpu")
        )
    monkeypatch.setattr(child.torch.cuda, "get_device_properties", lambda device: board)
    monkeypatch.setattr(child.torch.cuda, "mem_get_info", lambda device: (1 << 30, 1 << 30))
    found = list(child._of_gpu(0))
    assert [rate.what for rate in found] == [*ceilings.BANDWIDTHS, "bf16", "fp32", "fp8"]
    assert {(rate.name, rate.uuid) for rate in found} == {("NVIDIA H200", "GPU-1-2")}
    assert all(rate.per_s or rate.missing for rate in found)
    assert found[0].size == "0.00098 GiB"
