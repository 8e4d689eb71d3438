"""Run folders: written as we go, sealed by one rename, readable for ever.

While a run goes on its folder holds ``journal.json`` (the manifest so far) and ``parts/`` (one parquet
file of requests per finished window, the growing telemetry file).  Sealing merges the parts and renames
``manifest.json`` into place as the last act, so its presence alone says that the run is whole.  A folder
with a journal but no manifest is an interrupted run: it loads like any other and says so.

What is finished has its checksum in the manifest (``integrity``): the files of a sealed run, the requests of
each window while it goes on, and the manifest itself.  A table that is read is held against it, and no figure
is made of a folder that is not what was written.  ``summary.json`` has none: a copy for people, which
nothing reads.

History of the schema (readers accept every version):
1  first.
2  ``checksums``.  Who reads 1 would misread nothing, but a version says that they must be there: a manifest
   of 2 without them was changed.
"""

from __future__ import annotations

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
    check_writable,
    part,
    replacing,
    write_json,
)
from profiler.store.reading import RunResult, absent, faults, find, group, is_run, load, own_hash, within
from profiler.store.writing import RunWriter, tidy

__all__ = [
    "JOURNAL",
    "LOCK",
    "MANIFEST",
    "PARTS",
    "REQUESTS",
    "ROUTING",
    "SAMPLES",
    "SUMMARY",
    "TABLES",
    "TELEMETRY",
    "RunResult",
    "RunWriter",
    "absent",
    "check_writable",
    "faults",
    "find",
    "group",
    "is_run",
    "load",
    "own_hash",
    "part",
    "replacing",
    "tidy",
    "within",
    "write_json",
]
