"""Both ways on runs of an engine whose law is known, through sealed folders; and what must be refused."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from msgspec.structs import replace

from profiler import split, store
from profiler.report import split as report
from profiler.schema import LoadPoint, Price
from tests import make
from tests.split import steps

SLOTS = 16
LAW = steps.Engine()
# A step of a full house reads its weights once for all 16: engine time of one decode token.
DECODE_S = LAW.step_s / SLOTS + LAW.decode_s
PREFILL_S = LAW.prefill_s + LAW.step_s / LAW.budget


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return {
        name: steps.run(out, name, getattr(steps, name), LAW, slots=SLOTS)
        for name in ("prefill", "decode", "mixed")
    }


def of(rows, quantity, way):
    (row,) = [row for row in rows if row["quantity"] == quantity and row["way"] == way]
    return row


def at(usd_per_hour):
    """Every load is paid by the hour, all of which works."""
    return lambda run, point: split.Paid(usd_per_hour / 3600, words="so much an hour")


def within(row, kind, truth, slack_frac=0.0):
    low, high = row[f"per_{kind}_token_low"], row[f"per_{kind}_token_high"]
    return low * (1 - slack_frac) <= truth <= high * (1 + slack_frac)


def test_both_ways_find_the_energy_of_each_kind_and_agree(runs):
    rows = split.rows(list(runs.values()))
    assert {(row["scenario"], row["concurrency"]) for row in rows} == {("mixed", SLOTS)}
    for way in ("separate points", "regression"):
        row = of(rows, "energy", way)
        assert within(row, "input", LAW.input_j, 0.01), row
        assert within(row, "output", LAW.decode_j, 0.01), row
        assert row["per_input_token"] == pytest.approx(LAW.input_j, rel=0.05)
        assert row["per_output_token"] == pytest.approx(LAW.decode_j, rel=0.05)
        assert row["standing_w"] == pytest.approx(LAW.standing_w, rel=0.01)
        assert row["standing"] == "loaded"
        assert row["undecided"] is None
    ratio = of(rows, "energy", "ratio")
    assert within(ratio, "input", 1.0)
    assert within(ratio, "output", 1.0)
    fitted = of(rows, "energy", "regression")
    assert fitted["slices"] == pytest.approx(90, abs=3)
    assert fitted["vif"] < 3
    assert 0.01 < fitted["residual_frac"] < 0.12


def test_both_ways_find_the_engine_time_of_each_kind(runs):
    rows = split.rows(list(runs.values()))
    points, fitted = of(rows, "engine time", "separate points"), of(rows, "engine time", "regression")
    assert points["per_input_token"] == pytest.approx(PREFILL_S, rel=0.01)
    assert points["per_output_token"] == pytest.approx(DECODE_S, rel=0.01)
    # Prompts that ride along in decode steps share what a step costs by itself.
    assert LAW.prefill_s * 0.99 <= fitted["per_input_token"] <= PREFILL_S
    assert fitted["per_output_token"] == pytest.approx(DECODE_S, rel=0.02)


def test_the_kinds_and_standing_by_add_up_to_the_whole(runs):
    rows = split.rows(list(runs.values()), at(3.6))
    for row in rows:
        if row["way"] == split.RATIO:
            continue
        parts = [row[f"{part}_frac"] for part in split.PARTS]
        assert sum(parts) == pytest.approx(1)
        assert abs(parts[-1]) < (0.005 if row["way"] == "regression" else 0.03), row
    energy = of(rows, "energy", "regression")
    run = runs["mixed"]
    spent = sum(
        of_energy(run, window.steady_start_ns, window.steady_end_ns) for window in run.manifest.windows
    )
    assert energy["standing_frac"] == pytest.approx(LAW.standing_w * 180 / spent, rel=0.01)


def of_energy(run, start_ns, end_ns):
    from profiler.energy import gpu_energy

    return gpu_energy(run.samples, start_ns, end_ns, [steps.GPU]).energy_j


def test_cost_is_engine_time_at_its_price(runs):
    rows = split.rows(list(runs.values()), at(3.6))
    time, cost = (of(rows, quantity, "regression") for quantity in ("engine time", "cost"))
    assert cost["unit"] == "USD"
    for kind in split.KINDS:
        for end in ("", "_low", "_high"):
            assert cost[f"per_{kind}_token{end}"] == pytest.approx(time[f"per_{kind}_token{end}"] / 1000)
    assert (cost["cost_basis"], cost["utilization_frac"]) == ("rented", 1.0)
    assert time["cost_basis"] is None
    assert "so much an hour" in list(report.footnotes(rows))
    unpaid = split.rows(list(runs.values()))
    assert not [row for row in unpaid if row["quantity"] == "cost"]
    assert any("give one with --price" in line for line in report.footnotes(unpaid))


def test_the_terms_of_the_command_are_in_the_cost(runs):
    words = (runs["mixed"].folder, "--show", "split", "--format", "json", "--price", "3.6")
    half, whole = (
        of(json.loads(profile(*words, *more).stdout), "cost", "regression")
        for more in (("--utilization", "0.5"), ())
    )
    assert half["utilization_frac"] == 0.5
    assert half["per_output_token"] == pytest.approx(2 * whole["per_output_token"])
    assert "3.6 USD" in half["price_basis"]


def test_rows_have_exactly_the_columns(runs):
    for row in split.rows(list(runs.values()), at(1)):
        assert set(row) == set(split.COLUMNS)


# ------------------------------------------------------------------------------------- what is missing


def test_without_a_prefill_run_only_the_regression_is_left(runs):
    rows = split.rows([runs["mixed"]])
    assert "run scenario prefill" in of(rows, "energy", "separate points")["undecided"]
    assert of(rows, "energy", "regression")["per_input_token"] == pytest.approx(LAW.input_j, rel=0.05)
    assert not [row for row in rows if row["way"] == split.RATIO]


def test_without_a_decode_run_decoding_is_the_difference_at_the_same_load(runs):
    row = of(split.rows([runs["mixed"], runs["prefill"]]), "energy", "separate points")
    assert "by difference" in row["basis"]
    assert row["per_output_token"] == pytest.approx(LAW.decode_j, rel=0.05)


def test_a_mix_that_does_not_vary_is_undecided(tmp_path):
    """Short requests of one kind: every slice holds as much of either as the next."""
    run = steps.run(tmp_path, "chat", lambda n: (100, 20 + n % 7))
    for quantity in ("energy", "engine time"):
        row = of(split.rows([run]), quantity, "regression")
        assert row["per_input_token"] is None
        assert "the mix does not vary enough" in row["undecided"]
        assert "run scenario split" in row["undecided"]
        assert row["vif"] > 10


def test_too_few_slices_are_undecided(tmp_path):
    run = steps.run(tmp_path, "mixed", steps.mixed, window_s=20, repeats=1)
    assert "30 are needed" in of(split.rows([run]), "energy", "regression")["undecided"]


def test_without_a_baseline_standing_by_is_in_the_tokens(tmp_path):
    run = steps.run(tmp_path, "mixed", steps.mixed, LAW, baseline=False)
    row = of(split.rows([run]), "energy", "regression")
    assert row["standing"] == "inside"
    assert row["standing_w"] is None
    assert row["per_output_token"] == pytest.approx(LAW.decode_j + LAW.standing_w * DECODE_S, rel=0.04)
    assert "no idle baseline" in " ".join(report.footnotes([row]))


def test_an_engine_that_rests_at_times_tells_its_standing_power(tmp_path):
    law = replace_law(wobble=(0.02, 0.5))
    run = steps.run(tmp_path, "mixed", steps.mixed, law, slots=4, baseline=False, think_s=1.5)
    row = of(split.rows([run]), "energy", "regression")
    assert row["standing"] == "fitted"
    assert row["standing_w"] == pytest.approx(law.standing_w, rel=0.1)
    assert row["per_input_token"] == pytest.approx(law.input_j, rel=0.1)
    assert row["per_output_token"] == pytest.approx(law.decode_j, rel=0.1)


def replace_law(**changes):
    from dataclasses import replace as replace_data

    return replace_data(LAW, **changes)


def test_the_cost_of_context_is_told_where_it_varies(tmp_path):
    law = replace_law(context_j=2e-4, wobble=(0.01, 0.5))
    run = steps.run(tmp_path, "long", lambda n: (2048, 1) if n % 3 else (64, 2000), law, slots=4)
    row = of(split.rows([run]), "energy", "regression")
    assert row["per_output_token_and_1000_context"] == pytest.approx(0.2, rel=0.1)
    assert row["per_input_token"] == pytest.approx(law.input_j, rel=0.05)
    assert "tokens before it take 0.20 J more" in " ".join(report.footnotes([row]))


def test_without_energy_there_is_time(tmp_path):
    rows = [
        row
        for name in ("prefill", "decode", "mixed")
        for row in [steps.run(tmp_path, name, getattr(steps, name), LAW, energy=False)]
    ]
    found = split.rows(rows)
    assert of(found, "engine time", "separate points")["per_output_token"] == pytest.approx(
        DECODE_S, rel=0.01
    )
    for way in ("separate points", "regression"):
        row = of(found, "energy", way)
        assert row["per_input_token"] is None
        assert "energy" in row["undecided"]


def test_an_ordinary_run_gives_time_by_its_ttft(tmp_path):
    """As of the transformers engine on a CPU: one slot, 0.1 s to the first token, 10 tokens of prompt."""
    make.writer(tmp_path, [make.steady(n, 100.0 * n + 1) for n in range(3)]).seal()
    (row,) = [
        row
        for row in split.rows([store.load(tmp_path / "run")])
        if row["quantity"] == "engine time" and row["way"] == "separate points"
    ]
    assert row["per_input_token"] == pytest.approx(0.01)
    assert "TTFT at concurrency 1" in row["basis"]
    assert "by difference" in row["basis"]
    assert row["per_output_token"] == pytest.approx(0.02, rel=0.05)


def test_a_batch_is_not_split(tmp_path):
    point = LoadPoint(mode="batch", concurrency=4)
    make.writer(tmp_path, [make.steady(0, 1.0, point=point)]).seal()
    assert split.rows([store.load(tmp_path / "run")]) == []


def test_counters_that_tell_of_other_work_are_told(tmp_path):
    run = steps.run(tmp_path, "mixed", steps.mixed, window_s=30, repeats=1)
    window = run.manifest.windows[0]
    rows = [
        (t, "engine:m", name, t * rate)
        for t in np.arange(0, window.closed_ns / 1e9 + 2)
        for name, rate in (("prompt_tokens", 1e6), ("generation_tokens", 1.0))
    ]
    steps.add_samples(run.folder, rows)
    notes = split.rows([store.load(run.folder)])[0]["notes"]
    assert "input tokens, its requests had" in notes
    assert "other clients" in notes


def test_heat_that_refuses_the_energy_refuses_its_parts(tmp_path):
    run = steps.run(tmp_path, "mixed", steps.mixed, window_s=30, repeats=2)
    hot = [(t, f"gpu:{steps.GPU}", "clocks_event_reasons", 0x40) for t in np.arange(0, 100, 0.5)]
    steps.add_samples(run.folder, hot)
    row = of(split.rows([store.load(run.folder)]), "energy", "regression")
    assert row["per_input_token"] is None
    assert "heat" in row["undecided"]


# ------------------------------------------------------------------------------------- what is shown


def profile(*words):
    return subprocess.run(
        [sys.executable, "-m", "profiler", "compare", *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
    )


def test_the_command_prints_table_and_json(runs):
    folders = [run.folder for run in runs.values()]
    shown = profile(*folders, "--show", "split", "--price", "2")
    assert shown.returncode == 0, shown.stderr
    assert "regression ÷ points" in shown.stdout
    assert "above standing by, 120" in shown.stdout
    for quantity in ("engine time, GPU-s", "energy, kJ", "cost, USD"):
        assert shown.stdout.count(quantity) == 3
    document = json.loads(profile(*folders, "--show", "split", "--format", "json").stdout)
    assert len(document) == 6


def test_a_run_without_decoding_is_one_clear_error(runs):
    process = profile(runs["prefill"].folder, "--show", "split")
    assert process.returncode == 2
    assert "run scenarios prefill, decode and split" in process.stderr


def test_nothing_but_undecided_is_exit_code_3(tmp_path):
    run = steps.run(tmp_path, "chat", lambda n: (100, 20 + n % 7), repeats=1, window_s=70)
    process = profile(run.folder, "--show", "split")
    assert process.returncode == 3, process.stderr
    assert "undecided: the mix does not vary enough" in " ".join(process.stdout.split())


def test_markdown_and_csv(runs):
    rows = split.rows(list(runs.values()), at(2))
    text = report.TEXTS["md"](rows)
    assert text.count("\n| mixed | 16 | m |") == len(rows)
    assert "* output: tokens after an answer's first" in text
    assert report.TEXTS["csv"](rows).splitlines()[0] == ",".join(split.COLUMNS)


def test_ways_that_contradict_each_other_are_told(runs):
    rows = split.rows(list(runs.values()))
    ratio = of(rows, "energy", "ratio")
    assert "the two ways differ in energy" not in " ".join(report.footnotes([ratio]))
    off = ratio | {"per_input_token": 1.2, "per_input_token_low": 1.1, "per_input_token_high": 1.3}
    assert "differ in energy of input tokens by 20%" in " ".join(report.footnotes([off]))


def test_the_price_of_the_run_is_used(runs, tmp_path):
    manifest = replace(runs["mixed"].manifest, price=Price(usd_per_hour=3.6, per="machine", source="test"))
    run = store.RunResult(runs["mixed"].folder, manifest)
    assert of(split.rows([run]), "cost", "regression")["per_output_token"] == pytest.approx(
        DECODE_S / 1000, rel=0.03
    )


def test_where_every_window_held_failures_nothing_is_divided(tmp_path):
    """What such requests took of the engine is unknown, so no whole is left to compare the parts with."""
    held, records = make.steady(0, 10.0)
    vain = make.request(
        0, len(records), 10.0, first_ns=None, last_ns=None, done_ns=20 * make.S, arrivals_ns=[],
        arrival_tokens=[], output_tokens=0, outcome="first_token_timeout",
    )  # fmt: skip
    make.writer(tmp_path, [(held, [*records, vain])]).seal()
    row = of(split.rows([store.load(tmp_path / "run")]), "engine time", "separate points")
    assert (row["per_output_token"], row["remainder_frac"]) == (None, None)
    assert "requests that never got a token" in row["undecided"]
