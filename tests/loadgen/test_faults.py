"""Everything that can be wrong with a server, at once, through the whole load generator."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest

from profiler.engines.faults import FaultKind
from profiler.loadgen.worker import LoadWorker
from profiler.records import read_records
from profiler.settings import Timeouts
from tests.engines.test_faults import WHAT_COMES_OF

pytestmark = pytest.mark.timing

# exit ends them all; what becomes of hang_up, and the time of the others, depends on the machine
NOT_HERE = ("exit", "hang_up", "trickle", "long_line", "loris", "loris_head")
KINDS = [kind for kind in get_args(FaultKind) if kind not in NOT_HERE]


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
    expected = Counter({outcome: 2 * n for outcome, n in Counter(WHAT_COMES_OF[k] for k in KINDS).items()})
    expected["ok"] += cycle
    assert Counter(record.outcome for record in records) == expected
    assert all(record.done_ns is not None for record in records)
    assert all(bool(record.error) == (record.outcome != "ok") for record in records)
