"""All targets one after another, each in a process of its own with limits of time and memory.

What libFuzzer counted of every run is kept in ``docs/reliability/fuzz.json``::

    {"command": str, "utc": str, "machine": {"cores": int, "python": str, "atheris": str},
     "limits": {"call_s": int, "memory_mb": int, "input_bytes": {target: int}},
     "targets": {name: {"runs": [Run, …], "edges": int, "features": int, "corpus": int, "faults": [str, …]}}}

A Run has ``commit``, ``utc``, ``executions``, ``seconds``, ``slowest_s`` (the longest single call),
``peak_rss_mb`` and ``faults``: how many different ones it saw.  ``edges``, ``features`` and ``corpus`` are
those of the last run.  The ``faults`` of a target are by signature, of all runs.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from tests.fuzz.nouns import CORPUS, FOUND, ROOT, Target

RECORD = ROOT / "docs" / "reliability" / "fuzz.json"
WORK = ROOT / "build" / "fuzz"  # the corpus as it grows, logs, inputs that ended a process
CALL_S, MEMORY_MB = 20, 1536
_PLACE = re.compile(r"#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)/")


class Run(msgspec.Struct):
    """One process of a target; see the module."""

    commit: str
    utc: str
    executions: int
    seconds: float
    slowest_s: float
    peak_rss_mb: int
    faults: int


class Standing(msgspec.Struct):
    """A target over all its runs; see the module."""

    runs: list[Run]
    edges: int = 0
    features: int = 0
    corpus: int = 0
    faults: list[str] = msgspec.field(default_factory=list)

    @property
    def executions(self) -> int:
        return sum(run.executions for run in self.runs)

    @property
    def seconds(self) -> float:
        return sum(run.seconds for run in self.runs)


class Record(msgspec.Struct):
    command: str
    utc: str
    machine: dict[str, Any]
    limits: dict[str, Any]
    targets: dict[str, Standing]


def fuzz(target: Target, standing: Standing, limits: list[str]) -> None:
    """One run of a target; ``limits`` are libFuzzer's, of time or of executions."""
    log, state = WORK / f"{target.name}.log", WORK / f"{target.name}.json"
    state.unlink(missing_ok=True)
    corpus = [_grown(target), *(each / target.name for each in (CORPUS, FOUND))]
    begun, utc = time.perf_counter(), _now()
    with log.open("wb") as said:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.child", target.name, state),
                *(*limits, f"-timeout={CALL_S}", f"-rss_limit_mb={MEMORY_MB}"),
                *("-print_final_stats=1", f"-max_len={target.most_bytes}"),
                f"-artifact_prefix={WORK}/ended-{target.name}-",
                *(str(each) for each in corpus if each.is_dir()),
            ],
            cwd=ROOT,
            stdout=said,
            stderr=said,
            check=False,
        )
    ended = _ended(target) if done.returncode else []
    if done.returncode and not ended:
        raise SystemExit(f"{target.name}: the fuzzer itself ended with {done.returncode}: see {log}")
    _note(standing, log.read_text(errors="replace"), state, utc, time.perf_counter() - begun, ended)


def _note(standing: Standing, said: str, state: Path, utc: str, seconds: float, ended: list[str]) -> None:
    told = msgspec.json.decode(state.read_bytes()) if state.exists() else {"faults": {}, "slowest_s": 0.0}
    places = [tuple(map(int, each)) for each in _PLACE.findall(said)] or [(0, 0, 0, 0)]
    faults = [*told["faults"], *ended]
    standing.edges, standing.features, standing.corpus = places[-1][1:]
    standing.faults = sorted({*standing.faults, *faults})
    standing.runs.append(
        Run(
            commit=_commit(),
            utc=utc,
            executions=_stat(said, "number_of_executed_units") or places[-1][0],
            seconds=round(seconds, 1),
            slowest_s=round(told["slowest_s"], 4),
            peak_rss_mb=_stat(said, "peak_rss_mb") or 0,
            faults=len(faults),
        )
    )


def _grown(target: Target) -> Path:
    """The corpus of earlier runs here and the seeds, in a folder that libFuzzer adds to."""
    folder = WORK / "corpus" / target.name
    folder.mkdir(parents=True, exist_ok=True)
    for place, seed in enumerate(target.seeds()):
        (folder / f"seed-{place:03}").write_bytes(seed)
    return folder


def _ended(target: Target) -> list[str]:
    """Inputs that ended the process (too long, too much memory), which are kept with the others found."""
    found = []
    for path in sorted(WORK.glob(f"ended-{target.name}-*")):
        (FOUND / target.name).mkdir(parents=True, exist_ok=True)
        kind, _, digest = path.name.removeprefix(f"ended-{target.name}-").partition("-")
        shutil.move(path, FOUND / target.name / f"{kind}-{digest[:12]}")
        found.append(f"{kind} {digest[:12]}")
    return found


def _stat(said: str, name: str) -> int | None:
    found = re.search(rf"stat::{name}:\s+(\d+)", said)
    return int(found[1]) if found else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _commit() -> str:
    """The commit, ``+`` where the product or the targets differ from it."""
    told = ["git", "describe", "--always", "--abbrev=10"]
    commit = subprocess.run(told, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    changed = subprocess.run(
        ["git", "diff", "--quiet", "HEAD", "--", "profiler", "tests/fuzz/*.py"], cwd=ROOT, check=False
    )
    return commit + ("+" if changed.returncode else "")


def before() -> dict[str, Standing]:
    """What the record says of earlier runs."""
    return msgspec.json.decode(RECORD.read_bytes(), type=Record).targets if RECORD.exists() else {}


def keep(standings: dict[str, Standing], targets: dict[str, Target], command: str) -> None:
    """The record, whole or not at all."""
    record = Record(
        command=command,
        utc=_now(),
        machine={
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "atheris": version("atheris"),
        },
        limits={
            "call_s": CALL_S,
            "memory_mb": MEMORY_MB,
            "input_bytes": {name: target.most_bytes for name, target in targets.items()},
        },
        targets={name: standings[name] for name in targets if name in standings},
    )
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    new = RECORD.with_suffix(".new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    new.replace(RECORD)
