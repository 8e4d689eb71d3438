"""What a fuzz target is, and where its inputs are kept."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from itertools import count
from pathlib import Path
from typing import Literal, NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CORPUS, FOUND = HERE / "corpus", HERE / "found"
TURNS = 64
_turns = count()
FAST = Path("/dev/shm")  # a file a call: kept in memory, whatever the disk does


class Target(NamedTuple):
    """``run`` raises what no user should ever see; errors the product means to raise it takes itself.

    ``seeds``: inputs to begin with, taken from fixtures.  ``form``: which mutator understands them.
    ``head``: so many bytes at the front are the target's own choices (cuts, settings), no part of the text.
    ``words``: what syntax and schema call things, for the mutators.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    form: Literal["bytes", "json", "toml", "lines", "events"] = "bytes"
    words: tuple[str, ...] = ()
    head: int = 0
    most_bytes: int = 4096


@cache
def scratch() -> Path:
    """A folder of this process for the files that targets read; gone when it ends."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=FAST if FAST.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def fresh(name: str, content: bytes) -> Path:
    """``content`` as a file of this name (folders in it are made), in one of 64 folders in turn: what the
    product remembers of a file by its name and time is not taken for it."""
    path = scratch() / str(next(_turns) % TURNS) / name
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def kept(target: str) -> list[Path]:
    """The corpus of a target and the inputs that once broke it."""
    folders = (CORPUS / target, FOUND / target)
    return [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
