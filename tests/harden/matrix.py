"""All rows, run: some cells at a time, and beside them those of the real vLLM one after another.

The record (docs/reliability/matrix.json)::

    {"command": …, "utc": of the oldest cell, "commit": …, "machine": {"cores": …, "python": …}, "took_s": …,
     "rows": [{"name", "group", "does", "cells": {phase: "why there is none" | Result as JSON}}]}
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pkgutil
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import tests.harden
from tests.harden.cell import try_out
from tests.harden.nouns import PHASES, Case, Fault, Phase, Result

RECORDS = Path(__file__).parents[2] / "docs" / "reliability"
RECORD = RECORDS / "matrix.json"
COMMAND = "make harden"


class Cell(NamedTuple):
    row: Fault
    phase: Phase

    @property
    def name(self) -> str:
        return f"{self.row.name} · {self.phase}"

    @property
    def case(self) -> Case:
        case = self.row.cases[self.phase]
        assert isinstance(case, Case)
        return case


def rows() -> list[Fault]:
    """The rows of every module here that is called ``rows_…``, each with a word on every phase."""
    names = sorted(each.name for each in pkgutil.iter_modules(tests.harden.__path__))
    modules = [importlib.import_module(f"tests.harden.{name}") for name in names if name.startswith("rows_")]
    found = [row for module in modules for row in module.ROWS]
    for row in found:
        assert set(row.cases) == set(PHASES), f"{row.name}: a case, or why there is none, for each phase"
    assert len({row.name for row in found}) == len(found), "two rows of one name"
    return found


def cells(of: Iterable[Fault], words: Sequence[str] = ()) -> list[Cell]:
    """The cells that can be run; with words those whose name holds one of them."""
    every = [Cell(row, phase) for row in of for phase in PHASES if isinstance(row.cases[phase], Case)]
    return [cell for cell in every if not words or any(word.lower() in cell.name.lower() for word in words)]


def run_all(wanted: Sequence[Cell], jobs: int, tell: Callable[[Cell, Result], None]) -> list[Result]:
    """What came of each, in their order.

    Each job is a process: where one interpreter looked after all, a strike waited for what another cell had
    just to read, and came when its window was over.  What shares the real vLLM stays here, one at a time.
    """
    came: dict[str, Result] = {}

    def note(cell: Cell, result: Result) -> None:
        came[cell.name] = result
        tell(cell, result)

    alone, queued = ([cell for cell in wanted if cell.case.queues is queues] for queues in (False, True))
    fork = multiprocessing.get_context("fork")  # cells are closures, which are inherited and not sent
    with ProcessPoolExecutor(jobs, fork, _TO_TRY.extend, (alone,)) as pool, ThreadPoolExecutor(1) as queue:
        begun: dict[Future[Result], Cell] = {
            pool.submit(_inherited, place): cell for place, cell in enumerate(alone)
        }
        begun |= {queue.submit(_one, cell): cell for cell in queued}
        for future in as_completed(begun):
            note(begun[future], future.result())
    return [came[cell.name] for cell in wanted]


_TO_TRY: list[Cell] = []


def _inherited(place: int) -> Result:
    return _one(_TO_TRY[place])


def _one(cell: Cell) -> Result:
    why_not = cell.row.needs()
    if why_not:
        return Result(fault=cell.row.name, phase=cell.phase, skipped=why_not)
    with tempfile.TemporaryDirectory(prefix="harden-", ignore_cleanup_errors=True) as folder:
        try:
            came = try_out(cell.row.name, cell.phase, cell.case, Path(folder))
            return msgspec.structs.replace(came, utc=_utc())
        except Exception as error:
            text = f"the harness itself failed: {type(error).__name__}: {error}"
            return Result(fault=cell.row.name, phase=cell.phase, failures=(text,))


def record(of: Sequence[Fault], results: Sequence[Result], took_s: float) -> dict[str, Any]:
    """The record of a full run."""
    came = {(each.fault, each.phase): msgspec.to_builtins(each) for each in results}
    listed = [
        {
            "name": row.name,
            "group": row.group,
            "does": row.does,
            "cells": {
                phase: came.get((row.name, phase)) if isinstance(case, Case) else case
                for phase, case in ((phase, row.cases[phase]) for phase in PHASES)
            },
        }
        for row in of
    ]
    return {
        "command": COMMAND,
        "utc": min((each.utc for each in results if each.utc), default=_utc()),
        "commit": _commit(),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version()},
        "took_s": round(took_s),
        "rows": listed,
    }


def _utc() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _commit() -> str:
    asked = ["git", "log", "-1", "--format=%h of %cs"]
    return subprocess.run(
        asked, check=True, capture_output=True, text=True, cwd=RECORDS.parent
    ).stdout.strip()


def write(name: str, document: dict[str, Any]) -> None:
    """A record into the folder of records."""
    RECORDS.mkdir(exist_ok=True)
    (RECORDS / name).write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")


def table(of: Sequence[Fault], results: Sequence[Result]) -> Iterator[str]:
    """A line a fault, a mark a phase; below what failed and what was not tried, and why."""
    came = {(each.fault, each.phase): each for each in results}
    shown = [row for row in of if any((row.name, phase) in came for phase in PHASES)]
    wide = max((len(row.name) for row in shown), default=5)
    yield f"{'fault':{wide}}  {'  '.join(f'{phase:8}' for phase in PHASES)}"
    for row in shown:
        marks = (mark(came.get((row.name, phase))) for phase in PHASES)
        yield f"{row.name:{wide}}  {'  '.join(f'{each:8}' for each in marks)}".rstrip()
    for each in results:
        for failure in each.failures:
            yield f"✗ {each.fault} · {each.phase}: {failure}"
    for why in dict.fromkeys(
        f"{each.fault}: not tried here: {each.skipped}" for each in results if each.skipped
    ):
        yield f"– {why}"


def mark(result: Result | None) -> str:
    if result is None or result.skipped is not None:
        return "–"
    return f"{'✓' if result.passed else '✗'} {'' if result.code is None else result.code}".strip()


def tell_progress(total: int) -> Callable[[Cell, Result], None]:
    """Prints a line a cell as it ends."""
    done = 0

    def tell(cell: Cell, result: Result) -> None:
        nonlocal done
        done += 1
        took = "" if result.took_s is None else f"  {result.took_s:.1f} s"
        _print(f"[{done}/{total}] {mark(result)}  {cell.name}{took}")
        for failure in result.failures:
            _print(f"      {failure}")

    return tell


def main(words: Sequence[str], jobs: int, again: bool = False) -> int:
    """1 when a row failed.  ``again``: only the cells of which the record does not say that they passed."""
    began_s, every = time.monotonic(), rows()
    old = _recorded(every) if again else {}
    wanted = [cell for cell in cells(every, words) if cell.name not in old]
    spent_s = _spent_s() if again else 0.0
    came = dict(old)
    tell_on = tell_progress(len(wanted))

    def tell(cell: Cell, result: Result) -> None:
        tell_on(cell, result)
        came[cell.name] = result
        if not words:  # a run that is cut short keeps what it has
            write(RECORD.name, record(every, list(came.values()), spent_s + time.monotonic() - began_s))

    run_all(wanted, jobs, tell)
    results = [came[cell.name] for cell in cells(every, words) if cell.name in came]
    for line in table(every, results):
        _print(line)
    failed = [each for each in results if each.failures]
    tried = [each for each in results if each.skipped is None]
    _print(f"{len(tried)} cells, {len(failed)} failed; {time.monotonic() - began_s:.0f} s")
    return 1 if failed else 0


def _recorded(of: Sequence[Fault]) -> dict[str, Result]:
    """What has passed by the record, of the cells there are."""
    if not RECORD.is_file():
        return {}
    found = msgspec.json.decode(RECORD.read_bytes())
    came = [
        msgspec.convert(cell, Result)
        for row in found["rows"]
        for cell in row["cells"].values()
        if isinstance(cell, dict)
    ]
    declared = {cell.name for cell in cells(of)}
    named = {f"{each.fault} · {each.phase}": each for each in came if each.passed}
    return {name: each for name, each in named.items() if name in declared}


def _spent_s() -> float:
    return float(msgspec.json.decode(RECORD.read_bytes())["took_s"]) if RECORD.is_file() else 0.0


def _print(text: str) -> None:
    print(text, file=sys.stdout, flush=True)
