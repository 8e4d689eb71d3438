"""The file through which simulated engines tell simulated boards how busy they are."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import nvml
from profiler.nvml.curves import Following
from profiler.nvml.load import HEARTBEAT_S, HOLD_S, Load, LoadWriter

IDLE_W, CONTEXT_W, LOADED_W = 70.0, 110.0, 660.0


def loaded(path: Path, *lines: tuple[float, int, str]) -> Load:
    with path.open("ab") as file:
        file.writelines(
            b"%d\t%d\t%s\n" % (round(t_s * 1e9), pid, state.encode()) for t_s, pid, state in lines
        )
    load = Load(path)
    load.refresh()
    return load


def test_nobody_is_busy_without_a_file(tmp_path: Path) -> None:
    for load in (Load(None), Load(tmp_path / "load")):
        load.refresh()
        assert load.busy_frac(5.0) is None
        assert load.held(5.0) == (0.0, 0.0)
        assert load.pids(5.0) == []


def test_levels_and_their_integrals(tmp_path: Path) -> None:
    load = loaded(tmp_path / "load", (10, 7, "0"), (11, 7, "0.5"), (12, 7, "1"), (13, 7, "-"))
    assert [load.busy_frac(t_s) for t_s in (9.9, 10.5, 11.5, 12.5, 13.5)] == [None, 0, 0.5, 1, None]
    assert load.held(13.5) == (3.0, 1.5)
    assert load.held(11.5) == (1.5, 0.25)
    board = Following(load, IDLE_W, CONTEXT_W, LOADED_W)
    assert [board.power_w(t_s) for t_s in (9, 10.5, 11.5, 12.5)] == [IDLE_W, CONTEXT_W, 385, LOADED_W]
    assert board.energy_j(13) - board.energy_j(10) == pytest.approx(CONTEXT_W + 385 + LOADED_W)
    assert board.energy_j(20) - board.energy_j(13) == pytest.approx(7 * IDLE_W)


def test_two_processes_add_up_to_one_at_most(tmp_path: Path) -> None:
    load = loaded(tmp_path / "load", (10, 7, "0.7"), (11, 8, "0.7"), (11.5, 7, "-"))
    assert [load.busy_frac(t_s) for t_s in (10.5, 11.2, 11.7)] == [0.7, 1.0, 0.7]
    assert load.pids(11.7) == [8]


def test_a_process_that_falls_silent_lets_go(tmp_path: Path) -> None:
    load = loaded(tmp_path / "load", (10, 7, "0.5"), (11, 8, "0.25"))
    at_s = [11, 10 + HOLD_S - 0.01, 10 + HOLD_S + 0.01, 11 + HOLD_S - 0.01, 11 + HOLD_S + 0.01]
    assert [load.busy_frac(t_s) for t_s in at_s] == [0.75, 0.75, 0.25, 0.25, None]
    assert load.pids(12.5) == [8]
    assert load.held(100) == pytest.approx((1 + HOLD_S, HOLD_S * 0.75))
    later = loaded(tmp_path / "load", (20, 9, "1"))  # the same is true once somebody else has written
    assert later.held(20) == pytest.approx((1 + HOLD_S, HOLD_S * 0.75))
    assert [later.busy_frac(t_s) for t_s in at_s] == [0.75, 0.75, 0.25, 0.25, None]


@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 4.0),
            st.integers(1, 3),
            st.one_of(st.just("-"), st.floats(0, 1).map(lambda f: f"{f:.4f}")),
        ),
        max_size=30,
    ),
    st.floats(0, 1),
)
def test_the_integral_is_that_of_the_levels_however_the_file_is_read(
    tmp_path_factory: pytest.TempPathFactory, waits: list[tuple[float, int, str]], cut: float
) -> None:
    """Against a sum over small steps; in one piece or as it grows, mid-line at that."""
    t_s, lines = 10.0, []
    for wait_s, pid, state in waits:
        t_s += round(wait_s, 2)
        lines.append(b"%d\t%d\t%s\n" % (round(t_s * 1e9), pid, state.encode()))
    path = tmp_path_factory.mktemp("load") / "load"
    content = b"".join(lines)
    growing = Load(path)
    path.write_bytes(content[: int(len(content) * cut)])
    growing.refresh()
    path.write_bytes(content)
    growing.refresh()
    whole = Load(path)
    whole.refresh()
    end_s = t_s + 3
    assert growing.held(end_s) == whole.held(end_s)
    step_s = (end_s - 10) / 3000
    times = [10 + (n + 0.5) * step_s for n in range(3000)]
    levels = [whole.busy_frac(each) for each in times]
    context_s = sum(step_s for each in levels if each is not None)
    busy_s = sum((each or 0) * step_s for each in levels)
    assert whole.held(end_s) == pytest.approx((context_s, busy_s), abs=2 * step_s * (len(lines) + 4))


def test_a_late_line_counts_from_the_one_before(tmp_path: Path) -> None:
    load = loaded(tmp_path / "load", (10, 7, "0.5"), (9.99, 8, "0.5"))
    assert load.busy_frac(9.995) is None
    assert load.busy_frac(10) == 1


def test_a_writer_tells_keeps_telling_and_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "load"
    load = Load(path)
    writer = LoadWriter(path)
    for busy in (0.1, 0.9, 0.4):
        writer.tell(busy)  # within a moment: the last one counts
    deadline = time.monotonic() + 10
    while len(path.read_bytes().splitlines()) < 4 and time.monotonic() < deadline:
        time.sleep(HEARTBEAT_S / 10)
    load.refresh()
    now_s = time.perf_counter()
    assert load.busy_frac(now_s) == 0.4
    assert load.pids(now_s) == [os.getpid()]
    writer.close()
    load.refresh()
    assert load.pids(time.perf_counter()) == []
    size = path.stat().st_size
    time.sleep(1.2 * HEARTBEAT_S)
    assert path.stat().st_size == size
    assert len(path.read_bytes().splitlines()) < 10


def test_the_library_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    monkeypatch.delenv(nvml.BOARDS_VARIABLE, raising=False)
    assert nvml.load() is pynvml
    monkeypatch.setenv(nvml.BOARDS_VARIABLE, "t4:3")
    assert nvml.load().simulated
    assert nvml.load() is nvml.load()
    assert len(nvml.load().boards) == 3


def test_a_missing_package_is_named_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(nvml.BOARDS_VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(ImportError, match="pip install nvidia-ml-py"):
        nvml.load()


def test_all_that_is_started_inside_shares_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(nvml.BOARDS_VARIABLE, "h100")
    monkeypatch.delenv(nvml.LOAD_VARIABLE, raising=False)
    show = [sys.executable, "-c", f"import os; print(os.environ[{nvml.LOAD_VARIABLE!r}])"]
    with nvml.shared_load():
        path = Path(os.environ[nvml.LOAD_VARIABLE])
        assert subprocess.check_output(show, text=True).strip() == str(path)
        with nvml.shared_load():
            assert os.environ[nvml.LOAD_VARIABLE] == str(path)
        writer = LoadWriter(path)
        load = Load(path)
        load.refresh()
        assert load.pids(time.perf_counter_ns() / 1e9) == [os.getpid()]
        writer.close()
    assert nvml.LOAD_VARIABLE not in os.environ
    assert not path.exists()


def test_without_simulated_boards_there_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(nvml.BOARDS_VARIABLE, raising=False)
    monkeypatch.delenv(nvml.LOAD_VARIABLE, raising=False)
    with nvml.shared_load():
        assert nvml.LOAD_VARIABLE not in os.environ
