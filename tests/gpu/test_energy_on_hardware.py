"""What simulated boards stand for, on real ones; skipped, with the reason, where there is none.

Run it with ``-s`` to see the numbers; with ``PROFILER_SIMULATED_NVML`` set it runs on simulated boards.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler import energy, host, nvml
from profiler.nvml.load import LoadWriter
from profiler.samples import between, read_samples, series, sources
from profiler.telemetry import Sampler

BOARDS = host.collect().gpus
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timing,
    pytest.mark.skipif(not BOARDS, reason="no NVIDIA GPU here"),
]
LOAD_S, SETTLE_S = 30.0, 5.0
# nvmlDeviceArchitecture_t → the periods at which its energy counter is known to step (profiler/nvml/board.py)
PERIODS_S = {5: (0.02,), 6: (0.1, 0.5), 7: (0.1, 0.5), 8: (0.1, 0.5), 9: (0.1,), 10: (0.1, 0.5)}
MATMUL = """
import sys, torch
if not torch.cuda.is_available():
    sys.exit("this torch has no CUDA")
devices = [f"cuda:{n}" for n in range(torch.cuda.device_count())]
a = [torch.randn(8192, 8192, device=each, dtype=torch.bfloat16) for each in devices]
print("ready", flush=True)
while True:
    for each in a:
        for _ in range(20):
            each @ each
    for n in range(len(a)):
        torch.cuda.synchronize(n)
"""


@pytest.fixture
def shared() -> Iterator[None]:
    with nvml.shared_load():
        yield


@contextlib.contextmanager
def started(argv: list[str]) -> Iterator[int]:
    """A process that says ``ready``; skips the test where it cannot be."""
    child = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert child.stdout is not None
    try:
        said = child.stdout.readline().strip()
        if said != "ready":
            pytest.skip(said or "the load did not start")
        yield child.pid
    finally:
        child.kill()
        child.communicate()


@contextlib.contextmanager
def matrices() -> Iterator[None]:
    """Keeps all boards busy with matrix multiplications."""
    if path := os.environ.get(nvml.LOAD_VARIABLE):
        writer = LoadWriter(path)
        writer.tell(0.9)
        yield
        writer.close()
        return
    with started([sys.executable, "-c", MATMUL]):
        yield


def sampled(path: Path, during: Callable[[Sampler], None] = lambda _: time.sleep(SETTLE_S)) -> Any:
    with Sampler(path, None) as sampler:
        assert sampler.probes[0].usable, sampler.probes[0].detail
        during(sampler)
    return read_samples(path)


def test_the_counters_period_is_found(tmp_path: Path, shared: None) -> None:
    samples = sampled(tmp_path / "samples")
    assert len(sources(samples, "gpu")) == len(BOARDS)
    for gpu in sources(samples, "gpu"):
        (architecture,) = series(samples, gpu, "architecture")[1]
        (period_s,) = series(samples, gpu, "energy_period_s")[1]
        power = series(samples, gpu, "power_period_s")[1]
        print(f"{gpu}: architecture {architecture:g}, energy every {period_s} s, power every {power} s")
        known = PERIODS_S.get(int(architecture))
        if known:
            assert min(abs(period_s / each - 1) for each in known) < 0.25
        within = series(samples, gpu, "energy_seen_within_s")[1]
        assert np.median(within[len(within) // 2 :]) < 0.025


def test_everything_a_data_centre_board_offers_is_read(tmp_path: Path, shared: None) -> None:
    samples = sampled(tmp_path / "samples")
    for gpu in sources(samples, "gpu"):
        names = {name for name in samples["name"].unique().to_pylist() if len(series(samples, gpu, name)[0])}
        assert names >= {
            "energy_mj",
            "power_w",
            "temperature_c",
            "sm_clock_mhz",
            "power_limit_w",
            "architecture",
        }
        assert series(samples, gpu, "power_w")[1].max() < 1.2 * series(samples, gpu, "power_limit_w")[1][0]
    assert series(samples, "sampler", "nvml_errors")[1][-1] == 0
    assert series(samples, "sampler", "nvml_energy_errors")[1][-1] == 0


def test_counter_and_integral_agree_at_rest(tmp_path: Path, shared: None) -> None:
    samples = sampled(tmp_path / "samples", lambda _: time.sleep(LOAD_S + 2))
    times = series(samples, sources(samples, "gpu")[0], "power_w")[0]
    reading = energy.gpu_energy(samples, int(times[0] + 1e9), int(times[-1] - 1e9))
    print(f"at rest: {reading.power_w} W, apart by {reading.disagreement_frac}")
    assert reading.energy_j is not None, reading.reason
    assert reading.disagreement_frac is not None
    assert reading.disagreement_frac < 0.05  # zeus issue 181 saw more: then this test tells so


def test_our_process_is_seen_and_told_from_others(tmp_path: Path, shared: None) -> None:
    listed: list[int] = []

    def during(_: Sampler) -> None:
        time.sleep(2)
        with started([sys.executable, "-m", "profiler.telemetry.idle_context"]) as pid:
            time.sleep(SETTLE_S)
            listed.extend(_listed())
            listed.append(pid)

    samples = sampled(tmp_path / "samples", during)
    *numbers, ours = listed
    gpu = sources(samples, "gpu")[0]
    memory = series(samples, gpu, "memory_used_bytes")[1]
    assert memory.max() - memory[0] > 50 << 20  # a context takes some hundred MiB
    if ours not in numbers:
        pytest.skip("process numbers are the host's here: ours cannot be found among them")
    counts = series(samples, gpu, "foreign_processes")[1]
    assert set(counts) == {counts[0]}  # ours made no difference
    assert abs(series(samples, gpu, "unexplained_bytes")[1][-2]) < 1 << 30


def _listed() -> list[int]:
    library = nvml.load()
    library.nvmlInit()
    handle = library.nvmlDeviceGetHandleByIndex(0)
    return [each.pid for each in library.nvmlDeviceGetComputeRunningProcesses_v3(handle)]


def test_joules_of_a_load_are_its_power_times_its_time(tmp_path: Path, shared: None) -> None:
    span: list[int] = []

    def during(_: Sampler) -> None:
        with matrices():
            time.sleep(SETTLE_S)
            span.append(time.perf_counter_ns())
            time.sleep(LOAD_S)
            span.append(time.perf_counter_ns())

    samples = sampled(tmp_path / "samples", during)
    reading = energy.gpu_energy(samples, *span)
    assert reading.energy_j is not None, reading.reason
    inside = between(samples, *span)
    watts = sum(series(inside, gpu, "power_w")[1].mean() for gpu in sources(samples, "gpu"))
    limits = sum(series(samples, gpu, "power_limit_w")[1][0] for gpu in sources(samples, "gpu"))
    product_j = watts * (span[1] - span[0]) / 1e9
    print(f"{LOAD_S:g} s of load: {reading.energy_j:.0f} J counted, {product_j:.0f} J = {watts:.0f} W x time")
    assert reading.energy_j == pytest.approx(product_j, rel=0.05)
    assert 0.3 * limits < watts < 1.1 * limits
