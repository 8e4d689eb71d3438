"""What stands below the tables: the same in a terminal and as Markdown."""

from __future__ import annotations

import io

import msgspec
import pytest

from profiler import comparison, store
from profiler.cli import compare
from profiler.report import energy, page
from profiler.schema import Gpu
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


def test_the_command_prints_that_page(runs, capsys):
    compare.compare_runs([run.folder for run in runs], form="md")
    assert capsys.readouterr().out == page.markdown(comparison.rows(runs), runs)


def test_markdown_has_both_tables_each_above_its_notes(runs):
    cost, notes, joules, more, rest = page.markdown(comparison.rows(runs), runs).split("\n\n")
    assert cost.startswith("| conc |")
    assert "| idle W |" in joules
    assert "100 (loaded)" in joules
    assert "± half" in notes or "one repeat" in notes
    assert more.startswith("* energy of the boards")
    assert rest.startswith("* no price")


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
