from __future__ import annotations

import json
import os

import pytest

from profiler import metrics, records, store
from profiler.errors import InputError, StoreError
from tests import make


def test_a_sealed_run_reads_back_what_was_written(tmp_path):
    held = make.steady(0, 10.0)
    run = make.writer(tmp_path, [held])
    run.seal()
    found = store.load(run.folder)
    assert found.manifest.status == "complete"
    assert found.manifest.windows == (held[0],)
    assert found.requests.num_rows == 50
    assert found.requests["arrivals_ns"][3].as_py() == held[1][3].arrivals_ns
    assert sorted(p.name for p in run.folder.iterdir()) == [
        "manifest.json",
        "requests.parquet",
        "telemetry.parquet",
    ]


@pytest.mark.parametrize("ending", [KeyboardInterrupt(), StoreError("no space left on device")])
def test_a_run_that_cannot_be_begun_leaves_no_folder(tmp_path, monkeypatch, ending):
    def update(self, **changes):
        raise ending

    monkeypatch.setattr(store.RunWriter, "update", update)
    with pytest.raises(type(ending)):
        store.RunWriter.create(tmp_path / "results", make.manifest("r"))
    assert list((tmp_path / "results").iterdir()) == []


def test_an_interrupted_run_loads_with_its_finished_windows_only(tmp_path):
    run = make.writer(tmp_path, [make.steady(0, 10.0)])
    records.write_records(run.records_path(1), make.steady(1, 30.0)[1])  # never added: the window was cut
    found = store.load(run.folder)
    assert found.manifest.status == "running"
    assert found.requests.num_rows == 50


def test_the_requests_of_a_window_cut_short_are_kept_and_its_number_is_not_given_again(tmp_path):
    run = make.writer(tmp_path, [make.steady(0, 10.0)])
    cut, requests = make.steady(1, 30.0)
    records.write_records(run.records_path(1), requests)
    run.add_cut_short(cut)
    assert run.next_index == 2
    again, requests = make.steady(2, 50.0)
    records.write_records(run.records_path(2), requests)
    run.add(again)
    run.seal()
    found = store.load(run.folder)
    assert [window.index for window in found.manifest.windows] == [0, 2]
    assert found.requests["window"].to_pylist() == [0] * 50 + [1] * 50 + [2] * 50
    assert [point.requests_ok for point in metrics.points(found)] == [100]


def test_sealing_takes_a_window_after_another(tmp_path):
    """What a run of hours has measured does not fit into memory twice."""
    import pyarrow.parquet as pq

    run = make.writer(tmp_path, [make.steady(index, 10.0 + 20 * index) for index in range(8)])
    table = store.load(run.folder).requests
    run.seal()
    assert pq.ParquetFile(run.folder / store.REQUESTS).metadata.num_row_groups == 8
    assert store.load(run.folder).requests.equals(table)


def test_a_note_is_kept_once_and_after_the_engines_own(tmp_path):
    run = make.writer(tmp_path, [])
    run.note("first")
    run.note("second", "first")
    run.note()
    assert store.load(run.folder).manifest.engine.notes == ("first", "second")


def test_null_stays_null(tmp_path):
    record = make.request(
        0, 0, 1.0, first_ns=None, last_ns=None, arrivals_ns=[], arrival_tokens=[], outcome="reset"
    )
    run = make.writer(tmp_path, [(make.window(0, 0.5, 2.0), [record])])
    run.seal()
    assert store.load(run.folder).requests["first_ns"].to_pylist() == [None]


def test_a_newer_schema_is_refused_with_the_mend(tmp_path):
    run = make.writer(tmp_path, [])
    journal = run.folder / store.JOURNAL
    journal.write_text(json.dumps(json.loads(journal.read_text()) | {"schema_version": 99}))
    with pytest.raises(InputError, match=r"schema version 99.*update"):
        store.load(run.folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}'])
def test_a_broken_manifest_is_one_clear_error(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest.json"):
        store.load(tmp_path)


def test_no_run_folder(tmp_path):
    with pytest.raises(InputError, match="is not a run folder"):
        store.load(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        store.load(tmp_path / "nowhere")


def test_a_folder_of_runs_stands_for_all_of_them(tmp_path):
    make.writer(tmp_path, [], run_id="b", unix_ns=1).seal()
    make.writer(tmp_path, [], run_id="a", unix_ns=2)
    assert [run.manifest.run_id for run in store.find([tmp_path])] == ["b", "a"]


def test_an_unwritable_or_full_out_is_said_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out"):
        store.check_writable(tmp_path / "file" / "below")
    with pytest.raises(InputError, match="MiB free"):
        store.check_writable(tmp_path, need_bytes=1 << 60)
    assert not list(tmp_path.glob(".write-test*"))


def test_json_is_replaced_whole(tmp_path, monkeypatch):
    run = make.writer(tmp_path, [])
    before = (run.folder / store.JOURNAL).read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(StoreError, match="No space"):
        run.update(reason="x")
    assert (run.folder / store.JOURNAL).read_bytes() == before


def test_a_folder_is_written_by_one_process_at_a_time(tmp_path):
    run = make.writer(tmp_path, [])
    with pytest.raises(InputError, match="another process"):
        store.RunWriter.reopen(store.load(run.folder))
    run.close()
    store.RunWriter.reopen(store.load(run.folder)).close()


def test_a_crash_while_sealing_does_not_double_a_run(tmp_path):
    run = make.writer(tmp_path, [make.steady(0, 10.0)])
    journal = (run.folder / store.JOURNAL).read_bytes()
    run.seal()
    (run.folder / store.JOURNAL).write_bytes(journal)
    assert len(store.find([tmp_path])) == 1
    assert store.group(tmp_path, "g")[0].manifest.status == "complete"


@pytest.mark.parametrize("name", ["requests.parquet", "telemetry.parquet"])
def test_a_damaged_table_is_one_clear_error(tmp_path, name):
    run = make.writer(tmp_path, [make.steady(0, 10.0)])
    run.seal()
    file = run.folder / name
    file.write_bytes(file.read_bytes()[:-20])
    found = store.load(run.folder)
    with pytest.raises(InputError, match=rf"run is damaged: {name} has [\d,]+ bytes, [\d,]+ were written"):
        _ = found.requests if name.startswith("req") else found.samples


def test_strangers_in_the_folder_do_not_disturb_a_group(tmp_path):
    make.writer(tmp_path, [])
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger" / "manifest.json").write_text("{")
    assert len(store.group(tmp_path, "g")) == 1


def test_replacing_leaves_files_of_like_names_alone(tmp_path):
    (tmp_path / "a.csv.tmp").write_text("the user's")
    with store.replacing(tmp_path / "a.csv") as beside:
        beside.write_text("new")
    assert (tmp_path / "a.csv").read_text() == "new"
    assert (tmp_path / "a.csv.tmp").read_text() == "the user's"
    assert len(list(tmp_path.iterdir())) == 2
