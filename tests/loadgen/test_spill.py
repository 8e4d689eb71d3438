from __future__ import annotations

import os
import resource
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.errors import LoadError
from profiler.loadgen import spill as module
from profiler.loadgen.exchange import Exchange
from profiler.loadgen.spill import FLUSH_BYTES, Spill
from profiler.workload import PlannedRequest

FIELDS = ("due_ns", "opening_ns", "sent_ns", "first_token_ns", "end_ns")
FIELDS += ("status", "failure", "error", "retry_after_s", "stamps", "pieces")


def exchange(index=0, pieces=((1, b"a"), (2, b"bc")), **fields):
    made = Exchange(PlannedRequest(index, 4, 2), 50)
    made.stamps = array("q", [stamp for stamp, _ in pieces])
    made.pieces = [piece for _, piece in pieces]
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def content(made):
    planned = made.planned
    lengths = (planned.index, planned.input_tokens, planned.output_tokens, planned.share, planned.turn)
    return lengths, [getattr(made, name) for name in FIELDS]


@pytest.fixture
def spill(tmp_path):
    made = Spill(tmp_path / "raw")
    yield made
    made.close()


times = st.integers(0, 2**63 - 1)
maybe = st.none() | times
exchanges = st.builds(
    exchange,
    index=st.integers(0, 2**40),
    pieces=st.lists(st.tuples(times, st.binary(max_size=300)), max_size=20),
    planned=st.builds(PlannedRequest, *[st.integers(0, 2**31)] * 5),
    due_ns=times,
    opening_ns=maybe,
    sent_ns=maybe,
    first_token_ns=maybe,
    end_ns=maybe,
    status=st.none() | st.integers(100, 599),
    failure=st.none() | st.sampled_from(["reset", "cancelled", "gap_timeout", "connect_error"]),
    error=st.none() | st.text(st.characters(codec="utf-8")),
    retry_after_s=st.none() | st.floats(0, 1e9),
)


@given(st.lists(exchanges, max_size=6), st.integers(1, 2000))
def test_what_is_added_is_read(tmp_path_factory, made, flush_bytes):
    expected = [content(each) for each in made]
    spill = Spill(tmp_path_factory.getbasetemp() / "raw")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FLUSH_BYTES", flush_bytes)
        for each in made:
            spill.add(each)
    assert [content(each) for each in spill.read()] == expected
    assert spill.read_frac == 1.0
    spill.close()


def test_memory_is_let_go_and_the_edges_are_kept(spill):
    kept, none = exchange(), exchange(pieces=())
    assert (kept.first_stamp_ns, kept.last_stamp_ns, kept.piece_count) == (1, 2, 2)
    spill.add(kept)
    spill.add(none)
    assert (len(kept.stamps), kept.pieces) == (0, [])
    assert (kept.first_stamp_ns, kept.last_stamp_ns, kept.piece_count) == (1, 2, 2)
    assert (none.first_stamp_ns, none.last_stamp_ns, none.piece_count) == (None, None, 0)


def test_little_waits_in_memory_and_nothing_stays_on_disk(tmp_path):
    spill = Spill(tmp_path / "raw")
    for index in range(100):
        spill.add(exchange(index, [(1, bytes(10_000))]))
        assert sum(map(len, spill._waiting)) < FLUSH_BYTES
    assert os.fstat(spill._file.fileno()).st_size > 700_000
    assert [each.planned.index for each in spill.read()] == list(range(100))
    assert list(tmp_path.iterdir()) == []  # not even after kill -9
    spill.close()
    spill.close()


def test_a_full_disk_is_one_clear_error_and_loses_nothing(spill, monkeypatch):
    real, room = os.pwrite, 300_000

    def pwrite(file, data, offset):
        if offset >= room:
            raise OSError(28, "No space left on device")
        return real(file, data[: room - offset], offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    failed = []
    for index in range(100):
        try:
            spill.add(exchange(index, [(1, bytes(10_000))]))
        except LoadError as error:
            failed.append(str(error))
    (text,) = failed
    assert "raw: No space left on device; free some space" in text
    assert FLUSH_BYTES <= os.fstat(spill._file.fileno()).st_size < room  # the torn end is gone
    assert [each.planned.index for each in spill.read()] == list(range(100))


def test_what_has_been_read_leaves_the_disk(spill):
    for index in range(200):
        spill.add(exchange(index, [(1, bytes(10_000))]))
    on_disk = [os.fstat(spill._file.fileno()).st_blocks * 512]
    fractions = []
    for index, each in enumerate(spill.read()):
        assert (each.planned.index, each.pieces) == (index, [bytes(10_000)])
        on_disk.append(os.fstat(spill._file.fileno()).st_blocks * 512)
        fractions.append(spill.read_frac)
    assert fractions == sorted(fractions)
    assert fractions[99] == pytest.approx(0.5, abs=0.01)
    if on_disk[-1] == on_disk[0]:
        pytest.skip("this file system keeps what is read")
    assert on_disk[0] > 1_700_000
    assert on_disk[100] < 0.65 * on_disk[0]
    assert on_disk[-1] <= 8192


def test_a_file_that_may_not_grow_is_the_same_error(spill):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(LoadError, match="File too large"):
            spill.add(exchange(7, [(1, bytes(300_000))]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [len(each.pieces[0]) for each in spill.read()] == [300_000]


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(LoadError, match="No such file"):
        Spill(tmp_path / "nowhere" / "raw")
