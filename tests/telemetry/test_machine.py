"""CPU time of the machine and of ourselves, on the real /proc and on a made one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from profiler.telemetry.machine import MachineProbe

BURN = "while True: pass"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}])"
MADE = """cpu  9 9 9 9 9 9 9 9 9 9
{lines}
intr 1 2 3
ctxt 5
"""


@pytest.fixture
def burning() -> Iterator[subprocess.Popen[bytes]]:
    """A process whose child computes all the time."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], start_new_session=True)
    yield parent
    os.killpg(parent.pid, 9)
    parent.wait()


def now(probe: MachineProbe) -> dict[str, float]:
    return {sample.name: sample.value for sample in probe.sample()}


def grown(probe: MachineProbe, name: str, by_s: float, of: MachineProbe) -> dict[str, float]:
    """What ``of`` grew by until ``name`` of ``probe`` had grown by so much; a busy machine takes longer."""
    first, own = now(of), now(probe)[name]
    deadline = time.monotonic() + 30
    while now(probe)[name] - own < by_s and time.monotonic() < deadline:
        time.sleep(0.05)
    return {key: value - first[key] for key, value in now(of).items()}


def test_what_ours_spend_is_ours_and_the_machines(burning: subprocess.Popen[bytes]) -> None:
    probe = MachineProbe(lambda: [burning.pid])
    found = grown(probe, "own_s", 0.6, probe)
    assert found["own_s"] >= 0.6
    assert found["busy_s"] >= 0.5  # counted in ticks
    assert found["cpus"] == 0


def test_what_strangers_spend_is_the_machines_alone(burning: subprocess.Popen[bytes]) -> None:
    ours = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        watching = MachineProbe(lambda: [burning.pid])
        found = grown(watching, "own_s", 0.6, MachineProbe(lambda: [ours.pid]))
        assert found["busy_s"] >= 0.5
        assert found["own_s"] <= 0.1
    finally:
        ours.communicate(b"\n")


@pytest.mark.parametrize("is_outer_first", [True, False])
def test_a_root_inside_another_tree_counts_once(
    burning: subprocess.Popen[bytes], is_outer_first: bool
) -> None:
    while not (children := psutil.Process(burning.pid).children()):
        time.sleep(0.01)
    single = MachineProbe(lambda: [children[0].pid])
    grown(single, "own_s", 0.9, single)
    first, second = (burning.pid, children[0].pid)[:: 1 if is_outer_first else -1]
    roots = [first]
    nested = MachineProbe(lambda: roots)
    now(nested)
    roots.append(second)
    assert 0.9 <= now(nested)["own_s"] < now(single)["own_s"] + 0.6  # the parent's own start


def test_a_later_root_is_ours_from_then_on(burning: subprocess.Popen[bytes]) -> None:
    roots: list[int] = []
    probe = MachineProbe(lambda: roots)
    assert now(probe)["own_s"] == 0
    roots.append(burning.pid)
    assert grown(probe, "own_s", 0.3, probe)["own_s"] >= 0.3


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3}, raising=False)
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    lines = [f"cpu{number} 100 20 30 999 7 50 60 {number} 40 0" for number in range(4)]
    (tmp_path / "stat").write_text(MADE.format(lines="\n".join(lines)))
    return tmp_path


def test_cpus_that_we_may_not_use_and_interrupts_do_not_count(made: Path) -> None:
    probe = MachineProbe(list, made)
    assert probe.is_usable
    assert now(probe) == {"cpus": 2, "busy_s": 3.0, "steal_s": 0.04, "own_s": 0}


def test_a_kernel_that_knows_no_steal_says_nothing_of_it(made: Path) -> None:
    (made / "stat").write_text(MADE.format(lines="cpu1 100 0 0 9 9 9 9\ncpu3 100 0 0 9 9 9 9"))
    assert now(MachineProbe(list, made)) == {"cpus": 2, "busy_s": 2.0, "own_s": 0}


@pytest.mark.parametrize("text", ["", "cpu1 0 0 0 0 0 0 0 0\n", "cpu1 a b c\n", "cpu1\n"])
def test_a_system_that_counts_nothing_is_of_no_use(made: Path, text: str) -> None:
    (made / "stat").write_text(text)
    assert not MachineProbe(list, made).is_usable
    (made / "stat").unlink()
    assert not MachineProbe(list, made).is_usable
