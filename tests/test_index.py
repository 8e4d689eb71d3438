"""The cache beside the runs: never other figures than the runs', whatever happened to it or to them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import psutil
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from profiler import figures, index, store
from profiler.errors import InputError, StoreError
from profiler.schema import Model
from tests import make


def sealed(out, name, requests=20, **changes):
    changes.setdefault("model", Model(name=f"model-{name}", weights="random", facts=make.FACTS))
    run = make.writer(out, [make.steady(0, 10.0, requests)], run_id=name, **changes)
    run.seal()
    return run.folder


@pytest.fixture
def results(tmp_path):
    for number, name in enumerate("abc"):
        sealed(tmp_path, name, 20 + 10 * number, unix_ns=-number)
    return tmp_path


@pytest.fixture
def measured(monkeypatch):
    """The names of the runs that were measured, not looked up."""
    names = []

    def of_run(run):
        names.append(run.folder.name)
        return figures.of_run(run)

    monkeypatch.setattr(index, "of_run", of_run)
    return names


def truth(*paths):
    """What the runs say without any index."""
    return figures.of_runs(store.find(paths))


def test_looked_up_figures_are_the_measured_ones_in_the_same_order(results, measured):
    assert index.figures([results]) == truth(results)
    assert sorted(measured) == ["a", "b", "c"]
    assert [os.path.basename(run.folder) for run in index.runs([results])] == ["c", "b", "a"], "oldest first"
    assert index.figures([results]) == truth(results)
    assert len(measured) == 3


def test_a_run_is_called_what_the_user_calls_it(results, monkeypatch):
    index.figures([results])
    monkeypatch.chdir(results / "a")
    assert index.figures([".", "../b"]) == truth(".", "../b")
    assert [each.facts["run"] for each in index.figures([".", "../b"])] == [".", "../b"]


def test_a_run_that_changed_is_measured_anew(results, measured):
    index.figures([results])
    file = results / "b" / store.MANIFEST
    before = file.stat()
    file.write_bytes(file.read_bytes().replace(b"model-b", b"model-x"))
    make.written_again(file.parent)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    measured.clear()
    assert [each.model for each in index.figures([results])] == ["model-c", "model-x", "model-a"]
    assert measured == ["b"], "same size, same time: the change time tells"


def test_a_table_edited_in_place_is_seen_though_its_size_and_time_are_as_before(results, measured):
    file = results / "a" / store.REQUESTS
    requests = store.load(results / "a").requests
    write_plainly(requests, file)
    make.written_again(file.parent)
    index.figures([results])
    before = file.stat()
    place = requests.column_names.index("last_ns")
    write_plainly(requests.set_column(place, "last_ns", pc.add(requests["last_ns"], 5_000_000)), file)
    make.written_again(file.parent)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    measured.clear()
    assert index.figures([results]) == truth(results)
    assert measured == ["a"]


def write_plainly(requests, file):
    pq.write_table(requests, file, compression="none", use_dictionary=False, write_statistics=False)


def test_runs_that_change_places_are_told_apart(results):
    index.figures([results])
    (results / "a").rename(results / "x")
    (results / "b").rename(results / "a")
    (results / "x").rename(results / "b")
    assert index.figures([results]) == truth(results)


@pytest.mark.parametrize("name", [store.REQUESTS, store.TELEMETRY])
def test_so_is_one_whose_tables_changed(results, measured, name):
    index.figures([results])
    measured.clear()
    shutil.copy(results / "c" / name, results / "a" / name)
    os.utime(results / "a" / name, ns=(1, 1))
    make.written_again(results / "a")
    assert index.figures([results]) == truth(results)
    assert measured == ["a"]


def test_runs_come_and_go(results, measured):
    index.figures([results])
    measured.clear()
    shutil.rmtree(results / "a")
    sealed(results, "d", unix_ns=9)
    assert index.figures([results]) == truth(results)
    assert measured == ["d"]
    assert set(index._load(results)) == {"b", "c", "d"}, "what is gone is forgotten"


def test_an_unsealed_run_is_never_kept(results, measured):
    make.writer(results, [make.steady(0, 10.0)], run_id="open").close()
    assert index.figures([results]) == truth(results)
    assert "open" not in index._load(results)
    measured.clear()
    index.figures([results])
    assert measured == ["open"]


def test_a_run_without_windows_has_no_figures(tmp_path):
    make.writer(tmp_path, [], run_id="cut").update(status="interrupted")
    assert index.runs([tmp_path]) == [index.Run(str(tmp_path / "cut"), [])]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "garbage", "deep", "another program's"])
def test_a_damaged_index_never_gives_other_figures(results, damage):
    index.figures([results])
    file = results / index.FILE
    whole = file.read_bytes()
    middle = whole.index(b"model-b") + 6
    file.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "flipped": whole[:middle] + b"z" + whole[middle + 1 :],
            "empty": b"",
            "garbage": os.urandom(1000),
            "deep": whole[: index.DIGEST_BYTES] + b"\x91" * 100_000,
            "another program's": b"0" * index.DIGEST_BYTES + whole[index.DIGEST_BYTES :],
        }[damage]
    )
    assert index.figures([results]) == truth(results)
    assert len(index._load(results)) == 3, "and it is whole again"


@pytest.mark.parametrize("place", range(0, 200, 7))
def test_no_flipped_bit_is_believed(results, place):
    """Anywhere in an entry: its name, its state, its figures, its check."""
    index.figures([results])
    file = results / index.FILE
    whole = bytearray(file.read_bytes())
    whole[index.DIGEST_BYTES + place * (len(whole) - index.DIGEST_BYTES) // 200] ^= 0x04
    file.write_bytes(whole)
    assert index.figures([results]) == truth(results)


def test_another_gpu_sheet_is_another_index(results, measured, monkeypatch, tmp_path):
    sheet = tmp_path / "gpus.toml"
    sheet.write_text("")
    index.figures([results])
    for _ in range(2):
        monkeypatch.setenv("PROFILER_GPUS", str(sheet))
        index.figures([results])
    assert len(measured) == 6
    sheet.write_text("# measured again\n")
    index.figures([results])
    assert len(measured) == 9


def test_an_edited_program_is_another_program(monkeypatch, tmp_path):
    shutil.copytree(index.PACKAGE, tmp_path / "p", ignore=shutil.ignore_patterns("*.pyc", "help"))
    monkeypatch.setattr(index, "PACKAGE", tmp_path / "p")
    index._program.cache_clear()
    before = index._program()
    (tmp_path / "p" / "stats.py").write_text("# another interval\n")
    index._program.cache_clear()
    assert index._program() != before
    index._program.cache_clear()


def test_where_nothing_can_be_written_all_is_read_all_the_same(results, monkeypatch):
    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr("os.replace", refuse)
    assert index.figures([results]) == truth(results)
    assert sorted(os.listdir(results)) == ["a", "b", "c"], "nothing half is left"


def test_runs_named_one_by_one_leave_nothing_beside_them(results, measured):
    assert index.figures([results / "a"]) == truth(results / "a")
    assert not (results / index.FILE).exists()
    index.figures([results])
    measured.clear()
    new = sealed(results, "d")
    assert index.figures([new, results / "a"]) == truth(new, results / "a")
    assert measured == ["d"], "but they use the index that is there"
    assert set(index._load(results)) == {"a", "b", "c", "d"}, "and complete it"


def test_many_named_at_once_are_kept(tmp_path):
    names = [sealed(tmp_path, f"r{n}", 5) for n in range(index.WORTH_KEEPING)]
    index.figures(names)
    assert len(index._load(tmp_path)) == len(names)


def test_those_who_write_at_once_end_with_a_whole_index(results):
    sealed(results, "d", 10)
    errors = []

    def read():
        try:
            assert index.figures([results]) == expected
        except BaseException as error:
            errors.append(error)

    expected = truth(results)
    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert set(index._load(results)) == set("abcd")


def test_what_another_wrote_meanwhile_is_kept(results, monkeypatch):
    saved = index._save

    def save(home, found, file):
        """Somebody measures the whole folder just before we write our part."""
        monkeypatch.setattr(index, "_save", saved)
        index.figures([results])
        saved(home, found, file)

    index.figures([results])
    sealed(results, "d")
    monkeypatch.setattr(index, "_save", save)
    index.figures([sealed(results, "e")])
    assert set(index._load(results)) == set("abcde")


def test_what_was_measured_before_an_interruption_is_kept(results, monkeypatch):
    def of_run(run):
        if run.folder.name == "b":
            raise KeyboardInterrupt
        return figures.of_run(run)

    monkeypatch.setattr(index, "of_run", of_run)
    with pytest.raises(KeyboardInterrupt):
        index.figures([results])
    assert set(index._load(results)) == {"a"}


def test_progress_is_told_of_what_is_measured(results):
    told = []
    index.runs([results], lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    index.runs([results], lambda done, total: told.append((done, total)))
    assert len(told) == 3


def test_several_processes_find_the_same(results, monkeypatch):
    monkeypatch.setattr(index, "MANY", 2)
    assert [each for run in index.runs([results], processes=2) for each in run.figures] == truth(results)
    assert len(index._load(results)) == 3


def test_a_killed_process_is_said(results, monkeypatch):
    """As the kernel does where memory is short."""

    def of_run(run):
        if run.folder.name == "a":
            os.kill(os.getpid(), signal.SIGKILL)
        return figures.of_run(run)

    monkeypatch.setattr(index, "of_run", of_run)
    monkeypatch.setattr(index, "MANY", 2)
    with pytest.raises(StoreError, match="was killed"):
        index.runs([results], processes=2)


def test_no_process_outlives_one_that_was_killed(results):
    code = """
import sys, time
from profiler import figures, index
index.MANY = 2
index.of_run = lambda run: time.sleep(60)
index.runs([sys.argv[1]], processes=2)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(results)]) as process:
        limit = time.monotonic() + 20.0
        while len(children := psutil.Process(process.pid).children()) < 2 and time.monotonic() < limit:
            time.sleep(0.02)
        process.kill()
    assert len(children) == 2
    assert psutil.wait_procs(children, timeout=10.0)[1] == []


def test_a_damaged_run_is_named(results):
    (results / "b" / store.MANIFEST).write_text("{")
    with pytest.raises(InputError, match=r"b is damaged: manifest\.json cannot be read"):
        index.figures([results])


def test_no_run_at_all_is_said(tmp_path):
    with pytest.raises(InputError, match="no manifest"):
        index.figures([tmp_path])
    with pytest.raises(InputError, match="does not exist"):
        index.figures([tmp_path / "none"])
