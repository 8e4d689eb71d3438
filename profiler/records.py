"""What the parquet files of a run folder hold; RequestRecords to and from them, one row a request."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from profiler import disk
from profiler.errors import StoreError
from profiler.schema import RequestRecord

ROWS_AT_ONCE = 256
ROUTING_NOT_YET = "the run has not come to it"


def requests_schema() -> Any:
    """The columns of ``requests.parquet``: the fields of ``RequestRecord``, as a pyarrow schema."""
    import pyarrow as pa

    whole, text = pa.int64(), pa.string()
    kinds = {"arrivals_ns": pa.list_(pa.int64()), "arrival_tokens": pa.list_(pa.int32())}
    kinds |= {"outcome": text, "error": text}
    return pa.schema([(name, kinds.get(name, whole)) for name in RequestRecord.__struct_fields__])


def routing_schema(layers: int, per_token: int) -> Any:
    """The columns of ``routing.parquet``, a row a token: its request and its position in it, whether it was
    generated, and the experts it was sent to, ``per_token`` of the first layer that routes, then of the next
    (uint16, layers × per_token)."""
    import pyarrow as pa

    experts = pa.list_(pa.uint16(), layers * per_token)
    columns = [("request", pa.int32()), ("position", pa.int32()), ("is_output", pa.bool_())]
    return pa.schema([*columns, ("experts", experts)])


def write_records(path: str | Path, records: Iterable[RequestRecord]) -> int:
    """Write all records, some hundred at a time so that memory stays flat; their number.

    The file appears whole or not at all (StoreError).  The first records are taken before the file is begun:
    on a full disk, taking them frees the room they need.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = requests_schema()
    beside = Path(path).with_suffix(".tmp")
    source: Iterator[RequestRecord] = iter(records)
    count = 0
    batch = list(islice(source, ROWS_AT_ONCE))
    with whole_or_not(beside, path), pq.ParquetWriter(beside, schema, compression="zstd") as writer:
        while batch:
            columns = {name: [getattr(record, name) for record in batch] for name in schema.names}
            writer.write_table(pa.table(columns, schema=schema))
            count += len(batch)
            batch = list(islice(source, ROWS_AT_ONCE))
    return count


@contextmanager
def whole_or_not(beside: Path, path: str | Path) -> Iterator[None]:
    """What was written ``beside`` takes the place of ``path`` at the end; after a failure it is gone.

    StoreError instead of what the system says of its disk.
    """
    try:
        yield
        disk.replace(beside, Path(path))
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        why = os.strerror(error.errno) if error.errno else error
        raise StoreError(
            f"the requests of the window are lost, {path} cannot be written: {why}; "
            "free some space there or choose another folder for the results"
        ) from None


def read_records(path: str | Path) -> list[RequestRecord]:
    """Read what :func:`write_records` wrote."""
    import pyarrow.parquet as pq

    return msgspec.convert(pq.ParquetFile(path).read().to_pylist(), list[RequestRecord])
