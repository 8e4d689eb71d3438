"""The sample file: written in pieces, cut by crashes, read whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.samples import COLUMNS, Sample, Tail, decode, encode, read_samples, series, sources, whole_lines

SAMPLES = [
    Sample(10**15, "gpu:GPU-1", "power_w", 431.125),
    Sample(10**15 + 1, "process:Qwen/Qwen3 0.6B", "rss_bytes", 2**53),
    Sample(10**15 - 5, "gpu:GPU-1", "power_w", 0.1),
]


def rows(path: Path) -> list[tuple[object, ...]]:
    return [tuple(row[name] for name in COLUMNS) for row in read_samples(path).to_pylist()]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "samples"
    path.write_bytes(encode(SAMPLES))
    table = read_samples(path)
    assert table.column_names == ["t_ns", "source", "name", "value"]
    assert [str(kind) for kind in table.schema.types] == ["int64", "string", "string", "double"]
    assert rows(path) == [tuple(s) for s in SAMPLES]
    assert sources(table, "gpu") == ["gpu:GPU-1"]
    times, values = series(table, "gpu:GPU-1", "power_w")
    assert (times.tolist(), values.tolist()) == ([10**15 - 5, 10**15], [0.1, 431.125])


def test_a_few_lines_are_read_without_pyarrow() -> None:
    assert list(decode(encode(SAMPLES))) == SAMPLES
    assert list(decode(b"")) == []


@pytest.mark.parametrize("cut", range(1, len(encode(SAMPLES))))
def test_a_file_cut_anywhere_keeps_every_whole_line(tmp_path: Path, cut: int) -> None:
    content = encode(SAMPLES)[:cut]
    path = tmp_path / "samples"
    path.write_bytes(content)
    assert rows(path) == [tuple(s) for s in SAMPLES[: content.count(b"\n")]]


def test_a_line_with_fields_missing_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "samples"
    path.write_bytes(encode(SAMPLES[:1]) + b"123\tgpu\n" + encode(SAMPLES[1:]))
    assert rows(path) == [tuple(s) for s in SAMPLES]


@pytest.mark.parametrize("content", [b"", b"12\tgpu", None])
def test_nothing_written_is_an_empty_table(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "samples"
    if content is not None:
        path.write_bytes(content)
    assert rows(path) == []
    assert read_samples(path).column_names == list(COLUMNS)


@given(st.one_of(st.integers(0, 2**53), st.floats(allow_nan=False, allow_infinity=False)))
def test_every_digit_survives(value: float) -> None:
    text = encode([Sample(1, "s", "n", value)]).split(b"\t")[-1]
    assert float(text) == value


def many(count: int, start: int = 0) -> list[Sample]:
    return [Sample(n, "gpu:GPU-1", "power_w", n / 7) for n in range(start, start + count)]


@given(st.lists(st.integers(0, 400), max_size=6))
def test_a_tail_reads_every_line_once_however_it_arrives(tmp_path_factory, cuts) -> None:
    path = tmp_path_factory.mktemp("tail") / "samples"
    tail, content, found = Tail(path, 1 << 20), encode(many(20)), []
    assert list(tail.read()) == []  # it is not there yet
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(content)], strict=True):
        with path.open("ab") as file:
            file.write(content[begin:end])
        found += tail.read()
    assert found == many(20)


def test_a_tail_passes_over_what_is_old(tmp_path: Path) -> None:
    path = tmp_path / "samples"
    path.write_bytes(encode(many(100)))
    tail = Tail(path, 200)
    first = list(tail.read())
    assert 3 < len(first) < 10
    assert first == many(100)[-len(first) :]
    with path.open("ab") as file:
        file.write(encode(many(100, 100)))
    tail.skip(200)
    late = list(tail.read())
    assert late == many(200)[-len(late) :]
    assert 3 < len(late) < 10
    path.unlink()
    tail.skip(200)
    assert list(tail.read()) == []


def test_lines_whose_numbers_are_none_are_left_out_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "samples"
    first, *rest = encode(SAMPLES).splitlines(keepends=True)
    bad = [b"1x\tgpu:a\tpower_w\t1\n", b"1\tgpu:a\tpower_w\t4#1\n", b"9" * 20 + b"\tgpu:a\tpower_w\t1\n"]
    path.write_bytes(first + b"".join(bad) + b"".join(rest))
    assert rows(path) == [tuple(s) for s in SAMPLES]
    assert whole_lines(path) == len(SAMPLES) + len(bad)
    path.write_bytes(bad[0])
    assert read_samples(path).column_names == list(COLUMNS)
    assert rows(path) == []
    assert whole_lines(tmp_path / "nowhere") == 0
