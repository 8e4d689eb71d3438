"""An observer beside a soak: once a second what every process below another holds, a line each.

``python -m tests.harden.soak_watch PID FILE FOLDER...`` ends when its stdin closes.  A line is a JSON list:
time (ns of the monotonic clock that windows are timed by), pid, role, resident bytes, open descriptors,
threads, proportional set size and bytes of unlinked files held open (both every ``DEEP_EVERY`` looks, else
null).  A line whose pid is 0 tells the bytes below a folder (its role), or the load average in hundredths
(``load``).
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from profiler import procfs

EVERY_S, DEEP_EVERY = 1.0, 10
ROLES = {
    "profiler": "driver",
    "profiler.loadgen.child": "load process",
    "profiler.telemetry.sampler": "sampler",
    "profiler.engines.metronome": "metronome",
    "profiler.engines.simulated": "simulated engine",
}
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    root, path, *homes = sys.argv[1:]
    due_s = time.monotonic()
    with Path(path).open("a", buffering=1) as file:
        for number in range(1 << 30):
            _look(int(root), file, homes if number % DEEP_EVERY == 0 else None)
            due_s += EVERY_S
            left_s = max(0.0, due_s - time.monotonic())
            if select.select([sys.stdin], [], [], left_s)[0]:
                return


def _look(root: int, file: TextIO, homes: list[str] | None) -> None:
    lines = [_line(pid, role, homes is not None) for pid, role in below(root)]
    now_ns = time.perf_counter_ns()
    lines.append([now_ns, 0, "load", round(os.getloadavg()[0] * 100), 0, 0, None, None])
    for home in homes or ():
        lines.append([now_ns, 0, home, _folder_bytes(home), 0, 0, None, None])
    file.write("".join(json.dumps(line) + "\n" for line in lines if line))


def below(root: int) -> Iterator[tuple[int, str]]:
    """Every process of the profiler's below ``root``, with what it is."""
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        try:
            threads = os.listdir(f"/proc/{pid}/task")
            for thread in threads:
                text = Path(f"/proc/{pid}/task/{thread}/children").read_text()
                waiting += map(int, text.split())
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        except (OSError, ValueError):
            continue  # it has ended
        if pid != root and (role := _role(words)):
            yield pid, role


def _role(words: list[str]) -> str | None:
    if words[1:2] == ["-m"] and len(words) > 2:
        return ROLES.get(words[2])
    return "supervisor" if len(words) > 2 and words[2].endswith("/supervise.py") else None


def _line(pid: int, role: str, is_deep: bool) -> list[Any] | None:
    try:
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
        files, threads = len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))
        deep = [procfs.pss_bytes(pid), _unlinked_bytes(pid)] if is_deep else [None, None]
    except OSError:
        return None
    return [time.perf_counter_ns(), pid, role, resident, files, threads, *deep]


def _unlinked_bytes(pid: int) -> int:
    """What a process keeps on disk under no name: the raw answers of a window under way."""
    found = 0
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{descriptor}").endswith(" (deleted)"):
                found += os.stat(f"/proc/{pid}/fd/{descriptor}").st_blocks * 512
        except OSError:
            continue
    return found


def _folder_bytes(home: str) -> int:
    found = 0
    for folder, _, names in os.walk(home):
        for name in names:
            try:
                found += os.lstat(os.path.join(folder, name)).st_size
            except OSError:
                continue
    return found


if __name__ == "__main__":
    main()
