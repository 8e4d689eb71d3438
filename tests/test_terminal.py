"""Streams whose reader goes away, and being asked to end more than once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from profiler.cli import terminal

ASKED = """
import signal, subprocess, sys, time
from profiler.cli import terminal
terminal.catch_signals()
child = subprocess.Popen(["sleep", "60"], start_new_session=True)
try:
    print("ready", flush=True)  # from here on it may be asked
    time.sleep(60)
except KeyboardInterrupt:
    print("asked", flush=True)
    child.wait()  # until it is asked a third time
terminal.be_deaf()
signal.raise_signal(signal.SIGINT)
sys.exit(100 - child.returncode)
"""
PRINTS = """
import sys
from profiler.cli import terminal
terminal.settle_streams()
print("to a reader" * 10_000)
print("to nobody", file=sys.stderr)
sys.stdout.flush()
sys.exit(3)
"""


def run(code: str, **streams: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], text=True, **streams)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP])
def test_the_second_time_is_answered_and_the_third_kills_what_is_waited_for(signum: int) -> None:
    process = run(ASKED, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signum)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signum)
    assert process.stderr.readline() == "\n"
    assert "once more kills them" in process.stderr.readline()
    process.send_signal(signum)
    _, said = process.communicate(timeout=20)
    assert "processes are killed" in said, said
    assert process.returncode == 100 + signal.SIGKILL


def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    before = {each: signal.getsignal(each) for each in terminal.SIGNALS}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        terminal.catch_signals()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_a_reader_that_is_gone_takes_no_exit_code_with_it() -> None:
    reading, writing = os.pipe()
    process = run(PRINTS, stdout=writing, stderr=writing)
    os.close(writing)
    os.close(reading)
    assert process.wait(20) == 3


def test_streams_that_are_closed_are_not_given_to_files() -> None:
    code = f"{PRINTS.replace('sys.exit(3)', '')}\nassert open('/dev/null').fileno() > 2\nsys.exit(3)"
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code], check=False
    )
    assert done.returncode == 3


def test_a_full_disk_behind_stdout_is_an_error_in_one_line() -> None:
    with open("/dev/full", "w") as full:
        process = run(PRINTS, stdout=full, stderr=subprocess.PIPE)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 1  # nobody caught it here
    assert said.strip().splitlines()[-1] == (
        "profiler.errors.StoreError: the result cannot be printed: No space left on device"
    )
