"""Runs of the simulated engine through the command line, on a simulated board whose counter then gets a known
law: so much for standing by, so much for each token of a prompt and of an answer."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from profiler import split, store
from profiler.split import slices
from tests import make

STANDING_W, INPUT_J, DECODE_J = 110.0, 0.03, 2.0
SLOTS = 2
SCENARIO = """
name = "{name}"
about = "a test"
[workload]
{work}
[load]
concurrency = [{slots}]
[measure]
warmup_s = 0.5
window_s = {window_s}
min_requests = 1
repeats = 1
[telemetry]
idle_s = 1
warm_max_s = 0
"""
READ, WRITE = "input_tokens = 400\noutput_tokens = 1\n", "input_tokens = 16\noutput_tokens = 60\n"
MIX = "".join(
    f'[[workload.mix]]\nname = "{name}"\nweight = {weight}\n{work}'
    for name, weight, work in (("read", 6, READ), ("write", 1, WRITE))
)
LAW = ("itl_s=0.02", "ttft_s=0.01", "prefill_s_per_token=0.0002")


def start(folder, name, work, window_s):
    (folder / f"{name}.toml").write_text(
        SCENARIO.format(name=name, slots=SLOTS, work=work, window_s=window_s)
    )
    words = [word for each in LAW for word in ("--set", f"engine.args.{each}")]
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "profiler", "run", "-m", "sim", "--engine", "simulated", "--quiet"),
            *("-s", f"{name}.toml", *words),
        ],
        cwd=folder,
        env=os.environ | {"PROFILER_SIMULATED_NVML": "h100"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def with_known_energy(run):
    """Its counter as the law has it, at the very ticks the sampler saw; power and its limit left out."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = run.samples
    table = table.filter(pc.invert(pc.is_in(table["name"], pa.array(["power_w", "power_limit_w"]))))
    rows = run.requests.to_pylist()
    sent = np.array([row["sent_ns"] for row in rows if row["first_ns"]])
    first = np.array([row["first_ns"] for row in rows if row["first_ns"]])
    prompt = np.array([row["input_tokens"] for row in rows if row["first_ns"]])
    later = np.sort(np.concatenate([row["arrivals_ns"][1:] for row in rows]))
    times = table["t_ns"].to_numpy()
    # Each prompt's energy is spent evenly until its first token comes: this engine reads prompts at once.
    read = np.clip((times[:, None] - sent) / (first - sent), 0, 1) @ prompt
    joules = (
        STANDING_W * (times - times.min()) / 1e9 + INPUT_J * read + DECODE_J * np.searchsorted(later, times)
    )
    is_counter = pc.equal(table["name"], "energy_mj").to_numpy()
    values = np.where(is_counter, np.round(joules * 1e3), table["value"].to_numpy())
    # The law is exact at the ticks' own stamps; how late a poll saw the replaced counter no longer matters,
    # and on a busy machine it would shift every edge by half of it.
    values = np.where(pc.equal(table["name"], "energy_seen_within_s").to_numpy(), 1e-9, values)
    pq.write_table(table.set_column(3, "value", pa.array(values)), run.folder / "telemetry.parquet")
    make.written_again(run.folder)
    return store.load(run.folder)


def test_both_ways_on_real_records_and_a_real_sampler(tmp_path, monkeypatch):
    monkeypatch.setattr(slices, "SLICE_S", 0.3)
    monkeypatch.setattr(slices, "PERIODS_PER_SLICE", 3)
    jobs = [
        start(tmp_path, *each)
        for each in (
            ("prefill", READ, 10.5),
            ("decode", WRITE, 10.5),
            ("split", MIX, 15),
        )
    ]
    for job in jobs:
        _, said = job.communicate(timeout=120)
        assert job.returncode == 0, said
    at = lambda run, point: split.Paid(2 / 3600)  # noqa: E731
    rows = split.rows([with_known_energy(run) for run in store.find([tmp_path / "results"])], at)
    found = {(row["quantity"], row["way"]): row for row in rows}
    for way, slack in (("separate points", 0.03), ("regression", 0.06)):
        row = found["energy", way]
        assert row["undecided"] is None, row
        assert row["standing_w"] == pytest.approx(STANDING_W, rel=0.02)
        assert row["per_input_token"] == pytest.approx(INPUT_J, rel=slack)
        assert row["per_output_token"] == pytest.approx(DECODE_J, rel=slack)
        assert abs(row["remainder_frac"]) < 0.03
    for kind in split.KINDS:
        assert found["energy", split.RATIO][f"per_{kind}_token"] == pytest.approx(1, abs=0.08)
    # Requests side by side: engine time of a token is a part of what one request waits for it.
    assert found["engine time", "regression"]["per_output_token"] == pytest.approx(0.02 / SLOTS, rel=0.05)
    assert found["cost", "regression"]["unit"] == "USD"
