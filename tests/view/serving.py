"""``profile view`` as a user starts it, on a copy of the reference runs."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REFERENCE = Path(__file__).resolve().parents[2] / "results" / "reference"


def reference(folder: Path) -> Path:
    """The reference runs, to be spoilt."""
    for run in sorted(REFERENCE.iterdir()):
        if (run / "manifest.json").exists():
            shutil.copytree(run, folder / run.name)
    return folder


@contextmanager
def serving(folder: Path, *words: str, stop: int = signal.SIGINT) -> Iterator[str]:
    """Its address; at the end it was stopped and said nothing that it should not."""
    command = [sys.executable, "-m", "profiler", "view", str(folder), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
        process.send_signal(stop)
        _, said = process.communicate(timeout=10)
        assert "Traceback" not in said
        assert process.returncode == 0, said
    finally:
        process.kill()
        process.wait()
