"""What runs on a node of the cluster: one seat, that holds the starts it is given, one after another.

A start is measured here as it would be on the driver's machine, in a folder of this one; the driver fetches
it.  The actor ends with its driver, and everything it started ends with it.
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from profiler.cluster import nodes
from profiler.loadgen.job import Progress
from profiler.loadgen.worker import LoadWorker
from profiler.nvml.holding import TakenError
from profiler.progress import Quiet
from profiler.subject import Slot, Sources
from profiler.sweep import one
from profiler.sweep.nouns import Attempt, Job, Start, UnderWay
from profiler.sweep.remote_files import scratch
from profiler.sweep.remote_left import GROUP_VARIABLE, bring

NEWS_S = 5.0
TAKEN_S = 5.0  # until a GPU that others measure on is asked for again
# Ray gives its workers a thread for each CPU they ask for; an engine is to have what it has elsewhere.
RAYS_OWN = ("OMP_NUM_THREADS",)
GPUS_VARIABLE = "CUDA_VISIBLE_DEVICES"


class Errand(Struct, frozen=True, kw_only=True):
    """What a seat is for.  ``scratch``: the sweep's folder there; ``home``: where the node brings results
    itself, None where the driver fetches them.  ``hides_gpus``: whether the engine is to see those of the
    seat only; ``cluster``: the address by which an engine places itself.  ``env``: keys of endpoints."""

    job: Job
    scratch: str
    home: str | None
    hides_gpus: bool
    cluster: str
    env: dict[str, str] = {}


class Holder:
    """The actor; several of its methods run at a time."""

    def __init__(self, errand: bytes) -> None:
        self._errand = msgspec.json.decode(errand, type=Errand)
        self._out = scratch(self._errand.scratch)
        self._tells = Tells()
        self._open = ExitStack()
        self._worker: LoadWorker | None = None
        restore_environment(self._errand)
        nodes.restore_priority()

    def hold(self, start: bytes, noted: bytes) -> bytes:
        """The start's attempts, JSON; empty where it was called off.  Its runs lie in the scratch folder, or
        in the home where the errand names one."""
        try:
            attempts = self._hold(
                msgspec.json.decode(start, type=Start), msgspec.json.decode(noted, type=UnderWay)
            )
        except KeyboardInterrupt:
            attempts = ()
        return msgspec.json.encode(attempts)

    def _hold(self, start: Start, noted: UnderWay) -> tuple[Attempt, ...]:
        self._tells.begin_start(start.key)
        os.environ[GROUP_VARIABLE] = noted.group
        self._out.mkdir(parents=True, exist_ok=True)
        self._worker = self._worker or self._open.enter_context(LoadWorker())
        while True:
            try:
                attempts = one.hold(start, self._errand.job, self._out, self._tells, self._worker, noted)
                break
            except TakenError as taken:  # by somebody whom Ray does not know
                self._tells.phase(start.model, f"waiting: {taken.uuid} is being measured by {taken.who}")
                time.sleep(TAKEN_S)
        if any(each.outcome == "failed" for each in attempts):
            self._open.close()
            self._worker = None
        if self._errand.home is not None:
            bring(self._out, self._errand.job.name, self._errand.home, attempts)
        return attempts

    def news(self) -> list[tuple[str, str]]:
        """What was said since, with the key of the start; waits a little for the first.  An empty text: the
        start begins."""
        return self._tells.said(NEWS_S)

    def do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """One of :mod:`profiler.sweep.remote_files`, without a worker of its own."""
        return function(*arguments)

    def stop(self) -> None:
        """Call off what is being held, at its next sign of life."""
        self._tells.is_called_off = True


def restore_environment(errand: Errand) -> None:
    """What Ray changed for its worker is as it was for the node, and engines find the cluster."""
    node = _environment_of(os.getppid())
    hidden = () if errand.hides_gpus else (GPUS_VARIABLE,)
    for name in (*RAYS_OWN, *hidden):
        os.environ.pop(name, None)
        os.environ.update({name: node[name]} if name in node else {})
    os.environ.update({**errand.env, "RAY_ADDRESS": errand.cluster})


def _environment_of(pid: int) -> dict[str, str]:
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="surrogateescape").split("\0")
    except OSError:
        return {}
    return dict(each.split("=", 1) for each in entries if "=" in each)


class Tells(Quiet):
    """Watches a run on the node (see :class:`profiler.measure.Show`) and keeps what is to be told; ends it,
    as Ctrl-C would, once it ``is_called_off``."""

    def __init__(self) -> None:
        self._said: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._last = ("", "")
        self.is_called_off = False

    def said(self, timeout_s: float) -> list[tuple[str, str]]:
        found = []
        try:
            found.append(self._said.get(timeout=timeout_s))
            while True:
                found.append(self._said.get_nowait())
        except queue.Empty:
            return found

    def begin_start(self, key: str) -> None:
        self._last = (key, "")
        self._said.put(self._last)

    def say(self, text: str) -> None:
        """Each only once in a row: an engine's start says the same for long."""
        self._check()
        if text != self._last[1]:
            self._last = (self._last[0], text)
            self._said.put(self._last)

    def _check(self) -> None:
        if self.is_called_off:
            raise KeyboardInterrupt

    def up(self, model: str, sources: Sources) -> None:  # noqa: ARG002  (of a :class:`Show`)
        self._check()

    def phase(self, model: str, text: str) -> None:  # noqa: ARG002
        self.say(text)

    def progress(self, model: str, slot: Slot, progress: Progress) -> None:  # noqa: ARG002
        self._check()
