"""What a sweep costs beside its engines and its load: a local sweep of the simulated engine, whose starts and
windows are timed in the run folders; the rest is ours.

    .venv/bin/python benchmarks/sweep/overhead.py [starts]

Aim: below 1 s a cell.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from profiler import calibrate, measure, store, subject, telemetry
from profiler.progress import Quiet
from profiler.sweep import ledger, one, session

FILE = """
starts = {starts}
scenario = "smoke"

[axes]
model = ["first", "second"]
"workload.input_tokens" = [16, 32]
"load.concurrency" = [1, 4, 16]

[set]
engine = {{ kind = "simulated", args = {{ ttft_s = 0.02, itl_s = 0.005 }} }}
workload = {{ output_tokens = 16 }}
measure = {{ warmup_s = 0.2, window_s = 1.0, min_requests = 5 }}
"""

# What is timed, by the words of the table; what is inside another line begins with two blanks.
PARTS: dict[str, tuple[Any, str]] = {
    "one start, whole": (one, "hold"),
    "  plans, this machine looked at": (one, "plans"),
    "  sampler up": (telemetry.Sampler, "__enter__"),
    "  engine and sampler down": (subject.Subject, "stop"),
    "  windows, with their records": (subject.Subject, "hold"),
    "  calibration": (measure, "_calibrate"),
    "    of these done anew": (calibrate, "calibrate"),
    "  sealing": (store.RunWriter, "seal"),
    "  journal": (store.RunWriter, "update"),
    "record of the sweep": (ledger, "write"),
    "disturbed, judged": (one, "judged"),
}


class Timers:
    """Seconds and calls of each part."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.calls = dict.fromkeys(PARTS, 0)
        for words, (owner, name) in PARTS.items():
            setattr(owner, name, self._timed(words, getattr(owner, name)))

    def _timed(self, words: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def timed(*args: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return call(*args, **named)
            finally:
                self.seconds[words] += time.perf_counter() - begin
                self.calls[words] += 1

        return timed


def main(starts: int) -> None:
    timers = Timers()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "overhead.toml"
        file.write_text(FILE.format(starts=starts))
        request = session.Request(file=file, out=f"{folder}/out")
        begin = time.perf_counter()
        with session.planned(request) as planned:
            ready = time.perf_counter()
            planned.hold(Quiet(), lambda *_: None)
        end = time.perf_counter()
        # Disturbed ones that were held again are aside.
        runs = [store.load(each.parent).manifest for each in Path(folder).rglob(store.MANIFEST)]
    own = [run for run in runs if run.engine_from is None]
    engines_s = sum(sum(run.starts_s) for run in own)
    windows = [window for run in runs for window in run.windows]
    load_s = sum(window.closed_ns - window.opened_ns for window in windows) / 1e9
    rest_s = end - ready - engines_s - load_s
    print(f"{len(own)} starts, {len(runs)} run folders, {len(windows)} cells (each of its own start number)")
    print(f"planning and checks, once          {ready - begin:7.2f} s")
    print(f"holding                            {end - ready:7.2f} s")
    print(f"  engine starts                    {engines_s:7.2f} s")
    print(f"  load                             {load_s:7.2f} s")
    print(f"  the rest                         {rest_s:7.2f} s")
    print(f"    a start                        {rest_s / len(own):7.2f} s")
    print(f"    a cell                         {rest_s / len(windows):7.2f} s")
    for words, seconds in timers.seconds.items():
        print(f"{words:<34} {seconds:7.2f} s  {timers.calls[words]:5d} times")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
