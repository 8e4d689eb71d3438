"""What a start left on its node: what counts of it comes home, and what does not goes aside, whatever became
of the actor that held it.  All of this runs on the node."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from profiler import store
from profiler.errors import DamagedError
from profiler.storage import open_home
from profiler.storage.local import grouped
from profiler.sweep import ledger, one
from profiler.sweep.nouns import Attempt, UnderWay
from profiler.sweep.remote_files import is_written, scratch

LET_GO_S = 30.0
# Of every process that a start begins: the group of its runs.
GROUP_VARIABLE = "PROFILE_SWEEP_GROUP"


def left_of(folder: str, sweep: str, noted: Sequence[UnderWay], why: str, home: str | None) -> list[str]:
    """The runs of these starts in the sweep's scratch ``folder``, once nothing of them runs any more; where
    loads were finished before ``why`` broke them off, they are sealed with these.  Where the ``home`` is
    shared they are brought there, or aside, and none is named."""
    out, groups = scratch(folder), {each.group for each in noted}
    _wait_for_end(out, groups)
    names = []
    for each in noted:
        runs = one.salvaged(each, grouped(out, [each.group]), why)
        for run in runs:
            if run.is_sealed and run.folder is not None:
                with suppress(DamagedError):  # it is said where the run is brought
                    store.tidy(run.folder)
        if home is not None:
            bring(out, sweep, home, one.judged(each, runs, why))
        else:
            names += [run.name for run in runs]
    return names


def bring(out: Path, sweep: str, home: str, attempts: Iterable[Attempt]) -> None:
    """Into the shared home, from this machine."""
    place = open_home(home)
    for each in attempts:
        for run in (run for run in each.runs if (out / run).is_dir()):
            if each.outcome == "held":
                place.take_in(out / run)
            else:
                place.scratch.mkdir(parents=True, exist_ok=True)
                shutil.move(out / run, place.scratch / run)
                place.put_aside([run], ledger.aside_of(sweep))


def _wait_for_end(out: Path, groups: Collection[str]) -> None:
    """An engine outlives a killed actor by the time it is given to end; who came next would have it for a
    neighbour."""
    deadline_s = time.monotonic() + LET_GO_S
    while (_is_running(groups) or _is_being_written(out)) and time.monotonic() < deadline_s:
        time.sleep(0.2)


def _is_being_written(out: Path) -> bool:
    return any(is_written(out / run) for run in store.within(out))


def _is_running(groups: Collection[str]) -> bool:
    """Whether a process that one of these starts began is still there."""
    marks = {f"{GROUP_VARIABLE}={group}".encode() for group in groups}
    return any(not marks.isdisjoint(_environment(pid)) for pid in os.listdir("/proc") if pid.isdigit())


def _environment(pid: str) -> list[bytes]:
    """Nothing of a process that is somebody else's, or gone."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
