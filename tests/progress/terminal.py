"""A terminal of our own: a program in a pseudo-terminal, and what a screen shows of what it writes."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pyte

TOGETHER, SHOWN = b"\x1b[?2026h", b"\x1b[?2026l"
PATIENCE_S = 60.0


class Reflowing(pyte.Screen):
    """Wraps what is there when it is made narrower, as most terminals do (pyte itself cuts it off)."""

    def resize(self, lines=None, columns=None):
        columns = columns or self.columns
        if columns >= self.columns:
            super().resize(lines, columns)
            return
        above, wrapped = self.cursor.y, []
        for row in range(self.cursor.y + 1):
            text = self.display[row].rstrip()
            pieces = [text[at : at + columns] for at in range(0, len(text), columns)] or [""]
            wrapped += pieces
            if row == self.cursor.y:
                column = len(pieces[-1])
        super().resize(lines, columns)
        self.reset()
        wrapped = wrapped[-self.lines :]
        for row, text in enumerate(wrapped):
            self.cursor_position(row + 1, 1)
            self.draw(text)
        self.cursor_position(min(len(wrapped), self.lines), min(column + 1, columns))
        assert above <= self.cursor.y


class Terminal:
    """``words``: of Python.  ``seen``: all that was written.  ``shots``: what was on the screen after each
    piece of it that a terminal shows at once."""

    def __init__(self, words: list[str], cwd: Path, columns: int = 80, lines: int = 24, **env: str) -> None:
        self.seen = b""
        self.shots: list[list[str]] = []
        self.screen = Reflowing(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.took_s = 0.0
        self._began_s = time.monotonic()
        self._ours, theirs = pty.openpty()
        self._size(columns, lines)
        kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, *words],
            cwd=cwd,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=kept | {"TERM": "xterm-256color", "LANG": "C.UTF-8"} | env,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 (no threads here)
        )
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)

    @property
    def shown(self) -> list[str]:
        """The lines of the screen, without what is empty at their ends."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.shown)

    def until(self, what: str) -> None:
        """Go on until the screen shows this."""
        self._follow(lambda: what in self.text)
        assert what in self.text, self.text

    def until_drawn(self, shots: int) -> None:
        """Go on until there are so many pictures."""
        self._follow(lambda: len(self.shots) >= shots)

    def to_end(self) -> int:
        """Go on until the program has ended; its exit code."""
        self._follow(lambda: False)
        code = self.process.wait(PATIENCE_S)
        self.took_s = time.monotonic() - self._began_s
        return code

    def resize(self, columns: int, lines: int = 24) -> None:
        self.screen.resize(lines, columns)
        self._size(columns, lines)
        os.killpg(self.process.pid, signal.SIGWINCH)

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def _size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _follow(self, is_enough) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not is_enough() and time.monotonic() < end_s:
            if not select.select([self._ours], [], [], 0.1)[0]:
                continue
            try:
                piece = os.read(self._ours, 65536)
            except OSError:  # nobody has the other end any more
                return
            self.seen += piece
            self._stream.feed(piece)
            if self.seen.count(TOGETHER) == self.seen.count(SHOWN):
                self.shots.append(self.shown)
