"""docs/reliability.md, made of the records in docs/reliability/ and of nothing else.

``python -m tests.harden.page`` writes it anew.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from collections.abc import Iterator
from typing import Any

from tests.harden import matrix
from tests.harden.nouns import PHASES

PAGE = matrix.RECORDS.parent / "reliability.md"
# Sections after the matrix: the record, the module whose ``lines(record)`` words it, and the command.
SECTIONS = (
    ("kill.json", "tests.harden.kill", "Killed at any moment", "make harden"),
    ("fuzz.json", "tests.fuzz.page", "Fuzzing", "make fuzz"),
    ("soak.json", "tests.harden.soak", "An hour under load", "make soak"),
    ("compat.json", "tests.compat.page", "Versions", "make compat"),
)
INTRODUCTION = """\
# Reliability

What becomes of a measurement on a bad day. This page is made by `make harden` and the commands named
below from their records in `docs/reliability/`; a test holds that it says what they say.

What is promised, whatever goes wrong:

* **It ends, and says how.** Bounded time from the blow to the end, an exit code (0 done, 1 too many
  requests failed, 2 bad input, 4 the measurement failed, 130 interrupted), one line that says what
  happened and where; no traceback.
* **A failed request is data.** It has a named outcome, counts against `--max-failed`, and is never an
  answer.
* **Nothing finished is lost.** *Kept* below is what the run folder holds afterwards: its status, the
  finished windows, and the requests that can be read, those of a window that was cut short included.
  `profile compare` reads it; `profile resume` goes on from there.
* **No folder looks complete that is not.** `manifest.json` comes last and holds checksums of all else.
* **Nothing stays behind.** No process, no port, no temporary file, no shared memory, no half-written
  file.

Each cell of the tables is a real `profile run` of its own (the simulated engine, two loads of one window
each, if nothing else is said), struck in one phase of its life:

* **start**: the engine's process is coming up, or an endpoint is asked for the first time;
* **warm-up**: requests flow, the window is not open yet;
* **window**: the last window is open, the one before it is finished;
* **shutdown**: after the last window: the engine is stopped, the client calibrated, the folder sealed.

✓ with the exit code: the code, the words, the folder and what must not stay behind were all as demanded,
and where `resume` is promised it completed the run. ✗: not so. – has its reason below the table.
"""


def text() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def write() -> None:
    PAGE.write_text(text())


def read(name: str) -> dict[str, Any] | None:
    """A record; None where there is none."""
    path = matrix.RECORDS / name
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
    return found


def _lines() -> Iterator[str]:
    yield INTRODUCTION
    yield from _matrix(read(matrix.RECORD.name))
    for name, module, title, command in SECTIONS:
        record = read(name)
        if record is None or not _is_there(module):
            yield from (f"## {title}", "", f"Not run yet; `{command}` does.", "")
        else:
            yield from (*importlib.import_module(module).lines(record), "")


def _is_there(module: str) -> bool:
    parent = importlib.util.find_spec(module.rpartition(".")[0])
    return parent is not None and importlib.util.find_spec(module) is not None


def _matrix(record: dict[str, Any] | None) -> Iterator[str]:
    yield "## Every fault in every phase\n"
    if record is None:
        yield f"Not run yet; `{matrix.COMMAND}` does.\n"
        return
    cells = [each for row in record["rows"] for each in row["cells"].values() if isinstance(each, dict)]
    tried = [each for each in cells if each["skipped"] is None]
    failed = sum(bool(each["failures"]) for each in tried)
    machine, rows = record["machine"], record["rows"]
    yield (
        f"`{record['command']}`, from {record['utc']} on, commit {record['commit']}, "
        f"{machine['cores']} cores, Python {machine['python']}: {len(rows)} faults, "
        f"{len(tried)} cells tried in {record['took_s']} s, {failed} failed.\n"
    )
    for group in dict.fromkeys(row["group"] for row in rows):
        yield from _group(group, [row for row in rows if row["group"] == group])


def _group(name: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    yield f"### {name[0].upper()}{name[1:]}\n"
    yield f"| fault | what is done | {' | '.join(PHASES)} |"
    yield f"|---|---|{'---|' * len(PHASES)}"
    reasons: dict[str, int] = {}
    for row in rows:
        marks = (_mark(row["cells"][phase], reasons) for phase in PHASES)
        yield f"| {_cell(row['name'])} | {_cell(row['does'])} | {' | '.join(marks)} |"
    yield ""
    for why, number in reasons.items():
        yield f"{number}. {_cell(why)}"
    if reasons:
        yield ""
    told = [line for row in rows for line in _told(row)]
    if told:
        yield "| fault | phase | what is printed last | kept |"
        yield "|---|---|---|---|"
        yield from told
        yield ""


def _mark(cell: Any, reasons: dict[str, int]) -> str:
    """The mark of a cell; where there is none the number of its reason."""
    if cell is None:
        return "not run yet"
    why = cell if isinstance(cell, str) else cell["skipped"]
    if why is not None:
        return f"– ({reasons.setdefault(why, len(reasons) + 1)})"
    return f"{'✗' if cell['failures'] else '✓'} {'n/a' if cell['code'] is None else cell['code']}"


def _told(row: dict[str, Any]) -> Iterator[str]:
    """What each phase printed and kept; phases that say the same share a line."""
    said: dict[tuple[str, str], list[str]] = {}
    for phase in PHASES:
        cell = row["cells"][phase]
        if isinstance(cell, dict) and cell["skipped"] is None:
            words = "; ".join((cell["said"] or "–", *(f"✗ {each}" for each in cell["failures"])))
            said.setdefault((words, cell["kept"]), []).append(phase)
    for (words, kept), phases in said.items():
        yield f"| {_cell(row['name'])} | {', '.join(phases)} | {_cell(words)} | {_cell(kept)} |"


def _cell(words: str) -> str:
    """Text that a Markdown table takes as it is, but for `code`."""
    parts = re.split(r"(`[^`]+`)", words)
    parts[::2] = [re.sub(r"([\\|<>*_`\[\]$#~])", r"\\\1", each) for each in parts[::2]]
    parts[1::2] = [each.replace("|", r"\|") for each in parts[1::2]]
    return " ".join("".join(parts).split())


if __name__ == "__main__":
    write()
