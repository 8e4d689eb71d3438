"""The command as a user types it: real processes, the simulated engine behind them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from profiler import store

SIM = ("--engine", "simulated", "--model", "sim", "--scenario", "smoke")
QUICK = ("--set", "measure.window_s=1", "--set", "measure.warmup_s=0.2", "--set", "measure.min_requests=0")


def profile(*words: str, cwd: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "profiler", *words]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, timeout=timeout)


def start(*words: str, cwd: Path) -> subprocess.Popen[str]:
    """As from a terminal: a shell's background job would have been told to ignore Ctrl-C."""
    return subprocess.Popen(
        [sys.executable, "-m", "profiler", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (no threads here)
    )


def ours(below: Path) -> list[psutil.Process]:
    """Processes of any run that was started in this folder, zombies aside."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if process.cwd() == str(below) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def folders(cwd: Path) -> list[Path]:
    return sorted((cwd / "results").glob("[!.]*")) if (cwd / "results").exists() else []


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One finished run of two models: (folder it ran in, the completed process)."""
    cwd = tmp_path_factory.mktemp("done")
    return cwd, profile("run", *SIM, "--model", "other", *QUICK, "--price", "1.5", cwd=cwd)


def test_run_prints_the_table_and_names_what_comes_next(done):
    cwd, process = done
    assert process.returncode == 0, process.stderr
    assert "tokens/s out" in process.stdout
    assert "n/a" in process.stdout
    assert "1.50 USD per machine-hour" in process.stdout
    sealed, following = process.stdout.splitlines()[-2:]
    assert all(str(folder.relative_to(cwd)) in sealed for folder in folders(cwd))
    assert following.startswith("next: profile compare results/")
    assert "0 to go" in process.stderr


def test_compare_shows_where_the_memory_went(done):
    cwd, _ = done
    shown = profile("compare", "results", "--show", "memory", cwd=cwd)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("the engine's processes") == 2
    assert "unexplained" in shown.stdout
    found = json.loads(profile("compare", "results", "--show", "memory", "--format", "json", cwd=cwd).stdout)
    assert [each["rows"][0]["name"] for each in found] == ["weights", "weights"]
    refused = profile("compare", "results", "--show", "memory", "--format", "csv", cwd=cwd)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


def test_models_alternate_window_by_window(done):
    cwd, _ = done
    runs = store.find([cwd / "results"])
    assert len({run.manifest.group for run in runs}) == 1
    order = sorted((w.opened_ns, run.manifest.model.name) for run in runs for w in run.manifest.windows)
    assert [name for _, name in order] == ["sim", "other", "sim", "other", "other", "sim", "other", "sim"]


def test_compare_prints_the_same_numbers_again(done):
    cwd, process = done
    sealed = process.stdout.splitlines()[-2].removeprefix("sealed in ").split()
    again = profile("compare", *sealed, cwd=cwd)
    assert again.returncode == 0
    table = process.stdout.split("\nsealed")[0].strip()
    assert again.stdout.strip() == table


def test_compare_as_json_csv_and_markdown(done):
    cwd, _ = done
    rows = json.loads(profile("compare", "results", "--format", "json", cwd=cwd).stdout)
    assert [(r["model"], r["concurrency"]) for r in rows] == [
        ("sim", 1),
        ("sim", 4),
        ("other", 1),
        ("other", 4),
    ]
    assert profile("compare", "results", "--format", "csv", cwd=cwd).stdout.startswith("model,kind,engine,")
    assert profile("compare", "results", "--format", "md", cwd=cwd).stdout.startswith("| conc |")


def test_the_run_folder_keeps_its_rows_and_a_pue_below_one_is_refused(done):
    cwd, _ = done
    for folder in folders(cwd):
        shown = profile("compare", str(folder.relative_to(cwd)), "--format", "json", cwd=cwd)
        assert json.loads((folder / "summary.json").read_text()) == json.loads(shown.stdout)
    refused = profile("compare", "results", "--pue", "0.9", cwd=cwd)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--pue: expected a number >= 1.0, got 0.9" in refused.stderr


def test_json_output_is_one_document(tmp_path):
    process = profile("run", *SIM, *QUICK, "--json", "--quiet", cwd=tmp_path)
    document = json.loads(process.stdout)
    assert process.stderr == ""
    assert [Path(run).is_dir() for run in document["runs"]] == [False]  # relative to where it ran
    assert (tmp_path / document["runs"][0] / "manifest.json").exists()
    assert document["rows"][0]["output_tokens_per_s"] > 0


def test_no_secret_in_any_file(tmp_path):
    secret = ("--set", "engine.env.HF_TOKEN=hf_secret123", "--set", "load.concurrency=1")
    process = profile("run", *SIM, *QUICK, *secret, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    (folder,) = folders(tmp_path)
    for file in folder.rglob("*"):
        assert b"hf_secret123" not in file.read_bytes(), file


@pytest.mark.parametrize(
    ("words", "telling"),
    [
        (("run", "--scenario", "smoke"), "which model?"),
        (("run", "--model", "Qwen/Qwen2.5-72", "--scenario", "smoke"), "Qwen/Qwen2.5-72B"),
        (("run", "--model", "tiny-mo"), "tiny-moe"),
        (("run", *SIM[:-1], "smok"), "smoke"),
        (("run", *SIM, "--set", "load.concurency=1"), "did you mean 'concurrency'"),
        (("run", *SIM, "--set", "load.concurrency=many"), "load.concurrency"),
        (("run", *SIM, "--set", "measure.window_s=30parsecs"), "measure.window_s"),
        (("run", *SIM, "--set", "nonsense"), "nonsense"),
        (("run", "--model", "m", "--engine", "vlm"), "vllm"),
        (("run", *SIM, "--price", "-1"), "positive"),
        (("run", *SIM, "--price", "no-such-sheet.toml"), "price sheet"),
        (("run", *SIM, "--set", "engine.args.ttft=1"), "ttft_s"),
        (("run", "--model", "tiny-moe", "--weights", "rand"), "random"),
        (("run", "--url", "http://127.0.0.1:9/v1"), "127.0.0.1:9"),
        (("run", "--url", "nonsense", "--model", "m"), "http"),
        (("run", "--model", "Qwen/Qwen2.5-72B"), "GiB"),
        (("run", "--no-such-option"), "no-such-option"),
        (("run", *SIM, "--pric", "3"), "did you mean '--price'"),
        (("run", *SIM, "-z"), "no such option: -z"),
        (("run", *SIM, "stray"), "unexpected argument: stray"),
        (("run", *SIM, "--slo-ttft-p99"), "--slo-ttft-p99 needs a limit"),
        (("run", *SIM, "--slo-ttft-p99", "--quiet"), "--slo-ttft-p99 needs a limit"),
        (("run", *SIM, "--slo-ttft", "500ms"), "--slo-ttft-p99"),
        (("run", *SIM, "--slo-ttfb-p99=500ms"), "ttft_p99_s"),
        (("run", *SIM, "--slo-ttft-p99", "500parsecs"), "slo.ttft_p99_s"),
        (("run", *SIM, "--slo-ttft-p99", "fast"), "slo.ttft_p99_s"),
        (("run", *SIM, "--find", "capacty", "--slo-ttft-p99", "1"), "capacity"),
        (("run", *SIM, "--find", "capacity"), "slo"),
        (("run", *SIM, "--max-failed", "2"), "--max-failed"),
        (("run", *SIM, "--max-failed", "some"), "--max-failed"),
        (("run", *SIM, "--set", "telemetry.pue=0.9"), "telemetry.pue"),
        (("run", *SIM, "--set", "telemetry.idle_s=-1"), "telemetry.idle_s"),
        (("run", *SIM, "--devices", "77"), "--devices 77: no such GPU"),
        (("run", *SIM, "--devices", "GPU-nobody"), "--devices GPU-nobody: no such GPU"),
        (("run", "--url", "http://192.0.2.1/v1", "--model", "m", "--devices", "0"), "another machine"),
        (("resume", "nowhere"), "nowhere"),
        (("compare", "nowhere"), "nowhere"),
        (("compare", ".", "--format", "jsn"), "json"),
        (("list", "model"), "models"),
        (("lst",), "lst"),
        (("claims", "run", "moe-faster", "--seed", "soon"), "--seed"),
    ],
)
def test_bad_input_is_one_clear_message_exit_2_and_nothing_written(tmp_path, words, telling):
    process = profile(*words, cwd=tmp_path)
    assert process.returncode == 2, process.stderr
    assert telling in process.stderr
    assert "Traceback" not in process.stderr
    assert process.stderr.startswith("error: ")
    assert process.stdout == ""
    assert not any(folder.is_dir() for folder in folders(tmp_path))


def test_bad_toml_names_file_key_and_expectation(tmp_path):
    (tmp_path / "mine.toml").write_text(
        'name="mine"\nabout="x"\n[workload]\ninput_tokens="long"\noutput_tokens=4\n[load]\n'
    )
    process = profile("run", *SIM[:-1], "mine.toml", cwd=tmp_path)
    assert process.returncode == 2
    assert "mine.toml" in process.stderr
    assert "workload.input_tokens" in process.stderr


def test_an_unwritable_out_is_said_before_anything_starts(tmp_path):
    (tmp_path / "file").write_text("")
    process = profile("run", *SIM, "--out", "file/below", cwd=tmp_path)
    assert process.returncode == 2
    assert "--out" in process.stderr


def test_an_engine_that_dies_mid_run_keeps_what_was_measured(tmp_path):
    # 4 of 7 requests into the second window the server process ends.
    words = ("--set", 'engine.args.faults=[{kind="exit", every=60}]', "--set", "load.concurrency=1,8")
    process = profile("run", *SIM, *QUICK, *words, cwd=tmp_path)
    assert process.returncode == 4, process.stderr
    assert "died" in process.stderr
    (folder,) = folders(tmp_path)
    run = store.load(folder)
    assert run.manifest.status == "failed"
    assert "died" in (run.manifest.reason or "")
    assert len(run.manifest.windows) >= 1
    assert run.requests.num_rows > 0
    assert f"profile resume results/{folder.name}" in process.stderr
    assert profile("compare", str(folder), cwd=tmp_path).returncode == 0
    wait_until(lambda: not ours(tmp_path))


def test_a_server_that_answers_nothing_but_errors_is_not_a_success(tmp_path):
    process = profile(
        "run", *SIM, *QUICK, "--set", 'engine.args.faults=[{kind="http_500", every=1}]', cwd=tmp_path
    )
    assert process.returncode == 4
    assert "answers with nothing but failures: HTTP 500: " in process.stderr
    assert "simulated refusal" in process.stderr
    run = store.load(folders(tmp_path)[0])
    assert run.manifest.status == "failed"
    assert not run.manifest.windows
    assert {row["outcome"] for row in run.requests.to_pylist()} <= {"http_error", "cancelled"}
    assert run.requests.num_rows >= 8


def test_more_failures_than_allowed_fail_the_run_and_say_which(tmp_path):
    fault = ("--set", 'engine.args.faults=[{kind="http_500", every=3}]', "--set", "load.concurrency=4")
    process = profile("run", *SIM, *QUICK, *fault, "--max-failed", "5%", cwd=tmp_path)
    assert process.returncode == 1, process.stderr
    assert "sealed in" in process.stdout
    (line,) = [line for line in process.stderr.splitlines() if line.startswith("failed: ")]
    assert "http_error" in line
    assert "0.05" in line
    assert store.load(folders(tmp_path)[0]).manifest.scenario.max_failed_frac == 0.05
    tolerant = profile("run", *SIM, *QUICK, *fault, "--max-failed", "0.9", cwd=tmp_path)
    assert tolerant.returncode == 0, tolerant.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_marks_the_folder_and_leaves_no_process(tmp_path, how):
    process = start("run", *SIM, *QUICK, cwd=tmp_path)
    wait_until(
        lambda: any(
            len(store.load(f).manifest.windows) for f in folders(tmp_path) if (f / "journal.json").exists()
        )
    )
    process.send_signal(how)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert "Traceback" not in stderr
    (folder,) = folders(tmp_path)
    assert store.load(folder).manifest.status == "interrupted"
    assert not (folder / "manifest.json").exists()
    wait_until(lambda: not ours(tmp_path))


def test_the_requests_of_the_window_under_way_are_kept_and_named(tmp_path):
    process = start(
        "run",
        *SIM,
        *QUICK,
        "--set",
        "measure.window_s=60",
        "--set",
        "measure.max_window_s=60",
        "-q",
        cwd=tmp_path,
    )
    wait_until(lambda: any("loadgen.child" in " ".join(p.cmdline()) for p in ours(tmp_path)))
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "kept 0 finished windows, and the requests of the one that was under way, in " in stderr
    run = store.load(folders(tmp_path)[0])
    assert run.manifest.windows == ()
    assert [window.trouble for window in run.manifest.cut_short] == ["cancelled"]
    assert "ok" in run.requests["outcome"].to_pylist()


def test_a_killed_run_leaves_no_process_and_is_completed_by_resume(tmp_path):
    process = start("run", *SIM, *QUICK, cwd=tmp_path)
    wait_until(
        lambda: any(
            len(store.load(f).manifest.windows) >= 2
            for f in folders(tmp_path)
            if (f / "journal.json").exists()
        )
    )
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not ours(tmp_path))
    (folder,) = folders(tmp_path)
    before = store.load(folder).manifest.windows
    resumed = profile("resume", str(folder), cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    after = store.load(folder).manifest
    assert after.status == "complete"
    assert after.windows[: len(before)] == before
    assert sorted((w.repeat, w.point.concurrency) for w in after.windows) == [(0, 1), (0, 4), (1, 1), (1, 4)]
    assert profile("resume", str(folder), cwd=tmp_path).returncode == 2


def test_doctor_tells_what_can_be_measured(tmp_path):
    process = profile("doctor", cwd=tmp_path)
    assert process.returncode == 0
    assert "cores" in process.stdout
    for probe in ("nvml", "rapl", "vllm", "transformers"):
        assert probe in process.stdout


def test_list_models_and_the_rest(tmp_path):
    models = profile("list", "models", cwd=tmp_path).stdout
    assert "Qwen/Qwen3-30B-A3B" in models
    found = {
        row["model"]: row for row in json.loads(profile("list", "models", "--json", cwd=tmp_path).stdout)
    }
    assert found["Qwen/Qwen3-30B-A3B"]["kind"] == "moe"
    assert found["Qwen/Qwen3-30B-A3B"]["kv_bytes_per_token"] == 98304
    assert len(found) >= 64 + 3
    for what in ("scenarios", "gpus", "prices"):
        assert profile("list", what, cwd=tmp_path).returncode == 0


def test_the_same_model_twice_is_two_runs(tmp_path):
    process = profile("run", *SIM, "--model", "a/sim", *QUICK, "--set", "load.concurrency=1", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert len(folders(tmp_path)) == 2


def test_version():
    process = profile("--version", cwd=Path.cwd())
    assert process.stdout.startswith("profile 0.")


def test_a_disk_that_fills_keeps_the_journal(tmp_path, monkeypatch):
    """A full disk, here a file-size limit, is one line and exit 4; what was finished stays readable."""
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        f"sys.argv = ['profile', 'run', *{[*SIM, *QUICK]!r}]\n"
        "from profiler.__main__ import main\nmain()"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert process.returncode == 4
    assert "Traceback" not in process.stderr
    assert store.find([tmp_path / "results"])
    wait_until(lambda: not ours(tmp_path))
