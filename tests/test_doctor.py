"""What the doctor says of the load generator itself."""

from __future__ import annotations

import contextlib

import msgspec
import pytest

from profiler import doctor
from profiler.client import Calibration
from profiler.errors import LoadError
from profiler.schema import Gpu, ProbeStatus
from profiler.telemetry import rapl
from tests import make
from tests.powercap import zone


def found(chunks_per_s=1_000.0, **changes):
    values = {
        "chunks_per_s": chunks_per_s,
        "concurrency": 16,
        "requests": 30,
        "chunks": 1_000,
        "ttft_mean_error_frac": 0.001,
        "ttft_p99_error_frac": 0.002,
        "ttft_mean_error_s": 0.0001,
        "itl_mean_error_frac": 0.0,
        "itl_p99_error_frac": 0.03,
        "server_late_p99_s": 1e-5,
        "client_cpu_frac": 0.05,
        "client_cpu_s_per_chunk": 50e-6,
    }
    return Calibration(**values | changes)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, True),
        ({"ttft_mean_error_frac": 0.02, "ttft_mean_error_s": 0.00019}, True),
        ({"ttft_mean_error_frac": -0.009, "ttft_mean_error_s": -0.01}, True),
        ({"ttft_mean_error_frac": -0.02, "ttft_mean_error_s": -0.01}, False),
        ({"itl_p99_error_frac": 0.051}, False),
        ({"itl_p99_error_frac": None}, None),
        ({"ttft_mean_error_frac": None, "ttft_mean_error_s": None}, None),
    ],
)
def test_what_is_exact(changes, verdict):
    assert doctor.exact(found(**changes)) is verdict


def test_the_verdict_ends_at_the_first_rate_that_is_not_exact():
    bad = {"itl_p99_error_frac": 0.2}
    *_, verdict = doctor.client_lines([found(1_000), found(5_000), found(20_000, **bad)])
    assert verdict.endswith("up to 5,000 chunks/s")
    *_, verdict = doctor.client_lines([found(1_000), found(5_000, **bad), found(20_000)])
    assert verdict.endswith("up to 1,000 chunks/s")
    *_, verdict = doctor.client_lines([found(1_000), found(20_000)])
    assert verdict.endswith("up to 20,000 chunks/s, the most tried")
    *_, verdict = doctor.client_lines([found(**bad)])
    assert "not exact" in verdict


def test_a_row_and_what_is_missing():
    _, head, row, _ = doctor.client_lines([found(itl_p99_error_frac=None, client_cpu_s_per_chunk=None)])
    assert row.split() == ["1,000", "16", "+0.10", "%", "+0.20", "%", "n/a", "n/a"]
    assert len(head) == len(row)
    *_, why, verdict = doctor.client_lines([LoadError("the load process died")])
    assert why.strip() == "not measured: the load process died"
    assert verdict.endswith("n/a")


def test_a_load_generator_that_fails_ends_the_trials(monkeypatch):
    def fails_at_5000(_worker, chunks_per_s, *_):
        if chunks_per_s == 5_000:
            raise LoadError("died")
        return found(chunks_per_s)

    monkeypatch.setattr(doctor, "load_process", lambda: contextlib.nullcontext(None))
    monkeypatch.setattr(doctor, "calibrate_worker", fails_at_5000)
    first, failure = doctor.trials()
    assert first.chunks_per_s == 1_000
    assert str(failure) == "died"


@pytest.mark.timing
def test_the_section_is_there(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "TRIALS", ((500, 8),))
    monkeypatch.setattr(doctor, "TRIAL_S", 0.3)
    *_, row, verdict = doctor.text().splitlines()
    assert "exact" in verdict
    assert float(row.split()[0]) == pytest.approx(500, rel=0.15)
    assert capsys.readouterr().err.startswith("measuring the load generator itself")


# ------------------------------------------------------------------------------------- energy

BOARD = {"energy_mj": 1.0, "energy_period_s": 0.1, "power_w": 70.0, "foreign_processes": 0}
PACKAGE, DRAM = {"rapl:package-0": {"energy_uj": 1.0}}, {"rapl:package-0/dram": {"energy_uj": 1.0}}


def energy_lines(readings, *probes):
    card = Gpu(uuid="GPU-1", name="H100", memory_bytes=None)
    machine = msgspec.structs.replace(make.HOST, gpus=(card,) if "gpu:GPU-1" in readings else ())
    return doctor.energy_lines(doctor.Findings(machine, (), probes, readings))


def boundaries(readings):
    return [line.split(maxsplit=2) for line in energy_lines(readings)[-3:]]


def test_counters_of_a_made_tree_are_marked_where_the_host_is_promised():
    trial = ProbeStatus(probe="rapl", usable=True, detail="made up, under x: package-0, package-0/dram")
    *_, host, _ = energy_lines({**PACKAGE, **DRAM}, trial)
    assert "package-0 + package-0/dram (made up)" in host
    *_, host, _ = energy_lines({**PACKAGE, **DRAM}, msgspec.structs.replace(trial, detail="package-0"))
    assert "made up" not in host


def test_a_board_says_what_it_offers():
    line = energy_lines({"gpu:GPU-1": BOARD | {"power_limit_w": 700.0}})[1]
    assert line.strip() == (
        "H100 GPU-1: energy counter every 100 ms, "
        "power (how often shows only under a changing load), limit 700 W, nobody else on it"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"energy_mj": None}, "no energy counter"),
        ({"power_w": None}, "no power"),
        ({"power_period_s": 0.02}, "power every 20 ms"),
        ({"mig_enabled": 1.0}, "in MIG mode"),
        ({"foreign_processes": 2.0}, "2 process(es) of others"),
        ({"foreign_processes": None}, "cannot be told"),
    ],
)
def test_what_stands_against_a_boards_figures(changes, said):
    read = {name: value for name, value in (BOARD | changes).items() if value is not None}
    assert said in energy_lines({"gpu:GPU-1": read})[1]


def test_the_three_boundaries():
    both = boundaries({"gpu:GPU-1": BOARD, **PACKAGE, **DRAM})
    assert both == [
        ["✓", "boards", "energy counters of all GPUs"],
        ["✓", "host", "boards + package-0 + package-0/dram"],
        ["✓", "facility", "host × --pue"],
    ]
    assert [mark for mark, *_ in boundaries({"gpu:GPU-1": BOARD})] == ["✓", "✗", "✗"]
    assert [mark for mark, *_ in boundaries({})] == ["✗", "✗", "✗"]
    _, (mark, _, amd), _ = boundaries(PACKAGE)
    assert mark == "✓"
    assert "whole only where there is no GPU" in amd
    assert "memory: it is left out" in amd


def test_a_board_without_a_counter_leaves_the_host_unknown():
    (board, *_), (host, *_), _ = boundaries({"gpu:GPU-1": {"power_w": 70.0}, **PACKAGE})
    assert (board, host) == ("✗", "✗")


def test_how_to_grant_reading_for_good_is_said_where_it_is_needed():
    locked = ProbeStatus(probe="rapl", usable=False, detail=f"readable by root only: {rapl.GRANT}")
    assert any("udev" in line for line in energy_lines({}, locked))
    assert not any("udev" in line for line in energy_lines({}))


@pytest.mark.parametrize(
    ("boards", "words"),
    [
        ("h100", "energy counter every 100 ms"),
        ("h100?driver=mismatch", "no GPU is read"),
    ],
)
def test_simulated_boards_are_seen_as_they_are(boards, words, monkeypatch, tmp_path, capsys):
    for number, name in enumerate(("package-0", "psys")):
        zone(tmp_path, f"intel-rapl:{number}", name)
    monkeypatch.setenv("PROFILER_SIMULATED_NVML", boards)
    monkeypatch.setenv("PROFILER_POWERCAP", str(tmp_path))
    found = doctor.findings()
    shown = "\n".join(doctor.energy_lines(found))
    assert words in shown
    assert "package-0" in shown
    assert "psys" not in shown
    assert ("reading the boards" in capsys.readouterr().err) is (boards == "h100")
