"""Several load processes that hold one load: what comes of it is what one would have brought."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
from msgspec import structs

from profiler.engines.simulated import law, parse
from profiler.errors import LoadError
from profiler.loadgen import worker as worker_module
from profiler.loadgen.worker import LoadWorker, most_processes
from profiler.records import read_records
from profiler.schema import Endpoint
from profiler.settings import Stage, Timeouts
from tests.loadgen.test_worker import ignore

pytestmark = pytest.mark.timing


@pytest.fixture(scope="module")
def pair():
    """A worker that holds its loads with two processes."""
    with LoadWorker() as started:
        yield started


def run(worker, plan):
    window = worker.run(plan, ignore, ignore)
    assert window.trouble is None
    assert not [name for name in os.listdir(Path(plan.records_path).parent) if "part" in name]
    return window, read_records(plan.records_path)


TWO = {"processes": 2}


def test_a_closed_loop_of_two_processes(pair, simulated, job):
    args = {"ttft_s": 0.1, "itl_s": 0.02}
    truth = law(parse(args), concurrency=5, input_tokens=8, output_tokens=8)
    plan = job(
        simulated(**args), concurrency=5, load=TWO, warmup_s=0.4, window_s=4 * truth.e2e_s, min_requests=15
    )
    window, records = run(pair, plan)
    assert window.audit.processes == 2
    indices = [r.index for r in records]
    assert len(set(indices)) == len(indices)
    assert {index % 2 for index in indices} == {0, 1}
    assert Counter(r.outcome for r in records)["cancelled"] == 5
    start, end = window.steady_start_ns, window.steady_end_ns
    arrived = sum(start <= t < end for r in records for t in r.arrivals_ns)
    assert arrived / ((end - start) / 1e9) == pytest.approx(truth.output_tokens_per_s, rel=0.1)
    assert window.audit.chunks == pytest.approx(arrived, abs=2)
    assert sorted(r.output_tokens for r in records if r.outcome == "ok")[:4] == [2, 4, 5, 7]  # cut to fifths


def test_an_extended_window_is_of_one_length_for_all(pair, simulated, job):
    plan = job(simulated(ttft_s=0.1, itl_s=0.01), load=TWO, window_s=0.2, min_requests=9)
    window, records = run(pair, plan)
    span_ns = window.steady_end_ns - window.steady_start_ns
    assert span_ns % 200_000_000 == 0
    done = [r.done_ns for r in records if r.outcome == "ok" and window.steady_start_ns < r.done_ns]
    assert sum(each <= window.steady_end_ns for each in done) >= 9
    assert sum(each <= window.steady_end_ns - 200_000_000 for each in done) < 9


@pytest.mark.parametrize("mode", ["open", "replay", "stages"])
def test_the_due_instants_of_two_processes_are_those_of_one(pair, simulated, job, tmp_path, mode):
    endpoint = simulated(ttft_s=0.03, itl_s=0.002)
    load = {}
    if mode == "replay":
        trace = tmp_path / "trace.csv"
        rows = [f"{i * 0.01},{5 + i},{1 + i % 7}\n" for i in range(61)]
        trace.write_text("time_s,input_tokens,output_tokens\n" + "".join(rows))
        load = {"trace": str(trace)}
    elif mode == "stages":
        load = {"stages": (Stage(for_s=0.6, requests_per_s=50.0, to_requests_per_s=200.0),)}
    found = []
    for number, processes in enumerate((1, 2)):
        plan = job(
            endpoint,
            mode="replay" if mode == "replay" else "open",
            rate=100.0,
            load=load | {"processes": processes},
            window_s=0.6,
        )
        window, records = run(pair, plan)
        assert window.audit.processes == number + 1
        own = sorted((r for r in records if window.steady_start_ns <= r.due_ns), key=lambda r: r.index)
        own = [r for r in own if r.due_ns < window.steady_end_ns]
        assert {r.outcome for r in own} == {"ok"}
        asked = [(r.index, r.input_tokens, r.output_tokens) for r in own]
        found.append((asked, np.array([r.due_ns - window.steady_start_ns for r in own])))
    assert found[0][0] == found[1][0]
    np.testing.assert_allclose(found[0][1], found[1][1], atol=2)


def test_a_batch_of_two_processes_is_due_at_one_instant(pair, simulated, job):
    plan = job(simulated(ttft_s=0.1, itl_s=0.01), mode="batch", concurrency=13, load=TWO)
    window, records = run(pair, plan)
    assert [r.outcome for r in records] == ["ok"] * 13
    assert {r.index for r in records} == set(range(13))
    assert len({r.due_ns for r in records}) == 1
    assert window.steady_start_ns == min(r.sent_ns for r in records)
    assert window.steady_end_ns == max(r.last_ns for r in records)
    assert window.audit.chunks == 13 * 8


def test_progress_is_of_all(pair, simulated, job):
    reports = []
    plan = job(simulated(ttft_s=0.05, itl_s=0.01), concurrency=6, load=TWO, window_s=1.0)
    pair.run(plan, reports.append, ignore)
    assert max(report.in_flight for report in reports) == 6
    assert reports[-1].done >= 30


@pytest.mark.parametrize("mode", ["closed", "open", "batch"])
def test_ctrl_c_ends_all_and_keeps_all_records(pair, simulated, job, mode):
    plan = job(
        simulated(ttft_s=0.1, itl_s=0.05),
        mode=mode,
        rate=40.0,
        concurrency=8,
        n_out=200,
        load=TWO,
        window_s=30.0,
        max_window_s=60.0,
        timeouts=Timeouts(),
    )
    started = time.monotonic()

    def check():
        if time.monotonic() - started > 1.0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pair.run(plan, ignore, check)
    assert time.monotonic() - started < 5
    if mode != "batch":  # whose warm-up was still under way
        records = read_records(plan.records_path)
        assert {r.outcome for r in records} <= {"cancelled", "ok"}
        assert {r.index % 2 for r in records} == {0, 1}
    again = job(simulated(ttft_s=0.01, itl_s=0.002), load=TWO, window=1, window_s=0.2)
    assert pair.run(again, ignore, ignore).trouble is None


def test_one_that_is_killed_ends_the_others_and_no_one_stays(simulated, job):
    with LoadWorker() as worker:
        plan = job(simulated(ttft_s=0.02, itl_s=0.005), load=TWO, window_s=30.0, max_window_s=60.0)
        started = time.monotonic()
        pids = []

        def check():
            pids[:] = [process.popen.pid for process in worker._processes]
            if time.monotonic() - started > 1.5:
                worker._processes[1].popen.kill()

        with pytest.raises(LoadError, match="load process died"):
            worker.run(plan, ignore, check)
        assert time.monotonic() - started < 6
        assert {r.index % 2 for r in read_records(plan.records_path)} == {0}
    assert len(pids) == 2
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_trouble_of_one_shard_ends_all(pair, simulated, job):
    """The engine serves one at a time: the slot of the second process never gets a token."""
    endpoint = simulated(ttft_s=0.05, itl_s=0.01, max_running=1)
    plan = job(endpoint, concurrency=2, n_out=10_000, load=TWO, max_window_s=0.5, timeouts=Timeouts())
    started = time.monotonic()
    window = pair.run(plan, ignore, ignore)
    assert time.monotonic() - started < 5
    assert window.trouble == "never steady: 1 of 1 slots had no first token"
    assert (window.steady_start_ns, window.audit) == (None, None)
    assert {r.outcome for r in read_records(plan.records_path)} == {"cancelled"}


def test_a_load_that_keeps_one_process_busy_is_begun_anew_with_two(simulated, job, monkeypatch):
    monkeypatch.setattr(worker_module, "most_processes", lambda _: 2)
    with LoadWorker() as worker:
        endpoint = simulated(ttft_s=0.02, itl_s=0.002)
        window, _ = run(worker, job(endpoint, window_s=0.3))
        assert window.audit.processes == 1
        hold, asked = LoadWorker._hold, []

        def crowded_once(self, plan, part, *rest):
            asked.append((part.shards, part.may_grow, plan.prompt_salt))
            finished = hold(self, plan, part, *rest)
            return finished if len(asked) > 1 else [structs.replace(finished[0], crowded=True)]

        monkeypatch.setattr(LoadWorker, "_hold", crowded_once)
        window, _ = run(worker, job(endpoint, window_s=0.3, window=1))
        assert [each[:2] for each in asked] == [(1, True), (2, False)]
        assert asked[0][2] != asked[1][2]  # fresh prompts
        assert window.audit.processes == 2
        window, _ = run(worker, job(endpoint, window_s=0.3, window=2))
        assert window.audit.processes == 2  # and so it stays


def test_a_client_that_is_busy_gets_help_by_itself(simulated, job, monkeypatch):
    """More chunks than one process should take, on a machine that says it has four cores: the load is begun
    anew with two, with prompts of which the server's cache knows nothing."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    endpoint = simulated(ttft_s=0.005, itl_s=0.0, prefix_cache_block_tokens=16)
    plan = job(endpoint, concurrency=4, n_in=64, n_out=1000, warmup_s=0.6, window_s=0.5)
    with LoadWorker() as worker:
        window, records = run(worker, plan)
        if len(worker._processes) == 1 and window.audit.cpu_frac < 0.6:
            pytest.skip("others work on these cores: the server was too slow to keep the client busy")
        assert len(worker._processes) == 2
    assert window.audit.processes == 2
    indices = [r.index for r in records]
    assert len(set(indices)) == len(indices)
    assert {index % 2 for index in indices} == {0, 1}
    own = [r for r in records if window.steady_start_ns <= r.due_ns < window.steady_end_ns]
    assert len(own) > 8
    assert {(r.outcome, r.output_tokens, r.cached_tokens) for r in own} == {("ok", 1000, 0)}
    assert {r.cached_tokens for r in records if r.outcome == "ok"} == {0}


def test_no_more_processes_than_slots_and_half_the_cores(simulated, job, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    endpoint = Endpoint(base_url="http://h/v1", model="m")
    assert most_processes(job(endpoint, concurrency=3)) == 3
    assert most_processes(job(endpoint, concurrency=64)) == 4
    assert most_processes(job(endpoint, mode="open", rate=1.0)) == 4
    assert most_processes(job(endpoint, concurrency=64, load={"processes": 6})) == 6
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert most_processes(job(endpoint, concurrency=64)) == 1
