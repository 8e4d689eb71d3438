"""The main job on a real NVIDIA GPU; skipped, with the reason, where there is none."""

from __future__ import annotations

import importlib.util

import pytest

import profiler
from profiler import comparison, host, memory

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not host.collect().gpus, reason="no NVIDIA GPU here"),
]
LONG = ("measure.window_s=12", "measure.repeats=2", "load.concurrency=1,16")


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_speed_memory_power_and_energy_are_measured(tmp_path, engine):
    if importlib.util.find_spec(engine) is None:
        pytest.skip(f"{engine} is not installed")
    runs = profiler.run(
        ["tiny-moe", "tiny-dense"], "smoke", LONG, engine=engine, weights="random", price=2.0, out=tmp_path
    )
    for run in runs:
        account = memory.account(run)
        assert account.total_bytes == host.collect().gpus[0].memory_bytes
        assert abs(account.bytes_of("unexplained") or 0) < 0.02 * account.total_bytes
    for row in comparison.rows(runs):
        assert row["requests_failed"] == 0
        assert row["gpus"] == 1
        assert row["gpu"]
        assert row["memory_weights_bytes"] == pytest.approx(2 * 201e6, rel=0.05)
        assert row["memory_kv_bytes"] > 0
        assert row["memory_peak_bytes"] > row["memory_weights_bytes"]
        assert row["power_w_mean"] > 20
        assert row["energy_j_per_output_token"] == pytest.approx(
            row["power_w_mean"] / row["output_tokens_per_s"], rel=0.05
        )
        assert row["usd_per_m_output_tokens"] == pytest.approx(2.0 / 3600 / row["output_tokens_per_s"] * 1e6)
