"""Calibration: the same requests are compared, errors are what they are, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os

import msgspec
import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import calibrate as module
from profiler.calibrate import calibrate, on_cores, steady_law, summary
from profiler.client import ClientAudit
from profiler.engines.truth import Metronome, Truth
from profiler.errors import LoadError
from profiler.loadgen.worker import LoadWorker
from profiler.schema import LoadPoint, Window
from tests import make

S = 10**9
MS = 10**6


@given(
    chunks_per_s=st.floats(1, 50_000),
    streams=st.integers(1, 1_024),
    tokens=st.integers(2, 512),
    ttft_s=st.floats(0.001, 10),
)
def test_a_steady_law_makes_the_rate(chunks_per_s, streams, tokens, ttft_s):
    law = steady_law(chunks_per_s, streams, tokens=tokens, ttft_s=ttft_s)
    answer_s = law.ttft_s + (tokens - 1) * law.itl_s
    assert streams * tokens / answer_s == pytest.approx(chunks_per_s)
    assert law.ttft_s <= ttft_s
    assert law.ttft_s <= answer_s / 2 * 1.0001


def window(trouble=None, end_s=2.0):
    steady = trouble is None
    return Window(
        index=0,
        repeat=0,
        engine_start=0,
        point=LoadPoint(mode="closed", concurrency=3),
        opened_ns=0,
        steady_start_ns=S if steady else None,
        steady_end_ns=round(end_s * S) if steady else None,
        closed_ns=3 * S,
        audit=ClientAudit(cpu_frac=0.5, loop_lag_p99_s=None, send_lag_p99_s=None, chunks=1_000),
        trouble=trouble,
    )


def both_sides(requests=30, chunks=20, off_ns=2 * MS, seen_late_ns=0, **changes):
    """Records of a client that has everything ``seen_late_ns`` after a server did it, and that server.

    One request each 100 ms; requests reach the server 1 µs after they were sent.
    """
    records, emitted = [], []
    for number in range(requests):
        sent_ns = number * 100 * MS
        at_ns = [sent_ns + 10 * MS + place * off_ns for place in range(chunks)]
        emitted += at_ns
        seen_ns = [each + seen_late_ns for each in at_ns]
        record = make.request(0, number, sent_ns / S)
        records.append(
            msgspec.structs.replace(
                record,
                due_ns=sent_ns,
                sent_ns=sent_ns,
                first_ns=seen_ns[0],
                last_ns=seen_ns[-1],
                arrivals_ns=seen_ns,
                arrival_tokens=[1] * chunks,
                **changes,
            )
        )
    arrived_ns = np.arange(requests) * 100 * MS + 1_000
    truth = Truth(arrived_ns, np.full(requests, chunks), np.array(emitted), np.array(emitted) - 5_000)
    return records, truth


def test_errors_are_what_the_client_adds():
    records, truth = both_sides(seen_late_ns=1 * MS)
    found = summary(module._seen(window(), records[::-1], truth))
    assert found.requests == 10
    assert found.ttft_mean_error_s == pytest.approx(0.001, abs=2e-6)
    assert found.ttft_mean_error_frac == pytest.approx(0.1, abs=0.001)
    assert found.ttft_p99_error_frac == pytest.approx(0.1, abs=0.001)
    assert found.itl_mean_error_frac == pytest.approx(0)
    assert found.itl_p99_error_frac == pytest.approx(0)
    assert found.server_late_p99_s == pytest.approx(5e-6)
    assert found.chunks_per_s == pytest.approx(1_000)
    assert found.client_cpu_s_per_chunk == pytest.approx(0.0005)


def test_gaps_that_the_client_stretches_show():
    records, truth = both_sides()
    records[15].arrivals_ns[5:] = [at + 20 * MS for at in records[15].arrivals_ns[5:]]
    found = summary(module._seen(window(), records, truth))
    assert found.itl_mean_error_frac == pytest.approx(20 / (190 * 2), rel=1e-6)
    assert found.ttft_mean_error_s == pytest.approx(1e-6, abs=1e-9)


def test_only_what_was_sent_inside_counts_on_both_sides():
    records, truth = both_sides()
    truth.emitted_ns[: 10 * 20] += 7 * MS  # what happened before the window
    truth.emitted_ns[20 * 20 :] += 9 * MS  # and after it
    found = summary(module._seen(window(), records, truth))
    assert found.ttft_mean_error_s == pytest.approx(1e-6, abs=1e-9)
    assert found.itl_p99_error_frac == pytest.approx(0)


def test_too_little_is_none():
    records, truth = both_sides(requests=14, chunks=3)
    found = summary(module._seen(window(), records, truth))
    assert found.requests == 4
    assert found.ttft_mean_error_frac is None
    assert found.ttft_mean_error_s is None
    assert found.itl_p99_error_frac is None


@pytest.mark.timing
def test_a_real_one_is_close():
    found = calibrate(400, 8, seconds=0.5, tokens_per_answer=16)
    assert found.chunks_per_s == pytest.approx(400, rel=0.1)
    assert found.concurrency == 8
    assert found.requests >= 10
    assert found.server_late_p99_s is not None
    assert abs(found.ttft_mean_error_frac) < 0.03
    assert abs(found.itl_mean_error_frac) < 0.02
    assert 0 < found.client_cpu_s_per_chunk < 0.002


class Worker:
    """A load process that only has to be started and let go."""

    def __init__(self, answer):
        self._answer = answer

    def run(self, *_):
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer


def test_no_steady_window_is_an_error(monkeypatch):
    monkeypatch.setattr(module, "read_records", lambda _: [])
    with (
        Metronome(steady_law(100, 1)) as server,
        pytest.raises(LoadError, match="never steady"),
    ):
        module.hold(server, Worker(window(trouble="never steady")), 1, 2, 0.1)


def test_nothing_is_left_behind_by_an_interrupt(monkeypatch):
    before = set(psutil.Process().children(recursive=True))
    cores = os.sched_getaffinity(0)

    def interrupted(*_):
        started = set(psutil.Process().children(recursive=True)) - before
        assert len(started) == 2
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_held", interrupted)
    with pytest.raises(KeyboardInterrupt):
        calibrate(100, 2)
    assert set(psutil.Process().children(recursive=True)) == before
    assert os.sched_getaffinity(0) == cores


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_worker_that_runs_is_used_and_keeps_off_the_servers_core(monkeypatch):
    def interrupted(_server, used, _job):
        assert used is worker
        assert len(set(psutil.Process().children(recursive=True)) - before) == 1  # the server
        assert os.sched_getaffinity(used._processes[0].popen.pid) == module._cores()[1]
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_held", interrupted)
    with LoadWorker() as worker:
        before = set(psutil.Process().children(recursive=True))
        with pytest.raises(KeyboardInterrupt):
            calibrate(100, 2, worker=worker)
        assert set(psutil.Process().children(recursive=True)) == before


def test_cores_are_inherited_and_given_back():
    cores = os.sched_getaffinity(0)
    with contextlib.suppress(ZeroDivisionError), on_cores({min(cores)}):
        assert os.sched_getaffinity(0) == {min(cores)}
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == cores
    with on_cores(set()):
        assert os.sched_getaffinity(0) == cores
