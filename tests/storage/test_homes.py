"""What every home does, a folder and an object store alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler import store
from profiler.errors import InputError, StoreError
from profiler.storage import Home, open_home
from tests import make


@pytest.fixture(params=["folder", "file", "s3"])
def home(request, tmp_path) -> Home:
    if request.param == "s3":
        return open_home(f"{request.getfixturevalue('bucket')}/lab/out/")
    return open_home(f"file://{tmp_path}/shared" if request.param == "file" else tmp_path / "out")


def run(folder: Path, name: str, group: str = "g", is_sealed: bool = True, **changes: object) -> Path:
    writer = make.writer(folder, [make.steady(0, 10.0)], run_id=name, group=group, **changes)
    writer.seal() if is_sealed else writer.close()
    return writer.folder


def test_a_file_reads_back_as_it_was_written_last(home):
    home.check()
    assert home.read("sweeps/a.json") is None
    assert home.names("sweeps") == []
    home.write("sweeps/a.json", b"1")
    home.write("sweeps/a.json", b"22")
    home.write("sweeps/a.aside/run/manifest.json", b"3")
    assert home.read("sweeps/a.json") == b"22"
    assert home.names("sweeps") == ["a.json"]
    assert home.runs() == []


def test_a_sealed_folder_is_taken_in_and_gone_where_it_was(home, tmp_path):
    folder = run(tmp_path / "node", "r1")
    before = store.load(folder).manifest
    home.take_in(folder)
    assert not folder.exists()
    assert home.runs() == ["r1"]
    (found,) = home.grouped({"g", "h"})
    assert (found.name, found.manifest, found.is_sealed) == ("r1", before, True)
    assert home.grouped({"h"}) == []


def test_what_was_taken_in_already_stays(home, tmp_path):
    home.take_in(run(tmp_path / "node", "r1"))
    again = run(tmp_path / "node", "r1")
    home.take_in(again)
    assert not again.exists()
    assert home.runs() == ["r1"]


def test_a_manifest_that_was_written_anew_is_brought_too(home, tmp_path):
    """Routing is recorded when all runs of an engine start are sealed."""
    home.take_in(run(tmp_path / "node", "r1"))
    home.take_in(run(tmp_path / "node", "r1", routing_missing="it failed"))
    (found,) = home.grouped(["g"])
    assert found.manifest.routing_missing == "it failed"


def test_a_folder_that_is_not_sealed_is_not_taken_in(home, tmp_path):
    folder = run(tmp_path / "node", "r1", is_sealed=False)
    with pytest.raises(StoreError, match="not whole"):
        home.take_in(folder)
    assert folder.exists()
    assert home.runs() == []


def test_runs_of_a_group_are_found_sealed_or_not_each_once_and_oldest_first(home):
    run(home.scratch, "late", unix_ns=9)
    run(home.scratch, "broken", is_sealed=False, unix_ns=5)
    run(home.scratch, "other", group="other")
    home.take_in(run(home.scratch, "early", unix_ns=1))
    found = [(each.name, each.is_sealed) for each in home.grouped(["g"])]
    assert found == [("early", True), ("broken", False), ("late", True)]


def test_runs_put_aside_are_kept_where_nobody_looks(home):
    for number in range(2):
        run(home.scratch, "broken", is_sealed=False)
        home.take_in(run(home.scratch, "sealed"))
        home.put_aside(["broken", "sealed", "nowhere"], "sweeps/a.aside")
        assert home.runs() == []
        assert home.grouped({"g"}) == [], number
    for name in ("sealed", "sealed.2"):
        assert home.read(f"sweeps/a.aside/{name}/manifest.json")
        assert home.read(f"sweeps/a.aside/{name}/requests.parquet")
    assert home.read("sweeps/a.aside/broken.2/journal.json")


def test_two_do_not_hold_one_name(home):
    with home.lock("sweeps/a"):
        with (
            pytest.raises(InputError, match=r"sweeps/a is being held by process \d+ on .* since 20"),
            open_home(home.where).lock("sweeps/a"),
        ):
            pass
        with home.lock("sweeps/b"):
            home.write("sweeps/b.json", b"")
    with home.lock("sweeps/a"):
        home.write("sweeps/a.json", b"")
    assert home.names("sweeps") == ["a.json", "b.json"] if home.folder is None else True


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("ftp://host/x", "no such kind of address"),
        ("file://share/x", "names a whole path"),
        ("s3://", "names no bucket"),
        ("s3://key:secret@bucket/x", "credentials in it would be printed"),
        ("s3://bucket/x?nonsense=1", "nonsense"),
    ],
)
def test_an_address_that_is_none_is_said_in_one_line(where, says, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(InputError, match=says) as error:
        open_home(where).check()
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


def test_the_same_address_has_the_same_scratch_folder_and_another_has_another(monkeypatch):
    first = open_home("s3://bucket/x").scratch
    assert open_home("s3://bucket/x/").scratch == first
    assert open_home("s3://bucket/y").scratch != first
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://elsewhere:9000")
    assert open_home("s3://bucket/x").scratch != first


def test_a_run_that_is_not_what_was_sealed_is_not_taken_in_and_stays(tmp_path):
    scratch, out = tmp_path / "scratch", tmp_path / "home"
    writer = make.writer(scratch, [make.steady(0, 10.0)])
    writer.seal()
    requests = writer.folder / store.REQUESTS
    whole = requests.read_bytes()
    requests.write_bytes(whole[:-3])
    home = open_home(str(out))
    with pytest.raises(StoreError, match=r"requests.parquet has"):
        home.take_in(writer.folder)
    assert requests.exists()
    requests.write_bytes(whole)
    home.take_in(writer.folder)
    assert not writer.folder.exists()
    assert not store.faults(out / "run")
