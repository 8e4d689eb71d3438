"""Events: each kind, what it holds, and that the documentation says so."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from profiler import figures, store
from profiler.adaptive import Precision
from profiler.cli import app
from profiler.errors import EngineError
from profiler.progress import events as kinds
from profiler.progress.events import EVERY_S, Event, Events
from profiler.progress.readings import Readings
from profiler.trials import holding
from tests.progress.telling import AHEAD, SLOT, held, progress, sampled
from tests.trials import fake

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "events.md"
RUN = ["--model", "sim", "--engine", "simulated", "--scenario", "smoke", "--set", "load.concurrency=1"]
RUN += ["--set", "measure.window_s=0.6", "--set", "measure.warmup_s=0.1", "--set", "measure.min_requests=0"]


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.fixture
def said(capsys):
    return lambda: lines(capsys.readouterr().err)


def name(kind: type[Event]) -> str:
    return kind.__struct_config__.tag


@pytest.mark.parametrize("kind", Event.__subclasses__(), ids=name)
def test_every_key_of_every_event_is_documented(kind):
    (part,) = re.findall(rf"^### {name(kind)}$(.*?)(?=^###|\Z)", DOCUMENT.read_text(), re.S | re.M)
    documented = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", part, re.M))))
    expected = set(kind.__struct_fields__) - set(Event.__struct_fields__)
    if "now" in expected:
        expected |= set(Readings.__struct_fields__)
    assert documented == expected


def test_the_document_knows_no_other_events():
    found = set(re.findall(r"^### (\w+)$", DOCUMENT.read_text(), re.M))
    assert found == {name(kind) for kind in Event.__subclasses__()}
    assert f"`version` is {kinds.VERSION}," in DOCUMENT.read_text()


def test_a_run_as_it_is_told(said, tmp_path):
    with Events() as events:
        events.note("to know")
        events.begin(AHEAD)
        events.phase("tiny-moe", "vllm · loading")
        events.up("tiny-moe", sampled(tmp_path / "samples", time.perf_counter_ns()))
        for _ in range(5):
            events.progress("tiny-moe", SLOT, progress())
        events.progress("tiny-moe", SLOT, progress(phase="decoding", chunks_per_s=None, decoded_frac=0.5))
        known = Precision(windows=3, spent_s=30, target_frac=0.02, half_frac=0.024)
        events.window("tiny-moe", SLOT, held(trouble="never steady"), 8, known)
        events.sealed([Path("results/tiny-moe-chat")])
    told = said()
    assert [each["event"] for each in told] == [
        *("note", "begin", "phase", "up", "progress", "progress", "window", "sealed")
    ]
    assert all(each["version"] == 1 and each["at_s"] >= 0 for each in told)
    note, begin, phase, up, measuring, decoding, window, sealed = told
    assert note["text"] == "to know"
    assert (begin["runs"], begin["windows"], begin["target_frac"]) == (["results/tiny-moe-chat"], 9, None)
    assert begin["points"][1] == {"mode": "closed", "concurrency": 8, "requests_per_s": None}
    assert (phase["model"], phase["text"]) == ("tiny-moe", "vllm · loading")
    assert up["gpus"] == ["GPU-1", "GPU-2"]
    assert (measuring["chunks_per_s"], measuring["left_s"], measuring["now"]["power_w"]) == (1234.4, 168, 601)
    assert measuring["now"]["held_back"] == ["software power cap"]
    assert (decoding["chunks_per_s"], decoding["decoded_frac"]) == (None, 0.5)
    assert (window["troubles"], window["half_interval_frac"], window["took_s"]) == (
        ["never steady"],
        0.024,
        12,
    )
    assert (window["windows_left"], window["left_s"], window["windows_of_load"]) == (8, 96, 3)
    assert sealed["runs"] == ["results/tiny-moe-chat"]


def test_progress_is_told_once_a_second(said, monkeypatch):
    now_ns = 0
    monkeypatch.setattr(time, "perf_counter_ns", lambda: now_ns)
    events = Events()
    for quarter in range(12):
        now_ns = round(quarter * EVERY_S / 4 * 1e9)
        events.progress("m", SLOT, progress())
    assert [each["at_s"] for each in said()] == [0, 1, 2]


def test_what_ends_early_is_told_last_with_what_is_left(said, tmp_path):
    (tmp_path / "kept").mkdir()
    events = Events()
    events.begin(replace(AHEAD, folders=(str(tmp_path / "kept"), str(tmp_path / "discarded"))))
    events.__exit__(EngineError, EngineError("it died", ["out of memory"]), None)
    _, failed = said()
    assert (failed["event"], failed["status"], failed["reason"]) == (
        "failed",
        "failed",
        "it died\nout of memory",
    )
    assert failed["runs"] == [str(tmp_path / "kept")]


def profile(*words: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "profiler", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, text=True, stdout=pipe, stderr=pipe, start_new_session=True)


def test_a_run_that_is_interrupted_and_resumed_tells_programs(tmp_path):
    process = profile("run", *RUN, "--set", "measure.repeats=2", "--json", cwd=tmp_path)
    begun = ""
    for line in process.stderr:
        begun += line
        if '"event":"window"' in line:
            process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    *_, failed = lines(begun)
    assert (failed["event"], failed["status"]) == ("failed", "interrupted")
    process = profile("resume", *failed["runs"], "--json", cwd=tmp_path)
    document, told = process.communicate()
    assert process.returncode == 0
    first, *_, sealed = lines(told)
    assert (first["event"], first["windows"], sealed["event"]) == ("begin", 1, "sealed")
    assert sealed["runs"] == json.loads(document)["runs"]
    assert [tmp_path / each for each in sealed["runs"]] == [tmp_path / each for each in failed["runs"]]
    assert store.load(tmp_path / sealed["runs"][0]).manifest.status == "complete"


@pytest.fixture
def trial(tmp_path, monkeypatch):
    """What ``profile claims run`` is to hold: the words of it."""
    monkeypatch.setattr(holding, "execute", fake.Engine(1.5))
    monkeypatch.setattr("profiler.claims.reading.named", lambda _: [fake.claim()])
    return ["claims", "run", "of-a-test", "--out", str(tmp_path), "--seed", "1", "--json"]


def test_a_trial_tells_programs(trial, tmp_path):
    done = CliRunner().invoke(app, trial)
    assert done.exit_code == 0
    told = lines(done.stderr)
    assert {each["event"] for each in told} == {"note", "trial"}
    trials = [each for each in told if each["event"] == "trial"]
    assert [each["what"] for each in trials][:4] == ["begun", "block", "held", "held"]
    look = next(each for each in trials if each["what"] == "look")
    assert look["look"]["verdict"] == "supported"
    assert look["verdict"] is None
    last = trials[-1]
    assert (last["what"], last["verdict"], last["look"]) == ("ended", "supported", None)
    assert Path(last["record"]).parent.parent == tmp_path
    assert all((tmp_path / run / "manifest.json").exists() for run in last["runs"])
    assert json.loads(done.stdout)["counted"]["supported"] == 1


def test_a_dropped_start_is_told(trial, monkeypatch):
    reasons = iter(["others used the GPUs"])
    monkeypatch.setattr(figures, "disturbed", lambda _: next(reasons, None))
    told = lines(CliRunner().invoke(app, trial).stderr)
    (dropped,) = (each for each in told if each.get("what") == "dropped")
    assert dropped["dropped"] == "disturbed: others used the GPUs"


def test_a_trial_that_is_only_planned_is_one_document(trial):
    done = CliRunner().invoke(app, [*trial, "--dry-run"])
    assert json.loads(done.stdout)["looks_at"] == [3, 6]
