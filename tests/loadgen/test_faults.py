"""Everything that can be wrong with a server, at once, through the whole load generator."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest

from profiler.engines.faults import FaultKind
from profiler.loadgen.worker import LoadWorker
from profiler.records import read_records
from profiler.settings import Timeouts

pytestmark = pytest.mark.timing

# exit ends them all; the time the other two take depends on the machine
KINDS = [kind for kind in get_args(FaultKind) if kind not in ("exit", "trickle", "long_line")]


def test_every_request_of_a_batch_has_its_right_outcome(simulated, job):
    cycle = 2 * len(KINDS)
    faults = [{"kind": kind, "every": cycle, "burst": place} for place, kind in enumerate(KINDS, 1)]
    endpoint = simulated(ttft_s=0.01, itl_s=0.002, faults=faults)
    patient = Timeouts(connect_s=5, first_token_s=1.5, gap_s=1.5, total_s=10)
    load = job(endpoint, concurrency=2 * cycle, mode="batch", timeouts=patient)
    with LoadWorker() as worker:
        window = worker.run(load, lambda _: None, lambda: None)
    records = read_records(load.records_path)
    assert window.trouble is None
    assert len(records) == 2 * cycle
    assert Counter(record.outcome for record in records) == {
        "ok": cycle + 2 * 3,  # usage that is wrong, an early role and a closed connection are no failures
        "http_error": 2 * 3,
        "malformed": 2 * 6,
        "gap_timeout": 2 * 2,
        "first_token_timeout": 2,
        "no_end": 2 * 2,
        "reset": 2,
        "stream_error": 2,
        "empty": 2,
        "short": 2,
    }
    assert all(record.done_ns is not None for record in records)
    assert all(bool(record.error) == (record.outcome != "ok") for record in records)
