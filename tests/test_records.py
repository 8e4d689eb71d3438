import msgspec
import pyarrow.parquet as pq
import pytest

from profiler.errors import StoreError
from profiler.records import ROWS_AT_ONCE, read_records, write_records
from profiler.schema import RequestRecord


def record(index):
    failed = index % 2
    return RequestRecord(
        window=1,
        index=index,
        due_ns=2**62 + index,
        sent_ns=None if failed else 5,
        first_ns=None if failed else 6,
        last_ns=None if failed else 8,
        done_ns=9,
        planned_input_tokens=4,
        planned_output_tokens=2,
        input_tokens=None if failed else 4,
        output_tokens=0 if failed else 2,
        reported_input_tokens=None,
        reported_output_tokens=2,
        arrivals_ns=[] if failed else [6, 8],
        arrival_tokens=[] if failed else [1, 1],
        outcome="reset" if failed else "ok",
        error="gone" if failed else None,
        status=None if failed else 200,
        cached_tokens=None if failed else index,
        share=index % 3,
        turn=index % 5,
    )


def test_round_trip_over_several_batches(tmp_path):
    records = [record(i) for i in range(2 * ROWS_AT_ONCE + 3)]
    path = tmp_path / "r.parquet"
    assert write_records(path, iter(records)) == len(records)
    assert read_records(path) == records
    assert [f.name for f in tmp_path.iterdir()] == ["r.parquet"]


def test_columns_are_the_fields_and_none_is_null(tmp_path):
    path = tmp_path / "r.parquet"
    write_records(path, [record(1)])
    table = pq.read_table(path)
    assert tuple(table.schema.names) == RequestRecord.__struct_fields__
    assert str(table.schema.field("arrivals_ns").type) == "list<element: int64>"
    assert str(table.schema.field("arrival_tokens").type) == "list<element: int32>"
    assert table["sent_ns"].null_count == 1
    assert table["output_tokens"].to_pylist() == [0]


def test_no_records_is_an_empty_table(tmp_path):
    path = tmp_path / "r.parquet"
    assert write_records(path, []) == 0
    assert read_records(path) == []


def test_files_from_before_a_column_was_added_are_read(tmp_path):
    path, old = tmp_path / "r.parquet", tmp_path / "old.parquet"
    write_records(path, [record(4)])
    pq.write_table(pq.read_table(path).drop_columns(["cached_tokens", "share", "turn"]), old)
    (got,) = read_records(old)
    assert (got.cached_tokens, got.share, got.turn) == (None, 0, 0)
    assert got == msgspec.structs.replace(record(4), cached_tokens=None, share=0, turn=0)


def test_a_file_that_cannot_be_finished_leaves_what_was_there_before(tmp_path):
    path = tmp_path / "r.parquet"
    write_records(path, [record(0)])
    before = path.read_bytes()

    def torn():
        yield from map(record, range(ROWS_AT_ONCE))
        raise OSError(28, "in words of its own")

    with pytest.raises(StoreError, match=f"lost, {path} cannot be written: No space left on device; free"):
        write_records(path, torn())
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["r.parquet"]
