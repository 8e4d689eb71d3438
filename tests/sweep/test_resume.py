"""Kill -9 at any moment: the same command goes on, nothing is doubled and nothing finished is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from profiler import comparison, store
from profiler.sweep import ledger
from tests.sweep import few

ROOT = Path(__file__).resolve().parents[2]
GONE_S = 10.0
LAW = {"ttft_s": 0.005, "itl_s": 0.002}


def test_killed_at_changes_of_the_disk(tmp_path):
    """Two goes killed each time, at each eleventh change; all: python -m tests.sweep.crash FOLDER."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.sweep.crash", str(tmp_path), "11"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["faults"] == []
    assert found["changes"] > 70  # or what was to be killed ended before


def ended(file: Path, out: Path, when: Callable[[dict], bool], how: signal.Signals) -> int:
    """The exit code of a sweep that gets a signal at the first event that fits."""
    command = [sys.executable, "-m", "profiler", "sweep", str(file), "--out", str(out), "--json"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as driver:
        started: list[psutil.Process] = []
        for line in driver.stderr:
            if line.startswith("{") and when(json.loads(line)):
                started = psutil.Process(driver.pid).children(recursive=True)
                driver.send_signal(how)
                break
        driver.stderr.read()
    left = psutil.wait_procs(started, GONE_S)[1]
    assert not left, f"still there: {left}"
    return driver.returncode


def phase(text: str) -> Callable[[dict], bool]:
    return lambda event: event["event"] == "phase" and text in event["text"]


def measuring(event: dict) -> bool:
    return event["event"] == "progress" and event["phase"] == "measuring"


def of_sweep(what: str) -> Callable[[dict], bool]:
    return lambda event: event["event"] == "sweep" and event["what"] == what


def test_killed_again_and_again_it_comes_to_the_same_cells(tmp_path):
    sets = {"engine.args": LAW, "measure.window_s": 0.5}
    file = few.write(tmp_path, loads=(1, 2), starts=1, **sets)
    out = tmp_path / "results"
    goes = [
        (measuring, signal.SIGKILL, -signal.SIGKILL),
        (measuring, signal.SIGINT, 130),
        (phase("sealing"), signal.SIGKILL, -signal.SIGKILL),
        (of_sweep("held"), signal.SIGKILL, -signal.SIGKILL),
        (lambda _: False, signal.SIGKILL, 0),
    ]
    finished: set[str] = set()
    for when, how, code in goes:
        assert ended(file, out, when, how) == code
        finished |= {name for name in store.within(out) if (out / name / store.MANIFEST).exists()}
    assert few.cells(out) == few.whole(loads=(1, 2), starts=1)
    runs = store.find([out])
    assert {run.folder.name for run in runs} == finished
    assert all(run.manifest.status == "complete" for run in runs)
    record = few.record(out)
    assert record.under_way == ()
    assert {run for each in record.attempts if each.outcome == "held" for run in each.runs} == finished
    assert sum(each.outcome == "cut short" for each in record.attempts) >= 2
    assert len(comparison.summarise(runs)) == 2 * 2  # models and loads: each once


def test_a_second_driver_is_refused(tmp_path):
    from profiler.storage import open_home

    file = few.write(tmp_path, starts=1)
    out = tmp_path / "results"
    with ledger.locked(open_home(str(out)), "few"):
        command = [sys.executable, "-m", "profiler", "sweep", str(file), "--out", str(out)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"held by process {os.getpid()} on " in done.stderr
    assert not store.within(out)
