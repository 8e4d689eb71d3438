"""RequestRecords to and from parquet: one row a request, columns exactly the record's fields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from profiler.schema import RequestRecord

ROWS_AT_ONCE = 256
TEXT = ("outcome", "error")
LISTS = {"arrivals_ns": "int64", "arrival_tokens": "int32"}


def records_schema() -> Any:
    """The pyarrow schema: int64 numbers, two list columns, two text columns."""
    import pyarrow as pa

    def type_of(name: str) -> Any:
        if name in LISTS:
            return pa.list_(getattr(pa, LISTS[name])())
        return pa.string() if name in TEXT else pa.int64()

    return pa.schema([(name, type_of(name)) for name in RequestRecord.__struct_fields__])


def write_records(path: str | Path, records: Iterable[RequestRecord]) -> int:
    """Write all records, some hundred at a time so that memory stays flat; their number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = records_schema()
    source: Iterator[RequestRecord] = iter(records)
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while batch := list(islice(source, ROWS_AT_ONCE)):
            columns = {name: [getattr(record, name) for record in batch] for name in schema.names}
            writer.write_table(pa.table(columns, schema=schema))
            count += len(batch)
    return count


def read_records(path: str | Path) -> list[RequestRecord]:
    """Read what :func:`write_records` wrote."""
    import pyarrow.parquet as pq

    return msgspec.convert(pq.read_table(path).to_pylist(), list[RequestRecord])
