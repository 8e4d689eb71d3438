"""One cell of the matrix: a real ``profile run`` in a folder of its own, struck, and looked over afterwards.

Every process of the run has the mark of its cell in its environment, which is how those that stay behind
are found, whatever they have become.  Temporary files go to a folder of the cell's own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread

import psutil

from profiler import store
from tests.harden.nouns import Case, Expect, Phase, Result

MARK = "PROFILER_HARDEN_MARK"
COMMAND = (
    *("run", "--engine", "simulated", "--model", "sim", "--scenario", "smoke", "--json"),
    *("--set", "load.concurrency=2,4", "--set", "measure.repeats=1", "--set", "measure.min_requests=0"),
    *("--set", "measure.window_s=1.5", "--set", "measure.warmup_s=1.2", "--set", "measure.max_window_s=3"),
    *("--set", "timeouts.connect_s=2", "--set", "timeouts.first_token_s=2", "--set", "timeouts.gap_s=2"),
    *("--set", "engine.args.ttft_s=0.02", "--set", "engine.args.itl_s=0.005"),
)
RUN_LIMIT_S = 90.0
GONE_WITHIN_S = 15.0
SHARED_MEMORY = Path("/dev/shm")


class Live:
    """A run under way: its process, what it said, and handles for those who strike it."""

    def __init__(self, folder: Path, case: Case) -> None:
        self.folder = folder
        self.case = case
        self.mark = uuid.uuid4().hex
        self.out = folder / "results"
        self.temp = folder / "tmp"
        self.temp.mkdir(parents=True)
        self.events: list[dict] = []
        self.lines: list[str] = []
        self.struck_s: float | None = None
        self.stdout = ""
        self.process: subprocess.Popen[str] | None = None
        self._readers: list[Thread] = []
        self._in_memory_before = set(SHARED_MEMORY.iterdir())

    def start(self, *words: str) -> None:
        """The command as from a terminal, its events and lines read as they come."""
        if self.case.prepare is not None:
            self.case.prepare(self)
        self._start([*COMMAND, *self.case.words, *words])

    def _start(self, words: list[str]) -> None:
        env = os.environ | {"TMPDIR": str(self.temp), MARK: self.mark} | self.case.env
        self.process = subprocess.Popen(
            [sys.executable, "-m", "profiler", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=self.folder,
            env=env,
            preexec_fn=_as_from_a_terminal,  # noqa: PLW1509 (it starts no thread before exec)
        )
        self._readers = [Thread(target=self._read_stderr), Thread(target=self._read_stdout)]
        for reader in self._readers:
            reader.start()

    def _read_stderr(self) -> None:
        assert self.process is not None
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("{"):
                with suppress(json.JSONDecodeError):
                    self.events.append(json.loads(line))
                    continue
            self.lines.append(line.rstrip("\n"))

    def _read_stdout(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        self.stdout = self.process.stdout.read()

    def wait_for(self, phase: Phase) -> bool:
        """Wait until the run is in that phase; False where it ended before."""
        return self.until(lambda: _REACHED[phase](self))

    def until(self, reached: Callable[[], object], within_s: float = RUN_LIMIT_S) -> bool:
        assert self.process is not None
        end = time.monotonic() + within_s
        while not reached():
            if self.process.poll() is not None or time.monotonic() > end:
                return bool(reached())
            time.sleep(0.01)
        return True

    def has(self, **wanted: object) -> bool:
        """Whether there was an event with these keys and values."""
        return any(all(each.get(key) == wanted[key] for key in wanted) for each in list(self.events))

    def marked(self) -> list[psutil.Process]:
        """Every living process of this cell."""
        return list(_marked(self.mark))

    def child(self, words: str) -> psutil.Process:
        """The one process of this cell whose command holds these words, the youngest where it was started
        through another; raises AssertionError where there is none."""
        found = []
        for process in self.marked():
            with suppress(psutil.Error):
                if words in " ".join(process.cmdline()) and "supervise.py" not in " ".join(process.cmdline()):
                    found.append(process)
        assert found, f"no process {words!r} to strike"
        return max(found, key=lambda each: each.create_time())

    def send(self, signum: int) -> None:
        """A signal to `profile` itself."""
        assert self.process is not None
        self.process.send_signal(signum)

    def run_folders(self) -> list[Path]:
        return [self.out / name for name in store.within(self.out)] if self.out.is_dir() else []

    def end(self, within_s: float) -> int | None:
        """The exit code; None where it did not end in time and was killed."""
        assert self.process is not None
        try:
            code = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = None
        for reader in self._readers:
            reader.join(GONE_WITHIN_S)
        return code

    def left_over(self) -> list[str]:
        """Processes, temporary files and shared memory that outlived the run, in words."""
        end = time.monotonic() + GONE_WITHIN_S
        while (stay := self.marked()) and time.monotonic() < end:
            time.sleep(0.05)
        found = [f"process {_words_of(each)} stayed" for each in stay]
        for each in stay:
            with suppress(psutil.Error):
                each.kill()
        found += [f"temporary file {each.name} stayed" for each in self.temp.iterdir()]
        in_memory = {each for each in SHARED_MEMORY.iterdir() if self.mark[:8] in each.name}
        found += [f"shared memory {each.name} stayed" for each in in_memory - self._in_memory_before]
        if self.out.is_dir():
            found += [f"{each.name} stayed in the results" for each in self.out.glob(".write-test*")]
        return found


def _as_from_a_terminal() -> None:
    """A shell's background job would have been told to ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _marked(mark: str) -> Iterator[psutil.Process]:
    wanted = f"{MARK}={mark}".encode()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError, psutil.Error):
                if wanted in Path(f"/proc/{entry.name}/environ").read_bytes().split(b"\0"):
                    process = psutil.Process(int(entry.name))
                    if process.status() != psutil.STATUS_ZOMBIE:
                        yield process


def _words_of(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return f"{process.pid} ({' '.join(process.cmdline())[-80:]})"
    return str(process.pid)


def _measuring_the_last(live: Live) -> bool:
    held = sum(each.get("event") == "window" for each in list(live.events))
    last = next((each for each in reversed(list(live.events)) if each.get("event") == "progress"), {})
    return held >= 1 and last.get("phase") == "measuring"


_REACHED: dict[Phase, Callable[[Live], bool]] = {
    "start": lambda live: live.has(event="begin"),
    "warm-up": lambda live: live.has(event="progress", phase="warm-up"),
    "window": _measuring_the_last,
    "shutdown": lambda live: live.has(event="window", windows_left=0),
}


def try_out(name: str, phase: Phase, case: Case, folder: Path) -> Result:
    """Run one cell in ``folder`` and say what came of it."""
    live = Live(folder, case)
    began = time.monotonic()
    failures: list[str] = []
    try:
        live.start()
        code = _struck(live, phase, failures)
    except AssertionError as error:
        failures.append(f"{error}")
        live.send(signal.SIGKILL)
        code = live.end(GONE_WITHIN_S)
    took_s = time.monotonic() - began
    failures += live.left_over()
    kept = _kept(live)
    failures += _looked_over(live, code)
    return Result(
        fault=name,
        phase=phase,
        code=code,
        said=_telling(live),
        kept=kept,
        took_s=round(took_s, 1),
        failures=tuple(failures),
    )


def _struck(live: Live, phase: Phase, failures: list[str]) -> int | None:
    """Wait for the phase, strike, wait for the end."""
    if live.case.strike is not None:
        if live.wait_for(phase):
            live.struck_s = time.monotonic()
            live.case.strike(live)
        else:
            failures.append(f"the run never came to {phase}")
    # What strikes by itself does so within the run's own time.
    limit_s = live.case.expect.within_s + (0 if live.struck_s is not None else RUN_LIMIT_S)
    code = live.end(limit_s)
    if code is None:
        failures.append(f"still running {limit_s:g} s later")
    return code


def _looked_over(live: Live, code: int | None) -> Iterator[str]:
    expect = live.case.expect
    codes = expect.code if isinstance(expect.code, tuple) else (expect.code,)
    if code not in codes:
        yield f"exit code {code}, not {' or '.join(map(str, codes))}"
    said = "\n".join(
        live.lines + [str(each.get("reason")) for each in live.events if each["event"] == "failed"]
    )
    if "Traceback" in said or "Traceback" in live.stdout:
        yield "a traceback was printed"
    if expect.says is not None and not re.search(expect.says, said):
        yield f"did not say {expect.says!r}: {said[-300:]!r}"
    yield from _folder_is_right(live, expect)
    if expect.resumes:
        yield from _resumed(live)
    if live.case.look is not None:
        try:
            live.case.look(live)
        except AssertionError as error:
            yield f"{error}"


def _folder_is_right(live: Live, expect: Expect) -> Iterator[str]:
    found = live.run_folders()
    if expect.status is None:
        if found:
            yield f"left {', '.join(each.name for each in found)}"
        return
    if len(found) != 1:
        yield f"{len(found)} run folders, not one"
        return
    run = store.load(found[0])
    is_sealed = (found[0] / store.MANIFEST).exists()
    if run.manifest.status != expect.status or is_sealed != (expect.status == "complete"):
        yield f"the folder is {run.manifest.status}{', sealed' * is_sealed}, not {expect.status}"
    if len(run.manifest.windows) < expect.windows:
        yield f"{len(run.manifest.windows)} finished windows kept, not {expect.windows}"
    rows = run.requests.to_pylist()
    for window in run.manifest.windows:
        if not any(row["window"] == window.index for row in rows):
            yield f"window {window.index} counts as finished and has no requests"
    ended = {row["outcome"] for row in rows}
    if expect.outcomes is not None and ended - {"ok", "cancelled"} != expect.outcomes:
        yield f"requests ended with {sorted(ended)}, not {sorted(expect.outcomes)}"


def _resumed(live: Live) -> Iterator[str]:
    if live.case.mend is not None:
        live.case.mend(live)
    (folder,) = live.run_folders()
    before = store.load(folder).manifest.windows
    live._start(["resume", str(folder.relative_to(live.folder)), "--json"])
    code = live.end(RUN_LIMIT_S)
    if code != 0:
        yield f"resume ended with {code}: {' '.join(live.lines[-3:])}"
        return
    after = store.load(folder).manifest
    if after.status != "complete" or after.windows[: len(before)] != before:
        yield f"resumed, the folder is {after.status}, and its earlier windows are not what they were"
    yield from live.left_over()


def _telling(live: Live) -> str:
    """The line that told the user what happened."""
    lines = [line for line in live.lines if line.startswith(("error:", "failed:", "interrupted"))]
    return (lines or live.lines or [""])[-1]


def _kept(live: Live) -> str:
    found = [store.load(each) for each in live.run_folders()]
    if not found:
        return "nothing was measured"
    return "; ".join(
        f"{run.manifest.status}, {len(run.manifest.windows)} windows, {run.requests.num_rows} requests"
        for run in found
    )
