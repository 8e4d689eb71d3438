"""After a long window its records are decoded for a while: whoever watches sees it, and nobody gives up."""

from __future__ import annotations

import time

import pytest

from profiler.errors import LoadError
from profiler.loadgen import child
from profiler.loadgen.crew import merged_progress
from profiler.loadgen.driver import Driver
from profiler.loadgen.job import Progress
from profiler.loadgen.session import Setting
from profiler.loadgen.worker import LoadWorker
from profiler.records import read_records
from tests.loadgen.test_worker import ignore

pytestmark = pytest.mark.timing


async def test_the_load_process_says_how_far_it_has_decoded(simulated, job, monkeypatch):
    monkeypatch.setattr(child, "REPORT_EVERY_NS", 0)
    plan = job(simulated(ttft_s=0.002, itl_s=0.0), concurrency=4, n_out=50)
    held = await Driver(Setting(plan, ignore)).hold()
    reports = []
    finished = child.finish(plan, held, reports.append)
    records = read_records(plan.records_path)
    assert len(reports) == len(records) + 2
    fractions = [report.decoded_frac for report in reports]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert fractions[len(fractions) // 2] == pytest.approx(0.5, abs=0.1)
    assert {(r.phase, r.in_flight, r.chunks_per_s) for r in reports} == {("decoding", 0, None)}
    assert {r.done for r in reports} == {sum(r.outcome == "ok" for r in records)}
    held_s = (finished.window.closed_ns - finished.window.opened_ns) / 1e9
    assert all(held_s < report.elapsed_s <= report.expected_s for report in reports)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_watcher_is_told_last_that_all_is_decoded(simulated, job, processes):
    reports = []
    plan = job(simulated(ttft_s=0.01, itl_s=0.002), load={"processes": processes}, window_s=0.3)
    with LoadWorker() as worker:
        worker.run(plan, reports.append, ignore)
    assert (reports[-1].phase, reports[-1].decoded_frac) == ("decoding", 1.0)


def progress(phase, decoded_frac=None):
    return Progress(
        phase=phase,
        elapsed_s=1.0,
        expected_s=2.0,
        chunks_per_s=None,
        in_flight=0,
        done=3,
        failed=0,
        decoded_frac=decoded_frac,
    )


def test_a_load_is_decoding_once_none_of_its_parts_sends_any_more():
    both = merged_progress([progress("decoding", 1.0), progress("decoding", 0.5)])
    assert (both.phase, both.decoded_frac, both.done) == ("decoding", 0.75, 6)
    early = merged_progress([progress("decoding", 0.9), progress("finishing")])
    assert (early.phase, early.decoded_frac) == ("finishing", None)


class Crew:
    """Done after half a second, in which it says now and then that it decodes, or nothing."""

    def __init__(self, talks):
        self.began_s = time.monotonic()
        self.talks, self.decoding_s = talks, 0.0

    @property
    def is_done(self):
        return time.monotonic() > self.began_s + 0.5

    def follow(self, _):
        time.sleep(0.02)
        if self.talks:
            self.decoding_s = time.monotonic()


def test_a_cancelled_window_is_waited_for_as_long_as_it_is_being_decoded():
    LoadWorker()._follow(Crew(talks=True), ignore, 0.2)
    with pytest.raises(LoadError, match="did not stop in time"):
        LoadWorker()._follow(Crew(talks=False), ignore, 0.2)
