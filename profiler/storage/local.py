"""A home that is a folder of this machine, or one that machines share."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from profiler import disk, store
from profiler.errors import InputError, StoreError
from profiler.storage.nouns import Found, holder

INCOMING = "sweeps/.incoming"


class LocalHome:
    """See :class:`profiler.storage.nouns.Home`."""

    def __init__(self, where: str, folder: Path, is_shared: bool = False) -> None:
        self.where = where
        self.is_shared = is_shared
        self.folder: Path | None = folder
        self.scratch = folder

    def check(self) -> None:
        store.check_writable(self.scratch)

    def read(self, name: str) -> bytes | None:
        path = self.scratch / name
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from None

    def write(self, name: str, content: bytes) -> None:
        write_whole(self.scratch / name, content)

    def names(self, under: str) -> list[str]:
        with suppress(FileNotFoundError, NotADirectoryError):
            return sorted(each.name for each in os.scandir(self.scratch / under) if each.is_file())
        return []

    def runs(self) -> list[str]:
        return [
            each for each in store.within(self.scratch) if (self.scratch / each / store.MANIFEST).exists()
        ]

    def grouped(self, groups: Collection[str]) -> list[Found]:
        return grouped(self.scratch, groups)

    def take_in(self, folder: Path) -> None:
        target = self.scratch / folder.name
        if folder.resolve() == target.resolve():
            return
        sealed(folder)
        try:
            is_here = self.read(f"{folder.name}/{store.MANIFEST}") == (folder / store.MANIFEST).read_bytes()
            if not is_here or store.faults(target):
                self._bring(folder, target)
            shutil.rmtree(folder)
        except OSError as error:
            raise StoreError(f"cannot bring {folder} to {target}: {error.strerror or error}") from None

    def _bring(self, folder: Path, target: Path) -> None:
        """By one rename: a copy first, for it may come from another disk."""
        beside = self.scratch / INCOMING / f"{folder.name}.{os.getpid()}"
        try:
            shutil.copytree(folder, beside, dirs_exist_ok=True)
            sealed(beside)
            disk.sync_all(beside)
            shutil.rmtree(target, ignore_errors=True)
            os.replace(beside, target)
            disk.sync(self.scratch)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def put_aside(self, runs: Iterable[str], under: str) -> None:
        for run in runs:
            with suppress(FileNotFoundError):
                move_aside(self.scratch / run, self.scratch / under)

    def lock(self, name: str) -> AbstractContextManager[None]:
        return locked(self.scratch / f"{name}.lock", f"{self.where.rstrip('/')}/{name}")


def write_whole(path: Path, content: bytes) -> None:
    """A reader sees the old file or the new one; raises StoreError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from None
    with store.replacing(path) as beside:
        beside.write_bytes(content)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Nobody else has this file's lock, which dies with the process; raises InputError where somebody does,
    who says so in the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
            raise InputError(f"{what} is being held by {who}; wait for it or stop it") from None
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, holder().encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked_patiently(path: Path) -> Iterator[None]:
    """The same, waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def sealed(folder: Path) -> None:
    """Raises StoreError for a folder that is no sealed run, or not what was sealed."""
    if not (folder / store.MANIFEST).is_file():
        raise StoreError(f"{folder} is not whole: it has no {store.MANIFEST}")
    for fault in store.faults(folder):
        raise StoreError(str(fault))


def grouped(folder: Path, groups: Collection[str]) -> list[Found]:
    """The runs of a folder that belong to one of the groups, oldest first; those that cannot be read are
    somebody else's and left alone."""
    found = []
    for name in store.within(folder):
        with suppress(InputError):
            run = store.load(folder / name)
            if run.manifest.group in groups:
                whole = (run.folder / store.MANIFEST).exists()
                found.append(Found(name, run.manifest, whole, run.folder))
    return sorted(found, key=lambda each: each.manifest.unix_ns)


def move_aside(folder: Path, under: Path) -> None:
    """Raises FileNotFoundError where there is no such folder."""
    under.mkdir(parents=True, exist_ok=True)
    target, number = under / folder.name, 1
    while target.exists():
        number += 1
        target = under / f"{folder.name}.{number}"
    os.replace(folder, target)
