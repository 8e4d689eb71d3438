"""The process probe on real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from profiler.procfs import pss_bytes
from profiler.telemetry import process, tree
from profiler.telemetry.process import ProcessProbe

MIB = 1 << 20
# A parent that starts a child; the child takes 200 MiB when told to, and one line says when it has.
PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", '''
import sys
print("up", flush=True)
sys.stdin.readline()
held = bytearray(200 << 20)
print("held", flush=True)
sys.stdin.readline()
'''])
child.wait()
sys.stdin.readline()
"""


@pytest.fixture
def family() -> Iterator[subprocess.Popen[str]]:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "up\n"
    yield parent
    for member in [*psutil.Process(parent.pid).children(recursive=True), psutil.Process(parent.pid)]:
        member.kill()
    parent.communicate()


def tell(parent: subprocess.Popen[str], answer: str) -> None:
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write("\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == answer


def now(probe: ProcessProbe) -> dict[str, float]:
    return {s.name: s.value for s in probe.sample()}


def test_a_childs_200_mib_are_seen_in_rss_and_pss(
    family: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "PSS_DUTY_FRAC", 1e9)  # read PSS at every sample
    probe = ProcessProbe("engine", family.pid)
    before = now(probe)
    tell(family, "held\n")
    after = now(probe)
    assert before["processes"] == after["processes"] == 2
    assert 190 * MIB < after["rss_bytes"] - before["rss_bytes"] < 210 * MIB
    assert 190 * MIB < after["pss_bytes"] - before["pss_bytes"] < 210 * MIB
    # Both processes map the same interpreter: RSS counts it twice, PSS once.
    assert after["pss_bytes"] < after["rss_bytes"] - MIB


def test_a_child_born_after_the_watch_began_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "REFRESH_S", 0.0)
    probe = ProcessProbe("me", os.getpid())
    before = now(probe)["processes"]
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert now(probe)["processes"] == before + 1
    finally:
        child.communicate(b"\n")


def test_cpu_seconds_only_grow_even_when_a_member_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "REFRESH_S", 0.0)
    probe = ProcessProbe("me", os.getpid())
    burn = "import time\nwhile time.process_time() < 0.4: pass\nprint(flush=True)\ninput()"
    child = subprocess.Popen(
        [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    before = now(probe)["cpu_s"]
    assert child.stdout is not None
    child.stdout.readline()
    during = now(probe)["cpu_s"]
    child.communicate("\n")
    assert during - before >= 0.25
    assert now(probe)["cpu_s"] >= during


def test_pss_is_read_no_oftener_than_its_share_of_a_core_allows() -> None:
    probe = ProcessProbe("me", os.getpid())
    assert "pss_bytes" in now(probe)
    started = time.perf_counter()
    while "pss_bytes" not in now(probe):
        time.sleep(0.002)
    assert time.perf_counter() - started > 0.01  # a read takes over 0.1 ms, so the next is 200 × that away


def test_a_process_that_is_gone_gives_a_status_and_no_samples() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    probe = ProcessProbe("gone", child.pid)
    assert not probe.status().usable
    assert list(probe.sample()) == []
    assert pss_bytes(child.pid) is None


def test_a_process_that_ends_while_watched_stops_giving_samples() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    probe = ProcessProbe("ending", child.pid)
    assert now(probe)["processes"] == 1
    child.communicate(b"\n")
    assert list(probe.sample()) == []
