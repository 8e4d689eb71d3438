"""An archive for a bug report: whole or not at all, in one order, without what is nobody else's."""

from __future__ import annotations

import getpass
import shutil
import socket
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from profiler import bundle, doctor
from profiler.cli import app
from profiler.errors import InputError, StoreError

RUNS = Path(__file__).parent / "runs"
TOKEN, PASSWORD = "hf_canarycanarycanarycanary", "canary-password-7"
NAMES = ("README.txt", "doctor.txt", "packages.txt", "environment.txt")


@pytest.fixture
def here(monkeypatch, tmp_path):
    """A machine full of words that may not leave it, and a doctor who says them all."""
    home = tmp_path / "home" / "canaryuser"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HTTPS_PROXY", f"http://someone:{PASSWORD}@proxy.canary.example:3128")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "canary-level")
    monkeypatch.setenv("CANARY_UNRELATED", "1")
    monkeypatch.setattr(getpass, "getuser", lambda: "canaryuser")
    monkeypatch.setattr(socket, "gethostname", lambda: "canaryhost")
    monkeypatch.setattr(socket, "getfqdn", lambda: "canaryhost.canary.example")
    said = (
        f"canaryuser@canaryhost.canary.example, canaryhost, {home}/models, {TOKEN}, 10.1.2.3,"
        f" http://someone:{PASSWORD}@llm.canary.example:8000/v1 http://127.0.0.1:9/v1 vLLM 0.32.0\n"
    )
    monkeypatch.setattr(doctor, "text", lambda: said)
    return tmp_path


def run_with_log(folder: Path, log: str) -> Path:
    (run,) = (RUNS / "2026-11-23T0033-bebbf0a").iterdir()
    shutil.copytree(run, folder)
    (folder / "engine.log").write_text(log)
    return folder


def texts(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_no_canary_is_in_it_and_what_a_bug_needs_is(here):
    log = f"ValueError: no file {here}/home/canaryuser/x, key {TOKEN}\nValueError: prompt 'canary-prompt'\n"
    run = run_with_log(here / "run", log)
    bundle.write(here / "b.zip", [run])
    found = texts(here / "b.zip")
    of_run = ("runs/1/manifest.json", "runs/1/faults.txt", "runs/1/engine.txt")
    assert tuple(found) == (*NAMES, *of_run)
    whole = "".join(found.values())
    for canary in (
        TOKEN,
        PASSWORD,
        "canaryuser",
        "canaryhost",
        "canary.example",
        "10.1.2.3",
        "canary-prompt",
    ):
        assert canary not in whole, canary
    assert "vLLM 0.32.0" in found["doctor.txt"]
    assert "http://127.0.0.1:9/v1" in found["doctor.txt"]
    assert "~/models" in found["doctor.txt"]
    assert "numpy==" in found["packages.txt"]
    assert "ValueError: no file ~/x" in found["runs/1/engine.txt"]
    assert '"schema_version": 1' in found["runs/1/manifest.json"]


def test_of_variables_only_numbers_and_switches_are_told(here):
    bundle.write(here / "b.zip", [])
    lines = texts(here / "b.zip")["environment.txt"].splitlines()
    assert "OMP_NUM_THREADS=4" in lines
    assert "VLLM_LOGGING_LEVEL is set" in lines
    assert "HF_TOKEN is set" in lines
    assert not any("CANARY_UNRELATED" in line for line in lines)


def test_a_number_under_the_name_of_a_secret_is_not_told():
    assert bundle.environment({"VLLM_API_KEY": "123456"}) == "VLLM_API_KEY is set\n"


@pytest.mark.parametrize(
    ("name", "value", "is_told"),
    [
        ("RAY_DEDUP_LOGS", "true", True),
        ("VLLM_F", "FALSE", True),
        ("OMP_PLACES", "0,1:4", True),
        ("PYTORCH_VERSION", "2.13.0", True),
        ("LC_ALL", "C.UTF-8", True),
        ("VLLM_F", "pw", False),
        ("VLLM_F", "xxtrue", False),
        ("RAY_ADDRESS", "54.12.3.4:6379", False),
        ("VLLM_HOST_IP", "10.1.2.3", False),
        ("http_proxy", "54.1.2.3:3128", False),
    ],
)
def test_a_switch_is_told_in_any_case_and_an_address_is_no_number(name, value, is_told):
    assert bundle.environment({name: value}) == (f"{name}={value}\n" if is_told else f"{name} is set\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("joined 54.12.3.4:6379.", "joined <address>:6379."),
        ("--host=192.168.1.9 at 8.8.8.8", "--host=<address> at <address>"),
        ("http://[2001:db8::5]:8000/v1", "http://<address>:8000/v1"),
        ("tcp [fe80::1%eth0]:29500", "tcp <address>:29500"),
        ("[2001:db8:1:2:3:4:5:6]", "<address>"),
        ("http://[::1]:8000 127.0.0.1 0.0.0.0:80", "http://[::1]:8000 127.0.0.1 0.0.0.0:80"),
        (
            "nvidia-cublas==12.8.4.1 [03:24:18] driver 550.54.15",
            "nvidia-cublas==12.8.4.1 [03:24:18] driver 550.54.15",
        ),
    ],
)
def test_addresses_of_other_machines_are_replaced_and_versions_and_times_are_not(text, shown):
    assert bundle.redacted(text, {}) == shown


def test_the_same_findings_give_the_same_bytes(here):
    for name in ("a.zip", "b.zip"):
        bundle.write(here / name, [])
    assert (here / "a.zip").read_bytes() == (here / "b.zip").read_bytes()


def test_a_damaged_run_is_told_with_its_fault(here):
    run = run_with_log(here / "run", "")
    (run / "requests.parquet").write_bytes(b"no parquet")
    bundle.write(here / "b.zip", [run])
    assert "requests.parquet" in texts(here / "b.zip")["runs/1/faults.txt"]


def test_what_is_there_is_not_overwritten_and_nothing_is_left_half_written(here, monkeypatch):
    (here / "b.zip").write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        bundle.write(here / "b.zip", [])
    assert (here / "b.zip").read_text() == "mine"
    with pytest.raises(InputError, match="is not a run folder"):
        bundle.write(here / "c.zip", [here])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(StoreError, match="No space left"):
        bundle.write(here / "c.zip", [])
    assert sorted(each.name for each in here.iterdir()) == ["b.zip", "home"]


def test_the_command_says_what_is_in_it_and_where(here):
    done = CliRunner().invoke(app, ["doctor", "--bundle", str(here / "b.zip")])
    assert done.exit_code == 0
    assert all(name in done.output for name in NAMES)
    assert "look through it before you send it" in done.output
    with pytest.raises(InputError, match="RUN goes with --bundle"):
        CliRunner().invoke(app, ["doctor", str(here)], standalone_mode=False, catch_exceptions=False)
