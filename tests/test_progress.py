"""Progress goes to stderr only: a live line on a terminal, plain lines in a pipe, nothing when quiet."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time

from msgspec.structs import replace

from profiler.loadgen.job import Progress
from profiler.progress import Clock, label, load_words, speed
from profiler.schema import LoadPoint
from profiler.subject import Slot
from tests import make

SLOT = Slot(0, 1, LoadPoint(mode="closed", concurrency=8))
RUN = ["run", "--model", "sim", "--engine", "simulated", "--scenario", "smoke", "--set", "load.concurrency=1"]


def test_words():
    progress = Progress(
        phase="measuring", elapsed_s=1, expected_s=5, chunks_per_s=1234.5, in_flight=8, done=7, failed=2
    )
    assert label("m", SLOT) == "m · concurrency 8 · repeat 2"
    assert speed(progress) == "measuring · 1,234 tokens/s · 7 requests · 2 failed"
    after = replace(progress, phase="decoding", chunks_per_s=None, decoded_frac=0.426)
    assert speed(after) == "decoding 43% · 7 requests · 2 failed"


def test_a_load_is_named_in_its_own_unit():
    assert load_words(LoadPoint(mode="open", requests_per_s=12.3456)) == "12.35 requests/s"
    assert load_words(LoadPoint(mode="batch", concurrency=64)) == "batch of 64"


def test_a_search_knows_no_time_left():
    clock = Clock()
    clock.add(make.window(0, 10, 58))
    assert clock.left(None) == ""


def test_time_left_comes_from_finished_windows():
    clock = Clock()
    assert clock.left(3) == ""
    clock.add(make.window(0, 10, 58))  # opened 1 s before, closed 1 s after: 50 s
    assert clock.left(3) == ", about 2:30 left"


def test_time_left_of_what_starts_engines_again_and_again_has_the_starts_in_it(monkeypatch):
    now_s = 0
    monkeypatch.setattr(time, "perf_counter_ns", lambda: now_s * 10**9)
    clock = Clock(starts=True)
    now_s = 90
    clock.add(make.window(0, 10, 18))  # 10 s of 90
    assert clock.left(3) == ", about 4:30 left"


def test_a_terminal_gets_a_live_line_and_stdout_stays_clean(tmp_path):
    ours, theirs = pty.openpty()
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen(
        [sys.executable, "-m", "profiler", *RUN, "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=env,
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    out = process.stdout.read().decode()
    assert process.wait(30) == 0
    assert out.startswith('{"runs"')
    assert b"\x1b[" in seen
    assert b"measuring" in seen
    assert b"tokens/s" in seen
    os.close(ours)
