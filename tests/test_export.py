"""What other tools read of an export: values, units and holes survive; nothing half-written stays."""

from __future__ import annotations

import csv
import json
import math
import sys

import msgspec
import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from profiler import comparison, exporting, store
from profiler.cli import app
from profiler.comparison.columns import COLUMNS, ENDS, ESTIMATES
from profiler.errors import InputError, StoreError
from profiler.exporting import files, prometheus, tracking, units
from profiler.schema import LoadPoint, Model, Price
from tests import make

HOSTILE = 'a"b\\c\nd{e="f"} 1'
PRICE = Price(usd_per_hour=0.9, per="machine", source="given with --price")


@pytest.fixture
def runs(tmp_path):
    """Two models at two loads; the second has a hostile name and failed requests."""
    folder = tmp_path / "runs"
    for number, name in enumerate(("alpha", HOSTILE)):
        windows = [make.steady(r, 10.0 + 30 * r) for r in range(2)]
        window, rows = make.steady(2, 100.0)
        rows = [
            msgspec.structs.replace(rows[0], outcome="reset", arrivals_ns=[], arrival_tokens=[], status=None),
            *rows[1:],
        ]
        point = LoadPoint(mode="closed", concurrency=8)
        windows.append((msgspec.structs.replace(window, point=point), rows))
        model = Model(name=name, weights="random", facts=make.FACTS)
        make.writer(
            folder, windows, run_id=f"run{number}", unix_ns=(number + 1) * 10**18, model=model, price=PRICE
        ).seal()
    return folder


@pytest.fixture
def rows(runs):
    return comparison.rows(store.find([runs]))


def exported(runs, tmp_path, form, what="table"):
    out = tmp_path / f"{what}.{form}"
    exporting.export([runs], form, out, what)
    return out


def same(read, meant):
    """The texts of a CSV against the row they came from."""
    if meant is None:
        return read == ""
    if isinstance(meant, bool):
        return read == str(meant).lower()
    return float(read) == meant if isinstance(meant, int | float) else read == str(meant)


def test_csv_holds_every_column_and_leaves_holes(runs, rows, tmp_path):
    with exported(runs, tmp_path, "csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == list(COLUMNS)
    assert len(found) == len(rows) == 4
    for read, meant in zip(found, rows, strict=True):
        assert all(same(read[name], meant[name]) for name in COLUMNS)
    assert {read["power_w_mean"] for read in found} == {""}


def test_parquet_is_typed_with_units_and_nulls(runs, rows, tmp_path):
    found = pq.read_table(exported(runs, tmp_path, "parquet"))
    assert found.to_pylist() == rows
    kinds = {field.name: str(field.type) for field in found.schema}
    assert (kinds["ttft_s_p50"], kinds["concurrency"], kinds["model"]) == ("double", "int64", "string")
    assert (kinds["shared_gpu"], kinds["power_w_mean"]) == ("bool", "double")
    unit = {field.name: (field.metadata or {}).get(b"unit") for field in found.schema}
    assert unit["ttft_s_p50_low"] == b"s"
    assert unit["energy_j_per_output_token"] == b"J/token"
    assert unit["model"] is None
    assert found["power_w_mean"].null_count == 4


def test_json_lines_hold_the_same_rows(runs, rows, tmp_path):
    lines = exported(runs, tmp_path, "jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_every_number_of_the_table_has_a_unit(rows):
    for row in rows:
        for name, value in row.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            assert not is_number or units.of(name), name
    for name in ESTIMATES:
        assert units.of(name)
        assert {units.of(end) for end in ENDS[name]} == {units.of(name)}


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        ("usd_per_m_output_tokens_cheapest", "USD/10^6 tokens"),
        ("electricity_usd_per_m_output_tokens", "USD/10^6 tokens"),
        ("price_usd_per_hour", "USD/h"),
        ("ceiling_output_tokens_per_s", "tokens/s"),
        ("memory_kv_used_bytes_max", "bytes"),
        ("temperature_c_mean", "°C"),
        ("power_idle_w", "W"),
        ("energy_counter_j", "J"),
        ("sampler_late_s_max", "s"),
        ("due_ns", "ns"),
        ("notes", None),
        ("status", None),
    ],
)
def test_units(column, unit):
    assert units.of(column) == unit


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_raw_requests_come_with_their_load(runs, tmp_path, form):
    out = exported(runs, tmp_path, form, "requests")
    if form == "parquet":
        found = pq.read_table(out).to_pylist()
    elif form == "jsonl":
        found = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        with out.open(newline="") as file:
            found = list(csv.DictReader(file))
    assert len(found) == 300
    failed = [row for row in found if row["outcome"] == "reset"]
    assert [str(row["concurrency"]) for row in failed] == ["8", "8"]
    assert {row["model"] for row in failed} == {"alpha", HOSTILE}
    assert failed[0]["arrivals_ns"] in ("", [])
    assert failed[0]["status"] in ("", None)
    record = make.request(0, 0, 10.0)
    arrivals = found[0]["arrivals_ns"]
    assert (arrivals.split() if form == "csv" else arrivals) == (
        [str(at) for at in record.arrivals_ns] if form == "csv" else record.arrivals_ns
    )


def test_requests_of_an_older_run_have_holes_where_it_lacks_columns(runs, tmp_path):
    file = runs / "run0" / store.REQUESTS
    older = pq.read_table(file).drop_columns(["cached_tokens", "turn"])
    pq.write_table(older, file)
    make.written_again(file.parent)
    found = pq.read_table(exported(runs, tmp_path, "parquet", "requests"))
    assert found["turn"].null_count == 150
    assert found.num_rows == 300


def test_raw_telemetry(tmp_path):
    run = make.writer(tmp_path / "runs", [make.steady(0, 10.0)])
    run.samples_path.write_bytes(
        make.sample_lines([(1.0, "nvml:0", "power_w", 300.0), (2.0, "rapl", "energy_j", 5)])
    )
    out = tmp_path / "t.parquet"
    exporting.export([run.folder], "parquet", out, "telemetry")
    assert pq.read_table(out).drop_columns(["run", "model", "scenario"]).to_pylist() == [
        {"t_ns": 10**9, "source": "nvml:0", "name": "power_w", "value": 300.0},
        {"t_ns": 2 * 10**9, "source": "rapl", "name": "energy_j", "value": 5.0},
    ]


# ------------------------------------------------------------------------- Prometheus


def gauges(text):
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_prometheus_text_is_read_back_by_its_own_parser(runs, rows, tmp_path):
    found = gauges(exported(runs, tmp_path, "prometheus").read_text())
    family = found["profile_ttft_p50_seconds"]
    assert family.type == "gauge"
    assert [sample.value for sample in family.samples] == [row["ttft_s_p50"] for row in rows]
    assert {sample.labels["model"] for sample in family.samples} == {"alpha", HOSTILE}
    assert {sample.labels["run"] for sample in family.samples} == {"run0", "run1"}
    assert (
        found["profile_upper95_output_tokens_per_second"].samples[0].value
        == rows[0]["output_tokens_per_s_high"]
    )
    assert [s.value for s in found["profile_requests_failed"].samples] == [0, 1, 0, 1]


def test_what_was_not_measured_has_no_sample(runs, rows, tmp_path):
    text = exported(runs, tmp_path, "prometheus").read_text()
    assert "watts" not in text
    assert "nan" not in text.lower()
    odd = [
        row | {"power_w_mean": value} for row, value in zip(rows, (math.nan, math.inf, 0.0, 5.0), strict=True)
    ]
    assert [s.value for s in gauges(prometheus.exposition(odd))["profile_power_mean_watts"].samples] == [
        0.0,
        5.0,
    ]


def test_gauge_names_are_valid_unique_and_end_in_base_units():
    names = [prometheus.name_of(column) for column in (*ESTIMATES, *prometheus.COUNTS)]
    assert len(set(names)) == len(names)
    for name in names:
        assert name.replace("_", "").isalnum()
        assert not name.endswith(("_s", "_w", "_j", "_frac"))


# ------------------------------------------------------------------------- MLflow


@pytest.fixture
def tracked(runs, tmp_path):
    return MlflowClient(tracking_uri=exported(runs, tmp_path, "mlflow").as_uri())


def test_mlflow_reads_its_store(tracked, runs, rows):
    (experiment,) = [each for each in tracked.search_experiments() if each.name == "test"]
    found = {run.info.run_name: run for run in tracked.search_runs([experiment.experiment_id])}
    assert set(found) == {"run0", "run1"}
    run = found["run0"]
    assert (run.info.status, run.info.start_time) == ("FINISHED", 10**12)
    assert run.data.params["model"] == "alpha"
    assert run.data.params["workload.input_tokens"] == "10"
    assert run.data.params["package.torch"] == "2.13.0"
    assert run.data.tags["profile.host"] == "abc"
    history = tracked.get_metric_history(run.info.run_id, "output_tokens_per_s")
    own = [row for row in rows if row["model"] == "alpha"]
    assert {(each.step, each.value) for each in history} == {
        (row["concurrency"], row["output_tokens_per_s"]) for row in own
    }
    assert "power_w_mean" not in run.data.metrics
    assert {each.path for each in tracked.list_artifacts(run.info.run_id)} == {
        "manifest.json",
        "summary.json",
    }
    summary = tracked.download_artifacts(run.info.run_id, "summary.json")
    with open(summary) as file:
        assert json.load(file) == own
    assert found["run1"].data.params["model"] == HOSTILE


def test_open_loads_are_steps_by_place(rows):
    odd = [row | {"concurrency": None, "load_requests_per_s": 1.5} for row in rows[:2]]
    steps = {(name, step, value) for name, value, step in tracking._metrics(odd)}
    assert {("load_requests_per_s", 1, 1.5), ("load_requests_per_s", 2, 1.5)} <= steps
    assert not any(name == "concurrency" for name, _, _ in steps)


def test_without_mlflow_one_line_says_what_to_install(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(InputError, match=r"moe-profiler\[mlflow\]"):
        exporting.export([runs], "mlflow", tmp_path / "store")
    assert not (tmp_path / "store").exists()


# ------------------------------------------------------------------------- writing


@pytest.mark.parametrize("form", exporting.FORMATS)
def test_nothing_is_overwritten(runs, tmp_path, form):
    out = tmp_path / "there"
    out.write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        exporting.export([runs], form, out)
    assert out.read_text() == "mine"


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_a_failure_half_way_leaves_nothing(runs, tmp_path, form, monkeypatch):
    real = files.WRITERS[form]

    def full(tables, path):
        def some():
            for number, each in enumerate(tables):
                if number:
                    raise OSError(28, "No space left on device")
                yield each

        real(some(), path)

    monkeypatch.setitem(files.WRITERS, form, full)
    out = tmp_path / "out" / "requests"
    out.parent.mkdir()
    with pytest.raises(StoreError, match="No space left"):
        exporting.export([runs], form, out, "requests")
    assert list(out.parent.iterdir()) == []


def test_a_failure_half_way_leaves_no_store(runs, tmp_path, monkeypatch):
    def broken(manifest):
        raise RuntimeError("half way")

    monkeypatch.setattr(tracking, "_params", broken)
    with pytest.raises(RuntimeError):
        exporting.export([runs], "mlflow", tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to", "cvs", "--out", "x"), "did you mean 'csv'"),
        (("--to", "csv", "--out", "x", "--what", "request"), "did you mean 'requests'"),
        (("--to", "mlflow", "--out", "x", "--what", "requests"), "raw records go to csv"),
        (("--to", "csv", "--out", "no/such/x"), "there is no folder"),
        (("--to", "csv", "--out", "x", "--price", "-1"), "--price"),
    ],
)
def test_bad_words_are_one_line(runs, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said):
        CliRunner().invoke(app, ["export", str(runs), *words], standalone_mode=False, catch_exceptions=False)
    assert not (tmp_path / "x").exists()
