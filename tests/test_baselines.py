"""Idle baselines: which are held when, and that nothing is waited for where no energy is read."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import psutil
import pytest

from profiler import baselines, store
from profiler.errors import EngineError
from profiler.schema import ProbeStatus
from profiler.telemetry import Sampler
from profiler.telemetry.idle_context import READY
from tests import make
from tests.test_cli import SIM, ours, start, wait_until


@pytest.fixture
def writer(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "SETTLE_S", 0.1)
    made = make.writer(tmp_path, [])
    yield made
    made.close()


@pytest.mark.parametrize(
    ("nvml", "rapl", "reads"), [(False, False, False), (True, False, True), (False, True, True)]
)
def test_idle_is_worth_the_time_only_where_energy_is_read(tmp_path, nvml, rapl, reads):
    sampler = Sampler(tmp_path / "samples", ())
    usable = {"nvml": nvml, "rapl": rapl, "process": True}
    sampler.probes = tuple(ProbeStatus(probe=name, usable=each, detail="") for name, each in usable.items())
    assert sampler.reads_energy is reads


def test_a_baseline_is_held_and_noted_after_the_machine_has_settled(writer):
    said, begun_ns = [], time.perf_counter_ns()
    baselines.hold(writer, "loaded", 2, 0.3, said.append)
    (held,) = writer.manifest.baselines
    assert said == ["idle, engine loaded: 0.3 s"]
    assert (held.kind, held.engine_start) == ("loaded", 2)
    assert held.start_ns - begun_ns >= 1e8
    assert 0.3 <= (held.end_ns - held.start_ns) / 1e9 < 0.6


def test_an_engine_that_dies_while_idle_ends_the_wait(writer):
    def dead():
        raise EngineError("died")

    with pytest.raises(EngineError):
        baselines.hold(writer, "loaded", 0, 30.0, lambda _: None, dead)
    assert writer.manifest.baselines == ()


def test_without_a_gpu_there_is_no_context_and_nothing_is_said_of_one(writer):
    baselines.hold_without_engine(writer, (), 0.1, lambda _: None)
    assert [each.kind for each in writer.manifest.baselines] == ["bare"]
    assert writer.manifest.engine.notes == ()


def test_a_run_has_them_once(writer):
    for _ in range(2):
        baselines.hold_without_engine(writer, (), 0.1, lambda _: None)
    assert len(writer.manifest.baselines) == 1


def test_no_cuda_driver_is_noted(writer, monkeypatch):
    monkeypatch.delenv("PROFILER_SIMULATED_LOAD", raising=False)
    with baselines._context(("GPU-1",)) as answer:
        if answer == READY:
            pytest.skip("there is a CUDA driver here")
    baselines.hold_without_engine(writer, ("GPU-1",), 0.1, lambda _: None)
    assert [each.kind for each in writer.manifest.baselines] == ["bare"]
    assert writer.manifest.engine.notes == (
        "no idle baseline with a CUDA context: no CUDA driver here (libcuda.so.1 is not found)",
    )


def test_the_context_is_held_for_the_baseline_only(writer, monkeypatch, tmp_path):
    """Simulated boards are held through a file; the process lets go of them and is gone."""
    monkeypatch.setenv("PROFILER_SIMULATED_LOAD", str(tmp_path / "load"))
    before = {each.pid for each in psutil.Process().children()}
    baselines.hold_without_engine(writer, ("GPU-1",), 0.2, lambda _: None)
    bare, context = writer.manifest.baselines
    assert (bare.kind, context.kind) == ("bare", "context")
    assert context.start_ns > bare.end_ns
    first, *_, last = (line.split() for line in (tmp_path / "load").read_text().splitlines())
    assert bare.end_ns < int(first[0]) < context.start_ns
    assert int(last[0]) > context.end_ns
    assert last[2] == "-"
    assert {each.pid for each in psutil.Process().children()} <= before


def test_an_interrupt_leaves_no_context_behind(writer, monkeypatch, tmp_path):
    monkeypatch.setenv("PROFILER_SIMULATED_LOAD", str(tmp_path / "load"))

    def interrupted(text):
        if "context" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        baselines.hold_without_engine(writer, ("GPU-1",), 0.1, interrupted)
    assert not [each for each in psutil.Process().children() if "idle_context" in " ".join(each.cmdline())]


def test_the_context_ends_with_its_stdin():
    done = subprocess.run(
        [sys.executable, "-m", "profiler.telemetry.idle_context"],
        input="",
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("during", ["nothing started", "engine loaded"])
def test_ctrl_c_while_idle_leaves_nothing_running(tmp_path, monkeypatch, during):
    monkeypatch.setenv("PROFILER_SIMULATED_NVML", "h100")
    held = 0 if during == "nothing started" else 2
    process = start("run", *SIM, "--set", "telemetry.idle_s=0.1", cwd=tmp_path)
    assert process.stderr is not None
    while during not in (line := process.stderr.readline()):
        assert line, "the run ended before that"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    wait_until(lambda: not ours(tmp_path))
    (folder,) = (tmp_path / "results").iterdir()
    manifest = store.load(folder).manifest
    assert manifest.status == "interrupted"
    assert len(manifest.baselines) == held
