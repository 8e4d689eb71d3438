"""Boards are warmed until steady: the load is held, nothing of it is kept, and what was reached is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import warming
from profiler.errors import EngineError
from profiler.loadgen.job import LoadJob, Progress
from profiler.samples import Sample, encode
from profiler.schema import Endpoint, LoadPoint
from profiler.settings import Measure, Timeouts, Workload
from profiler.warming import SPAN_S, STEADY_C, Thermometer, Warmth, warm

S = 10**9
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
    found = warm(JOB, heater, path, max_s, said.append, changes.get("check", lambda: None))
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
    warm(JOB, heater, path, 60.0, print, lambda: None)
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
    assert warm(JOB, heater, path, max_s, print, lambda: None) is None
    assert not heater.jobs
    assert warm(JOB, heater, tmp_path / "none", max_s, print, lambda: None) is None


def test_an_engine_that_dies_ends_it(tmp_path):
    def dead():
        raise EngineError("died")

    with pytest.raises(EngineError):
        heated(tmp_path, [50.0] * 60, check=dead)


def test_a_line_that_is_not_whole_is_read_when_it_is(tmp_path):
    path = tmp_path / "samples"
    whole = encode(temperatures(0, [40, 41]))
    path.write_bytes(whole[:-3])
    thermometer = Thermometer(path)
    assert thermometer.read()
    assert thermometer.hottest_c == 40
    path.write_bytes(whole)
    thermometer.read()
    assert thermometer.hottest_c == 41


def test_only_the_end_of_a_long_file_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(warming, "TAIL_BYTES", 100)
    path = tmp_path / "samples"
    path.write_bytes(encode(temperatures(0, range(1000))))
    thermometer = Thermometer(path)
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
    thermometer = Thermometer(path)
    thermometer.read()
    tail = values[-41:]
    hot = [*tail[:-1], tail[-1] + 30]
    expected = max(abs(sum(each[-11:]) / 11 - sum(each[:11]) / 11) for each in (tail, hot))
    assert thermometer.drift_c() == pytest.approx(expected)


def test_too_short_to_tell():
    assert "too short" in str(Warmth(5.0, 50.0, None))
