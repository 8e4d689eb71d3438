"""kill −9 at random moments of ``profile run``, ``profile resume`` and sealing: what is lost, what stays.

    python -m tests.harden.kill [MOMENTS] [--jobs 4] [--seed 0] [--log FILE] [--seconds S]

With a log it goes on where it stopped: after --seconds no further moment is begun.

Real: the command line from ``profiler.__main__`` on, the engine's server, load generator and sampler as
processes of their own, the folders, the signal.  Not real: the process is forked from one that has imported
everything, which saves a second each time; windows last 0.1 s and the client is calibrated for 0.1 s, so that
what is narrow in a long run is wide in this one.  Each life is a run of two models under two loads, two
repeats, struck once and completed by ``profile resume``.

Of ten moments five are drawn from the whole run by the clock, two from a resume of what such a moment left,
one from all changes the process makes to the disk and two from those of sealing; the process is killed right
before the change (an audit hook counts renames, removals and new folders).

Writes docs/reliability/kill.json:
    {"command", "utc", "machine": {"cores", "python"}, "seed", "life_s", "moments", "failed",
     "kinds": {kind: {"moments", "ended_before", "begun", "windows_kept", "requests_kept", "failures": […]}}}
``life_s``: what one takes on average, looked over and completed.  ``ended_before``: the process was done by
that moment; ``begun``: lives that had a finished window.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import psutil

from profiler import store
from profiler.errors import InputError
from tests.harden.looks import Held

Kind = Literal["run", "resume", "disk", "sealing"]
TURN: tuple[Kind, ...] = ("run", "resume", "run", "sealing", "run", "disk", "run", "resume", "run", "sealing")
WORDS: dict[Kind, str] = {
    "run": "at any time of a run",
    "resume": "at any time of a resume",
    "disk": "right before any change of the disk",
    "sealing": "right before a change of the disk while it seals",
}
COMMAND = (
    *("run", "-m", "sim:a", "-m", "sim:b", "--engine", "simulated", "--scenario", "smoke", "--quiet"),
    *("--set", "engine.args.ttft_s=0.003", "--set", "engine.args.itl_s=0.001"),
    *(
        "--set",
        "workload.input_tokens=8",
        "--set",
        "workload.output_tokens=4",
        "--set",
        "load.concurrency=1,2",
    ),
    *("--set", "measure.repeats=2", "--set", "measure.window_s=0.1", "--set", "measure.warmup_s=0.02"),
    *("--set", "measure.min_requests=1", "--set", "measure.max_window_s=5"),
)
WINDOWS = 4  # of each model
CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir")
MARK = "PROFILER_KILL_MARK"
ROOT = Path(__file__).parents[2]
RECORD = ROOT / "docs/reliability/kill.json"
LIFE_S, GONE_S = 90.0, 15.0
FEW = 10  # are not worth more runs that nothing strikes
LONG = 50  # so many moments are worth a record


class Moment(NamedTuple):
    """``at``: a share of the lifetime, or of the changes of the disk, from 0 to 1."""

    number: int
    kind: Kind
    at: float


class Measured(NamedTuple):
    """A run that nothing struck: how long it takes, its changes of the disk, the first of them that seals."""

    run_s: float
    resume_s: float
    changes: int
    sealing: int


class Kept(NamedTuple):
    """What the folders said was finished: requests of each window as digests of their rows."""

    windows: dict[tuple[str, int], str]
    requests: int


# ------------------------------------------------------------------------------------------ one process


class Life:
    """A command in a forked process of its own."""

    def __init__(self, folder: Path, words: Sequence[str], hook: Callable[..., None] | None = None) -> None:
        self.folder = folder
        self.temp = folder / "tmp"
        self.temp.mkdir(parents=True, exist_ok=True)
        self.mark = uuid.uuid4().hex
        self.began_s = time.monotonic()
        self.code: int | None = None
        self.held = Held()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(words, hook)

    def _become(self, words: Sequence[str], hook: Callable[..., None] | None) -> None:
        from profiler import measure
        from profiler.__main__ import main

        code = 70
        try:
            os.setsid()
            os.chdir(self.folder)
            os.environ |= {MARK: self.mark, "TMPDIR": str(self.temp), "PYTHONPATH": str(ROOT)}
            tempfile.tempdir = None
            said = os.open(self.folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(said, 1)
            os.dup2(said, 2)
            measure.CALIBRATION_S = 0.1
            sys.argv = ["profile", *words]
            if hook is not None:
                sys.addaudithook(hook)
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        finally:
            sys.stdout.flush()
            os._exit(code)

    def end(self, within_s: float) -> bool:
        """Whether it ended by itself in that time."""
        limit_s = time.monotonic() + within_s
        while self.code is None and time.monotonic() < limit_s:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            else:
                time.sleep(0.002)
        return self.code is not None

    def kill(self) -> None:
        """kill −9 of this process and of no other."""
        self.held.note(self._processes())
        os.kill(self.pid, signal.SIGKILL)
        self.end(GONE_S)

    def _processes(self) -> list[psutil.Process]:
        wanted, found = f"{MARK}={self.mark}".encode(), []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                if wanted in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    found.append(psutil.Process(int(name)))
            except (OSError, psutil.Error):
                continue
        return found

    def left_over(self) -> Iterator[str]:
        """What outlives it, in words."""
        limit_s = time.monotonic() + GONE_S
        while (stay := self._processes()) and time.monotonic() < limit_s:
            time.sleep(0.02)
        for each in stay:
            yield f"process {' '.join(each.cmdline())[:80]} stayed"
            each.kill()
        yield from (f"temporary file {each.name} stayed" for each in self.temp.iterdir())
        yield from (f"shared memory {name} stayed" for name in self.held.shared if Path(name).exists())
        strange = {each.name for each in self.folder.iterdir()} - {"tmp", "said", "out"}
        yield from (f"{name} stayed beside the results" for name in strange)


def done(folder: Path, words: Sequence[str]) -> int:
    """The exit code of a command that nothing strikes."""
    life = Life(folder, words)
    if not life.end(LIFE_S):
        life.kill()
        return -1
    assert life.code is not None
    return life.code


def counting(out: Path, act: Callable[[int, str], None]) -> Callable[..., None]:
    """A hook that tells of each change of the disk below ``out``, before it is made: its number and words."""
    count = 0

    def hook(event: str, words: tuple[Any, ...]) -> None:
        nonlocal count
        if event in CHANGES and str(out) in str(words[0]):
            act(count, f"{event} {words[0]}")
            count += 1

    return hook


# ------------------------------------------------------------------------------------------ one moment


def run_words(folder: Path) -> list[str]:
    return [*COMMAND, "--out", str(folder / "out")]


def measured(folder: Path) -> Measured:
    """What a whole run and the resume of a short one come to here."""
    log = folder / "changes"

    def note(_: int, what: str) -> None:
        with log.open("a") as file:
            file.write(what + "\n")

    folder.mkdir()
    life = Life(folder, run_words(folder), counting(folder / "out", note))
    assert life.end(LIFE_S), "a run that nothing strikes does not end"
    assert life.code == 0, (folder / "said").read_text()
    run_s, changes = time.monotonic() - life.began_s, log.read_text().splitlines()
    first = next(n for n, each in enumerate(changes) if store.REQUESTS in each)
    log.unlink()
    return Measured(run_s, run_s, len(changes), first)


def crowded(folder: Path, jobs: int) -> float:
    """How long a run takes beside as many others as there will be, in s."""
    lives = []
    for job in range(jobs):
        own = folder / str(job)
        own.mkdir(parents=True)
        lives.append(Life(own, run_words(own)))
    took_s: dict[int, float] = {}
    while len(took_s) < jobs:
        for life in lives:
            if life.pid not in took_s and life.end(0.01):
                took_s[life.pid] = time.monotonic() - life.began_s
            assert time.monotonic() - life.began_s < LIFE_S, "a run that nothing strikes does not end"
    return sum(took_s.values()) / jobs


def struck(moment: Moment, known: Measured, folder: Path) -> tuple[Life, Kept, bool]:
    """The process that was killed, what was finished right before, and whether it was done by then."""
    out = folder / "out"
    folder.mkdir()
    if moment.kind in ("run", "resume"):
        share = moment.at if moment.kind == "run" else 0.25 + 0.5 * (moment.at * 7 % 1)
        life = Life(folder, run_words(folder))
        over = life.end(share * known.run_s)
        if moment.kind == "resume" and not over:
            life.kill()
            for _ in life.left_over():
                pass
            if (name := next(unfinished(out), None)) is None:
                return life, kept(out), False
            life = Life(folder, ["resume", str(out / name), "--quiet"])
            over = life.end(moment.at * known.resume_s)
        before = kept(out)
        if not over:
            life.kill()
        return life, before, over
    first = known.sealing if moment.kind == "sealing" else 0
    number = first + int(moment.at * (known.changes - first))

    def act(count: int, _: str) -> None:
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    life = Life(folder, run_words(folder), counting(out, act))
    assert life.end(LIFE_S), "it neither ended nor was killed"
    return life, Kept({}, 0), life.code == 0


def unfinished(out: Path) -> Iterator[str]:
    return (name for name in store.within(out) if not (out / name / store.MANIFEST).exists())


def kept(out: Path) -> Kept:
    """What the folders hold, each finished window with its requests; raises InputError where they lie."""
    windows, requests = {}, 0
    for name in store.within(out):
        run = store.load(out / name)
        rows = run.requests.to_pylist()
        for window in run.manifest.windows:
            own = [each for each in rows if each["window"] == window.index]
            windows[name, window.index] = hashlib.sha256(repr(own).encode()).hexdigest() if own else ""
            requests += len(own)
    return Kept(windows, requests)


def wrong(life: Life, before: Kept) -> Iterator[str]:
    """What is not as it should be after the blow, and after the run was completed; words."""
    out = life.folder / "out"
    yield from life.left_over()
    yield from _looks_whole_and_is_not(out)
    after = kept(out)
    yield from _lost("after the kill", before, after)
    if not store.within(out):
        return
    code = done(life.folder, ["compare", str(out), "--format", "csv"])
    if code != 0:
        yield f"profile compare ended with {code}"
    for name in _sealed_but_not_tidy(out):
        if (code := done(life.folder, ["resume", str(out / name)])) != 2:
            yield f"profile resume of a sealed run ended with {code}"
    while (name := next(unfinished(out), None)) is not None:
        code = done(life.folder, ["resume", str(out / name), "--quiet"])
        if code != 0:
            yield f"profile resume ended with {code}"
            return
    yield from _looks_whole_and_is_not(out)
    yield from _lost("after the resume", after, kept(out))
    for folder in (out / name for name in store.within(out)):
        stay = [*folder.glob(".*"), *folder.glob(store.JOURNAL), *folder.glob(store.PARTS)]
        yield from (f"{each.relative_to(out)} stayed" for each in stay)


def _sealed_but_not_tidy(out: Path) -> list[str]:
    """Killed between the two: ``resume`` says that nothing is left to do, and clears up."""
    return [
        name
        for name in store.within(out)
        if (out / name / store.MANIFEST).exists()
        and ((out / name / store.JOURNAL).exists() or any((out / name).glob(".*")))
    ]


def _looks_whole_and_is_not(out: Path) -> Iterator[str]:
    for name in store.within(out):
        for fault in store.faults(out / name):
            yield f"damaged: {fault}"
        run = store.load(out / name)
        held = sorted((each.point.concurrency, each.repeat) for each in run.manifest.windows)
        if len(set(held)) != len(held) or ((out / name / store.MANIFEST).exists() and len(held) != WINDOWS):
            yield f"{name} is {run.manifest.status} with the windows {held}"


def _lost(when: str, before: Kept, after: Kept) -> Iterator[str]:
    for (name, window), rows in before.windows.items():
        if not rows:
            yield f"{name}: window {window} has no requests"
        if after.windows.get((name, window)) != rows:
            yield f"{when}: the requests of window {window} of {name} are others, or lost"


def tried(moment: Moment, known: Measured, folder: Path) -> dict[str, Any]:
    """What came of a moment, for the record."""
    found: dict[str, Any] = {"number": moment.number, "kind": moment.kind, "ended_before": False}
    found |= {"windows": 0, "requests": 0}
    began_s = time.monotonic()
    try:
        life, before, over = struck(moment, known, folder)
        held = kept(folder / "out")
        found |= {"ended_before": over, "windows": len(held.windows), "requests": held.requests}
        failures = list(wrong(life, before))
    except (InputError, AssertionError) as error:
        failures = [f"{type(error).__name__}: {error}"]
    where = f"moment {moment.number} ({moment.kind} {moment.at:.4f}): "
    said = (folder / "said").read_text(errors="replace") if failures else ""
    if "Traceback" in said:
        failures.append("a traceback was printed: " + said[-300:])
    found["failures"] = [where + each.replace(str(folder), "…") for each in failures]
    found["took_s"] = time.monotonic() - began_s
    if failures and (keep := os.environ.get("KILL_KEEP")):
        shutil.copytree(folder, f"{keep}/{moment.number}", dirs_exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return found


# ------------------------------------------------------------------------------------------ all of them


def drawn(number: int, seed: int) -> list[Moment]:
    chance = random.Random(seed)
    return [Moment(n, TURN[n % len(TURN)], chance.random()) for n in range(number)]


def all_tried(moments: Sequence[Moment], jobs: int, log: Path, seconds: float) -> list[dict[str, Any]]:
    """In so many processes, forked from this one; those that the log has are not tried again."""
    _import_all()
    done = {each["number"] for each in _read(log)}
    left = [each for each in moments if each.number not in done]
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="profiler-kill-") as scratch:
        known = measured(Path(scratch, "whole"))
        if len(left) > FEW:
            run_s = crowded(Path(scratch, "crowd"), jobs)
            known = known._replace(run_s=run_s, resume_s=0.7 * run_s)
        pids = []
        for job in range(jobs):
            if not (pid := os.fork()):
                for moment in left[job::jobs]:
                    if time.monotonic() - began_s < seconds:
                        _note(log, tried(moment, known, Path(scratch, str(moment.number))))
                os._exit(0)
            pids.append(pid)
        for pid in pids:
            os.waitpid(pid, 0)
    asked = {each.number for each in moments}
    return [each for each in _read(log) if each["number"] in asked]


def _note(log: Path, found: dict[str, Any]) -> None:
    with log.open("a") as file:
        file.write(json.dumps(found) + "\n")
    for line in found["failures"]:
        print(line, flush=True)


def _read(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _import_all() -> None:
    """What a run imports in its course."""
    import pyarrow.parquet

    from profiler.report import page

    assert pyarrow.parquet
    assert page


def record(found: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    kinds = {}
    for kind in WORDS:
        own = [each for each in found if each["kind"] == kind]
        kinds[kind] = {
            "moments": len(own),
            "ended_before": sum(each["ended_before"] for each in own),
            "begun": sum(each["windows"] > 0 for each in own),
            "windows_kept": sum(each["windows"] for each in own),
            "requests_kept": sum(each["requests"] for each in own),
            "failures": [line for each in own for line in each["failures"]],
        }
    return {
        "command": f"python -m tests.harden.kill {len(found)}" + f" --seed {seed}" * bool(seed),
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "seed": seed,
        "life_s": round(sum(each["took_s"] for each in found) / len(found), 1),
        "moments": len(found),
        "failed": sum(bool(each["failures"]) for each in found),
        "kinds": kinds,
    }


def lines(record: dict[str, Any]) -> list[str]:
    """The record as a section of the page."""
    machine, kinds = record["machine"], record["kinds"]
    total = Counter[str]()
    rows = []
    for kind, each in kinds.items():
        total.update({name: value for name, value in each.items() if name != "failures"})
        rows.append(_row(WORDS[kind], each, len({line.partition(":")[0] for line in each["failures"]})))
    failures = [line for each in kinds.values() for line in each["failures"]]
    return [
        "## Killed at any moment",
        "",
        f"`{record['command']}`, {record['utc']}, {machine['cores']} cores, Python {machine['python']}: "
        f"kill −9 at {record['moments']} moments drawn with seed {record['seed']}, "
        f"{record['life_s']} s each, {record['failed']} failed.",
        "",
        "Each is a run of two models, two loads, two repeats, struck once. Afterwards: no process, temporary",
        "file or shared memory of it is left; no folder has a `manifest.json` that is not whole, by its",
        "checksums; every window its journal called finished has its requests, the same rows after the kill",
        "and after `profile resume`, and where the clock struck the same as right before; `profile compare`",
        "reads what is there; `profile resume` completes each folder. Forked from a process that has",
        "imported everything, windows of 0.1 s, a calibration of 0.1 s; the rest is as ever.",
        "",
        "| killed | moments | of these the process had ended | with finished windows | windows kept | "
        "requests kept | failed |",
        "|---|--:|--:|--:|--:|--:|--:|",
        *rows,
        _row("all", total, record["failed"]),
        *(["", *(f"* ✗ {line}" for line in failures)] if failures else []),
    ]


def _row(name: str, each: Any, failed: int) -> str:
    figures = ("moments", "ended_before", "begun", "windows_kept", "requests_kept")
    return f"| {name} | {' | '.join(f'{each[figure]:,}' for figure in figures)} | {failed} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.harden.kill")
    parser.add_argument("moments", nargs="?", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=4, help="lives at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="what is done so far, a line each")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = asked.log or Path(folder, "log")
        found = all_tried(drawn(asked.moments, asked.seed), asked.jobs, log, asked.seconds)
    if len(found) < asked.moments:
        print(f"{len(found)} of {asked.moments} moments so far")
        return 3
    made = record(found, asked.seed)
    print("\n".join(lines(made)[2:]))
    if asked.moments >= LONG:
        RECORD.parent.mkdir(exist_ok=True)
        RECORD.write_text(json.dumps(made, indent=1) + "\n")
    return int(made["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
