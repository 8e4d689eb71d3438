"""What a power cut cannot undo: bytes and names that the disk has, not only the system's memory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

# Of folders, on shares and some mounts: these have no way to say that a name is safe.
UNKNOWN_TO_FOLDERS = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


def sync(path: Path) -> None:
    """Wait until the disk has a file's bytes, or a folder's names, whoever wrote them, where the file system
    can tell.  Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNKNOWN_TO_FOLDERS or not path.is_dir():
            raise
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
    """The same of every file and folder in it; of no link, and nothing else that has no bytes of its own.
    Raises OSError."""
    for at, _, names in os.walk(folder):
        for path in (Path(at, name) for name in names):
            if path.is_file() and not path.is_symlink():
                sync(path)
        sync(Path(at))
