"""Sealed runs → files for other tools (``profile export``, docs/export.md).  Nothing is computed here that a
comparison does not have."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from profiler import store
from profiler.errors import InputError, nearest
from profiler.exporting import files, prometheus, tables, tracking

__all__ = ["FORMATS", "WHAT", "export"]
FORMATS = ("csv", "parquet", "jsonl", "prometheus", "mlflow")
WHAT = tables.WHAT


def export(
    paths: Sequence[Path], form: str, out: Path, what: str = "table", price: str | None = None
) -> None:
    """Write run folders (or folders of them) to ``out``, which must not be there yet; it appears whole or not
    at all.  ``price`` as for ``--price``.  Raises InputError and StoreError."""
    for word, known, option in ((form, FORMATS, "--to"), (what, WHAT, "--what")):
        if word not in known:
            raise InputError(f"{option} {word}: no such thing{nearest(word, known)}")
    if what != "table" and form not in files.WRITERS:
        raise InputError(f"--what {what}: raw records go to {', '.join(files.WRITERS)}, not to {form}")
    if os.path.lexists(out):
        raise InputError(f"--out {out} is there already: name another path, or remove it")
    if not out.resolve().parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}")
    if form == "mlflow":
        tracking.export(store.find(paths), out, price)
        return
    with store.replacing(out) as beside:
        if form == "prometheus":
            beside.write_text(prometheus.exposition(tables.rows(paths, price)), encoding="utf-8")
        elif what == "table":
            files.WRITERS[form]([tables.table(tables.rows(paths, price))], beside)
        else:
            files.WRITERS[form](tables.raw(paths, what), beside)
