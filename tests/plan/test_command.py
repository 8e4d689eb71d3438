"""``profile plan`` as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from tests.plan.ask import DENSE_14B, DENSE_32B, MOE

OFFLINE = """
import sys, socket
for name in ("torch", "transformers", "vllm", "pandas", "scipy"):
    sys.modules[name] = None
def refused(*words, **more):
    raise AssertionError("the network was asked")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refused
from profiler.__main__ import main
main()
"""


def plan(*words: str, code: str = OFFLINE, **env: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-c",
        code.replace("main()\n", f"sys.argv = {['profile', 'plan', *words]!r}\nmain()\n"),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | env)


def test_three_models_on_two_gpus_without_torch_and_network():
    done = plan("--model", MOE, "--model", DENSE_32B, "--model", DENSE_14B, "--gpu", "H100", "--gpu", "H20")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Predicted on 1 × H20 96GB" in done.stdout
    assert "(M) against" in done.stdout


@pytest.mark.timing
def test_the_answer_comes_within_a_second():
    command = [
        sys.executable,
        "-m",
        "profiler",
        "plan",
        "-m",
        MOE,
        "-m",
        DENSE_32B,
        "-m",
        DENSE_14B,
        "-g",
        "H100",
        "-g",
        "H20",
    ]

    def wall_s() -> float:
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - began

    assert min(wall_s() for _ in range(5)) < 1.0


def test_rows_by_the_same_set_as_a_run():
    words = ["-m", MOE, "-g", "H200", "--gpus", "1,2", "--format", "json"]
    done = plan(
        *words, "--set", "load.concurrency=8,32,128", "--set", "workload.input_tokens=1000", "--price", "3"
    )
    rows = json.loads(done.stdout)["rows"]
    assert [(row["gpus"], row["concurrency"]) for row in rows] == [
        (n, c) for n in (1, 2) for c in (8, 32, 128)
    ]
    assert {row["input_tokens_mean"] for row in rows} == {1000}
    assert {row["price_usd_per_hour"] for row in rows} == {3.0}
    assert rows[0]["price_low_usd_per_hour"] is None


def test_limits_with_and_without_a_quantile():
    done = plan("-m", MOE, "-g", "H100", "--slo-tpot", "15ms", "--slo-ttft-p99=300ms", "--format", "json")
    held = json.loads(done.stdout)
    assert {row["slo_met"] for row in held["rows"]} <= {"yes", "no", "undecided"}
    assert held["slo"][0]["concurrency_low"] <= held["slo"][0]["concurrency_high"]


def test_a_limit_out_of_reach_is_an_answer_not_an_error():
    done = plan("-m", DENSE_32B, "-g", "H100", "--slo-tpot", "1ms", "--format", "json")
    assert done.returncode == 0
    (reach,) = json.loads(done.stdout)["slo"]
    assert reach["concurrency_high"] == 0
    assert reach["times_the_limit"]["TPOT p50"] > 10
    assert json.loads(done.stdout)["best"] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", MOE, "-g", "H1000"], "unknown GPU 'H1000'"),
        (["-m", "Qwen/Qwen3-31B", "-g", "H100"], "unknown model 'Qwen/Qwen3-31B'"),
        (["-m", MOE, "-g", "H100", "--gpus", "3"], "32 attention heads; possible: 1, 2, 4, 8, 16, 32"),
        (["-m", "moonshotai/Kimi-K2-Instruct", "-g", "T4"], "64 of them do not hold it; it would on"),
        (["-m", MOE, "-g", "H100", "--format", "xml"], "no such format"),
        (["-m", MOE, "-g", "H100", "--slo-tpot"], "--slo-tpot needs a limit"),
        (["-m", MOE, "-g", "H100", "--gpuz", "2"], "no such option: --gpuz"),
        (["-m", MOE, "-g", "H100", "--price", "cheap"], "--price cheap"),
        (["-m", MOE, "-g", "H100", "--calibrate", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(words, said):
    done = plan(*words, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_wrong_sheet_of_ones_own_stops_everything_that_looks_at_it(tmp_path):
    (tmp_path / "mine.toml").write_text("[[gpu]]\ngpu = 'X'\nmem_gb = 8")
    done = plan("-m", MOE, "-g", "H100", PROFILER_GPUS=str(tmp_path / "mine.toml"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: PROFILER_GPUS: {tmp_path / 'mine.toml'}: [[gpu]] 1 (X): ")


def test_measured_ceilings_change_the_prediction(tmp_path):
    (tmp_path / "mine.toml").write_text(
        "[[gpu]]\ngpu = 'H100 SXM5 80GB'\nmem_bw_gbs = 1675\nmeasured = true\nsource = 'measured'\n"
    )
    words = ["-m", DENSE_14B, "-g", "H100", "--format", "json"]
    plain, mine = (
        json.loads(plan(*words, **env).stdout)["rows"][0]
        for env in ({}, {"PROFILER_GPUS": str(tmp_path / "mine.toml")})
    )
    assert mine["tpot_s"] / plain["tpot_s"] == pytest.approx(2, rel=0.15), "half the bandwidth"
    assert mine["gpu"] == plain["gpu"]
