"""One run of a soak: the command line, what it said, and the metronome's truth taken after every window."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from profiler.engines.metronome_law import Settings
from profiler.engines.truth import Metronome, Truth
from profiler.errors import ProfilerError
from tests.harden.soak_watch import below

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "profiler", "run", "--json")
PATIENCE_S = 12.0  # with the first token of a server that is overloaded
SLICE_S = 0.04  # a client held back has its share of each
LATE_FRAC, LATE_S = 0.5, 120.0  # a run that takes so much longer than planned is ended
SCENARIO = """name = "soak"
about = "hours of load"
[workload]
input_tokens = 128
output_tokens = {tokens}
[load]
mode = "{mode}"
{load}
[measure]
warmup_s = {warm_s}
window_s = {window_s}
max_window_s = {window_s}
min_requests = 1
repeats = {windows}
[timeouts]
connect_s = 10
first_token_s = {patience_s}
gap_s = 60
total_s = 120
[telemetry]
idle_s = 0
{engine}
"""


class Plan(NamedTuple):
    """A run: windows of so many seconds, by a closed loop of ``streams`` or an open one of ``rate``
    requests/s.  ``law``: of the metronome; None: the simulated engine.  ``cpu_share``: of a core that the
    load process is given inside windows."""

    name: str
    law: Settings | None
    windows: int
    window_s: float
    warm_s: float
    streams: int = 0
    rate: float = 0.0
    tokens: int = 64
    cpu_share: float = 1.0


class Held(NamedTuple):
    """What came of it.  ``truths``: files of what the metronome did, in order of windows."""

    folder: Path
    code: int | None
    seconds: float
    stderr: list[str]
    events: list[dict[str, Any]]
    truths: list[Path]
    left: list[str]


def hold(plan: Plan, folder: Path, metronome: Metronome | None, engine: dict[str, Any] | None) -> Held:
    """Run the command to its end."""
    scenario = folder / "soak.toml"
    scenario.write_text(_scenario(plan, engine))
    server = [] if metronome is None else ["--url", f"http://127.0.0.1:{metronome.port}/v1"]
    model = "sim" if metronome is None else metronome.model
    began_s = time.monotonic()
    with (folder / "stdout").open("wb") as stdout:
        process = subprocess.Popen(
            [*COMMAND, "-m", model, *server, "-s", str(scenario), "--out", str(folder / "results")],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(folder / "tmp")},
        )
    limit_s = (plan.windows * (plan.window_s + plan.warm_s) + LATE_S) * (1 + LATE_FRAC) * 2
    watchdog = threading.Timer(limit_s, process.kill)
    watchdog.start()
    follower = _Follower(plan, folder, process.pid, metronome)
    try:
        follower.follow(process)
        code: int | None = process.wait()
    finally:
        watchdog.cancel()
        follower.end()
        if process.poll() is None:
            process.kill()
            process.wait()
    if code not in (0, 1):
        raise ProfilerError(f"the run ended with {code}: {' '.join(follower.lines[-3:])}")
    time.sleep(1.0)
    left = [role for pid, role in below(os.getpid()) if metronome is None or pid != metronome.pid]
    seconds = time.monotonic() - began_s - 1.0
    return Held(folder, code, seconds, follower.lines, follower.events, follower.truths, left)


def _scenario(plan: Plan, engine: dict[str, Any] | None) -> str:
    mode = "open" if plan.rate else "closed"
    load = (
        f"requests_per_s = [{plan.rate}]" if plan.rate else f"concurrency = [{plan.streams}]\nprocesses = 1"
    )
    words = ""
    if engine is not None:
        args = "".join(f"{key} = {value}\n" for key, value in engine.items())
        words = f'[engine]\nkind = "simulated"\n[engine.args]\n{args}'
    return SCENARIO.format(
        tokens=plan.tokens,
        mode=mode,
        load=load,
        warm_s=plan.warm_s,
        window_s=plan.window_s,
        windows=plan.windows,
        patience_s=60 if engine is None else min(PATIENCE_S, plan.window_s),
        engine=words,
    )


class _Follower:
    """Reads the events of a run and does what is due at them."""

    def __init__(self, plan: Plan, folder: Path, pid: int, metronome: Metronome | None) -> None:
        self.lines: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.truths: list[Path] = []
        self._plan, self._folder, self._pid, self._metronome = plan, folder, pid, metronome
        self._load: list[int] = []
        self._held_back = threading.Event()
        self._over = False
        self._brake = threading.Thread(target=self._hold_back, daemon=True)
        if plan.cpu_share < 1:
            self._brake.start()

    def follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            if not line.startswith("{"):
                self.lines.append(line.rstrip("\n"))
                continue
            event = json.loads(line)
            if event["event"] == "progress":
                self._progress(event)
            else:
                self.events.append(event)
                if event["event"] == "up":
                    self._found()

    def end(self) -> None:
        self._over = True
        self._held_back.set()
        if self._brake.is_alive():
            self._brake.join()

    def _found(self) -> None:
        self._load = [pid for pid, role in below(self._pid) if role == "load process"]
        others = set(sorted(os.sched_getaffinity(0))[1:])
        for pid in self._load if others and self._metronome else ():
            for thread in os.listdir(f"/proc/{pid}/task"):
                os.sched_setaffinity(int(thread), others)

    def _progress(self, event: dict[str, Any]) -> None:
        decoding = event["phase"] == "decoding"
        if decoding:
            self._held_back.clear()
        else:
            self._held_back.set()
        if decoding and self._metronome is not None and len(self.truths) == event["repeat"]:
            truth = self._metronome.truth()
            self._metronome.clear()
            path = self._folder / f"truth-{event['repeat']:05d}.npz"
            np.savez(path, **truth.__dict__)
            self.truths.append(path)

    def _hold_back(self) -> None:
        """Stop the load process for its part of every slice while a window is under way."""
        while not self._over:
            self._held_back.wait()
            for stop, share in ((signal.SIGCONT, self._plan.cpu_share), (signal.SIGSTOP, 0.0)):
                for pid in self._load if stop == signal.SIGCONT or not self._over else ():
                    _signal(pid, stop)
                part = share if stop == signal.SIGCONT else 1 - self._plan.cpu_share
                time.sleep(SLICE_S * part)
            for pid in self._load:
                _signal(pid, signal.SIGCONT)


def _signal(pid: int, signum: int) -> None:
    try:
        os.kill(pid, signum)
    except OSError:
        return  # it has ended


def read_truth(path: Path) -> Truth:
    with np.load(path) as arrays:
        return Truth(**arrays)
