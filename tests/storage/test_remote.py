"""What an object store can do to a sweep, on a real S3 protocol."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest

from profiler.errors import InputError, StoreError
from profiler.storage import leases, objects, open_home
from tests.s3 import DENIED, SLOW_DOWN
from tests.storage.test_homes import run


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(objects, "PAUSES_S", ())


def test_the_manifest_comes_last(server, bucket, tmp_path):
    home = open_home(f"{bucket}/out")
    server.requests.clear()
    home.take_in(run(tmp_path, "r1"))
    written = [each.rpartition("/")[2] for each in server.requests if each.startswith("PUT")]
    assert written == ["requests.parquet", "telemetry.parquet", "manifest.json"]


def test_half_an_upload_is_no_run_and_the_same_folder_goes_up_again(server, bucket, tmp_path, impatient):
    home = open_home(f"{bucket}/out")
    folder = run(tmp_path, "r1")
    with (
        server.refusing(r"PUT .*/telemetry.parquet", DENIED),
        pytest.raises(StoreError, match="access denied"),
    ):
        home.take_in(folder)
    assert home.runs() == []
    assert (folder / "manifest.json").exists()
    home.take_in(folder)
    assert home.runs() == ["r1"]


def test_a_file_that_did_not_arrive_whole_is_noticed(bucket, tmp_path, monkeypatch):
    home = open_home(f"{bucket}/out")
    folder = run(tmp_path, "r1")
    upload = home.objects.upload

    def cut(path, name):
        upload(path, name) if "requests" not in name else home.objects.write(name, b"PAR1")

    monkeypatch.setattr(home.objects, "upload", cut)
    with pytest.raises(StoreError, match=r"requests.parquet is not whole"):
        home.take_in(folder)
    assert home.runs() == []


def test_a_passing_fault_is_waited_out(server, bucket, monkeypatch):
    monkeypatch.setattr(objects, "PAUSES_S", (0.01, 0.01, 0.01))
    home = open_home(f"{bucket}/out")
    with server.refusing(
        r"PUT .*a.json", SLOW_DOWN, times=5
    ) as refused:  # the client itself tries three times
        home.write("a.json", b"1")
    assert len(refused) == 5
    assert home.read("a.json") == b"1"


@pytest.mark.parametrize(
    ("answer", "says"),
    [(DENIED, "access denied; give credentials"), (("404 Not Found", "NoSuchBucket"), "no such")],
)
def test_a_bucket_that_cannot_be_used_is_said_before_anything_starts(server, bucket, answer, says):
    with server.refusing("PUT ", answer), pytest.raises(InputError, match=says) as error:
        open_home(f"{bucket}/out").check()
    assert "\n" not in str(error.value)


def test_a_bucket_that_cannot_be_read_is_bad_input_while_nothing_has_begun(server, bucket):
    home = open_home(f"{bucket}/out")
    with server.refusing("GET|HEAD ", DENIED), pytest.raises(InputError, match="access denied"):
        home.read("sweeps/a.json")


def test_a_bucket_that_is_not_there(server):
    with pytest.raises(InputError, match=r"s3://not-there/out.*: there is no such bucket"):
        open_home("s3://not-there/out").check()


def test_no_credentials(server, bucket, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with server.signed_only(), pytest.raises(InputError, match="AWS_ACCESS_KEY_ID"):
        open_home(f"{bucket}/out").check()


def test_a_store_that_is_not_there(monkeypatch):
    text = "AWS Error NETWORK_CONNECTION during PutObject operation: curlCode: 7, x; Details: No way"
    assert objects.why(OSError(text)) == "No way; is AWS_ENDPOINT_URL (where it is not AWS) right?"


def test_nothing_of_the_check_is_left(bucket):
    home = open_home(f"{bucket}/out")
    home.check()
    assert home.objects.files() == {}


# ------------------------------------------------------------------------------------------------- the lease


@pytest.fixture
def elsewhere(bucket, tmp_path, monkeypatch):
    """The same home as another machine sees it."""
    with monkeypatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
        return open_home(f"{bucket}/out")


def test_another_machine_is_told_who_holds_the_sweep(bucket, elsewhere):
    home = open_home(f"{bucket}/out")
    with home.lock("sweeps/a"):
        with (
            pytest.raises(InputError, match=r"held by process \d+ on .*free in (8\d|90) s"),
            elsewhere.lock("sweeps/a"),
        ):
            pass
        home.write("sweeps/a.json", b"still ours")
    with elsewhere.lock("sweeps/a"):
        pass
    assert list(home.objects.files()) == ["sweeps/a.json"]


def test_after_a_crash_the_same_machine_goes_on_at_once(bucket):
    code = f"""
from profiler.storage import open_home
import time
with open_home({f"{bucket}/out"!r}).lock("sweeps/a"):
    print("held", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stdout.readline() == "held\n"
        home = open_home(f"{bucket}/out")
        with pytest.raises(InputError, match=f"process {child.pid}"), home.lock("sweeps/a"):
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
        with home.lock("sweeps/a"):
            assert len(home.objects.files("sweeps/a.leases")) == 1


def test_another_machine_goes_on_once_the_lease_is_over_and_the_first_writes_no_more(
    bucket, elsewhere, monkeypatch
):
    monkeypatch.setattr(leases, "LEASE_S", 0.0)
    home = open_home(f"{bucket}/out")
    with home.lock("sweeps/a"), elsewhere.lock("sweeps/a"):
        with pytest.raises(StoreError, match="another goes on with the sweep"):
            home.write("sweeps/a.json", b"ours")
        elsewhere.write("sweeps/a.json", b"theirs")
    assert elsewhere.read("sweeps/a.json") == b"theirs"


def test_a_lease_is_renewed_for_as_long_as_it_is_held(server, bucket, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.02)
    third = Event()
    counted: list[str] = []

    def count(request: str, _environ: object) -> None:
        counted.extend([request] if request.startswith("PUT") and ".leases/" in request else [])
        if len(counted) == 3:
            third.set()

    server.refuse.append(count)
    try:
        with open_home(f"{bucket}/out").lock("sweeps/a"):
            assert third.wait(10)
    finally:
        server.refuse.remove(count)


def test_the_record_is_whole_whenever_it_is_read(bucket):
    home = open_home(f"{bucket}/out")
    whole = {bytes([65 + n]) * 300_000 for n in range(4)}
    for content in whole:
        home.write("sweeps/a.json", content)
        assert open_home(home.where).read("sweeps/a.json") in whole


def test_a_scratch_folder_that_cannot_be_written_is_said(server, bucket, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/no")
    with pytest.raises(InputError, match="/proc/no"):
        open_home(f"{bucket}/out").check()
    assert not Path("/proc/no").exists()
