from __future__ import annotations

import csv
import io
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import alike, comparison, store
from profiler.charts import words
from profiler.report import csv_text, table
from profiler.schema import EngineFacts, Model, Price
from tests import make

PRICE = Price(usd_per_hour=0.9, per="machine", source="given with --price")


@pytest.fixture
def runs(tmp_path):
    for number, name in enumerate(("alpha", "beta")):
        model = Model(name=name, weights="random", facts=make.FACTS)
        whole = [make.steady(r, 10.0 + 30 * r) for r in range(2)]
        held = [(window, records[: 50 - 10 * number]) for window, records in whole]
        make.writer(tmp_path, held, run_id=name, unix_ns=number, model=model, price=PRICE).seal()
    return store.find([tmp_path])


def test_the_public_columns(runs):
    rows = comparison.rows(runs)
    assert [set(row) for row in rows] == [set(comparison.COLUMNS)] * 2
    first = rows[0]
    assert (first["model"], first["kind"], first["engine"], first["load"]) == (
        "alpha",
        "moe",
        "transformers",
        "closed",
    )
    assert first["output_tokens_per_s"] == pytest.approx(25)
    assert first["output_tokens_per_s_low"] == pytest.approx(first["output_tokens_per_s_high"])
    assert first["usd_per_m_output_tokens"] == pytest.approx(0.9 / 3600 / 25 * 1e6)
    assert first["memory_weights_bytes"] == 2000
    assert first["power_w_mean"] is None
    assert (first["gpu"], first["gpus"]) == (None, 0)


def test_a_price_given_at_reading_wins(runs):
    row = comparison.rows(runs, 9.0)[0]
    assert row["usd_per_m_output_tokens"] == pytest.approx(100)
    assert (row["price_usd_per_hour"], row["price_basis"]) == (9.0, "per machine-hour, given with --price")
    assert "9.00 USD" in table.price_lines([row])[0]


def test_a_sheet_prices_each_run_by_its_own_gpu(tmp_path):
    sheet = tmp_path / "two.toml"
    offers = (("A100", 1.0), ("H100", 3.0))
    sheet.write_text(
        "".join(f'[[price]]\ngpu="{g}"\nusd_per_hour={p}\ndate="2026-01-02"\nsource="s"\n' for g, p in offers)
    )
    found = []
    for name in ("NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3"):
        card = msgspec.structs.replace(make.GPU, name=name)
        host = msgspec.structs.replace(make.HOST, gpus=(card,))
        engine = EngineFacts(kind="vllm", version="1", device="cuda", gpus=(card.uuid,))
        found.append(
            make.writer(tmp_path, [make.steady(0, 10.0)], run_id=name[7:11], host=host, engine=engine).folder
        )
    rows = comparison.rows([store.load(folder) for folder in found], str(sheet))
    assert [row["price_usd_per_hour"] for row in rows] == [1.0, 3.0]


def test_dataframe_mirrors_the_rows(runs):
    frame = comparison.compare([run.folder for run in runs])
    assert list(frame.columns) == list(comparison.COLUMNS)
    assert frame["power_w_mean"].isna().all()


def test_gpu_runs_name_their_gpus(tmp_path):
    host = msgspec.structs.replace(make.HOST, gpus=(make.GPU,))
    engine = EngineFacts(kind="vllm", version="1", device="cuda", gpus=("GPU-1",))
    run = make.writer(tmp_path, [make.steady(0, 10.0)], host=host, engine=engine)
    (row,) = comparison.rows([store.load(run.folder)])
    assert (row["gpu"], row["gpus"]) == ("NVIDIA H100 80GB HBM3", 1)


def test_unlike_hosts_are_named(runs, tmp_path):
    other = msgspec.structs.replace(make.HOST, packages={"torch": "2.12.1"})
    strange = make.writer(tmp_path / "other", [], run_id="strange", host=other)
    lines = alike.host_differences([*runs, store.load(strange.folder)])
    assert len(lines) == 1
    assert "torch" in lines[0]
    assert alike.host_differences(runs) == []


def test_best_is_highest_rate_and_lowest_rest(runs):
    rows = comparison.rows(runs)
    assert set(comparison.best(rows, "output_tokens_per_s").values()) == {0}
    assert set(comparison.best(rows, "usd_per_m_output_tokens").values()) == {0}
    assert comparison.best(rows[:1], "output_tokens_per_s") == {}


def test_csv_and_json_carry_every_column_unrounded(runs):
    rows = comparison.rows(runs)
    back = json.loads(comparison.as_json(rows))
    assert back == json.loads(json.dumps(rows))
    assert back[0]["power_w_mean"] is None
    header, first, _ = csv_text.as_csv(rows).splitlines()
    assert header.split(",") == list(comparison.COLUMNS)
    assert len(first.split(",")) >= len(comparison.COLUMNS)


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-(2**53), 2**53),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
            st.sampled_from(['a,"b"', "null", "true\r\n", "1,null", " "]),
        ),
        min_size=2,
        max_size=6,
    )
)
def test_csv_is_read_back_as_it_was(values):
    columns = [str(n) for n in range(len(values))]
    text = csv_text.as_csv([dict(zip(columns, values, strict=True))], columns)
    _, line = csv.reader(io.StringIO(text, newline=""))
    for cell, value in zip(line, values, strict=True):
        if isinstance(value, float):
            assert float(cell) == value
        else:
            assert cell == ("" if value is None else str(value))


def test_a_table_of_paths_takes_the_options_of_the_command(runs):
    folders = [run.folder for run in runs]
    frame = comparison.compare(
        folders, price=9, utilization=0.5, where=["model=beta"], baseline="beta", sort="model"
    )
    assert list(frame.model) == ["beta"]
    assert frame.usd_per_m_output_tokens[0] == pytest.approx(9 / 3600 / 20 * 1e6 * 2)
    assert frame.output_tokens_per_s_ratio[0] == 1
    pooled = comparison.compare(folders, by=["kind"])
    assert list(pooled.runs) == [1, 1], "two models are never pooled"


def test_markdown_marks_the_best_and_says_na(runs):
    text = table.markdown(comparison.rows(runs))
    assert "**25.0" in text
    assert "n/a" in text
    assert "0.80×" in text


def test_terminal_table_fits_its_words(runs):
    from rich.console import Console

    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table.rich_table(comparison.rows(runs)))
    text = console.export_text()
    assert "25.0" in text
    assert "★" in text


def test_footnotes_say_what_the_numbers_rest_on(runs):
    notes = "\n".join(table.footnotes(comparison.rows(runs), []))
    assert "2 repeats" in notes
    assert "random weights" in notes


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "n/a"), (0, "0"), (1780.4, "1,780"), (0.04213, "0.0421"), (5.0, "5.00"), (123456, "123,456")],
)
def test_significant(value, text):
    assert words.significant(value) == text


def test_hostile_names_stay_text(runs):
    from rich.console import Console

    rows = [row | {"model": "[red]x[/red]|<script>"} for row in comparison.rows(runs)]
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(table.rich_table(rows))
    assert "[red]x[/red]|<script>" in console.export_text()
    assert r"| \[red\]x\[/red\]\|\<script\> |" in table.markdown(rows)


def test_names_command_no_terminal_and_break_no_line(runs):
    rows = [row | {"model": "a\x1b[31m\x07\nb"} for row in comparison.rows(runs)]
    headers, texts, _ = table.cells(rows)
    assert {text[headers.index("model")] for text in texts} == {"a [31m b"}
    assert len(table.markdown(rows).splitlines()) == 2 + len(rows)


def test_a_narrow_terminal_keeps_the_columns_that_decide(runs):
    headers, _, _ = table.cells(comparison.ordered(comparison.rows(runs)), width=80)
    assert "tokens/s out" in headers
    assert "USD/M out" in headers
    assert "ITL p99" not in headers


def test_what_tells_rows_apart_is_shown(runs):
    rows = comparison.rows(runs)
    same = [
        row | {"model": "m", "engine": engine}
        for row, engine in zip(rows, ("vllm", "transformers"), strict=True)
    ]
    headers, texts, _ = table.cells(comparison.ordered(same))
    assert "engine" in headers
    assert {line[headers.index("engine")] for line in texts} == {"vllm", "transformers"}
    again = [row | {"model": "m"} for row in rows]
    headers, texts, _ = table.cells(comparison.ordered(again))
    assert len({line[headers.index("run")] for line in texts}) == 2
    assert "engine" not in table.cells(comparison.ordered(rows))[0]


def test_a_run_without_finished_windows_is_named(tmp_path):
    run = make.writer(tmp_path, [], run_id="cut")
    run.update(status="interrupted")
    found = store.load(run.folder)
    assert any("cut" in line and "interrupted" in line for line in table.empty_runs([found]))


def test_a_remote_engine_is_not_given_this_machines_probes_as_excuse(tmp_path):
    engine = EngineFacts(kind="endpoint", version=None, device="remote")
    run = make.writer(tmp_path, [make.steady(0, 10.0)], engine=engine)
    (row,) = comparison.rows([store.load(run.folder)])
    assert row["power_w_mean"] is None
    assert "runs elsewhere" in row["notes"]
    assert "nvml" not in row["notes"]
