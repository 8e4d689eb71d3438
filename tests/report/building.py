"""``profile report`` in a process of its own, and what it took: a parent's figures of its children are those
of all of them together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

BUILD = """
import resource, sys, time
begun = time.perf_counter()
from profiler.__main__ import main
sys.argv = ["profile", "report", *sys.argv[1:]]
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
print(time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


class Taken(NamedTuple):
    """Linux counts the highest resident memory in KiB."""

    seconds: float
    kib: int


def report(runs: Path, output: Path) -> Taken:
    command = [sys.executable, "-c", BUILD, str(runs), "-o", str(output)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, kib = done.stdout.splitlines()[-1].split()
    return Taken(float(seconds), int(kib))
