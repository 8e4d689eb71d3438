"""A home in an object store.  There is no rename: of a run folder the manifest is written last, and only
what has a manifest is a run."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from uuid import uuid4

import msgspec

from profiler import store
from profiler.errors import InputError, StoreError
from profiler.schema import Manifest
from profiler.storage import leases, local, places
from profiler.storage.nouns import Found
from profiler.storage.objects import Objects

AT_ONCE = 16


class RemoteHome:
    """See :class:`profiler.storage.nouns.Home`."""

    is_shared = True

    def __init__(self, where: str) -> None:
        self.where = where if where.endswith("://") else where.rstrip("/")
        self.folder: Path | None = None
        self.scratch = places.cached("homes", self.where)
        self.objects = Objects(self.where, patient=True)
        self._quick = Objects(self.where, patient=False)
        self._lease: leases.Lease | None = None

    def check(self) -> None:
        store.check_writable(self.scratch)
        name, content = f".write-test-{uuid4().hex}", b"\0"
        self._quick.write(name, content)
        whole = self._quick.read(name) == content
        self._quick.remove(name)
        if not whole:
            raise InputError(f"cannot use {self.where}: what was written there is not what is read back")

    @property
    def _reading(self) -> Objects:
        return self.objects if self._lease else self._quick

    def read(self, name: str) -> bytes | None:
        return self._reading.read(name)

    def write(self, name: str, content: bytes) -> None:
        if self._lease is not None:
            self._lease.check()
        self.objects.write(name, content)

    def names(self, under: str) -> list[str]:
        return sorted(name for name in self._reading.files(under) if "/" not in name)

    def runs(self) -> list[str]:
        return sorted(manifests(self._reading.files()))

    def grouped(self, groups: Collection[str]) -> list[Found]:
        here = local.grouped(self.scratch, groups)
        known = {each.name for each in here}
        others = [name for name in self.runs() if name not in known]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            read = list(pool.map(self._manifest, others))
        there = [
            Found(name, manifest, True, None)
            for name, manifest in zip(others, read, strict=True)
            if manifest is not None and manifest.group in groups
        ]
        return sorted((*here, *there), key=lambda each: each.manifest.unix_ns)

    def _manifest(self, run: str) -> Manifest | None:
        """None for one that this program cannot read: somebody else's."""
        content = self._reading.read(f"{run}/{store.MANIFEST}")
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return msgspec.json.decode(content or b"", type=Manifest)
        return None

    def take_in(self, folder: Path) -> None:
        local.sealed(folder)
        content = (folder / store.MANIFEST).read_bytes()
        name = f"{folder.name}/{store.MANIFEST}"
        if self.objects.read(name) != content:
            self._upload(folder, folder.name, without={store.MANIFEST})
            self.objects.write(name, content)
        shutil.rmtree(folder)

    def _upload(self, folder: Path, under: str, without: Collection[str] = ()) -> None:
        """Raises StoreError where not all of it is there afterwards, in its sizes."""
        names = {str(each.relative_to(folder)): each for each in sorted(folder.rglob("*")) if each.is_file()}
        wanted = {name: path for name, path in names.items() if name not in without}
        for name, path in wanted.items():
            self.objects.upload(str(path), f"{under}/{name}")
        there = self.objects.files(under)
        for name, path in wanted.items():
            if name not in there or there[name].size_bytes != path.stat().st_size:
                raise StoreError(f"{self.where}/{under}/{name} is not whole after it was written; try again")

    def put_aside(self, runs: Iterable[str], under: str) -> None:
        for run in runs:
            if (self.scratch / run).is_dir():
                self._upload(self.scratch / run, self._free(under, run))
                shutil.rmtree(self.scratch / run)
            if files := self.objects.files(run):
                target = self._free(under, run)
                for name in files:
                    self.objects.copy(f"{run}/{name}", f"{target}/{name}")
                # First what makes it a run.
                self.objects.remove(f"{run}/{store.MANIFEST}")
                self.objects.remove_folder(run)

    def _free(self, under: str, run: str) -> str:
        target, number = f"{under}/{run}", 1
        while self.objects.files(target):
            number += 1
            target = f"{under}/{run}.{number}"
        return target

    def lock(self, name: str) -> AbstractContextManager[None]:
        return leases.held(self, name)

    def set_lease(self, lease: leases.Lease | None) -> None:
        """While there is one nothing is written once it is lost."""
        self._lease = lease


def manifests(files: Iterable[str]) -> set[str]:
    """The sealed run folders among the files of a home."""
    parts = (name.split("/") for name in files)
    return {each[0] for each in parts if len(each) == 2 and each[1] == store.MANIFEST}
