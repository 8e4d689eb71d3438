"""RequestRecords to and from parquet: one row a request, columns exactly the record's fields."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import msgspec

from profiler.schema import RequestRecord
from profiler.store import requests_schema

ROWS_AT_ONCE = 256


def write_records(path: str | Path, records: Iterable[RequestRecord]) -> int:
    """Write all records, some hundred at a time so that memory stays flat; their number.

    The file appears whole or not at all.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = requests_schema()
    beside = Path(path).with_suffix(".tmp")
    source: Iterator[RequestRecord] = iter(records)
    count = 0
    with pq.ParquetWriter(beside, schema, compression="zstd") as writer:
        while batch := list(islice(source, ROWS_AT_ONCE)):
            columns = {name: [getattr(record, name) for record in batch] for name in schema.names}
            writer.write_table(pa.table(columns, schema=schema))
            count += len(batch)
    os.replace(beside, path)
    return count


def read_records(path: str | Path) -> list[RequestRecord]:
    """Read what :func:`write_records` wrote."""
    import pyarrow.parquet as pq

    return msgspec.convert(pq.read_table(path).to_pylist(), list[RequestRecord])
