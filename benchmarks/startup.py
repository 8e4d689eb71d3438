"""Wall time of the command line beside the bare interpreter, interleaved; medians over rounds.

    .venv/bin/python benchmarks/startup.py

Aim: ``profile --help`` within 2.5 × ``python -c pass``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 15
ROOT = Path(__file__).resolve().parent.parent
PROFILE = Path(sys.executable).parent / "profile"


def wall_s(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def three_runs(folder: Path) -> list[str]:
    sys.path.insert(0, str(ROOT))
    from tests import make

    names = []
    for number in range(3):
        run = make.writer(folder, [make.steady(r, 10.0 + 30 * r) for r in range(9)], run_id=f"run{number}")
        run.seal()
        names.append(str(run.folder))
    return names


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        runs = three_runs(Path(folder))
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            'python -c "import pandas"': [sys.executable, "-c", "import pandas"],
            "profile --help": [str(PROFILE), "--help"],
            "profile run --help": [str(PROFILE), "run", "--help"],
            "profile compare, 3 runs": [str(PROFILE), "compare", *runs],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(ROUNDS):
            for name, command in commands.items():
                times[name].append(wall_s(command))
    bare = statistics.median(times["python -c pass"])
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:<28} {median * 1e3:7.1f} ms  {median / bare:5.1f} × bare  (n = {ROUNDS})")


if __name__ == "__main__":
    main()
