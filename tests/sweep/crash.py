"""Kills a sweep at every change it makes to the disk, goes on with it and kills that too, goes on again, and
says what came of it.

    python -m tests.sweep.crash FOLDER [STRIDE]

STRIDE 7 takes every seventh change.  The engine is one that takes no time; the first start of all fails once,
the second is disturbed once.  What is killed and what goes on are processes of their own, forked from one
that has imported everything.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from profiler import figures, store
from profiler.errors import EngineError
from profiler.progress import Quiet
from profiler.sweep import ledger, one
from profiler.sweep.session import planned
from tests.sweep import few
from tests.trials.fake import Engine

MODELS, LOADS = ("test/quick", "test/slow"), (1, 2)
CHANGES = ("os.rename", "os.mkdir", "os.remove")


def hold(file: Path, out: Path) -> None:
    """The whole sweep; ``out`` remembers what failed and what was disturbed."""
    engine = Engine(2.0)

    def is_first(what: str) -> bool:
        memory = out.with_suffix(f".{what}")
        is_new = not memory.exists()
        memory.touch()
        return is_new

    def execute(plan, show, worker=None, engines=None) -> list[Path]:
        def before(_: int) -> None:
            if is_first("failed"):
                raise EngineError("the first one always fails")

        engine.before = before
        return engine(plan, show)

    one.execute = execute
    figures.disturbed = lambda found: "by the test" if is_first("disturbed") else None
    with planned(few.request(file, out)) as session:
        session.hold(Quiet(), lambda news, record: None)


def forked(act: Callable[[], None]) -> int:
    """How the process ended."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(file: Path, out: Path, change: int) -> bool:
    """Whether the sweep was killed right before its ``change``-th change of the disk; False where it has no
    such: it ended."""

    def act() -> None:
        left = change

        def hook(event: str, words: tuple) -> None:
            nonlocal left
            if event in CHANGES and str(out) in str(words[0]):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        hold(file, out)

    code = forked(act)
    assert code in (0, -signal.SIGKILL), f"{change}: {code}"
    return code != 0


def sealed(out: Path) -> set[str]:
    return {name for name in store.within(out) if (out / name / store.MANIFEST).exists()}


def wrong(file: Path, out: Path, change: int) -> str | None:
    """What is not as it should be after the kill, one go that is killed as well, and one more."""
    finished = sealed(out)
    killed_at(file, out, 5 * change % 17)
    finished |= sealed(out)
    if forked(lambda: hold(file, out)):
        return f"{change}: did not go on"
    record = few.record(out)
    counted = {run for each in record.attempts if each.outcome == "held" for run in each.runs}
    aside = {each.name for each in (out / ledger.aside_of("few")).glob("*")}
    if few.cells(out) != few.whole(MODELS, LOADS, 1):
        return f"{change}: {few.cells(out)}"
    if {*store.within(out)} != counted or record.under_way:
        return f"{change}: the record has {counted}, the folder {store.within(out)}, {record.under_way}"
    if len(finished - counted) > 1 or not finished - counted <= aside:  # the one that is to be disturbed
        return f"{change}: lost {finished - counted}"
    return None


def main(folder: Path, stride: int) -> None:
    file = few.write(folder, MODELS, LOADS, starts=1)
    hold(file, folder / "warm")  # so that all is imported
    faults: list[str] = []
    change = 0
    while killed_at(file, out := folder / f"out{change}", change):
        if fault := wrong(file, out, change):
            faults.append(fault)
        change += stride
    print(json.dumps({"changes": change, "faults": faults}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
