"""``profile compare`` over many sealed runs, the index once made: wall time and peak memory, a process each.

    .venv/bin/python benchmarks/compare.py [--runs 10000] [--loads 1] [--folder FOLDER]

Aims, 10,000 runs of one load: each of these within 2 s and 500 MiB.  The runs are one small sealed run under
other names and prices; their tables are links to its own, so that they take little room.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from profiler import integrity, store
from profiler.schema import LoadPoint, Model, Price
from tests import make

ROOT = Path(__file__).resolve().parent.parent
PROFILE = [sys.executable, "-m", "profiler"]
ROUNDS = 3
COMMANDS = {
    "table": [],
    "table, one model": ["--where", "model=model-3", "--sort", "-usd_per_m_output_tokens"],
    "--by model": ["--by", "model"],
    "--by model --baseline": ["--by", "model", "--baseline", "model-0"],
    "csv": ["--format", "csv"],
    "json": ["--format", "json"],
}


def seed(folder: Path, loads: int) -> Path:
    """One sealed run, three repeats of each load."""
    windows = [
        make.steady(number, 10.0 + 30 * number, point=LoadPoint(mode="closed", concurrency=1 + number // 3))
        for number in range(3 * loads)
    ]
    price = Price(usd_per_hour=2.0, per="machine", source="made up", date="2026-01-02")
    run = make.writer(folder, windows, run_id="seed", price=price)
    run.seal()
    return run.folder


def copies(original: Path, out: Path, number: int) -> None:
    """So many runs of 25 models, none quite like another."""
    manifest = store.load(original).manifest
    for n in range(number):
        folder = out / f"run-{n:05d}"
        folder.mkdir(parents=True)
        changed = msgspec.structs.replace(
            manifest,
            run_id=folder.name,
            unix_ns=n,
            model=Model(name=f"model-{n % 25}", weights="random", facts=make.FACTS),
            price=msgspec.structs.replace(manifest.price, usd_per_hour=1 + n / number),
        )
        (folder / store.MANIFEST).write_bytes(msgspec.json.encode(integrity.signed(changed)))
        for name in (store.REQUESTS, store.TELEMETRY):
            os.link(original / name, folder / name)


def measured(arguments: list[str]) -> tuple[float, float]:
    """Wall time (s) and peak memory (MiB) of one command."""
    begin = time.perf_counter()
    process = subprocess.Popen([*PROFILE, "compare", *arguments], stdout=subprocess.DEVNULL, cwd=ROOT)
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - begin
    assert status == 0, arguments
    return wall_s, used.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--loads", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the runs are made, or left from before")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = given.folder or Path(scratch) / "runs"
        if not out.exists():
            copies(seed(out.parent, given.loads), out, given.runs)
        wall_s, peak_mib = measured([str(out)])
        print(f"{'first, makes the index':<24} {wall_s:7.2f} s {peak_mib:6.0f} MiB")
        for name, options in COMMANDS.items():
            found = [measured([str(out), *options]) for _ in range(ROUNDS)]
            wall_s, peak_mib = min(wall for wall, _ in found), max(peak for _, peak in found)
            print(f"{name:<24} {wall_s:7.2f} s {peak_mib:6.0f} MiB")


if __name__ == "__main__":
    main()
