"""The far end of a load process on another machine: runs there, as an actor of Ray's."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from time import perf_counter_ns

import psutil

from profiler.cluster.nodes import restore_priority
from profiler.errors import LoadError
from profiler.loadgen.process import LoadProcess

FOLDERS = "profile-load-"  # and the process that wrote there


class Bridge:
    """A load process beside it, and a folder for its files.  Each method is for calls of one kind, which are
    made one after another; the kinds side by side."""

    def __init__(self) -> None:
        restore_priority()
        _clear_away()
        self._folder = Path(tempfile.gettempdir()) / f"{FOLDERS}{os.getpid()}"
        self._folder.mkdir(mode=0o700)
        self._process = LoadProcess()

    def folder(self) -> str:
        return str(self._folder)

    def now_ns(self) -> int:
        """The clock by which the load process stamps."""
        return perf_counter_ns()

    def say(self, line: bytes) -> None:
        """An order.  To a process that is no more it is lost; :meth:`hear` says so."""
        try:
            self._process.write(line)
        except LoadError:
            return

    def hear(self) -> bytes:
        """What the process has replied, waiting until it has; nothing when it is no more."""
        return os.read(self._process.fileno(), 1 << 16)

    def last_words(self) -> str:
        """Of a process that is no more."""
        return self._process.last_words()

    def put(self, name: str, data: bytes) -> None:
        (self._folder / name).write_bytes(data)

    def piece(self, name: str, begin: int, size: int) -> bytes:
        """Of a file; empty behind its end and where there is none."""
        try:
            with (self._folder / name).open("rb") as file:
                file.seek(begin)
                return file.read(size)
        except FileNotFoundError:
            return b""

    def drop(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def kill(self) -> None:
        """The load process alone."""
        self._process.kill()

    def leave(self) -> None:
        self._process.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _clear_away() -> None:
    """What bridges left that had no time to: an actor whose driver died is killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDERS}*"):
        pid = folder.name.removeprefix(FOLDERS)
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
