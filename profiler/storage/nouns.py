"""Where results live: a folder of this machine, a folder that several share, or an object store."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from profiler.schema import Manifest


class Found(NamedTuple):
    """A run folder that is there.  ``folder``: where on this machine, None where only the object store has
    it; ``is_sealed``: its manifest was written."""

    name: str
    manifest: Manifest
    is_sealed: bool
    folder: Path | None


class Home(Protocol):
    """Where run folders and what is kept beside them are.  Names are relative to it, with ``/``.

    ``where``: as the user named it, which opens it again here; ``is_shared``: other machines open the same
    by ``where``.  ``folder``: itself where it is a folder, None where it is not.  ``scratch``: where run
    folders are written on this machine, to be taken in when they are sealed; a folder is its own.
    """

    where: str
    is_shared: bool
    folder: Path | None
    scratch: Path

    def check(self) -> None:
        """Raises InputError where it cannot be written to; nothing is left behind."""

    def read(self, name: str) -> bytes | None:
        """A file's content, None where there is none.  Raises StoreError; while nobody holds a lock, when
        nothing has begun yet, InputError instead and at once.  So does all that only reads."""

    def write(self, name: str, content: bytes) -> None:
        """A reader sees the old file or the new one, never half; raises StoreError."""

    def names(self, under: str) -> list[str]:
        """The files right in a folder, by name; none where there is no such folder."""

    def runs(self) -> list[str]:
        """The names of the sealed run folders, in their order."""

    def grouped(self, groups: Collection[str]) -> list[Found]:
        """Runs, sealed or not, whose manifest names one of the groups, oldest first: those that are here and
        those in ``scratch``, each once."""

    def take_in(self, folder: Path) -> None:
        """Make a sealed run folder of this machine one of ours: its manifest comes last, and the folder is
        gone when all of it is here.  What is here already stays, unless its manifest was written anew
        since.  Raises StoreError, the folder untouched.
        """

    def put_aside(self, runs: Iterable[str], under: str) -> None:
        """Move run folders, here or in ``scratch``, to the folder ``under``, where no command looks for runs;
        a name that is taken there gets a number.  Runs that are nowhere are nothing to do."""

    def lock(self, name: str) -> AbstractContextManager[None]:
        """Nobody else holds this name while the block runs; raises InputError where somebody does."""


def holder() -> str:
    """Who holds a lock, for the message that another one gets."""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    return f"process {os.getpid()} on {socket.gethostname()} since {since} UTC"
