"""What is not what was written is named, and no figure is made of it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from profiler import figures, index, integrity, records, routing_pass, store
from profiler.cli import entry, terminal
from profiler.errors import DamagedError, InputError, StoreError
from profiler.schema import Model, ProbeStatus, RoutingRecord
from profiler.store import reading, verifying, writing
from tests import make

REFERENCE = Path(__file__).parent.parent / "results/reference"
SAMPLES = make.sample_lines([(10.0, "sampler", "late_s", 0.001)])


def sealed(out, name, requests=20):
    run = make.writer(
        out,
        [make.steady(0, 10.0, requests)],
        run_id=name,
        model=Model(name=f"model-{name}", weights="random", facts=make.FACTS),
    )
    run.samples_path.write_bytes(SAMPLES * requests)
    (run.folder / "engine.log").write_text("began\n")
    run.seal()
    return run.folder


@pytest.fixture
def results(tmp_path):
    for number, name in enumerate("abc"):
        sealed(tmp_path, name, 20 + number)
    return tmp_path


def profile(monkeypatch, capsys, *words):
    """Exit code and what was said.  The command's handlers of signals are not this process's."""
    monkeypatch.setattr(sys, "argv", ["profile", *map(str, words)])
    monkeypatch.setattr(terminal, "catch_signals", lambda: None)
    with pytest.raises(SystemExit) as end:
        entry()
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


def cut(file, _):
    file.write_bytes(file.read_bytes()[:-7])


def flipped(file, _):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def emptied(file, _):
    file.write_bytes(b"")


def missing(file, _):
    file.unlink()


def swapped(file, other):
    shutil.copy(other / file.name, file)


DAMAGES = (cut, flipped, emptied, missing, swapped)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [store.REQUESTS, store.TELEMETRY])
def test_a_table_that_is_not_what_was_written_is_named_and_gives_no_figure(results, name, damage):
    index.figures([results])  # it is kept, and still not used
    damage(results / "b" / name, results / "a")
    for read in (index.figures, lambda paths: figures.of_runs(store.find(paths))):
        with pytest.raises(DamagedError, match=rf"/b is damaged: {name} ") as found:
            read([results])
        assert "restore what is damaged" in str(found.value)
    assert [each.state for each in verifying.standings([results])] == ["whole", "damaged", "whole"]


@pytest.mark.parametrize("damage", [cut, emptied, missing])
def test_a_manifest_that_is_not_whole_is_named(results, damage):
    damage(results / "b" / store.MANIFEST, None)
    for read in (index.figures, store.find):
        with pytest.raises(DamagedError, match=r"/b is damaged: manifest.json "):
            read([results])


def edit(folder, **changes):
    file = folder / store.MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_one_number_changed_by_hand_is_found(results):
    file = results / "b" / store.MANIFEST
    text = file.read_text()
    assert text.count('"weights_bytes": 2000') == 1
    file.write_text(text.replace('"weights_bytes": 2000', '"weights_bytes": 2001'))
    with pytest.raises(DamagedError, match=r"manifest.json was changed after it was written"):
        store.load(results / "b")


@pytest.mark.parametrize(
    "changes",
    [
        {"checksums": None},
        {"schema_version": 1},
        {"unknown": 1},
        {"checksums": {"files": {}, "manifest": ""}},
    ],
)
def test_so_is_a_checksum_that_was_taken_away_and_a_field_that_was_added(results, changes):
    edit(results / "b", **changes)
    with pytest.raises(DamagedError, match=r"manifest.json was changed after it was written"):
        store.load(results / "b")


def test_blanks_and_the_order_of_keys_are_free(results):
    before = store.load(results / "b")
    file = results / "b" / store.MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()), sort_keys=True, indent=4))
    assert store.load(results / "b").manifest == before.manifest


def test_a_newer_schema_is_no_damage_and_says_what_to_do(results):
    edit(results / "b", schema_version=99)
    with pytest.raises(InputError, match=r"schema version 99.*update it") as found:
        store.find([results])
    assert not isinstance(found.value, DamagedError)
    assert [each.state for each in verifying.standings([results])] == ["whole", "unknown", "whole"]


@pytest.mark.parametrize("processes", [1, 2])
def test_all_that_are_damaged_are_named_at_once(results, monkeypatch, processes):
    monkeypatch.setattr(index, "MANY", 2)
    cut(results / "a" / store.REQUESTS, None)
    missing(results / "c" / store.TELEMETRY, None)
    with pytest.raises(DamagedError, match="2 run folders are damaged") as found:
        index.runs([results], processes=processes)
    assert {Path(folder).name for folder, _ in found.value.faults} == {"a", "c"}
    with pytest.raises(DamagedError) as again:
        figures.of_runs(store.find([results]))
    assert {Path(folder).name for folder, _ in again.value.faults} == {"a", "c"}
    emptied(results / "b" / store.MANIFEST, None)
    with pytest.raises(DamagedError, match="3 run folders"):
        index.runs([results])


def test_what_is_not_damaged_is_kept_all_the_same(results):
    cut(results / "a" / store.REQUESTS, None)
    with pytest.raises(DamagedError):
        index.runs([results])
    assert set(index._load(str(results))) == {"b", "c"}


def test_a_warm_index_reads_no_file_again(results, monkeypatch):
    index.figures([results])
    monkeypatch.setattr(integrity, "content", lambda *_: pytest.fail("read again"))
    monkeypatch.setattr(integrity, "fault", lambda *_: pytest.fail("hashed again"))
    assert len(index.figures([results])) == 3


def test_the_commands_end_with_their_exit_codes(results, monkeypatch, capsys):
    assert profile(monkeypatch, capsys, "verify", results)[0] == 0
    cut(results / "b" / store.REQUESTS, None)
    (results / "c" / "engine.log").write_text("other\n")
    code, out, _ = profile(monkeypatch, capsys, "verify", results)
    assert code == 1
    assert [line.split()[0] for line in out.splitlines()] == ["whole", "damaged", "damaged"]
    assert "engine.log has 6 bytes" not in out
    assert "engine.log is not the file that was written" in out
    code, out, err = profile(monkeypatch, capsys, "compare", results)
    assert (code, out) == (2, "")
    assert "requests.parquet has" in err
    assert "Traceback" not in err
    assert profile(monkeypatch, capsys, "verify", results / "nowhere")[0] == 2


def test_folders_of_the_first_schema_are_read_and_said_to_carry_none(monkeypatch, capsys):
    runs = store.find([REFERENCE])
    assert {run.manifest.schema_version for run in runs} == {1}
    assert all(run.manifest.checksums is None and run.requests.num_rows for run in runs)
    code, out, _ = profile(monkeypatch, capsys, "verify", REFERENCE)
    assert code == 3
    assert out.count("sealed before there were checksums") == len(runs)


def test_one_of_those_that_cannot_be_read_is_damaged(tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(next(REFERENCE.iterdir()), folder)
    cut(folder / store.REQUESTS, None)
    assert [each.state for each in verifying.standings([folder])] == ["damaged"]
    with pytest.raises(DamagedError, match=r"requests.parquet cannot be read"):
        _ = store.load(folder).requests


def test_routing_that_comes_after_sealing_has_its_checksum(results):
    writer = store.RunWriter(results / "a", store.load(results / "a").manifest, -1)
    table = pa.table({"request": [0], "position": [0]})
    writer.add_routing(table, routing_record())
    assert not store.faults(results / "a")
    swapped_in = results / "a" / store.ROUTING
    flipped(swapped_in, None)
    with pytest.raises(DamagedError, match=r"routing.parquet is not the file"):
        _ = store.load(results / "a").routing
    with pytest.raises(DamagedError, match=r"routing.parquet is not the file"):
        index.figures([results])


def routing_record():
    return RoutingRecord(
        **{field.name: _any(field) for field in msgspec.structs.fields(RoutingRecord) if field.required}
    )


def _any(field):
    """A value of the field's type; what it is plays no part."""
    return msgspec.convert(
        {"str": "x", "int": 1, "tuple": ()}.get(_kind(field), "x"), field.type, strict=False
    )


def _kind(field):
    return getattr(field.type, "__name__", str(field.type)).partition("[")[0]


# ------------------------------------------------------------------------------------- not sealed yet


@pytest.fixture
def interrupted(tmp_path):
    run = make.writer(tmp_path, [make.steady(0, 10.0, 5), make.steady(1, 30.0, 6), make.steady(2, 50.0, 7)])
    run.close()
    return run


@pytest.mark.parametrize("damage", [cut, flipped, emptied, missing])
def test_a_window_whose_requests_are_damaged_is_named_and_held_anew(interrupted, damage):
    before = store.load(interrupted.folder).requests
    damage(interrupted.records_path(1), None)
    content = interrupted.records_path(1).read_bytes() if damage is not missing else None
    with pytest.raises(DamagedError, match=r"parts/requests-00001.parquet"):
        _ = store.load(interrupted.folder).requests
    again = store.RunWriter.reopen(store.load(interrupted.folder))
    assert [each.index for each in again.manifest.windows] == [0, 2]
    assert again.next_index == 3
    assert again.manifest.engine.notes[-1].startswith(
        "window 1 is left out: its requests are damaged (parts/"
    )
    held, requests = make.steady(3, 70.0, 6)
    records.write_records(again.records_path(3), requests)
    again.add(held)
    again.seal()
    whole = store.load(interrupted.folder)
    assert whole.requests["window"].to_pylist() == [0] * 5 + [2] * 7 + [3] * 6
    assert whole.requests.slice(0, 5).equals(before.slice(0, 5))
    assert not store.faults(interrupted.folder)
    if content is not None:
        assert (interrupted.folder / "damaged-requests-00001.parquet").read_bytes() == content


@pytest.mark.parametrize("damage", [cut, flipped, missing])
def test_routing_that_is_damaged_before_the_end_is_named_and_owed_again(interrupted, damage):
    table = pa.table({"request": [0], "position": [0]})
    interrupted.add_routing(table, routing_record())
    damage(interrupted.folder / store.ROUTING, None)
    assert [each.state for each in verifying.standings([interrupted.folder])] == ["damaged"]
    with pytest.raises(DamagedError, match=r"routing.parquet "):
        interrupted.seal()
    assert not (interrupted.folder / store.MANIFEST).exists()
    again = store.RunWriter.reopen(store.load(interrupted.folder))
    assert (again.manifest.routing, again.manifest.routing_missing) == (None, routing_pass.NOT_YET)
    assert "routing" in again.manifest.engine.notes[-1]
    assert not store.faults(again.folder)
    again.add_routing(table, routing_record())
    again.seal()
    assert not store.faults(again.folder)
    assert store.load(again.folder).routing.equals(table)


def test_sealing_that_a_full_disk_ends_can_be_done_again(interrupted, monkeypatch):
    before = interrupted.manifest
    with monkeypatch.context() as full:
        full.setattr(writing, "write_json", lambda *_: _full())
        with pytest.raises(StoreError, match="No space"):
            interrupted.seal()
    assert interrupted.manifest == before
    interrupted.update(status="failed", reason="No space")
    again = store.RunWriter.reopen(store.load(interrupted.folder))
    assert len(again.manifest.windows) == 3
    again.seal()
    assert not store.faults(again.folder)


def _full():
    raise StoreError("No space left on device")


def test_a_journal_that_was_changed_is_named(interrupted):
    journal = interrupted.folder / store.JOURNAL
    journal.write_text(journal.read_text().replace('"weights_bytes": 2000', '"weights_bytes": 2001'))
    with pytest.raises(DamagedError, match=r"journal.json was changed"):
        store.RunWriter.reopen(store.RunResult(interrupted.folder, interrupted.manifest))


def test_requests_without_journal_or_manifest_are_a_damaged_run_and_an_empty_folder_is_none(interrupted):
    (interrupted.folder / store.JOURNAL).unlink()
    out = interrupted.folder.parent
    with pytest.raises(DamagedError, match=r"run is damaged: manifest.json is missing"):
        store.find([out])
    shutil.rmtree(interrupted.folder / store.PARTS)
    assert store.within(out) == []


@pytest.mark.parametrize("tables", [[store.REQUESTS], [store.REQUESTS, store.TELEMETRY]])
def test_tables_that_were_exported_beside_runs_hide_none_of_them(results, tables):
    for name in tables:
        shutil.copy(results / "a" / name, results / name)
    assert store.within(results) == ["a", "b", "c"]
    assert len(store.group(results, "g")) == 3


def test_a_sealed_run_without_its_manifest_is_no_empty_folder(results):
    (results / "b" / store.MANIFEST).unlink()
    assert store.within(results) == ["a", "b", "c"]
    assert [each.state for each in verifying.standings([results / "b"])] == ["damaged"]


def test_a_reader_that_is_late_reads_what_was_sealed_meanwhile(tmp_path):
    run = make.writer(tmp_path, [make.steady(0, 10.0, 5)])
    run.samples_path.write_bytes(SAMPLES)
    late = store.load(run.folder)
    run.seal()
    assert late.manifest.status == "running"
    assert (late.requests.num_rows, late.samples.num_rows) == (5, 1)


def test_bytes_reach_the_disk_before_the_name_does(tmp_path, monkeypatch):
    """A rename that a power cut leaves without its bytes is an empty file."""
    acts = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: acts.append(os.readlink(f"/proc/self/fd/{fd}")) or sync(fd))
    monkeypatch.setattr(os, "replace", lambda a, b: acts.append((str(a), str(b))) or replace(a, b))
    run = make.writer(tmp_path, [make.steady(0, 10.0, 5)])
    assert str(tmp_path) in acts  # the folder's own name
    run.samples_path.write_bytes(SAMPLES)
    (run.folder / "engine.log").write_text("began\n")
    run.seal()
    assert str(run.folder / "engine.log") in acts
    renamed = [number for number, act in enumerate(acts) if isinstance(act, tuple)]
    targets = {Path(acts[number][1]).name for number in renamed}
    assert targets == {
        "journal.json",
        "requests-00000.parquet",
        "requests.parquet",
        "telemetry.parquet",
        "manifest.json",
    }
    for number in renamed:
        beside, path = acts[number]
        assert acts[number - 1] == beside
        assert acts[number + 1] == str(Path(path).parent)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF])
def test_a_file_system_that_cannot_sync_folders_takes_runs_all_the_same(tmp_path, monkeypatch, number):
    sync = os.fsync

    def only_files(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    assert not store.faults(sealed(tmp_path, "a"))

    def nothing(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", nothing)
    with pytest.raises(StoreError, match="cannot write"):
        sealed(tmp_path, "b")


def test_a_sample_that_cannot_be_read_costs_itself_alone_and_is_said(tmp_path):
    run = make.writer(tmp_path, [make.steady(0, 10.0, 5)])
    run.samples_path.write_bytes(SAMPLES + b"1\tsampler\tlate_s\t0.0?1\n" + SAMPLES)
    assert store.load(run.folder).samples.num_rows == 2
    run.seal()
    found = store.load(run.folder)
    assert found.samples.num_rows == 2
    assert found.manifest.engine.notes == ("lines of its samples left out as unreadable: 1 of 3",)


@pytest.mark.parametrize("usable", [True, False])
def test_samples_that_are_gone_are_said_to_be(tmp_path, usable):
    probe = ProbeStatus(probe="rapl", usable=usable, detail="")
    run = make.writer(tmp_path, [make.steady(0, 10.0, 5)], probes=(probe,))
    run.seal()
    notes = store.load(run.folder).manifest.engine.notes
    assert any("the file of its samples is gone" in each for each in notes) is usable


def test_a_run_that_is_unfinished_is_not_whole(interrupted, monkeypatch, capsys):
    code, out, _ = profile(monkeypatch, capsys, "verify", interrupted.folder)
    assert (code, out.split()[0]) == (3, "unfinished")


def test_a_run_that_is_sealed_while_it_is_looked_at_is_not_damaged(tmp_path, monkeypatch):
    run = make.writer(tmp_path, [make.steady(0, 10.0, 5)])
    load, loaded = reading.load, []

    def late(folder):
        found = load(folder)
        if not loaded:
            run.seal()
        loaded.append(found.manifest.status)
        return found

    monkeypatch.setattr(reading, "load", late)
    assert store.faults(run.folder) == []
    assert loaded == ["running", "complete"]
