"""vllm bench's files against what vLLM says of the same requests."""

from __future__ import annotations

import json

import pytest

from profiler import metrics, store
from profiler.errors import InputError
from profiler.schema import LoadPoint

NAMES = {"ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s", "e2el": "e2e_s"}
STATISTICS = {"mean": "mean", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}


@pytest.mark.parametrize("name", ["vllm_closed_detailed.json", "vllm_real_detailed.json"])
def test_our_figures_of_all_requests_are_vllms(real, points, name):
    told = json.loads(real(name).read_text())
    (found,) = points(name, whole=True)
    for theirs, ours in NAMES.items():
        for statistic, q in STATISTICS.items():
            estimate = found.estimates[f"{ours}_{q}"]
            assert estimate.value * 1e3 == pytest.approx(told[f"{statistic}_{theirs}_ms"], rel=1e-6)
    assert found.requests_ok == told["completed"]
    assert found.point == LoadPoint(mode="closed", concurrency=told["max_concurrency"])
    # vLLM's clock stops some ms after the last token.
    assert found.estimates["output_tokens_per_s"].value == pytest.approx(told["output_throughput"], rel=0.02)
    assert found.estimates["requests_per_s"].value == pytest.approx(told["request_throughput"], rel=0.02)


def test_all_tokens_are_in_the_whole_window(imported):
    (run,) = imported("vllm_closed_detailed.json", whole=True)
    (window,), (found,) = run.manifest.windows, metrics.points(run)
    span_s = (window.steady_end_ns - window.steady_start_ns) / 1e9
    assert found.estimates["output_tokens_per_s"].value * span_s == pytest.approx(48 * 24)
    assert found.estimates["input_tokens_per_s"].value * span_s == pytest.approx(694)


def test_the_steady_window_leaves_out_the_start_and_the_end(imported):
    (run,) = imported("vllm_closed_detailed.json")
    (window,), (found,) = run.manifest.windows, metrics.points(run)
    records = run.requests.to_pylist()
    first = sorted(records, key=lambda each: each["sent_ns"])[:4]
    assert window.steady_start_ns == max(each["first_ns"] for each in first)
    assert window.steady_end_ns == max(each["sent_ns"] for each in records)
    assert found.requests_ok == 43
    assert any("from the first token of all streams" in note for note in found.notes)


def test_plain_results_are_taken_as_they_are(points):
    (found,) = points("vllm_closed_plain.json")
    assert found.requests_ok == 48
    assert found.requests_failed == 0
    assert found.failures == {}
    estimate = found.estimates["output_tokens_per_s"]
    assert estimate.value == pytest.approx(335.461328)
    assert (estimate.low, estimate.high, estimate.n) == (None, None, 48)
    assert found.estimates["ttft_s_p99"].value == pytest.approx(0.0622997, rel=1e-5)
    assert found.estimates["e2e_s_p90"].value == pytest.approx(0.2944895, rel=1e-5)
    assert found.estimates["input_tokens_mean"].value == pytest.approx(694 / 48)
    assert found.estimates["goodput_requests_per_s"] is None
    assert found.consumed.reasons["power_w_mean"] == "vllm bench serve does not say"


def test_without_e2el_its_times_are_those_of_the_requests(real, points):
    path = real("vllm_closed_plain.json")
    told = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in told.items() if "e2el" not in key}))
    (found,) = points(path)
    assert found.estimates["e2e_s_p99"].value == pytest.approx(told["p99_e2el_ms"] / 1e3)


def test_a_rate_is_an_open_loop_and_waiting_for_a_place_counts(points):
    (found,) = points("vllm_open_detailed.json")
    assert found.point == LoadPoint(mode="open", requests_per_s=12.0)
    (capped,) = points("vllm_capped_detailed.json")
    assert capped.estimates["ttft_s_p50"].value > 0.5  # vLLM itself says 0.05
    assert capped.estimates["tpot_s_p50"].value == pytest.approx(0.0101, rel=0.02)
    assert any("no more than 4 requests were in flight" in note for note in capped.notes)


def test_a_summary_of_capped_requests_says_that_their_waiting_is_not_in_it(real, points):
    path = real("vllm_capped_detailed.json")
    told = json.loads(path.read_text())
    path.write_text(json.dumps({name: each for name, each in told.items() if name != "itls"}))
    (found,) = points(path)
    assert found.estimates["ttft_s_p50"].value < 0.1
    assert any("waiting for a place is in none" in note for note in found.notes)


RAMP = {"request_rate": "inf", "ramp_up_start_rps": 4, "ramp_up_end_rps": 20}


@pytest.mark.parametrize(("ramp", "rate"), [("linear", 9.9413), ("exponential", 8.0472)])
def test_a_ramp_is_an_open_loop_of_its_mean_rate(real, points, ramp, rate):
    """n requests over the sum of their waits 1/r(i/n): 16/ln 5, and ln 5 · 4 · 20/16."""
    path = real("vllm_open_detailed.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | RAMP | {"ramp_up_strategy": ramp}))
    (found,) = points(path)
    assert (found.point.mode, found.point.requests_per_s) == ("open", pytest.approx(rate, rel=1e-4))
    assert any(f"ramped from 4 to 20/s ({ramp})" in note for note in found.notes)


def test_a_flat_ramp_and_bursts(real, points):
    path = real("vllm_open_detailed.json")
    change = RAMP | {"ramp_up_strategy": "linear", "ramp_up_end_rps": 4, "burstiness": 0.3}
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    (found,) = points(path)
    assert found.point.requests_per_s == 4.0
    assert any("burstiness 0.3" in note for note in found.notes)


@pytest.mark.parametrize("change", [{"total_input_tokens": 48 * 1024}, {"burstiness": 0.3}])
def test_another_workload_in_the_same_file_is_no_repeat(real, imported, tmp_path, change):
    told = json.loads(real("vllm_closed_plain.json").read_text())
    path = tmp_path / "appended.json"
    path.write_text("\n".join(json.dumps(each) for each in (told, told | change, told)))
    assert [run.manifest.imported.points[0].requests_ok for run in imported(path)] == [96, 48]


def test_an_answer_without_a_token_is_empty(real, points):
    path = real("vllm_closed_detailed.json")
    told = json.loads(path.read_text())
    told["ttfts"][4] = 0.0
    path.write_text(json.dumps(told))
    (found,) = points(path, whole=True)
    assert found.failures == {"empty": 1}


def test_all_prompts_at_once_are_a_batch(points):
    (found,) = points("vllm_inf_detailed.json")
    assert found.point == LoadPoint(mode="batch", concurrency=24)
    assert found.requests_ok == 24


def test_failures_are_failures_and_their_zeros_no_figures(real, points):
    told = json.loads(real("vllm_faults_detailed.json").read_text())
    (found,) = points("vllm_faults_detailed.json", whole=True)
    assert found.requests_ok == told["completed"] == 26
    assert found.failures == {"http_error": 4, "reset": 2}
    assert found.estimates["ttft_s_mean"].value * 1e3 == pytest.approx(told["mean_ttft_ms"])


@pytest.mark.parametrize("name", ["vllm_all500_plain.json", "vllm_all500_detailed.json"])
def test_when_all_failed_nothing_was_measured(points, name):
    (found,) = points(name)
    assert found.requests_ok == 0
    assert found.requests_failed == 8
    assert all(estimate is None for estimate in found.estimates.values())


def test_a_zero_where_others_were_answered_is_no_figure_either(real, points):
    """Answers of one token have no TPOT, and a failed request's time is none."""
    path = real("vllm_closed_plain.json")
    told = {key: value for key, value in json.loads(path.read_text()).items() if "e2el" not in key}
    zeros = {key: 0.0 for key in told if "tpot" in key or "itl" in key}
    fewer = {"latencies": [0.0] * 8 + told["latencies"][8:], "completed": 40, "failed": 8}
    path.write_text(json.dumps(told | zeros | fewer))
    (found,) = points(path)
    assert {found.estimates[f"{name}_s_{q}"] for name in ("tpot", "itl") for q in ("mean", "p99")} == {None}
    assert found.estimates["e2e_s_mean"].n == 40
    assert found.estimates["e2e_s_mean"].value == pytest.approx(sum(told["latencies"][8:]) / 40)
    assert found.requests_failed == 8


def test_results_appended_to_a_file_are_repeats(real, points, tmp_path):
    told = real("vllm_closed_plain.json").read_text()
    more = json.loads(told) | {"output_throughput": 300.0}
    path = tmp_path / "appended.json"
    path.write_text(f"{told}\n{json.dumps(more)}")
    (found,) = points(path)
    rate = found.estimates["output_tokens_per_s"]
    assert (rate.n, rate.over) == (2, "repeats")
    assert rate.low < 300 < rate.value < 335.5 < rate.high
    assert found.requests_ok == 96


def test_detailed_results_appended_to_a_file_are_windows(real, imported, tmp_path):
    path = tmp_path / "appended.json"
    path.write_text("\n".join([real("vllm_closed_detailed.json").read_text()] * 2))
    (run,) = imported(path)
    assert [window.repeat for window in run.manifest.windows] == [0, 1]
    (found,) = metrics.points(run)
    assert found.repeats == 2
    assert found.requests_ok == 86


def test_an_older_vllm_without_start_times(real, points):
    path = real("vllm_closed_detailed.json")
    told = json.loads(path.read_text())
    del told["start_times"], told["failed"]
    path.write_text(json.dumps(told))
    (found,) = points(path)
    assert found.estimates["itl_s_p50"].value * 1e3 == pytest.approx(told["p50_itl_ms"])
    assert found.requests_failed == 0
    assert any("older vLLM" in note for note in found.notes)


def test_numbers_beyond_all_measure_are_none(real, points):
    path = real("vllm_all500_plain.json")
    told = json.loads(path.read_text())
    odd = {
        "total_input_tokens": 5,
        "latencies": [float("inf"), float("nan"), 0.25],
        "output_throughput": 1e200,
    }
    path.write_text(json.dumps({name: each for name, each in (told | odd).items() if "e2el" not in name}))
    (found,) = points(path)
    assert found.estimates["e2e_s_mean"].value == 0.25
    assert found.estimates["output_tokens_per_s"] is None
    assert found.estimates["input_tokens_mean"] is None


def test_infinity_as_older_versions_wrote_it(real, points):
    path = real("vllm_inf_detailed.json")
    path.write_text(path.read_text().replace('"request_rate": "inf"', '"request_rate": Infinity'))
    (found,) = points(path)
    assert found.point.mode == "batch"


def test_latency_is_of_whole_batches(points):
    (found,) = points("vllm_latency.json")
    assert found.estimates["e2e_s_mean"].over == "batches"
    assert found.estimates["e2e_s_mean"].n == 5
    assert found.point == LoadPoint(mode="batch")
    assert found.requests_ok is None
    assert found.estimates["output_tokens_per_s"] is None


def test_throughput_does_not_tell_the_kinds_of_tokens(points):
    (found,) = points("vllm_throughput.json")
    assert found.point == LoadPoint(mode="batch", concurrency=32)
    assert found.estimates["total_tokens_per_s"].value > 0
    assert found.estimates["output_tokens_per_s"] is None
    assert any("does not tell input from output" in note for note in found.notes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ttfts": [0.1]}, "differ in length"),
        ({"duration": "long", "itls": None}, "duration is 'long', expected a number"),
        ({"itls": [["x"]] * 48}, "a request in it is damaged"),
        ({"completed": 1.5}, "expected a whole number"),
        ({"itls": [[-1e-3, 0.1]] * 48}, "its times run backwards"),
        ({"ttfts": [1e12] * 48}, "no times of one run"),
        ({"ttfts": [float("nan")] * 48}, "no times of one run"),
        ({"output_lens": [10**9] * 48}, "tokens are not between"),
        ({"input_lens": [float("inf")] * 48}, "a request in it is damaged"),
        ({"model_id": "a\nb"}, "the model's name is"),
        ({"model_id": "m" * 1000}, "the model's name is"),
        ({"max_concurrency": "four"}, "max_concurrency is 'four'"),
    ],
)
def test_damaged_fields_are_named(real, imported, tmp_path, change, said):
    path = real("vllm_closed_detailed.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=said) as error:
        imported(path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("results/*"))


def test_the_records_are_what_the_file_says(real, imported):
    told = json.loads(real("vllm_open_detailed.json").read_text())
    (run,) = imported("vllm_open_detailed.json")
    records = store.load(run.folder).requests.to_pylist()
    order = sorted(range(40), key=lambda n: told["start_times"][n] - told["queue_times"][n])
    for record, n in zip(records, order, strict=True):
        assert (record["first_ns"] - record["sent_ns"]) / 1e9 == pytest.approx(told["ttfts"][n], abs=2e-9)
        gaps = [(b - a) / 1e9 for a, b in zip(record["arrivals_ns"], record["arrivals_ns"][1:], strict=False)]
        assert gaps == pytest.approx(told["itls"][n], abs=2e-9)
        assert (record["last_ns"] - record["sent_ns"]) / 1e9 == pytest.approx(told["latencies"][n], abs=1e-6)
        assert (record["sent_ns"] - record["due_ns"]) / 1e9 == pytest.approx(told["queue_times"][n], abs=2e-9)
        assert (record["input_tokens"], record["output_tokens"]) == (
            told["input_lens"][n],
            told["output_lens"][n],
        )
