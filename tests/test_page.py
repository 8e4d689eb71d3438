"""What stands below the tables: the same in a terminal and as Markdown."""

from __future__ import annotations

import csv
import io
import json

import msgspec
import pytest

from profiler import comparison, store
from profiler.cli import compare
from profiler.cli.base import console
from profiler.comparison import Question
from profiler.errors import InputError
from profiler.report import energy, page, table
from profiler.schema import Gpu, Imported, Model, Price
from tests import make
from tests.test_consumption import BOARD, HOST, board_rows, sealed, slow_rows
from tests.test_doctor import found
from tests.test_verdicts import rate, run_of


@pytest.fixture
def runs(tmp_path):
    """A simulated board that heat held back, so that its energy is refused."""
    made_up = Gpu(uuid=BOARD, name="H100 (simulated)", memory_bytes=None)
    host = msgspec.structs.replace(HOST, gpus=(made_up,))
    hot = slow_rows("clocks_event_reasons", 0x40)
    return [sealed(tmp_path, board_rows() + hot, host=host)]


def terminal(rows, runs):
    from rich.console import Console

    console = Console(width=2000, record=True, file=io.StringIO())
    page.show(rows, runs, console)
    return console.export_text()


def test_markdown_says_all_that_the_terminal_says(runs):
    rows = comparison.rows(runs, price=2.0)
    shown, written = terminal(rows, runs).splitlines(), page.markdown(rows, runs).splitlines()
    said = [line.removeprefix(page.BULLET) for line in shown if line.startswith(page.BULLET)]
    assert [line.removeprefix("* ") for line in written if line.startswith("* ")] == said
    assert any("its power and energy are made up" in line for line in said)
    assert any("heat" in line for line in said), "why energy is refused"
    assert any(line.startswith("price: 2.00 USD") for line in said)
    assert any(line.startswith(energy.FLAG) for line in said)


def test_a_narrow_terminal_breaks_no_number_and_a_name_is_no_emoji(runs, capsys, monkeypatch):
    """``5,741`` in two lines reads as 5,74."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    (row,) = comparison.rows(runs, price=2)
    rows = [row | {"model": "sim:b:", "memory_peak_bytes": 123.4 * 2**30, "requests_ok": 1234567}]
    page.show(rows, runs, console())
    said = capsys.readouterr().out
    assert "sim:b:" in said
    assert {"123", "1,234,567"} <= {*said.split()}


def test_the_command_prints_that_page(runs, capsys):
    compare.compare_runs([run.folder for run in runs], form="md")
    assert capsys.readouterr().out == page.markdown(comparison.rows(runs), runs)


def test_markdown_has_both_tables_each_above_its_notes(runs):
    cost, notes, joules, more, rest = page.markdown(comparison.rows(runs, price=2), runs).split("\n\n")
    assert cost.startswith("| conc |")
    assert "| idle W |" in joules
    assert "100 (loaded)" in joules
    assert "± half" in notes or "one repeat" in notes
    assert more.startswith("* energy of the boards")
    assert rest.startswith("* price: 2.00 USD per gpu-hour, given with --price; rented, at 100 % utilisation")


def test_a_search_and_the_clients_own_error_are_in_it(tmp_path):
    windows = [rate(0, 10.0), rate(1, 20.0, late=100), rate(2, 14.0), rate(3, 14.5, late=100)]
    runs = [run_of(tmp_path, windows, calibration=found())]
    text = page.markdown(comparison.rows(runs), runs)
    assert "* capacity 14 requests/s" in text
    assert "* missed at 14.5: TTFT p99" in text
    assert "* SLO: TTFT p99 ≤ 500 ms" in text
    assert "* client error on this machine at 1,000 chunks/s" in text


def test_without_energy_there_is_one_table(tmp_path):
    runs = [sealed(tmp_path, [])]
    assert page.markdown(comparison.rows(runs), runs).count("\n|---") == 1
    assert "| idle W |" not in page.markdown(comparison.rows(runs), runs)


def test_a_run_without_a_window_is_named(tmp_path):
    run = make.writer(tmp_path, [], run_id="cut")
    run.update(status="interrupted")
    assert "* cut" in page.markdown([], [store.load(run.folder)])


# ------------------------------------------------------------------------------------- many runs


@pytest.fixture
def many(tmp_path):
    """Three sealed runs of one model and two of another, at one load, priced 1 to 5 USD/h."""
    for number, name in enumerate(("alpha", "alpha", "alpha", "beta", "beta")):
        model = Model(name=name, weights="random", facts=make.FACTS)
        price = Price(usd_per_hour=1.0 + number, per="machine", source="test", date="2026-01-02")
        make.writer(
            tmp_path,
            [make.steady(0, 10.0, 50 - 5 * number)],
            run_id=f"run-{number}",
            unix_ns=number,
            model=model,
            price=price,
        ).seal()
    return tmp_path


def printed(capsys, *words, **options):
    compare.compare_runs([*words], **options)
    return capsys.readouterr().out


def test_a_table_shows_the_first_rows_and_counts_the_others(many, capsys, monkeypatch):
    monkeypatch.setattr(compare, "MOST_ROWS", 2)
    text = printed(capsys, many, form="md", sort="-output_tokens_per_s")
    assert text.count("| alpha |") == 2
    assert "| beta |" not in text
    assert "* 3 more rows, not looked at for ★: choose with --where, --by or --sort;" in text
    assert len(printed(capsys, many, form="csv").splitlines()) == 6
    assert len(json.loads(printed(capsys, many, form="json"))) == 5


def test_of_many_runs_nothing_is_said_of_single_ones(many, capsys, monkeypatch):
    monkeypatch.setattr(page, "_of_runs", lambda rows, runs: [f"told of {len(runs)}"])
    assert "* told of 5" in printed(capsys, many, form="md")
    monkeypatch.setattr(compare, "MOST_RUNS", 4)
    text = printed(capsys, many, form="md")
    assert "told of 5" not in text
    assert "are told of up to 4 runs" in text


def test_rows_stand_in_the_order_asked_for_with_the_column_it_is_by(many, capsys):
    text = printed(capsys, many, form="md", sort="-price_usd_per_hour", where=["price_usd_per_hour>=3"])
    header, _, *lines = (line.split(" | ") for line in text.splitlines() if line.startswith("|"))
    assert [line[header.index("price_usd_per_hour")] for line in lines] == ["5.00", "4.00", "3.00"]


def test_groups_and_ratios_are_told_with_what_they_rest_on(many, capsys):
    text = printed(capsys, many, form="md", by="model", baseline="alpha", price="2")
    cost, notes, ratios, meaning, *_ = text.split("\n\n")
    assert "| runs |" in cost
    assert "mean of 2–3 runs, ± half its 95 % interval over runs;" in notes
    assert "| over |" not in ratios, "it is the same in each row"
    assert "1.00× |" in ratios
    assert meaning.startswith("* × over alpha, 3 runs at the same load; in brackets 95 % by Welch's t")


def test_the_price_is_told_with_its_age_basis_and_utilisation(many, capsys):
    text = printed(capsys, many / "run-0", form="md", utilization="0.5")
    assert "* price: 1.00 USD per machine-hour, test, 2026-01-02 (" in text
    assert " days ago); rented, at 0.5 utilisation; the whole bill on output tokens" in text


def test_many_prices_are_not_told_one_by_one(many, capsys, monkeypatch):
    monkeypatch.setattr(table, "MOST_PRICES", 2)
    text = printed(capsys, many, form="md")
    assert text.count("* price: ") == 2
    assert "3 further prices: price_usd_per_hour" in text


def test_json_and_csv_have_the_columns_of_a_baseline(many, capsys):
    (header, *lines) = csv.reader(io.StringIO(printed(capsys, many, form="csv", baseline="run-4")))
    assert header == list(Question(baseline="run-4").columns)
    assert {len(line) for line in lines} == {len(header)}
    rows = json.loads(printed(capsys, many, form="json", baseline="run-4"))
    assert [row["output_tokens_per_s_ratio"] for row in rows][-1] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"show": "memroy"}, "did you mean 'memory'"),
        ({"show": "split", "by": "model"}, "--show cost, not of split"),
        ({"form": "xml"}, "no such format"),
        ({"utilization": "0"}, "utilization"),
        ({"utilization": "1.5"}, "utilization"),
        ({"price": "-1"}, "price"),
        ({"pue": "0.9"}, "pue"),
        ({"basis": "bought"}, "basis"),
        ({"by": "modle"}, "did you mean 'model'"),
    ],
)
def test_what_cannot_be_done_is_said(many, options, said):
    with pytest.raises(InputError, match=said):
        compare.compare_runs([many], **options)


def test_imported_runs_are_marked(tmp_path, capsys):
    told = Imported(tool="guidellm", version="0.3", file="x.json", sha256="0" * 64)
    make.writer(tmp_path, [make.steady(0, 10.0)], run_id="ours").seal()
    make.writer(tmp_path, [make.steady(0, 10.0)], run_id="theirs", imported=told).seal()
    text = printed(capsys, tmp_path, form="md")
    assert "| imported from |" in text.splitlines()[0]
    assert "| guidellm 0.3 |" in text
    assert "* imported, measured by another tool and in its way: m by guidellm 0.3" in text
    assert "imported" not in printed(capsys, tmp_path / "ours", form="md")


@pytest.mark.parametrize("form", ["table", "md", "csv", "json"])
def test_a_run_without_a_window_is_said_to_be_one(tmp_path, capsys, form):
    make.writer(tmp_path, [], run_id="cut").update(status="interrupted")
    text = printed(capsys, tmp_path / "cut", form=form)
    if form in ("table", "md"):
        assert text.strip().lstrip("·* ") == "cut: interrupted before its first window was finished"
