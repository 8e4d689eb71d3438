"""Arrow tables → CSV, Parquet and JSON Lines, a table at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

AT_ONCE = 4096
FORMULA = r"^([=+\-@\t\r])"


def csv(tables: Iterable[Any], path: Path) -> None:
    """Null is an empty cell; a list is its numbers with spaces between; before a text that a spreadsheet
    would take for a formula stands an apostrophe."""
    import pyarrow.csv as pc

    writer = None
    try:
        for each in tables:
            flat = _flat(each)
            writer = writer or pc.CSVWriter(path, flat.schema)
            writer.write_table(flat)
    finally:
        if writer is not None:
            writer.close()


def parquet(tables: Iterable[Any], path: Path) -> None:
    """Units are in each column's metadata (``field.metadata[b"unit"]``)."""
    import pyarrow.parquet as pq

    writer = None
    try:
        for each in tables:
            writer = writer or pq.ParquetWriter(path, each.schema, compression="zstd")
            writer.write_table(each)
    finally:
        if writer is not None:
            writer.close()


def jsonl(tables: Iterable[Any], path: Path) -> None:
    """One object a line; null where nothing was measured."""
    with path.open("wb") as file:
        for each in tables:
            for batch in each.to_batches(max_chunksize=AT_ONCE):
                file.write(msgspec.json.Encoder().encode_lines(batch.to_pylist()))


def _flat(table: Any) -> Any:
    """Lists as texts, since a cell holds one value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for place, field in enumerate(table.schema):
        if pa.types.is_list(field.type):
            texts = pc.binary_join(table[field.name].cast(pa.list_(pa.string())), " ")
            table = table.set_column(place, field.name, texts)
        elif pa.types.is_string(field.type):
            texts = pc.replace_substring_regex(table[field.name], FORMULA, r"'\1")
            table = table.set_column(place, field, texts)
    return table


WRITERS: dict[str, Callable[[Iterable[Any], Path], None]] = {"csv": csv, "parquet": parquet, "jsonl": jsonl}
