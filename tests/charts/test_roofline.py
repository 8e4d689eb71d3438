"""The roofline of runs whose every operation and byte is known by hand."""

from __future__ import annotations

import pytest

from profiler import store
from profiler.charts import roofline
from profiler.charts.nouns import Absent
from profiler.schema import EngineFacts
from tests import make
from tests.charts.valid import checked
from tests.test_utilisation import (  # noqa: F401  the sheet is a fixture
    DENSE,
    GB,
    MOE,
    TERA,
    UNIFORM,
    model,
    request_bytes,
    request_work,
    run,
    sheet,
    uniform,
)


def test_a_load_lies_where_its_work_and_bytes_say(tmp_path, sheet):  # noqa: F811
    under, shares = (checked(each) for each in roofline.of_run(run(tmp_path)))
    (row,) = [row for row in under.rows if row["kind"] == roofline.MEASURED]
    moved, worked = request_bytes(2, uniform(10)), request_work(2)
    assert row["load"] == "1"
    assert row["flops_per_byte"] == pytest.approx(worked / moved)
    assert row["tflops"] == pytest.approx(5 * worked / TERA)
    assert row["ceiling_tflops"] == pytest.approx(worked / moved * 10 * GB / TERA)
    assert row["share"] == pytest.approx(5 * moved / (10 * GB))
    found = {row["measure"]: row["share"] for row in shares.rows}
    assert found["S-MBU"] == pytest.approx(row["share"])
    assert found["S-MFU"] == pytest.approx(row["tflops"])
    assert found["MBU, bandwidth"] == pytest.approx(5 * request_bytes(32, 32) / (10 * GB))
    assert "measured: cpu, a test" in " ".join(under.notes)


def test_the_lines_meet_where_bandwidth_and_rate_are_equal(tmp_path, sheet):  # noqa: F811
    under, _ = roofline.of_run(run(tmp_path))
    lines = [row for row in under.rows if row["kind"] == roofline.CEILING]
    left, ridge, right = sorted(lines, key=lambda row: row["flops_per_byte"])
    assert ridge["flops_per_byte"] == pytest.approx(TERA / (10 * GB))
    assert left["tflops"] == pytest.approx(left["flops_per_byte"] * 10 * GB / TERA)
    assert ridge["tflops"] == right["tflops"] == pytest.approx(1)


def test_intervals_are_the_token_rates(tmp_path, sheet):  # noqa: F811
    made = [make.steady(0, 10.0), make.steady(1, 40.0)]
    made[1] = (made[1][0], made[1][1][:45])
    make.writer(tmp_path, made, model=model(MOE), engine=UNIFORM).seal()
    under, shares = (checked(each) for each in roofline.of_run(store.load(tmp_path / "run")))
    (row,) = [row for row in under.rows if row["kind"] == roofline.MEASURED]
    assert row["low"] < row["tflops"] < row["high"]
    assert all(row["low"] < row["share"] < row["high"] and row["n"] == 2 for row in shares.rows)


def test_a_single_window_says_that_nothing_bounds_it(tmp_path, sheet):  # noqa: F811
    _, shares = roofline.of_run(run(tmp_path))
    bounded = all(row["low"] is not None for row in shares.rows)
    assert bounded != any("no interval" in note for note in shares.notes)


def test_a_dense_model_has_no_sparse_measures(tmp_path, sheet):  # noqa: F811
    engine = EngineFacts(kind="transformers", version="5", device="cpu")
    facts = make.msgspec.structs.replace(make.FACTS, kind="dense")
    dense = make.Model(name="m", weights="random", config=DENSE, facts=facts)
    _, shares = roofline.of_run(run(tmp_path, engine=engine, model=dense))
    assert not any(row["measure"].startswith("S-") for row in checked(shares).rows)


def test_without_ceilings_both_say_how_to_get_them(tmp_path):
    found = roofline.of_run(run(tmp_path))
    assert [type(each) for each in found] == [Absent, Absent]
    assert all("doctor --measure" in each.reason for each in found)


def test_without_a_config_there_is_no_work_to_count(tmp_path, sheet):  # noqa: F811
    found = roofline.of_run(run(tmp_path, config=None))
    assert all(isinstance(each, Absent) for each in found)


def test_without_a_steady_load_it_says_so(tmp_path, sheet):  # noqa: F811
    held = make.window(0, 10, 20, steady_start_ns=None, steady_end_ns=None)
    make.writer(tmp_path, [(held, [])], model=model(MOE), engine=UNIFORM).seal()
    found = roofline.of_run(store.load(tmp_path / "run"))
    assert [each.reason for each in found] == ["no load was steady"] * 2
