"""What speaks against the figures: the client, caches, counts that disagree, several tokens in a chunk."""

from __future__ import annotations

import msgspec
import pyarrow.parquet as pq
import pytest

from profiler import comparison, metrics, store, trust
from profiler.client import ClientAudit
from profiler.report import table
from profiler.schema import LoadPoint
from profiler.settings import Conversation, Images, Load
from tests import make

OPEN = LoadPoint(mode="open", requests_per_s=5.0)


def sealed(tmp_path, windows, samples=(), **changes):
    run = make.writer(tmp_path, windows, **changes)
    if samples:
        run.samples_path.write_bytes(make.sample_lines(list(samples)))
    run.seal()
    return store.load(run.folder)


def only(tmp_path, windows, samples=(), **changes):
    (point,) = metrics.points(sealed(tmp_path, windows, samples, **changes))
    return point


def audit(lag=0.0001, cpu=0.2, loop=0.0005, bound_by=()):
    return ClientAudit(cpu_frac=cpu, loop_lag_p99_s=loop, send_lag_p99_s=lag, chunks=10, bound_by=bound_by)


def test_the_worst_window_speaks_for_the_client(tmp_path):
    windows = [
        make.steady(0, 10.0, audit=audit()),
        make.steady(1, 40.0, audit=audit(lag=0.003, cpu=0.9, bound_by=("send lag p99 3.0 ms",))),
        make.steady(2, 70.0),
    ]
    point = only(tmp_path, windows)
    assert (point.client.send_lag_p99_s, point.client.cpu_frac) == (0.003, 0.9)
    assert point.client.bound == "send lag p99 3.0 ms"


def test_a_client_that_was_not_watched_is_unknown_not_idle(tmp_path):
    client = only(tmp_path, [make.steady(0, 10.0)]).client
    assert (client.send_lag_p99_s, client.cpu_frac, client.loop_lag_p99_s, client.bound) == (None,) * 4


def test_a_bound_row_is_marked_explained_and_never_the_best(tmp_path):
    names = {"a": 50, "b": 40, "c": 45}
    for name, requests in names.items():
        model = msgspec.structs.replace(make.manifest("x").model, name=name)
        bound = ("send lag p99 3.0 ms",) if name == "a" else ()
        held, records = make.steady(0, 10.0, audit=audit(bound_by=bound))
        make.writer(tmp_path, [(held, records[:requests])], run_id=name, model=model).seal()
    rows = comparison.ordered(comparison.rows(store.find([tmp_path])))
    by_name = {row["model"]: number for number, row in enumerate(rows)}
    best = comparison.best(rows, "output_tokens_per_s")
    assert list(best.values()) == [by_name["c"]]
    headers, texts, _ = table.cells(rows)
    assert texts[by_name["a"]][headers.index("conc")] == "1 ⚠"
    assert texts[by_name["b"]][headers.index("conc")] == "1"
    assert any("⚠" in note and "send lag" in note for note in table.footnotes(rows, []))


def test_the_first_wave_stands_apart(tmp_path):
    held, records = make.steady(0, 10.0)
    slow = [make.request(0, 90 + n, 9.0, first_ns=round(9.5 * make.S)) for n in range(3)]
    point = only(tmp_path, [(held, [*slow, *records])])
    wave = point.estimates["first_wave_ttft_s_mean"]
    assert (wave.value, wave.n) == (pytest.approx(0.5), 3)
    assert point.estimates["ttft_s_mean"].value == pytest.approx(0.1)


def test_a_batch_is_one_wave(tmp_path):
    held, records = make.steady(0, 10.0, point=LoadPoint(mode="batch", concurrency=50))
    early = [msgspec.structs.replace(each, due_ns=9 * make.S) for each in records]
    assert only(tmp_path, [(held, early)]).estimates["first_wave_ttft_s_mean"] is None


def test_tokens_per_chunk_are_counted_and_named(tmp_path):
    held, records = make.steady(0, 10.0)
    assert only(tmp_path / "a", [(held, records)]).estimates["tokens_per_chunk_mean"].value == 1
    paired = [
        msgspec.structs.replace(r, arrivals_ns=r.arrivals_ns[:3], arrival_tokens=[1, 2, 2]) for r in records
    ]
    point = only(tmp_path / "b", [(held, paired)])
    assert point.estimates["tokens_per_chunk_mean"].value == pytest.approx(5 / 3)
    assert any("several tokens in one chunk (1.67 on average)" in note for note in point.notes)


def test_cache_hits_by_usage(tmp_path):
    held, records = make.steady(0, 10.0)
    told = [msgspec.structs.replace(r, cached_tokens=8 if n < 10 else 0) for n, r in enumerate(records)]
    point = only(tmp_path, [(held, told)])
    hit = point.estimates["prefix_cache_hit_frac"]
    assert (hit.value, hit.n) == (pytest.approx(80 / 500), 50)
    assert any("16% of the prompt tokens came from a prefix cache" in note for note in point.notes)


def counters(hits, queries, name="m"):
    """The engine's counters each half second from 9 s on, growing by so much a second."""
    for tick in range(18, 60):
        t = tick / 2
        yield t, f"engine:{name}", "prefix_cache_hit_tokens", 1000 + hits * (t - 9)
        yield t, f"engine:{name}", "prefix_cache_query_tokens", 5000 + queries * (t - 9)


def test_cache_hits_by_the_engines_counters_over_the_window(tmp_path):
    hit = only(tmp_path, [make.steady(0, 10.0)], counters(30, 120)).estimates["prefix_cache_hit_frac"]
    assert hit.value == pytest.approx(0.25)


def test_usage_goes_before_the_counters(tmp_path):
    held, records = make.steady(0, 10.0)
    told = [msgspec.structs.replace(each, cached_tokens=0) for each in records]
    point = only(tmp_path, [(held, told)], counters(30, 120))
    assert point.estimates["prefix_cache_hit_frac"].value == 0


LATE = tuple(sample for sample in counters(30, 120) if sample[0] > 12)  # not read when the window began


@pytest.mark.parametrize(
    "samples", [(), LATE, tuple(counters(-30, 120)), tuple(counters(3, 12, name="other"))]
)
def test_hits_nobody_told_are_unknown(tmp_path, samples):
    point = only(tmp_path, [make.steady(0, 10.0)], samples)
    assert point.estimates["prefix_cache_hit_frac"] is None
    assert point.notes == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"workload": {"shared_prefix_tokens": 4}},
        {"workload": {"conversation": Conversation(turns=2)}},
        {"load": {"mode": "replay", "trace": "/t.csv"}},
    ],
)
def test_hits_that_were_asked_for_are_no_surprise(tmp_path, changes):
    work = msgspec.structs.replace(make.SCENARIO.workload, **changes.get("workload", {}))
    load = Load(**changes.get("load", {}))
    plan = msgspec.structs.replace(make.SCENARIO, workload=work, load=load)
    point = only(tmp_path, [make.steady(0, 10.0)], counters(30, 120), scenario=plan, scenario_hash="0")
    assert point.estimates["prefix_cache_hit_frac"].value == pytest.approx(0.25)
    assert not any("prefix cache" in note for note in point.notes)


def test_usage_that_disagrees_is_counted(tmp_path):
    held, records = make.steady(0, 10.0)
    records[3] = msgspec.structs.replace(records[3], reported_output_tokens=7)
    records[4] = msgspec.structs.replace(records[4], reported_input_tokens=11)
    records[5] = msgspec.structs.replace(records[5], reported_input_tokens=11)
    records[6] = msgspec.structs.replace(records[6], reported_input_tokens=None)
    notes = only(tmp_path, [(held, records)]).notes
    assert notes == (
        "usage disagrees with the output tokens counted in 1 of 50 requests",
        "usage disagrees with the input tokens sent in 2 of 50 requests",
    )


@pytest.mark.parametrize(
    ("usage", "said"), [(112, "with them a prompt held 12 tokens more"), (None, "the endpoint says nothing")]
)
def test_pictures_are_named_as_left_out_of_all_lengths(tmp_path, usage, said):
    pictures = msgspec.structs.replace(make.SCENARIO.workload, images=Images(width=8, height=8))
    plan = msgspec.structs.replace(make.SCENARIO, workload=pictures)
    held, records = make.steady(0, 10.0)
    records = [
        msgspec.structs.replace(
            each, planned_input_tokens=100, input_tokens=usage, reported_input_tokens=usage
        )
        for each in records
    ]
    notes = only(tmp_path, [(held, records)], scenario=plan, scenario_hash="0").notes
    (note,) = [note for note in notes if "pictures" in note]
    assert said in note


def test_a_run_from_before_the_column_says_nothing_of_caches(tmp_path):
    run = sealed(tmp_path, [make.steady(0, 10.0)])
    old = run.requests.drop_columns(["cached_tokens", "share", "turn"])
    pq.write_table(old, run.folder / store.REQUESTS)
    make.written_again(run.folder)
    (point,) = metrics.points(store.load(run.folder))
    assert point.estimates["prefix_cache_hit_frac"] is None
    assert point.requests_ok == 50


def test_an_open_loop_says_what_was_offered_beside_what_was_completed(tmp_path):
    held, records = make.steady(0, 10.0, point=OPEN)
    records[7] = msgspec.structs.replace(records[7], outcome="reset")
    point = only(tmp_path, [(held, records)])
    assert point.estimates["offered_requests_per_s"].value == pytest.approx(5.0)
    assert point.estimates["requests_per_s"].value == pytest.approx(4.9)
    closed = only(tmp_path / "closed", [make.steady(0, 10.0)])
    assert closed.estimates["offered_requests_per_s"] is None


def test_a_rate_of_an_open_loop_is_a_row_and_a_column(tmp_path):
    twice = LoadPoint(mode="open", requests_per_s=12.5)
    run = sealed(tmp_path, [make.steady(0, 10.0, point=twice), make.steady(1, 40.0, point=OPEN)])
    rows = comparison.rows([run])
    assert [(r["concurrency"], r["load_requests_per_s"]) for r in rows] == [(None, 5.0), (None, 12.5)]
    headers, texts, _ = table.cells(comparison.ordered(rows))
    assert "conc" not in headers
    assert [text[headers.index("req/s due")] for text in texts] == ["5", "12.5"]


def test_only_rows_at_one_rate_compete(tmp_path):
    for name in ("a", "b"):
        model = msgspec.structs.replace(make.manifest("x").model, name=name)
        windows = [make.steady(0, 10.0, point=LoadPoint(mode="open", requests_per_s=r)) for r in (5.0, 12.5)]
        held = [(msgspec.structs.replace(w, index=n), records) for n, (w, records) in enumerate(windows)]
        held = [(w, [msgspec.structs.replace(r, window=w.index) for r in records]) for w, records in held]
        make.writer(tmp_path, held, run_id=name, model=model).seal()
    rows = comparison.ordered(comparison.rows(store.find([tmp_path])))
    assert [key[-1] for key in comparison.best(rows, "output_tokens_per_s")] == [5.0, 12.5]


def report(t_s, cpu_s, late_s):
    return [(t_s, "sampler", "cpu_s", cpu_s), (t_s, "sampler", "nvml_late_max_s", late_s)]


def test_what_the_sampler_took_is_over_the_reports_around_the_window(tmp_path):
    samples = [*report(5, 0.1, 0.9), *report(10, 0.2, 0.8), *report(15, 0.3, 0.002), *report(20, 0.8, 0.001)]
    samples += report(25, 9.0, 0.7)
    point = only(tmp_path, [make.steady(0, 10.0)], samples)  # 10 to 20 s
    assert point.sampling.cpu_frac == pytest.approx(0.06)
    assert point.sampling.late_s_max == 0.002


def test_what_a_replaced_sampler_took_is_not_known(tmp_path):
    samples = [*report(10, 8.0, 0.8), *report(15, 9.0, 0.002), *report(20, 0.5, 0.001)]
    point = only(tmp_path, [make.steady(0, 10.0)], samples)
    assert point.sampling == trust.Sampling(cpu_frac=None, late_s_max=0.002)


def test_a_sampler_that_ended_before_the_window_says_nothing(tmp_path):
    point = only(tmp_path, [make.steady(0, 10.0)], [*report(5, 0.1, 0.9), *report(15, 0.2, 0.8)])
    assert point.sampling == trust.Sampling()
