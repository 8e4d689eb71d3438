"""Boards are warmed until steady: the load is held, nothing of it is kept, and what was reached is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from profiler import prepare, warming
from profiler.engines.base import RunningEngine
from profiler.errors import EngineError
from profiler.loadgen.job import LoadJob, Progress
from profiler.samples import Sample, encode
from profiler.schema import Endpoint, EngineFacts, LoadPoint, ProbeStatus
from profiler.settings import Measure, Timeouts, Workload
from profiler.subject import Slot, Subject
from profiler.warming import SPAN_S, STEADY_C, Thermometer, Warmth, warm

S = 10**9
GPUS = ("GPU-0", "GPU-1", "GPU-2", "GPU-hot")
JOB = LoadJob(
    endpoint=Endpoint(base_url="http://127.0.0.1:1/v1", model="m"),
    workload=Workload(input_tokens=8, output_tokens=8),
    point=LoadPoint(mode="closed", concurrency=2),
    measure=Measure(window_s=5, min_requests=100),
    timeouts=Timeouts(),
    window=3,
    repeat=0,
    engine_start=0,
    records_path="kept.parquet",
    prompt_salt=7,
)


PROGRESS = Progress(
    phase="measuring", elapsed_s=1, expected_s=2, chunks_per_s=None, in_flight=1, done=3, failed=0
)


def temperatures(start_s, values, board="GPU-1", every_s=0.5):
    return [
        Sample(round((start_s + n * every_s) * S), f"gpu:{board}", "temperature_c", value)
        for n, value in enumerate(values)
    ]


class Heater:
    """Stands in for the load worker: each look brings the next temperature into the sample file."""

    def __init__(self, path: Path, values, rounds=1) -> None:
        self.path, self.values, self.each = path, list(values), len(values) // rounds
        self.at_ns = 1000 * S
        self.jobs: list[LoadJob] = []

    def run(self, job, on_progress, check):
        self.jobs.append(job)
        for _ in range(self.each):
            with self.path.open("ab") as file:
                file.write(encode([Sample(self.at_ns, "gpu:GPU-1", "temperature_c", self.values.pop(0))]))
            self.at_ns += S // 2
            on_progress(PROGRESS)
            check()


def heated(tmp_path, values, rounds=1, max_s=60.0, **changes):
    path = tmp_path / "samples"
    path.write_bytes(encode(temperatures(990, [40])))
    heater = Heater(path, values, rounds)
    said: list[str] = []
    found = warm(JOB, heater, path, GPUS, max_s, said.append, changes.get("check", lambda: None))
    return found, heater, said


def test_the_load_is_held_until_the_board_is_steady(tmp_path):
    rising = [40 + n / 2 for n in range(41)]
    found, heater, said = heated(tmp_path, rising + [60.0] * 200)
    assert found.temperature_c == 60
    assert found.drift_c < STEADY_C
    assert 0 < len(heater.values) < 170, "it neither gave up early nor went on for ever"
    assert "steady" in str(found)
    assert "not steady" not in str(found)
    assert said[-1] == "warming up · 60 °C, 3 requests"


def test_flicker_of_a_whole_degree_is_steady(tmp_path):
    found, _, _ = heated(tmp_path, [60.0, 61.0] * 60)
    assert found.drift_c < STEADY_C


def test_the_calm_before_the_load_is_not_taken_for_steady(tmp_path):
    path = tmp_path / "samples"
    path.write_bytes(encode(temperatures(960, [40] * 79)))
    heater = Heater(path, [40.0] * 200)
    warm(JOB, heater, path, GPUS, 60.0, print, lambda: None)
    assert len(heater.values) <= 200 - 2 * (SPAN_S - 1)


def test_what_is_not_steady_in_time_says_by_how_much(tmp_path, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(warming.time, "monotonic", lambda: next(clock) / 4)
    found, heater, _ = heated(tmp_path, [40 + n / 4 for n in range(400)], max_s=30.0)
    assert heater.values
    assert found.drift_c == pytest.approx(7.5, abs=1)
    assert "not steady: a board changed by" in str(found)


def test_a_load_that_ends_is_held_again_with_prompts_of_its_own(tmp_path):
    _, heater, _ = heated(tmp_path, [50.0] * 60, rounds=4)
    assert len(heater.jobs) >= 3
    salts = {job.prompt_salt for job in heater.jobs}
    assert len(salts) == len(heater.jobs)
    assert JOB.prompt_salt not in salts


def test_nothing_of_it_is_kept_where_records_are_kept(tmp_path):
    _, heater, _ = heated(tmp_path, [50.0] * 60)
    (job,) = heater.jobs
    assert Path(job.records_path).name != JOB.records_path
    assert not Path(job.records_path).parent.exists()
    assert (job.measure.window_s, job.measure.min_requests) == (60.0, 0)


@pytest.mark.parametrize("max_s", [0.0, 60.0])
def test_no_temperature_or_no_time_holds_nothing(tmp_path, max_s, monkeypatch):
    monkeypatch.setattr(warming, "FIRST_READING_S", 0.05)
    path = tmp_path / "samples"
    path.write_bytes(encode([Sample(1, "rapl:package-0", "energy_uj", 1)]))
    if not max_s:
        path.write_bytes(encode(temperatures(0, [40])))
    heater = Heater(path, [50.0])
    assert warm(JOB, heater, path, GPUS, max_s, print, lambda: None) is None
    assert not heater.jobs
    assert warm(JOB, heater, tmp_path / "none", GPUS, max_s, print, lambda: None) is None


def test_an_engine_that_dies_ends_it(tmp_path):
    def dead():
        raise EngineError("died")

    with pytest.raises(EngineError):
        heated(tmp_path, [50.0] * 60, check=dead)


def test_a_line_that_is_not_whole_is_read_when_it_is(tmp_path):
    path = tmp_path / "samples"
    whole = encode(temperatures(0, [40, 41]))
    path.write_bytes(whole[:-3])
    thermometer = Thermometer(path, GPUS)
    assert thermometer.read()
    assert thermometer.hottest_c == 40
    path.write_bytes(whole)
    thermometer.read()
    assert thermometer.hottest_c == 41


def test_only_the_end_of_a_long_file_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(warming, "TAIL_BYTES", 100)
    path = tmp_path / "samples"
    path.write_bytes(encode(temperatures(0, range(1000))))
    thermometer = Thermometer(path, GPUS)
    thermometer.read()
    (readings,) = thermometer._boards.values()
    assert len(readings) < 5
    assert thermometer.hottest_c == 999


@given(st.lists(st.floats(20, 95), min_size=41, max_size=120), st.integers(1, 3))
def test_drift_is_that_of_the_worst_board(tmp_path_factory, values, boards):
    path = tmp_path_factory.mktemp("t") / "samples"
    lines = [each for n in range(boards) for each in temperatures(0, values, board=f"GPU-{n}")]
    lines += temperatures(0, [v + 30 * (n == len(values) - 1) for n, v in enumerate(values)], "GPU-hot")
    path.write_bytes(encode(lines))
    thermometer = Thermometer(path, GPUS)
    thermometer.read()
    tail = values[-41:]
    hot = [*tail[:-1], tail[-1] + 30]
    expected = max(abs(sum(each[-11:]) / 11 - sum(each[:11]) / 11) for each in (tail, hot))
    assert thermometer.drift_c() == pytest.approx(expected)


def test_boards_that_are_not_the_engines_do_not_count(tmp_path):
    path = tmp_path / "samples"
    path.write_bytes(encode(temperatures(0, [50] * 41) + temperatures(0, range(41), "GPU-others")))
    thermometer = Thermometer(path, GPUS)
    assert thermometer.read()
    assert (thermometer.hottest_c, thermometer.drift_c()) == (50, 0)
    assert not Thermometer(path, ("GPU-5",)).read()


def test_too_short_to_tell():
    assert "too short" in str(Warmth(5.0, 50.0, None))


# ------------------------------------------------------------------------------------- within a run

LOADS = [LoadPoint(mode="closed", concurrency=count) for count in (1, 8, 8, 16, 1)]


@pytest.fixture
def subject(tmp_path):
    """A model whose engine is up on one board of two that are read."""
    asked = prepare.Request(
        models=("sim",),
        scenario="smoke",
        engine="simulated",
        out=tmp_path,
        overrides=("telemetry.warm_max_s=50",),
    )
    found = Subject(prepare.prepare(asked), 0)
    facts = EngineFacts(kind="vllm", version="1", device="cuda", gpus=("GPU-1",))
    endpoint = Endpoint(base_url="http://127.0.0.1:1/v1", model="m")
    found._engine = RunningEngine(endpoint=endpoint, facts=facts)
    found._warming_left_s = 50.0
    found.writer.update(probes=(ProbeStatus(probe="nvml", usable=True, detail="2 GPUs"),))
    yield found
    found.writer.close()


def warmed(subject, monkeypatch, reached):
    """(concurrency, boards, time left) of each warming that the windows of LOADS were preceded by."""
    calls = []

    def warm(job, worker, samples, gpus, max_s, say, check):
        calls.append((job.point.concurrency, gpus, max_s))
        return reached(max_s)

    monkeypatch.setattr(warming, "warm", warm)
    for point in LOADS:
        subject.warm_up(Slot(0, 0, point), None, print)
    return calls


def test_every_new_load_is_warmed_within_the_time_of_one_engine_start(subject, monkeypatch):
    calls = warmed(
        subject, monkeypatch, lambda max_s: Warmth(min(20.0, max_s), 60.0, 0.5 if max_s > 20 else 3.0)
    )
    assert calls == [(1, ("GPU-1",), 50.0), (8, ("GPU-1",), 30.0), (16, ("GPU-1",), 10.0)]
    first, short = subject.writer.manifest.engine.notes
    assert first == "engine start 1: 20 s of load before measuring: 60 °C, steady"
    assert "10 s of load" in short
    assert "not steady" in short


def test_an_engine_without_boards_waits_for_none(subject, monkeypatch):
    subject._engine = structs.replace(
        subject._engine, facts=EngineFacts(kind="transformers", version="1", device="cpu")
    )
    assert warmed(subject, monkeypatch, lambda _: None) == [], "idle boards are none of its own"


def test_without_temperatures_it_is_tried_once(subject, monkeypatch):
    assert len(warmed(subject, monkeypatch, lambda _: None)) == 1
    assert subject.writer.manifest.engine.notes == ()
