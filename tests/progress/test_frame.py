"""The lines of the live view: what stands in them, and that they fit."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler.adaptive import Precision
from profiler.progress.frame import BLOCKS, frame, sparkline
from profiler.progress.standing import Standing
from tests.progress.telling import AHEAD, SLOT, held, progress, sampled


@pytest.fixture
def now(tmp_path):
    """In the fourth window of nine."""
    found = Standing()
    found.begin(replace(AHEAD, target_frac=0.02))
    found.up("tiny-moe", sampled(tmp_path / "samples", time.perf_counter_ns()))
    known = Precision(windows=3, spent_s=30, target_frac=0.02, half_frac=0.024)
    for left in (8, 7, 6):
        found.window("tiny-moe", SLOT, held(), left, known)
    for rate in (0, 100, 400, 800):
        for _ in range(4):
            found.progress("tiny-moe", SLOT, progress(chunks_per_s=rate))
    return found


def shown(now, width=80, watts=(300, 600)):
    return [line.plain.rstrip() for line in frame(now, watts, width)]


def test_a_window_under_way(now):
    assert shown(now) == [
        "tiny-moe                                                    window 4 of about 9",
        "concurrency 8 (load 2 of 3), repeat 2                           about 1:00 left",
        "measuring  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╺━━━━━━━━━━━━━━━━━━━━━  12 of 20 s",
        "tokens/s   800 ▁▂▅█                               answered  124, 2 failed",
        "requests   8 running, 3 waiting                   KV cache  34%",
        "power      601 W ▅█                               hottest   61 °C",
        "so far     ±2.4% after 3 windows, asked ±2%",
        "⚠ clocks held back: software power cap",
    ]


def test_outside_of_windows_there_is_a_step_and_its_time(now):
    now.phase("tiny-moe", "vllm · loading weights 40 %")
    now.since_ns -= 42 * 10**9
    lines = shown(now)
    assert lines[1].startswith("chat, vllm, 3 loads  ")
    assert lines[2].startswith("vllm · loading weights 40 %  ")
    assert lines[2].endswith(" 0:42")
    assert lines[3].split() == ["tokens/s", "–", "answered", "–"]


def test_the_start_of_an_engine_tells_its_own_time(now):
    now.phase("tiny-moe", "vllm: starting · 6 s")
    assert shown(now)[2] == "vllm: starting · 6 s"
    now.phase("tiny-moe", "idle, nothing started: 30 s")
    assert shown(now)[2].endswith("30 s" + " " * 48 + "0:00")


def test_after_the_last_window_all_are_held(now):
    now.window("tiny-moe", SLOT, held(), 0, None)
    assert shown(now)[0].endswith("  all 4 windows held")


def test_the_only_window_is_one(now):
    now.held = 0
    now.window("tiny-moe", SLOT, held(), 0, None)
    assert shown(now)[0].endswith("  window held")


def test_what_cannot_be_read_is_not_nought():
    now = Standing()
    assert shown(now)[0] == "starting"
    now.begin(AHEAD)
    now.progress("tiny-moe", SLOT, progress(chunks_per_s=None, decoded_frac=0.5, phase="decoding"))
    lines = shown(now)
    assert lines[2].endswith("  50%")
    assert lines[3].split()[:2] == ["tokens/s", "–"]
    assert lines[4].split() == ["requests", "8", "in", "flight", "KV", "cache", "n/a"]
    assert lines[5].split() == ["power", "n/a", "hottest", "n/a"]
    assert lines[6] == "so far     no interval yet"


def test_a_search_does_not_know_how_many_windows_there_will_be(now):
    now.begin(replace(AHEAD, points=(), windows=None))
    lines = shown(now)
    assert lines[0].endswith("window 4, searching")
    assert lines[1] == "concurrency 8, repeat 2"


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=120)


@given(names, st.integers(1, 250), st.booleans())
def test_no_line_is_wider_than_the_terminal_and_there_are_eight_at_most(
    tmp_path_factory, name, width, is_outside
):
    now = Standing()
    now.begin(AHEAD)
    path = tmp_path_factory.mktemp("run") / "samples"
    now.up(name, sampled(path, time.perf_counter_ns()))
    now.progress(name, SLOT, progress(in_flight=10**6, done=10**9, failed=10**8, chunks_per_s=1e9))
    if is_outside:
        now.phase(name, name)
    lines = frame(now, [1.0] * 60, width)
    assert len(lines) <= 8
    for line in lines:
        assert line.cell_len <= max(20, width - 1)
        assert "\n" not in line.plain
        assert "\x1b" not in line.plain


@given(st.lists(st.floats(0, 1e12), max_size=100), st.integers(0, 40))
def test_a_sparkline_goes_from_nought_to_the_largest(values, width):
    line = sparkline(values, width)
    last = values[-width:] if width else []
    assert len(line) == len(last)
    for value, block in zip(last, line, strict=True):
        assert (block == BLOCKS[-1]) or value < max(last) or max(last) == 0
        assert (block == BLOCKS[0]) or value > 0
