"""One cell of the matrix: a real ``profile run`` in a folder of its own, struck, and looked over afterwards.

Every process of the run has the mark of its cell in its environment, which is how those that stay behind
are found, whatever they have become.  Temporary files go to a folder of the cell's own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import psutil

from profiler import store
from tests.harden import looks
from tests.harden.nouns import Case, Phase, Result

MARK = "PROFILER_HARDEN_MARK"
COMMAND = (
    *("run", "--scenario", "smoke", "--json"),
    *("--set", "load.concurrency=2,4", "--set", "measure.repeats=1", "--set", "measure.min_requests=0"),
    *("--set", "measure.window_s=2.5", "--set", "measure.warmup_s=1.2", "--set", "measure.max_window_s=4"),
    *("--set", "timeouts.connect_s=2", "--set", "timeouts.first_token_s=2", "--set", "timeouts.gap_s=2"),
)
FAULTS_FILE = "faults.json"
RUN_LIMIT_S = 90.0
GONE_WITHIN_S = 15.0
ROOT = Path(__file__).parents[2]


class Live:
    """A run under way: its process, what it said, and handles for those who strike it.

    ``words``: those of the command that are the case's own; ``prepare`` may add some.
    """

    def __init__(self, folder: Path, case: Case) -> None:
        self.folder = folder
        self.case = case
        self.mark = uuid.uuid4().hex
        self.out = folder / "results"
        self.temp = folder / "tmp"
        self.temp.mkdir(parents=True)
        self.words: list[str] = [*case.engine, *case.words]
        self.env: dict[str, str | None] = dict(case.env)
        self.events: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self.struck_s: float | None = None
        self.stdout = ""
        self.process: subprocess.Popen[str] | None = None
        self.held = looks.Held()
        self.notes: dict[str, Any] = {}  # what a case keeps from one of its calls to the next
        self._readers: list[Thread] = []
        self._beside: list[subprocess.Popen[Any]] = []
        self._closing: list[Callable[[], None]] = []

    # ------------------------------------------------------------------------------ the run

    def start(self, *words: str) -> None:
        """The command as from a terminal, its events and lines read as they come."""
        if self.case.prepare is not None:
            self.case.prepare(self)
        model = () if "--model" in self.words else ("--model", "sim")
        self._start([*COMMAND, *model, *self.words, *words])

    def _start(self, words: list[str]) -> None:
        env = {name: value for name, value in (os.environ | self.env).items() if value is not None}
        env |= {"TMPDIR": str(self.temp), MARK: self.mark, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [*self.case.through, sys.executable, "-m", "profiler", *words],
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
        return self.until(lambda: _REACHED[phase](self), self.case.comes_s)

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
        commands = [(each, _command(each)) for each in self.marked()]
        found = [each for each, text in commands if words in text and "supervise.py" not in text]
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

    # ------------------------------------------------------------------------------ beside the run

    def faults(self, *faults: dict[str, Any]) -> None:
        """What the simulated engine does wrong from now on; nothing: it is well again."""
        beside = self.folder / f".{FAULTS_FILE}"
        beside.write_text(json.dumps(faults))
        beside.rename(self.folder / FAULTS_FILE)

    def beside(self, argv: Sequence[str], **more: Any) -> subprocess.Popen[Any]:
        """Another process, no part of the run; ended with the cell."""
        process = subprocess.Popen(argv, cwd=self.folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, **more)
        self._beside.append(process)
        return process

    def serve(
        self, *, host: str = "127.0.0.1", port: int = 0, **settings: Any
    ) -> tuple[subprocess.Popen[Any], int]:
        """A simulated engine that somebody else runs, and its port; it reads the faults of :meth:`faults`."""
        from profiler.engines.simulated import command

        args = {"ttft_s": 0.02, "itl_s": 0.005, "faults_file": FAULTS_FILE} | settings
        server = self.beside(
            command(args, model="sim", host=host, port=port),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert server.stdout is not None
        return server, int(server.stdout.readline().split()[1])

    def on_close(self, call: Callable[[], None]) -> None:
        """To be called when the cell is over."""
        self._closing.append(call)

    def close(self) -> None:
        """End what is beside the run."""
        for process in self._beside:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        for call in self._closing:
            call()

    # ------------------------------------------------------------------------------ what stays

    def left_over(self) -> list[str]:
        """Processes, ports, shared memory and files that outlived the run, in words."""
        end = time.monotonic() + GONE_WITHIN_S
        while (stay := self.marked()) and time.monotonic() < end:
            time.sleep(0.05)
        found = [f"process {_words_of(each)} stayed" for each in stay]
        for each in stay:
            with suppress(psutil.Error):
                each.kill()
        return [*found, *looks.left_behind(self)]


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
    return f"{process.pid} ({_command(process)[-80:]})"


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _coming_up(live: Live) -> bool:
    """The engine's process is there and does not answer yet."""
    if not live.has(event="begin") or live.has(event="up"):
        return False
    return any("supervise.py" in _command(each) for each in live.marked())


def _measuring_the_last(live: Live) -> bool:
    held = sum(each.get("event") == "window" for each in list(live.events))
    last = next((each for each in reversed(list(live.events)) if each.get("event") == "progress"), {})
    return held >= 1 and last.get("phase") == "measuring"


_REACHED: dict[Phase, Callable[[Live], bool]] = {
    "start": _coming_up,
    "warm-up": lambda live: live.has(event="progress", phase="warm-up"),
    "window": _measuring_the_last,
    "shutdown": lambda live: live.has(event="window", windows_left=0),
}


def try_out(name: str, phase: Phase, case: Case, folder: Path) -> Result:
    """Run one cell in ``folder`` and say what came of it."""
    live = Live(folder, case)
    began = time.monotonic()
    failures: list[str] = []
    code: int | None = None
    try:
        try:
            live.start()
            code = _struck(live, phase, failures)
        except AssertionError as error:
            failures.append(f"{error}")
            if live.process is not None:
                live.send(signal.SIGKILL)
                code = live.end(GONE_WITHIN_S)
        took_s = time.monotonic() - began
        said = looks.telling(live)
        failures += live.left_over()
        kept = looks.kept(live)
        failures += looks.looked_over(live, code)
        if case.expect.resumes and not failures:
            failures += _resumed(live)
        if case.look is not None:
            try:
                case.look(live)
            except AssertionError as error:
                failures.append(f"{error}")
    finally:
        live.close()
    return Result(
        fault=name,
        phase=phase,
        code=code,
        said=said,
        kept=kept,
        took_s=round(took_s, 1),
        failures=tuple(failures),
    )


def _struck(live: Live, phase: Phase, failures: list[str]) -> int | None:
    """Wait for the phase, strike, wait for the end."""
    if live.case.strike is not None:
        if live.wait_for(phase):
            live.held.note(live.marked())
            if phase == "window" and live.has(event="window", windows_left=0):
                failures.append("the harness came too late: the last window was over before it struck")
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
