"""``profile report`` in a process of its own, and what it took.

Its highest memory is the kernel's VmHWM, which begins anew with a program; ``ru_maxrss`` of a process counts
what its parent had when it was forked, which is more than a gibibyte late in these tests.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

BUILD = """
import sys, time
begun = time.perf_counter()
from profiler.__main__ import main
sys.argv = ["profile", "report", *sys.argv[1:]]
try:
    main()
except SystemExit as done:
    assert not done.code, done.code
(kib,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(time.perf_counter() - begun, kib)
"""


class Taken(NamedTuple):
    seconds: float
    kib: int


def report(runs: Path, output: Path) -> Taken:
    command = [sys.executable, "-c", BUILD, str(runs), "-o", str(output)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, kib = done.stdout.splitlines()[-1].split()
    return Taken(float(seconds), int(kib))
