"""The soak: real runs for an hour, at half of what the client can take and beyond it; nothing may grow.

``python -m tests.harden.soak [--minutes M]`` (``make soak``) finds the client's capacity in chunks/s, as
``profile doctor`` does, and then holds these runs, each the real command line with sampler, journal, spill
and index:

=================  =====  ============================================================================
``half, windows``  29 %   metronome at half the capacity, windows of 20 s one after another
``half, long``     19 %   the same in one window of 10 minutes
``client``         25 %   metronome at the capacity, the load process stopped for so much of the time that
                          it has half the CPU it needs: a client in a container that is held back
``server``         27 %   simulated engine, asked in an open loop for twice what it can answer
=================  =====  ============================================================================

The load process is kept to cores that the metronome does not have, as in a calibration.  ``--again RUN``
holds one of them anew, as long and as hard as the record says, and puts it in the place of the one there.

``docs/reliability/soak.json``:

* ``command``, ``utc``, ``minutes``, ``machine`` {``cores``, ``python``, ``load``}; a load is the least,
  middle and highest load average
* ``capacity`` {``chunks_per_s``, ``concurrency``, ``cpu_s_per_chunk``, ``trials``}
* ``runs``, a list of {``name``, ``seconds``, ``code``, ``windows``, ``window_s``, ``requests`` {outcome:
  number}, ``asked`` and ``chunks_per_s``, ``client_bound`` (windows marked), ``blamed`` (of these as sent
  late or busy), ``load``, ``processes``, ``timing``, ``folder_mib`` and ``temporary_mib`` ([most, left]),
  ``raw_mib`` (most held open under no name), ``checks`` [[what, whether it held, words]]}
* of ``processes`` each has ``role``, ``memory`` (a slope), ``series_mib`` (thinned), ``peak_mib``,
  ``pss_mib`` [first, last], ``files`` and ``threads`` (:func:`tests.harden.soak_verdict.counted`)
* ``timing``: ``against``, ``chunks``, ``left_out`` (requests), ``unbounded`` (why, or null), ``p50_us`` and
  ``p99_us`` (slopes), ``minutes`` [[p50, p99], …] in µs; null where it could not be had
* ``failures`` (what did not hold, a line each; empty: all did), ``undecided`` (what could not be told),
  ``notes`` (words of whoever ran it)

Slopes are :class:`tests.harden.soak_verdict.Slope`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from profiler.calibrate import calibrate_worker, load_process, steady_law
from profiler.client import Calibration
from profiler.doctor import TRIAL_TOKENS, exact
from profiler.engines.truth import Metronome
from profiler.errors import ProfilerError
from tests.harden import page, soak_lines
from tests.harden.soak_look import looked
from tests.harden.soak_run import PATIENCE_S, Held, Plan, hold

ROOT = Path(__file__).resolve().parents[2]
OBSERVER = (sys.executable, "-m", "tests.harden.soak_watch")
RECORD = ROOT / "docs" / "reliability" / "soak.json"
# Rates and streams of the search for the capacity, upwards from the doctor's.
RATES = ((5_000, 64), (10_000, 128), (15_000, 192), (20_000, 256), (30_000, 384), (40_000, 512))
TRIAL_S, TRIES = 1.5, 2
KEPT_UP_FRAC = 0.9
JITTER_FRAC = 0.3  # of gaps, so that each answer is told from any other
TOKENS = 64
SHARES = {"half, windows": 0.29, "half, long": 0.19, "client": 0.25, "server": 0.27}
AROUND_S = 8.0  # of a run beside its windows: start, calibration at the end, sealing
DECODE_S_PER_CHUNK = 3e-6
LONG_DUTY = 0.88  # of the long run that its window takes; the rest is decoding
LONG_S = 600.0
# The simulated engine: eight at once, 0.25 s each, so 32 requests/s; it is asked for twice that.
SERVER = {"ttft_s": 0.05, "itl_s": 0.0125, "max_running": 8}
SERVER_TOKENS, SERVER_RATE = 17, 64.0


def main(argv: list[str] | None = None) -> int:
    """Soak, write the record, print it; 1 where something did not hold, 3 where something is undecided."""
    parser = argparse.ArgumentParser(prog="python -m tests.harden.soak", description="An hour of load.")
    parser.add_argument("--minutes", type=float, default=60.0, help="of all runs together")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--again", choices=SHARES, help="hold only this one anew, into the record there is")
    parser.add_argument("--note", action="append", default=[], help="words to stand beside the figures")
    parser.add_argument("--keep", type=Path, help="where everything seen goes, and stays")
    options = parser.parse_args(argv)
    with ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        folder.mkdir(parents=True, exist_ok=True)
        if options.again:
            before = json.loads(options.record.read_text())
            record = again(before, options.again, options.minutes, folder)
        else:
            record = soak(options.minutes, folder)
    record["notes"] += options.note
    options.record.parent.mkdir(parents=True, exist_ok=True)
    options.record.write_text(text_of(record))
    if options.record == RECORD:
        page.write()
    sys.stdout.write("\n".join(soak_lines.lines(record)) + "\n")
    return 1 if record["failures"] else 3 if record["undecided"] else 0


def text_of(record: dict[str, Any]) -> str:
    """As JSON, a list of plain values on one line."""
    plain = re.compile(r"\[\n[^\[\]{}]*\n *\]")
    return plain.sub(lambda found: re.sub(r"\n *", " ", found[0]), json.dumps(record, indent=1)) + "\n"


def lines(record: dict[str, Any]) -> list[str]:
    """The section of docs/reliability.md."""
    return soak_lines.lines(record)


def soak(minutes: float, folder: Path) -> dict[str, Any]:
    """All runs one after another; the record."""
    capacity = found_capacity()
    say(f"the client takes {capacity['chunks_per_s']:,} chunks/s on {capacity['concurrency']} streams")
    runs = [one(name, minutes, capacity, folder) for name in SHARES]
    return record_of(runs, capacity, minutes)


def again(before: dict[str, Any], name: str, minutes: float, folder: Path) -> dict[str, Any]:
    """A record with one run held anew."""
    new = one(name, minutes, before["capacity"], folder)
    runs = [new if run["name"] == name else run for run in before["runs"]]
    return record_of(runs, before["capacity"], minutes) | {"notes": before["notes"]}


def one(name: str, minutes: float, capacity: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The run of this name of a soak of so many minutes."""
    plan = planned(name, minutes * 60 * SHARES[name], capacity)
    say(f"{name}: {plan.windows} windows of {plan.window_s:.0f} s")
    run = looked(plan, _held(plan, folder / name.replace(", ", "-")))
    for what, is_held, words in run["checks"]:
        say(f"  {'✓' if is_held else '✗'} {what}: {words}")
    return run


def record_of(runs: list[dict[str, Any]], capacity: dict[str, Any], minutes: float) -> dict[str, Any]:
    return {
        "command": "python -m tests.harden.soak" + ("" if minutes == 60 else f" --minutes {minutes:g}"),
        "utc": time.strftime("%Y-%m-%d", time.gmtime()),
        "minutes": round(sum(run["seconds"] for run in runs) / 60, 1),
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "load": soak_lines.worst_load([run["load"] for run in runs]),
        },
        "capacity": capacity,
        "runs": runs,
        "failures": [f"{run['name']}: {line}" for run in runs for line in soak_lines.failures(run)],
        "undecided": [f"{run['name']}: {line}" for run in runs for line in soak_lines.undecided(run)],
        "notes": [],
    }


def found_capacity() -> dict[str, Any]:
    """The highest rate at which the client was exact by the doctor's limits, in the best of TRIES tries at
    each.  Raises ProfilerError where it was exact at none."""
    best: Calibration | None = None
    trials = []
    with load_process() as worker:
        for rate, streams in RATES:
            seen = [calibrate_worker(worker, rate, streams, TRIAL_S, TRIAL_TOKENS) for _ in range(TRIES)]
            trials += [
                {"asked": rate, "chunks_per_s": round(each.chunks_per_s), "exact": exact(each)}
                for each in seen
            ]
            good = [each for each in seen if exact(each)]
            if not good or max(each.chunks_per_s for each in good) < KEPT_UP_FRAC * rate:
                break  # the client errs, or the metronome itself does not keep up
            best = good[0]
    if best is None:
        raise ProfilerError("the client was exact at no rate: is the machine busy?")
    return {
        "chunks_per_s": round(best.chunks_per_s),
        "concurrency": best.concurrency,
        "cpu_s_per_chunk": best.client_cpu_s_per_chunk,
        "trials": trials,
    }


def planned(name: str, seconds: float, capacity: dict[str, Any]) -> Plan:
    """A run of about this length."""
    part = 2 if name.startswith("half") else 1
    chunks_per_s, streams = capacity["chunks_per_s"] / part, max(1, capacity["concurrency"] // part)
    window_s = min(20.0, seconds / 12)
    warm_s = min(3.0, window_s / 3)
    law = steady_law(chunks_per_s, streams, tokens=TOKENS, jitter_frac=JITTER_FRAC)
    if name == "half, long":
        return Plan(name, law, 1, min(LONG_S, LONG_DUTY * seconds), warm_s, streams=streams, tokens=TOKENS)
    if name == "server":
        window_s = min(30.0, seconds / 6)
        cycle_s = warm_s + window_s + min(PATIENCE_S, window_s) + 1.5
        windows = max(2, int((seconds - AROUND_S) / cycle_s))
        return Plan(name, None, windows, window_s, warm_s, rate=SERVER_RATE, tokens=SERVER_TOKENS)
    cycle_s = warm_s + window_s * (1 + chunks_per_s * DECODE_S_PER_CHUNK) + 1.0
    share = 1.0
    if name == "client":
        share = chunks_per_s * capacity["cpu_s_per_chunk"] / 2
    windows = max(2, int((seconds - AROUND_S) / cycle_s))
    return Plan(name, law, windows, window_s, warm_s, streams=streams, tokens=TOKENS, cpu_share=share)


def _held(plan: Plan, folder: Path) -> Held:
    """The run and all that was seen of it; the observer is there before it and after it."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    seen = folder / "seen.jsonl"
    observer = subprocess.Popen(
        [*OBSERVER, str(os.getpid()), str(seen), str(folder / "results"), str(folder / "tmp")],
        stdin=subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        if plan.law is None:
            return hold(plan, folder, None, SERVER)
        cores = sorted(os.sched_getaffinity(0))
        with Metronome(plan.law, core=cores[0] if len(cores) > 1 else None) as metronome:
            return hold(plan, folder, metronome, None)
    finally:
        assert observer.stdin is not None
        observer.stdin.close()
        observer.wait()


def say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S', time.gmtime())} {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
