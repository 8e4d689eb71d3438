"""A run folder while it is being written, up to its sealing."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from profiler import checksums, disk, integrity, samples
from profiler.checksums import Checksums
from profiler.errors import InputError, StoreError, damaged, together
from profiler.records import ROUTING_NOT_YET
from profiler.schema import SCHEMA_VERSION, Manifest, RoutingRecord, Window
from profiler.store.files import (
    JOURNAL,
    LOCK,
    MANIFEST,
    PARTS,
    REQUESTS,
    ROUTING,
    SAMPLES,
    SUMMARY,
    TABLES,
    TELEMETRY,
    part,
    replacing,
    write_json,
)
from profiler.store.reading import RunResult, faults, load, on_disk, sums, table_fault


class RunWriter(Struct):
    """The run folder being written.  ``manifest`` always mirrors ``journal.json``.

    The folder is locked for as long as the writer is open; the lock dies with the process.
    """

    folder: Path
    manifest: Manifest
    _lock: int

    @classmethod
    def create(cls, out: Path, manifest: Manifest) -> RunWriter:
        """A new run folder; none is left where it cannot be begun.  Raises StoreError."""
        folder = out / manifest.run_id
        try:
            (folder / PARTS).mkdir(parents=True)
            disk.sync(out)
        except OSError as error:
            raise StoreError(f"cannot create {folder}: {error.strerror}") from None
        writer = cls(folder, manifest, _locked(folder))
        try:
            writer.update()
        except BaseException:
            writer.discard()
            raise
        return writer

    @classmethod
    def reopen(cls, run: RunResult) -> RunWriter:
        """Go on with an interrupted run; raises InputError while another process writes it, and for one with
        links in it, through which what is written would go elsewhere.

        Windows whose requests are damaged are no longer among its windows, which a note says, and the damaged
        file is kept; so is a damaged table of routing, which is owed again.
        """
        if link := next((each for each in run.folder.rglob("*") if each.is_symlink()), None):
            raise InputError(
                f"{run.folder} cannot be gone on with: {link.name} in it is a link; measure it anew"
            )
        lock = _locked(run.folder)
        writer = cls(run.folder, load(run.folder).manifest, lock)
        writer._leave_damaged_out()
        writer._leave_routing_out()
        return writer

    def _leave_routing_out(self) -> None:
        why = self._routing_fault()
        if why:
            with suppress(FileNotFoundError):
                os.replace(self.folder / ROUTING, self.folder / f"damaged-{ROUTING}")
            self.update(routing=None, routing_missing=ROUTING_NOT_YET)
            self.note(f"the routing recorded before is left out: it is damaged ({why})")

    def _routing_fault(self) -> str | None:
        return table_fault(self.folder, self.manifest, ROUTING) if self.manifest.routing else None

    def _leave_damaged_out(self) -> None:
        held = self.manifest
        found = {each.index: table_fault(self.folder, held, part(each.index)) for each in on_disk(held)}
        bad = {index: why for index, why in found.items() if why}
        if not bad:
            return
        for index in bad:
            with suppress(FileNotFoundError):
                os.replace(self.folder / part(index), self.folder / f"damaged-requests-{index:05d}.parquet")
        self.update(
            windows=tuple(each for each in held.windows if each.index not in bad),
            cut_short=tuple(each for each in held.cut_short if each.index not in bad),
        )
        self.note(*(f"window {n} is left out: its requests are damaged ({why})" for n, why in bad.items()))

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def samples_path(self) -> Path:
        return self.folder / PARTS / SAMPLES

    def records_path(self, window: int) -> Path:
        return self.folder / part(window)

    def update(self, **changes: Any) -> None:
        """Change fields of the manifest and write the journal; of a run that is whole, the manifest."""
        changed = integrity.signed(replace(self.manifest, **changes, schema_version=SCHEMA_VERSION))
        write_json(self.folder / (MANIFEST if changed.status == "complete" else JOURNAL), changed)
        self.manifest = changed

    def _summed(self, name: str) -> Checksums:
        """The checksums with that of a file as it is now."""
        return Checksums(files={**sums(self.manifest), name: checksums.of_file(self.folder / name)})

    def note(self, *notes: str) -> None:
        """Something to know about the run beside its figures; each is kept once."""
        engine = self.manifest.engine
        kept = tuple(dict.fromkeys((*engine.notes, *notes)))
        self.update(engine=replace(engine, notes=kept))

    def add(self, window: Window) -> None:
        """A window is finished and its requests are on disk: from here on it cannot be lost."""
        if self.samples_path.exists():
            disk.sync(self.samples_path)
        self.update(
            windows=(*self.manifest.windows, window),
            checksums=self._summed(part(window.index)),
        )

    def add_cut_short(self, window: Window) -> None:
        """A window ended before its time; its requests are on disk and are kept."""
        if self.records_path(window.index).exists():
            self.update(
                cut_short=(*self.manifest.cut_short, window),
                checksums=self._summed(part(window.index)),
            )

    def add_routing(self, table: Any, record: RoutingRecord) -> None:
        """Which experts tokens were sent to; the table is ``records.routing_schema``'s."""
        _write_table(self.folder / ROUTING, table)
        self.update(routing=record, routing_missing=None, checksums=self._summed(ROUTING))

    @property
    def next_index(self) -> int:
        """The number of the next window; none is given twice."""
        return 1 + max((each.index for each in on_disk(self.manifest)), default=-1)

    def seal(self) -> None:
        """Merge the parts and rename the manifest into place; the last act of a whole run.

        Raises StoreError; DamagedError where what was finished is no longer what was written.
        """
        if why := self._routing_fault():
            raise damaged(self.folder, why)
        result = RunResult(self.folder, self.manifest)
        _write_tables(self.folder / REQUESTS, result.parts())
        _write_table(self.folder / TELEMETRY, result.samples)
        self._note_samples_lost(result.samples.num_rows)
        disk.sync_all(self.folder)  # the engine's log too: what has a checksum has to last
        files = checksums.of_folder(self.folder, without=(PARTS, JOURNAL, MANIFEST, SUMMARY))
        self.update(status="complete", checksums=Checksums(files=files))
        _tidy(self.folder)
        self.close()

    def _note_samples_lost(self, read: int) -> None:
        lost = samples.whole_lines(self.samples_path) - read
        if lost:
            self.note(f"lines of its samples left out as unreadable: {lost} of {lost + read}")
        if not self.samples_path.exists() and any(each.usable for each in self.manifest.probes):
            self.note("the file of its samples is gone: energy and memory over time are not known")

    def discard(self) -> None:
        """Remove a folder in which nothing was measured."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def tidy(folder: Path) -> None:
    """Remove from a sealed folder what a run only has while it goes on; a crash may have left some.

    Raises DamagedError for one that is damaged: what was left may be the only good copy.
    """
    if found := faults(folder):
        raise together(found)
    _tidy(folder)


def _tidy(folder: Path) -> None:
    shutil.rmtree(folder / PARTS, ignore_errors=True)
    (folder / JOURNAL).unlink(missing_ok=True)
    for name in (MANIFEST, JOURNAL, *TABLES, SUMMARY):
        for beside in folder.glob(f".{name}.*"):
            beside.unlink(missing_ok=True)


def _locked(folder: Path) -> int:
    """An open descriptor that holds the folder's lock; raises InputError when another process has it."""
    descriptor = os.open(folder / PARTS / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise InputError(f"{folder} is being written by another process; wait for it or stop it") from None
    return descriptor


def _write_table(path: Path, table: Any) -> None:
    _write_tables(path, iter([table]))


def _write_tables(path: Path, tables: Iterator[Any]) -> None:
    """All of them, at least one, as one; never all of them in memory."""
    import pyarrow.parquet as pq

    first = next(tables)
    with replacing(path) as beside, pq.ParquetWriter(beside, first.schema, compression="zstd") as writer:
        for table in chain([first], tables):
            writer.write_table(table)
