"""What must be true after every cell, whatever struck: exit code, words, folder, nothing left behind."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from profiler import comparison, store
from profiler.errors import ProfilerError
from tests.harden.nouns import Expect

if TYPE_CHECKING:
    from tests.harden.cell import Live

SHARED_MEMORY = "/dev/shm/"
LISTENING = "0A"
CLOSED_WITHIN_S = 5.0
# Words of a line that tells what went wrong, and of what to do, which may stand in a line of its own.
TELLING = ("error:", "failed:", "interrupted")


class Held:
    """What the processes of a run held when it was struck: ports, files in shared memory."""

    def __init__(self) -> None:
        self.ports: set[int] = set()
        self.shared: set[str] = set()

    def note(self, processes: Iterable[psutil.Process]) -> None:
        for process in processes:
            with suppress(psutil.Error, OSError):
                self.ports |= {
                    each.laddr.port
                    for each in process.net_connections("tcp")
                    if each.status == psutil.CONN_LISTEN
                }
                # Not psutil's memory_maps: it has the kernel count every page, of gigabytes.
                maps = Path(f"/proc/{process.pid}/maps").read_text(errors="replace").splitlines()
                paths = (line[line.find("/") :] for line in maps)
                self.shared |= {path for path in paths if path.startswith(SHARED_MEMORY)}


def left_behind(live: Live) -> list[str]:
    """Ports, shared memory and files that outlived the run, in words."""
    end = time.monotonic() + CLOSED_WITHIN_S
    while (ports := live.held.ports & _listening()) and time.monotonic() < end:
        time.sleep(0.05)
    found = [f"port {port} is still listened on" for port in sorted(ports)]
    found += [f"shared memory {name} stayed" for name in sorted(live.held.shared) if Path(name).exists()]
    found += [f"temporary file {each.name} stayed" for each in live.temp.iterdir()]
    return found + [f"{each} stayed in the results" for each in _litter(live)]


def _listening() -> set[int]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING:
                    found.add(int(fields[1].rpartition(":")[2], 16))
    return found


def _litter(live: Live) -> list[str]:
    """Files in the results that belong to no run: half written ones, and those of a window under way."""
    if not live.out.is_dir():
        return []
    names = sorted(str(each.relative_to(live.out)) for each in live.out.rglob("*") if each.is_file())
    odd = [name for name in names if Path(name).name.startswith(".") or name.endswith(".raw")]
    return [
        name for name in odd if not any(fnmatch(Path(name).name, each) for each in live.case.expect.litter)
    ]


def looked_over(live: Live, code: int | None) -> Iterator[str]:
    """What is not as it must be, in words."""
    expect = live.case.expect
    codes = expect.code if isinstance(expect.code, tuple) else (expect.code,)
    if code not in codes:
        yield f"exit code {code}, not {' or '.join(map(str, codes))}"
    yield from _words_are_right(live, code)
    yield from _folder_is_right(live, expect)


def _words_are_right(live: Live, code: int | None) -> Iterator[str]:
    events = list(live.events)
    reasons = [str(each.get("reason")) for each in events if each["event"] == "failed"]
    said = "\n".join(live.lines + reasons)
    if "Traceback" in said or "Traceback" in live.stdout:
        yield f"a traceback was printed: {said[-600:]}"
    if live.case.expect.says is not None and not re.search(live.case.expect.says, said):
        yield f"did not say {live.case.expect.says!r}: {said[-500:]!r}"
    errors = sum(line.startswith("error:") for line in live.lines)
    if errors != (1 if code in (2, 4) else 0):
        yield f"{errors} lines begin with error: at exit code {code}"
    if events and live.case.expect.last_event and events[-1]["event"] not in ("sealed", "failed"):
        yield f"the events end with {events[-1]['event']}"


def _folder_is_right(live: Live, expect: Expect) -> Iterator[str]:
    found = live.run_folders()
    if expect.status is None:
        if found:
            yield f"left {', '.join(each.name for each in found)}"
        return
    if len(found) != 1:
        yield f"{len(found)} run folders, not one"
        return
    run = store.load(found[0])
    is_sealed = (found[0] / store.MANIFEST).exists()
    wanted = expect.status if isinstance(expect.status, tuple) else (expect.status,)
    if run.manifest.status not in wanted or is_sealed != (run.manifest.status == "complete"):
        yield f"the folder is {run.manifest.status}{', sealed' * is_sealed}, not {' or '.join(wanted)}"
    if len(run.manifest.windows) < expect.windows:
        yield f"{len(run.manifest.windows)} finished windows kept, not {expect.windows}"
    yield from (str(each) for each in store.faults(found[0]))
    yield from _requests_are_right(run, expect)
    try:
        comparison.rows([run])
    except ProfilerError as error:
        if run.manifest.windows:
            yield f"profile compare cannot read it: {error}"


def _requests_are_right(run: store.RunResult, expect: Expect) -> Iterator[str]:
    rows = run.requests.to_pylist()
    for window in run.manifest.windows:
        if not any(row["window"] == window.index for row in rows):
            yield f"window {window.index} counts as finished and has no requests"
    nameless = sum(row["outcome"] not in ("ok", "cancelled") and not row["error"] for row in rows)
    if nameless:
        yield f"{nameless} failed requests have no error"
    ended = {row["outcome"] for row in rows}
    if expect.outcomes is not None and ended - {"ok", "cancelled"} != expect.outcomes:
        yield f"requests ended with {sorted(ended)}, not {sorted(expect.outcomes)}"


def telling(live: Live) -> str:
    """The line that told the user what happened, without what is different each time."""
    lines = [line for line in live.lines if line.startswith(TELLING)]
    line = (lines or live.lines or [""])[-1]
    return line.replace(str(live.folder), "FOLDER")


def kept(live: Live) -> str:
    """What the results hold, in words."""
    found = []
    for folder in live.run_folders():
        try:
            run = store.load(folder)
            status, windows, requests = (
                run.manifest.status,
                len(run.manifest.windows),
                run.requests.num_rows,
            )
        except ProfilerError as error:
            found.append(f"unreadable: {error}")
            continue
        found.append(
            f"{status}, {windows} window{'s' * (windows != 1)}, {requests} request{'s' * (requests != 1)}"
        )
    return "; ".join(found) or "nothing was measured"
