"""Run folders: written as we go, sealed by one rename, readable for ever.

While a run goes on its folder holds ``journal.json`` (the manifest so far) and ``parts/`` (one parquet
file of requests per finished window, the growing telemetry file).  Sealing merges the parts and renames
``manifest.json`` into place as the last act, so its presence alone says that the run is whole.  A folder
with a journal but no manifest is an interrupted run: it loads like any other and says so.

History of the schema (readers accept every version):
1  first.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from threading import get_native_id
from typing import Any

import msgspec
from msgspec import Struct

from profiler.errors import InputError, StoreError
from profiler.records import requests_schema
from profiler.schema import SCHEMA_VERSION, Manifest, RoutingRecord, Window

MANIFEST, JOURNAL, PARTS = "manifest.json", "journal.json", "parts"
LOCK = "lock"
REQUESTS, TELEMETRY, SAMPLES = "requests.parquet", "telemetry.parquet", "telemetry.part"
ROUTING = "routing.parquet"


def write_json(path: Path, value: msgspec.Struct) -> None:
    """Write a record as JSON so that a reader sees the old file or the new one, never half.

    Raises StoreError when it cannot be written.
    """
    with replacing(path) as beside, beside.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(value), indent=1))
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write to that takes the place of ``path`` once the block has ended well, and is gone if not.

    Its name is its own: others may write ``path`` too.  Raises StoreError when it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}-{get_native_id()}")
    try:
        yield beside
        os.replace(beside, path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            beside.unlink()


def check_writable(out: Path, need_bytes: int = 64 << 20) -> None:
    """Say before anything is started that ``out`` cannot take a run folder.

    Raises InputError when it is not a folder, not writable, or has less than ``need_bytes`` free.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".write-test-{os.getpid()}"
        probe.write_bytes(b"\0")
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"cannot write to {out}: {error.strerror}; choose another folder with --out"
        ) from None
    free = shutil.disk_usage(out).free
    if free < need_bytes:
        raise InputError(
            f"{out} has {free >> 20} MiB free, a run needs {need_bytes >> 20}; free some or use --out"
        )


class RunWriter(Struct):
    """The run folder being written.  ``manifest`` always mirrors ``journal.json``.

    The folder is locked for as long as the writer is open; the lock dies with the process.
    """

    folder: Path
    manifest: Manifest
    _lock: int

    @classmethod
    def create(cls, out: Path, manifest: Manifest) -> RunWriter:
        """A new run folder; raises StoreError."""
        folder = out / manifest.run_id
        try:
            (folder / PARTS).mkdir(parents=True)
        except OSError as error:
            raise StoreError(f"cannot create {folder}: {error.strerror}") from None
        writer = cls(folder, manifest, _locked(folder))
        writer.update()
        return writer

    @classmethod
    def reopen(cls, run: RunResult) -> RunWriter:
        """Go on with an interrupted run; raises InputError while another process writes it."""
        lock = _locked(run.folder)
        return cls(run.folder, load(run.folder).manifest, lock)

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    @property
    def samples_path(self) -> Path:
        return self.folder / PARTS / SAMPLES

    def records_path(self, window: int) -> Path:
        return self.folder / PARTS / f"requests-{window:05d}.parquet"

    def update(self, **changes: Any) -> None:
        """Change fields of the manifest and write the journal; of a run that is whole, the manifest."""
        self.manifest = msgspec.structs.replace(self.manifest, **changes)
        name = MANIFEST if self.manifest.status == "complete" else JOURNAL
        write_json(self.folder / name, self.manifest)

    def note(self, *notes: str) -> None:
        """Something to know about the run beside its figures; each is kept once."""
        engine = self.manifest.engine
        kept = tuple(dict.fromkeys((*engine.notes, *notes)))
        self.update(engine=msgspec.structs.replace(engine, notes=kept))

    def add(self, window: Window) -> None:
        """A window is finished and its requests are on disk: from here on it cannot be lost."""
        self.update(windows=(*self.manifest.windows, window))

    def add_cut_short(self, window: Window) -> None:
        """A window ended before its time; its requests are on disk and are kept."""
        if self.records_path(window.index).exists():
            self.update(cut_short=(*self.manifest.cut_short, window))

    def add_routing(self, table: Any, record: RoutingRecord) -> None:
        """Which experts tokens were sent to; the table is ``records.routing_schema``'s."""
        _write_table(self.folder / ROUTING, table)
        self.update(routing=record, routing_missing=None)

    @property
    def next_index(self) -> int:
        """The number of the next window; none is given twice."""
        return len(self.manifest.windows) + len(self.manifest.cut_short)

    def seal(self) -> None:
        """Merge the parts and rename the manifest into place; the last act of a whole run."""
        self.manifest = msgspec.structs.replace(self.manifest, status="complete")
        result = RunResult(self.folder, self.manifest)
        _write_table(self.folder / REQUESTS, result.requests)
        _write_table(self.folder / TELEMETRY, result.samples)
        write_json(self.folder / MANIFEST, self.manifest)
        tidy(self.folder)
        self.close()

    def discard(self) -> None:
        """Remove a folder in which nothing was measured."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def tidy(folder: Path) -> None:
    """Remove from a sealed folder what a run only has while it goes on; a crash may have left some."""
    shutil.rmtree(folder / PARTS, ignore_errors=True)
    (folder / JOURNAL).unlink(missing_ok=True)


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
    import pyarrow.parquet as pq

    with replacing(path) as beside:
        pq.write_table(table, beside, compression="zstd")


def _read_table(path: Path) -> Any:
    """A parquet file's table; raises InputError when it is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Not read_table: that imports pandas.
        return pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is damaged ({str(error).splitlines()[0]}); measure this run anew") from None


class RunResult(Struct, frozen=True, dict=True):
    """A run folder read back: the manifest, and the raw tables when asked for."""

    folder: Path
    manifest: Manifest

    @cached_property
    def requests(self) -> Any:
        """pyarrow table, one row a request, of the manifest's windows, in their order."""
        import pyarrow as pa

        whole = self.folder / REQUESTS
        if whole.exists():
            return _read_table(whole)
        held = sorted(each.index for each in (*self.manifest.windows, *self.manifest.cut_short))
        parts = [self.folder / PARTS / f"requests-{index:05d}.parquet" for index in held]
        tables = [_read_table(part) for part in parts if part.exists()]
        return pa.concat_tables(tables) if tables else requests_schema().empty_table()

    @cached_property
    def routing(self) -> Any | None:
        """pyarrow table of ``records.routing_schema``, None where no routing was recorded."""
        return _read_table(self.folder / ROUTING) if self.manifest.routing else None

    @cached_property
    def samples(self) -> Any:
        """pyarrow table ``t_ns, source, name, value``: everything the sampler saw."""
        from profiler.samples import read_samples

        whole = self.folder / TELEMETRY
        return _read_table(whole) if whole.exists() else read_samples(self.folder / PARTS / SAMPLES)


def load(path: Path | str) -> RunResult:
    """Read a run folder, sealed or interrupted.

    Raises InputError when it is no run folder or was written by a newer version.
    """
    folder = Path(path)
    for name in (MANIFEST, JOURNAL):
        file = folder / name
        if file.is_file():
            return RunResult(folder, _decode(file))
    kind = "has no manifest.json" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
    raise InputError(f"{folder} is not a run folder: it {kind}; `profile run` makes one under results/")


def _decode(file: Path) -> Manifest:
    raw = file.read_bytes()
    try:
        version = msgspec.json.decode(raw).get("schema_version")
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise InputError(
                f"{file} has schema version {version}, this profiler reads up to {SCHEMA_VERSION}: update it"
            )
        return msgspec.json.decode(raw, type=Manifest)
    except (msgspec.DecodeError, AttributeError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None


def find(paths: Iterable[Path | str]) -> list[RunResult]:
    """Load each path; a folder that holds run folders stands for all of them, oldest first.

    Raises InputError when a path holds no run.
    """
    found: list[RunResult] = []
    for path in map(Path, paths):
        inside = [load(path / name) for name in within(path)]
        found += sorted(inside, key=lambda run: run.manifest.unix_ns) or [load(path)]
    return found


def within(out: Path) -> list[str]:
    """The names of the run folders in ``out``, each once (a crash while sealing leaves manifest and journal);
    none where it is one itself, or no folder."""
    if is_run(out):
        return []
    try:
        with os.scandir(out) as inside:
            names = sorted(each.name for each in inside)
    except OSError:
        return []
    return [name for name in names if is_run(f"{out}/{name}")]


def is_run(folder: Path | str) -> bool:
    return os.path.exists(f"{folder}/{MANIFEST}") or os.path.exists(f"{folder}/{JOURNAL}")


def group(out: Path, name: str) -> list[RunResult]:
    """The runs under ``out`` that were interleaved as group ``name``, sealed or not, oldest first.

    Folders that cannot be read are somebody else's and left alone.
    """
    found = []
    for run in within(out):
        with suppress(InputError):
            found.append(load(out / run))
    return sorted((r for r in found if r.manifest.group == name), key=lambda r: r.manifest.clock_ns)
