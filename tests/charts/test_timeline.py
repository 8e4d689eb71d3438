"""A run over time: what is drawn is what was sampled, in its window and phase; what is not there is said."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from profiler import store
from profiler.charts import distributions, drawing, latency, timeline
from profiler.charts.nouns import Absent
from profiler.charts.strip import AFTER, BEFORE, STEADY
from profiler.schema import Imported, LoadPoint, ProbeStatus
from tests import make
from tests.charts.valid import checked

ENGINE = make.manifest("x").engine
TWO_GPUS = (make.GPU, make.GPU.__class__(uuid="GPU-2", name="NVIDIA H100 80GB HBM3", memory_bytes=None))


def run_of(tmp_path, samples=(), windows=None, **changes):
    held = windows or [make.steady(0, 10), make.steady(1, 30, engine_start=1)]
    writer = make.writer(tmp_path, held, **changes)
    writer.samples_path.write_bytes(make.sample_lines(list(samples)))
    return store.load(writer.folder)


def on_gpus(*gpus):
    host = make.HOST.__class__(
        **{n: getattr(make.HOST, n) for n in make.HOST.__struct_fields__} | {"gpus": gpus}
    )
    engine = ENGINE.__class__(kind="vllm", version="1", device="cuda", gpus=tuple(gpu.uuid for gpu in gpus))
    return {"host": host, "engine": engine}


def drawn(run, name):
    found = {each.id.split("-")[0]: each for each in timeline.of_run(run)}
    assert set(found) == {"power", "tokens", "requests", "kv", "clocks", "temperature"}
    return found[name]


def seen(chart):
    return [row for row in chart.rows if row["part"] == "seen"]


def watts(uuid, first_s, last_s, value=lambda t: 100.0 + t, every_s=0.1):
    n = round((last_s - first_s) / every_s)
    return [(first_s + i * every_s, f"gpu:{uuid}", "power_w", value(first_s + i * every_s)) for i in range(n)]


def test_every_sample_of_a_window_is_in_the_picture_and_none_of_the_wait(tmp_path):
    run = run_of(tmp_path, watts("GPU-1", 5, 45, every_s=0.02), **on_gpus(make.GPU))
    chart = checked(drawn(run, "power"))
    rows = seen(chart)
    assert sum(row["samples"] for row in rows) == 1200  # two windows of 12 s
    for row in rows:
        opened = {0: 9, 1: 29 - 12}[row["window"]]  # on the axis the second begins where the first ends
        assert row["mean"] == pytest.approx(100 + row["at_s"] + opened, abs=0.01)
        assert row["low"] <= row["mean"] <= row["high"]
        assert row["from_s"] <= row["at_s"] <= row["until_s"]
    shaded = {n: [r["phase"] for r in rows if r["window"] == n] for n in (0, 1)}
    assert list(dict.fromkeys(shaded[0])) == [BEFORE, STEADY, AFTER]
    steady = [row for row in chart.rows if row["part"] == "phase" and row["phase"] == STEADY]
    assert [(row["from_s"], row["until_s"]) for row in steady] == [(1, 11), (13, 23)]


def test_a_picture_has_no_more_points_than_it_has_room_for(tmp_path):
    many = watts("GPU-1", 9, 41, lambda t: t % 1, every_s=0.002)
    rows = seen(drawn(run_of(tmp_path, many, **on_gpus(make.GPU)), "power"))
    assert 200 <= len(rows) <= 310
    assert all(row["low"] < row["mean"] < row["high"] for row in rows)


def test_a_line_a_board(tmp_path):
    samples = watts("GPU-1", 9, 41) + watts("GPU-2", 9, 41, lambda t: 300.0)
    chart = checked(drawn(run_of(tmp_path, samples, **on_gpus(*TWO_GPUS)), "power"))
    assert {row["line"] for row in seen(chart)} == {"GPU-1", "GPU-2"}
    assert {row["mean"] for row in chart.rows if row["line"] == "GPU-2"} == {300.0}


def test_what_held_the_clocks_back_is_marked_while_it_did(tmp_path):
    clocks = [(t / 2, "gpu:GPU-1", "sm_clock_mhz", 1500.0) for t in range(18, 84)]
    reasons = [
        (t / 2, "gpu:GPU-1", "clocks_event_reasons", 0x4 | 0x20 if 30 <= t < 34 else 0x1)
        for t in range(18, 84)
    ]
    chart = checked(drawn(run_of(tmp_path, clocks + reasons, **on_gpus(make.GPU)), "clocks"))
    held = [row for row in chart.rows if row["held_back_by"]]
    assert {row["held_back_by"] for row in held} == {"software power cap, software thermal slowdown"}
    assert 5.5 <= held[0]["at_s"] < held[-1]["at_s"] <= 8.5  # 15 to 17 s, and until the next reading
    assert any("held back by software power cap and software thermal slowdown" in n for n in chart.notes)


def test_a_reason_holds_until_the_next_reading(tmp_path):
    reasons = [(9 + t, "gpu:GPU-1", "clocks_event_reasons", 4.0 if t == 5 else 0.0) for t in range(12)]
    run = run_of(tmp_path, [*watts("GPU-1", 9, 41), *reasons], **on_gpus(make.GPU))
    held = {row["at_s"]: row["held_back_by"] for row in seen(drawn(run, "power"))}
    assert {why for at_s, why in held.items() if 5.1 < at_s < 5.9} == {"software power cap"}
    assert {why for at_s, why in held.items() if not 4.9 < at_s < 6.1} == {None}


def test_tokens_are_those_that_came(tmp_path):
    run = run_of(tmp_path)
    chart = checked(drawn(run, "tokens"))
    total = sum(row["mean"] * (row["until_s"] - row["from_s"]) for row in seen(chart))
    assert total == pytest.approx(500, rel=1e-3)
    assert "at 1: 25.0" in chart.summary
    assert "2 windows of 2 engine starts" in chart.summary


def test_requests_in_flight_and_the_engines_own_count(tmp_path):
    samples = [(t / 4, "engine:m", "requests_waiting", 3.0) for t in range(36, 168)]
    rows = seen(checked(drawn(run_of(tmp_path, samples), "requests")))
    flying = [r["mean"] for r in rows if r["line"] == "in flight (client)" and r["phase"] == STEADY]
    assert np.mean(flying) == pytest.approx(0.9, abs=0.01)  # 0.18 of every 0.2 s
    assert {r["mean"] for r in rows if r["line"] == "waiting (engine)"} == {3.0}
    assert "running (engine)" not in {r["line"] for r in rows}


def test_a_cpus_power_is_what_its_counter_rose_by(tmp_path):
    counter = [(t / 10, "rapl:package-0", "energy_uj", (t * 5e6) % 3e8) for t in range(80, 450)]
    samples = [(1.0, "rapl:package-0", "max_energy_range_uj", 3e8), *counter]
    rows = seen(checked(drawn(run_of(tmp_path, samples), "power")))
    assert {row["line"] for row in rows} == {"package-0"}
    assert [row["mean"] for row in rows] == pytest.approx([50.0] * len(rows))


def test_the_cache_in_use_is_in_percent_and_all_zeros_measure_nothing(tmp_path):
    used = [(t / 2, "engine:m", "kv_cache_usage_frac", 0.25) for t in range(18, 84)]
    chart = checked(drawn(run_of(tmp_path, used), "kv"))
    assert {row["mean"] for row in seen(chart)} == {25.0}
    assert "at 1: 25.0 %" in chart.summary
    zeros = [(t, source, name, 0.0) for t, source, name, _ in used]
    none = drawn(run_of(tmp_path, zeros, run_id="zeros"), "kv")
    assert none.reason == "all samples fell between requests"


def test_what_is_missing_says_why(tmp_path):
    told = ProbeStatus(probe="rapl", usable=False, detail="no counter\nhere")
    run = run_of(tmp_path, probes=(told,))
    assert drawn(run, "power").reason == "rapl: no counter here"
    assert drawn(run, "clocks").reason == "the engine uses no GPU"
    remote = ENGINE.__class__(kind="endpoint", version=None, device="remote")
    assert "runs elsewhere" in drawn(run_of(tmp_path, run_id="remote", engine=remote), "power").reason
    imported = Imported(tool="GuideLLM", file="f", sha256="0")
    empty = run_of(tmp_path, windows=[make.steady(0, 10)], run_id="empty")
    bare = store.RunResult(empty.folder, _with(empty.manifest, windows=()))
    assert drawn(bare, "power").reason == "no window was finished"
    told = store.RunResult(empty.folder, _with(empty.manifest, windows=(), imported=imported))
    assert all(isinstance(each, Absent) for each in timeline.of_run(told))
    assert drawn(told, "tokens").reason == "GuideLLM keeps no times"


def _with(manifest, **changes):
    import msgspec

    return msgspec.structs.replace(manifest, **changes)


def test_a_window_that_never_became_steady_is_shown_and_named(tmp_path):
    records = [make.request(0, n, 10 + n * 0.2) for n in range(50)]
    never = make.window(0, 10, 20, steady_start_ns=None, steady_end_ns=None, trouble="never")
    chart = checked(drawn(run_of(tmp_path, windows=[(never, records)]), "tokens"))
    assert {row["phase"] for row in chart.rows} == {"never steady"}
    assert "at 1: n/a" in chart.summary
    assert "never steady: window 0" in chart.notes


def test_loads_stand_above_their_windows(tmp_path):
    points = [LoadPoint(mode="closed", concurrency=load) for load in (1, 64)]
    held = [make.steady(n, 10 + 20 * n, point=point) for n, point in enumerate(points)]
    chart = drawn(run_of(tmp_path, windows=held), "tokens")
    shade = chart.spec["layer"][0]
    assert shade["transform"] == [{"filter": "datum.part === 'phase' && datum.phase === 'steady'"}]
    above = shade["encoding"]["x"]["axis"]
    assert above["values"] == [6, 18]
    assert above["labelExpr"].startswith("['1', '64']")
    assert ">64<" in drawing.svg(chart)


def test_the_same_run_is_the_same_picture(tmp_path):
    run = run_of(tmp_path, watts("GPU-1", 9, 41), **on_gpus(make.GPU))
    assert timeline.of_run(run) == timeline.of_run(store.load(run.folder))


MILLION = 1_000_000


def big(run, tokens=100):
    """The run as if a million tokens had come in its one window."""
    rng, n = np.random.default_rng(0), MILLION // tokens
    table = run.requests.slice(0, 1)
    whole = pa.concat_tables([table] * 1).take(np.zeros(n, dtype=np.int64))
    due = np.sort(rng.integers(10 * make.S, 20 * make.S, n))
    arrivals = due[:, None] + np.cumsum(rng.integers(10**6, 2 * 10**6, (n, tokens)), axis=1)
    offsets = pa.array(np.arange(0, MILLION + 1, tokens), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, pa.array(arrivals.ravel()))
    ones = pa.ListArray.from_arrays(offsets, pa.array(np.ones(MILLION, dtype=np.int64)))
    columns = {"due_ns": due, "first_ns": arrivals[:, 0], "last_ns": arrivals[:, -1], "sent_ns": due}
    columns |= {"done_ns": arrivals[:, -1], "output_tokens": np.full(n, tokens)}
    for name, values in {**columns, "arrivals_ns": lists, "arrival_tokens": ones}.items():
        at = whole.schema.get_field_index(name)
        field = whole.schema.field(at)
        whole = whole.set_column(at, field, pa.array(values).cast(field.type))
    run.__dict__["requests"] = whole
    return run


def of_a_million(run):
    return [*latency.of_runs([run]), *distributions.of_run(run), *timeline.of_run(run)]


@pytest.mark.timing
def test_a_million_tokens_take_no_time(tmp_path):
    of_a_million(run_of(tmp_path, run_id="warm"))  # imports
    run = big(run_of(tmp_path, windows=[make.steady(0, 10)]))
    begun = time.perf_counter()
    found = of_a_million(run)
    assert time.perf_counter() - begun < 3
    missing = [each.id.split("-")[0] for each in found if isinstance(each, Absent)]
    assert missing == ["power", "kv", "clocks", "temperature"]
    assert f"{MILLION - MILLION // 100:,} gaps" in found[4].summary


def test_a_million_tokens_take_little_room(tmp_path):
    run = big(run_of(tmp_path, windows=[make.steady(0, 10)]))
    tracemalloc.start()
    timeline.of_run(run)
    distributions.of_run(run)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300 << 20
