"""Rows of the machine: boards that fail, a calendar that is set, a second run beside the first."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from profiler import store
from tests.harden.cell import COMMAND, ROOT, Live
from tests.harden.nouns import PHASES, Case, Expect, Phase
from tests.harden.rows_machine import NO_BASELINES, compared, complete, row

HOUR_S = 3600
# A window that a blow is sure to fall into, with several readings of each kind on both sides of it.
LONGER = (*NO_BASELINES, "--set", "measure.window_s=4", "--set", "measure.max_window_s=6")

# ------------------------------------------------------------------------------ boards


def _boards(live: Live) -> None:
    live.env["PROFILER_SIMULATED_NVML"] = f"h100?power_w=400&later={live.folder}/later"


def _board(
    words: str, look: Callable[[Live], None], before: Callable[[Live], None] | None = None
) -> dict[Phase, Case | str]:
    """``before``: what is true where it struck before the windows, unless that is the same."""

    def strike(live: Live) -> None:
        beside = live.folder / "beside"
        beside.write_text(words)
        beside.rename(live.folder / "later")

    def case(seen: Callable[[Live], None]) -> Case:
        return Case(prepare=_boards, strike=strike, look=seen, words=LONGER, expect=complete())

    early = case(before or look)
    why = "every window has been read by then"
    return {"start": early, "warm-up": early, "window": case(look), "shutdown": why}


def _whole_or_none(live: Live) -> None:
    for each in compared(live):
        watts = each["power_w_mean"]
        is_whole = watts is not None and 380 < watts < 420
        assert is_whole or (watts is None and "went backwards" in each["notes"]), (
            f"{watts} W: {each['notes']}"
        )


def _no_power(reason: str) -> Callable[[Live], None]:
    def look(live: Live) -> None:
        last = compared(live)[-1]
        assert last["power_w_mean"] is None, f"{last['power_w_mean']} W of a board that did not tell"
        assert reason in last["notes"], f"no reason: {last['notes']}"

    return look


def _is_in_notes(words: str) -> Callable[[Live], None]:
    def look(live: Live) -> None:
        told = f"{compared(live)[-1]['notes']} {compared(live)[-1]['energy_trouble']}"
        assert words in told, f"{words!r} is not said: {told}"

    return look


# ------------------------------------------------------------------------------ clock


def _no_compiler() -> str | None:
    return None if shutil.which("gcc") else "no compiler for the shim that moves the calendar"


def _shimmed(live: Live) -> None:
    library = live.folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    (live.folder / "shift").write_text("0")
    (live.folder / "slept").write_text("0")
    files = {"CLOCK_SHIFT": live.folder / "shift", "CLOCK_SLEPT": live.folder / "slept"}
    live.env |= {"LD_PRELOAD": str(library)} | {name: str(path) for name, path in files.items()}


def _write(live: Live, name: str, seconds: int) -> None:
    beside = live.folder / f"{name}.new"
    beside.write_text(str(seconds))
    beside.rename(live.folder / name)


def _slept_for_an_hour(live: Live) -> None:
    said = " ".join(str(each["client_bound"]) for each in compared(live))
    assert "stood still for 3600" in said, f"it is not said: {said}"


def _asleep() -> dict[Phase, Case | str]:
    case = Case(
        prepare=_shimmed,
        strike=lambda live: _write(live, "slept", HOUR_S),
        look=_slept_for_an_hour,
        words=LONGER,
        expect=complete(),
    )
    why = "no load is offered then"
    return {
        "start": why,
        "warm-up": "see *window*: what is warmed up is not timed",
        "window": case,
        "shutdown": why,
    }


def _set_clock(hours: int) -> dict[Phase, Case | str]:
    def strike(live: Live) -> None:
        _write(live, "shift", hours * HOUR_S)

    def look(live: Live) -> None:
        (folder,) = live.run_folders()
        run = store.load(folder).manifest
        assert run.run_id == folder.name
        for window in run.windows:
            took_s = ((window.steady_end_ns or 0) - (window.steady_start_ns or 0)) / 1e9
            assert 2.4 < took_s < 4.2, f"a window of {took_s} s"
        assert all(0 < took_s < 20 for took_s in run.starts_s), f"engine starts of {run.starts_s} s"
        assert all(each["requests_failed"] == 0 for each in compared(live))

    case = Case(
        prepare=_shimmed,
        strike=strike,
        look=look,
        expect=Expect(code=0, says=None, status="complete", windows=2, outcomes=frozenset(), within_s=90),
    )
    return dict.fromkeys(PHASES, case)


def _set_clock_and_resume(live: Live) -> None:
    (live.folder / "shift").write_text(str(-7 * HOUR_S))
    live.send(signal.SIGTERM)


# ------------------------------------------------------------------------------ neighbours


def _second(live: Live, *words: str, out: str = "results") -> subprocess.CompletedProcess[str]:
    """Another `profile` beside the one under way."""
    env = {name: value for name, value in (os.environ | live.env).items() if value is not None}
    argv = [
        sys.executable,
        "-m",
        "profiler",
        *(words or (*COMMAND, "--model", "sim", *live.words, "--out", out)),
    ]
    return subprocess.run(
        argv,
        check=False,
        capture_output=True,
        text=True,
        cwd=live.folder,
        env=env | {"PYTHONPATH": str(ROOT)},
    )


def _shared_boards(live: Live) -> None:
    live.env |= {
        "PROFILER_SIMULATED_NVML": "h100?power_w=400",
        "PROFILER_SIMULATED_LOAD": str(live.folder / "load.tsv"),
    }


def _second_on_the_gpu(live: Live) -> None:
    done = _second(live, out="other")
    assert live.process is not None
    assert done.returncode == 2, f"the second ended with {done.returncode}: {done.stderr[-300:]}"
    said = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(said) == 1, done.stderr
    assert f"process {live.process.pid}" in said[0], said
    assert f"{live.folder}/results" in said[0], said
    assert not any((live.folder / "other").glob("*/*")), "the second left a run folder"


def _second_in_the_folder(live: Live) -> None:
    done = _second(live)
    assert done.returncode == 0, done.stderr[-300:]
    mine = max(live.run_folders(), key=lambda each: store.load(each).manifest.clock_ns)
    shutil.rmtree(mine)  # one is left to be looked over


def _resumed_meanwhile(live: Live) -> None:
    (folder,) = live.run_folders()
    done = _second(live, "resume", str(folder))
    assert done.returncode == 2, done.stderr[-300:]
    assert "is being written by another process" in done.stderr, done.stderr


def _beside(strike: Callable[[Live], None], **more: Any) -> dict[Phase, Case | str]:
    case = Case(strike=strike, expect=complete(), **more)
    why = "the other one runs through all phases of this one"
    return {"start": why, "warm-up": case, "window": why, "shutdown": why}


ROWS = [
    row("GPU lost", "GPU", "it falls off the bus", _board("lost_after_s=0", _no_power("the GPU was lost"))),
    row(
        "driver reloaded",
        "GPU",
        "its energy counter begins anew",
        _board("reset_after_s=0.5", _no_power("went backwards"), _whole_or_none),
    ),
    row(
        "driver unloaded",
        "GPU",
        "NVML answers nothing any more",
        _board("unloaded_after_s=0", _no_power("sample")),
    ),
    row(
        "GPU held back",
        "GPU",
        "hardware slowdown",
        _board("held_back=8", _is_in_notes("hardware slowdown")),
    ),
    row("GPU shared", "GPU", "a process of somebody else's", _board("foreign=1", _is_in_notes("shared_gpu"))),
    row("clock set ahead", "machine", "the calendar, by 5 hours", _set_clock(5), _no_compiler),
    row("clock set back", "machine", "the calendar, by 5 hours", _set_clock(-5), _no_compiler),
    row("machine slept", "machine", "an hour passed in which its clock stood still", _asleep(), _no_compiler),
    row(
        "clock set, then resume",
        "machine",
        "the calendar back by 7 hours, SIGTERM, `profile resume`",
        {
            **dict.fromkeys(("start", "warm-up", "shutdown"), "as in a window"),
            "window": Case(
                prepare=_shimmed,
                strike=_set_clock_and_resume,
                expect=Expect(code=130, says="interrupted", status="interrupted", windows=1, resumes=True),
            ),
        },
        _no_compiler,
    ),
    row(
        "two on one GPU",
        "machine",
        "a second `profile run` on the same boards is refused, and names the first",
        _beside(_second_on_the_gpu, prepare=_shared_boards, words=NO_BASELINES),
    ),
    row(
        "two in one folder",
        "disk",
        "a second `profile run` with the same --out",
        _beside(_second_in_the_folder),
    ),
    row("resume of a run under way", "disk", "`profile resume` of its folder", _beside(_resumed_meanwhile)),
]
