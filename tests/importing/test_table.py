"""Tables: the shipped one of ML.ENERGY's published figures, and tables of all spellings."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import alike, comparison, figures, importing, metrics, store
from profiler.errors import InputError
from profiler.importing import Given
from profiler.schema import LoadPoint

SHIPPED = Path(__file__).parents[2] / "docs" / "mlenergy-h100.csv"
ROW = {"model": "Qwen/Qwen3-14B", "gpu": "H100", "num_gpus": "1", "max_num_seqs": "8"}
ROW |= {"output_throughput_tokens_per_sec": "627.4", "energy_per_token_joules": "0.706"}


@pytest.fixture
def table(tmp_path, imported):
    """Runs of a table of these rows, as CSV or JSON."""

    def runs(*rows, name="table.csv", **given):
        path = tmp_path / name
        if name.endswith(".json"):
            path.write_text(json.dumps(rows[0] if len(rows) == 1 else rows))
        else:
            text = io.StringIO()
            writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)
            path.write_text(text.getvalue())
        return imported(path, **given)

    return runs


def test_the_shipped_table_gives_the_published_costs(imported):
    """moe_cost's sums by hand: 3.99 USD an hour over 627.413 tokens/s are 1.77 USD per million."""
    runs = imported(SHIPPED, price="3.99")
    found = {(each.model, each.point.concurrency): each for each in figures.of_runs(runs)}
    assert len(runs) == 3
    assert len(found) == 13
    one = found["Qwen/Qwen3-30B-A3B-Instruct-2507", 32]
    assert one.estimates["energy_j_per_output_token"].value == 0.335686
    assert one.estimates["itl_s_p50"].value == pytest.approx(0.022571)
    assert (one.gpu, one.gpus, one.facts["kind"]) == ("H100 SXM5 80GB", 1, "moe")
    rows = comparison.rows(runs)
    usd = {(row["model"], row["concurrency"]): row["usd_per_m_output_tokens"] for row in rows}
    assert usd["Qwen/Qwen3-14B", 8] == pytest.approx(3.99 / 3600 / 627.413 * 1e6)
    assert usd["Qwen/Qwen3-30B-A3B-Instruct-2507", 96] == pytest.approx(0.417, rel=1e-3)
    assert usd["Qwen/Qwen3-32B", 16] == pytest.approx(1.88, rel=1e-2)
    assert all(row["usd_per_m_output_tokens_low"] is None for row in rows)
    assert {row["gpus"] for row in rows} == {1}


def test_watts_are_joules_times_tokens(imported):
    """Two columns of one measurement agree: nothing was taken for something else."""
    for run in imported(SHIPPED):
        for point in metrics.points(run):
            each = {name: point.estimates[name].value for name in ("power_w_mean", "output_tokens_per_s")}
            joules = point.estimates["energy_j_per_output_token"].value
            assert each["power_w_mean"] / each["output_tokens_per_s"] == pytest.approx(joules, rel=1e-3)


def test_energy_of_another_watt_is_the_slope_over_its_loads(imported):
    (dense, *_) = imported(SHIPPED)
    slopes = {point.estimates["energy_marginal_j_per_output_token"].value for point in metrics.points(dense)}
    assert len(slopes) == 1
    assert 0.02 < slopes.pop() < 0.05


def test_its_own_json(table):
    configuration = {
        "model_id": "Qwen/Qwen3-14B",
        "gpu_model": "H100",
        "num_gpus": 1,
        "max_num_seqs": 128,
        "max_num_batched_tokens": None,
        "median_itl_ms": 26.163955,
        "p90_itl_ms": 29.976,
        "output_throughput_tokens_per_sec": 4474.35,
        "energy_per_token_joules": 0.127858,
        "avg_power_watts": 572.083,
        "weight_precision": "bfloat16",
        "tensor_parallel": 1,
        "nickname": "Qwen 3 14B",
    }
    other = configuration | {"expert_parallel": 2, "num_gpus": 2}
    runs = table({"task": "lm-arena-chat", "configurations": [configuration, other]}, name="chat.json")
    assert [len(run.manifest.engine.gpus) for run in runs] == [1, 2]
    (point,) = metrics.points(runs[0])
    assert point.point == LoadPoint(mode="closed", concurrency=128)
    assert point.estimates["itl_s_p90"].value == pytest.approx(0.029976)
    assert runs[0].manifest.imported.precision == "bfloat16"
    assert runs[0].manifest.scenario.name == "a table lm-arena-chat"
    assert alike.fingerprint(runs[0]) != alike.fingerprint(runs[1])


def test_our_own_names_bring_their_intervals(table):
    row = {"model": "m", "concurrency": "4", "requests_ok": "90", "requests_failed": "0"}
    row |= {"output_tokens_per_s": "100", "output_tokens_per_s_low": "95", "output_tokens_per_s_high": "106"}
    row |= {"ttft_s_p99": "0.5", "p50_e2el_ms": "1500", "Mean TTFT (ms)": "200"}
    ((point,),) = [metrics.points(run) for run in table(row)]
    rate = point.estimates["output_tokens_per_s"]
    assert (rate.value, rate.low, rate.high, rate.n) == (100, 95, 106, 90)
    assert point.estimates["e2e_s_p50"].value == 1.5
    assert point.estimates["ttft_s_mean"].value == 0.2
    assert point.estimates["ttft_s_p99"].value == 0.5
    assert point.requests_failed == 0
    assert point.failures == {}


def test_empty_is_not_measured(table):
    (run,) = table(ROW | {"energy_per_token_joules": "", "median_itl_ms": "12"})
    (point,) = metrics.points(run)
    assert point.estimates["energy_j_per_output_token"] is None
    assert point.estimates["ttft_s_p50"] is None
    assert point.requests_ok is None
    assert point.requests_failed is None


def test_an_open_load(table):
    (run,) = table({"model": "m", "request_rate": "2.5", "tokens_per_s": "100"})
    assert metrics.points(run)[0].point == LoadPoint(mode="open", requests_per_s=2.5)


def test_a_cell_too_many_shifts_the_others(tmp_path, imported):
    path = tmp_path / "table.csv"
    path.write_text("model,concurrency,tokens/s,power_w\nm,8,1,234,400\n")
    with pytest.raises(InputError, match="row 2: 5 cells for 4 columns"):
        imported(path)


@pytest.mark.parametrize("row", [{"model": ["a"]}, {"tensor_parallel": {"x": 1}}, {"concurrency": True}])
def test_json_of_other_types(table, row):
    with pytest.raises(InputError, match=r"row 1: .* expected a"):
        table(ROW | row, name="table.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"output_throughput_tokens_per_sec": "fast"}, "row 2: output_throughput_tokens_per_sec is 'fast'"),
        (
            {"energy_per_token_joules": "0"},
            "row 2: energy_per_token_joules is '0', expected a positive number",
        ),
        ({"energy_per_token_joules": "-1"}, "expected a positive number"),
        ({"energy_per_token_joules": "nan"}, "expected a positive number"),
        ({"num_gpus": "1.5"}, "gpus is 1.5, expected a whole number"),
        ({"num_gpus": ""}, "how many H100"),
        ({"max_num_seqs": ""}, "row 2: at which load"),
        ({"model": ""}, "does not say which model"),
        ({"date": "yesterday"}, "date is 'yesterday'"),
        ({"metric": "x", "value": "1"}, "a row a figure"),
        ({"tokens/s": "5"}, "two columns for output_tokens_per_s"),
        ({"Num GPUs": "2"}, "two columns are called num_gpus"),
        ({"max_num_seqs": "8.5"}, "max_num_seqs is 8.5, expected a whole number"),
        ({"num_gpus": "1000000000"}, "no run is known on more than"),
        ({"energy_per_token_joules_low": "0.8"}, "0.706 lies outside its interval"),
        ({"engine": "a\nb"}, "expected a word or a number"),
    ],
)
def test_what_is_wrong_is_named(table, tmp_path, change, said):
    with pytest.raises(InputError, match=said) as error:
        table(ROW | change)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("results/*"))


def test_two_rows_of_one_load(table):
    with pytest.raises(InputError, match="row 3: a second row of the same load"):
        table(ROW, ROW | {"energy_per_token_joules": "0.8"})


def test_of_several_runs_all_are_written_or_none(table, tmp_path):
    rows = (ROW, ROW | {"model": "Qwen/Qwen3-8B"})
    first, second = (run.folder for run in table(*rows))
    shutil.rmtree(first)
    with pytest.raises(InputError, match=f"with other words about it, as {second}"):
        table(*rows, engine="sglang")
    assert [each.name for each in second.parent.iterdir()] == [second.name]


def test_the_gpu_of_a_table_need_not_be_known(table):
    (run,) = table(ROW | {"gpu": "Groq LPU"})
    assert alike.gpu_name(run) == "Groq LPU"
    assert run.manifest.price is None
    with pytest.raises(InputError, match="--gpu Grok: no such GPU"):
        table(ROW, gpu="Grok")


FIGURES = st.floats(1e-6, 1e9)


@given(rate=FIGURES, joules=FIGURES, itl_ms=FIGURES)
def test_what_is_written_is_read(tmp_path_factory, rate, joules, itl_ms):
    folder = tmp_path_factory.mktemp("table")
    path = folder / "t.csv"
    path.write_text(
        f"Model,Batch,tokens/s,J/token,median ITL (ms),remarks\nm,4,{rate!r},{joules!r},{itl_ms!r},x\n"
    )
    (written,) = importing.run_folders(path, folder / "results", Given())
    (point,) = metrics.points(store.load(written.folder))
    assert point.estimates["output_tokens_per_s"].value == rate
    assert point.estimates["energy_j_per_output_token"].value == joules
    assert point.estimates["itl_s_p50"].value == pytest.approx(itl_ms / 1e3)
