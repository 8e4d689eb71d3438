"""GuideLLM's files against what it says of the same requests."""

from __future__ import annotations

import json

import numpy as np
import pytest

from profiler import metrics
from profiler.errors import InputError
from profiler.schema import LoadPoint

NAMES = ("time_to_first_token_ms", "inter_token_latency_ms", "request_latency")


@pytest.fixture
def told(real):
    return lambda name: json.loads(real(name).read_text())


def records_of(run, window):
    return [each for each in run.requests.to_pylist() if each["window"] == window]


def test_its_latencies_are_those_of_the_records(told, imported):
    (run,) = imported("guidellm_closed.json", whole=True)
    for number, benchmark in enumerate(told("guidellm_closed.json")["benchmarks"]):
        said = {name: benchmark["metrics"][name]["successful"] for name in NAMES}
        records = records_of(run, number)
        ttft_ms = [(each["first_ns"] - each["sent_ns"]) / 1e6 for each in records]
        tpot_ms = [(each["last_ns"] - each["first_ns"]) / 1e6 / 23 for each in records]
        whole_s = [(each["done_ns"] - each["sent_ns"]) / 1e9 for each in records]
        assert np.mean(ttft_ms) == pytest.approx(said["time_to_first_token_ms"]["mean"], rel=1e-4)
        assert np.mean(tpot_ms) == pytest.approx(said["inter_token_latency_ms"]["mean"], rel=1e-4)
        assert np.mean(whole_s) == pytest.approx(said["request_latency"]["mean"], rel=1e-4)
        assert len(records) == said["time_to_first_token_ms"]["count"]


def test_our_figures_are_near_its_own(told, points):
    """Its rates are over another span (to the end of the last response), its means of the same requests."""
    found = points("guidellm_closed.json", whole=True)
    assert [each.point for each in found] == [LoadPoint(mode="closed", concurrency=n) for n in (2, 4)]
    for each, benchmark in zip(found, told("guidellm_closed.json")["benchmarks"], strict=True):
        said = benchmark["metrics"]
        assert each.requests_ok == said["request_totals"]["successful"] == 48
        tpot = said["inter_token_latency_ms"]["successful"]
        assert each.estimates["tpot_s_mean"].value * 1e3 == pytest.approx(tpot["mean"], rel=1e-4)
        rate = each.estimates["output_tokens_per_s"].value
        assert rate == pytest.approx(48 * 24 / benchmark["duration"], rel=0.01)
        prompts = said["prompt_token_count"]["successful"]["mean"]
        assert each.estimates["input_tokens_mean"].value == pytest.approx(prompts)


def test_time_to_first_token_counts_from_when_it_was_wanted(told, points):
    (found,) = points("guidellm_poisson.json", whole=True)
    requests = told("guidellm_poisson.json")["benchmarks"][0]["requests"]["successful"]
    times = [each["info"]["timings"] for each in requests]
    ours = [each["first_token_iteration"] - each["targeted_start"] for each in times]
    assert found.estimates["ttft_s_mean"].value == pytest.approx(np.mean(ours), rel=1e-4)
    assert found.point == LoadPoint(mode="open", requests_per_s=12.0)


def test_gaps_that_nobody_kept_are_not_measured(points):
    (found,) = points("guidellm_poisson.json")
    for statistic in ("mean", "p50", "p99"):
        assert found.estimates[f"itl_s_{statistic}"] is None
    assert found.estimates["tokens_per_chunk_mean"] is None
    assert found.estimates["tpot_s_p50"] is not None
    assert not any("several tokens in one chunk" in note for note in found.notes)


def test_failures(told, points):
    (found,) = points("guidellm_faults.json", whole=True)
    totals = told("guidellm_faults.json")["benchmarks"][0]["metrics"]["request_totals"]
    assert (found.requests_ok, found.requests_failed) == (totals["successful"], totals["errored"])
    assert found.failures == {"http_error": 3, "reset": 2}


def test_when_all_failed_nothing_was_measured(points):
    (found,) = points("guidellm_all500.json")
    assert found.requests_ok == 0
    assert found.failures == {"http_error": 24}
    assert all(estimate is None for estimate in found.estimates.values())


def test_who_it_is(imported):
    (run,) = imported("guidellm_closed.json")
    told = run.manifest.imported
    assert (told.by, told.gaps_known, told.file) == ("GuideLLM 0.8.1", False, "guidellm_closed.json")
    assert run.manifest.scenario.name == "GuideLLM 32/24"
    assert run.manifest.utc.startswith("20261122T1129")


def test_without_its_requests_the_summary_stands(told, real, points):
    path, value = real("guidellm_closed.json"), told("guidellm_closed.json")
    for benchmark in value["benchmarks"]:
        benchmark["requests"] = {"successful": [], "errored": [], "incomplete": []}
    path.write_text(json.dumps(value))
    found = points(path)
    said = value["benchmarks"][1]["metrics"]["time_to_first_token_ms"]["successful"]
    assert found[1].estimates["ttft_s_p99"].value * 1e3 == pytest.approx(said["percentiles"]["p99"])
    assert found[1].requests_ok == 48
    assert found[1].estimates["itl_s_mean"] is None


def test_a_request_that_was_never_sent_is_none(told, real, points):
    path, value = real("guidellm_closed.json"), told("guidellm_closed.json")
    for benchmark in value["benchmarks"]:
        waiting = benchmark["requests"]["successful"].pop()
        waiting["info"]["timings"]["request_start"] = None
        closed = benchmark["requests"]["successful"].pop()
        benchmark["requests"]["incomplete"] = [waiting, closed]
    path.write_text(json.dumps(value))
    found = points(path, whole=True)
    assert [each.requests_ok for each in found] == [46, 46]
    assert all(each.failures == {} for each in found)


def test_without_a_schedule_times_count_from_sending(told, real, points):
    """``throughput`` wants all of them at the start, whenever a place is free."""
    path, value = real("guidellm_closed.json"), told("guidellm_closed.json")
    for benchmark in value["benchmarks"]:
        benchmark["config"]["strategy"] = {"type_": "throughput", "max_concurrency": 4}
        for each in benchmark["requests"]["successful"]:
            each["info"]["timings"]["targeted_start"] = benchmark["start_time"] - 100
    value["benchmarks"] = value["benchmarks"][1:]
    path.write_text(json.dumps(value))
    (found,) = points(path, whole=True)
    assert found.point == LoadPoint(mode="closed", concurrency=4)
    said = value["benchmarks"][0]["metrics"]["time_to_first_token_ms"]["successful"]["mean"]
    assert found.estimates["ttft_s_mean"].value * 1e3 == pytest.approx(said, rel=1e-4)


def test_answers_that_were_not_streamed_have_the_summary(told, real, points):
    path, value = real("guidellm_closed.json"), told("guidellm_closed.json")
    for benchmark in value["benchmarks"]:
        for each in benchmark["requests"]["successful"]:
            each["info"]["timings"] |= {"first_token_iteration": None, "last_token_iteration": None}
    path.write_text(json.dumps(value))
    for found in points(path):
        assert found.requests_ok == 48
        assert any("not streamed" in note for note in found.notes)


def test_turns_of_a_conversation_are_of_no_one_length(told, real, imported):
    path, value = real("guidellm_closed.json"), told("guidellm_closed.json")
    value["config"]["spec"]["data"][0]["turns"] = 3
    path.write_text(json.dumps(value))
    (run,) = imported(path)
    assert run.manifest.scenario.name == "GuideLLM"


def test_an_unfinished_report(told, real, imported):
    path = real("guidellm_closed.json")
    path.write_text(json.dumps(told("guidellm_closed.json") | {"benchmarks": []}))
    with pytest.raises(InputError, match="no benchmark of GuideLLM was finished"):
        imported(path)


def test_an_unknown_load(told, real, imported):
    path, value = real("guidellm_closed.json"), told("guidellm_closed.json")
    value["benchmarks"][0]["config"]["strategy"]["type_"] = "zigzag"
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match="'zigzag' is no load that is known here"):
        imported(path)


def test_metrics_read_what_was_sealed(imported):
    (run,) = imported("guidellm_closed.json")
    assert [len(metrics.points(run)), len(run.manifest.windows)] == [2, 2]
    first, second = run.manifest.windows
    assert first.closed_ns < second.opened_ns
