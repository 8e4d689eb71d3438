"""A Chromium where one can be had, clear words where not.  Nothing is installed: apt-get is a script here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools" / "install_browser.py"
FAKE = "#!/bin/sh\nexit 0\n"


def script(folder: Path, name: str, text: str = FAKE) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": str(folder), **environment}
    return subprocess.run([sys.executable, str(TOOL)], env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["chromium", "google-chrome"])
def test_one_that_is_there_is_left_alone(tmp_path, name):
    script(tmp_path, name)
    script(tmp_path, "apt-get", "#!/bin/sh\nexit 7\n")
    assert (run(tmp_path).returncode, run(tmp_path).stdout) == (0, "")


def test_one_can_be_named(tmp_path):
    named = script(tmp_path, "my-browser")
    assert run(tmp_path, PROFILER_CHROMIUM=str(named), PROFILER_NEEDS_BROWSER="1").returncode == 0
    wrong = run(tmp_path, PROFILER_CHROMIUM=str(tmp_path / "absent"), PROFILER_NEEDS_BROWSER="1")
    assert wrong.returncode == 1


def test_without_a_way_it_says_how_and_only_a_need_fails(tmp_path):
    said = run(tmp_path)
    assert said.returncode == 0
    assert "will be skipped" in said.stderr
    assert "apt-get install chromium" in said.stderr
    assert run(tmp_path, PROFILER_NEEDS_BROWSER="1").returncode == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="another user needs sudo")
def test_root_installs_debians_package(tmp_path):
    log = tmp_path / "log"
    script(
        tmp_path,
        "apt-get",
        f'#!/bin/sh\necho "$@" >> {log}\n[ "$1" = install ] && : > {tmp_path}/chromium'
        f" && /bin/chmod +x {tmp_path}/chromium\nexit 0\n",
    )
    assert run(tmp_path, PROFILER_NEEDS_BROWSER="1").returncode == 0
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["update", "install"]
    assert "chromium" in log.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="another user needs sudo")
def test_a_failed_installation_is_told_in_its_words(tmp_path):
    script(tmp_path, "apt-get", "#!/bin/sh\necho 'E: no such mirror' >&2\nexit 100\n")
    said = run(tmp_path, PROFILER_NEEDS_BROWSER="1")
    assert said.returncode == 1
    assert "E: no such mirror" in said.stderr
