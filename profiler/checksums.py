"""SHA-256 of files as they were written."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from hashlib import file_digest
from pathlib import Path

from msgspec import Struct


class FileSum(Struct, frozen=True):
    """A file as it was written; SHA-256 in 64 hex digits."""

    size_bytes: int
    sha256: str


class Checksums(Struct, frozen=True, kw_only=True):
    """``files`` of the run folder by name: all of a sealed one but ``summary.json``; while a run goes on, the
    requests of its windows.  ``manifest``: of the manifest itself (``integrity``)."""

    files: dict[str, FileSum] = {}
    manifest: str = ""


def of_file(path: Path) -> FileSum:
    """Raises OSError."""
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
        return FileSum(size_bytes=os.fstat(file.fileno()).st_size, sha256=digest)


def of_folder(folder: Path, without: Collection[str]) -> dict[str, FileSum]:
    """Of every file, by its path in the folder; ``without`` are files and folders in it.

    Raises OSError.
    """
    return {
        name: of_file(folder / name)
        for name in sorted(_names(folder))
        if name.partition("/")[0] not in without
    }


def _names(folder: Path) -> Iterator[str]:
    """Files that are written beside others before they take their place begin with a dot."""
    for at, inside, names in os.walk(folder):
        inside.sort()
        for name in names:
            path = Path(at, name)
            if not name.startswith(".") and path.is_file():
                yield path.relative_to(folder).as_posix()
