"""Who measures on a board: two runs on one would spoil each other, and neither would know.

A file a board, locked for as long as the run lasts: the lock dies with the process, however that ends.  It
lies where all users of the machine may write, and says who holds it and where the results go.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from profiler.errors import InputError
from profiler.nvml import BOARDS_VARIABLE
from profiler.nvml.load import LOAD_VARIABLE

FOLDERS = ("/run/lock", "/dev/shm", "/tmp")  # noqa: S108 (the lock is what counts, not the file)


class TakenError(InputError):
    """Another process measures on a board.  ``uuid``: on which; ``who``: that process, in words."""

    def __init__(self, uuid: str, who: str) -> None:
        super().__init__(uuid, who)
        self.uuid, self.who = uuid, who

    def __str__(self) -> str:
        return (
            f"{self.uuid} is being measured by {self.who}: both would be spoilt; wait for it, stop it, or "
            "choose another GPU: CUDA_VISIBLE_DEVICES (or engine.env) for an engine started here, --devices "
            "for a server"
        )


class _Kept(threading.local):
    """What a thread keeps: boards' lock files, None outside of :func:`kept`."""

    stack: contextlib.ExitStack | None = None
    paths: frozenset[Path] = frozenset()


_kept = _Kept()


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """What this thread takes with :func:`held` in the block it holds to the end of the block, the outermost
    where they are nested, and may hold again meanwhile: nobody gets in between two engine starts."""
    if _kept.stack is not None:
        yield
        return
    with contextlib.ExitStack() as stack:
        _kept.stack, _kept.paths = stack, frozenset()
        try:
            yield
        finally:
            _kept.stack = None


@contextlib.contextmanager
def held(uuids: Sequence[str], out: Path) -> Iterator[None]:
    """Keep these boards to this process; ``out`` is told to whoever asks for one of them meanwhile.

    Raises TakenError where another process holds one.  Where no lock can be had, nobody is kept off.
    """
    with contextlib.ExitStack() as own:
        for uuid in sorted(uuids):
            if _kept.stack is None:
                own.enter_context(_one(uuid, out))
            elif (path := _path(uuid)) is not None and path not in _kept.paths:
                _kept.stack.enter_context(_one(uuid, out))
                _kept.paths |= {path}
        yield


@contextlib.contextmanager
def _one(uuid: str, out: Path) -> Iterator[None]:
    path = _path(uuid)
    descriptor = _locked(path, uuid) if path is not None else None
    if path is None or descriptor is None:
        yield
        return
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock holds, and does not say for whom
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n{out.absolute()}\n".encode(), 0)
        yield
    finally:
        with contextlib.suppress(OSError):  # another user's folder rules
            path.unlink()
        os.close(descriptor)


def _locked(path: Path, uuid: str) -> int | None:
    """An open descriptor that holds the lock; None where files cannot be locked here."""
    while True:
        try:
            descriptor = _opened(path)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = os.pread(descriptor, 4096, 0).decode(errors="replace").splitlines()
            os.close(descriptor)
            raise TakenError(uuid, _who(said)) from None
        except OSError:
            os.close(descriptor)
            return None
        if _is_still(path, descriptor):
            return descriptor
        os.close(descriptor)  # whoever had it has just taken it away


def _opened(path: Path) -> int:
    """For everybody to lock, whoever made it; where all may write, files of others are not to be created."""
    how = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, how)
    descriptor = os.open(path, how | os.O_CREAT, 0o666)
    with contextlib.suppress(OSError):
        os.fchmod(descriptor, 0o666)
    return descriptor


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _who(said: Sequence[str]) -> str:
    return f"process {said[0]}, whose results go to {said[1]}" if len(said) > 1 else "another process"


def _path(uuid: str) -> Path | None:
    """Simulated boards are the same ones where they follow the same load."""
    simulated = os.environ.get(BOARDS_VARIABLE) and os.environ.get(LOAD_VARIABLE, f"{os.getpid()}")
    name = hashlib.sha256(f"{uuid} {simulated or ''}".encode()).hexdigest()[:16]
    folder = next((each for each in FOLDERS if _is_for_all(each)), None)
    return None if folder is None else Path(folder) / f"profile-gpu-{name}.lock"


def _is_for_all(folder: str) -> bool:
    """Whether every user may write there: where only some may (root in /run/lock), others look elsewhere,
    and they would miss each other."""
    try:
        is_open = bool(os.stat(folder).st_mode & stat.S_IWOTH)
    except OSError:
        return False
    return is_open and os.access(folder, os.W_OK)
