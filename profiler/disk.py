"""What a power cut cannot undo: bytes and names that the disk has, not only the system's memory."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until the disk has a file's bytes, or a folder's names, whoever wrote them.  Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(beside: Path, path: Path) -> None:
    """``beside`` takes the place of ``path``: after a power cut there is the old file or all of the new one.

    A rename alone may reach the disk before the bytes do, and leave an empty file.  Raises OSError.
    """
    sync(beside)
    os.replace(beside, path)
    sync(path.parent)


def sync_all(folder: Path) -> None:
    """The same of every file and folder in it.  Raises OSError."""
    for at, _, names in os.walk(folder):
        for name in names:
            sync(Path(at, name))
        sync(Path(at))
