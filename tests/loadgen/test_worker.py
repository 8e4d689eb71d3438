"""The load process as the profiler uses it, against the simulated engine's known law."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from profiler.engines.simulated import law, parse
from profiler.errors import EngineError, InputError, LoadError
from profiler.loadgen.worker import LoadWorker
from profiler.records import read_records
from profiler.schema import Endpoint

pytestmark = pytest.mark.timing

ROOT = Path(__file__).resolve().parents[2]


def ignore(*_):
    pass


@pytest.fixture(scope="module")
def worker():
    with LoadWorker() as started:
        yield started


def measured(window, records):
    """TTFT, chunk gap (means, s) and output tokens per s over the steady window."""
    start, end = window.steady_start_ns, window.steady_end_ns
    own = [r for r in records if start <= r.due_ns < end]
    assert {r.outcome for r in own} == {"ok"}
    ttft_s = np.mean([r.first_ns - r.due_ns for r in own]) / 1e9
    gap_s = np.concatenate([np.diff(r.arrivals_ns) for r in own]).mean() / 1e9
    tokens = sum(
        k for r in records for t, k in zip(r.arrivals_ns, r.arrival_tokens, strict=True) if start <= t < end
    )
    return np.array([ttft_s, gap_s, tokens / ((end - start) / 1e9)])


@pytest.mark.parametrize(
    ("concurrency", "args"),
    [
        (1, {"ttft_s": 0.2, "itl_s": 0.025}),
        (16, {"ttft_s": 0.2, "itl_s": 0.02, "jitter_frac": 0.2}),
        (64, {"ttft_s": 0.2, "itl_s": 0.025, "jitter_frac": 0.2}),
        (16, {"ttft_s": 0.1, "itl_s": 0.02, "batch_slope": 0.02, "max_running": 8, "tokens_per_chunk": 4}),
    ],
)
def test_times_and_rates_within_two_percent_of_the_law(worker, simulated, job, concurrency, args):
    """A disturbed machine only ever adds time: the best of three tries is the tool's own error.

    Whole request lengths: a part of one holds more or fewer tokens than its share, by where it is cut.
    """
    truth = law(parse(args), concurrency=concurrency, input_tokens=8, output_tokens=40)
    span_s = round(4.0 / truth.e2e_s) * truth.e2e_s
    expected = np.array([truth.ttft_s, truth.chunk_gap_s, truth.output_tokens_per_s])
    endpoint = simulated(**args)
    for attempt in range(3):
        plan = job(endpoint, concurrency=concurrency, n_out=40, window=attempt, window_s=span_s, warmup_s=0.5)
        window = worker.run(plan, ignore, ignore)
        off = np.abs(measured(window, read_records(plan.records_path)) / expected - 1)
        if off.max() < 0.02:
            return
    pytest.fail(f"relative errors of TTFT, gap, tokens/s: {off}")


def test_window_and_audit(worker, simulated, job):
    reports = []
    plan = job(simulated(ttft_s=0.02, itl_s=0.01), concurrency=4, warmup_s=0.8, window_s=1.0)
    window = worker.run(plan, reports.append, ignore)
    records = read_records(plan.records_path)
    assert window.point == plan.point
    assert window.trouble is None
    assert window.opened_ns < window.steady_start_ns < window.steady_end_ns < window.closed_ns
    assert window.closed_ns < time.perf_counter_ns()
    start, end = window.steady_start_ns, window.steady_end_ns
    assert window.audit.chunks == sum(start <= t <= end for r in records for t in r.arrivals_ns)
    assert 0 < window.audit.cpu_frac < 0.9
    assert 0 <= window.audit.loop_lag_p99_s < 0.2
    assert 0 < window.audit.send_lag_p99_s < 0.2
    assert {r.phase for r in reports} >= {"warm-up", "measuring"}


def test_the_load_process_goes_before_others_inside_a_window_only(worker, simulated, job):
    """Real-time scheduling where the system allows it; where not, the window is held all the same."""
    pid = worker._processes[0].popen.pid
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        allowed = True
    except PermissionError:
        allowed = False
    seen = set()
    worker.run(
        job(simulated(ttft_s=0.02, itl_s=0.01), window_s=1.5),
        ignore,
        lambda: seen.add(os.sched_getscheduler(pid)),
    )
    assert (os.SCHED_RR in seen) == allowed
    assert os.sched_getscheduler(pid) == os.SCHED_OTHER


def test_one_worker_holds_window_after_window_with_fresh_prompts(worker, simulated, job):
    endpoint = simulated(ttft_s=0.01, itl_s=0.002)
    for number in range(3):
        plan = job(endpoint, window=number, window_s=0.2)
        window = worker.run(plan, ignore, ignore)
        assert window.index == number
        assert {r.window for r in read_records(plan.records_path)} == {number}


def test_batch_window_is_first_sent_to_last_arrival(worker, simulated, job):
    plan = job(simulated(ttft_s=0.05, itl_s=0.01), mode="batch", concurrency=20)
    window = worker.run(plan, ignore, ignore)
    records = read_records(plan.records_path)
    assert len(records) == 20
    assert window.steady_start_ns == min(r.sent_ns for r in records)
    assert window.steady_end_ns == max(r.last_ns for r in records)
    assert window.audit.chunks == 20 * 8


@pytest.mark.parametrize("raised", [EngineError("it died"), KeyboardInterrupt()])
def test_what_check_raises_ends_the_window_and_keeps_its_records(worker, simulated, job, raised):
    plan = job(simulated(ttft_s=0.02, itl_s=0.005), window_s=30.0, max_window_s=60.0)
    started = time.monotonic()

    def check():
        if time.monotonic() - started > 1.0:
            raise raised

    with pytest.raises(type(raised)) as caught:
        worker.run(plan, ignore, check)
    assert caught.value is raised
    assert time.monotonic() - started < 5
    outcomes = Counter(r.outcome for r in read_records(plan.records_path))
    assert outcomes["ok"] > 5
    assert outcomes["cancelled"] == 2
    again = job(simulated(ttft_s=0.01, itl_s=0.002), window=1, window_s=0.2)
    assert worker.run(again, ignore, ignore).index == 1


@pytest.mark.parametrize("mode", ["closed", "batch"])
def test_an_endpoint_that_stops_answering_is_an_engine_error_and_its_records_stay(worker, job, mode):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        plan = job(Endpoint(base_url=url, model="m"), mode=mode, window_s=30.0)
        with pytest.raises(EngineError, match=f"the endpoint at {url} stopped answering: .+"):
            worker.run(plan, ignore, ignore)
    outcomes = {r.outcome for r in read_records(plan.records_path)}
    assert outcomes <= {"connect_error", "cancelled"}
    assert mode == "batch" or "connect_error" in outcomes


def test_an_endpoint_that_dies_inside_the_window_is_an_engine_error_too(worker, simulated, job):
    endpoint = simulated(ttft_s=0.02, itl_s=0.005, faults=[{"kind": "exit", "every": 40}])
    plan = job(endpoint, warmup_s=0.3, window_s=30.0, max_window_s=60.0)
    with pytest.raises(EngineError, match="stopped answering"):
        worker.run(plan, ignore, ignore)
    outcomes = Counter(r.outcome for r in read_records(plan.records_path))
    assert outcomes["ok"] > 10
    assert outcomes["connect_error"] > 0


def test_an_engine_of_ours_that_died_has_the_word_first(worker, job, monkeypatch):
    own = EngineError("engine died", ["CUDA error"])

    def check():
        if finished:
            raise own

    finished = []
    follow = LoadWorker._follow

    def followed(self, *args):
        finished.append(follow(self, *args))
        return finished[0]

    monkeypatch.setattr(LoadWorker, "_follow", followed)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        with pytest.raises(EngineError) as caught:
            worker.run(job(Endpoint(base_url=url, model="m"), mode="batch"), ignore, check)
    assert caught.value is own


@pytest.mark.parametrize("mode", ["closed", "batch"])
def test_an_endpoint_that_answers_with_nothing_but_errors_is_given_up(worker, simulated, job, mode):
    plan = job(simulated(faults=[{"kind": "http_500"}]), mode=mode, window_s=30.0)
    with pytest.raises(EngineError, match="nothing but failures: HTTP 500"):
        worker.run(plan, ignore, ignore)
    assert worker.cut_short.steady_start_ns is None
    assert {each.outcome for each in read_records(plan.records_path)} <= {"http_error", "cancelled"}


@pytest.mark.parametrize("mode", ["closed", "batch"])
def test_an_endpoint_that_answers_every_other_time_with_an_error_is_data(worker, simulated, job, mode):
    plan = job(simulated(faults=[{"kind": "http_500", "every": 2}]), mode=mode, window_s=0.5)
    assert worker.run(plan, ignore, ignore).trouble is None
    assert {each.outcome for each in read_records(plan.records_path)} >= {"ok", "http_error"}


def test_progress_callback_that_raises_is_treated_alike(worker, simulated, job):
    def broken_pipe(_):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        worker.run(job(simulated(), window_s=30.0), broken_pipe, ignore)


def test_check_is_called_about_four_times_a_second(worker, simulated, job):
    calls = []
    worker.run(job(simulated(ttft_s=0.01, itl_s=0.01), window_s=2.0), ignore, lambda: calls.append(1))
    assert 5 <= len(calls) <= 16


def test_unwritable_records_are_a_load_error_and_the_worker_lives_on(worker, simulated, job, tmp_path):
    plan = job(simulated(ttft_s=0.01, itl_s=0.002), window_s=0.2)
    with pytest.raises(LoadError, match="missing"):
        worker.run(
            msgspec.structs.replace(plan, records_path=str(tmp_path / "missing" / "r")), ignore, ignore
        )
    assert worker.run(plan, ignore, ignore).trouble is None


def test_killed_load_process_is_a_load_error_with_its_last_words(simulated, job):
    with LoadWorker() as worker:
        child = worker._processes[0].popen
        with pytest.raises(LoadError, match="load process died"):
            worker.run(job(simulated(), window_s=30.0), ignore, child.kill)


def test_it_is_asked_how_an_endpoint_talks_before_it_holds_a_load(simulated, job):
    endpoint = simulated(ttft_s=0.01, itl_s=0.002)
    with LoadWorker() as worker:
        with pytest.raises(InputError, match="does not serve 'another'"):
            worker.ask(msgspec.structs.replace(endpoint, model="another"))
        found = worker.ask(msgspec.structs.replace(endpoint, model=""))
        assert (found.model, found.prompt) == (endpoint.model, "ids")
        assert worker.run(job(found, window_s=0.2), ignore, ignore).trouble is None


def test_a_worker_that_was_told_nothing_ends_at_once_and_a_closed_one_stays_closed():
    worker = LoadWorker().__enter__()
    child = worker._processes[0].popen
    began_s = time.monotonic()
    worker.close()
    worker.close()
    assert time.monotonic() - began_s < 0.1  # its imports alone take longer
    assert child.poll() is not None
    with pytest.raises(LoadError, match="with statement"):
        worker.ask(Endpoint(base_url="http://h/v1", model="m"))


def test_it_can_be_kept_to_some_cores():
    cores = {max(os.sched_getaffinity(0))}
    with LoadWorker() as worker:
        child = worker._processes[0].popen.pid
        with worker.kept_to(set()):
            assert os.sched_getaffinity(child) == os.sched_getaffinity(0)
        with worker.kept_to(cores):
            assert os.sched_getaffinity(child) == cores
        assert os.sched_getaffinity(child) == os.sched_getaffinity(0)


def test_renewed_it_is_as_it_began(simulated, job):
    with LoadWorker() as worker:
        worker._wanted, worker._restarts = 2, 1
        first, second = worker._own(2)
        worker.renew()
        assert (worker._wanted, worker._restarts, worker._processes) == (1, 0, [first])
        assert second.popen.poll() is not None
        assert worker.run(job(simulated(), n_out=2, window_s=0.2), ignore, ignore).trouble is None


def test_outside_a_with_statement_it_says_so(job):
    with pytest.raises(LoadError, match="with statement"):
        LoadWorker().run(job(Endpoint(base_url="http://h/v1", model="m")), ignore, ignore)


def test_child_is_its_own_session_and_never_shows_the_key(simulated, job):
    with LoadWorker() as worker:
        child = psutil.Process(worker._processes[0].popen.pid)
        assert os.getsid(child.pid) == child.pid
        endpoint = msgspec.structs.replace(simulated(), api_key="very-secret")
        seen = []

        def look():
            seen.append(f"{child.cmdline()} {child.environ()}")

        worker.run(job(endpoint, n_out=2, window_s=0.6), ignore, look)
        assert seen
        assert "very-secret" not in "".join(seen)
    assert not child.is_running()


@pytest.mark.parametrize("busy", [False, True])
def test_no_orphan_when_the_profiler_is_killed(simulated, job, tmp_path, busy):
    """SIGKILL leaves the profiler no chance to clean up; the child ends by itself."""
    plan = tmp_path / "job.json"
    plan.write_bytes(msgspec.json.encode(job(simulated(), window_s=30.0, max_window_s=60.0)))
    code = (
        "import msgspec, pathlib, time\n"
        "from profiler.loadgen.worker import LoadWorker\n"
        "from profiler.loadgen.job import LoadJob\n"
        f"job = msgspec.json.decode(pathlib.Path({str(plan)!r}).read_bytes(), type=LoadJob)\n"
        "with LoadWorker() as worker:\n"
        "    print(worker._processes[0].popen.pid, flush=True)\n"
        f"    {'worker.run(job, lambda _: None, lambda: None)' if busy else 'time.sleep(60)'}\n"
    )
    profiler = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    child = psutil.Process(int(profiler.stdout.readline()))
    time.sleep(1.0)
    assert child.is_running()
    profiler.send_signal(signal.SIGKILL)
    profiler.wait()
    profiler.stdout.close()
    psutil.wait_procs([child], timeout=5)
    assert not child.is_running()
