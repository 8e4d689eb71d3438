"""The sampling process, for real: its file, its schedule, and that nothing outlives anything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from profiler.errors import MeasurementError
from profiler.nvml import BOARDS_VARIABLE, LOAD_VARIABLE
from profiler.nvml.curves import Following
from profiler.nvml.load import Load, LoadWriter
from profiler.nvml.wanted import kinds
from profiler.samples import Sample, read_samples, series, sources
from profiler.schema import ProbeStatus
from profiler.telemetry import Sampler
from profiler.telemetry.sampler import SampleFile, Ticker

from .test_engine_metrics import RECORDED, serving
from .test_rapl import zone

ROOT = Path(__file__).resolve().parents[2]


def eventually(true: Callable[[], bool], within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.02)
    return true()


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_watches_a_process_and_an_engine(tmp_path: Path) -> None:
    path = tmp_path / "samples"
    with serving(RECORDED) as url, Sampler(path, ()) as sampler:
        assert [status.probe for status in sampler.probes] == ["nvml", "rapl", "process"]
        sampler.watch("tiny", os.getpid(), url)
        assert eventually(lambda: {"engine:tiny", "process:tiny"} <= set(table_sources(path)))
        pid = sampler.pid
    assert pid is not None
    assert gone(pid)
    samples = read_samples(path)
    assert series(samples, "engine:tiny", "requests_running")[1][0] == 12
    assert series(samples, "process:tiny", "rss_bytes")[1][0] > 10 << 20


def table_sources(path: Path) -> list[str]:
    return list(read_samples(path)["source"].unique().to_pylist())


def test_unwatch_takes_a_last_sample_and_stops(tmp_path: Path) -> None:
    path = tmp_path / "samples"
    with Sampler(path, ()) as sampler:
        sampler.watch("a", os.getpid(), None)
        sampler.watch("b", os.getpid(), None)
        assert eventually(lambda: len(sources(read_samples(path), "process")) == 2)
        asked_ns = time.perf_counter_ns()
        sampler.unwatch("a")
        sampler.unwatch("never watched")
        time.sleep(1.3)
    samples = read_samples(path)
    after = series(samples, "process:a", "rss_bytes")[0]
    assert sum(after > asked_ns) == 1
    assert sum(series(samples, "process:b", "rss_bytes")[0] > asked_ns) >= 3


def test_the_windows_end_has_a_sample_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "samples"
    with Sampler(path, ()) as sampler:
        sampler.watch("a", os.getpid(), None)
        assert eventually(lambda: bool(table_sources(path)))
        end_ns = time.perf_counter_ns()
    assert series(read_samples(path), "process:a", "rss_bytes")[0][-1] > end_ns


def test_samples_go_behind_what_an_earlier_sampler_left(tmp_path: Path) -> None:
    path = tmp_path / "samples"
    path.write_bytes(b"5\tgpu:x\tpower_w\t300\n6")  # cut where the next line would lend it a wrong time
    with Sampler(path, ()) as sampler:
        sampler.watch("a", os.getpid(), None)
        assert eventually(lambda: len(table_sources(path)) > 1)
    samples = read_samples(path)
    assert series(samples, "gpu:x", "power_w")[1].tolist() == [300]
    assert series(samples, "process:a", "rss_bytes")[0].max() < time.perf_counter_ns()


PARENT = """
import sys, time
from pathlib import Path
from profiler.telemetry import Sampler
with Sampler(Path(sys.argv[1]), ()) as sampler:
    sampler.watch("me", None, None)
    print(sampler.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "samples")]
    started = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    yield started
    started.kill()
    started.communicate()


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_sampler_outlives_its_parent(parent: subprocess.Popen[str], blow: signal.Signals) -> None:
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not gone(pid)
    parent.send_signal(blow)
    assert eventually(lambda: gone(pid), within_s=5)


def test_ctrl_c_on_the_terminal_does_not_reach_the_sampler(tmp_path: Path) -> None:
    with Sampler(tmp_path / "samples", ()) as sampler:
        assert sampler.pid is not None
        assert os.getsid(sampler.pid) != os.getsid(0)
        os.kill(sampler.pid, signal.SIGINT)
        time.sleep(0.2)
        assert not gone(sampler.pid)
        sampler.watch("me", os.getpid(), None)


# Starts a sampler, forks a holder of its stdin, and dies: the pipe stays open though the parent is gone.
FORKED = """
import json, os, subprocess, sys, time
child = subprocess.Popen(
    [sys.executable, "-m", "profiler.telemetry.sampler"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
)
child.stdin.write(json.dumps({"path": sys.argv[1], "gpus": []}).encode() + b"\\n")
child.stdin.flush()
child.stdout.readline()
holder = os.fork()
if holder == 0:
    time.sleep(30)
else:
    print(child.pid, holder, flush=True)
os._exit(0)
"""


def test_it_ends_though_a_fork_of_the_parent_holds_its_stdin(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKED, str(tmp_path / "samples")]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert started.stdout is not None
    pid, holder = map(int, started.stdout.readline().split())
    try:
        assert eventually(lambda: gone(pid), within_s=5)
        assert not gone(holder)
    finally:
        os.kill(holder, signal.SIGKILL)
        started.communicate()


def test_a_sampler_that_was_killed_is_reported_in_one_line(tmp_path: Path) -> None:
    with Sampler(tmp_path / "samples", ()) as sampler:
        assert sampler.pid is not None
        os.kill(sampler.pid, signal.SIGKILL)
        # A zombie's last threads may hold its end of the pipe yet.
        assert eventually(lambda: (sampler.trouble() or "").startswith("ended"))
        with pytest.raises(MeasurementError, match="sampler ended: killed by SIGKILL; start"):
            sampler.watch("me", os.getpid(), None)


@pytest.mark.parametrize(
    ("blow", "why"), [(signal.SIGKILL, "ended (killed by SIGKILL)"), (signal.SIGSTOP, "fell silent")]
)
def test_one_that_died_or_stands_still_is_found_out_and_replaced(
    tmp_path: Path, blow: signal.Signals, why: str
) -> None:
    path = tmp_path / "samples"
    with Sampler(path, ()) as sampler:
        sampler.watch("me", os.getpid(), None)
        assert eventually(lambda: path.stat().st_size > 0)
        assert sampler.trouble() is None
        first = sampler.pid
        os.kill(first or 0, blow)
        assert eventually(lambda: sampler.trouble() == why)
        sampler.renew()
        assert sampler.pid != first
        assert gone(first or 0)
        assert sampler.trouble() is None
        before = path.stat().st_size
        assert eventually(lambda: path.stat().st_size > before)
    assert sources(read_samples(path), "process") == ["process:me"]


def test_an_unwritable_path_is_reported_at_the_start(tmp_path: Path) -> None:
    with (
        pytest.raises(MeasurementError, match="No such file or directory"),
        Sampler(tmp_path / "no" / "samples", ()),
    ):
        pass


def test_rapl_and_its_own_account_are_in_the_file(tmp_path: Path) -> None:
    zone(tmp_path / "powercap", "intel-rapl:0", "package-0", energy_uj=77)
    path = tmp_path / "samples"
    config = {"path": str(path), "gpus": [], "powercap": str(tmp_path / "powercap")}
    done = subprocess.run(
        [sys.executable, "-m", "profiler.telemetry.sampler"],
        input=json.dumps(config) + "\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=20,
        check=True,
    )
    assert {s["probe"]: s["usable"] for s in json.loads(done.stdout)}["rapl"]
    samples = read_samples(path)
    assert set(series(samples, "rapl:package-0", "energy_uj")[1]) == {77}
    assert series(samples, "sampler", "cpu_s")[1][-1] > 0
    assert series(samples, "sampler", "rapl_errors")[1].tolist() == [0]


class Scripted:
    """A probe that records when it was asked, and does what it is told meanwhile."""

    def __init__(self, act: Callable[[int], object] = lambda tick: None) -> None:
        self.asked_ns: list[int] = []
        self._act = act

    def status(self) -> ProbeStatus:
        return ProbeStatus(probe="scripted", usable=True, detail="")

    def sample(self) -> Iterable[Sample]:
        self.asked_ns.append(time.perf_counter_ns())
        self._act(len(self.asked_ns))
        yield Sample(self.asked_ns[-1], "scripted", "tick", len(self.asked_ns))


def account(ticker: Ticker) -> dict[str, float]:
    return {s.name: s.value for s in ticker.account("p", 0)}


@pytest.mark.timing
def test_ticks_do_not_drift(tmp_path: Path) -> None:
    probe = Scripted(
        lambda tick: time.sleep(0.004)
    )  # work that a naive sleep(period) would add to the period
    ticker = Ticker(probe, 0.02, SampleFile(tmp_path / "samples"))
    time.sleep(1.0)
    ticker.stop()
    ticker.join(1.0)
    told = account(ticker)
    ticks = len(probe.asked_ns) - 1  # the last is the one taken at the stop
    assert ticks + told["p_missed_ticks"] == pytest.approx(50, abs=2)
    phase_s = [(t - probe.asked_ns[0]) / 1e9 % 0.02 for t in probe.asked_ns[:-1]]
    off_s = sorted(min(p, 0.02 - p) for p in phase_s)
    assert off_s[len(off_s) // 2] < 0.003
    assert max(off_s) <= told["p_late_max_s"] + 0.003


def test_lateness_is_reported_and_missed_ticks_are_not_made_up(tmp_path: Path) -> None:
    probe = Scripted(lambda tick: time.sleep(0.11) if tick == 3 else None)
    ticker = Ticker(probe, 0.02, SampleFile(tmp_path / "samples"))
    assert eventually(lambda: len(probe.asked_ns) >= 6)
    ticker.stop()
    ticker.join(1.0)
    told = account(ticker)
    assert told["p_missed_ticks"] >= 4
    assert (probe.asked_ns[3] - probe.asked_ns[2]) / 1e9 >= 0.11
    assert account(ticker)["p_late_max_s"] == 0  # each report starts anew


def test_a_probe_that_raises_is_counted_and_asked_again(tmp_path: Path) -> None:
    def act(tick: int) -> None:
        if tick % 2:
            raise OSError("the counter could not be read")

    probe = Scripted(act)
    ticker = Ticker(probe, 0.01, SampleFile(tmp_path / "samples"))
    assert eventually(lambda: len(probe.asked_ns) >= 6)
    ticker.stop()
    ticker.join(1.0)
    assert account(ticker)["p_errors"] >= 3
    ticks = series(read_samples(tmp_path / "samples"), "scripted", "tick")[1]
    assert len(ticks) >= 3
    assert all(tick % 2 == 0 for tick in ticks)


def test_a_full_disk_leaves_no_broken_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "samples"
    file = SampleFile(path)
    file.append([Sample(1, "a", "x", 1.0)])
    real = os.write
    calls: list[int] = []

    def full(descriptor: int, data: bytes) -> int:
        calls.append(descriptor)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:5])

    with monkeypatch.context() as patched:
        patched.setattr("profiler.telemetry.sampler.os.write", full)
        with pytest.raises(OSError, match="No space"):
            file.append([Sample(2, "a", "x", 2.0)])
    file.append([Sample(3, "a", "x", 3.0)])
    assert path.read_bytes() == b"1\ta\tx\t1\n3\ta\tx\t3\n"


@pytest.mark.timing
def test_a_slow_server_does_not_delay_the_counters(tmp_path: Path) -> None:
    """With a server that never answers in time and a process under watch, RAPL keeps its schedule."""
    zone(tmp_path / "powercap", "intel-rapl:0", "package-0")
    path = tmp_path / "samples"
    config = {"path": str(path), "gpus": [], "powercap": str(tmp_path / "powercap")}
    with serving(RECORDED, delay_s=3.0) as url:
        child = subprocess.Popen(
            [sys.executable, "-m", "profiler.telemetry.sampler"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        watch = {"command": "watch", "name": "slow", "pid": os.getpid(), "metrics_url": url}
        lines = f"{json.dumps(config)}\n{json.dumps(watch)}\n".encode()
        assert child.stdin is not None
        child.stdin.write(lines)
        child.stdin.flush()
        time.sleep(3.4)
        child.communicate()
    samples = read_samples(path)
    assert series(samples, "sampler", "rapl_late_max_s")[1].max() < 0.25
    assert series(samples, "sampler", "rapl_missed_ticks")[1][-1] == 0
    assert series(samples, "engine:slow", "scrape_failures")[1][-1] >= 2


def simulated_run(path: Path, monkeypatch: pytest.MonkeyPatch, description: str, lasting_s: float) -> Any:
    """What a sampler writes of simulated boards; a child of ours keeps them half busy from 0.3 s on."""
    monkeypatch.setenv(BOARDS_VARIABLE, description)
    monkeypatch.setenv(LOAD_VARIABLE, str(path / "load"))
    with Sampler(path / "samples", None) as sampler:
        time.sleep(0.3)
        writer = LoadWriter(path / "load")
        writer.tell(0.5)
        sampler.watch("engine", os.getpid(), None)
        time.sleep(lasting_s - 0.3)
        writer.close()
    return sampler.probes[0], read_samples(path / "samples")


@pytest.mark.parametrize(
    ("description", "boards", "period_s"), [("h100", 1, 0.1), ("a100:2", 2, 0.1), ("geforce", 1, 0.5)]
)
def test_energy_of_simulated_boards_is_that_of_their_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, description: str, boards: int, period_s: float
) -> None:
    """The counter's steps against the truth, computed from what the load itself wrote down."""
    status, samples = simulated_run(tmp_path, monkeypatch, description, 3.6)
    assert status.usable
    assert "simulated" in status.detail
    gpus = sources(samples, "gpu")
    assert len(gpus) == boards
    load = Load(tmp_path / "load")
    load.refresh()
    kind = kinds()[description.partition(":")[0]]
    truth = Following(load, kind.idle_w, kind.context_w, kind.loaded_w)
    for gpu in gpus:
        times, within = series(samples, gpu, "energy_seen_within_s")
        counted = dict(zip(*series(samples, gpu, "energy_mj"), strict=True))
        first, last = times[0], times[-1]
        # Each edge is known to within one poll; power there is at most the loaded one.
        slack_j = (within[0] + within[-1]) * kind.loaded_w + 0.002
        joules = truth.energy_j(last / 1e9) - truth.energy_j(first / 1e9)
        assert (counted[last] - counted[first]) / 1000 == pytest.approx(joules, abs=slack_j)
        (found,) = series(samples, gpu, "energy_period_s")[1]
        assert found == pytest.approx(period_s, rel=0.05)
        assert series(samples, gpu, "foreign_processes")[1].max() == 0
        assert not len(series(samples, gpu, "lost")[0])
    assert series(samples, "sampler", "nvml_errors")[1][-1] == 0
    assert series(samples, "sampler", "nvml_energy_errors")[1][-1] == 0


def test_the_end_of_a_run_has_a_step_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter that steps every half second, and a sampler that is stopped at any time."""
    monkeypatch.setenv(BOARDS_VARIABLE, "geforce")
    with Sampler(tmp_path / "samples", None):
        time.sleep(0.7)
        asked_ns = time.perf_counter_ns()
    samples = read_samples(tmp_path / "samples")
    times, _ = series(samples, sources(samples, "gpu")[0], "energy_seen_within_s")
    assert times[-1] > asked_ns


def test_boards_in_mig_mode_foreign_tenants_and_missing_readings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, samples = simulated_run(tmp_path, monkeypatch, "h100?foreign=2&unexplained_gib=1&no=energy", 1.4)
    gpu = sources(samples, "gpu")[0]
    assert shared.usable
    assert "has no energy_mj" in shared.detail
    assert not len(series(samples, gpu, "energy_mj")[0])
    assert set(series(samples, gpu, "foreign_processes")[1]) == {2}
    assert set(series(samples, gpu, "unexplained_bytes")[1]) == {1 << 30}
    (tmp_path / "mig").mkdir()
    split, samples = simulated_run(tmp_path / "mig", monkeypatch, "h100?mig=2", 0.5)
    assert "is in MIG mode: its power is the whole board's" in split.detail
    assert set(series(samples, gpu, "mig_enabled")[1]) == {1}
    assert len(series(samples, gpu, "energy_mj")[0]) > 2
    assert not len(series(samples, gpu, "foreign_processes")[0])


def test_a_lost_board_is_told_and_the_sampler_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, samples = simulated_run(tmp_path, monkeypatch, "h100:2?lost_after_s=0.6", 1.2)
    assert status.usable
    for gpu in sources(samples, "gpu"):
        assert series(samples, gpu, "lost")[1].tolist() == [1]
        assert series(samples, gpu, "lost")[0][0] >= series(samples, gpu, "power_w")[0][-1]
    assert series(samples, "sampler", "nvml_errors")[1][-1] >= 3
    assert series(samples, "process:engine", "rss_bytes")[0][-1] > series(samples, gpu, "lost")[0][0]


@pytest.mark.parametrize(
    ("description", "mend"),
    [
        ("h100?permission=denied", "/dev/nvidia* may not be opened"),
        ("h100?driver=mismatch", "reload the nvidia kernel modules"),
        ("h100:0", "sees no GPU"),
    ],
)
def test_boards_that_cannot_be_read_leave_the_rest_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, description: str, mend: str
) -> None:
    status, samples = simulated_run(tmp_path, monkeypatch, description, 0.4)
    assert not status.usable
    assert mend in status.detail
    assert sources(samples, "gpu") == []
    assert sources(samples, "process") == ["process:engine"]


def test_a_probe_that_fails_keeps_what_it_had_read(tmp_path: Path) -> None:
    class Halfway(Scripted):
        def sample(self) -> Iterable[Sample]:
            yield from super().sample()
            raise OSError("the second board is lost")

    probe = Halfway()
    ticker = Ticker(probe, 0.01, SampleFile(tmp_path / "samples"))
    assert eventually(lambda: len(probe.asked_ns) >= 3)
    ticker.stop()
    ticker.join(1.0)
    told = account(ticker)
    assert told["p_errors"] == len(probe.asked_ns)
    assert len(series(read_samples(tmp_path / "samples"), "scripted", "tick")[0]) == len(probe.asked_ns)


def test_a_probe_may_change_its_pace(tmp_path: Path) -> None:
    pace = [0.001]
    probe = Scripted(lambda tick: pace.__setitem__(0, 5.0) if tick == 5 else None)
    ticker = Ticker(probe, lambda: pace[0], SampleFile(tmp_path / "samples"))
    assert eventually(lambda: len(probe.asked_ns) >= 5)
    time.sleep(0.1)
    ticker.stop()
    ticker.join(1.0)
    assert len(probe.asked_ns) == 6
