"""Nobody else goes on with a sweep whose home is an object store.

Such a store locks nothing.  Whoever wants the name writes a claim of its own, then lists all claims: another
machine's that was renewed lately means that the name is taken.  So two never hold it where a listing shows
what was written before it, as S3, GCS and MinIO do; of two that begin at the same moment both may be sent
away.  Claims are renewed while the block runs; the ages of all are the store's own clock.  On one machine a
lock of the scratch folder says at once who is alive, so that after a crash the same machine goes on at once,
and another after ``LEASE_S``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec
from msgspec import Struct

from profiler.errors import InputError, StoreError
from profiler.storage import local
from profiler.storage.nouns import holder

if TYPE_CHECKING:
    from profiler.storage.remote import RemoteHome

LEASE_S = 90.0
RENEW_EVERY_S = 20.0
MACHINE = ".machine"


class Claim(Struct, frozen=True):
    """``machine``: whose scratch folder; ``holder``: for the message."""

    machine: str
    holder: str


class Lease:
    """A claim that is kept alive from a thread."""

    def __init__(self, home: RemoteHome, name: str, claim: Claim) -> None:
        self._home, self._claim, self._name = home, claim, name
        self._file = f"{name}.leases/{uuid4().hex}.json"
        self._lost = False
        self._end = Event()
        self._thread = Thread(target=self._keep, name="lease", daemon=True)

    def take(self) -> None:
        """Raises InputError where another machine holds the name."""
        objects, folder = self._home.objects, f"{self._name}.leases"
        self.renew()
        own = self._file.rpartition("/")[2]
        found = objects.files(folder)
        for file, info in found.items():
            left_s = LEASE_S - (found[own].at_s - info.at_s)
            if file == own or not (content := objects.read(f"{folder}/{file}")):
                continue
            claim = msgspec.json.decode(content, type=Claim)
            if claim.machine != self._claim.machine and left_s > 0:
                objects.remove(self._file)
                raise InputError(
                    f"{self._home.where}/{self._name} is being held by {claim.holder}; wait for it or stop it"
                    f" (if it is dead already: free in {left_s:.0f} s)"
                )
            objects.remove(f"{folder}/{file}")
        self._thread.start()

    def renew(self) -> None:
        self._home.objects.write(self._file, msgspec.json.encode(self._claim))

    def check(self) -> None:
        """Raises StoreError when another machine has taken the name: it has removed our claim."""
        if self._lost or self._home.objects.read(self._file) is None:
            self._lost = True
            raise StoreError(
                f"{self._home.where}/{self._name}: this machine was out of reach for over {LEASE_S:.0f} s and"
                " another goes on with the sweep; nothing more is written from here"
            )

    def _keep(self) -> None:
        while not self._end.wait(RENEW_EVERY_S):
            with suppress(StoreError):
                self.check()
                self.renew()

    def release(self) -> None:
        self._end.set()
        if self._thread.ident:
            self._thread.join()
        with suppress(StoreError):
            self._home.objects.remove(self._file)


@contextmanager
def held(home: RemoteHome, name: str) -> Iterator[None]:
    """See :meth:`profiler.storage.nouns.Home.lock`."""
    with local.locked(home.scratch / f"{name}.lock", f"{home.where}/{name}"):
        lease = Lease(home, name, Claim(_machine(home.scratch), holder()))
        lease.take()
        home.set_lease(lease)
        try:
            yield
        finally:
            home.set_lease(None)
            lease.release()


def _machine(scratch: Path) -> str:
    """A name of the scratch folder that no other machine has; made under its lock."""
    path = scratch / MACHINE
    if not path.exists():
        local.write_whole(path, uuid4().hex.encode())
    return path.read_text()
