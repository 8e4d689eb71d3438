"""RequestRecords to and from parquet: one row a request, columns exactly the record's fields."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from profiler.schema import RequestRecord

ROWS_AT_ONCE = 256


def requests_schema() -> Any:
    """The columns of ``requests.parquet``: the fields of ``RequestRecord``, as a pyarrow schema."""
    import pyarrow as pa

    whole, text = pa.int64(), pa.string()
    kinds = {"arrivals_ns": pa.list_(pa.int64()), "arrival_tokens": pa.list_(pa.int32())}
    kinds |= {"outcome": text, "error": text}
    return pa.schema([(name, kinds.get(name, whole)) for name in RequestRecord.__struct_fields__])


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

    return msgspec.convert(pq.ParquetFile(path).read().to_pylist(), list[RequestRecord])
