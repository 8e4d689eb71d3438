"""A search on a real server process whose capacity is known from its law."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import profiler
from profiler import search, store
from profiler.levels import probes

PLACES, SERVICE_S = 4, 0.1


@pytest.mark.timing
def test_a_queue_of_known_places_has_its_known_capacity(tmp_path):
    """Regular arrivals at a server of 4 places and 0.1 s a request (D/D/4): nobody waits up to 40/s, and
    the queue grows without end beyond."""
    words = [
        *("run", "-m", "sim", "--engine", "simulated", "-s", "smoke", "--json", "--quiet"),
        *("--find", "capacity", "--slo-ttft-p99=150ms"),
    ]
    for change in (
        f"engine.args.max_running={PLACES}",
        f"engine.args.ttft_s={SERVICE_S}",
        "workload.output_tokens=1",
        "load.arrivals=constant",
        "load.requests_per_s=20",
        "measure.window_s=1",
        "measure.warmup_s=0.3",
    ):
        words += ["--set", change]
    process = subprocess.run(
        [sys.executable, "-m", "profiler", *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    document = json.loads(process.stdout)
    (found,) = document["found"]
    # A second of overload by x % makes the last one wait x % of a second: up to 5 % pass under 150 ms.
    assert PLACES / SERVICE_S * 0.95 <= found["value"] <= PLACES / SERVICE_S * 1.05
    assert found["high"] <= found["value"] * 1.06
    assert found["probes"] <= 12
    assert len(document["rows"]) < found["probes"]  # the load found was held twice
    (run,) = store.find([tmp_path / "results"])
    assert profiler.found(run).load == found["value"]  # recomputed from the folder
    assert search.next_point(run.manifest.scenario, probes(run)) is None
    assert run.manifest.calibration is not None
