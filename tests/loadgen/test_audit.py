"""Does the load generator notice when the slowness is its own?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time

import psutil
import pytest
from msgspec import structs

from profiler.alarm import Alarm
from profiler.client import ClientAudit
from profiler.loadgen.audit import Tally, bound_by, merged_audit, merged_window
from profiler.loadgen.driver import Held
from profiler.loadgen.job import Pace
from profiler.loadgen.pulse import TICK_NS, Pulse
from profiler.loadgen.spill import Spill
from profiler.loadgen.worker import LoadWorker
from profiler.records import read_records
from profiler.schema import Endpoint, LoadPoint, Window
from tests.loadgen.test_client import DONE, event
from tests.loadgen.test_worker import ignore

QUIET = ClientAudit(
    cpu_frac=0.1, loop_lag_p99_s=0.0002, send_lag_p99_s=0.0002, chunks=10, loop_lag_max_s=0.001
)
PACE = Pace(ttft_s=10.0, requests=100, gaps_s=20.0, gaps=1000)  # 100 ms, 20 ms


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, None),
        ({"send_lag_p99_s": 0.00099}, None),
        ({"send_lag_p99_s": 0.0011}, "sent late: p99 1.1 ms"),
        ({"loop_lag_p99_s": 0.0019}, None),
        ({"loop_lag_p99_s": 0.0021}, "slow to see answers: p99 2.1 ms"),
        ({"loop_lag_max_s": 0.9}, None),
        ({"loop_lag_max_s": 9.84}, "a load process stood still for 9.8 s"),
        ({"cpu_frac": 0.85}, None),
        ({"cpu_frac": 0.9}, "busy 90% of the time"),
        ({"send_lag_p99_s": None, "loop_lag_p99_s": None}, None),
    ],
)
def test_what_binds(change, word):
    reasons = bound_by(structs.replace(QUIET, **change), PACE)
    assert len(reasons) == (word is not None)
    assert word is None or word in reasons[0]


def test_standing_still_is_seen_until_the_last_measured_request_has_ended(tmp_path):
    """The window is over, its requests are not: what comes late then is in their figures."""
    began = time.perf_counter_ns()
    pulse = Pulse(ignore, Alarm.__new__(Alarm))
    pulse._first_ns = began + TICK_NS
    pulse._late_s.extend([0.001] * 1000)
    pulse._late_s[700] = 3.0
    held = Held(
        opened_ns=began,
        steady_start_ns=began + 100 * TICK_NS,
        steady_end_ns=began + 500 * TICK_NS,
        closed_ns=began + 1000 * TICK_NS,
        exchanges=Spill(tmp_path / "raw"),
        pulse=pulse,
        trouble=None,
        lost=None,
        crowded=False,
        full=False,
        progress=None,
    )
    pulse._note_cpu(began)
    audit = Tally(held, False).audit()
    held.exchanges.close()
    assert audit.loop_lag_max_s == 3.0
    assert audit.loop_lag_p99_s == pytest.approx(0.001)
    assert "stood still for 3.0 s" in bound_by(audit, PACE)[0]


def test_what_is_small_against_what_is_measured_does_not_bind():
    slow = Pace(ttft_s=100.0, requests=100, gaps_s=100.0, gaps=1000)  # 1 s, 100 ms
    audit = structs.replace(QUIET, send_lag_p99_s=0.009, loop_lag_p99_s=0.009)
    assert bound_by(audit, slow) == ()
    assert len(bound_by(audit, PACE)) == 2
    assert len(bound_by(audit, Pace())) == 2


def test_several_audits_are_as_bad_as_the_worst():
    worse = ClientAudit(cpu_frac=0.4, loop_lag_p99_s=0.01, send_lag_p99_s=None, chunks=5, loop_lag_max_s=0.02)
    assert merged_audit([QUIET, worse]) == ClientAudit(
        cpu_frac=0.4, loop_lag_p99_s=0.01, send_lag_p99_s=0.0002, chunks=15, loop_lag_max_s=0.02, processes=2
    )


def part(**change):
    window = Window(
        index=3,
        repeat=1,
        engine_start=0,
        point=LoadPoint(mode="batch", concurrency=2),
        opened_ns=10,
        steady_start_ns=20,
        steady_end_ns=30,
        closed_ns=40,
        audit=QUIET,
    )
    return structs.replace(window, **change)


def test_a_window_is_steady_if_all_its_parts_are():
    whole = merged_window(
        [part(), part(opened_ns=5, steady_start_ns=19, steady_end_ns=33, closed_ns=50)], [PACE, PACE]
    )
    assert (whole.opened_ns, whole.steady_start_ns, whole.steady_end_ns, whole.closed_ns) == (5, 19, 33, 50)
    assert whole.audit.chunks == 20
    torn = merged_window([part(trouble="cancelled", audit=None), part(trouble="it broke")], [PACE, Pace()])
    assert torn.trouble == "it broke"
    assert torn.audit is None
    half = merged_window([part(), part(steady_end_ns=None, audit=None)], [PACE, Pace()])
    assert (half.steady_start_ns, half.steady_end_ns, half.audit) == (None, None, None)


@pytest.mark.timing
async def test_waiting_until_a_server_takes_a_connection_is_not_the_clients_lateness(job, certified):
    """This one closes after each answer and takes 30 ms before it shakes hands: it is in TTFT, as a user
    waits for it, and in ``sent_ns``."""
    served, trust = certified
    trust()
    answer = b"".join(
        [b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", event(1), event(2, finish="length"), DONE]
    )

    async def serve(reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            writer.transport.pause_reading()  # the client's hello is for start_tls
            await asyncio.sleep(0.03)
            await writer.start_tls(served)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            await asyncio.sleep(0.5)
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    plan = job(Endpoint(base_url=url, model="m"), concurrency=4, n_out=2, warmup_s=0.7, window_s=1.5)
    with LoadWorker() as worker:
        window = await asyncio.to_thread(worker.run, plan, ignore, ignore)
    server.close()
    records = read_records(plan.records_path)
    own = [r for r in records if window.steady_start_ns <= r.due_ns < window.steady_end_ns]
    assert {r.outcome for r in own} == {"ok"}
    assert min(r.sent_ns - r.due_ns for r in own) > 30e6
    assert min(r.first_ns - r.due_ns for r in own) > 530e6
    assert window.audit.send_lag_p99_s < 0.005
    assert not [reason for reason in window.audit.bound_by if "sent late" in reason]


@pytest.mark.parametrize("faults", [[], [{"kind": "close"}]])
def test_a_load_process_that_stands_still_is_found_out(simulated, job, faults):
    """Stopped for 0.15 s in a window of a second: its ticks and sends of that time were late, whether they
    needed a connection or had one."""
    endpoint = simulated(ttft_s=0.02, itl_s=0.01, faults=faults)
    plan = job(endpoint, mode="open", rate=100.0, warmup_s=0.3, window_s=1.0)
    with LoadWorker() as worker:
        pid = worker._processes[0].popen.pid

        def stop_once(progress):
            if progress.phase == "measuring" and not stops:
                os.kill(pid, signal.SIGSTOP)
                stops.append(1)
                threading.Timer(0.15, os.kill, (pid, signal.SIGCONT)).start()

        stops = []
        window = worker.run(plan, stop_once, ignore)
    assert stops
    assert 0.1 < window.audit.loop_lag_max_s < 0.6
    assert window.audit.loop_lag_p99_s > 0.05
    assert window.audit.send_lag_p99_s > 0.05
    reasons = " ".join(window.audit.bound_by)
    assert "sent late" in reasons
    assert "slow to see" in reasons


def test_memory_does_not_grow_with_the_length_of_the_run(simulated, job):
    """Five times as many requests, the same memory: what has ended is on disk."""
    endpoint = simulated(ttft_s=0.001, itl_s=0.0)
    peaks_mb = []
    with LoadWorker() as worker:
        pid = worker._processes[0].popen.pid
        for window, seconds in enumerate((0.4, 0.4, 2.0)):
            plan = job(endpoint, concurrency=4, n_out=100, window=window, window_s=seconds)
            worker.run(plan, ignore, ignore)
            peaks_mb.append(psutil.Process(pid).memory_info().rss / 1e6)
        records = read_records(plan.records_path)
    kept_mb = sum(len(r.arrivals_ns) for r in records) * 250 / 1e6  # bytes of a chunk on the wire
    assert kept_mb > 15
    assert peaks_mb[2] - peaks_mb[1] < 0.25 * kept_mb
    assert peaks_mb[2] < 120


def test_the_bytes_of_a_window_are_gone_when_it_is_over(simulated, job, tmp_path):
    with LoadWorker() as worker:
        worker.run(job(simulated(ttft_s=0.01, itl_s=0.001), window_s=0.2), ignore, ignore)
        time.sleep(0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["window-0.parquet"]
