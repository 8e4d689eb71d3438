"""Rows on the real vLLM server (CPU build, tiny-moe), launched by the profiler itself: its processes are
struck, or ours are while it is up."""

from __future__ import annotations

import contextlib
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from msgspec import structs

from tests.harden import rows_disk
from tests.harden.cell import Live
from tests.harden.nouns import Case, Expect
from tests.harden.rows_vllm_wire import FINE, MODEL, START_LIMIT_S, timed_out, too_many, wire

LAUNCHED = (
    *("--engine", "vllm", "--model", MODEL, "--weights", "random"),
    *("--set", "engine.args.max_num_seqs=8", "--set", "routing.record=off"),
)
STOP_LIMIT_S = 30.0
# What torch compiles is kept from start to start, on purpose, beside the temporary files.
KEPT = {"TORCHINDUCTOR_CACHE_DIR": str(Path(tempfile.gettempdir()) / "harden-torchinductor")}

SERVER, CORE = "vllm.entrypoints", "VLLM::EngineCore"


def process(live: Live, words: str) -> psutil.Process:
    """The process of vLLM's with these words in its command, once it is there."""
    found: list[psutil.Process] = []

    def is_there() -> bool:
        with contextlib.suppress(AssertionError):
            found.append(live.child(words))
        return bool(found)

    assert live.until(is_there, START_LIMIT_S), f"no process {words!r} came up"
    live.held.note(live.marked())
    return found[0]


def send(words: str, signum: signal.Signals) -> Callable[[Live], None]:
    def strike(live: Live) -> None:
        try:
            process(live, words).send_signal(signum)
        except psutil.NoSuchProcess:  # it was quicker
            assert live.has(event="window", windows_left=0), f"{words} was gone before it was struck"

    return strike


def to_profile(signum: signal.Signals) -> Callable[[Live], None]:
    """To `profile` itself, while vLLM has all of its processes."""

    def strike(live: Live) -> None:
        process(live, CORE)
        live.send(signum)

    return strike


def launched(expect: Expect, strike: Callable[[Live], None] | None = None, *words: str, **more: Any) -> Case:
    return Case(
        engine=LAUNCHED,
        words=words,
        env=dict(KEPT),
        strike=strike,
        expect=expect,
        queues=True,
        comes_s=START_LIMIT_S,
        **more,
    )


def died(windows: int, says: str, outcomes: frozenset[str] | None = None) -> Expect:
    return Expect(
        code=4, says=says, status="failed", windows=windows, outcomes=outcomes, within_s=START_LIMIT_S
    )


def set_to(*words: str) -> tuple[str, ...]:
    return tuple(each for word in words for each in ("--set", word))


INTERRUPTED = Expect(code=130, says="interrupted", status="interrupted", within_s=STOP_LIMIT_S)
KILLED = Expect(
    code=-signal.SIGKILL, says=None, status="running", litter=("*",), last_event=False, within_s=5
)
NO_NEED = "the supervisor ends it, whatever it is doing: see *window*"
FAILED_START = "it never comes up"

ROWS = [
    wire(
        "server killed",
        "SIGKILL to its API server",
        {
            "start": launched(
                died(0, "vllm ended while starting .exit -9.: it was killed"), send(SERVER, signal.SIGKILL)
            ),
            "warm-up": NO_NEED,
            # So long that it is still open when its process has been found on a machine with much to do.
            "window": launched(
                died(1, "vllm died .exit -9.: it was killed"),
                send(SERVER, signal.SIGKILL),
                *set_to("measure.window_s=6", "measure.max_window_s=8"),
            ),
            "shutdown": launched(FINE, send(SERVER, signal.SIGKILL)),
        },
    ),
    wire(
        "engine core killed",
        "SIGKILL to the process with the model, as by the kernel for memory",
        {
            "start": launched(died(0, "vllm ended while starting"), send(CORE, signal.SIGKILL)),
            "warm-up": launched(
                died(0, "vllm died|stopped answering|nothing but failures"), send(CORE, signal.SIGKILL)
            ),
            "window": NO_NEED,
            "shutdown": NO_NEED,
        },
    ),
    wire(
        "engine core frozen",
        "SIGSTOP to the process with the model; at the shutdown it takes no SIGTERM",
        {
            "start": "it is a start that takes too long: engine.start_timeout_s, see *server hangs*",
            "warm-up": NO_NEED,
            "window": launched(
                structs.replace(too_many(), within_s=90),
                send(CORE, signal.SIGSTOP),
                *set_to("measure.window_s=6", "measure.max_window_s=8"),
                look=timed_out,
            ),
            "shutdown": "the processes that are frozen in a window are so at the shutdown too",
        },
    ),
    wire(
        "Ctrl-C",
        "SIGINT to `profile` while vLLM is up",
        {
            "start": launched(INTERRUPTED, to_profile(signal.SIGINT)),
            "warm-up": NO_NEED,
            "window": NO_NEED,
            "shutdown": NO_NEED,
        },
    ),
    wire(
        "profile killed",
        "SIGKILL to `profile` while vLLM is up",
        {
            "start": NO_NEED,
            "warm-up": NO_NEED,
            "window": launched(KILLED, to_profile(signal.SIGKILL)),
            "shutdown": NO_NEED,
        },
    ),
    wire(
        "disk full",
        "another program takes all that is left while vLLM is up",
        {
            "start": NO_NEED,
            "warm-up": NO_NEED,
            "window": launched(
                structs.replace(
                    died(1, "No space left on device"),
                    status=("failed", "running"),
                    resumes=True,
                    litter=("*",),
                ),
                lambda live: rows_disk.fill(live.out),
                prepare=rows_disk.small,
                mend=rows_disk.make_room,
            ),
            "shutdown": NO_NEED,
        },
        rows_disk.no_mounts,
    ),
    wire(
        "cannot start",
        "an argument it does not know",
        {
            "start": launched(
                died(0, "does not know the argument --no-such-flag"),
                None,
                *set_to("engine.args.no_such_flag=3"),
            ),
            "warm-up": FAILED_START,
            "window": FAILED_START,
            "shutdown": FAILED_START,
        },
    ),
    wire(
        "no memory for its KV cache",
        "a KV cache larger than the machine",
        {
            "start": launched(
                died(0, "memory of this machine cannot hold the KV cache|out of memory"),
                None,
                *set_to("engine.env.VLLM_CPU_KVCACHE_SPACE=100000"),
            ),
            "warm-up": FAILED_START,
            "window": FAILED_START,
            "shutdown": FAILED_START,
        },
    ),
]
