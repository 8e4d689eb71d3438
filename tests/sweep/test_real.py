"""Two models, two loads, one engine start each: on a cluster of two raylets as on this machine alone."""

from __future__ import annotations

import pytest

from profiler import figures, store
from profiler.progress import Quiet
from profiler.sweep.session import planned
from tests.cluster.raylets import raylets
from tests.sweep import few

pytestmark = pytest.mark.timing
pytest.importorskip("ray")

MODELS, LOADS = ("tiny-moe", "tiny-dense"), (1, 2)
INPUT, OUTPUT = 16, 8
SETS = {
    "engine.kind": "transformers",
    "engine.args": {"threads": 1},  # two that wait for each other make much of any neighbour
    "workload.input_tokens": INPUT,
    "workload.output_tokens": OUTPUT,
    "measure.window_s": 1.5,
    "measure.warmup_s": 0.5,
    "measure.min_requests": 2,
    "telemetry.idle_s": 0,
    "telemetry.warm_max_s": 0,
    "routing.record": "off",
}
NOISE = 2.0


def held(file, out, ray=None) -> dict[tuple[str, int], float]:
    """Output tokens/s of each cell; each request has as many tokens as it asked for, wherever it ran."""
    with planned(few.request(file, out, ray=ray)) as session:
        session.hold(Quiet(), lambda _news, _record: None)
    assert few.cells(out) == few.whole(MODELS, LOADS, starts=1)
    runs = [store.load(out / name) for name in store.within(out)]
    for run in runs:
        ok = [each for each in run.requests.to_pylist() if each["outcome"] == "ok"]
        assert OUTPUT in [each["output_tokens"] for each in ok]  # a stream's first may be shorter
        for each in ok:
            assert each["reported_input_tokens"] == INPUT
            assert each["output_tokens"] == each["reported_output_tokens"] == each["planned_output_tokens"]
    return {
        (run.manifest.model.name, each.point.concurrency): each.estimates["output_tokens_per_s"].value
        for run in runs
        for each in figures.of_run(run)
    }


def test_a_cluster_measures_what_one_machine_does(tmp_path):
    file = few.write(tmp_path, MODELS, LOADS, starts=1, **SETS)
    alone = held(file, tmp_path / "alone")
    with raylets(cpus=2) as cluster:
        cluster.add(cpus=2)
        joined = held(file, tmp_path / "joined", cluster.address)
    assert alone.keys() == joined.keys()
    for cell, tokens_per_s in alone.items():
        assert tokens_per_s / NOISE < joined[cell] < tokens_per_s * NOISE, cell
