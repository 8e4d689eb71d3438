"""Rows of the machine: processes of the run that die or stand still, boards, the clock, a neighbour."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from msgspec import structs

from profiler import comparison, store
from tests.harden.cell import Live
from tests.harden.nouns import PHASES, Case, Expect, Fault, Group, Phase
from tests.harden.rows_user import WINDOWS

MEMORY = Path("/sys/fs/cgroup/memory")
STOOD_STILL_S = 10.0
CLIENT, SAMPLER, ENGINE = "loadgen.child", "telemetry.sampler", "engines.simulated"
NO_BASELINES = ("--set", "telemetry.idle_s=0", "--set", "telemetry.warm_max_s=0")
STARTS_SOON = ("--set", "engine.start_timeout_s=4")
# Run by every Python process of the engine as it starts: a child in a session of its own, and a thread that
# takes memory for as long as there is a file "eat".
IN_THE_ENGINE = """
import os, subprocess, sys, threading, time
if sys.orig_argv[1:3] == ["-m", "profiler.engines.simulated"]:
    subprocess.Popen(["setsid", "--fork", "sleep", "600"], start_new_session=True)
    def eat():
        taken = []
        while True:
            time.sleep(0.01)
            if os.path.exists({flag!r}):
                taken.append(bytearray(b"x" * (16 << 20)))
    threading.Thread(target=eat, daemon=True).start()
"""
DEAF = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})"


def _signal(words: str, signum: int) -> Callable[[Live], None]:
    """A signal to one process of the run, once there is such a one."""

    return lambda live: _one(live, words).send_signal(signum)


def _one(live: Live, words: str) -> psutil.Process:
    """The process of the run with these words, once it is there."""
    live.until(lambda: any(words in each and "supervise.py" not in each for each in _commands(live)), 10)
    return live.child(words)


def _commands(live: Live) -> list[str]:
    return [" ".join(_command(each)) for each in live.marked()]


def _command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def _supervisor(live: Live) -> None:
    (found,) = [each for each in live.marked() if "supervise.py" in " ".join(_command(each))]
    found.kill()


def _failed(phase: Phase, says: str, within_s: float = 60) -> Expect:
    resumes = phase in ("warm-up", "window")
    return Expect(
        code=4, says=says, status="failed", windows=WINDOWS[phase], within_s=within_s, resumes=resumes
    )


def complete(says: str | None = None, within_s: float = 90) -> Expect:
    return Expect(code=0, says=says, status="complete", windows=2, within_s=within_s)


def compared(live: Live) -> list[dict[str, Any]]:
    """What `profile compare` says of the two loads."""
    (folder,) = live.run_folders()
    return list(comparison.rows([store.load(folder)]))


def row(
    name: str,
    group: Group,
    does: str,
    cases: dict[Phase, Case | str],
    needs: Callable[[], str | None] = lambda: None,
) -> Fault:
    return Fault(name=name, group=group, does=does, cases=cases, needs=needs)


# ------------------------------------------------------------------------------ processes


def _dies(words: str, signum: int, says: str, after: str) -> dict[Phase, Case | str]:
    """A process without which nothing can be measured; once all was, its death costs nothing."""
    strike = _signal(words, signum)
    cases: dict[Phase, Case | str] = {
        phase: Case(strike=strike, expect=_failed(phase, says)) for phase in PHASES[:3]
    }
    return cases | {"shutdown": after}


def _frozen_engine(phase: Phase) -> Case:
    """It never answers again, to no signal either."""
    strike = _signal(ENGINE, signal.SIGSTOP)
    if phase == "start":
        expect = _failed(phase, r"not ready after 4 s \(engine.start_timeout_s\)")
        return Case(strike=strike, words=STARTS_SOON, expect=expect)
    return Case(
        strike=strike,
        expect=Expect(
            code=(1, 4),
            says="gap_timeout|first_token_timeout|no token in",
            status=("complete", "failed"),
            windows=WINDOWS[phase],
            within_s=60,
        ),
    )


def _prepare_engine(live: Live) -> None:
    _inside(live, IN_THE_ENGINE.format(flag=str(live.folder / "eat")))


def _prepare_deaf(live: Live) -> None:
    _inside(live, DEAF)


def _inside(live: Live, code: str) -> None:
    """Have the engine run this first."""
    inside = live.folder / "inside"
    inside.mkdir()
    (inside / "sitecustomize.py").write_text(code)
    live.words += ["--set", f"engine.env.PYTHONPATH={str(inside)!r}"]


def _out_of_memory(live: Live) -> None:
    """The engine is let eat in a control group of 100 MiB: the kernel kills it."""
    engine = _one(live, ENGINE)
    group = MEMORY / f"harden-{live.mark[:8]}"
    group.mkdir()
    live.on_close(lambda: _remove(group))
    (group / "memory.limit_in_bytes").write_text(f"{100 << 20}")
    (group / "cgroup.procs").write_text(f"{engine.pid}")
    (live.folder / "eat").touch()


def _remove(group: Path) -> None:
    with suppress(OSError):
        group.rmdir()


def _no_memory_groups() -> str | None:
    return None if os.access(MEMORY, os.W_OK) else "no control group of memory may be made here"


def _sampler_row(signum: int, says: str) -> dict[Phase, Case | str]:
    """Latencies do not need it: the run goes on, and says what is not known.  ``says``: how, where it was
    struck while it was needed."""

    def told(live: Live) -> None:
        rows = compared(live)
        watts = [each["power_w_mean"] for each in rows]
        assert all(each is None or 380 < each < 420 for each in watts), f"half of the energy: {watts} W"
        assert None not in watts or any(re.search(says, each["notes"]) for each in rows), rows[-1]["notes"]

    strike = _signal(SAMPLER, signum)
    power: dict[str, str | None] = {"PROFILER_SIMULATED_NVML": "h100?power_w=400"}
    later = Case(strike=strike, look=told, words=NO_BASELINES, env=power, expect=complete())
    start: Case | str = "as in warm-up: it is found when the first load begins"
    if signum == signal.SIGKILL:
        expect = _failed("start", "the telemetry sampler ended: killed by SIGKILL")
        start = Case(strike=strike, words=NO_BASELINES, env=power, expect=expect)
    return {"start": start, "warm-up": later, "window": later, "shutdown": _over(later)}


def _over(case: Case) -> Case:
    """The same blow when it may have ended by itself: nobody may be there to be struck."""

    def strike(live: Live) -> None:
        with suppress(AssertionError, psutil.Error):
            assert case.strike is not None
            case.strike(live)

    return structs.replace(case, strike=strike)


# ------------------------------------------------------------------------------ standing still


def _suspend(which: Callable[[Live], list[psutil.Process]]) -> Callable[[Live], None]:
    def strike(live: Live) -> None:
        stopped = which(live)
        for each in stopped:
            each.send_signal(signal.SIGSTOP)
        time.sleep(STOOD_STILL_S)
        for each in reversed(stopped):
            with suppress(psutil.Error):
                each.send_signal(signal.SIGCONT)

    return strike


def _all_of(live: Live) -> list[psutil.Process]:
    return live.marked()


def _client_of(live: Live) -> list[psutil.Process]:
    return [live.child(CLIENT)]


def _profile_of(live: Live) -> list[psutil.Process]:
    assert live.process is not None
    return [psutil.Process(live.process.pid)]


def _client_is_named(live: Live) -> None:
    bound = [str(each["client_bound"]) for each in compared(live)]
    assert any("stood still for" in each for each in bound), f"a silent figure: {bound}"


def _suspended(which: Callable[[Live], list[psutil.Process]], is_seen: bool) -> dict[Phase, Case | str]:
    """In a window it must be in the figures' own words; elsewhere it only takes time."""
    strike = _suspend(which)
    seen = Case(
        strike=strike,
        look=_client_is_named if is_seen else None,
        expect=Expect(code=(0, 1), says=None, status="complete", windows=2, within_s=90),
    )
    idle = Case(strike=strike, expect=complete())
    return {
        "start": idle,
        "warm-up": "as in start: nothing is measured yet",
        "window": seen,
        "shutdown": idle,
    }


ROWS = [
    row(
        "engine killed",
        "engine",
        "SIGKILL to the engine",
        _dies(ENGINE, signal.SIGKILL, r"simulated (died|ended).*killed", "it is being ended then anyway"),
    ),
    row(
        "engine ends by itself",
        "engine",
        "SIGTERM, on which the simulated engine ends with 0",
        _dies(
            ENGINE,
            signal.SIGTERM,
            r"simulated (died|ended).*\(exit (0|-15)\)",
            "it is being ended then anyway",
        ),
    ),
    row(
        "engine out of memory",
        "engine",
        "the kernel kills it: a control group of 100 MiB",
        {
            **{
                phase: Case(
                    prepare=_prepare_engine,
                    strike=_out_of_memory,
                    expect=_failed(phase, "most likely for memory"),
                )
                for phase in PHASES[:3]
            },
            "shutdown": "it is being ended then anyway",
        },
        _no_memory_groups,
    ),
    row(
        "engine frozen",
        "engine",
        "SIGSTOP: it answers neither requests nor signals",
        {
            **{phase: _frozen_engine(phase) for phase in PHASES[:3]},
            "shutdown": "the next row",
        },
    ),
    row(
        "engine deadlocked at shutdown",
        "engine",
        "it does not hear SIGTERM; ended in good order, and by Ctrl-C",
        {
            **dict.fromkeys(("start", "warm-up"), "as in a window"),
            "window": Case(
                prepare=_prepare_deaf,
                strike=lambda live: live.send(signal.SIGINT),
                expect=Expect(code=130, says="interrupted", status="interrupted", windows=1, within_s=20),
            ),
            "shutdown": Case(prepare=_prepare_deaf, expect=complete()),
        },
    ),
    row(
        "engine frozen, Ctrl-C",
        "engine",
        "SIGSTOP to the engine, then SIGINT to `profile`",
        {
            phase: Case(
                strike=lambda live: (_signal(ENGINE, signal.SIGSTOP)(live), live.send(signal.SIGINT))[1],
                expect=Expect(
                    code=130,
                    says="interrupted",
                    status="interrupted",
                    windows=WINDOWS[phase],
                    within_s=30,
                ),
            )
            if phase in ("warm-up", "window")
            else "as in a window"
            for phase in PHASES
        },
    ),
    row(
        "engine with children of its own",
        "engine",
        "it leaves processes in sessions of their own; killed, or ended in good order",
        {
            "start": "as in a window",
            "warm-up": "as in a window",
            "window": Case(
                prepare=_prepare_engine,
                strike=_signal(ENGINE, signal.SIGKILL),
                expect=_failed("window", "simulated died"),
            ),
            "shutdown": Case(prepare=_prepare_engine, expect=complete()),
        },
    ),
    row(
        "supervisor killed",
        "engine",
        "SIGKILL to the process that minds the engine",
        {
            **{
                phase: Case(strike=_supervisor, expect=_failed(phase, "supervisor was killed"))
                for phase in PHASES[:3]
            },
            "shutdown": "it is ending the engine then, and is gone",
        },
    ),
    row(
        "load process killed",
        "machine",
        "SIGKILL to the process that sends",
        {
            phase: Case(
                strike=_signal(CLIENT, signal.SIGKILL),
                expect=complete()
                if phase == "shutdown"
                else _failed(phase, "the load process died .*SIGKILL"),
            )
            for phase in PHASES
        },
    ),
    row("sampler killed", "machine", "SIGKILL to it", _sampler_row(signal.SIGKILL, "killed by SIGKILL")),
    row(
        "sampler stopped",
        "machine",
        "SIGSTOP to it",
        _sampler_row(signal.SIGSTOP, "fell silent|no sample after the window"),
    ),
    row("machine asleep", "machine", "all processes stopped for 10 s", _suspended(_all_of, True)),
    row("load process stopped", "machine", "it alone, for 10 s", _suspended(_client_of, True)),
    row(
        "profile stopped",
        "machine",
        "it alone, for 10 s: the load goes on without it",
        _suspended(_profile_of, False),
    ),
]
