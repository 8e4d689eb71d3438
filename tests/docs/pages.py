"""The README and the documentation as data: their commands, what they show, and what is said of both.

A command stands in a block ``console`` after ``$ ``; lines that end in a backslash or inside a quotation go
on.  What follows it is what it prints.  Remarks about a block are comments above it, which no reader sees:

    <!-- not run: REASON -->    no command of the block is run; their words must still be right
    <!-- exit: 1 or 3 -->       the last command of the block ends with one of these codes (0 if not said)
    <!-- output -->             what is shown is what comes, line by line; … stands for anything
    <!-- file: NAME -->         the block, of another language, is a file that the commands find by this name
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^ *(```+|:::+)(.*)$")
REMARK = re.compile(r"^<!-- (not run|exit|output|file)(?:: (.*?))? -->$")
# ``profile WORD``, however the tool is called, up to what ends a command in a shell.
CALL = re.compile(r"(?:^|[ ;|&(/`$])profile +([a-z-][^;|&`]*)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


class Block(NamedTuple):
    """A fenced block: where it is, what language it says, its lines, and the remarks above it."""

    page: Path
    line: int
    language: str
    lines: tuple[str, ...]
    remarks: dict[str, str]


class Command(NamedTuple):
    """A command of a page; ``why_not``: why it is not run; ``shown``: what the page says it prints."""

    page: Path
    line: int
    text: str
    shown: tuple[str, ...]
    why_not: str | None
    codes: tuple[int, ...]
    is_compared: bool

    @property
    def place(self) -> str:
        return f"{name(self.page)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    remarks: dict[str, str] = {}
    inside: tuple[str, str, int, list[str]] | None = None
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        fence = FENCE.match(line)
        if inside is not None:
            if fence and fence[1].startswith(inside[0]) and not fence[2].strip():
                yield Block(page, inside[2], inside[1], tuple(inside[3]), remarks)
                inside, remarks = None, {}
            else:
                inside[3].append(line)
        elif fence:
            inside = (fence[1], fence[2].strip(), number, [])
        elif remark := REMARK.match(line):
            remarks[remark[1]] = remark[2] or ""
        elif line.strip():
            remarks = {}


@cache  # a page that is edited while tests run is the page it was when they began
def commands(page: Path) -> list[Command]:
    found: list[Command] = []
    for block in blocks(page):
        if block.language != "console":
            continue
        own: list[Command] = []
        for offset, (text, shown) in enumerate_commands(block.lines):
            own.append(
                Command(
                    page=page,
                    line=block.line + 1 + offset,
                    text=text,
                    shown=shown,
                    why_not=block.remarks.get("not run"),
                    codes=(0,),
                    is_compared="output" in block.remarks,
                )
            )
        if own and "exit" in block.remarks:
            own[-1] = own[-1]._replace(codes=tuple(map(int, block.remarks["exit"].split(" or "))))
        found += own
    return found


def enumerate_commands(lines: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, tuple[str, ...]]]]:
    """Each command of a block with its place in it and the lines it shows."""
    place = 0
    while place < len(lines):
        if not lines[place].startswith("$ "):
            raise AssertionError(f"a block console begins with a command, not with {lines[place]!r}")
        start, text = place, lines[place][2:]
        while not is_whole(text):
            place += 1
            text += "\n" + lines[place]
        place += 1
        shown = []
        while place < len(lines) and not lines[place].startswith("$ "):
            shown.append(lines[place])
            place += 1
        yield start, (text, tuple(shown))


def is_whole(text: str) -> bool:
    if text.endswith("\\"):
        return False
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return False
    return True


def calls(text: str) -> Iterator[str]:
    """What follows ``profile`` in every call of it in a command, a script or a line of prose."""
    for line in text.replace("\\\n", " ").splitlines():
        for call in CALL.finditer(re.split(r"(?:^| +)#(?: |$)", line)[0]):
            yield call[1].strip()


def mentions(page: Path) -> Iterator[tuple[str, bool]]:
    """Every call of ``profile`` in a page and whether it is a command as a user types it (else prose, a
    synopsis, a workflow)."""
    for command in commands(page):
        yield from ((call, True) for call in calls(command.text))
    prose = page.read_text()
    for block in blocks(page):
        text = "\n".join(block.lines)
        prose = prose.replace(text, "") if text else prose
        if block.language != "console":
            yield from ((call, False) for call in calls(text))
    for span in re.findall(r"`([^`\n]+)`", prose):
        yield from ((call, False) for call in calls(span))


def differs(shown: tuple[str, ...], came: str) -> str | None:
    """The first line a page shows that did not come after the ones before it; None where all did.

    A line ``…`` stands for any lines, ``…`` in a line for any text, more than one space for any number of
    them: widths of columns are no promise.
    """
    left = [squeezed(line) for line in came.splitlines()]
    may_skip = False
    for line in shown:
        wanted = squeezed(line)
        if wanted in ("…", ""):
            may_skip = may_skip or wanted == "…"
            continue
        pattern = re.compile(".*".join(map(re.escape, wanted.split("…"))))
        while left and not left[0]:
            left.pop(0)
        place = next((n for n, each in enumerate(left) if pattern.fullmatch(each)), None)
        if place is None or (place and not may_skip):
            return f"{line!r}; came: {left[0] if left else 'nothing more'!r}"
        left, may_skip = left[place + 1 :], False
    return None


def squeezed(line: str) -> str:
    return re.sub(r"[─ ]{2,}", " ", line).strip()
