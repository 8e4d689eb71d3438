"""A few cells of the matrix, one of each kind; `make harden` runs them all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.harden import cell as cells
from tests.harden import matrix
from tests.harden.cell import try_out
from tests.harden.nouns import Case, Expect

pytestmark = pytest.mark.timing

CHOSEN = (
    "server fails everything · warm-up",
    "more tokens than asked · start",
    "characters cut in two · start",
    "refused · warm-up",
    "Ctrl-C · warm-up",
    "engine dies while starting · start",
)
BY_NAME = {cell.name: cell for cell in matrix.cells(matrix.rows())}


@pytest.mark.parametrize("name", CHOSEN)
def test_cell(name, tmp_path):
    cell = BY_NAME[name]
    result = try_out(cell.row.name, cell.phase, cell.case, tmp_path)
    assert not result.failures
    assert result.kept


def test_what_is_not_as_demanded_is_a_failure(tmp_path):
    """A run that nothing strikes, of which much is demanded."""
    expect = Expect(code=4, says="the sky fell", status="failed", outcomes=frozenset({"reset"}))
    case = Case(expect=expect, look=lambda live: live.child("no such process") and None)
    failures = "\n".join(try_out("nothing", "start", case, tmp_path).failures)
    assert "exit code 0, not 4" in failures
    assert "did not say 'the sky fell'" in failures
    assert "the folder is complete, sealed, not failed" in failures
    assert "requests ended with ['cancelled', 'ok'], not ['reset']" in failures
    assert "no process 'no such process' to strike" in failures


def test_what_stays_behind_is_found(tmp_path):
    """A process with the mark of the cell, a file in its folder for temporary ones, half of a file."""

    def litter(live):
        (live.temp / "forgotten").touch()
        (live.out / ".half.json").touch()

    case = Case(expect=Expect(code=0, says=None, status="complete"), strike=litter)
    failures = try_out("nothing", "window", case, tmp_path).failures
    assert failures == ("temporary file forgotten stayed", ".half.json stayed in the results")


def test_a_strike_that_comes_when_the_last_window_is_over_is_no_test_of_a_window():
    live: Any = SimpleNamespace(
        case=SimpleNamespace(strike=lambda _: None, expect=SimpleNamespace(within_s=1)),
        wait_for=lambda _: True,
        marked=list,
        held=SimpleNamespace(note=lambda _: None),
        has=lambda **wanted: wanted == {"event": "window", "windows_left": 0},
        end=lambda _: 0,
    )
    for phase, expected in (("window", ["the harness came too late"]), ("shutdown", [])):
        failures: list[str] = []
        cells._struck(live, phase, failures)
        assert [each.partition(":")[0] for each in failures] == expected
