"""What others took of the CPUs: made samples whose truth is known, and a real program beside a real run."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import pytest

from profiler import comparison, metrics, store
from profiler.neighbours import Neighbours
from profiler.schema import EngineFacts, EngineSettings
from profiler.settings import Load
from tests import make

WINDOW = [make.steady(0, 10.0)]  # 10 to 20 s


def counters(others, own, cpus=2, steal=0.0, times=(9.5, 15, 20.5), lost_s=0.0):
    """Samples of CPUs on which others and we take so many cores; ``lost_s`` of ours is forgotten."""
    for n, t in enumerate(times):
        yield t, "machine", "cpus", cpus
        yield t, "machine", "busy_s", 1000 + (others + own) * t
        yield t, "machine", "own_s", 50 + own * t - lost_s * (n > 0)
        if steal is not None:
            yield t, "machine", "steal_s", 7 + steal * t


def beside(tmp_path, samples, **changes):
    run = make.writer(tmp_path, WINDOW, **changes)
    run.samples_path.write_bytes(make.sample_lines(list(samples)))
    run.seal()
    (row,) = comparison.rows([store.load(run.folder)])
    (point,) = metrics.points(store.load(run.folder))
    assert (row["others_cpu_cores"], row["cpu_steal_frac"]) == (
        point.beside.cpu_cores,
        point.beside.steal_frac,
    )
    assert all(note in row["notes"] for note in point.beside.notes)
    return point.beside


def test_a_program_that_leaves_no_cpu_free_is_named_with_what_it_took(tmp_path):
    found = beside(tmp_path, counters(others=0.75, own=1.21))
    assert found.cpu_cores == pytest.approx(0.75)
    assert found.steal_frac == 0
    (note,) = found.notes
    assert "0.8 of 2 CPUs" in note or "0.7 of 2 CPUs" in note
    assert "98% busy" in note


@pytest.mark.parametrize(("niceness", "words"), [(None, None), (0, None), (-5, None), (15, "(niceness 15)")])
def test_that_others_come_first_is_said_where_they_do(tmp_path, niceness, words):
    behind = msgspec.structs.replace(make.HOST, niceness=niceness)
    (note,) = beside(tmp_path, counters(others=0.75, own=1.21), host=behind).notes
    assert ("stood behind them" in note) is (words is not None)
    assert words is None or words in note


@pytest.mark.parametrize(
    ("others", "own", "cpus"),
    [
        (0.75, 0.2, 2),  # CPUs are left
        (0.08, 1.9, 2),  # daemons
        (1.2, 120, 128),  # daemons of a large machine
        (0.0, 2.0, 2),  # we alone
        (-0.02, 2.0, 2),  # ticks lag behind
    ],
)
def test_what_harms_nobody_is_a_figure_and_no_note(tmp_path, others, own, cpus):
    found = beside(tmp_path, counters(others, own, cpus))
    assert found.cpu_cores == pytest.approx(max(0.0, others), abs=1e-9)
    assert not found.notes


def test_a_hypervisor_that_keeps_time_back_is_named(tmp_path):
    found = beside(tmp_path, counters(others=0.0, own=1.0, steal=0.1))
    assert found.steal_frac == pytest.approx(0.05)
    assert "kept back 5% of the CPU time" in found.notes[0]


@pytest.mark.parametrize(
    "samples",
    [
        (),
        counters(0.5, 1.5, times=(10.5, 15, 20.5)),  # begins inside the window
        counters(0.5, 1.5, times=(9.5, 15, 19.5)),  # ends inside it
        counters(0.5, 1.5, lost_s=60.0),  # another sampler from half-way on
    ],
)
def test_what_was_not_seen_from_end_to_end_is_not_known(tmp_path, samples):
    assert beside(tmp_path, samples) == Neighbours()


def test_steal_that_is_not_counted_is_not_none_of_it(tmp_path):
    assert beside(tmp_path, counters(0.5, 0.5, steal=None)).steal_frac is None


SERVER = EngineFacts(kind="endpoint", version=None, device="none")


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": SERVER, "settings": EngineSettings(kind="endpoint")},
        {"scenario": msgspec.structs.replace(make.SCENARIO, load=Load(machines=2))},
    ],
)
def test_what_serves_or_loads_here_and_is_not_of_our_family_is_no_stranger(tmp_path, changes):
    found = beside(tmp_path, counters(others=1.0, own=0.9), **changes)
    assert found == Neighbours(cpu_cores=None, steal_frac=0.0)


def test_beside_a_server_elsewhere_others_are_others(tmp_path):
    elsewhere = msgspec.structs.replace(SERVER, device="remote")
    found = beside(tmp_path, counters(others=1.0, own=0.9), engine=elsewhere)
    assert found.cpu_cores == pytest.approx(1.0)


def test_programs_that_compute_beside_a_run_are_in_its_row(tmp_path):
    hogs = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(len(os.sched_getaffinity(0)))
    ]
    try:
        words = ["run", "--engine", "simulated", "-m", "tiny-moe", "-s", "smoke", "--quiet"]
        command = [sys.executable, "-m", "profiler", *words, "--out", str(tmp_path)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    finally:
        for each in hogs:
            each.kill()
            each.wait()
    for row in comparison.rows(store.find([tmp_path])):
        assert row["others_cpu_cores"] > 0.5 * len(hogs)
        assert "other programs used" in row["notes"]
