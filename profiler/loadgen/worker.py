"""The profiler's side of the load process.

A child of its own sends, stamps and keeps, so that nothing of ours disturbs it (see
:mod:`profiler.loadgen.child`).  Both speak JSON lines over the child's stdin and stdout; the API key
travels nowhere else.  The child lives in a session of its own, so that Ctrl-C does not reach it, and
ends when its stdin closes, so that it cannot outlive the profiler.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from types import TracebackType
from typing import IO

import msgspec

from profiler.errors import EngineError, LoadError
from profiler.loadgen.job import Broken, Cancel, Finished, LoadJob, Order, Progress, Reply, Start
from profiler.schema import Window

CHECK_EVERY_S = 0.25
CANCEL_PATIENCE_S = 30.0
EXIT_PATIENCE_S = 5.0
STDERR_LINES = 15


class LoadWorker:
    """Owns one load process; a context manager.  Windows are run one after another."""

    def __init__(self) -> None:
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the child)
        self._child: subprocess.Popen[bytes] | None = None
        self._pending = b""

    def __enter__(self) -> LoadWorker:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "profiler.loadgen.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        child = self._running()
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(OSError):
            child.stdin.close()
        try:
            child.wait(EXIT_PATIENCE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()
        self._stderr.close()

    def run(self, job: LoadJob, on_progress: Callable[[Progress], None], check: Callable[[], None]) -> Window:
        """Hold one load point once; its records are in ``job.records_path`` on return.

        ``check`` is called some four times a second.  Whatever it raises (and KeyboardInterrupt) ends
        the window early: the records so far are written, then it is raised again.  EngineError when the
        window was given up because the endpoint could not be reached any more; its records are written
        too.  LoadError when the load process itself fails.
        """
        self._tell(Start(job))
        try:
            finished = self._follow(on_progress, check, math.inf)
        except LoadError:
            raise
        except BaseException:
            self._cancel()
            raise
        if finished.unreachable is not None:
            check()  # an engine of ours that died knows more about it
            raise EngineError(
                f"the endpoint at {job.endpoint.base_url} stopped answering: {finished.unreachable}"
            )
        return finished.window

    def _follow(
        self, on_progress: Callable[[Progress], None], check: Callable[[], None], end_s: float
    ) -> Finished:
        checked_s = 0.0
        while True:
            for reply in self._replies():
                if isinstance(reply, Finished):
                    return reply
                if isinstance(reply, Broken):
                    raise LoadError(f"the load generator failed: {reply.message}")
                on_progress(reply.progress)
            now_s = time.monotonic()
            if now_s > end_s:
                raise LoadError("the load generator did not stop in time")
            if now_s - checked_s >= CHECK_EVERY_S:
                checked_s = now_s
                check()

    def _cancel(self) -> None:
        try:
            self._tell(Cancel())
            self._follow(lambda _: None, lambda: None, time.monotonic() + CANCEL_PATIENCE_S)
        except LoadError:
            self._running().kill()

    def _tell(self, order: Order) -> None:
        child = self._running()
        assert child.stdin is not None
        try:
            child.stdin.write(msgspec.json.encode(order) + b"\n")
            child.stdin.flush()
        except OSError:
            raise self._died() from None

    def _replies(self) -> list[Reply]:
        """What the child said, waiting at most until the next check is due."""
        child = self._running()
        assert child.stdout is not None
        descriptor = child.stdout.fileno()
        if not select.select([descriptor], [], [], CHECK_EVERY_S)[0]:
            return []
        data = os.read(descriptor, 1 << 16)
        if not data:
            raise self._died()
        *lines, self._pending = (self._pending + data).split(b"\n")
        return [msgspec.json.decode(line, type=Reply) for line in lines]

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise LoadError("the load process was not started: use LoadWorker in a with statement")
        return self._child

    def _died(self) -> LoadError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._running().wait(EXIT_PATIENCE_S)
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").splitlines()[-STDERR_LINES:]
        code = self._running().poll()
        return LoadError("\n".join([f"the load process died (exit code {code})", *lines]))
