"""The statistics of a soak find what grows and leave alone what does not; its observer sees processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from profiler.engines.truth import Truth
from tests.harden import soak, soak_lines, soak_look, soak_truth, soak_watch
from tests.harden.soak_verdict import MIB, counted, of_memory, slope, thinned, without_bursts

HALF_HOUR_S = np.arange(0, 1800.0)


def memory(leak_mib_per_h, noise_mib, like, seed):
    """A process looked at every second for half an hour; neighbouring looks are ``like`` each other."""
    rng = np.random.default_rng(seed)
    noise = np.zeros(HALF_HOUR_S.size)
    for at in range(1, noise.size):
        noise[at] = like * noise[at - 1] + rng.normal(0, noise_mib * (1 - like**2) ** 0.5)
    return (90 + leak_mib_per_h * HALF_HOUR_S / 3600 + noise) * MIB


def found_of(*series):
    return of_memory(HALF_HOUR_S, memory(*series), bound_mib=5, block_s=20)


@pytest.mark.parametrize("like", [0.0, 0.9, 0.98])
def test_a_leak_is_found_with_its_rate(like):
    found = [found_of(20, 0.5, like, seed) for seed in range(40)]
    assert sum(each.low <= 20 <= each.high for each in found) >= 34, "95 % intervals"
    assert all(each.verdict != "flat" for each in found)
    assert sum(each.verdict == "drifts" for each in found) >= 36


@pytest.mark.parametrize("like", [0.0, 0.9, 0.98])
def test_noise_is_no_leak(like):
    found = [found_of(0, 0.5, like, seed) for seed in range(40)]
    assert sum(each.low <= 0 <= each.high for each in found) >= 34, "95 % intervals"
    assert not any(each.verdict == "drifts" for each in found)
    assert sum(each.verdict == "flat" for each in found) >= 34


def test_what_cannot_be_told_is_no_pass():
    assert found_of(0, 40, 0.98, 1).verdict == "undecided"
    assert (
        of_memory(HALF_HOUR_S[:100], memory(0, 1, 0, 1)[:100], bound_mib=5, block_s=20).verdict == "not told"
    )
    assert slope([], [], bound=1, unit="", block_s=1).verdict == "not told"


def test_what_is_explained_may_be_grown_by_and_no_more():
    values = memory(400, 0.1, 0, 3)
    assert of_memory(HALF_HOUR_S, values, bound_mib=5, block_s=20, explained=398).verdict == "flat"
    assert of_memory(HALF_HOUR_S, values, bound_mib=5, block_s=20, explained=300).verdict == "drifts"
    assert of_memory(HALF_HOUR_S, values, bound_mib=5, block_s=20, explained=500).verdict == "flat"
    shrinks = memory(-20, 0.1, 0, 3)
    assert of_memory(HALF_HOUR_S, shrinks, bound_mib=5, block_s=20, explained=500).verdict == "drifts"


def test_blocks_nobody_saw_are_bridged():
    seen = (HALF_HOUR_S // 30) % 2 == 0
    found = of_memory(HALF_HOUR_S[seen], memory(20, 0.2, 0, 5)[seen], bound_mib=5, block_s=20)
    assert found.low < 20 < found.high
    assert found.verdict == "drifts"


QUARTER_OF_AN_HOUR_S = np.arange(60) * 15.0


def p99_us(drift_us_per_h, bursts, seed):
    """Of blocks of 15 s that are like their neighbours, in so many of which the machine stood still."""
    rng = np.random.default_rng(seed)
    noise = np.zeros(60)
    for at in range(1, 60):
        noise[at] = 0.5 * noise[at - 1] + rng.normal(0, 20)
    noise[rng.choice(60, bursts, replace=False)] += rng.uniform(500, 6000, bursts)
    return 200 + drift_us_per_h * QUARTER_OF_AN_HOUR_S / 3600 + noise


def timing_of(values):
    return slope(QUARTER_OF_AN_HOUR_S, values, bound=500, unit="µs/h", block_s=15)


def test_moments_in_which_the_machine_stood_still_are_no_drift_and_hide_none():
    plain = [timing_of(p99_us(0, 4, seed)) for seed in range(40)]
    still = [timing_of(without_bursts(p99_us(0, 4, seed))) for seed in range(40)]
    drifts = [timing_of(without_bursts(p99_us(2000, 4, seed))) for seed in range(40)]
    assert sum(each.verdict == "flat" for each in plain) <= 5
    assert sum(each.verdict == "flat" for each in still) >= 36
    assert sum(each.low <= 0 <= each.high for each in still) >= 36, "95 % intervals"
    assert all(each.verdict == "drifts" for each in drifts)
    assert sum(each.low <= 2000 <= each.high for each in drifts) >= 36, "95 % intervals"


def test_more_and_more_bursts_are_a_drift():
    chance = np.linspace(0.05, 0.7, 60)
    later = np.random.default_rng(2).random(60) < chance
    values = p99_us(0, 0, 1) + np.where(later, 3000, 0)
    assert timing_of(without_bursts(values)).verdict != "flat"


def test_what_comes_and_goes_is_no_leak_and_does_not_hide_one():
    """Windows of 20 s in which a record grows and is let go: the least of each says what stays."""

    def least(leak_mib_per_h):
        seconds = np.arange(0, 1000.0)
        rng = np.random.default_rng(1)
        held = 48 + seconds % 25 * rng.uniform(0.1, 1.5, 40).repeat(25) + leak_mib_per_h * seconds / 3600
        windows = [
            SimpleNamespace(steady_start_ns=int(at * 1e9), steady_end_ns=int((at + 20) * 1e9))
            for at in seconds[::25]
        ]
        rows = (seconds * 1e9).astype(int), held * MIB
        return soak_look._memory(None, "metronome", *rows, windows, 0.0)

    assert least(0).verdict == "flat"
    assert least(20).verdict == "drifts"


BUSY = [[12, 76, 76, 76, 13], [12, 70, 76, 76, 12], [13, 76, 76, 76, 14], [12, 60, 76, 76, 12]] * 5


def held(leak_every=0):
    """Descriptors of twenty windows, of which every so many lets one stay open."""
    more = [number // leak_every if leak_every else 0 for number in range(len(BUSY))]
    cycles = [[each + extra for each in cycle] for cycle, extra in zip(BUSY, more, strict=True)]
    return counted(cycles, [cycle[2:4] for cycle in cycles])


def test_a_descriptor_a_window_is_seen_and_those_in_use_are_not():
    assert held()["grew"] is False
    assert held()["steady"] == [76, 76]
    assert held(leak_every=1)["grew"]
    assert held(leak_every=2)["grew"]
    assert counted(BUSY[:4], BUSY[:4])["grew"] is None


def test_a_series_is_thinned_to_its_ends():
    assert thinned(range(100), 5) == [0, 25, 50, 74, 99]
    assert thinned([1, 2], 5) == [1, 2]


def answers(count, chunks, seed, late_s=80e-6):
    """Answers of known plans, the client's stamps of them (late by a little each), neighbours out of turn."""
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    arrived = np.cumsum(rng.integers(100_000, 3_000_000, count)) + 10**9
    emitted = arrived[:, None] + np.cumsum(rng.uniform(7e6, 13e6, (count, chunks)).astype(int), axis=1)
    late = (late_s + rng.uniform(0, 20e-6, (count, chunks))) * 1e9
    sent = arrived - rng.integers(50_000, 2_000_000, count)  # some overtake each other on the way
    truth = Truth(arrived, np.full(count, chunks), emitted.ravel(), emitted.ravel())
    order = np.argsort(sent)
    seen = (emitted + late.astype(int))[order]
    columns = {"sent_ns": sent[order], "arrivals_ns": seen.tolist(), "outcome": ["ok"] * count}
    return pa.table(columns), truth


def test_each_chunk_finds_its_emission():
    table, truth = answers(200, 64, 7)
    found = soak_truth.errors(table, truth, 0, 1 << 60, in_turn=False)
    assert (len(found.at_ns), found.left_out) == (200 * 64, 0)
    assert 80e-6 <= found.late_s.min() < found.late_s.max() <= 101e-6


def test_a_server_that_did_other_things_has_no_emissions_to_find():
    table, _ = answers(200, 64, 7)
    _, other = answers(200, 64, 8)
    assert soak_truth.errors(table, other, 0, 1 << 60, in_turn=False).left_out > 190


def test_the_observer_sees_memory_and_files_grow(tmp_path):
    """Of a process that looks like one of the profiler's."""
    package = tmp_path / "profiler" / "loadgen"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "child.py").write_text(
        "import os, time\nopen('ready', 'w').close()\nkept = []\n"
        "while not os.path.exists('go'): time.sleep(0.1)\n"
        "kept += [open(__file__), bytearray(b'x' * (64 << 20))]\ntime.sleep(60)\n"
    )
    seen = tmp_path / "seen"
    watched = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'profiler.loadgen.child'])"
    parent = subprocess.Popen([sys.executable, "-c", watched], cwd=tmp_path)
    observer = subprocess.Popen(
        [*soak.OBSERVER, str(parent.pid), str(seen), str(package)], stdin=subprocess.PIPE
    )
    try:
        _until((tmp_path / "ready").exists)
        count = len(_looks(seen))
        _until(lambda: len(_looks(seen)) > count + 1)
        before = _looks(seen)[-1]
        (tmp_path / "go").touch()
        _until(lambda: _looks(seen)[-1][3] - before[3] > 60 * MIB)
        assert _looks(seen)[-1][4] - before[4] == 1, "files"
    finally:
        for pid, _ in soak_watch.below(parent.pid):
            subprocess.run(["kill", str(pid)], check=False)
        observer.stdin.close()
        parent.wait(10)
        assert observer.wait(10) == 0
    homes = [json.loads(line) for line in seen.read_text().splitlines() if str(package) in line]
    assert homes[0][3] >= (package / "child.py").stat().st_size


def _until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _looks(seen):
    lines = seen.read_text().splitlines() if seen.exists() else []
    return [row for row in map(json.loads, lines) if row[2] == "load process"]


SERVERS = ("metronome", "simulated engine")


def test_a_record_is_read_as_it_was_written():
    record = {
        "checks": [["time", True, "[0.0,  1.0] s"]],
        "series": [1.5, None],
        "runs": [{"a": [{"b": []}]}],
    }
    assert json.loads(soak.text_of(record)) == record
    assert "[ 1.5, null ]" in soak.text_of(record)


def test_the_recorded_soak_held():
    """All of the profiler did; of the servers it was held against (tests/engines/test_leaks.py counts what
    they keep) the record says what did not, and why."""
    if not soak.RECORD.exists():
        pytest.skip("never run")
    record = json.loads(soak.RECORD.read_text())
    assert record["failures"] == [line for run in record["runs"] for line in _named(run)]
    to_tell = {
        each for each in SERVERS if any(f"memory of the {each} " in line for line in record["failures"])
    }
    assert all(any(f"memory of the {each} " in line for each in to_tell) for line in record["failures"])
    assert all(any(each in note for note in record["notes"]) for each in to_tell)
    ours = [each for run in record["runs"] for each in run["processes"] if each["role"] not in SERVERS]
    assert {each["role"] for each in ours} == {"driver", "load process", "sampler", "supervisor"}
    assert {each["memory"]["verdict"] for each in ours} == {"flat"}
    assert {run["name"] for run in record["runs"]} == set(soak.SHARES)
    assert soak.lines(record)[0].startswith("## ")


def _named(run):
    return [f"{run['name']}: {line}" for line in soak_lines.failures(run)]
