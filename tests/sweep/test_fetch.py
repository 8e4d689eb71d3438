"""A run that comes from a node is whole and on the disk here before the node's is dropped.  No cluster."""

from __future__ import annotations

import shutil

import pytest

from profiler import disk, store
from profiler.errors import StoreError
from profiler.sweep import remote_files, remote_left
from profiler.sweep.nouns import UnderWay
from tests import make


def ask(function, *arguments):
    return function(*arguments)


@pytest.fixture
def node(tmp_path, monkeypatch):
    """A sealed run of a node, which is this machine."""
    monkeypatch.setattr(remote_files, "told", lambda ask, function, *arguments: ask(function, *arguments))
    monkeypatch.setattr(
        remote_files,
        "_fetch_file",
        lambda _, there, target, facts: (
            target.parent.mkdir(parents=True, exist_ok=True),
            shutil.copy(there, target),
        ),
    )
    run = make.writer(tmp_path / "node", [make.steady(0, 10.0, 5)])
    run.seal()
    (tmp_path / "home").mkdir()
    return run.folder


def fetch(node, tmp_path):
    return remote_files.fetch(ask, str(node), tmp_path / "home")


def test_what_is_brought_is_synced_before_and_after_it_has_its_name(node, tmp_path, monkeypatch):
    target, acts = tmp_path / "home" / node.name, []
    sync, sync_all = disk.sync, disk.sync_all
    monkeypatch.setattr(
        disk, "sync_all", lambda path: acts.append(("all", target.exists())) or sync_all(path)
    )
    monkeypatch.setattr(disk, "sync", lambda path: acts.append((path.name, target.exists())) or sync(path))
    assert fetch(node, tmp_path) == target
    assert acts[0] == ("all", False)
    assert acts[-1] == ("home", True)
    assert not store.faults(target)


@pytest.mark.parametrize("name", [store.REQUESTS, store.MANIFEST])
def test_a_torn_copy_that_is_there_already_is_replaced(node, tmp_path, name):
    target = fetch(node, tmp_path)
    (target / name).write_bytes(b"")
    fetch(node, tmp_path)
    assert not store.faults(target)
    assert [each.name for each in (tmp_path / "home").iterdir() if each.name != "sweeps"] == [node.name]


def test_a_whole_one_that_is_there_stays_whatever_the_node_has(node, tmp_path):
    target = fetch(node, tmp_path)
    before = (target / store.MANIFEST).stat().st_ino
    (node / store.REQUESTS).write_bytes(b"")
    fetch(node, tmp_path)
    assert (target / store.MANIFEST).stat().st_ino == before


def test_what_is_damaged_on_the_node_is_not_brought(node, tmp_path):
    (node / store.REQUESTS).write_bytes(b"")
    with pytest.raises(StoreError, match=r"requests.parquet"):
        fetch(node, tmp_path)
    assert not (tmp_path / "home" / node.name).exists()
    assert not list((tmp_path / "home").rglob("*.parquet"))


def test_a_run_that_broke_off_is_brought_as_it_is(node, tmp_path):
    for name in (store.MANIFEST, store.TELEMETRY):
        (node / name).unlink()
    assert (fetch(node, tmp_path) / store.REQUESTS).exists()


def test_what_a_node_left_of_a_damaged_run_is_not_tidied_and_it_is_named(node, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_left, "scratch", lambda _: node.parent)
    noted = [UnderWay(key="k", portions=(), number=0, group="g", utc="u")]
    (node / store.PARTS).mkdir()
    (node / store.REQUESTS).rename(node / "away")
    assert remote_left.left_of("s", "s", noted, "it died", None) == [node.name]
    assert (node / store.PARTS).exists()
    (node / "away").rename(node / store.REQUESTS)
    assert remote_left.left_of("s", "s", noted, "it died", None) == [node.name]
    assert not (node / store.PARTS).exists()
