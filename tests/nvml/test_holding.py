"""One run a GPU: who comes second is told by whom it is held; whoever dies holds nothing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from profiler.errors import InputError
from profiler.nvml import BOARDS_VARIABLE, LOAD_VARIABLE, holding

BOARD = "GPU-of-the-tests-of-holding"
OTHER = """
import sys
from pathlib import Path
from profiler.nvml import holding
with holding.held([sys.argv[1]], Path("elsewhere")):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    monkeypatch.setattr(holding, "FOLDERS", (str(tmp_path),))
    monkeypatch.delenv(BOARDS_VARIABLE, raising=False)
    monkeypatch.delenv(LOAD_VARIABLE, raising=False)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the board."""
    code = OTHER.replace("with ", f"holding.FOLDERS = ({str(tmp_path)!r},)\nwith ", 1)
    argv = [sys.executable, "-c", code, BOARD]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_is_told_by_whom_it_is_held(other: subprocess.Popen[str], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught, holding.held(["GPU-free", BOARD], tmp_path):
        pytest.fail("it was held twice")
    said = str(caught.value)
    assert f"{BOARD} is being measured by process {other.pid}, whose results go to " in said
    assert f"{Path.cwd()}/elsewhere" in said
    assert "CUDA_VISIBLE_DEVICES" in said
    with holding.held(["GPU-free"], tmp_path):
        pass


def test_the_dead_hold_nothing_and_no_file_stays(other: subprocess.Popen[str], tmp_path: Path) -> None:
    other.kill()
    other.wait()
    assert len(list(tmp_path.iterdir())) == 1
    with holding.held([BOARD], tmp_path):
        assert len(list(tmp_path.iterdir())) == 1
    assert not list(tmp_path.iterdir())


def is_free(tmp_path: Path) -> bool:
    """For another thread, which is to the lock as another process is."""

    def ask() -> bool:
        try:
            with holding.held([BOARD], tmp_path):
                return True
        except holding.TakenError:
            return False

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(ask).result()


def test_what_is_kept_is_held_again_by_its_own_and_free_to_others_at_the_end(tmp_path: Path) -> None:
    with holding.kept():
        for _ in range(2):
            with holding.kept(), holding.held([BOARD], tmp_path), holding.held([BOARD, "GPU-b"], tmp_path):
                pass
            assert not is_free(tmp_path)
    assert is_free(tmp_path)
    with holding.held([BOARD], tmp_path):
        pass
    assert is_free(tmp_path)


def test_a_full_disk_keeps_nobody_from_the_lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def is_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", is_full)
        with holding.held([BOARD], tmp_path):
            assert not is_free(tmp_path)
    assert is_free(tmp_path)


def test_all_users_lock_in_one_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own, all_may = tmp_path / "own", tmp_path / "all"
    own.mkdir(mode=0o755)
    all_may.mkdir()
    all_may.chmod(0o1777)
    monkeypatch.setattr(holding, "FOLDERS", (str(tmp_path / "none"), str(own), str(all_may)))
    with holding.held([BOARD], tmp_path):
        assert len(list(all_may.iterdir())) == 1
        assert not list(own.iterdir())


def test_simulated_boards_are_the_same_where_they_follow_one_load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(BOARDS_VARIABLE, "h100")
    monkeypatch.setenv(LOAD_VARIABLE, "one")
    with holding.held([BOARD], tmp_path):
        with pytest.raises(InputError, match=f"process {os.getpid()}"), holding.held([BOARD], tmp_path):
            pytest.fail("it was held twice")
        monkeypatch.setenv(LOAD_VARIABLE, "another")
        with holding.held([BOARD], tmp_path):
            pass


def test_where_no_lock_can_be_had_nobody_is_kept_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(holding, "FOLDERS", ())
    with holding.held([BOARD], tmp_path), holding.held([BOARD], tmp_path):
        pass
