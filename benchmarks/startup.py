"""Wall time of the command line beside the bare interpreter, interleaved; medians over rounds.  Then a run
against a server that is there: when its requests arrive there, and the memory of all its processes.

    .venv/bin/python benchmarks/startup.py

Aims: ``profile --help`` within 2.5 × ``python -c pass``; on one core the first request of the load within
0.5 s of the command; all processes of a run of 256 streams within 150 MB.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent / "load"))

from common import CLIENT_CORE, SERVER_CORE, Metronome, PeakMemory, Settings, on_core

from tests import make

ROUNDS = 15
RUNS = 5
PROFILE = Path(sys.executable).parent / "profile"


def wall_s(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def three_runs(folder: Path) -> list[str]:
    names = []
    for number in range(3):
        run = make.writer(folder, [make.steady(r, 10.0 + 30 * r) for r in range(9)], run_id=f"run{number}")
        run.seal()
        names.append(str(run.folder))
    return names


def commands(folder: Path) -> None:
    chosen = {
        "python -c pass": [sys.executable, "-c", "pass"],
        'python -c "import pandas"': [sys.executable, "-c", "import pandas"],
        "profile --help": [str(PROFILE), "--help"],
        "profile run --help": [str(PROFILE), "run", "--help"],
        "profile compare, 3 runs": [str(PROFILE), "compare", *three_runs(folder)],
    }
    times: dict[str, list[float]] = {name: [] for name in chosen}
    for _ in range(ROUNDS):
        for name, command in chosen.items():
            times[name].append(wall_s(command))
    bare = statistics.median(times["python -c pass"])
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:<28} {median * 1e3:7.1f} ms  {median / bare:5.1f} × bare  (n = {ROUNDS})")


def run_command(server: Metronome, folder: Path, streams: int) -> list[str]:
    fields = {
        "load.concurrency": streams,
        "measure.window_s": 4 if streams > 1 else 1,
        "measure.repeats": 1,
        "measure.warmup_s": 0.5 if streams > 1 else 0.1,
        "measure.min_requests": streams,
        "workload.input_tokens": 32,
        "workload.output_tokens": 64 if streams > 1 else 4,
    }
    words = [word for name, value in fields.items() for word in ("--set", f"{name}={value}")]
    url = f"http://127.0.0.1:{server.port}/v1"
    return [str(PROFILE), "run", "--url", url, "--model", server.model, "-q", "--out", str(folder), *words]


def first_requests(folder: Path) -> None:
    """All processes of the run on one core, the server on another where there is one."""
    probes, loads = [], []
    for _ in range(RUNS):
        with Metronome(Settings(ttft_s=0.01, itl_s=0.001), core=SERVER_CORE) as server:
            began_ns = time.perf_counter_ns()
            with on_core(CLIENT_CORE):
                command = run_command(server, folder, 1)
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            probe_ns, load_ns = server.truth().arrived_ns[:2]  # the list of models is no request to it
            probes.append((probe_ns - began_ns) / 1e9)
            loads.append((load_ns - began_ns) / 1e9)
    for name, found in (("run: asks the server", probes), ("run: first request of load", loads)):
        print(f"{name:<28} {statistics.median(found) * 1e3:7.1f} ms  one core  (n = {RUNS})")


def memory(folder: Path) -> None:
    with Metronome(Settings(ttft_s=0.1, itl_s=0.025, jitter_frac=0.5), core=SERVER_CORE) as server:
        command = run_command(server, folder, 256)
        with on_core(CLIENT_CORE):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with PeakMemory(process.pid) as peak:
            process.wait()
    print(f"{'run of 256 streams':<28} {peak.bytes / 1e6:7.1f} MB  PSS, all processes, most at once")


def main() -> None:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling is no part of an installed command's start
    with tempfile.TemporaryDirectory() as name:
        commands(Path(name) / "sealed")
        first_requests(Path(name) / "runs")
        memory(Path(name) / "runs")


if __name__ == "__main__":
    main()
