"""The files of a run folder, and how a file is written: whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import get_native_id

import msgspec

from profiler import disk
from profiler.errors import InputError, StoreError

MANIFEST, JOURNAL, PARTS = "manifest.json", "journal.json", "parts"
LOCK = "lock"
REQUESTS, TELEMETRY, SAMPLES = "requests.parquet", "telemetry.parquet", "telemetry.part"
ROUTING = "routing.parquet"
TABLES = (REQUESTS, TELEMETRY, ROUTING)
SUMMARY = "summary.json"


def part(window: int) -> str:
    """Where a run that goes on has the requests of a window."""
    return f"{PARTS}/requests-{window:05d}.parquet"


def write_json(path: Path, value: msgspec.Struct) -> None:
    """Write a record as JSON so that a reader sees the old file or the new one, never half.

    Raises StoreError when it cannot be written.
    """
    with replacing(path) as beside, beside.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(value), indent=1))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write to that takes the place of ``path`` once the block has ended well, and is gone if not.

    Its name is its own: others may write ``path`` too.  Raises StoreError when it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}-{get_native_id()}")
    try:
        yield beside
        disk.replace(beside, path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            beside.unlink()


def check_writable(out: Path, need_bytes: int = 64 << 20) -> None:
    """Say before anything is started that ``out`` cannot take a run folder.

    Raises InputError when it is not a folder, not writable, or has less than ``need_bytes`` free.
    """
    probe = out / f".write-test-{os.getpid()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"\0")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write to {out}: {error.strerror}; choose another folder with --out"
        ) from None
    free = shutil.disk_usage(out).free
    if free < need_bytes:
        raise InputError(
            f"{out} has {free >> 20} MiB free, a run needs {need_bytes >> 20}; free some or use --out"
        )
