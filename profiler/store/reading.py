"""Run folders read back, each file held against its checksum; and what is wrong with them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from profiler import integrity
from profiler.checksums import FileSum
from profiler.errors import DamagedError, InputError, damaged, together
from profiler.records import requests_schema
from profiler.samples import MOST_NS
from profiler.schema import SCHEMA_VERSION, Manifest, Window
from profiler.store.files import JOURNAL, MANIFEST, PARTS, REQUESTS, ROUTING, SAMPLES, TABLES, TELEMETRY, part

_AMONG = "_found_with"
CHOSEN = ("config", "args", "seed")  # keys of a manifest


def on_disk(manifest: Manifest) -> list[Window]:
    """The windows whose requests a run has, by number."""
    return sorted((*manifest.windows, *manifest.cut_short), key=lambda each: each.index)


def sums(manifest: Manifest) -> dict[str, FileSum]:
    return manifest.checksums.files if manifest.checksums else {}


def _table(folder: Path, name: str, known: FileSum | None) -> Any:
    """A parquet file's table; raises DamagedError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = integrity.content(folder, name, known)
    try:
        # Not read_table: that imports pandas.
        return pq.ParquetFile(pa.BufferReader(content)).read()
    except (pa.ArrowException, OSError) as error:
        why = str(error).partition("\n")[0]
        raise damaged(folder, f"{name} cannot be read ({why})") from None


class RunResult(Struct, frozen=True, dict=True):
    """A run folder read back: the manifest, and the raw tables when asked for.

    Tables raise DamagedError where they are not what was written; it names all that are damaged of the
    folders that were found with this one.
    """

    folder: Path
    manifest: Manifest

    @property
    def is_sealed(self) -> bool:
        """Now: it may have been sealed since its journal was read, and its parts are gone then."""
        return self.manifest.status == "complete" or (self.folder / MANIFEST).exists()

    @cached_property
    def requests(self) -> Any:
        """pyarrow table, one row a request, of the manifest's windows, in their order."""
        import pyarrow as pa

        if self.is_sealed:
            return self._read(REQUESTS)
        return pa.concat_tables(self.parts())

    def parts(self) -> Iterator[Any]:
        """The requests of a run that is not sealed, a table a window; an empty one where none was held."""
        held = on_disk(self.manifest)
        yield from (self._read(part(each.index)) for each in held)
        if not held:
            yield requests_schema().empty_table()

    @cached_property
    def routing(self) -> Any | None:
        """pyarrow table of ``records.routing_schema``, None where no routing was recorded."""
        return self._read(ROUTING) if self.manifest.routing else None

    @cached_property
    def samples(self) -> Any:
        """pyarrow table ``t_ns, source, name, value``: everything the sampler saw."""
        from profiler.samples import read_samples

        return self._read(TELEMETRY) if self.is_sealed else read_samples(self.folder / PARTS / SAMPLES)

    def check_unread(self) -> None:
        """Hold the tables of a sealed run that nothing has read against their checksums.  Raises
        DamagedError."""
        unread = {"requests": REQUESTS, "samples": TELEMETRY, "routing": ROUTING}.items()
        for name in (file for table, file in unread if self.is_sealed and table not in self.__dict__):
            known = sums(self.manifest).get(name)
            why = integrity.fault(self.folder, name, known) if known else None
            if why:
                raise damaged(self.folder, why)

    def _read(self, name: str) -> Any:
        try:
            return _table(self.folder, name, sums(self.manifest).get(name))
        except DamagedError as error:
            others = (each for each in self.__dict__.get(_AMONG, ()) if each != self.folder)
            raise together([error, *(each for other in others for each in faults(other))]) from None


def load(path: Path | str) -> RunResult:
    """Read a run folder, sealed or interrupted.

    Raises InputError when it is no run folder or was written by a newer version; DamagedError.
    """
    folder = Path(path)
    for name in (MANIFEST, JOURNAL):
        file = folder / name
        if file.is_file():
            return RunResult(folder, _decode(file))
    if is_run(folder):
        raise damaged(folder, f"{MANIFEST} is missing")
    kind = "has no manifest.json" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
    raise InputError(f"{folder} is not a run folder: it {kind}; `profile run` makes one under results/")


def _decode(file: Path) -> Manifest:
    try:
        raw = file.read_bytes()
        document = msgspec.json.decode(raw)
        version = document.get("schema_version")
        if type(version) is int and version > SCHEMA_VERSION:
            raise InputError(
                f"{file} has schema version {version}, this profiler reads up to {SCHEMA_VERSION}: update it"
            )
        if type(version) is not int or version < 1:
            raise damaged(file.parent, f"{file.name} has schema version {str(version)[:40]!r}")
        integrity.check_manifest(file, document)
        if "checksums" not in document and _most(document) >= MOST_NS:
            raise damaged(file.parent, f"{file.name} holds a number that nothing counts to")
        found = msgspec.json.decode(raw, type=Manifest)
        for window in on_disk(found):
            if not all(abs(each or 0) < MOST_NS for each in _times(window)):
                raise damaged(file.parent, f"{file.name}: the times of window {window.index} are none")
        return found
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, AttributeError, UnicodeDecodeError, RecursionError) as error:
        raise damaged(file.parent, f"{file.name} cannot be read ({error})") from None


def _most(document: Any) -> int:
    """The largest whole number that was counted; tables and indexes of what is made of it hold 64 bits.  What
    somebody else chose (seeds, a model's "no limit" of 10^30) may be any."""
    if isinstance(document, dict):
        return max((_most(each) for name, each in document.items() if name not in CHOSEN), default=0)
    if isinstance(document, list):
        return max(map(_most, document), default=0)
    return abs(document) if isinstance(document, int) else 0


def _times(window: Window) -> tuple[int | None, ...]:
    return window.opened_ns, window.steady_start_ns, window.steady_end_ns, window.closed_ns


def faults(folder: Path) -> list[InputError]:
    """All that is wrong with a run folder, as far as it can be told: one error a file."""
    was_sealed = (folder / MANIFEST).exists()
    try:
        run = load(folder)
    except InputError as error:
        return [error]
    known = sums(run.manifest)
    if was_sealed or run.manifest.status == "complete":
        tables = [name for name in TABLES if name not in known and (name != ROUTING or run.manifest.routing)]
        found = [*(integrity.fault(folder, *each) for each in known.items())]
        found += [_unreadable(folder, name) for name in tables]
    else:
        tables = [
            *(part(each.index) for each in on_disk(run.manifest)),
            *([ROUTING] * bool(run.manifest.routing)),
        ]
        found = [table_fault(folder, run.manifest, each) for each in tables]
    if any(found) and not was_sealed and (folder / MANIFEST).exists():
        return faults(folder)  # it was sealed meanwhile, and its parts are gone
    return [damaged(folder, each) for each in found if each]


def table_fault(folder: Path, manifest: Manifest, name: str) -> str | None:
    known = sums(manifest).get(name)
    return integrity.fault(folder, name, known) if known else _unreadable(folder, name)


def _unreadable(folder: Path, name: str) -> str | None:
    """What is wrong with a table that has no checksum."""
    try:
        _table(folder, name, None)
    except DamagedError as error:
        return error.faults[0][1]
    return None


def find(paths: Iterable[Path | str]) -> list[RunResult]:
    """Load each path; a folder that holds run folders stands for all of them, oldest first.

    Raises InputError when a path holds no run; one error names all that cannot be read.
    """
    found: list[RunResult] = []
    errors: list[InputError] = []
    for path in map(Path, paths):
        inside = []
        for folder in [path / name for name in within(path)] or [path]:
            try:
                inside.append(load(folder))
            except InputError as error:
                errors.append(error)
        found += sorted(inside, key=lambda run: run.manifest.unix_ns)
    if errors:
        raise together(errors)
    among = [run.folder for run in found]
    for run in found:
        run.__dict__[_AMONG] = among
    return found


def within(out: Path) -> list[str]:
    """The names of the run folders in ``out``, each once (a crash while sealing leaves manifest and journal);
    none where it says that it is one itself, or is no folder.  Tables beside run folders are exports."""
    if _says_so(out):
        return []
    try:
        with os.scandir(out) as inside:
            names = sorted(each.name for each in inside)
    except OSError:
        return []
    return [name for name in names if is_run(f"{out}/{name}")]


def is_run(folder: Path | str) -> bool:
    """Whether something of a run is here, damaged or not; what was killed before it measured anything is
    none, and one table is what an export writes."""
    tables = (f"{folder}/{name}" for name in (REQUESTS, TELEMETRY))
    return (
        _says_so(folder)
        or all(map(os.path.exists, tables))
        or any(Path(folder, PARTS).glob("requests-*.parquet"))
    )


def _says_so(folder: Path | str) -> bool:
    return any(os.path.exists(f"{folder}/{name}") for name in (MANIFEST, JOURNAL))


def group(out: Path, name: str) -> list[RunResult]:
    """The runs under ``out`` that were interleaved as group ``name``, sealed or not, oldest first.

    Folders that cannot be read are somebody else's and left alone.
    """
    found = []
    for run in within(out):
        with suppress(InputError):
            found.append(load(out / run))
    return sorted((r for r in found if r.manifest.group == name), key=lambda r: r.manifest.clock_ns)


def own_hash(scenario_hash: str, group: str, number: int) -> str:
    """What a run id ends with: 8 hex digits that no other run of the group has."""
    return hashlib.sha256(f"{scenario_hash} {group} {number}".encode()).hexdigest()[:8]


def absent(run: RunResult) -> list[str]:
    """Of the runs that were interleaved with this one, those that are not beside it or cannot be read, each
    in words; nothing is known of folders from before ``group_size``."""
    held, out = run.manifest, run.folder.absolute().parent
    beside = {name.rpartition("-")[2]: out / name for name in within(out)}
    beside |= {each.manifest.run_id.rpartition("-")[2]: each.folder for each in group(out, held.group)}
    found = []
    for number in range(held.group_size or 0):
        folder = beside.get(own_hash(held.scenario_hash, held.group, number))
        if folder is None:
            found.append(f"the run of model {number + 1} of {held.group_size} is not beside {run.folder}")
            continue
        try:
            load(folder)
        except InputError as error:
            found.append(str(error))
    return [f"not gone on with: {each}" for each in found]
