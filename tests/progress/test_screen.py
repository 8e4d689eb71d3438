"""The live view in a real pseudo-terminal: what is seen, at any width, and what is left behind."""

from __future__ import annotations

import io
import os
import re
import sys
import time
from contextlib import redirect_stderr

import pytest

from profiler.progress import screen as screens
from profiler.progress.screen import REDRAWS_PER_S, Screen, Whole, is_drawable
from tests.progress.telling import AHEAD, SLOT, held, progress, sampled
from tests.progress.terminal import SHOWN, TOGETHER, Terminal

RUN = ["-m", "profiler", "run", "--model", "tiny", "--engine", "simulated", "--scenario", "smoke"]
RUN += ["--set", "measure.min_requests=0", "--set", "measure.repeats=1", "--set", "measure.window_s=1.5"]
SIMULATED = {"PROFILER_SIMULATED_NVML": "h100"}
HEIGHT = 8
BEFORE = "import sys; print('the line before'); from profiler.__main__ import main; main()"


def region(shot: list[str]) -> list[str]:
    """What is on a screen below the line that was there before."""
    return [line for line in shot[shot.index("the line before") + 1 :] if line]


@pytest.mark.timing
def test_a_run_in_a_terminal_that_is_resized(tmp_path):
    words = ["-c", BEFORE, *RUN[2:]]
    with Terminal(words, tmp_path, 80, lines=40, **SIMULATED) as terminal:
        terminal.until("0 waiting")
        assert all(len(line) < 80 for line in terminal.shown)
        first, second, third, *_ = region(terminal.shown)
        assert re.fullmatch(r"tiny +window 1 of 2", first)
        assert second.startswith("concurrency 1 (load 1 of 2), repeat 1  ")
        assert third.startswith(("warm-up  ", "measuring  "))
        assert re.search(r"power +[\d,]+ W, made up", terminal.text)
        assert len(region(terminal.shown)) <= HEIGHT
        for columns in (44, 100):
            drawn = len(terminal.shots)
            terminal.resize(columns, lines=40)
            terminal.until_drawn(drawn + 2)
            assert len(region(terminal.shown)) <= HEIGHT, terminal.text
            assert terminal.text.count("KV cache") == 1, "nothing of the old width is left"
            assert all(len(line) < columns for line in terminal.shown)
        assert terminal.to_end() == 0
        assert "KV cache" not in terminal.text, "the view is gone"
        assert "sealed in results/" in terminal.text
        assert not terminal.screen.cursor.hidden
        drawn = terminal.seen.split(TOGETHER)[1:]
        assert all(SHOWN in each for each in drawn), "every picture is one to the terminal"
        assert 10 < len(drawn) <= terminal.took_s * REDRAWS_PER_S + 10
        for clearing in (b"\x1b[2J", b"\x1b[?1049h"):
            assert clearing not in terminal.seen


def test_ctrl_c_leaves_the_terminal_clean(tmp_path):
    with Terminal(["-c", BEFORE, *RUN[2:]], tmp_path) as terminal:
        terminal.until("measuring")
        terminal.press(b"\x03")
        assert terminal.to_end() == 130
        first, *_, last = region(terminal.shown)
        assert first.startswith("kept 0 finished windows, and the requests of the one that was under way")
        assert last == "interrupted"
        assert "KV cache" not in terminal.text
        assert not terminal.screen.cursor.hidden
        assert terminal.screen.cursor.x == 0


class Tty(io.StringIO):
    """Says that it is a terminal, and keeps what it is shown."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def tty(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    return Tty()


def hear(screen: Screen, path) -> None:
    """A window under way after one that had trouble."""
    screen.begin(AHEAD)
    screen.up("tiny-moe", sampled(path / "samples", time.perf_counter_ns()))
    screen.window("tiny-moe", SLOT, held(trouble="never steady"), 8, None)
    for rate in range(240):
        screen.progress("tiny-moe", SLOT, progress(chunks_per_s=rate))


def test_what_has_to_stay_stands_above(tty, tmp_path):
    with redirect_stderr(tty):
        with Screen() as screen:
            screen.note("to know \x1b[2J")
            hear(screen, tmp_path)
            print("a line of somebody else", file=sys.stderr)
        assert sys.stderr is tty
    plain = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", tty.getvalue())
    for line in (
        "to know [2J",
        "⚠ tiny-moe · concurrency 8 · repeat 2 · never steady",
        "a line of somebody else",
    ):
        assert f"{line}\n" in plain


def test_a_picture_is_one_write_and_nobody_to_look_at_it_ends_no_run(tty):
    stream = Whole(tty)
    assert stream.write("lines") == 5
    stream.flush()
    assert tty.getvalue() == f"{screens.TOGETHER}lines{screens.SHOWN}"
    assert stream.isatty()
    tty.write = lambda _: os.write(-1, b"")
    assert stream.write("lines") == 5


@pytest.mark.parametrize(
    ("term", "encoding", "is_tty", "drawable"),
    [
        ("xterm", "utf-8", True, True),
        ("dumb", "utf-8", True, False),
        ("", "utf-8", True, False),
        ("xterm", "ascii", True, False),
        ("xterm", "utf-8", False, False),
    ],
)
def test_where_it_is_drawn(tty, monkeypatch, term, encoding, is_tty, drawable):
    monkeypatch.setenv("TERM", term) if term else monkeypatch.delenv("TERM")
    monkeypatch.setattr(Tty, "encoding", encoding)
    monkeypatch.setattr(Tty, "isatty", lambda _: is_tty)
    with redirect_stderr(tty):
        assert is_drawable() is drawable


def test_a_picture_that_cannot_be_drawn_ends_no_run(tty, monkeypatch):
    def broken(*_):
        raise ValueError("a bug")

    monkeypatch.setattr(screens, "frame", broken)
    with redirect_stderr(tty), Screen() as screen:
        screen.phase("m", "idle")
    assert "this view cannot be drawn: ValueError('a bug')" in tty.getvalue()


@pytest.mark.timing
def test_drawing_takes_little_of_a_core(tty, tmp_path):
    """CPU seconds a second, of the thread that draws."""
    with redirect_stderr(tty):
        screen = Screen()
    hear(screen, tmp_path)
    screen._live.auto_refresh = False
    draws = 100
    with screen:
        screen._live.refresh()
        began_s = time.thread_time()
        for _ in range(draws):
            screen._live.refresh()
        took_s = (time.thread_time() - began_s) / draws
    assert took_s * REDRAWS_PER_S < 0.03
