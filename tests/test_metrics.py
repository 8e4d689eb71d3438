from __future__ import annotations

import msgspec
import pytest

from profiler import metrics, store
from profiler.schema import EngineFacts, LoadPoint
from profiler.settings import Conversation, Share, Workload
from tests import make


def points(tmp_path, windows, **changes):
    run = make.writer(tmp_path, windows, **changes)
    run.seal()
    return metrics.points(store.load(run.folder))


def test_rates_count_what_arrives_in_the_steady_window(tmp_path):
    # 50 requests of 0.2 s: every arrival and prompt falls inside the 10 s window.
    (point,) = points(tmp_path, [make.steady(0, 10.0)])
    assert point.estimates["output_tokens_per_s"].value == pytest.approx(250 / 10)
    assert point.estimates["input_tokens_per_s"].value == pytest.approx(500 / 10)
    assert point.estimates["total_tokens_per_s"].value == pytest.approx(75)
    assert point.estimates["requests_per_s"].value == pytest.approx(5)


def test_tokens_before_and_after_the_window_do_not_count(tmp_path):
    held, records = make.steady(0, 10.0)
    early = make.request(0, 100, 9.0)  # warm-up: its tokens came before
    straddling = make.request(0, 101, 9.89)  # due before, first two tokens before 10.02
    (point,) = points(tmp_path, [(held, [early, straddling, *records])])
    assert point.estimates["output_tokens_per_s"].value == pytest.approx((250 + 4) / 10)
    assert point.requests_ok == 50


def test_latencies_are_those_of_requests_due_in_the_window(tmp_path):
    held, records = make.steady(0, 10.0)
    slow = make.request(0, 100, 9.0, first_ns=20 * make.S, last_ns=21 * make.S, arrivals_ns=[20 * make.S] * 5)
    (point,) = points(tmp_path, [(held, [slow, *records])])
    assert point.estimates["ttft_s_p99"].value == pytest.approx(0.1)
    assert point.estimates["e2e_s_mean"].value == pytest.approx(0.18)
    assert point.estimates["tpot_s_mean"].value == pytest.approx(0.02)
    assert point.estimates["itl_s_p50"].value == pytest.approx(0.02)


def test_ttft_counts_from_due_not_from_sent(tmp_path):
    late = make.request(0, 0, 11.0, sent_ns=round(11.09 * make.S))
    (point,) = points(tmp_path, [(make.window(0, 10, 12), [late])])
    assert point.estimates["ttft_s_mean"].value == pytest.approx(0.1)


def test_a_chunk_of_k_tokens_is_one_gap_and_zero_gaps(tmp_path):
    record = make.request(
        0,
        0,
        11.0,
        arrivals_ns=[round(t * make.S) for t in (11.1, 11.2)],
        arrival_tokens=[1, 4],
        last_ns=round(11.2 * make.S),
    )
    (point,) = points(tmp_path, [(make.window(0, 10, 12), [record])])
    assert point.estimates["itl_s_mean"].value == pytest.approx(0.1 / 4)
    assert point.estimates["itl_s_mean"].n == 4
    assert point.estimates["tpot_s_mean"].value == pytest.approx(0.1 / 4)
    assert any("several tokens in one chunk" in note for note in point.notes)


def test_failed_requests_are_counted_by_kind_and_never_averaged_in(tmp_path):
    held, records = make.steady(0, 10.0)
    broken = [
        msgspec.structs.replace(records[n], outcome=kind, last_ns=make.S * 99)
        for n, kind in ((3, "reset"), (4, "reset"), (5, "http_error"))
    ]
    cancelled = make.request(0, 99, 12.0, outcome="cancelled")
    (point,) = points(tmp_path, [(held, [*records[:3], *broken, *records[6:], cancelled])])
    assert point.requests_ok == 47
    assert point.failures == {"reset": 2, "http_error": 1}
    assert point.estimates["e2e_s_mean"].value == pytest.approx(0.18)
    # Their tokens did arrive, so throughput keeps them.
    assert point.estimates["output_tokens_per_s"].value == pytest.approx((250 + 5) / 10)


def test_a_window_that_never_was_steady_measures_nothing(tmp_path):
    held = make.window(0, 10, 12, steady_start_ns=None, steady_end_ns=None, trouble="all requests failed")
    record = make.request(0, 0, 11.0, outcome="http_error", first_ns=None, last_ns=None, output_tokens=0)
    record = msgspec.structs.replace(record, arrivals_ns=[], arrival_tokens=[])
    (point,) = points(tmp_path, [(held, [record])])
    assert point.estimates["output_tokens_per_s"] is None
    assert point.estimates["ttft_s_p50"] is None
    assert point.failures == {"http_error": 1}
    assert point.notes == ("all requests failed",)


def test_repeats_carry_the_interval(tmp_path):
    (point,) = points(
        tmp_path, [make.steady(0, 10.0), make.steady(1, 40.0), make.steady(2, 70.0, requests=49)]
    )
    found = point.estimates["output_tokens_per_s"]
    assert (found.n, found.over) == (3, "repeats")
    assert found.low <= found.value <= found.high


def test_one_repeat_has_only_precision_within_the_run(tmp_path):
    (point,) = points(tmp_path, [make.steady(0, 10.0)])
    assert point.estimates["output_tokens_per_s"].over == "batches"
    assert point.estimates["itl_s_p99"].low is None


def test_text_pieces_share_the_count_the_server_reports(tmp_path):
    record = make.request(0, 0, 11.0, output_tokens=10, reported_output_tokens=10)  # 5 pieces, 10 tokens
    (point,) = points(tmp_path, [(make.window(0, 11, 12), [record])])
    assert point.estimates["output_tokens_per_s"].value == pytest.approx(10)


def test_tokens_beyond_the_pieces_are_zero_gaps(tmp_path):
    # 16 tokens in 5 pieces 0.02 s apart: 15 gaps, of which 11 are zero, as TPOT says.
    record = make.request(0, 0, 11.0, output_tokens=16, reported_output_tokens=16)
    (point,) = points(tmp_path, [(make.window(0, 11, 12), [record])])
    assert point.estimates["itl_s_mean"].n == 15
    assert point.estimates["itl_s_mean"].value == pytest.approx(0.08 / 15)
    assert point.estimates["tpot_s_mean"].value == pytest.approx(0.08 / 15)
    assert any("several tokens in one chunk" in note for note in point.notes)


def test_tokens_in_several_pieces_leave_the_gaps_as_seen_with_a_note(tmp_path):
    record = make.request(0, 0, 11.0, output_tokens=3, reported_output_tokens=3)
    (point,) = points(tmp_path, [(make.window(0, 11, 12), [record])])
    assert point.estimates["itl_s_mean"].n == 4
    assert point.estimates["itl_s_mean"].value == pytest.approx(0.02)
    assert any("several pieces" in note for note in point.notes)
    assert not any("several tokens" in note for note in point.notes)


def test_one_piece_a_token_is_worth_no_note(tmp_path):
    (point,) = points(tmp_path, [make.steady(0, 10.0)])
    assert point.notes == ()


def test_one_unknown_prompt_makes_the_input_rates_unknown(tmp_path):
    held, records = make.steady(0, 10.0)
    records[7] = msgspec.structs.replace(records[7], input_tokens=None)
    (point,) = points(tmp_path, [(held, records), make.steady(1, 40.0)])
    assert point.estimates["input_tokens_per_s"] is None
    assert point.estimates["total_tokens_per_s"] is None
    assert point.estimates["output_tokens_per_s"].value == pytest.approx(25)
    assert any("input tokens n/a" in note for note in point.notes)


def test_unknown_prompts_of_requests_outside_the_window_do_not_matter(tmp_path):
    held, records = make.steady(0, 10.0)
    after = make.request(0, 90, 25.0, input_tokens=None, outcome="cancelled")
    silent = make.request(
        0, 91, 12.0, input_tokens=None, outcome="http_error", first_ns=None, last_ns=None, output_tokens=0
    )
    silent = msgspec.structs.replace(silent, arrivals_ns=[], arrival_tokens=[])
    (point,) = points(tmp_path, [(held, [*records, after, silent])])
    assert point.estimates["input_tokens_per_s"].value == pytest.approx(50)


def test_a_window_whose_requests_are_missing_is_left_out_with_a_note(tmp_path):
    lost = (make.window(1, 40, 50), [])
    (point,) = points(tmp_path, [make.steady(0, 10.0), lost, make.steady(2, 70.0)])
    assert point.repeats == 2
    assert point.estimates["output_tokens_per_s"].value == pytest.approx(25)
    assert "window 1: its requests are missing" in point.notes
    (nothing,) = points(tmp_path / "b", [(make.window(0, 40, 50), [])])
    assert nothing.repeats == 0
    assert all(nothing.estimates[f"{name}_per_s"] is None for name in ("requests", "output_tokens"))


def test_a_window_without_a_single_token_is_a_window_of_none(tmp_path):
    record = make.request(0, 0, 11.0, outcome="http_error", first_ns=None, last_ns=None, output_tokens=0)
    record = msgspec.structs.replace(record, arrivals_ns=[], arrival_tokens=[])
    (point,) = points(tmp_path, [(make.window(0, 10, 12), [record])])
    assert point.estimates["output_tokens_per_s"].value == 0
    assert point.failures == {"http_error": 1}


def test_power_of_this_machine_is_not_that_of_a_remote_endpoint(tmp_path):
    remote = make.manifest("r").engine
    remote = msgspec.structs.replace(remote, kind="endpoint", device="remote")
    run = make.writer(tmp_path, [make.steady(0, 10.0, requests=100)], engine=remote)
    joules = [(t / 10, "rapl:package-0", "energy_uj", 5e6 * t) for t in range(80, 330)]
    run.samples_path.write_bytes(make.sample_lines(joules))
    run.seal()
    (point,) = metrics.points(store.load(run.folder))
    for name in ("power_w_mean", "energy_j_per_output_token"):
        assert point.estimates[name] is None
        assert point.consumed.reasons[name] == "the endpoint runs elsewhere: its power is not measured"


def test_points_are_apart(tmp_path):
    eight = LoadPoint(mode="closed", concurrency=8)
    found = points(tmp_path, [make.steady(0, 10.0), make.steady(1, 40.0, point=eight)])
    assert [each.point.concurrency for each in found] == [1, 8]


def test_energy_over_the_same_window_and_its_absence_explained(tmp_path):
    engine = EngineFacts(kind="vllm", version="1", device="cuda", gpus=("GPU-1",))
    run = make.writer(tmp_path, [make.steady(0, 10.0, requests=100)], engine=engine)
    lines = make.sample_lines(
        [(t / 10, "gpu:GPU-1", "energy_mj", 300_000 * t / 10) for t in range(80, 330)]  # 300 W
    )
    run.samples_path.write_bytes(lines)
    run.seal()
    (point,) = metrics.points(store.load(run.folder))
    assert point.estimates["power_w_mean"].value == pytest.approx(300, rel=1e-3)
    assert point.estimates["energy_j_per_output_token"].value == pytest.approx(300 / 25, rel=1e-3)

    (without,) = points(tmp_path / "b", [make.steady(0, 10.0)])
    assert without.estimates["power_w_mean"] is None
    assert without.consumed.reasons["power_w_mean"]


def test_all_requests_of_a_batch_count(tmp_path):
    held, records = make.steady(0, 10.0, point=LoadPoint(mode="batch", concurrency=50))
    together = [msgspec.structs.replace(r, due_ns=10 * make.S - 1) for r in records]
    (point,) = points(tmp_path, [(held, together)])
    assert point.requests_ok == 50
    assert point.estimates["output_tokens_per_s"].value == pytest.approx(25)


def test_kinds_of_a_mix_and_turns_of_a_conversation_are_told_apart(tmp_path):
    held, records = make.steady(0, 10.0)
    slow = {n: records[n].first_ns + make.S for n in range(0, 50, 5)}
    mixed = [
        msgspec.structs.replace(r, share=1, first_ns=slow[n], last_ns=slow[n]) if n in slow else r
        for n, r in enumerate(records)
    ]
    kinds = tuple(Share(name=name, weight=1, input_tokens=10, output_tokens=5) for name in ("quick", "long"))
    plan = msgspec.structs.replace(make.SCENARIO, workload=Workload(mix=kinds))
    (point,) = points(tmp_path / "mix", [(held, mixed)], scenario=plan)
    assert "quick: 40 requests, p50 of TTFT 100 ms, of E2E 0.18 s" in point.notes
    assert "long: 10 requests, p50 of TTFT 1100 ms, of E2E 1.1 s" in point.notes

    talk = msgspec.structs.replace(
        make.SCENARIO,
        workload=Workload(input_tokens=10, output_tokens=5, conversation=Conversation(turns=2)),
    )
    turns = [msgspec.structs.replace(r, turn=n % 2) for n, r in enumerate(records)]
    (point,) = points(tmp_path / "talk", [(held, turns)], scenario=talk)
    assert [note.split(",")[0] for note in point.notes] == ["turn 1: 25 requests", "turn 2: 25 requests"]
