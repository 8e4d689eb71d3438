"""Idle baselines: stretches in which nothing is asked of the machine, held where its energy can be read.

``bare`` before the engine is started, ``context`` while a process of ours holds a CUDA context and does
nothing (it costs 26 to 66 W a board, whatever the model; arXiv 2605.23918), ``loaded`` with the engine up and
no request.  Only the times are noted here; the power in them is read from the samples afterwards.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from profiler.schema import Baseline
from profiler.store import RunWriter
from profiler.telemetry.idle_context import READY

Kind = Literal["bare", "context", "loaded"]

WORDS: dict[Kind, str] = {
    "bare": "nothing started",
    "context": "CUDA context only",
    "loaded": "engine loaded",
}
# A board keeps its clocks up for a moment after the last work (of a start, or of the engine before).
SETTLE_S = 3.0
CHECK_EVERY_S = 0.25
CONTEXT_TIMEOUT_S = 30.0


def hold_without_engine(
    writer: RunWriter, gpus: tuple[str, ...], idle_s: float, say: Callable[[str], None]
) -> None:
    """``bare`` and, where there are GPUs and a CUDA driver, ``context``, unless the run has them already."""
    if writer.manifest.baselines:
        return
    hold(writer, "bare", 0, idle_s, say)
    if not gpus:
        return
    with _context(gpus) as answer:
        if answer == READY:
            hold(writer, "context", 0, idle_s, say)
        else:
            writer.note(f"no idle baseline with a CUDA context: {answer}")


def hold(
    writer: RunWriter,
    kind: Kind,
    engine_start: int,
    idle_s: float,
    say: Callable[[str], None],
    check: Callable[[], None] = lambda: None,
) -> None:
    """Do nothing for ``SETTLE_S`` and then ``idle_s``; ``check`` is
    called meanwhile and may raise."""
    say(f"idle, {WORDS[kind]}: {idle_s:g} s")
    _wait(SETTLE_S, check)
    start_ns = time.perf_counter_ns()
    _wait(idle_s, check)
    held = Baseline(kind=kind, engine_start=engine_start, start_ns=start_ns, end_ns=time.perf_counter_ns())
    writer.update(baselines=(*writer.manifest.baselines, held))


def _wait(seconds: float, check: Callable[[], None]) -> None:
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0:
        check()
        time.sleep(min(CHECK_EVERY_S, left_s))


@contextmanager
def _context(gpus: tuple[str, ...]) -> Iterator[str]:
    """A process that holds a context on ``gpus`` while the block runs; its answer: READY or why not."""
    child = subprocess.Popen(
        [sys.executable, "-m", "profiler.telemetry.idle_context"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches it through us: the end of its stdin ends it
        cwd=Path(__file__).resolve().parents[1],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)},
    )
    try:
        assert child.stdout is not None
        ready, _, _ = select.select([child.stdout], [], [], CONTEXT_TIMEOUT_S)
        answer = child.stdout.readline().decode(errors="replace").strip() if ready else ""
        yield answer or "it could not be made"
    finally:
        assert child.stdin is not None
        child.stdin.close()
        try:
            child.wait(CONTEXT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
        with child:  # closes its pipes and waits
            pass
