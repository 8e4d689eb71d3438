"""AIPerf's exports against what it says of the same requests."""

from __future__ import annotations

import json

import numpy as np
import pytest

from profiler.errors import InputError
from profiler.importing import aiperf
from profiler.schema import LoadPoint

LINES, SUMMARY, TABLE = aiperf.LINES, aiperf.SUMMARY, "profile_export_aiperf.csv"


@pytest.fixture
def run_of(real):
    """A run's files, all of them or some, in one folder; the last one's path."""
    return lambda run, *names: [real(f"aiperf_{run}.{name}") for name in names][-1]


def test_its_figures_are_those_of_the_records(run_of, imported, points):
    path = run_of("closed", SUMMARY, LINES)
    said = json.loads(path.with_name(SUMMARY).read_text())
    (found,) = points(path, whole=True)
    for theirs, ours in (("inter_chunk_latency", "itl_s"), ("inter_token_latency", "tpot_s")):
        for statistic, q in (("avg", "mean"), ("p50", "p50"), ("p99", "p99")):
            assert found.estimates[f"{ours}_{q}"].value * 1e3 == pytest.approx(
                said[theirs][statistic], rel=1e-4
            )
    (run,) = imported(path, whole=True)
    records = run.requests.to_pylist()
    ttft_ms = [(each["first_ns"] - each["sent_ns"]) / 1e6 for each in records]
    whole_ms = [(each["done_ns"] - each["sent_ns"]) / 1e6 for each in records]
    assert np.mean(ttft_ms) == pytest.approx(said["time_to_first_token"]["avg"], rel=1e-4)
    assert np.percentile(ttft_ms, 99) == pytest.approx(said["time_to_first_token"]["p99"], rel=1e-4)
    assert np.mean(whole_ms) == pytest.approx(said["request_latency"]["avg"], rel=1e-3)
    ttft_s = said["time_to_first_token"]["avg"] / 1e3
    assert found.estimates["ttft_s_mean"].value == pytest.approx(
        ttft_s, rel=1e-4
    )  # a closed loop has no queue
    rate = said["output_token_throughput"]["avg"]
    assert found.estimates["output_tokens_per_s"].value == pytest.approx(rate, rel=0.01)


def test_time_to_first_token_counts_from_when_it_was_wanted(run_of, points):
    path = run_of("rate", SUMMARY, LINES)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    late_ms = [(a["request_start_ns"] - a["credit_issued_ns"]) / 1e6 for a in (n["metadata"] for n in lines)]
    ttft_ms = [n["metrics"]["time_to_first_token"]["value"] for n in lines]
    (found,) = points(path, whole=True)
    assert found.estimates["ttft_s_mean"].value * 1e3 == pytest.approx(
        np.mean(late_ms) + np.mean(ttft_ms), 1e-4
    )
    assert found.point == LoadPoint(mode="open", requests_per_s=12.0)


def test_prompts_are_counted_by_the_server(run_of, points):
    (found,) = points(run_of("closed", SUMMARY, LINES), whole=True)
    assert found.estimates["input_tokens_mean"].value == pytest.approx(9.5)  # AIPerf's own count is 32
    assert found.estimates["output_tokens_mean"].value == 24


def test_whichever_of_its_files_is_given_it_is_the_same_run(run_of, imported):
    path = run_of("closed", LINES, SUMMARY, TABLE)
    folders = {str(run.folder) for name in (LINES, SUMMARY, TABLE) for run in imported(path.with_name(name))}
    assert len(folders) == 1


def test_a_table_alone_says_what_the_json_says(run_of, points):
    from_table = points(run_of("closed", TABLE), model="tiny-moe")[0]
    from_json = points(run_of("rate", SUMMARY))[0]
    assert from_table.point == LoadPoint(mode="closed", concurrency=4)
    assert from_table.requests_ok == 48
    assert from_table.estimates["ttft_s_p99"].value == pytest.approx(0.0656)
    assert from_table.estimates["output_tokens_per_s"].value == pytest.approx(329.58)
    told = {name for name, each in from_table.estimates.items() if each is not None}
    assert told <= {name for name, each in from_json.estimates.items() if each is not None}
    assert any("as many streams as were seen" in note for note in from_table.notes)


def test_lines_alone_need_the_model(run_of, imported):
    path = run_of("closed", LINES)
    with pytest.raises(InputError, match="does not say which model was measured; give --model"):
        imported(path)
    (run,) = imported(path, model="tiny-moe")
    assert run.manifest.windows[0].point == LoadPoint(mode="closed", concurrency=4)
    assert run.manifest.imported.version is None


def test_failures(run_of, points):
    (found,) = points(run_of("faults", SUMMARY, LINES), whole=True)
    assert (found.requests_ok, found.failures) == (25, {"http_error": 4, "reset": 3})


def test_a_summary_says_how_many_failed(real, points, tmp_path):
    path = tmp_path / SUMMARY
    path.write_text(real(f"aiperf_faults.{SUMMARY}").read_text())
    (found,) = points(path)
    assert (found.requests_ok, found.requests_failed) == (25, 7)


def test_when_all_failed_nothing_was_measured(run_of, points):
    (found,) = points(run_of("all500", LINES), model="tiny-moe")
    assert found.requests_ok == 0
    assert found.failures == {"http_error": 32}
    assert all(estimate is None for estimate in found.estimates.values())


def test_energy_of_its_gpu_telemetry(run_of, points):
    """As ``energy_efficiency_analyzer`` names it; mJ a token are J a thousand."""
    path = run_of("closed", SUMMARY)
    told = json.loads(path.read_text())
    told["nvidia_energy_per_output_token"] = {"unit": "mJ/token", "avg": 250.0}
    told["nvidia_total_gpu_power"] = {"unit": "W", "avg": 400.0}
    path.write_text(json.dumps(told))
    (found,) = points(path)
    assert found.estimates["energy_j_per_output_token"].value == 0.25
    assert found.estimates["power_w_mean"].value == 400.0
    assert found.consumed.facts["energy_boundary"] == "gpu"
    assert "energy_j_per_output_token" not in found.consumed.reasons
    told["nvidia_energy_per_output_token"]["unit"] = "J/token"
    path.write_text(json.dumps(told))
    (found,) = points(path, model="another")
    assert found.estimates["energy_j_per_output_token"] is None


def test_warm_up_is_no_load(run_of, points):
    path = run_of("closed", SUMMARY, LINES)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[:8]:
        line["metadata"]["benchmark_phase"] = "warmup"
    path.write_text("\n".join(map(json.dumps, lines)))
    (found,) = points(path, whole=True)
    assert found.requests_ok == 40


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"metrics": {"inter_chunk_latency": {"value": ["a"]}, "time_to_first_token": {"value": 1}}},
            "no number",
        ),
        ({"metrics": [1]}, "metrics is .* expected an object"),
        ({"error": "what"}, "error is 'what', expected an object"),
    ],
)
def test_damaged_lines_are_named(run_of, imported, change, said):
    path = run_of("closed", SUMMARY, LINES)
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | change), *rest]))
    with pytest.raises(InputError, match=said):
        imported(path)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def capped(path, streams, spread=1.0):
    """As with a cap on requests in flight: 12/s were asked for, ``spread`` times as long between sendings."""
    told = json.loads(path.with_name(SUMMARY).read_text())
    told["input_config"]["phases"][-1] |= {"rate": 12.0, "concurrency": streams}
    path.with_name(SUMMARY).write_text(json.dumps(told))
    lines = lines_of(path)
    first = min(line["metadata"]["request_start_ns"] for line in lines)
    for line in lines:
        late = int((line["metadata"]["request_start_ns"] - first) * (spread - 1))
        for name in ("credit_issued_ns", "request_start_ns", "request_end_ns"):
            line["metadata"][name] += late
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_a_rate_that_a_cap_held_back_is_a_closed_loop(run_of, points):
    seen = json.loads(run_of("rate", SUMMARY).read_text())["effective_concurrency"]["max"]
    path = capped(run_of("rate", SUMMARY, LINES), round(seen), spread=2.0)
    (found,) = points(path, scenario="held back")
    assert found.point == LoadPoint(mode="closed", concurrency=round(seen))
    assert any("12 requests/s were asked for and" in note for note in found.notes)


def test_a_cap_that_is_not_reached_changes_nothing(run_of, points):
    path = capped(run_of("rate", SUMMARY, LINES), 1000)
    (found,) = points(path)
    assert found.point == LoadPoint(mode="open", requests_per_s=12.0)
    assert not any("in flight" in note for note in found.notes)


def test_answers_that_were_not_streamed_have_the_summary(run_of, points):
    path = run_of("closed", SUMMARY, LINES)
    lines = lines_of(path)
    for line in lines:
        del line["metrics"]["time_to_first_token"], line["metrics"]["inter_chunk_latency"]
    path.write_text("\n".join(map(json.dumps, lines)))
    told = json.loads(path.with_name(SUMMARY).read_text())
    (found,) = points(path)
    assert found.requests_ok == 48
    assert found.estimates["e2e_s_mean"].value == pytest.approx(told["request_latency"]["avg"] / 1e3)
    assert any("not streamed" in note for note in found.notes)


def test_a_prefix_names_the_files_that_belong_together(run_of, imported, tmp_path):
    path = run_of("closed", SUMMARY, LINES)
    mine = path.rename(path.with_name("mine.jsonl"))
    with pytest.raises(InputError, match="does not say which model"):
        imported(mine)  # the usual summary beside it is of another run
    path.with_name(SUMMARY).rename(path.with_name("mine.json"))
    (run,) = imported(mine)
    assert run.manifest.model.name == "tiny-moe"


def test_turns_of_a_conversation_are_of_no_one_length(run_of, imported):
    path = run_of("closed", SUMMARY, LINES)
    told = json.loads(path.with_name(SUMMARY).read_text())
    told["input_config"]["datasets"][0]["turns"] = {"mean": 3.0, "stddev": 0.0}
    path.with_name(SUMMARY).write_text(json.dumps(told))
    (run,) = imported(path)
    assert run.manifest.scenario.name == "AIPerf"


def test_a_line_cut_short(run_of, imported, tmp_path):
    path = run_of("closed", SUMMARY, LINES)
    path.write_text(path.read_text()[:-100])
    with pytest.raises(InputError, match="damaged or cut short: line 48"):
        imported(path)
    assert not list(tmp_path.glob("results/*"))
