"""The text and values of searches, limits, failures and the client's own error."""

from __future__ import annotations

import json

import msgspec
import pytest

from profiler import comparison, search, store
from profiler.client import Calibration, ClientAudit
from profiler.errors import InputError
from profiler.report import verdicts
from profiler.schema import LoadPoint
from profiler.settings import Load, Measure, Search
from tests import make

PLAN = msgspec.structs.replace(
    make.SCENARIO,
    load=Load(mode="open"),
    measure=Measure(repeats=1),
    slo={"ttft_p99_s": 0.5},
    search=Search(find="capacity"),
)


def rate(number: int, per_s: float, late: int = 0):
    """A window of 10 s with so many requests a second, the first ``late`` of them a second late."""
    point = LoadPoint(mode="open", requests_per_s=per_s)
    begin = 10.0 + 30 * number
    requests = [make.request(number, n, begin + n / per_s) for n in range(round(10 * per_s))]
    for n in range(late):
        shifted = {f: getattr(requests[n], f) + make.S for f in ("first_ns", "last_ns", "done_ns")}
        requests[n] = msgspec.structs.replace(requests[n], **shifted)
    return make.window(number, begin, begin + 10, point=point), requests


def run_of(tmp_path, windows, plan=PLAN, **changes):
    return store.load(make.writer(tmp_path, windows, scenario=plan, **changes).folder)


def test_a_capacity_in_one_line_and_in_json(tmp_path):
    run = run_of(tmp_path, [rate(0, 10.0), rate(1, 20.0, late=100), rate(2, 14.0), rate(3, 14.5, late=100)])
    line, note = verdicts.found_lines([run])
    assert (
        line
        == "capacity 14 requests/s (14–14.5; 4 probes, 585 requests): TTFT p99 100 ms ≤ 500 ms (undecided)"
    )
    assert note == "· missed at 14.5: TTFT p99"
    (values,) = verdicts.found_values([run])
    assert (values["find"], values["unit"]) == ("capacity", "requests_per_s")
    assert (values["value"], values["low"], values["high"]) == (14.0, 14.0, 14.5)
    assert values["limits"][0]["verdict"] == "undecided"
    json.dumps(values, allow_nan=False)


def test_windows_that_the_client_spoilt_have_no_part_in_the_verdict(tmp_path):
    held, requests = rate(0, 10.0, late=50)
    audit = ClientAudit(
        cpu_frac=1.0, loop_lag_p99_s=0.0, send_lag_p99_s=0.0, chunks=1, bound_by=("a load process was busy",)
    )
    spoilt = (msgspec.structs.replace(held, audit=audit), requests)
    run = run_of(tmp_path, [spoilt, rate(1, 10.0), rate(2, 20.0, late=100)])
    (judged,) = search.found(run).judged
    assert (judged.late.late, judged.late.n) == (0, 100)


def test_the_probes_are_the_goodput_curve(tmp_path):
    rows = comparison.rows([run_of(tmp_path, [rate(0, 10.0), rate(1, 20.0, late=100)])])
    assert [(r["load_requests_per_s"], r["goodput_requests_per_s"]) for r in rows] == [
        (10.0, pytest.approx(10.0)),
        (20.0, pytest.approx(10.0)),
    ]


def test_each_load_of_a_run_stands_to_the_limits(tmp_path):
    plan = msgspec.structs.replace(PLAN, search=None)
    run = run_of(tmp_path, [rate(0, 10.0), rate(1, 20.0, late=100)], plan=plan)
    lines = list(verdicts.limit_lines(comparison.rows([run]), [run]))
    assert lines[0].startswith("SLO: TTFT p99 ≤ 500 ms;")
    assert lines[1:] == ["m at 10/s: TTFT p99 undecided", "m at 20/s: TTFT p99 missed"]
    assert not list(verdicts.limit_lines([], [run_of(tmp_path / "b", [], plan=make.SCENARIO)]))


def test_a_search_that_found_nothing_fails_the_run(tmp_path):
    run = run_of(tmp_path, [rate(0, 1.0, late=10)])
    (line, _) = verdicts.found_lines([run])
    assert line == "capacity: none found (1 probes, 10 requests)"
    assert list(verdicts.failed_lines([run], comparison.rows([run]))) == ["m: no load tried keeps the limits"]
    assert verdicts.found_values([run])[0]["value"] is None


def test_a_run_that_is_no_search_has_no_outcome(tmp_path):
    run = run_of(tmp_path, [make.steady(0, 10.0)], plan=make.SCENARIO)
    assert verdicts.found_lines([run]) == []
    with pytest.raises(InputError, match="no search"):
        search.found(run)


def test_failures_beyond_the_share_allowed_are_named(tmp_path):
    held, records = make.steady(0, 10.0)
    for n in (3, 4):
        records[n] = msgspec.structs.replace(records[n], outcome="reset")
    run = run_of(tmp_path, [(held, records)], plan=make.SCENARIO)
    rows = comparison.rows([run])
    (line,) = verdicts.failed_lines([run], rows)
    assert line == "m: 2 of 50 requests failed, more than 0.01 of them: at 1 2 reset"
    patient = msgspec.structs.replace(make.SCENARIO, max_failed_frac=0.04)
    run = run_of(tmp_path / "b", [(held, records)], plan=patient)
    assert not list(verdicts.failed_lines([run], comparison.rows([run])))


def test_failures_of_a_search_are_part_of_its_verdict(tmp_path):
    held, records = rate(1, 20.0)
    broken = [msgspec.structs.replace(each, outcome="http_error") for each in records]
    run = run_of(tmp_path, [rate(0, 10.0), (held, broken)])
    assert not list(verdicts.failed_lines([run], comparison.rows([run])))
    assert search.found(run).load == 10.0
    assert "failures" in search.found(run).notes[0]


def test_a_client_that_was_the_limit_is_said(tmp_path):
    audit = ClientAudit(cpu_frac=1, loop_lag_p99_s=0, send_lag_p99_s=0, chunks=1, bound_by=("CPU 99 %",))
    rows = comparison.rows([run_of(tmp_path, [make.steady(0, 10.0, audit=audit)], plan=make.SCENARIO)])
    line, mend = verdicts.client_lines(rows)
    assert line == "⚠ m at 1 is client-bound: CPU 99 %"
    assert "--set load.machines=2" in mend
    assert verdicts.client_lines([rows[0] | {"client_bound": None}]) == []
    of_clocks = [rows[0] | {"client_bound": "the clock of b is known within 9 ms only"}]
    assert len(verdicts.client_lines(of_clocks)) == 1


def test_the_clients_own_error_stands_below_the_table(tmp_path):
    found = Calibration(
        chunks_per_s=12345,
        concurrency=32,
        requests=10,
        chunks=50,
        ttft_mean_error_frac=0.003,
        ttft_p99_error_frac=None,
        ttft_mean_error_s=0.0001,
        itl_mean_error_frac=0.0,
        itl_p99_error_frac=-0.012,
        server_late_p99_s=0.0,
        client_cpu_frac=0.01,
        client_cpu_s_per_chunk=None,
    )
    runs = [run_of(tmp_path / str(n), [], calibration=found) for n in range(2)]
    assert verdicts.calibration_lines(runs) == [
        "client error on this machine at 12,345 chunks/s: TTFT +0.3%, ITL p99 -1.2%"
    ]
    assert verdicts.calibration_lines([run_of(tmp_path / "none", [])]) == []
