"""Plain lines: what a log holds of a run."""

from __future__ import annotations

import time

from profiler.adaptive import Precision
from profiler.progress import Quiet, watcher
from profiler.progress.lines import LINE_EVERY_S, Lines
from tests.progress.telling import AHEAD, SLOT, held, progress, sampled


def test_a_log_of_a_run(capsys, tmp_path):
    lines = Lines()
    lines.begin(AHEAD)
    lines.note("something to know")
    for text in ("vllm · loading", "vllm · compiling", "idle"):
        lines.phase("tiny-moe", text)
    lines.up("tiny-moe", sampled(tmp_path / "samples", time.perf_counter_ns()))
    lines.progress("tiny-moe", SLOT, progress(elapsed_s=LINE_EVERY_S - 1))
    for _ in range(3):
        lines.progress("tiny-moe", SLOT, progress())
    known = Precision(windows=3, spent_s=30, target_frac=0.02, half_frac=0.024)
    lines.window("tiny-moe", SLOT, held(trouble="never steady"), 2, known)
    lines.window("tiny-moe", SLOT, held(), None, None)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "something to know",
        "tiny-moe · vllm · loading",
        "tiny-moe · idle",
        "tiny-moe · concurrency 8 · repeat 2 · measuring · 1,234 tokens/s · 124 requests · 2 failed · "
        "8 running, 3 waiting · 601 W · KV cache 34% · ⚠ clocks held back: software power cap",
        "tiny-moe · concurrency 8 · repeat 2 · done in 12.0 s · ±2.4% after 3 windows · never steady "
        "(about 2 to go, about 0:24 left)",
        "tiny-moe · concurrency 8 · repeat 2 · done in 12.0 s (searching)",
    ]


def test_a_step_that_lasts_is_said_again(capsys, monkeypatch):
    now_s = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    lines = Lines()
    for now_s in (100.0, 105.0, 111.0):
        lines.phase("m", f"vllm · loading at {now_s:.0f}")
    assert capsys.readouterr().err.splitlines() == ["m · vllm · loading at 100", "m · vllm · loading at 111"]


def test_a_name_commands_no_terminal(capsys):
    Lines().phase("m\x1b[2J\nerror: made up", "idle")
    assert capsys.readouterr().err == "m [2J error: made up · idle\n"


def test_quiet_says_only_what_is_no_progress(capsys):
    with watcher(quiet=True) as show:
        assert isinstance(show, Quiet)
        show.begin(AHEAD)
        show.phase("m", "idle")
        show.progress("m", SLOT, progress())
        show.window("m", SLOT, held(), 1, None)
        show.sealed([])
        show.note("to know")
    assert capsys.readouterr().err == "to know\n"


def test_a_pipe_gets_lines(capsys):
    with watcher(quiet=False) as show:
        assert isinstance(show, Lines)
