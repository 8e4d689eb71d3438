"""Runs in an object store are read as if they lay on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from profiler import store
from profiler.errors import InputError, ProfilerError
from profiler.storage import mirror, open_home
from tests.s3 import DENIED
from tests.storage.test_homes import run
from tests.test_cli import profile


def edit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[50] ^= 1
    path.write_bytes(content)


def test_a_folder_is_read_where_it_is(tmp_path):
    assert mirror.local(f"file://{tmp_path}/a%20b") == tmp_path / "a b"


def test_each_run_is_brought_once_and_only_when_it_is_sealed(server, bucket, tmp_path):
    home = open_home(f"{bucket}/out")
    home.take_in(run(tmp_path, "r1"))
    home.objects.write("half/requests.parquet", b"PAR1")
    folder = mirror.bring(home.where)
    assert store.within(folder) == ["r1"]
    assert store.load(folder / "r1").requests.num_rows == 50
    home.take_in(run(tmp_path, "r2"))
    server.requests.clear()
    assert mirror.bring(f"{home.where}/") == folder
    assert store.within(folder) == ["r1", "r2"]
    brought = {each.split("/")[-2] for each in server.requests if each.endswith(".parquet")}
    assert brought == {"r2"}


def test_a_run_that_was_put_aside_is_gone_from_the_copy_and_records_come_along(bucket, tmp_path):
    home = open_home(f"{bucket}/out")
    for name in ("r1", "r2"):
        home.take_in(run(tmp_path, name))
    home.write("sweeps/a.json", b"1")
    folder = mirror.bring(home.where)
    home.put_aside(["r1"], "sweeps/a.aside")
    home.write("sweeps/a.json", b"2")
    mirror.bring(home.where)
    assert store.within(folder) == ["r2"]
    assert (folder / "sweeps/a.json").read_bytes() == b"2"
    assert os.listdir(folder / "sweeps") == ["a.json"] or not (folder / "sweeps/a.aside").exists()


def test_a_run_that_was_written_anew_is_brought_anew(bucket, tmp_path):
    home = open_home(f"{bucket}/out")
    home.take_in(run(tmp_path, "r1"))
    manifest = mirror.bring(home.where) / "r1" / store.MANIFEST
    whole = manifest.read_bytes()
    there = mirror.Size(len(whole), manifest.stat().st_mtime)
    assert mirror._is_here(manifest.parent, {store.MANIFEST: there})
    assert not mirror._is_here(manifest.parent, {store.MANIFEST: there._replace(at_s=there.at_s + 1)})
    manifest.write_bytes(b" " * len(whole))
    os.utime(manifest, (0, 0))
    mirror.bring(home.where)
    assert manifest.read_bytes() == whole


@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 100), lambda path: path.unlink(), edit])
def test_a_copy_that_was_damaged_is_brought_anew(bucket, tmp_path, damage):
    home = open_home(f"{bucket}/out")
    home.take_in(run(tmp_path, "r1"))
    copy = mirror.bring(home.where) / "r1"
    damage(copy / store.REQUESTS)
    with pytest.raises(ProfilerError):
        _ = store.load(copy).requests
    assert store.load(mirror.bring(home.where) / "r1").requests.num_rows == 50


def test_one_run_is_brought_alone(bucket, tmp_path):
    home = open_home(f"{bucket}/out")
    for name in ("r1", "r2"):
        home.take_in(run(tmp_path, name))
    folder = mirror.bring(f"{home.where}/r2")
    assert store.load(folder).manifest.run_id == "r2"
    assert store.within(folder.parent) == ["r2"]


def test_options_of_an_address_hold_for_one_run_too(server, bucket, tmp_path, monkeypatch):
    open_home(f"{bucket}/out").take_in(run(tmp_path, "r1"))
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    where = f"{bucket}/out/r1?scheme=http&endpoint_override={server.url.removeprefix('http://')}"
    assert store.load(mirror.bring(where)).manifest.run_id == "r1"


def test_nothing_sealed_is_said(server, bucket):
    with pytest.raises(InputError, match="holds no sealed run"):
        mirror.local(f"{bucket}/nothing")
    with server.refusing("GET ", DENIED), pytest.raises(InputError, match="access denied"):
        mirror.local(bucket)


@pytest.fixture(scope="module")
def written(server, tmp_path_factory) -> tuple[Path, str]:
    """Two runs in a folder, and the same two in a bucket."""
    cwd = tmp_path_factory.mktemp("written")
    home = open_home(server.bucket("bucket-written"))
    for name in ("r1", "r2"):
        run(cwd / "results", name)
        home.take_in(run(cwd / "up", name))
    return cwd, home.where


@pytest.mark.parametrize(
    "command",
    [["compare", "--format", "csv"], ["plot", "latency", "--out", "fig.csv"], ["claims", "--format", "json"]],
    ids=lambda words: words[0],
)
def test_commands_say_of_a_bucket_what_they_say_of_the_folder(written, command):
    cwd, where = written
    here, there = (profile(*command, "--", each, cwd=cwd) for each in ("results", where))
    assert (there.returncode, here.returncode) == (0, 0), there.stderr
    folder = str(mirror.bring(where))
    assert there.stdout.replace(folder, "results") == here.stdout


def test_an_option_takes_an_address_too(written):
    cwd, where = written
    found = profile("gate", "results", f"--baseline={where}", cwd=cwd)
    assert found.returncode in (0, 3), found.stderr


def test_a_bad_address_is_bad_input(written):
    cwd, where = written
    found = profile("compare", f"{where}/nowhere", cwd=cwd)
    assert found.returncode == 2
    assert found.stderr == f"error: {where}/nowhere holds no sealed run; is the address right?\n"
