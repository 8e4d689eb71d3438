"""The energy table: shown where energy was read, silent where it was not."""

from __future__ import annotations

import io

import pytest

from profiler import comparison
from profiler.report import energy, table
from tests import make
from tests.test_consumption import board_rows, rapl_rows, scenario, sealed, slow_rows


def text(rows):
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table.rich_table(rows, 200, energy.SHOWN))
    return console.export_text()


@pytest.fixture
def rows(tmp_path):
    run = sealed(tmp_path, [*board_rows(), *rapl_rows(), *slow_rows("clocks_event_reasons", 0x4)])
    return comparison.rows([run], pue=1.5)


def test_every_figure_has_its_place(rows):
    (head, _, line) = (each for each in text(rows).splitlines() if each.strip())
    for header, shown in {
        "W": "300",
        "idle W": "100 (loaded)",
        "J/token": "12.0",
        "± sensor": "5%",
        "net": "8.00",
        "host": "16.0",
        "facility": "24.0",
        "counter J": "6,000",
        "integral J": "6,000",
        "throttled": "power 100%",
    }.items():
        assert header in head
        assert shown in line
    notes = "\n".join(energy.footnotes(rows))
    assert "the boards (NVML)" in notes
    assert "PUE 1.5" in notes
    assert energy.FLAG not in notes


def test_columns_that_nobody_has_are_left_out(tmp_path):
    found = comparison.rows([sealed(tmp_path, board_rows())])
    headers, texts, _ = table.cells(found, shown=energy.SHOWN)
    assert "facility" not in headers
    assert "host" not in headers
    assert "throttled" not in headers
    assert texts[0][headers.index("J/token")] == "12.0"


def test_what_is_doubtful_is_flagged(tmp_path):
    found = comparison.rows([sealed(tmp_path, board_rows() + slow_rows("foreign_processes", 1, 60))])
    assert f"12.0 {energy.FLAG}" in text(found)
    assert any(note.startswith(energy.FLAG) for note in energy.footnotes(found))


def test_refused_energy_is_not_a_number(tmp_path):
    found = comparison.rows([sealed(tmp_path, board_rows() + slow_rows("clocks_event_reasons", 0x40))])
    shown = text(found)
    assert f"n/a {energy.FLAG}" in shown
    assert "heat 100%" in shown


def test_nothing_is_printed_where_nothing_was_read(tmp_path):
    found = comparison.rows([sealed(tmp_path, [])])
    assert energy.measured(found) == []


def test_of_the_cpu_it_says_so(tmp_path):
    engine = make.manifest("r").engine
    found = comparison.rows([sealed(tmp_path, rapl_rows(), engine=engine, scenario=scenario(pue=1.1))])
    assert "the CPU packages and their memory (RAPL)" in energy.footnotes(found)[0]
    headers, _, _ = table.cells(found, shown=energy.SHOWN)
    assert "integral J" not in headers
