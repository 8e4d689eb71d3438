"""Memory of several runs beside each other."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from profiler.charts import memory
from profiler.charts.nouns import Absent
from profiler.schema import Memory
from tests.charts.valid import checked
from tests.test_memory import BOARD, COUNTED, GIB, model, run_of, sampled

DENSE = Memory(weights_bytes=57 * GIB, kv_bytes=12 * GIB, kv_tokens=131_072)


@pytest.fixture
def pair(tmp_path):
    board = sampled("gpu:GPU-1", BOARD)
    thick = replace(model("Qwen/Qwen3-32B"), name="thick")
    return [
        run_of(tmp_path, COUNTED, board, run_id="moe"),
        run_of(tmp_path, DENSE, board, run_id="dense", model=thick),
    ]


def bars(chart, run):
    return [row for row in chart.rows if row["run"] == run and row["from_gib"] is not None]


def test_each_bar_fills_its_device(pair):
    (found,) = memory.of_runs(pair)
    chart = checked(found)
    for run in ("m", "thick"):
        own = bars(chart, run)
        assert own[0]["from_gib"] == 0
        assert [row["from_gib"] for row in own[1:]] == [row["to_gib"] for row in own[:-1]]
        assert own[-1]["to_gib"] == pytest.approx(own[-1]["device_gib"]) == pytest.approx(80)
    assert "m of 80.0 GiB (1 × H100): routed experts 54.0 GiB, other weights 3.00 GiB" in chart.summary


def test_only_a_moe_has_experts(pair):
    (chart,) = memory.of_runs(pair)
    parts = {run: [row["part"] for row in bars(chart, run)][:2] for run in ("m", "thick")}
    assert parts == {"m": ["routed experts", "other weights"], "thick": ["weights", "KV cache"]}
    assert {row["group"] for row in bars(chart, "thick")} & {"other weights"}


def test_runs_of_one_model_are_told_apart(tmp_path):
    board = sampled("gpu:GPU-1", BOARD)
    (chart,) = memory.of_runs([run_of(tmp_path, COUNTED, board, run_id=name) for name in ("a", "b")])
    assert {row["run"] for row in chart.rows} == {"m, a", "m, b"}


def test_a_run_that_says_nothing_is_named_and_not_drawn(pair, tmp_path):
    far = replace(model(weights="remote"), name="far")
    silent = run_of(tmp_path, Memory(), [], run_id="far", gpus=(), model=far)
    (chart,) = memory.of_runs([*pair, silent])
    assert not bars(chart, "far")
    assert any(note.startswith("far: n/a") for note in chart.notes)
    (absent,) = memory.of_runs([silent, silent])
    assert isinstance(absent, Absent)
    assert memory.of_runs([]) == ()


def test_one_run_is_shown_inside(pair):
    assert memory.of_runs(pair[:1]) == memory.of_run(pair[0])
