"""Rows of the disk: full, read-only, gone; and of the other things of a machine that run out."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from tests.harden.cell import Live
from tests.harden.nouns import PHASES, Case, Expect, Fault, Phase, Status
from tests.harden.rows_user import WINDOWS

SMALL_BYTES = 96 << 20  # of which a run wants 64 MiB to be free
PIDS = Path("/sys/fs/cgroup/pids")
# Long answers: a window that fills a disk before it is over.
HEAVY = ("--set", "workload.output_tokens=90", "--set", "engine.args.itl_s=0.001")


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def no_mounts() -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            _run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder)
        except (OSError, subprocess.CalledProcessError):
            return "no file system may be mounted here"
        _run("umount", folder)
    return None


def small(live: Live) -> None:
    """The results are a file system of their own."""
    _mounted(live, live.out, f"size={SMALL_BYTES}")


def _mounted(live: Live, at: Path, options: str) -> None:
    at.mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(at))
    live.on_close(lambda: _run("umount", "--lazy", str(at)))


def fill(folder: Path) -> None:
    with suppress(OSError), (folder / "neighbour").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    with suppress(OSError), (folder / "neighbour").open("ab", buffering=0) as file:
        while True:
            file.write(b"\0")


def make_room(live: Live) -> None:
    (live.out / "neighbour").unlink()


def _frozen(live: Live, sign: str = "+") -> None:
    """Nothing may be made, changed or removed in the results (``-``: it may again); what is open stays so."""
    _run("chattr", "-R", f"{sign}i", str(live.out))


def _thawed(live: Live) -> None:
    _frozen(live, "-")


def _no_attributes() -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            _run("chattr", "+i", folder)
        except (OSError, subprocess.CalledProcessError):
            return "files cannot be protected from their owner here (chattr)"
        _run("chattr", "-i", folder)
    return None


def _failed(phase: Phase, says: str, status: Status | tuple[Status, ...] = ("failed", "running")) -> Expect:
    """That it failed is written into the folder only where there is room for it."""
    return Expect(
        code=4,
        says=says,
        status=status,
        windows=WINDOWS[phase],
        within_s=60,
        resumes=phase in ("window", "shutdown"),
        litter=("*",),
    )


def _everywhere(case: Callable[[Phase], Case]) -> dict[Phase, Case | str]:
    return {phase: case(phase) for phase in PHASES}


def _in(phases: tuple[Phase, ...], case: Callable[[Phase], Case], why_not: str) -> dict[Phase, Case | str]:
    return {phase: case(phase) if phase in phases else why_not for phase in PHASES}


# ------------------------------------------------------------------------------ full, read-only


def _full(phase: Phase) -> Case:
    return Case(
        words=HEAVY,
        prepare=small,
        strike=lambda live: fill(live.out),
        mend=make_room,
        expect=_failed(phase, "No space left on device"),
    )


def _too_small_a_limit(phase: Phase) -> Case:
    """A quota of a kind: no file may grow beyond this."""

    def strike(live: Live) -> None:
        for each in live.marked():
            with suppress(psutil.Error, OSError):
                resource.prlimit(each.pid, resource.RLIMIT_FSIZE, (2_000, resource.RLIM_INFINITY))

    return Case(words=HEAVY, strike=strike, expect=_failed(phase, "File too large"))


def _read_only(phase: Phase) -> Case:
    def strike(live: Live) -> None:
        live.on_close(lambda: _thawed(live))
        _frozen(live)

    return Case(
        strike=strike,
        mend=_thawed,
        expect=_failed(phase, "Operation not permitted"),
    )


def _read_only_before(live: Live) -> None:
    small(live)
    _run("mount", "-o", "remount,ro", str(live.out))


def _full_before(live: Live) -> None:
    small(live)
    fill(live.out)


def _not_ours(live: Live) -> None:
    """A file where the results are to be."""
    live.out.write_text("")


def _refused(says: str) -> Expect:
    return Expect(code=2, says=says, status=None, within_s=20, last_event=False)


# ------------------------------------------------------------------------------ gone


def _deleted(live: Live) -> None:
    shutil.rmtree(live.out)


def _moved(live: Live) -> None:
    (live.folder / "elsewhere").mkdir()
    for each in live.run_folders():
        each.rename(live.folder / "elsewhere" / each.name)


def _is_safe_elsewhere(phase: Phase) -> Callable[[Live], None]:
    def look(live: Live) -> None:
        from profiler import store

        (moved,) = (live.folder / "elsewhere").iterdir()
        run = store.load(moved)
        assert len(run.manifest.windows) >= WINDOWS[phase], "the moved folder lost windows"

    return look


def _temp_missing(live: Live) -> None:
    live.env["TMPDIR"] = str(live.folder / "not-here")


def _temp_full(live: Live) -> None:
    _mounted(live, live.temp, "nr_inodes=1")


# ------------------------------------------------------------------------------ files, processes


def _few_files(live: Live) -> None:
    """No process of the run may open another file."""
    for each in live.marked():
        with suppress(psutil.Error, OSError):
            resource.prlimit(each.pid, resource.RLIMIT_NOFILE, (4, 4096))


def _no_more_processes(live: Live) -> None:
    """A control group that holds as many as there are."""
    group = PIDS / f"harden-{live.mark[:8]}"
    group.mkdir()
    live.on_close(lambda: _leave(group))
    for each in live.marked():
        with suppress(OSError):
            (group / "cgroup.procs").write_text(f"{each.pid}")
    (group / "pids.max").write_text((group / "pids.current").read_text())


def _leave(group: Path) -> None:
    for pid in (group / "cgroup.procs").read_text().split():
        with suppress(OSError):
            (PIDS / "cgroup.procs").write_text(pid)
    with suppress(OSError):
        group.rmdir()


def _no_groups() -> str | None:
    return None if os.access(PIDS, os.W_OK) else "no control group of processes may be made here"


def _disk(
    name: str,
    does: str,
    cases: dict[Phase, Case | str],
    needs: Callable[[], str | None] = lambda: None,
) -> Fault:
    return Fault(name=name, group="disk", does=does, cases=cases, needs=needs)


FROM_THE_BEGINNING = "it is found before anything is started"
ROWS = [
    _disk("disk full", "another program takes all that is left", _everywhere(_full), no_mounts),
    _disk(
        "disk full before",
        "as above, before the run is begun",
        _in(
            ("start",),
            lambda _: Case(
                prepare=_full_before, expect=_refused("error: cannot write to .*No space left.*--out")
            ),
            FROM_THE_BEGINNING,
        ),
        no_mounts,
    ),
    _disk(
        "files may grow no more", "a limit on the size of files (ulimit -f)", _everywhere(_too_small_a_limit)
    ),
    _disk(
        "results read-only",
        "the folder of results may be written to no more",
        _everywhere(_read_only),
        _no_attributes,
    ),
    _disk(
        "results read-only before",
        "as above, before the run is begun",
        _in(
            ("start",),
            lambda _: Case(prepare=_read_only_before, expect=_refused("error: cannot write to .*--out")),
            FROM_THE_BEGINNING,
        ),
        no_mounts,
    ),
    _disk(
        "results are a file",
        "something of that name is there",
        _in(
            ("start",),
            lambda _: Case(prepare=_not_ours, expect=_refused("error: cannot write to .*--out")),
            FROM_THE_BEGINNING,
        ),
    ),
    _disk(
        "results deleted",
        "rm -r of the folder of results",
        _everywhere(
            lambda _: Case(
                strike=_deleted,
                expect=Expect(code=4, says=r"error: .*results/\S+.*(gone|No such file)", status=None),
            )
        ),
    ),
    _disk(
        "run folder moved",
        "mv of the run folder to another place",
        _everywhere(
            lambda phase: Case(
                strike=_moved,
                look=_is_safe_elsewhere(phase),
                expect=Expect(code=4, says=r"error: .*results/\S+.*(gone|No such file)", status=None),
            )
        ),
    ),
    _disk(
        "TMPDIR missing",
        "the folder for temporary files is not there",
        _in(
            ("start",),
            lambda _: Case(
                prepare=_temp_missing, expect=Expect(code=0, says=None, status="complete", windows=2)
            ),
            "it holds from the beginning on, through all phases of the one run",
        ),
    ),
    _disk(
        "TMPDIR full",
        "no room for temporary files",
        _in(
            ("start",),
            lambda _: Case(
                prepare=_temp_full, expect=Expect(code=0, says=None, status="complete", windows=2)
            ),
            "it holds from the beginning on, through all phases of the one run",
        ),
        no_mounts,
    ),
    _disk(
        "too many open files",
        "no process may open one more (ulimit -n)",
        _everywhere(
            lambda phase: Case(
                strike=_few_files,
                expect=_failed(phase, "Too many open files"),
            )
        ),
    ),
    _disk(
        "no more processes",
        "a control group that is full (as of a container)",
        {
            "start": Case(
                strike=_no_more_processes,
                expect=_failed(
                    "start", r"may start no more processes or threads|ended while starting \(exit -6\)"
                ),
            ),
            "window": Case(
                strike=_no_more_processes,
                expect=Expect(code=0, says=None, status="complete", windows=2, outcomes=frozenset()),
            ),
            **dict.fromkeys(("warm-up", "shutdown"), "as in a window: nothing is started then"),
        },
        _no_groups,
    ),
]
