"""Rows of what a user, a terminal or an init system does to a run under way."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable

from tests.harden.cell import Live
from tests.harden.nouns import PHASES, Case, Expect, Fault, Phase, Status

# Finished windows by the phase that a run was struck in.
WINDOWS: dict[Phase, int] = {"start": 0, "warm-up": 0, "window": 1, "shutdown": 2}
IMPATIENT_S = 0.02

# What stands between a terminal and the command.
AWAY = 'exec "$@" {}'  # a stream that is not there
READER_GONE = '"$@" | true; exit ${PIPESTATUS[0]}'
# Hands stderr on until there is a file "cut", then closes it.
CUT = """
import os, pathlib, subprocess, sys, threading, time
child = subprocess.Popen(sys.argv[1:], stderr=subprocess.PIPE)
def hand_on():
    for line in child.stderr:
        if os.path.exists('cut'):
            child.stderr.close()
            return
        os.write(2, line)
threading.Thread(target=hand_on, daemon=True).start()
sys.exit(child.wait())
"""
# A terminal of its own, hung up once there is a file "hang-up"; the events go past it.
TERMINAL = """
import os, pty, select, sys, time
events = os.dup(2)
pid, terminal = pty.fork()
if pid == 0:
    os.dup2(events, 2)
    os.execvp(sys.argv[1], sys.argv[1:])
while True:
    if terminal >= 0 and select.select([terminal], [], [], 0.01)[0]:
        try:
            os.read(terminal, 65536)
        except OSError:
            pass
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        sys.exit(os.waitstatus_to_exitcode(status))
    if terminal >= 0 and os.path.exists('hang-up'):
        os.close(terminal)
        terminal = -1
    time.sleep(0.01)
"""


def _send(*signals: int, apart_s: float = 0.0) -> Callable[[Live], None]:
    def strike(live: Live) -> None:
        for place, signum in enumerate(signals):
            time.sleep(apart_s if place else 0.0)
            if live.process is not None and live.process.poll() is None:
                live.send(signum)

    return strike


def _touch(name: str) -> Callable[[Live], None]:
    def strike(live: Live) -> None:
        (live.folder / name).touch()

    return strike


def _stopped(phase: Phase, *, resumes: bool = True) -> Expect:
    """As after one Ctrl-C."""
    return Expect(
        code=130,
        says="^interrupted|\ninterrupted",
        status="interrupted",
        windows=WINDOWS[phase],
        resumes=resumes and phase in ("window", "shutdown"),
        within_s=40,
    )


def _killed(phase: Phase, code: int) -> Expect:
    """Nobody is left to say or mark anything; what was recorded is there."""
    return Expect(
        code=code,
        says=None,
        status="running",
        windows=WINDOWS[phase],
        resumes=phase in ("warm-up", "window"),
        last_event=False,
    )


def _undisturbed(says: str | None = None, status: Status = "complete") -> Expect:
    return Expect(
        code=0, says=says, status=status, windows=2, outcomes=frozenset(), within_s=90, last_event=False
    )


def _is_sealed_all_the_same(live: Live) -> None:
    until = time.monotonic() + 30
    while not live.has(event="phase", text="sealing") and time.monotonic() < until:
        time.sleep(0.001)
    live.send(signal.SIGINT)


def _again(signum: int) -> Callable[[Live], None]:
    """Ctrl-C, then the same phase of the run that goes on."""

    def strike(live: Live) -> None:
        live.send(signal.SIGINT)
        assert live.end(30) == 130, "the first Ctrl-C"
        (folder,) = live.run_folders()
        has_window = live.has(event="window")
        was_over = live.has(event="window", windows_left=0)
        live.events[:] = [each for each in live.events if each["event"] == "window" and not was_over]
        live._start(["resume", str(folder.relative_to(live.folder)), "--json"])
        live.until(lambda: live.has(event="progress", phase="measuring" if has_window else "warm-up"), 8)
        live.send(signum)

    return strike


def _user(name: str, does: str, cases: dict[Phase, Case | str]) -> Fault:
    return Fault(name=name, group="user", does=does, cases=cases)


def _same(name: str, does: str, strike: Callable[[Live], None], expect: Callable[[Phase], Expect]) -> Fault:
    """A row that is struck alike in every phase."""
    return _user(name, does, {each: Case(strike=strike, expect=expect(each)) for each in PHASES})


def _some(name: str, does: str, phases: tuple[Phase, ...], case: Callable[[Phase], Case]) -> Fault:
    """A row of a few phases that stand for all."""
    as_in = f"as in {' and '.join(phases)}: what is done is the same in every phase"
    return _user(name, does, {each: case(each) if each in phases else as_in for each in PHASES})


def _throughout(name: str, does: str, case: Case, why: str) -> Fault:
    """What holds from the beginning on."""
    return _user(name, does, {"start": case, **dict.fromkeys(PHASES[1:], why)})


FROM_THE_BEGINNING = "it holds from the beginning on, through all phases of the one run"

ROWS = [
    _same("Ctrl-C", "SIGINT to `profile`", _send(signal.SIGINT), _stopped),
    _same(
        "Ctrl-C twice",
        "a second one while it winds up",
        _send(signal.SIGINT, signal.SIGINT, apart_s=IMPATIENT_S),
        _stopped,
    ),
    _same(
        "Ctrl-C three times",
        "as fast as a hand can",
        _send(*[signal.SIGINT] * 3, apart_s=IMPATIENT_S),
        _stopped,
    ),
    _some(
        "Ctrl-C held down",
        "ten of them in 0.3 s",
        ("window", "shutdown"),
        lambda phase: Case(
            strike=_send(*[signal.SIGINT] * 10, apart_s=0.03), expect=_stopped(phase, resumes=False)
        ),
    ),
    _same("SIGTERM", "as init systems and schedulers end a job", _send(signal.SIGTERM), _stopped),
    _same("SIGHUP", "the connection to the machine is gone", _send(signal.SIGHUP), _stopped),
    _same("kill -9 of profile", "SIGKILL to `profile`", _send(signal.SIGKILL), lambda p: _killed(p, -9)),
    _some(
        "SIGQUIT",
        "Ctrl-\\",
        ("start", "window"),
        lambda phase: Case(strike=_send(signal.SIGQUIT), expect=_killed(phase, -3)),
    ),
    _some(
        "SIGHUP under nohup",
        "the connection is gone, and the run is to outlive it",
        ("start", "window"),
        lambda _: Case(strike=_send(signal.SIGHUP), through=("nohup",), expect=_undisturbed()),
    ),
    _some(
        "SIGPIPE",
        "sent by hand; Python ignores it",
        ("window",),
        lambda _: Case(strike=_send(signal.SIGPIPE), expect=_undisturbed()),
    ),
    _user(
        "terminal closed",
        "its window is closed: a hang-up, and streams that lead nowhere",
        {
            phase: Case(
                strike=_touch("hang-up"),
                through=(sys.executable, "-c", TERMINAL),
                expect=_stopped(phase),
                mend=lambda live: (live.folder / "hang-up").unlink(),
            )
            for phase in PHASES
        },
    ),
    _some(
        "events unread",
        "who reads stderr goes away",
        ("warm-up", "shutdown"),
        lambda _: Case(strike=_touch("cut"), through=(sys.executable, "-c", CUT), expect=_undisturbed()),
    ),
    _throughout(
        "stdout unread",
        "`profile run … | head` that has ended",
        Case(through=("bash", "-c", READER_GONE, "bash"), expect=_undisturbed()),
        FROM_THE_BEGINNING,
    ),
    _throughout(
        "stdout closed",
        "`profile run … >&-`",
        Case(through=("bash", "-c", AWAY.format(">&-"), "bash"), expect=_undisturbed()),
        FROM_THE_BEGINNING,
    ),
    _throughout(
        "stdin, stdout, stderr closed",
        "as some daemons start their children",
        Case(through=("bash", "-c", AWAY.format("<&- >&- 2>&-"), "bash"), expect=_undisturbed()),
        FROM_THE_BEGINNING,
    ),
    _user(
        "stdout full",
        "`profile run … >/dev/full`",
        {
            **dict.fromkeys(PHASES[:3], "nothing is printed there before the end"),
            "shutdown": Case(
                through=("bash", "-c", AWAY.format(">/dev/full"), "bash"),
                expect=Expect(
                    code=4,
                    says="error: the result cannot be printed: No space left",
                    status="complete",
                    windows=2,
                    last_event=False,
                ),
            ),
        },
    ),
    _user(
        "Ctrl-C while sealing",
        "SIGINT when the last files are being written",
        {
            **dict.fromkeys(PHASES[:3], "nothing is sealed yet"),
            "shutdown": Case(
                strike=_is_sealed_all_the_same,
                expect=Expect(
                    code=130, says="all of it was sealed", status="complete", windows=2, last_event=False
                ),
            ),
        },
    ),
    _user(
        "Ctrl-C, resume, Ctrl-C",
        "SIGINT to the `profile resume` that goes on",
        {
            **{phase: Case(strike=_again(signal.SIGINT), expect=_stopped(phase)) for phase in PHASES[:3]},
            "shutdown": "nothing is left to do then but to seal, which is a row of its own",
        },
    ),
    _user(
        "SIGTERM during resume",
        "SIGTERM to the `profile resume` that goes on",
        {
            **{phase: Case(strike=_again(signal.SIGTERM), expect=_stopped(phase)) for phase in ("warm-up",)},
            **dict.fromkeys(("start", "window", "shutdown"), "as Ctrl-C, whose rows stand for both"),
        },
    ),
]
